//! `similarity.json` of a finished run: histograms of how similar test images are to their nearest of the same class and of others, from
//! which Figures 5 and 6 are drawn.

use invaspread_metrics::{Separation, Similarities};
use serde::{Deserialize, Serialize};

use super::directory::{read_json, write_json};
use super::{Layout, RecordError};

/// All groupings of a run's last epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SimilarityRecord {
    groupings: Vec<Grouping>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Grouping {
    /// "class", or one of the data set's own.
    name: String,
    same: Kind,
    other: Kind,
    /// Share of the two histograms that lies under both, 0 to 1.
    overlap: f64,
}

/// Bins of equal widths from -1 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kind {
    mean: f64,
    deviation: f64,
    counts: Vec<u64>,
}

impl From<Similarities> for Kind {
    fn from(Similarities { counts, mean, deviation }: Similarities) -> Self {
        Self { mean, deviation, counts }
    }
}

impl SimilarityRecord {
    /// Of named groupings.
    pub fn new(separations: Vec<(String, Separation)>) -> Self {
        let groupings = separations
            .into_iter()
            .map(|(name, Separation { same, other, overlap })| Grouping {
                name,
                same: same.into(),
                other: other.into(),
                overlap,
            })
            .collect();
        Self { groupings }
    }

    /// Writes it to its place in `layout`.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub fn write(&self, layout: &Layout) -> Result<(), RecordError> {
        write_json(&layout.similarity(), self)
    }

    /// Reads it from its place in `layout`.
    ///
    /// # Errors
    /// `Io` or `Damaged`, naming the path.
    pub fn read(layout: &Layout) -> Result<Self, RecordError> {
        let remedy = "delete the file and ask for the run again: it is made again from the embeddings";
        read_json(&layout.similarity(), "a finished run's histograms of similarity", remedy)
    }
}
