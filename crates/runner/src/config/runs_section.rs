//! The section `[runs]`: where runs are kept, how often they are saved, and for how long their owner may be silent. None of
//! it is part of a run's identity.

use super::launcher::Refused;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where runs are kept, and how often they are saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsSection {
    /// The folder.
    pub root: PathBuf,
    /// Seconds between checkpoints; on the CPU 0 (one after each epoch), on a GPU 60 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_seconds: Option<f64>,
    /// Seconds without a sign of life after which the process that works on a run counts as dead on other machines;
    /// 60 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<f64>,
}

impl RunsSection {
    /// Checks the values.
    pub(super) fn check(&self) -> Result<(), Refused> {
        if let Some(seconds) =
            self.checkpoint_seconds.filter(|&seconds| !(seconds.is_finite() && seconds >= 0.0))
        {
            return Err((
                "runs.checkpoint_seconds",
                seconds.to_string(),
                "a number of at least 0".to_owned(),
            ));
        }
        if let Some(seconds) = self.lease_seconds.filter(|seconds| !(1.0..=86_400.0).contains(seconds)) {
            return Err(("runs.lease_seconds", seconds.to_string(), "a number from 1 to 86400".to_owned()));
        }
        Ok(())
    }
}
