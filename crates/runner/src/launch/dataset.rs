//! A data set in the form that the engine needs. The images are shared, not copied.

use std::sync::Arc;

use invaspread_augment::{ImageSource, SourceError, SourceImage};
use invaspread_data::{Dataset, Evaluation, Split};

use crate::engine::{Images, Labeled};

/// Returns the images of `dataset`.
pub fn images(dataset: &Arc<Dataset>) -> Images {
    let split = |pick| Arc::new(Part { dataset: Arc::clone(dataset), pick });
    let labeled = |pick: fn(&Dataset) -> &Split| Labeled {
        images: split(pick),
        labels: pick(dataset).labels.clone().into(),
    };
    Images {
        name: dataset.name.clone(),
        train: split(|dataset| &dataset.train),
        gallery: match dataset.evaluation {
            Evaluation::Neighbors => Some(labeled(Dataset::gallery)),
            Evaluation::Retrieval => None,
        },
        test: labeled(|dataset| &dataset.test),
        classes: dataset.classes.len(),
        groupings: dataset.groupings().into(),
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
