//! A run that is to be: what to do, on what, and what to call it.

use std::path::Path;

use invaspread_data::DataConfig;

use crate::engine::Recipe;
use crate::record::{Layout, RecordError, State};

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
}

impl Planned {
    /// `<hash>-s<seed>`.
    pub fn id(&self) -> String {
        format!("{}-s{}", self.hash, self.recipe.seed)
    }

    /// What to call it on one line.
    pub fn title(&self) -> String {
        format!("{} (seed {})", self.labels.row, self.recipe.seed)
    }

    /// Where its files are under `root` (`runs.root`).
    pub fn layout(&self, root: &Path) -> Layout {
        Layout::new(root, self.suite.as_deref(), &self.id())
    }

    /// How far it is already.
    ///
    /// # Errors
    /// If its status is there but cannot be read.
    pub fn standing(&self, root: &Path) -> Result<Standing, RecordError> {
        let layout = self.layout(root);
        Ok(match layout.read_status()? {
            None => Standing::New,
            // Done is said last of all, after the record.
            Some(status) if status.state == State::Done && layout.record().is_file() => Standing::Done,
            Some(status) => Standing::Begun { epoch: status.epoch },
        })
    }
}
