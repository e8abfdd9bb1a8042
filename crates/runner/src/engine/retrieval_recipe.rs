//! What is measured of a retrieval set, and when.

use invaspread_metrics::Seeding;
use serde::{Deserialize, Serialize};

/// Settings of the retrieval metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrievalRecipe {
    /// Each K of R@K. The best epoch is chosen by the first.
    pub recall_at: Vec<usize>,
    /// When the embeddings are clustered for NMI and AMI.
    pub clustering: When,
    /// The number of starts of k-means; the best is kept.
    pub kmeans_restarts: usize,
    /// The largest number of iterations of each start; 300 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kmeans_iterations: Option<usize>,
    /// How the first centroids are chosen; by k-means++ unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kmeans_start: Option<KMeansStart>,
}

/// How k-means chooses its first centroids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KMeansStart {
    /// By greedy k-means++, as scikit-learn does.
    #[default]
    PlusPlus,
    /// Distinct rows at random, as faiss does.
    Random,
}

/// scikit-learn's largest number of iterations.
const ITERATIONS: usize = 300;

impl Default for RetrievalRecipe {
    fn default() -> Self {
        Self {
            recall_at: vec![1, 2, 4, 8],
            clustering: When::Last,
            kmeans_restarts: 10,
            kmeans_iterations: None,
            kmeans_start: None,
        }
    }
}

impl RetrievalRecipe {
    /// Returns the settings that suit a set of `classes` classes. Above 1000 classes these are the K of
    /// Stanford Online Products and a single start of k-means, because each start takes minutes.
    pub fn for_classes(classes: usize) -> Self {
        if classes > 1000 {
            Self { recall_at: vec![1, 10, 100, 1000], kmeans_restarts: 1, ..Self::default() }
        } else {
            Self::default()
        }
    }

    /// Returns the largest number of iterations of each start of k-means.
    pub fn iterations(&self) -> usize {
        self.kmeans_iterations.unwrap_or(ITERATIONS)
    }

    /// Returns how the first centroids are chosen.
    pub(super) fn seeding(&self) -> Seeding {
        match self.kmeans_start.unwrap_or_default() {
            KMeansStart::PlusPlus => Seeding::PlusPlus,
            KMeansStart::Random => Seeding::Random,
        }
    }
}

/// When a costly metric is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Not at all.
    Never,
    /// After the last epoch.
    Last,
    /// At every evaluation.
    Every,
}

impl When {
    /// Returns whether the metric is measured at an evaluation, which is the `last` one or not.
    pub(super) fn is_due(self, last: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Last => last,
            Self::Every => true,
        }
    }
}
