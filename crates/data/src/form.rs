//! The forms of copies of the data sets.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The form of a copy of any published set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Form {
    /// A form of CIFAR-10.
    Cifar10(Cifar10Form),
    /// A form of STL-10.
    Stl10(Stl10Form),
    /// A form of a set whose test classes are not seen in training.
    Retrieval(RetrievalForm),
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cifar10(form) => form.fmt(f),
            Self::Stl10(form) => form.fmt(f),
            Self::Retrieval(form) => form.fmt(f),
        }
    }
}

/// A form of CIFAR-10. If a folder holds several, the first one in this order is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cifar10Form {
    /// The folder `cifar-10-batches-bin/`.
    BinaryFolder,
    /// The archive `cifar-10-binary.tar.gz`.
    BinaryArchive,
    /// The folder `cifar-10-batches-py/`.
    PythonFolder,
    /// The archive `cifar-10-python.tar.gz`.
    PythonArchive,
    /// The `plain_text/` folder of Parquet files from the Hugging Face hub.
    Parquet,
}

impl fmt::Display for Cifar10Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BinaryFolder => "binary batches",
            Self::BinaryArchive => "binary archive",
            Self::PythonFolder => "Python batches",
            Self::PythonArchive => "Python archive",
            Self::Parquet => "Parquet files",
        })
    }
}

/// The form of STL-10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stl10Form {
    /// The folder `stl10_binary/`.
    BinaryFiles,
}

impl fmt::Display for Stl10Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("binary files")
    }
}

/// A form of CUB-200, Cars196 or Stanford Online Products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RetrievalForm {
    /// The lists `images.txt` and `image_class_labels.txt`.
    BirdLists,
    /// The list `cars_annos.mat`.
    CarsUnion,
    /// The folder `devkit/` with a list for each of the official splits.
    CarsDevkit,
    /// One folder for each class.
    ClassFolders,
    /// The lists `Ebay_train.txt` and `Ebay_test.txt`.
    EbayLists,
}

impl fmt::Display for RetrievalForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BirdLists => "images.txt and image_class_labels.txt",
            Self::CarsUnion => "cars_annos.mat",
            Self::CarsDevkit => "devkit lists",
            Self::ClassFolders => "class folders",
            Self::EbayLists => "Ebay_train.txt and Ebay_test.txt",
        })
    }
}
