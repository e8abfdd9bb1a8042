//! Opens tar shards as WebDataset has them (`webdataset`) and Parquet files of images as the Hugging Face hub has them (`parquet`)
//! as a data set with classes and two splits.
//!
//! The names and the classes of all images are listed once, and the images are decoded, resized by the bilinear filter and packed
//! once. Both are kept in a cache beside the shards, under the hash of the shards' content. So training reads any image when it is
//! needed, the set may be larger than memory, and the shards are read again only if they have changed.

mod classes;
mod listing;
mod locate;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use invaspread_augment::resize;
use rayon::prelude::*;

use crate::config::{DataConfig, ResizeFilter, RetrievalConfig, ShardsConfig};
use crate::dataset::{DataState, Dataset, Evaluation, Place, Split};
use crate::error::DataError;
use crate::left_out::{self, LEFT_OUT};
use crate::manifest::{self, SetCopy};
use crate::pack::{self, Decoded, Pack, Pictures};
use crate::retrieval::CACHE;
use crate::splits::{self, Labeled, Listed, Numbered, Splits};
use crate::stream::{Sample, Shards};
use listing::Listing;
use locate::Located;

/// A set of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardSet {
    /// `webdataset`.
    WebDataset,
    /// `parquet`.
    Parquet,
}

/// The most images that are decoded together, and the most bytes that they may have, so that large files do not fill the memory.
const AT_ONCE: (usize, usize) = (256, 256 << 20);

impl ShardSet {
    /// Returns the set's name, one of [`NAMES`](crate::NAMES).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebDataset => "webdataset",
            Self::Parquet => "parquet",
        }
    }

    /// Returns in one line what the set is.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::WebDataset => {
                "your own tar shards of images and classes: set data.webdataset.train or data.webdataset.path"
            }
            Self::Parquet => {
                "your own Parquet files of images and classes, as the hub has them: set data.parquet.path"
            }
        }
    }

    fn form(self) -> Shards {
        match self {
            Self::WebDataset => Shards::Tar,
            Self::Parquet => Shards::Parquet,
        }
    }

    /// Returns the set's keys of the width and of the share of the test images.
    fn checked_keys(self) -> [&'static str; 2] {
        match self {
            Self::WebDataset => ["webdataset.image_size", "webdataset.test_fraction"],
            Self::Parquet => ["parquet.image_size", "parquet.test_fraction"],
        }
    }

    fn config(self, config: &DataConfig) -> ShardsConfig {
        let own = match self {
            Self::WebDataset => &config.webdataset,
            Self::Parquet => &config.parquet,
        };
        own.clone().unwrap_or_default()
    }

    /// Opens the configured shards; both subsets are stratified by class.
    pub(crate) fn open(self, config: &DataConfig) -> Result<Dataset, DataError> {
        let own = self.config(config);
        splits::check(self.checked_keys(), own.image_size, own.test_fraction)?;
        let located = locate::locate(self, &own)?;
        let cache = config.cache.clone().unwrap_or_else(|| located.folder().join(CACHE));
        let shards = Read::new(self, config, &own, located, &cache)?;
        let folder = shards.located.folder();
        // What is wrong with the classes is told before the images are decoded.
        let numbered = classes::number(self, folder, &shards.listing)?;
        let Pack { images, broken, .. } = pack::open(&shards, &cache)?;
        let file = Arc::new(images);

        let mut notes = shards.located.notes.clone();
        if let Some(test) = &numbered.test {
            notes.extend(splits::untested_note(&numbered.names, test));
        }
        let items = |labels: Vec<u32>, first: usize| {
            let item = |(number, label)| Item { record: (first + number) as u32, label };
            labels.into_iter().enumerate().map(item).collect::<Vec<_>>()
        };
        let first_test = numbered.train.len();
        let listed = Listed {
            classes: &numbered.names,
            train: items(numbered.train, 0),
            test: numbered.test.map(|test| items(test, first_test)),
            test_fraction: own.test_fraction,
        };
        let read = |chosen: &Numbered<Item>| {
            let whole = chosen.items.iter().zip(&chosen.numbers);
            let good: Vec<_> = whole.filter(|(item, _)| !broken[item.record as usize]).collect();
            let labels: Vec<u32> = good.iter().map(|(item, _)| item.label).collect();
            let asked = chosen.items.iter().map(|item| item.label);
            if let Some(class) = splits::lost(numbered.names.len(), asked, &labels) {
                let found =
                    format!("no image of the class \"{}\" that can be decoded", numbered.names[class]);
                return Err(self.unusable(folder, found, "at least one"));
            }
            let places = good.iter().map(|(item, _)| Place { file: 0, record: item.record }).collect();
            let numbers = good.iter().map(|(_, number)| **number).collect();
            let skipped = chosen.items.len() - labels.len();
            Ok((Split::stored(vec![Arc::clone(&file)], places, labels, numbers, own.image_size), skipped))
        };
        let Splits { train, test, skipped } = splits::open(config, listed, &mut notes, read)?;
        for (split, name) in [(&train, "training"), (&test, "test")] {
            if split.is_empty() {
                return Err(self.unusable(folder, format!("no {name} image"), "at least one"));
            }
        }
        Ok(Dataset {
            name: self.name().to_owned(),
            classes: numbered.names,
            image_size: own.image_size,
            evaluation: Evaluation::Neighbors,
            train,
            labeled: None,
            test,
            state: DataState::Unverified { reason: "shards of images have no published checksum".to_owned() },
            skipped,
            notes,
        })
    }

    /// Lists the configured shards.
    pub(crate) fn copy(self, config: &DataConfig) -> Result<SetCopy<'_>, DataError> {
        Ok(locate::locate(self, &self.config(config))?.copy(self))
    }

    /// Returns the error of shards in `folder` that hold `found`.
    fn unusable(self, folder: &Path, found: String, expected: &str) -> DataError {
        DataError::Damaged {
            path: folder.to_owned(),
            found,
            expected: expected.to_owned(),
            advice: match self {
                Self::WebDataset => {
                    "a sample is KEY.jpg (or another image) with its class, a whole number or a word, in KEY.cls, or under \"label\", \
                     \"cls\" or \"class\" in KEY.json, where KEY has no dot; `invaspread embed` needs no classes"
                }
                Self::Parquet => {
                    "a row is a column \"image\" of bytes and its class, a number from 0 on or a word, in \"label\"; `invaspread \
                     embed` needs no classes"
                }
            },
        }
    }
}

/// An image of the pack, and its class.
#[derive(Debug, Clone, Copy)]
struct Item {
    record: u32,
    label: u32,
}

impl Labeled for Item {
    fn label(&self) -> u32 {
        self.label
    }
}

/// Shards whose samples are listed.
struct Read {
    set: ShardSet,
    located: Located,
    listing: Listing,
    /// The beginning of the names of the files in the cache.
    name: String,
    /// What identifies the content of the shards and their order.
    content: String,
    resize: RetrievalConfig,
    skip_broken: bool,
}

impl Read {
    fn new(
        set: ShardSet,
        config: &DataConfig,
        own: &ShardsConfig,
        located: Located,
        cache: &Path,
    ) -> Result<Self, DataError> {
        let order = located.order();
        // Other shards of the same folder have a pack of their own.
        let name = format!("{}-{}", set.name(), &blake3::hash(order.as_bytes()).to_hex()[..8]);
        let content = content(set, &located);
        let listing = listing::open(set, &located, &content, &cache.join(format!("{name}.samples")))?;
        let resize = RetrievalConfig { image_size: own.image_size, filter: ResizeFilter::Bilinear };
        let skip_broken = config.skip_broken == Some(true);
        Ok(Self { set, located, listing, name, content, resize, skip_broken })
    }

    /// Decodes and resizes a sample. A broken one is an error unless broken images are left out.
    fn decode(&self, sample: Sample) -> Result<Decoded, DataError> {
        let (place, side) = (sample.place(), self.resize.image_size);
        let pixels = match sample.decode() {
            Ok(image) => Some(resize(image.as_ref(), side, side, self.resize.filter.filter()).pixels),
            Err(error) if self.skip_broken => {
                left_out::warn_once(&place, &error.advised(LEFT_OUT));
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Decoded { sha256: String::new(), pixels })
    }
}

/// Returns what identifies the content of the shards and their order.
fn content(set: ShardSet, located: &Located) -> String {
    let manifest = manifest::of_set(&located.copy(set)).map_or_else(String::new, |manifest| manifest.hash());
    format!("{manifest}\n{}", located.order())
}

/// Returns an error if the shards no longer have the content `before`, because they were written while they were read.
fn check_unchanged(set: ShardSet, located: &Located, before: &str) -> Result<(), DataError> {
    if content(set, located) == before {
        return Ok(());
    }
    Err(DataError::Damaged {
        path: located.folder().to_owned(),
        found: "shards that changed while they were read".to_owned(),
        expected: "the same shards as before".to_owned(),
        advice: "wait until nothing writes there, and run the command again",
    })
}

impl Pictures for Read {
    fn name(&self) -> &str {
        &self.name
    }

    fn resize(&self) -> &RetrievalConfig {
        &self.resize
    }

    fn skip_broken(&self) -> bool {
        self.skip_broken
    }

    fn names(&self) -> Vec<PathBuf> {
        self.listing.names().map(PathBuf::from).collect()
    }

    fn fingerprint(&self) -> [u8; 32] {
        // Which files are the images depends on the reader's version.
        pack::fingerprint(&self.resize, [listing::HEADING.into(), self.content.clone().into_bytes()])
    }

    fn read(&self, take: &mut dyn FnMut(Vec<Decoded>) -> Result<(), DataError>) -> Result<(), DataError> {
        let (most, most_bytes) = AT_ONCE;
        let (mut held, mut bytes, mut outcome) = (Vec::new(), 0, Ok(()));
        let mut decode = |held: &mut Vec<Sample>| {
            take(held.par_drain(..).map(|sample| self.decode(sample)).collect::<Result<_, _>>()?)
        };
        self.set.form().each(&self.located.files(), &mut |sample| {
            bytes += sample.size();
            held.push(sample);
            if held.len() == most || bytes >= most_bytes {
                bytes = 0;
                outcome = decode(&mut held);
            }
            outcome.is_ok()
        })?;
        outcome?;
        decode(&mut held)?;
        check_unchanged(self.set, &self.located, &self.content)
    }
}

#[cfg(test)]
mod tests;
