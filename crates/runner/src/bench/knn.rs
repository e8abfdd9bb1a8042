//! The exact nearest neighbors of a test set in a training set.

use super::{BenchReport, Compute, Figures, Times};
use crate::engine::EngineError;
use invaspread_metrics::{Rows, top_k_on};
use invaspread_random::{Purpose, Stream};
use serde::Serialize;

/// The sizes of the two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KnnBench {
    /// The number of rows that are searched.
    pub train: usize,
    /// The number of queries.
    pub test: usize,
    /// The number of values of a row.
    pub dim: usize,
    /// The number of neighbors of each query.
    pub k: usize,
    /// The number of timed repetitions, after one that warms up.
    pub repeats: usize,
    /// The device and the precision.
    #[serde(flatten)]
    pub compute: Compute,
}

/// Returns `count` random rows of length 1.
pub(super) fn unit_rows(count: usize, dim: usize, number: u64) -> Vec<f32> {
    let mut stream = Stream::new(0, Purpose::Bootstrap, 0, number);
    let mut values: Vec<f32> = (0..count * dim).map(|_| stream.normal() as f32).collect();
    for row in values.chunks_mut(dim) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        for x in row {
            *x /= length;
        }
    }
    values
}

/// Times the search.
///
/// # Errors
/// Returns the errors of the search. Random rows cause none.
pub fn knn(bench: KnnBench) -> Result<BenchReport, EngineError> {
    let KnnBench { train, test, dim, k, repeats, compute } = bench;
    let (gallery, queries) = (unit_rows(train, dim, 0), unit_rows(test, dim, 1));
    let times = Times::of(1, repeats, || {
        top_k_on(compute.device, Rows::new(&queries, dim), Rows::new(&gallery, dim), k, false).map(drop)
    })?;
    let operations = 2.0 * train as f64 * test as f64 * dim as f64;
    Ok(Figures::default()
        .times("seconds", &times, 1.0)
        .memory(compute)?
        .arithmetic(operations, times.median(), compute)?
        .report("knn", &bench))
}
