//! The data set that was opened last: the runs of a queue mostly share one.

use std::sync::Arc;

use invaspread_data::{DataConfig, Dataset};

use super::LaunchError;

/// Keeps the data set that was opened last.
#[derive(Default)]
pub(super) struct DatasetCache(Option<(DataConfig, Arc<Dataset>)>);

impl DatasetCache {
    /// Returns the data set of `config`; opens it unless it is the one that was opened last.
    ///
    /// # Errors
    /// Returns the errors of [`invaspread_data::open`].
    pub(super) fn open(&mut self, config: &DataConfig) -> Result<Arc<Dataset>, LaunchError> {
        if let Some((known, dataset)) = &self.0
            && known == config
        {
            return Ok(Arc::clone(dataset));
        }
        // Drop the old one first: memory may not hold both.
        self.0 = None;
        let dataset = Arc::new(invaspread_data::open(config)?);
        self.0 = Some((config.clone(), Arc::clone(&dataset)));
        Ok(dataset)
    }
}
