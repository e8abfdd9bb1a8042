//! A planned run: its recipe, its data and its names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use invaspread_data::DataConfig;

use super::LaunchError;
use super::inspect::{Depth, Finished, look};
use crate::engine::Recipe;
use crate::record::{Fault, Layout, RecordError, Request, State, Status};

/// A planned run.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The suite that the run belongs to; `None` for a single run.
    pub suite: Option<String>,
    /// The recipe of its training.
    pub recipe: Recipe,
    /// The data that it trains on.
    pub data: DataConfig,
    /// Text of the resolved config, without the keys that are not part of the run's identity.
    pub config: Arc<str>,
    /// Hash of that text.
    pub hash: String,
    /// The names in its record.
    pub labels: Labels,
    /// The time without a sign of life after which the process that works on the run counts as dead on other
    /// machines.
    pub lease: Duration,
    /// The command that asked for the run, if it can be given again; it is kept beside the run.
    pub request: Option<Arc<Request>>,
}

/// The names in a run's record. Nothing is computed from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The table's row.
    pub row: String,
    /// The name of the row in tables, if the row's key is the method's name or a suite sets one.
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
    /// The arguments beside the suite, as typed. Seed, profile and device are left out because other fields
    /// hold them, and folders because they are this machine's.
    pub arguments: Vec<String>,
    /// The arguments in which the runs of a sweep differ, except seed and method.
    pub varied: Vec<String>,
    /// Whether images, width or epochs are fewer than the paper's.
    pub reduced: bool,
    /// Whether held-out training images are measured in place of test images.
    pub held_out: bool,
}

/// How far a planned run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is no such run yet.
    New,
    /// The run was started.
    Begun {
        /// The number of whole epochs trained.
        epoch: u64,
    },
    /// The run is finished.
    Done,
    /// The run is finished, but some of its files are missing or damaged.
    Incomplete {
        /// The missing and damaged files.
        faults: Vec<Fault>,
    },
}

impl Planned {
    /// Returns the run's name, `<hash>-s<seed>`.
    pub fn id(&self) -> String {
        format!("{}-s{}", self.hash, self.recipe.seed)
    }

    /// Returns a title of one line.
    pub fn title(&self) -> String {
        format!("{} (seed {})", self.title_of_all_seeds(), self.recipe.seed)
    }

    /// Returns a title for this run and the same run with other seeds.
    pub fn title_of_all_seeds(&self) -> String {
        let named = std::iter::once(&self.labels.row).chain(&self.labels.varied);
        named.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Returns the layout of the run under `root` (`runs.root`).
    pub fn layout(&self, root: &Path) -> Layout {
        Layout::new(root, self.suite.as_deref(), &self.id())
    }

    /// Returns how far the run has come. A damaged status counts as no epochs; the checkpoint holds the true
    /// number.
    ///
    /// # Errors
    /// Returns an error if the system does not allow the run's files to be read.
    pub fn standing(&self, root: &Path) -> Result<Standing, LaunchError> {
        let layout = self.layout(root);
        if layout.is_absent() {
            return Ok(Standing::New);
        }
        if let Some(Finished { faults, .. }) = look(&layout, Depth::Glance)? {
            return Ok(if faults.is_empty() { Standing::Done } else { Standing::Incomplete { faults } });
        }
        match Status::read(&layout) {
            Ok(None | Some(Status { state: State::Queued, .. })) => Ok(Standing::New),
            Ok(Some(status)) => Ok(Standing::Begun { epoch: status.epoch }),
            Err(RecordError::Damaged { .. }) => Ok(Standing::Begun { epoch: 0 }),
            Err(error) => Err(error.into()),
        }
    }
}
