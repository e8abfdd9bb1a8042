//! `similarity.json` of a finished run: histograms of the similarity of test images to their nearest
//! neighbors of the same group and of other groups. Figures 5 and 6 are drawn from them.

use serde::{Deserialize, Serialize};

use super::json::{read_json, write_json};
use super::{Layout, RecordError};

/// The content of `similarity.json`: every grouping of the classes, after the last epoch.
///
/// ```
/// use invaspread_record::{GroupSimilarity, Histogram, Layout, SimilarityRecord};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// let run = Layout::new(root.path(), None, "0123abcd-s0");
/// std::fs::create_dir_all(run.folder())?;
/// let classes = GroupSimilarity {
///     name: "class".to_owned(),
///     same: Histogram { mean: 0.7, deviation: 0.1, counts: vec![0, 10, 90, 20] },
///     other: Histogram { mean: 0.2, deviation: 0.1, counts: vec![20, 90, 10, 0] },
///     overlap: 20.0 / 120.0,
/// };
/// let written = SimilarityRecord { groupings: vec![classes] };
/// written.write(&run)?;
/// assert_eq!(SimilarityRecord::read(&run)?, written);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SimilarityRecord {
    /// The groupings that the data set has, classes first.
    pub groupings: Vec<GroupSimilarity>,
}

/// The similarities within and between the groups of one grouping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupSimilarity {
    /// "class", or the name of a grouping of classes that the data set defines.
    pub name: String,
    /// Similarities to the nearest images of the same group.
    pub same: Histogram,
    /// Similarities to the nearest images of other groups.
    pub other: Histogram,
    /// The share of the two histograms that lies under both, 0 to 1.
    pub overlap: f64,
}

/// Cosine similarities of test images to their nearest neighbors of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub deviation: f64,
    /// The number of similarities in each bin; the bins are of equal width and cover -1 to 1.
    pub counts: Vec<u64>,
}

impl SimilarityRecord {
    /// Reads the similarities of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io` or `Damaged`, which name the path, if the file cannot be read or used.
    pub fn read(layout: &Layout) -> Result<Self, RecordError> {
        let remedy = "delete the file and ask for the run again: it is made again from the embeddings";
        read_json(&layout.similarity(), "a finished run's histograms of similarity", remedy)
    }

    /// Writes the similarities of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write(&self, layout: &Layout) -> Result<(), RecordError> {
        write_json(&layout.similarity(), self)
    }
}
