//! The settings of a data set: which set, in which folder, and how much of it.

use std::path::PathBuf;

use invaspread_augment::Filter;
use serde::{Deserialize, Serialize};

/// The settings of a data set. The default is all of `synthetic`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// The name of the set, one of [`NAMES`](crate::NAMES).
    pub name: String,
    /// Folder that holds the data sets. Without it, the folder is `INVASPREAD_DATA` or, without that, the
    /// platform's cache folder.
    pub root: Option<PathBuf>,
    /// The number of training images to keep, stratified by class and drawn from `seed`. All are kept if it
    /// is not given, or if there are fewer.
    pub subset: Option<usize>,
    /// The number of test images to keep, see [`subset::test`](crate::subset::test). All are kept if it is
    /// not given, or if there are fewer.
    pub test_subset: Option<usize>,
    /// Whether to measure on training images that are held out, as many as `test_subset`, in place of the
    /// test images. They are drawn from `seed`, stratified by class, and are not trained on. Settings that
    /// are chosen so owe nothing to the test images. Not for sets whose test classes are not seen in
    /// training.
    pub held_out: Option<bool>,
    /// Seed of subsets, of the division of a folder into train and test, and of generated images.
    pub seed: u64,
    /// Folder of the packed images from which sets of image files and of shards are read; by default
    /// `invaspread-cache` in the folder of the set.
    pub cache: Option<PathBuf>,
    /// Whether to leave out and count image files that cannot be read or decoded, instead of stopping at the
    /// first. For sets of image files or of shards and for `folder`, which also has its own key.
    pub skip_broken: Option<bool>,
    /// Whether to use a copy of a published set that has another number of images. The copy is then
    /// unverified; otherwise it is an error.
    pub partial: Option<bool>,
    /// The hash of the [`Manifest`](crate::Manifest) of the images that a run uses. The config of a run holds
    /// this hash if the name of the set does not determine its images. If other images are opened,
    /// [`Dataset::notes`](crate::Dataset::notes) says so.
    pub manifest: Option<String>,
    /// Settings for `stl10` only.
    pub stl10: Option<Stl10Config>,
    /// Settings for the sets whose test classes are not seen in training.
    pub retrieval: Option<RetrievalConfig>,
    /// Settings for `folder` only.
    pub folder: FolderConfig,
    /// Settings for `webdataset` only.
    pub webdataset: Option<ShardsConfig>,
    /// Settings for `parquet` only.
    pub parquet: Option<ShardsConfig>,
    /// Settings for `synthetic` only.
    pub synthetic: SyntheticConfig,
}

impl DataConfig {
    /// Returns the width and height in pixels that every image of the set is resized to when it is read, whatever its aspect ratio,
    /// and the filter; `None` for sets whose images are taken as they are.
    pub fn resize_on_reading(&self) -> Option<(usize, ResizeFilter)> {
        match self.name.as_str() {
            "folder" => Some((self.folder.image_size, ResizeFilter::Bilinear)),
            "webdataset" => Some((Self::image_size_of(self.webdataset.as_ref()), ResizeFilter::Bilinear)),
            "parquet" => Some((Self::image_size_of(self.parquet.as_ref()), ResizeFilter::Bilinear)),
            "cub200-2011" | "cub200-2010" | "cars196" | "cars196-half" | "products" => {
                let RetrievalConfig { image_size, filter } = self.retrieval.clone().unwrap_or_default();
                Some((image_size, filter))
            }
            _ => None,
        }
    }

    /// Returns the keys that only other data sets have, below `data`: a value for one of them does nothing.
    ///
    /// ```
    /// let config = invaspread_data::DataConfig { name: "cifar10".to_owned(), ..Default::default() };
    /// assert!(config.not_used().any(|key| key == "folder.path"));
    /// ```
    pub fn not_used(&self) -> impl Iterator<Item = &'static str> {
        let own = OWN_KEYS.iter().filter(|(sets, _)| !sets.contains(&self.name.as_str()));
        own.flat_map(|(_, keys)| keys.iter().copied())
    }

    fn image_size_of(shards: Option<&ShardsConfig>) -> usize {
        shards.map_or_else(|| ShardsConfig::default().image_size, |shards| shards.image_size)
    }
}

/// The keys that only some data sets have. `folder.skip_broken` is not among them, as it is another name of `skip_broken` for images
/// that are embedded.
const OWN_KEYS: [(&[&str], &[&str]); 6] = [
    (&["folder"], &["folder.path", "folder.image_size", "folder.test_fraction"]),
    (
        &["webdataset"],
        &[
            "webdataset.path",
            "webdataset.train",
            "webdataset.test",
            "webdataset.image_size",
            "webdataset.test_fraction",
        ],
    ),
    (
        &["parquet"],
        &["parquet.path", "parquet.train", "parquet.test", "parquet.image_size", "parquet.test_fraction"],
    ),
    (&["synthetic"], &["synthetic.train", "synthetic.test", "synthetic.image_size"]),
    (&["stl10"], &["stl10.unlabeled"]),
    (
        &["cub200-2011", "cub200-2010", "cars196", "cars196-half", "products"],
        &["retrieval.image_size", "retrieval.filter"],
    ),
];

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            name: "synthetic".to_owned(),
            root: None,
            subset: None,
            test_subset: None,
            held_out: None,
            seed: 0,
            cache: None,
            skip_broken: None,
            partial: None,
            manifest: None,
            stl10: None,
            retrieval: None,
            folder: FolderConfig::default(),
            webdataset: None,
            parquet: None,
            synthetic: SyntheticConfig::default(),
        }
    }
}

/// The settings of STL-10.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stl10Config {
    /// Whether to train on the 100,000 images without labels too. In both cases only labeled images vote in
    /// kNN.
    pub unlabeled: bool,
}

/// The way in which the images of a retrieval set are resized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalConfig {
    /// Width and height that every image is resized to, in pixels, without keeping its aspect ratio.
    pub image_size: usize,
    /// The filter of that resize.
    pub filter: ResizeFilter,
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self { image_size: 256, filter: ResizeFilter::Bilinear }
    }
}

/// A filter of Pillow to resize with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeFilter {
    /// A triangle filter.
    Bilinear,
    /// A windowed sinc filter, as in the preprocessing of the released code (`Image.ANTIALIAS`).
    Lanczos,
}

impl ResizeFilter {
    /// Returns the filter of the resize.
    pub fn filter(self) -> Filter {
        match self {
            Self::Bilinear => Filter::Bilinear,
            Self::Lanczos => Filter::Lanczos,
        }
    }

    /// Returns the filter's name in configs and file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Lanczos => "lanczos",
        }
    }
}

/// The way in which a folder of images is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FolderConfig {
    /// The folder, which holds `train/<class>/` and `test/<class>/`, or only `<class>/`, which is then split
    /// by the program.
    pub path: Option<PathBuf>,
    /// Width and height that every image is resized to, in pixels, without keeping its aspect ratio.
    pub image_size: usize,
    /// Whether to leave out and count files that cannot be read or decoded, instead of stopping at the first.
    pub skip_broken: bool,
    /// The share of each class that becomes the test split if the folder has no `train` and `test`.
    pub test_fraction: f64,
}

impl Default for FolderConfig {
    fn default() -> Self {
        Self { path: None, image_size: 32, skip_broken: false, test_fraction: 0.2 }
    }
}

/// The way in which tar shards or Parquet files of images are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardsConfig {
    /// The folder with the shards of all splits, whose names or folders say which split they hold, as on the Hugging Face hub. If
    /// none does, all images are divided by the program.
    pub path: Option<PathBuf>,
    /// The shards of the training images, in place of `path`: a folder, a file, or several by a range in braces
    /// (`shard-{000000..000004}.tar`).
    pub train: Option<PathBuf>,
    /// The shards of the test images, beside `train`; without them, the training images are divided by the program.
    pub test: Option<PathBuf>,
    /// Width and height that every image is resized to, in pixels, without keeping its aspect ratio.
    pub image_size: usize,
    /// The share of each class that becomes the test split if there is none.
    pub test_fraction: f64,
}

impl Default for ShardsConfig {
    fn default() -> Self {
        let FolderConfig { image_size, test_fraction, .. } = FolderConfig::default();
        Self { path: None, train: None, test: None, image_size, test_fraction }
    }
}

/// The number and the size of generated images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// The number of training images; each class has an equal share.
    pub train: usize,
    /// The number of test images; each class has an equal share.
    pub test: usize,
    /// Width and height in pixels.
    pub image_size: usize,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { train: 10_000, test: 2_000, image_size: 32 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_part_of_a_table_keeps_the_other_defaults() {
        let config: DataConfig =
            serde_json::from_str(r#"{ "name": "cifar10", "synthetic": { "test": 7 } }"#).unwrap();
        assert_eq!((config.name.as_str(), config.synthetic.test), ("cifar10", 7));
        assert_eq!(config.synthetic.train, SyntheticConfig::default().train);
        let again: DataConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn each_key_of_a_set_is_used_by_it_alone() {
        // Every table of a set, with every key of it.
        let shards = || {
            Some(ShardsConfig {
                train: Some("a".into()),
                test: Some("b".into()),
                path: Some("c".into()),
                ..ShardsConfig::default()
            })
        };
        let config = DataConfig {
            stl10: Some(Stl10Config::default()),
            retrieval: Some(RetrievalConfig::default()),
            folder: FolderConfig { path: Some("d".into()), ..FolderConfig::default() },
            webdataset: shards(),
            parquet: shards(),
            ..DataConfig::default()
        };
        let written = serde_json::to_value(config).unwrap();
        let tables =
            written.as_object().unwrap().iter().filter_map(|(table, keys)| Some((table, keys.as_object()?)));
        let mut all: Vec<String> =
            tables.flat_map(|(table, keys)| keys.keys().map(move |key| format!("{table}.{key}"))).collect();
        all.retain(|key| key != "folder.skip_broken");
        let mut named: Vec<&str> = OWN_KEYS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
        all.sort();
        named.sort_unstable();
        assert_eq!(named, all);
        for (sets, keys) in OWN_KEYS {
            for set in sets {
                assert!(crate::NAMES.contains(set), "{set}");
                let config = DataConfig { name: (*set).to_owned(), ..DataConfig::default() };
                assert_eq!(config.not_used().count(), named.len() - keys.len());
                assert!(config.not_used().all(|key| !keys.contains(&key)));
            }
        }
    }

    #[test]
    fn unknown_keys_are_errors_that_name_them() {
        for (text, key) in [(r#"{ "rot": "x" }"#, "rot"), (r#"{ "folder": { "size": 3 } }"#, "size")] {
            let message = serde_json::from_str::<DataConfig>(text).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
