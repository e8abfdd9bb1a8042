//! Which metrics of embeddings are computed, and in which rows a query is looked up.

/// A metric, or a few that are computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Weighted kNN; needs a gallery.
    Knn,
    /// R@K, MAP@R and R-precision.
    Retrieval,
    /// NMI and AMI of k-means; among the rows themselves alone.
    Clusters,
    /// Precision@K.
    Precision,
    /// Mean reciprocal rank.
    Mrr,
    /// Mean average precision over the full ranking.
    Map,
    /// The identification rate at rank K.
    Cmc,
    /// The false non-match rate at given false match rates.
    Fnmr,
    /// The skewness of the numbers of times that rows are retrieved.
    Hubness,
    /// The shape of the set of rows.
    Shape,
}

impl Metric {
    /// All metrics, in the order in which they are printed.
    pub const ALL: [Self; 10] = [
        Self::Knn,
        Self::Retrieval,
        Self::Clusters,
        Self::Precision,
        Self::Mrr,
        Self::Map,
        Self::Cmc,
        Self::Fnmr,
        Self::Hubness,
        Self::Shape,
    ];
    /// The metrics of the paper's tables.
    pub const DEFAULT: [Self; 3] = [Self::Knn, Self::Retrieval, Self::Clusters];
    /// The metrics of a full ranking that the paper does not have.
    pub(super) const OF_RANKING: [Self; 4] = [Self::Precision, Self::Mrr, Self::Map, Self::Cmc];
}

/// What is computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The metrics. Those that need a gallery, or none, are computed only where they can be.
    pub metrics: Vec<Metric>,
    /// The false match rates of [`Metric::Fnmr`], each above 0 and below 1.
    pub false_match_rates: Vec<f64>,
    /// Whether the class of each query's nearest row is kept, for a table of classes.
    pub nearest_classes: bool,
}

impl Default for Selection {
    /// Returns the metrics of the paper's tables, and the false match rates 1e-1 to 1e-4 for where they are needed.
    fn default() -> Self {
        Self {
            metrics: Metric::DEFAULT.into(),
            false_match_rates: vec![1e-1, 1e-2, 1e-3, 1e-4],
            nearest_classes: false,
        }
    }
}

impl Selection {
    /// Returns whether a metric is computed.
    pub fn has(&self, metric: Metric) -> bool {
        self.metrics.contains(&metric)
    }

    /// Returns whether a metric needs the full ranking of each query.
    pub fn ranks(&self) -> bool {
        Metric::OF_RANKING.iter().any(|&metric| self.has(metric))
    }
}
