//! What a set of embeddings is worth: the exact top-k engine, weighted kNN, R@K and its kin, k-means and its agreement with classes,
//! distributions of similarity, linear classification, PCA whitening.
//!
//! Functions of slices alone: no files, no data sets, no devices, no tensors. Similarities are inner products taken block by
//! block by matrix products; nothing n x n is ever held. Every result is the same whatever the number of threads.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod agreement;
mod error;
mod exact_order;
mod kmeans;
mod kmeans_start;
mod knn;
mod linear_classifier;
mod linear_svm;
mod logistic_regression;
mod nearest_centroid;
mod newton;
mod on_device;
mod retrieval;
mod rows;
mod similarity;
mod top_k;
mod whitening;

pub use agreement::Agreement;
pub use error::MetricError;
pub use kmeans::{Clustering, KMeans, Seeding};
pub use knn::{KnnResult, WeightedKnn};
pub use linear_classifier::LinearClassifier;
pub use linear_svm::LinearSvm;
pub use logistic_regression::LogisticRegression;
pub use on_device::top_k_on;
pub use retrieval::{Retrieval, Retrieved};
pub use rows::{Rows, l2_normalize_rows};
pub use similarity::{Separation, Similarities, SimilarityDistribution};
pub use top_k::{Neighbors, top_k};
pub use whitening::Whitening;

#[cfg(test)]
mod agreement_golden;

#[cfg(test)]
mod golden;

#[cfg(test)]
mod probes_golden;
