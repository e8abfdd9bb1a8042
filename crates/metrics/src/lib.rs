//! Measures the quality of a set of embeddings: exact nearest neighbors, weighted kNN, R@K, MAP@R and
//! R-precision; mAP, MRR, precision@K and CMC of full rankings, FNMR at FMR over all pairs, hubness; k-means and
//! its agreement with classes, distributions of similarity, the shape of the embedding, linear classifiers, and PCA
//! whitening; and intervals for means over queries.
//!
//! All functions take slices; none of them reads a file or knows a data set. The similarity of two rows is
//! their inner product. Products are computed block by block, and no n x n matrix is ever held. The number of
//! threads changes no result. Everything runs on the CPU, and with the feature `cuda` nearest neighbors
//! ([`top_k_on`]) and k-means can run on an NVIDIA GPU too, where the caller passes `DeviceKind::Cuda(0)`.
//! Neighbors are the same there; centroids may differ in their last digits.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod agreement;
mod all_products;
mod bootstrap;
mod embedding_shape;
mod error;
mod exact_order;
mod hubness;
mod kmeans;
mod kmeans_start;
mod knn;
mod linear_classifier;
mod linear_svm;
mod logistic_regression;
mod lookup;
mod nearest_centroid;
mod newton;
mod on_device;
mod ranking;
mod resampled_units;
mod retrieval;
mod rows;
mod shape_influence;
mod similarity;
mod subsampling;
mod top_k;
#[cfg(feature = "maps")]
mod tsne;
mod verification;
mod whitening;

pub use agreement::Agreement;
pub use bootstrap::{Bootstrap, Interval, Scored};
pub use embedding_shape::{EmbeddingShape, alignment, class_alignment};
pub use error::MetricError;
pub use hubness::Hubness;
pub use kmeans::{Clustering, KMeans, Seeding};
pub use knn::{KnnResult, WeightedKnn};
pub use linear_classifier::LinearClassifier;
pub use linear_svm::LinearSvm;
pub use logistic_regression::LogisticRegression;
pub use lookup::{LabeledRows, Lookup, Nearest, SameSource, Sources};
pub use on_device::top_k_on;
pub use ranking::{RankedQuery, RankingMetrics, RankingScores};
pub use retrieval::{QueryScores, RetrievalMetrics, RetrievalScores};
pub use rows::{Rows, l2_normalize_rows};
pub use shape_influence::{ShapeInfluence, class_alignment_influence};
pub use similarity::{Separation, Similarities, SimilarityDistribution};
pub use subsampling::Subsampling;
pub use top_k::{Neighbors, top_k};
#[cfg(feature = "maps")]
pub use tsne::Tsne;
pub use verification::{FnmrAtFmr, Verification, VerificationScores};
pub use whitening::Whitening;

#[cfg(test)]
mod agreement_golden;

#[cfg(test)]
mod embedding_shape_golden;

#[cfg(test)]
mod golden;

#[cfg(test)]
mod probes_golden;

#[cfg(test)]
mod ranking_golden;
