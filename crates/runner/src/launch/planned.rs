//! A run that is to be: what to do, on what, and what to call it.

use std::path::Path;

use invaspread_data::DataConfig;

use super::LaunchError;
use super::inspect::{Depth, Finished, look};
use crate::engine::Recipe;
use crate::record::{Fault, Layout, RecordError, Status};

/// A run that is to be.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The suite it belongs to; `None` for a run of its own.
    pub suite: Option<String>,
    /// What training does.
    pub recipe: Recipe,
    /// What it trains on.
    pub data: DataConfig,
    /// Text of the resolved config, without what is no part of the run's identity.
    pub config: String,
    /// Hash of that text.
    pub hash: String,
    /// What its record says of it.
    pub labels: Labels,
}

/// Names for the record; nothing is computed from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The table's row.
    pub row: String,
    /// What tables call the row, where its key is the method's name or a suite says it.
    pub label: Option<String>,
    /// The method.
    pub method: String,
    /// The data set.
    pub dataset: String,
    /// The profile.
    pub profile: String,
    /// "cpu" or "cuda".
    pub device: String,
    /// The network.
    pub model: String,
    /// The protocol.
    pub protocol: String,
    /// What was asked for beside the suite, as typed; seed, profile, device and folders are said elsewhere or are this machine's.
    pub arguments: Vec<String>,
    /// Those of the arguments in which the runs of a sweep differ, beside seed and method.
    pub varied: Vec<String>,
    /// Whether images, width or epochs are fewer than the paper's.
    pub reduced: bool,
}

/// How far a planned run is already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No such run yet: it is new, or its config has changed since.
    New,
    /// It was begun, and this many epochs are through.
    Begun {
        /// Whole epochs.
        epoch: u64,
    },
    /// It is finished.
    Done,
    /// It is finished, and some of its files are missing or damaged.
    Incomplete {
        /// Which, and what is wrong with them.
        faults: Vec<Fault>,
    },
}

impl Planned {
    /// `<hash>-s<seed>`.
    pub fn id(&self) -> String {
        format!("{}-s{}", self.hash, self.recipe.seed)
    }

    /// Returns what to call it on one line.
    pub fn title(&self) -> String {
        format!("{} (seed {})", self.title_of_all_seeds(), self.recipe.seed)
    }

    /// Returns what to call it and the same run with other seeds.
    pub fn title_of_all_seeds(&self) -> String {
        let named = std::iter::once(&self.labels.row).chain(&self.labels.varied);
        named.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Where its files are under `root` (`runs.root`).
    pub fn layout(&self, root: &Path) -> Layout {
        Layout::new(root, self.suite.as_deref(), &self.id())
    }

    /// Returns how far it is already. A status that cannot be made out counts as one of no epochs: the checkpoint knows better.
    ///
    /// # Errors
    /// If the system does not let its files be looked at.
    pub fn standing(&self, root: &Path) -> Result<Standing, LaunchError> {
        let layout = self.layout(root);
        if let Some(Finished { faults, .. }) = look(&layout, Depth::Glance)? {
            return Ok(if faults.is_empty() { Standing::Done } else { Standing::Incomplete { faults } });
        }
        match Status::read(&layout) {
            Ok(None) => Ok(Standing::New),
            Ok(Some(status)) => Ok(Standing::Begun { epoch: status.epoch }),
            Err(RecordError::Damaged { .. }) => Ok(Standing::Begun { epoch: 0 }),
            Err(error) => Err(error.into()),
        }
    }
}
