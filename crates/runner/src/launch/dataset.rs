//! A data set as the engine's images, shared and not copied.

use std::sync::Arc;

use invaspread_augment::{ImageSource, SourceError, SourceImage};
use invaspread_data::{Dataset, Split};

use crate::engine::Images;

/// The images of `dataset`.
pub fn images(dataset: &Arc<Dataset>) -> Images {
    let split = |pick| Arc::new(Part { dataset: Arc::clone(dataset), pick });
    Images {
        name: dataset.name.clone(),
        train: split(|dataset| &dataset.train),
        test: split(|dataset| &dataset.test),
        train_labels: dataset.train.labels.clone().into(),
        test_labels: dataset.test.labels.clone().into(),
        classes: dataset.classes.len(),
    }
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
