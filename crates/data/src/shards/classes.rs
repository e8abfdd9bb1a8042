//! Numbers the classes of samples: words in the order of their bytes, numbers by size. Both splits have the numbers of the training
//! images.

use std::collections::BTreeSet;
use std::path::Path;

use super::ShardSet;
use super::listing::{Listing, Named};
use crate::error::DataError;
use crate::stream::SampleLabel;

/// The names of the classes, and the number of the class of each image.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) names: Vec<String>,
    pub(super) train: Vec<u32>,
    pub(super) test: Option<Vec<u32>>,
}

/// Numbers the classes of the images of shards in `folder`.
pub(super) fn number(set: ShardSet, folder: &Path, listing: &Listing) -> Result<Numbered, DataError> {
    let all: Vec<&Named> = listing.all().collect();
    // A number below 0 stands for no class, as on the hub.
    let has_class = |one: &Named| match &one.label {
        Some(SampleLabel::Number(number)) => *number >= 0,
        Some(SampleLabel::Word(_)) => true,
        None => false,
    };
    let without: Vec<&&Named> = all.iter().filter(|one| !has_class(one)).collect();
    if let Some(first) = without.first() {
        let first = match (&first.label, &listing.unlabeled) {
            (None, Some(told)) => told.clone(),
            (None, None) => first.name.clone(),
            (Some(_), _) => format!("{} (its class is a number below 0)", first.name),
        };
        let found = format!("{} of the {} images without a class, such as {first}", without.len(), all.len());
        return Err(set.unusable(folder, found, "a class for each image, as kNN needs"));
    }
    let labels = |names: &[Named]| names.iter().filter_map(|one| one.label.clone()).collect::<Vec<_>>();
    let (mut train, mut test) = (labels(&listing.train), listing.test.as_deref().map(labels));
    let is_word = |label: &SampleLabel| matches!(label, SampleLabel::Word(_));
    if train.iter().chain(test.iter().flatten()).any(is_word) {
        // A word may look like a number, as a class 7 beside a class 7b does.
        for label in train.iter_mut().chain(test.iter_mut().flatten()) {
            *label = SampleLabel::Word(label.to_string());
        }
    }
    let classes: Vec<SampleLabel> = train.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let number = |label: &SampleLabel| {
        classes.binary_search(label).map(|number| number as u32).map_err(|_| {
            let found = format!("the class \"{label}\" in test but not in train");
            set.unusable(folder, found, "no class in test that train does not have")
        })
    };
    let numbers = |labels: Vec<SampleLabel>| labels.iter().map(number).collect::<Result<Vec<_>, _>>();
    let (train, test) = (numbers(train)?, test.map(numbers).transpose()?);
    Ok(Numbered { names: classes.iter().map(SampleLabel::to_string).collect(), train, test })
}
