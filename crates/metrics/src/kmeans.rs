//! k-means by Lloyd's iterations.
//!
//! minimise `Σ_i |x_i - c_a(i)|²` over assignments a and centroids c, by turns: `a(i) = argmin_j |c_j|² - 2 x_i · c_j`, then
//! `c_j` = mean of its points.
//!
//! Shapes: points (n, d), centroids (k, d), assignments (n). Used by DeepCluster (paper section 4.1; 20 iterations of faiss
//! from random points) and for NMI (scikit-learn: k-means++, best of 10 starts). Products are taken in blocks with the argmin
//! fused onto each; a cluster left empty takes half of the largest one by splitting its centroid, as faiss does. Where this
//! deviates from faiss: the cluster split is the largest, not one drawn by size, and no more than the given points are used
//! for training (faiss samples 256 per cluster).

use crate::{MetricError, Rows};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::DeviceKind;
use invaspread_tensor::gemm;
use invaspread_tensor::inner_products::{GROUP, PackedRows, group_above};
use rayon::prelude::*;

/// How a start is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeding {
    /// k distinct points drawn at random, as faiss does.
    Random,
    /// Greedy k-means++ (Arthur and Vassilvitskii 2007): of 2 + ln k points drawn by squared distance the best, as scikit-learn.
    PlusPlus,
}

/// The settings of a clustering.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeans {
    /// k.
    pub clusters: usize,
    /// Most iterations per start.
    pub iterations: usize,
    /// A start ends when an iteration lowers the inertia by no more than this share of it; 0 goes on until nothing moves.
    pub tolerance: f64,
    /// Starts; the one of lowest inertia is kept, the first of equals.
    pub restarts: usize,
    /// How a start is made.
    pub seeding: Seeding,
    /// Seed of the run.
    pub seed: u64,
    /// Epoch of the run, so that each epoch's clustering starts from points of its own.
    pub epoch: u64,
    /// Where iterations run; starts are made on the CPU.
    pub device: DeviceKind,
}

/// A clustering found.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// (n) the nearest centroid of each point. A cluster may be empty where points coincide.
    pub assignments: Vec<u32>,
    /// (k, d)
    pub centroids: Vec<f32>,
    /// Sum of squared distances of the points to their centroids.
    pub inertia: f64,
    /// Iterations that were done: fewer than allowed where nothing moved any more.
    pub iterations: usize,
}

impl KMeans {
    /// Clusters `points` (n, d).
    ///
    /// # Errors
    /// `NotFinite` rows; fewer points than clusters.
    ///
    /// # Panics
    /// If clusters or restarts is zero.
    pub fn fit(&self, points: Rows) -> Result<Clustering, MetricError> {
        assert!(self.clusters > 0 && self.restarts > 0, "{self:?}");
        points.check_finite("points")?;
        if points.len() < self.clusters {
            return Err(MetricError::TooFewRows {
                what: "points",
                found: points.len(),
                needed: self.clusters,
                fewer: "clusters",
            });
        }
        let mut best: Option<Clustering> = None;
        for restart in 0..self.restarts {
            let mut stream = Stream::new(self.seed, Purpose::KMeans, self.epoch, restart as u64);
            let start = match self.seeding {
                Seeding::Random => random_start(points, self.clusters, &mut stream),
                Seeding::PlusPlus => plus_plus_start(points, self.clusters, &mut stream),
            };
            let found = self.descend(points, start)?;
            if best.as_ref().is_none_or(|best| found.inertia < best.inertia) {
                best = Some(found);
            }
        }
        Ok(best.expect("there is at least one start"))
    }

    /// Lloyd's iterations from `centroids` (k, d). What is returned always fits together.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps, reason = "a device can fail"))]
    fn descend(&self, points: Rows, mut centroids: Vec<f32>) -> Result<Clustering, MetricError> {
        #[cfg(feature = "cuda")]
        if self.device == DeviceKind::Cuda {
            return crate::on_device::cuda::descend(points, &centroids, self.iterations, self.tolerance);
        }
        let (mut assignments, mut inertia) = assign(points, &centroids);
        let mut iterations = 0;
        while iterations < self.iterations {
            iterations += 1;
            let sizes = update(points, &assignments, &mut centroids);
            split_largest_into_empty(&mut centroids, points.dim, sizes);
            let (moved, lower) = assign(points, &centroids);
            let settled = moved == assignments || inertia - lower <= self.tolerance * inertia;
            // With a tolerance of zero only equal assignments settle it: rounding may raise the inertia by a hair.
            let settled = if self.tolerance > 0.0 { settled } else { moved == assignments };
            (assignments, inertia) = (moved, lower);
            if settled {
                break;
            }
        }
        Ok(Clustering { assignments, centroids, inertia, iterations })
    }
}

/// Points and centroids taken together, which stay in a second-level cache of 1 MiB with their products.
const POINT_BLOCK: usize = 192;
const CENTROID_BLOCK: usize = 512;

/// The nearest of `centroids` (k, d) to each point, the first of equals, and the sum of squared distances to them.
///
/// `|x - c|² = |x|² - (2 x·c - |c|²)`, so the nearest has the largest bracket; that is one inner product, of (x, 1) with (2 c, -|c|²).
fn assign(points: Rows, centroids: &[f32]) -> (Vec<u32>, f64) {
    let dim = points.dim;
    let packed = PackedRows::new(centroids.len() / dim, dim + 1, |row, to| {
        let centroid = &centroids[row * dim..][..dim];
        to.iter_mut().zip(centroid).for_each(|(to, c)| *to = 2.0 * c);
        to[dim] = -squared_length(centroid) as f32;
    });
    let mut assignments = vec![0; points.len()];
    let mut distances = vec![0.0; points.len()];
    assignments
        .par_chunks_mut(POINT_BLOCK)
        .zip(distances.par_chunks_mut(POINT_BLOCK))
        .zip(points.values.par_chunks(POINT_BLOCK * dim))
        .for_each(|((assignments, distances), block)| {
            let extended: Vec<f32> =
                block.chunks(dim).flat_map(|x| x.iter().copied().chain(std::iter::once(1.0))).collect();
            let mut best = vec![f32::NEG_INFINITY; assignments.len()];
            let mut products = vec![0.0; assignments.len() * CENTROID_BLOCK];
            for start in (0..packed.len()).step_by(CENTROID_BLOCK) {
                let range = start..(start + CENTROID_BLOCK).min(packed.len());
                let width = PackedRows::width(&range);
                let products = &mut products[..assignments.len() * width];
                packed.products(&extended, range.clone(), products);
                for ((products, best), assignment) in
                    products.chunks(width).zip(&mut best).zip(&mut *assignments)
                {
                    if let Some(at) = first_largest_above(best, &products[..range.len()]) {
                        *assignment = (start + at) as u32;
                    }
                }
            }
            // The expanded square cancels in f32 where points lie on their centroids: the sum takes the difference itself.
            for ((row, &cluster), distance) in block.chunks(dim).zip(&*assignments).zip(distances) {
                *distance = squared_distance(row, &centroids[cluster as usize * dim..][..dim]);
            }
        });
    (assignments, distances.iter().sum())
}

/// Raises `best` to the largest of `values`, if one is greater, and says where the first such is.
fn first_largest_above(best: &mut f32, values: &[f32]) -> Option<usize> {
    let mut found = None;
    let mut group = group_above(values, 0, *best);
    while group < values.len() {
        let end = (group + GROUP).min(values.len());
        for (offset, &value) in values[group..end].iter().enumerate() {
            if value > *best {
                *best = value;
                found = Some(group + offset);
            }
        }
        group = group_above(values, end, *best);
    }
    found
}

/// Moves each centroid to the mean of its points and returns the clusters' sizes; an empty one stays where it was.
///
/// A cluster's points are added in order of index in f64, so threads do not change the sums.
fn update(points: Rows, assignments: &[u32], centroids: &mut [f32]) -> Vec<usize> {
    let clusters = centroids.len() / points.dim;
    let mut sizes = vec![0; clusters];
    for &cluster in assignments {
        sizes[cluster as usize] += 1;
    }
    let mut next: Vec<usize> = Vec::with_capacity(clusters);
    let mut total = 0;
    for &size in &sizes {
        next.push(total);
        total += size;
    }
    let mut members = vec![0u32; points.len()];
    for (point, &cluster) in assignments.iter().enumerate() {
        members[next[cluster as usize]] = point as u32;
        next[cluster as usize] += 1;
    }
    centroids.par_chunks_mut(points.dim).enumerate().for_each(|(cluster, centroid)| {
        let members = &members[next[cluster] - sizes[cluster]..next[cluster]];
        if members.is_empty() {
            return;
        }
        let mut sum = vec![0.0; centroid.len()];
        for &member in members {
            for (s, &v) in sum.iter_mut().zip(points.row(member as usize)) {
                *s += f64::from(v);
            }
        }
        for (c, s) in centroid.iter_mut().zip(sum) {
            *c = (s / members.len() as f64) as f32;
        }
    });
    sizes
}

/// Gives each empty cluster half of the largest one: both centroids are the largest one's, pushed apart by 1/1024.
fn split_largest_into_empty(centroids: &mut [f32], dim: usize, mut sizes: Vec<usize>) {
    const APART: f32 = 1.0 / 1024.0;
    for empty in 0..sizes.len() {
        if sizes[empty] > 0 {
            continue;
        }
        let largest = (0..sizes.len()).max_by_key(|&c| (sizes[c], usize::MAX - c)).expect("k is above zero");
        for i in 0..dim {
            let (sign, value) = (if i % 2 == 0 { 1.0 } else { -1.0 }, centroids[largest * dim + i]);
            centroids[empty * dim + i] = value * (1.0 + sign * APART);
            centroids[largest * dim + i] = value * (1.0 - sign * APART);
        }
        sizes[empty] = sizes[largest] / 2;
        sizes[largest] -= sizes[empty];
    }
}

fn random_start(points: Rows, clusters: usize, stream: &mut Stream) -> Vec<f32> {
    let order = stream.permutation(points.len());
    order[..clusters].iter().flat_map(|&i| points.row(i as usize).iter().copied()).collect()
}

fn plus_plus_start(points: Rows, clusters: usize, stream: &mut Stream) -> Vec<f32> {
    let trials = 2 + (clusters as f64).ln() as usize;
    let squares: Vec<f32> = points.values.chunks(points.dim).map(|x| squared_length(x) as f32).collect();
    let first = stream.below(points.len());
    let mut centroids = points.row(first).to_vec();
    let mut nearest = distances_to(points, &squares, &[first]);
    while centroids.len() < clusters * points.dim {
        let drawn: Vec<usize> = draw_by_weight(&nearest, trials, stream);
        let mut distances = distances_to(points, &squares, &drawn);
        let mut best = (0, f64::INFINITY);
        for (trial, distances) in distances.chunks_mut(points.len()).enumerate() {
            for (d, n) in distances.iter_mut().zip(&nearest) {
                *d = if *d < *n { *d } else { *n };
            }
            let total = distances.iter().map(|&d| f64::from(d)).sum();
            if total < best.1 {
                best = (trial, total);
            }
        }
        centroids.extend_from_slice(points.row(drawn[best.0]));
        nearest.copy_from_slice(&distances[best.0 * points.len()..][..points.len()]);
    }
    centroids
}

/// (len of `to`, n) squared distances of every point to the points `to`.
fn distances_to(points: Rows, squares: &[f32], to: &[usize]) -> Vec<f32> {
    let targets: Vec<f32> = to.iter().flat_map(|&i| points.row(i).iter().copied()).collect();
    let mut out = vec![0.0; to.len() * points.len()];
    gemm::nt(to.len(), points.len(), points.dim, &targets, points.values, &mut out);
    for (row, &target) in out.chunks_mut(points.len()).zip(to) {
        for (value, square) in row.iter_mut().zip(squares) {
            *value = (square + squares[target] - 2.0 * *value).max(0.0);
        }
        row[target] = 0.0; // exactly, so that a point taken is never drawn again
    }
    out
}

/// `count` indices, each drawn in proportion to its weight; uniformly if all weights are zero.
fn draw_by_weight(weights: &[f32], count: usize, stream: &mut Stream) -> Vec<usize> {
    let mut total = 0.0;
    let sums: Vec<f64> = weights
        .iter()
        .map(|&w| {
            total += f64::from(w);
            total
        })
        .collect();
    (0..count)
        .map(|_| {
            if total > 0.0 {
                let at = stream.uniform() * total;
                sums.partition_point(|&sum| sum <= at).min(weights.len() - 1)
            } else {
                stream.below(weights.len())
            }
        })
        .collect()
}

fn squared_length(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

fn squared_distance(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{KMeans, Seeding, assign, squared_distance, update};
    use crate::{MetricError, Rows};
    use invaspread_random::{Purpose, Stream};
    use invaspread_tensor::DeviceKind;
    use proptest::prelude::*;

    const SETTINGS: KMeans = KMeans {
        clusters: 8,
        iterations: 100,
        tolerance: 0.0,
        restarts: 1,
        seeding: Seeding::PlusPlus,
        seed: 1,
        epoch: 0,
        device: DeviceKind::Cpu,
    };

    fn normal(count: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        (0..count).map(|_| stream.normal() as f32).collect()
    }

    /// `per` points round each of `clusters` far-apart centres.
    fn blobs(clusters: usize, per: usize, dim: usize) -> Vec<f32> {
        let (centres, mut values) = (normal(clusters * dim, 2), normal(clusters * per * dim, 3));
        for (point, row) in values.chunks_mut(dim).enumerate() {
            let centre = &centres[point % clusters * dim..][..dim];
            row.iter_mut().zip(centre).for_each(|(v, c)| *v = 0.05 * *v + 20.0 * c);
        }
        values
    }

    fn plain_assign(points: Rows, centroids: &[f32]) -> (Vec<u32>, f64) {
        let mut inertia = 0.0;
        let assignments = (0..points.len()).map(|i| {
            let distances: Vec<f64> =
                centroids.chunks(points.dim).map(|c| squared_distance(points.row(i), c)).collect();
            let best = (0..distances.len()).min_by(|&a, &b| distances[a].total_cmp(&distances[b])).unwrap();
            inertia += distances[best];
            best as u32
        });
        (assignments.collect(), inertia)
    }

    /// Lloyd's iterations as a textbook has them, in f64, from the given start; an empty cluster stays where it was.
    fn plain_lloyd(points: Rows, mut centroids: Vec<f32>) -> f64 {
        let mut inertia = f64::INFINITY;
        loop {
            let (assignments, now) = plain_assign(points, &centroids);
            if now >= inertia {
                return now;
            }
            inertia = now;
            for (cluster, centroid) in centroids.chunks_mut(points.dim).enumerate() {
                let of: Vec<usize> =
                    (0..points.len()).filter(|&i| assignments[i] == cluster as u32).collect();
                for (d, c) in centroid.iter_mut().enumerate().filter(|_| !of.is_empty()) {
                    let sum: f64 = of.iter().map(|&i| f64::from(points.row(i)[d])).sum();
                    *c = (sum / of.len() as f64) as f32;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn assignment_agrees_with_plain_distances(
            n in 1usize..600, k in 1usize..1100, dim in 1usize..12, seed: u64,
        ) {
            // Small integers: squares and products are exact, so ties fall the same way in both.
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| stream.below(9) as f32 - 4.0).collect() };
            let (values, centroids) = (draw(n * dim), draw(k * dim));
            let points = Rows::new(&values, dim);
            prop_assert_eq!(assign(points, &centroids), plain_assign(points, &centroids));
        }
    }

    #[test]
    fn descends_as_a_plain_lloyd_from_the_same_start() {
        let values = normal(400 * 6, 4);
        let points = Rows::new(&values, 6);
        for start in 0..5 {
            let centroids = points.slice(start * 8..(start + 1) * 8).to_vec();
            let want = plain_lloyd(points, centroids.clone());
            let got = SETTINGS.descend(points, centroids).unwrap();
            assert!((got.inertia - want).abs() < 1e-3 * want, "{} {want}", got.inertia);
            let (assignments, inertia) = plain_assign(points, &got.centroids);
            assert_eq!(got.assignments, assignments);
            assert!((got.inertia - inertia).abs() < 1e-9 * inertia);
        }
    }

    #[test]
    fn far_apart_blobs_are_found() {
        let values = blobs(20, 30, 16);
        let kmeans = KMeans { clusters: 20, restarts: 3, ..SETTINGS };
        let got = kmeans.fit(Rows::new(&values, 16)).unwrap();
        for (i, a) in got.assignments.iter().enumerate() {
            assert_eq!(*a, got.assignments[i % 20], "point {i}");
        }
        let want = 600.0 * 16.0 * 0.05 * 0.05;
        assert!((got.inertia - want).abs() < 0.1 * want, "{} {want}", got.inertia);
    }

    #[test]
    fn a_cluster_left_empty_takes_half_of_the_largest() {
        let values = blobs(4, 50, 8);
        let points = Rows::new(&values, 8);
        // Three starts in one place and one in another: two of the three are empty at once.
        let mut centroids = [points.row(0), points.row(0), points.row(0), points.row(1)].concat();
        let (assignments, _) = assign(points, &centroids);
        let sizes = update(points, &assignments, &mut centroids);
        assert_eq!((sizes[1], sizes[2]), (0, 0), "{sizes:?}");
        let got = KMeans { clusters: 4, ..SETTINGS }
            .descend(points, [points.row(0), points.row(0), points.row(0), points.row(1)].concat())
            .unwrap();
        for cluster in 0..4 {
            assert!(got.assignments.contains(&cluster), "cluster {cluster} is empty");
        }
    }

    #[test]
    fn threads_change_nothing_but_seed_epoch_and_restart_do() {
        let values = normal(900 * 10, 9);
        let points = Rows::new(&values, 10);
        let fit = |kmeans: KMeans, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| kmeans.fit(points).unwrap())
        };
        for seeding in [Seeding::Random, Seeding::PlusPlus] {
            let kmeans = KMeans { seeding, iterations: 3, ..SETTINGS };
            let base = fit(kmeans, 1);
            assert!(base == fit(kmeans, 4));
            assert_ne!(base.centroids, fit(KMeans { seed: 2, ..kmeans }, 2).centroids);
            assert_ne!(base.centroids, fit(KMeans { epoch: 1, ..kmeans }, 2).centroids);
            assert!(fit(KMeans { restarts: 30, ..kmeans }, 2).inertia < base.inertia);
        }
    }

    #[test]
    fn coinciding_points_and_too_few_points() {
        let same = vec![1.5; 40];
        for seeding in [Seeding::Random, Seeding::PlusPlus] {
            let got = KMeans { seeding, ..SETTINGS }.fit(Rows::new(&same, 4)).unwrap();
            assert!(got.inertia < 1e-3 && got.centroids.iter().all(|c| c.is_finite()));
        }
        let error = SETTINGS.fit(Rows::new(&same, 8)).unwrap_err();
        assert!(error.to_string().contains("found 5 rows in the points, expected at least 8"), "{error}");
        let error = SETTINGS.fit(Rows::new(&[f32::NAN; 9], 1)).unwrap_err();
        assert!(matches!(error, MetricError::NotFinite { row: 0, .. }));
    }
}
