//! Lloyd's iterations of k-means from random points.

use super::knn::unit_rows;
use super::{BenchReport, Compute, Figures, Times};
use crate::engine::EngineError;
use invaspread_metrics::{KMeans, Rows, Seeding};
use serde::Serialize;

/// The sizes of the clustering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KMeansBench {
    /// The number of points.
    pub points: usize,
    /// The number of values of a point.
    pub dim: usize,
    /// The number of clusters.
    pub clusters: usize,
    /// The most iterations, at least 1. The points are assigned once before the first iteration.
    pub iterations: usize,
    /// The number of timed repetitions. There is no warm-up, because one repetition is long enough.
    pub repeats: usize,
    /// The device and the precision.
    #[serde(flatten)]
    pub compute: Compute,
}

/// Times the clustering. `seconds_per_iteration` divides by the iterations that were done
/// (`iterations_done`): few points may converge early.
///
/// # Errors
/// Returns an error if there are fewer points than clusters.
pub fn kmeans(bench: KMeansBench) -> Result<BenchReport, EngineError> {
    let KMeansBench { points, dim, clusters, iterations, repeats, compute } = bench;
    let values = unit_rows(points, dim, 2);
    let settings = KMeans {
        clusters,
        iterations,
        tolerance: 0.0,
        restarts: 1,
        seeding: Seeding::Random,
        seed: 0,
        epoch: 0,
        device: compute.device,
    };
    let rows = Rows::new(&values, dim);
    let mut done = 0;
    let times = Times::of(0, repeats, || settings.fit(rows).map(|found| done = found.iterations))?;
    let operations = 2.0 * points as f64 * clusters as f64 * dim as f64 * (done + 1) as f64;
    Ok(Figures::default()
        .times("seconds", &times, 1.0)
        .with("iterations_done", done)
        .with("seconds_per_iteration", times.median() / done as f64)
        .memory(compute)?
        .arithmetic(operations, times.median(), compute)?
        .report("kmeans", &bench))
}
