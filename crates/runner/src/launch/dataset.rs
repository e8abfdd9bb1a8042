//! A data set as the engine's images, shared and not copied.

use std::sync::Arc;

use invaspread_augment::{ImageSource, SourceError, SourceImage};
use invaspread_data::{Dataset, Evaluation, Split};

use crate::engine::{EngineError, Images};

/// The images of `dataset`.
///
/// # Errors
/// If its test images are judged by retrieval, which the engine does not measure yet.
pub fn images(dataset: &Arc<Dataset>) -> Result<Images, EngineError> {
    if dataset.evaluation == Evaluation::Retrieval {
        return Err(EngineError::Retrieval { dataset: dataset.name.clone() });
    }
    let split = |pick| Arc::new(Part { dataset: Arc::clone(dataset), pick });
    Ok(Images {
        name: dataset.name.clone(),
        train: split(|dataset| &dataset.train),
        gallery: split(Dataset::gallery),
        test: split(|dataset| &dataset.test),
        gallery_labels: dataset.gallery().labels.clone().into(),
        test_labels: dataset.test.labels.clone().into(),
        classes: dataset.classes.len(),
    })
}

/// One split of a shared data set.
struct Part {
    dataset: Arc<Dataset>,
    pick: fn(&Dataset) -> &Split,
}

impl ImageSource for Part {
    fn len(&self) -> usize {
        (self.pick)(&self.dataset).len()
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        (self.pick)(&self.dataset).image(index)
    }
}
