//! k-means by Lloyd's iterations.
//!
//! It minimizes `Σ_i |x_i - c_a(i)|²` over assignments a and centroids c in turn: first `a(i) = argmin_j
//! |c_j|² - 2 x_i · c_j`, then `c_j` = the mean of its points.
//!
//! Shapes: points (n, d), centroids (k, d), assignments (n). Used by DeepCluster (paper section 4.1; 20
//! iterations of faiss from random points) and for NMI (scikit-learn: k-means++, best of 10 starts). Products
//! are computed in blocks, and the argmin of each block is taken immediately. An empty cluster gets half of
//! the largest one, whose centroid is split, as in faiss. Deviations from faiss: the largest cluster is
//! split, where faiss draws a cluster by size; and all points are used, where faiss samples 256 for each
//! cluster.
//!
//! Clusters do not depend on where the origin lies, but the rounding of f32 products does. So the mean is
//! subtracted from points that lie in a narrow cone or far from the origin; this needs memory for a copy of
//! the points. If the distances to the two nearest centroids differ by less than the rounding of the
//! products, they are compared in f64.

use crate::kmeans_start::{plus_plus_start, random_start};
use crate::nearest_centroid::assign;
use crate::rows::less_offset;
use crate::{MetricError, Rows};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::DeviceKind;
use invaspread_tensor::inner_products::exact_squared_distance;
use rayon::prelude::*;

/// The way in which the first centroids are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeding {
    /// k distinct points drawn at random, as faiss does.
    Random,
    /// Greedy k-means++ (Arthur and Vassilvitskii 2007) as in scikit-learn: the best of 2 + ln k points,
    /// drawn by their squared distance from the centroids so far.
    PlusPlus,
}

/// The settings of a clustering.
///
/// ```
/// use invaspread_metrics::{KMeans, Rows, Seeding};
/// use invaspread_tensor::DeviceKind;
///
/// let kmeans = KMeans {
///     clusters: 2,
///     iterations: 100,
///     tolerance: 0.0,
///     restarts: 5,
///     seeding: Seeding::PlusPlus,
///     seed: 0,
///     epoch: 0,
///     device: DeviceKind::Cpu,
/// };
/// let found = kmeans.fit(Rows::new(&[0.0, 1.0, 9.0, 10.0, 11.0], 1))?;
/// assert_eq!(found.assignments[0], found.assignments[1]);
/// assert_ne!(found.assignments[0], found.assignments[2]);
/// assert!((found.inertia - 2.5).abs() < 1e-6);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeans {
    /// The number of clusters, k.
    pub clusters: usize,
    /// The largest number of iterations for each start.
    pub iterations: usize,
    /// A start ends when an iteration moves the centroids by no more than this: the sum of their squared
    /// shifts, divided by the mean variance of the columns, as `tol` in scikit-learn. With 0 it ends when no
    /// point changes its cluster.
    pub tolerance: f64,
    /// The number of starts. The result with the lowest inertia is kept, the first of equals.
    pub restarts: usize,
    /// The way in which the first centroids are chosen.
    pub seeding: Seeding,
    /// Seed of the run.
    pub seed: u64,
    /// Epoch of the run; each epoch draws its own starts.
    pub epoch: u64,
    /// The device of the iterations; starts are made on the CPU.
    pub device: DeviceKind,
}

/// The result of a clustering.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// (n) the index of the nearest centroid of each point. A cluster may be empty where points coincide.
    pub assignments: Vec<u32>,
    /// (k, d) the centroids.
    pub centroids: Vec<f32>,
    /// Sum of squared distances of the points to their centroids.
    pub inertia: f64,
    /// The number of iterations done.
    pub iterations: usize,
}

impl KMeans {
    /// Clusters `points` (n, d).
    ///
    /// # Errors
    /// If a row is not finite, or there are fewer points than clusters.
    ///
    /// # Panics
    /// If the number of clusters or of restarts is zero.
    pub fn fit(&self, points: Rows) -> Result<Clustering, MetricError> {
        assert!(self.clusters > 0 && self.restarts > 0, "{self:?}");
        points.check_finite("points")?;
        if points.len() < self.clusters {
            return Err(MetricError::TooFewRows {
                what: "points",
                found: points.len(),
                needed: self.clusters,
                advice: "use more images or fewer clusters",
            });
        }
        let frame = Frame::of(points);
        let moved = frame.as_ref().map(|frame| frame.moved(points));
        let points = moved.as_ref().map_or(points, |values| Rows::new(values, points.dim));
        let still = (self.tolerance > 0.0).then(|| self.tolerance * mean_variance(points));
        let mut best: Option<Clustering> = None;
        for restart in 0..self.restarts {
            let mut stream = Stream::new(self.seed, Purpose::KMeans, self.epoch, restart as u64);
            let start = match self.seeding {
                Seeding::Random => random_start(points, self.clusters, &mut stream),
                Seeding::PlusPlus => plus_plus_start(points, self.clusters, &mut stream),
            };
            let found = self.descend(points, start, still)?;
            if best.as_ref().is_none_or(|best| found.inertia < best.inertia) {
                best = Some(found);
            }
        }
        let mut best = best.expect("there is at least one start");
        if let Some(frame) = frame {
            frame.put_back(&mut best);
        }
        Ok(best)
    }

    /// Runs Lloyd's iterations from `centroids` (k, d) until the sum of their squared shifts is at most
    /// `still`. The assignments returned are those of the centroids returned.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps, reason = "a device can fail"))]
    fn descend(
        &self,
        points: Rows,
        mut centroids: Vec<f32>,
        still: Option<f64>,
    ) -> Result<Clustering, MetricError> {
        #[cfg(feature = "cuda")]
        if self.device.is_cuda() {
            use crate::on_device::cuda::{failed, upload};
            use invaspread_tensor::cuda::kmeans::{Descent, descend};
            let points = upload(points, self.device).map_err(failed)?;
            let found = descend(&points, &centroids, self.iterations, still).map_err(failed)?;
            let Descent { assignments, centroids, inertia, iterations } = found;
            return Ok(Clustering { assignments, centroids, inertia, iterations });
        }
        let (mut assignments, mut inertia) = assign(points, &centroids);
        let mut iterations = 0;
        while iterations < self.iterations {
            iterations += 1;
            let before = still.is_some().then(|| centroids.clone());
            let sizes = update(points, &assignments, &mut centroids);
            split_largest_into_empty(&mut centroids, points.dim, sizes);
            let (moved, lower) = assign(points, &centroids);
            let stands =
                still.zip(before).is_some_and(|(still, before)| squared_shift(&before, &centroids) <= still);
            let settled = moved == assignments || stands;
            (assignments, inertia) = (moved, lower);
            if settled {
                break;
            }
        }
        Ok(Clustering { assignments, centroids, inertia, iterations })
    }
}

/// Squared lengths of the longest row for which f32 can hold the products and differences of all rows.
const WITHIN: std::ops::Range<f64> = 1e-20..1e20;

/// A shift and a scale for points whose f32 products would otherwise lose their digits.
struct Frame {
    /// (d) the vector that is subtracted.
    offset: Vec<f32>,
    /// The factor, a power of two, so that it changes no digit.
    scale: f32,
}

impl Frame {
    /// Returns the frame of `points`, or `None` if they can be clustered as they are.
    fn of(points: Rows) -> Option<Self> {
        let offset = points.common_offset();
        let longest = points.longest_square();
        let scaled = longest > 0.0 && !WITHIN.contains(&longest);
        if offset.is_none() && !scaled {
            return None;
        }
        // After the offset is subtracted, the rows may be far shorter than before.
        let offset = offset.unwrap_or_else(|| vec![0.0; points.dim]);
        let left = points.values.chunks(points.dim).map(|row| exact_squared_distance(row, &offset));
        let left = left.fold(0.0, f64::max);
        let scaled = left > 0.0 && !WITHIN.contains(&left);
        let scale = if scaled {
            2.0_f64.powi((-left.sqrt().log2().floor()).clamp(-126.0, 126.0) as i32) as f32
        } else {
            1.0
        };
        Some(Self { offset, scale })
    }

    fn moved(&self, points: Rows) -> Vec<f32> {
        let rows = points.values.chunks(points.dim);
        rows.flat_map(|row| less_offset(row, &self.offset).map(|v| v * self.scale)).collect()
    }

    fn put_back(&self, clustering: &mut Clustering) {
        for centroid in clustering.centroids.chunks_mut(self.offset.len()) {
            centroid.iter_mut().zip(&self.offset).for_each(|(c, o)| *c = *c / self.scale + o);
        }
        clustering.inertia /= f64::from(self.scale).powi(2);
    }
}

/// Returns the sum of the squared differences of two sets of centroids.
fn squared_shift(before: &[f32], after: &[f32]) -> f64 {
    before.iter().zip(after).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

/// Returns the mean of the columns' variances (over n).
fn mean_variance(points: Rows) -> f64 {
    let mean = points.column_means();
    let squares: f64 = points
        .values
        .chunks(points.dim)
        .flat_map(|row| row.iter().zip(&mean).map(|(&v, m)| (f64::from(v) - m).powi(2)))
        .sum();
    squares / points.values.len() as f64
}

/// Moves each centroid to the mean of its points and returns the sizes of the clusters. The centroid of an
/// empty cluster stays.
///
/// The points of a cluster are added in f64 in the order of their indices, so threads do not change the sums.
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

/// Gives each empty cluster half of the largest one: both get its centroid, moved apart by 1/1024.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{KMeans, Seeding, assign, update};
    use crate::{MetricError, Rows};
    use invaspread_random::{Purpose, Stream};
    use invaspread_tensor::DeviceKind;
    use invaspread_tensor::inner_products::exact_squared_distance;

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

    /// Returns `per` points around each of `clusters` centers that are far apart.
    fn blobs(clusters: usize, per: usize, dim: usize) -> Vec<f32> {
        let (centers, mut values) = (normal(clusters * dim, 2), normal(clusters * per * dim, 3));
        for (point, row) in values.chunks_mut(dim).enumerate() {
            let center = &centers[point % clusters * dim..][..dim];
            row.iter_mut().zip(center).for_each(|(v, c)| *v = 0.05 * *v + 20.0 * c);
        }
        values
    }

    fn plain_assign(points: Rows, centroids: &[f32]) -> (Vec<u32>, f64) {
        let mut inertia = 0.0;
        let assignments = (0..points.len()).map(|i| {
            let distances: Vec<f64> =
                centroids.chunks(points.dim).map(|c| exact_squared_distance(points.row(i), c)).collect();
            let best = (0..distances.len()).min_by(|&a, &b| distances[a].total_cmp(&distances[b])).unwrap();
            inertia += distances[best];
            best as u32
        });
        (assignments.collect(), inertia)
    }

    /// Runs Lloyd's iterations as in a textbook, in f64, from the given start. An empty cluster stays where
    /// it was.
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

    #[test]
    fn descends_as_a_plain_lloyd_from_the_same_start() {
        let values = normal(400 * 6, 4);
        let points = Rows::new(&values, 6);
        for start in 0..5 {
            let centroids = points.slice(start * 8..(start + 1) * 8).to_vec();
            let want = plain_lloyd(points, centroids.clone());
            let got = SETTINGS.descend(points, centroids, None).unwrap();
            assert!((got.inertia - want).abs() < 1e-3 * want, "{} {want}", got.inertia);
            let (assignments, inertia) = plain_assign(points, &got.centroids);
            assert_eq!(got.assignments, assignments);
            assert!((got.inertia - inertia).abs() < 1e-9 * inertia);
        }
    }

    #[test]
    fn the_tolerance_is_on_the_shift_of_the_centroids() {
        let values = [-3.0, -1.0, 1.5, 3.0];
        let points = Rows::new(&values, 1);
        let kmeans = KMeans { clusters: 2, ..SETTINGS };
        let descend = |still| kmeans.descend(points, vec![-1.0, 5.0], still).unwrap();
        // The clusters (-3, -1, 1.5) and (3) move the centroids by 1/6 and 2. Then 1.5 changes to the cluster
        // of 3, and the centroids move by 7/6 and 3/4. Then nothing moves.
        let iterations = [None, Some(1.0), Some(4.0), Some(4.1)].map(|still| descend(still).iterations);
        assert_eq!(iterations, [2, 2, 2, 1]);
        assert!((super::mean_variance(points) - 5.296_875).abs() < 1e-12);
        // Assignments, centroids and inertia belong together, at whatever iteration the descent ends.
        let ended = descend(Some(4.1));
        let (assignments, inertia) = plain_assign(points, &ended.centroids);
        assert_eq!((ended.assignments, ended.inertia), (assignments, inertia));
    }

    #[test]
    fn clusters_do_not_depend_on_the_scale_or_the_origin() {
        let values = blobs(7, 20, 5);
        let fit = |values: &[f32]| KMeans { clusters: 7, ..SETTINGS }.fit(Rows::new(values, 5)).unwrap();
        let want = fit(&values);
        for power in [-110, -60, 60, 110] {
            let scale = 2.0_f32.powi(power);
            let scaled: Vec<f32> = values.iter().map(|v| v * scale).collect();
            let got = fit(&scaled);
            assert_eq!((&got.assignments, got.iterations), (&want.assignments, want.iterations), "2^{power}");
            let inertia = want.inertia * f64::from(scale).powi(2);
            assert!((got.inertia - inertia).abs() < 1e-6 * inertia, "2^{power}");
            for (got, want) in got.centroids.iter().zip(&want.centroids) {
                assert!((got - want * scale).abs() <= 1e-5 * want.abs() * scale, "2^{power}");
            }
        }
        // Near 4e4, f32 still resolves 1/128, so multiples of 1/128 can be shifted there and back without a
        // loss.
        let whole: Vec<f32> = values.iter().map(|v| (v * 128.0).round() / 128.0).collect();
        let far: Vec<f32> = whole.iter().map(|v| v + 4e4).collect();
        let (near, far) = (fit(&whole), fit(&far));
        for (i, a) in near.assignments.iter().enumerate() {
            let same = |of: &[u32]| of.iter().position(|b| *b == of[i]).unwrap();
            assert_eq!(same(&near.assignments), same(&far.assignments), "point {i} of cluster {a}");
        }
        assert!((near.inertia - far.inertia).abs() < 1e-3 * near.inertia, "{} {}", near.inertia, far.inertia);
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
        // Three centroids start in one place and one in another, so two of the three are empty at the same
        // time.
        let mut centroids = [points.row(0), points.row(0), points.row(0), points.row(1)].concat();
        let (assignments, _) = assign(points, &centroids);
        let sizes = update(points, &assignments, &mut centroids);
        assert_eq!((sizes[1], sizes[2]), (0, 0), "{sizes:?}");
        let got = KMeans { clusters: 4, ..SETTINGS }
            .descend(points, [points.row(0), points.row(0), points.row(0), points.row(1)].concat(), None)
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
