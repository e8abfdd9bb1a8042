//! What a set of embeddings is worth: the exact top-k engine, weighted kNN, k-means, PCA whitening and linear probes.
//!
//! Functions of slices alone: no files, no data sets, no devices, no tensors. Similarities are inner products taken block by
//! block by matrix products; nothing n x n is ever held. Every result is the same whatever the number of threads.

mod error;
mod kmeans;
mod knn;
mod lbfgs;
mod linear_classifier;
mod linear_svm;
mod logistic_regression;
mod on_device;
mod rows;
mod top_k;
mod whitening;

pub use error::MetricError;
pub use kmeans::{Clustering, KMeans, Seeding};
pub use knn::{KnnResult, WeightedKnn};
pub use linear_classifier::LinearClassifier;
pub use linear_svm::LinearSvm;
pub use logistic_regression::LogisticRegression;
pub use on_device::top_k_on;
pub use rows::{Rows, l2_normalize_rows};
pub use top_k::{Neighbors, top_k};
pub use whitening::Whitening;

#[cfg(test)]
mod golden;

#[cfg(test)]
mod probes_golden;
