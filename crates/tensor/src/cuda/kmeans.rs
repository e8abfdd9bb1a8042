//! Lloyd's iterations on the device. From given first centroids they compute what `metrics::kmeans` computes,
//! up to the rounding of products.
//!
//! Points and centroids stay on the device. An iteration copies two numbers back, the sum of squared
//! distances and the number of points that moved, and also the centroids' shift if that decides when to stop.
//! `kernels/kmeans.cu` says how means get the same bits as on the CPU.

use super::blas::{Product, product};
use super::device_of;
use super::kernel::{Argument, launch};
use super::memory::{tensor, uninitialized};
use super::top_k::{at_once, parts};
use crate::inner_products::rounding;
use candle_core::{CudaDevice, DType, Result, Tensor, bail};

/// Points of a chunk of the counting sort, and threads of the kernels that run as one block: `WIDE` of the
/// kernels.
const WIDE: usize = 1024;
/// Threads of the blocks that use one warp for each row.
const THREADS: usize = 256;
const ROWS: usize = THREADS / 32;
/// Columns of a mean that a block takes.
const COLUMNS: usize = 128;

/// The result of Lloyd's iterations; its parts belong to the same iteration.
#[derive(Debug, Clone, PartialEq)]
pub struct Descent {
    /// (n): the nearest centroid of each point.
    pub assignments: Vec<u32>,
    /// (k, d): the centroids.
    pub centroids: Vec<f32>,
    /// Sum of the squared distances of the points to their centroids.
    pub inertia: f64,
    /// Number of iterations done.
    pub iterations: usize,
}

/// Runs Lloyd's iterations on `points` (n, d), on the device, from the centroids `start` (k, d). Stops after
/// `iterations`, or earlier: when nothing moves any more or, with `still`, when the sum of the squared shifts
/// of all centroids is at most `still`. An empty cluster gets half of the largest cluster.
///
/// # Errors
/// If the points are not a matrix of f32 on the device, `start` does not have their width, there is no
/// centroid, there are fewer points than centroids, a number is not finite, or the device fails.
pub fn descend(points: &Tensor, start: &[f32], iterations: usize, still: Option<f64>) -> Result<Descent> {
    let (count, dim) = points.dims2()?;
    let clusters = start.len() / dim.max(1);
    if clusters == 0 || clusters * dim != start.len() || clusters > count || count > i32::MAX as usize {
        bail!("cuda: k-means of points {:?} from {} numbers", points.shape(), start.len())
    }
    descend_in_blocks(points, start, iterations, still, at_once(count, clusters))
}

/// Does the same as [`descend`], with products of the given numbers of points and centroids at once.
fn descend_in_blocks(
    points: &Tensor,
    start: &[f32],
    iterations: usize,
    still: Option<f64>,
    at_once: (usize, usize),
) -> Result<Descent> {
    let clustering = Clustering::new(points, start, at_once)?;
    let count = clustering.count;
    let mut assignments = uninitialized(count, DType::U32, clustering.device())?;
    let mut moved = uninitialized(count, DType::U32, clustering.device())?;
    clustering.assign(&assignments)?;
    let (mut inertia, _) = clustering.totals(&assignments, &assignments)?;
    if !inertia.is_finite() {
        bail!(
            "cuda: k-means of points or first centroids that are not finite: the distances add up to {inertia}"
        )
    }
    let mut done = 0;
    while done < iterations {
        done += 1;
        let before = still.map(|_| clustering.centroids.copy()).transpose()?;
        clustering.update(&assignments)?;
        clustering.assign(&moved)?;
        let (lower, movers) = clustering.totals(&moved, &assignments)?;
        let stands = match still.zip(before) {
            Some((still, before)) => clustering.shift_from(&before)? <= still,
            None => false,
        };
        let settled = movers == 0.0 || stands;
        std::mem::swap(&mut assignments, &mut moved);
        inertia = lower;
        if settled {
            break;
        }
    }
    Ok(Descent {
        assignments: assignments.to_vec1()?,
        centroids: clustering.centroids.flatten_all()?.to_vec1()?,
        inertia,
        iterations: done,
    })
}

/// Points, centroids, and the buffers that the kernels share.
struct Clustering {
    points: Tensor,
    centroids: Tensor,
    count: usize,
    clusters: usize,
    dim: usize,
    /// Numbers of points and of centroids of a block of products.
    at_once: (usize, usize),
    /// Half of each centroid's squared length.
    halves: Tensor,
    /// For each point: the largest product minus half the centroid's squared length, so far.
    best: Tensor,
    /// For each point: the second largest such value.
    second: Tensor,
    /// The largest of `halves`.
    longest: Tensor,
    distances: Tensor,
    totals: Tensor,
    /// The place of each point in its cluster within its chunk. Beside it: the points in order of cluster,
    /// and each cluster's start and size.
    places: Tensor,
    members: Tensor,
    starts: Tensor,
    sizes: Tensor,
}

impl Clustering {
    fn new(points: &Tensor, start: &[f32], at_once: (usize, usize)) -> Result<Self> {
        let (count, dim) = points.dims2()?;
        let clusters = start.len() / dim;
        let device = device_of(points)?;
        Ok(Self {
            points: points.detach().contiguous()?,
            centroids: tensor(start, (clusters, dim), device)?,
            count,
            clusters,
            dim,
            at_once,
            halves: uninitialized(clusters, DType::F32, device)?,
            best: uninitialized(count, DType::F32, device)?,
            second: uninitialized(count, DType::F32, device)?,
            longest: uninitialized(1, DType::F32, device)?,
            distances: uninitialized(count, DType::F64, device)?,
            totals: uninitialized(2, DType::F64, device)?,
            places: uninitialized(count, DType::U32, device)?,
            members: uninitialized(count, DType::U32, device)?,
            starts: uninitialized(clusters, DType::U32, device)?,
            sizes: uninitialized(clusters, DType::U32, device)?,
        })
    }

    fn device(&self) -> &CudaDevice {
        device_of(&self.points).expect("it was asked for when this was made")
    }

    /// Queues a kernel; its arguments are tensors, then numbers.
    fn run(
        &self,
        name: &str,
        grid: [usize; 2],
        threads: usize,
        tensors: &[&Tensor],
        numbers: &[usize],
    ) -> Result<()> {
        let mut arguments =
            tensors.iter().map(|tensor| Argument::address(tensor)).collect::<Result<Vec<_>>>()?;
        arguments.extend(numbers.iter().map(|&number| Argument::Int(number as i32)));
        let [x, y] = grid.map(|blocks| blocks as u32);
        launch(self.device(), "kmeans", name, [x, y, 1], [threads as u32, 1, 1], 0, &arguments)
    }

    /// Writes the nearest centroid of each point to `to`.
    fn assign(&self, to: &Tensor) -> Result<()> {
        let Self { count, clusters, dim, .. } = *self;
        let by_warps = |rows: usize| [rows.div_ceil(ROWS), 1];
        let tensors = [&self.centroids, &self.halves];
        self.run("kmeans_half_squares", by_warps(clusters), THREADS, &tensors, &[clusters, dim])?;
        let (points_at_once, clusters_at_once) = self.at_once;
        for numbers in parts(count, points_at_once) {
            let here = |tensor: &Tensor| tensor.narrow(0, numbers.start, numbers.len());
            let (points, best, to) = (here(&self.points)?, here(&self.best)?, here(to)?);
            let second = here(&self.second)?;
            for range in parts(clusters, clusters_at_once) {
                let centroids = self.centroids.narrow(0, range.start, range.len())?;
                let products = product(&points, &centroids, Product::SecondTransposed, false)?;
                let tensors = [&products, &self.halves, &best, &second, &to];
                let sizes = [numbers.len(), range.len(), range.start];
                self.run("kmeans_assign", by_warps(numbers.len()), THREADS, &tensors, &sizes)?;
            }
        }
        self.settle(to)?;
        let tensors = [&self.points, &self.centroids, to, &self.distances];
        self.run("kmeans_distances", by_warps(count), THREADS, &tensors, &[count, dim])
    }

    /// Compares distances in f64 where products of f32 cannot decide.
    fn settle(&self, assignments: &Tensor) -> Result<()> {
        let Self {
            count, clusters, dim, ref points, ref centroids, ref best, ref second, ref longest, ..
        } = *self;
        self.run("kmeans_longest", [1, 1], WIDE, &[&self.halves, longest], &[clusters])?;
        let tensors = [points, centroids, best, second, longest, assignments];
        let mut arguments =
            tensors.iter().map(|tensor| Argument::address(tensor)).collect::<Result<Vec<_>>>()?;
        arguments.push(Argument::Double(rounding(dim + 1)));
        arguments.extend([count, clusters, dim].map(|number| Argument::Int(number as i32)));
        let grid = [count.div_ceil(ROWS) as u32, 1, 1];
        launch(self.device(), "kmeans", "kmeans_settle", grid, [THREADS as u32, 1, 1], 0, &arguments)
    }

    /// Returns the sum of squared differences between the centroids `before` and the current ones. Waits for
    /// the device.
    fn shift_from(&self, before: &Tensor) -> Result<f64> {
        let shift = uninitialized(1, DType::F64, self.device())?;
        let tensors = [before, &self.centroids, &shift];
        self.run("kmeans_shift", [1, 1], WIDE, &tensors, &[self.clusters * self.dim])?;
        Ok(shift.to_vec1::<f64>()?[0])
    }

    /// Returns the sum of squared distances after [`Self::assign`] wrote `assignments`, and how many of them
    /// differ from `before`. Waits for the device.
    fn totals(&self, assignments: &Tensor, before: &Tensor) -> Result<(f64, f64)> {
        let tensors = [&self.distances, assignments, before, &self.totals];
        self.run("kmeans_totals", [1, 1], WIDE, &tensors, &[self.count])?;
        let totals: Vec<f64> = self.totals.to_vec1()?;
        Ok((totals[0], totals[1]))
    }

    /// Moves each centroid to the mean of its points, and each centroid without points to half of the largest
    /// cluster.
    fn update(&self, assignments: &Tensor) -> Result<()> {
        let Self { count, clusters, dim, ref places, ref members, ref starts, ref sizes, .. } = *self;
        let chunks = count.div_ceil(WIDE);
        let counters = Tensor::zeros((chunks, clusters), DType::U32, self.points.device())?;
        let grid = [chunks, 1];
        self.run("kmeans_rank", grid, WIDE, &[assignments, places, &counters], &[count, clusters])?;
        self.run("kmeans_offsets", [1, 1], WIDE, &[&counters, starts, sizes], &[chunks, clusters])?;
        let tensors = [assignments, places, &counters, starts, members];
        self.run("kmeans_place", grid, WIDE, &tensors, &[count, clusters])?;
        let tensors = [&self.points, members, starts, sizes, &self.centroids];
        self.run("kmeans_means", [clusters, dim.div_ceil(COLUMNS)], COLUMNS, &tensors, &[dim])?;
        self.run("kmeans_split", [1, 1], WIDE, &[&self.centroids, sizes], &[clusters, dim])
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::{descend, descend_in_blocks};
    use crate::cuda::testing::device_or_skip;
    use candle_core::Tensor;
    use invaspread_random::{Purpose, Stream};

    /// Draws points around `centers` places at least 10 apart, in turn; 101 is a prime, so the places differ.
    fn clumps(count: usize, dim: usize, centers: usize) -> Vec<f32> {
        let mut stream = Stream::new(3, Purpose::KMeans, 0, 0);
        let place = |center: usize, column: usize| 10.0 * (center * (7 + column) % 101) as f32;
        (0..count * dim).map(|i| place(i / dim % centers, i % dim) + 0.1 * stream.normal() as f32).collect()
    }

    #[test]
    fn clumps_are_found_and_their_means_have_the_bits_of_a_plain_sum() {
        let Some(device) = device_or_skip() else { return };
        for (count, dim, centers) in [(1, 1, 1), (90, 130, 3), (1100, 2, 40)] {
            let points = clumps(count, dim, centers);
            let on_device = Tensor::from_slice(&points, (count, dim), &device).unwrap();
            let start = &points[..centers * dim];
            let found = descend(&on_device, start, 20, None).unwrap();
            assert_eq!(found, descend_in_blocks(&on_device, start, 20, None, (96, 32)).unwrap());
            let want: Vec<u32> = (0..count).map(|i| (i % centers) as u32).collect();
            assert_eq!(found.assignments, want);
            assert!(found.iterations <= 2, "{}", found.iterations);
            let mut inertia = 0.0;
            for cluster in 0..centers {
                let members: Vec<&[f32]> = points.chunks(dim).skip(cluster).step_by(centers).collect();
                for column in 0..dim {
                    let sum: f64 = members.iter().map(|x| f64::from(x[column])).sum();
                    let mean = (sum / members.len() as f64) as f32;
                    assert_eq!(found.centroids[cluster * dim + column], mean);
                    inertia +=
                        members.iter().map(|x| (f64::from(x[column]) - f64::from(mean)).powi(2)).sum::<f64>();
                }
            }
            assert!((found.inertia - inertia).abs() <= 1e-9 * inertia, "{} {inertia}", found.inertia);
        }
    }

    #[test]
    fn an_empty_cluster_takes_half_of_the_largest() {
        let Some(device) = device_or_skip() else { return };
        // Both centroids are the first point: all points go to the one with the lower number.
        let points = Tensor::from_slice(&[-2.0f32, -1.0, 1.0, 2.0, 3.0, 3.0], (6, 1), &device).unwrap();
        let found = descend(&points, &[-2.0, -2.0], 1, None).unwrap();
        let apart = 1.0 / 1024.0;
        assert_eq!(found.centroids, [1.0 - apart, 1.0 + apart]);
        assert_eq!(found.assignments, [0, 0, 0, 1, 1, 1]);
        assert_eq!(found.iterations, 1);
        let inertia =
            [-2.0, -1.0, 1.0].map(|x: f64| (x - 1.0 + f64::from(apart)).powi(2)).iter().sum::<f64>()
                + [2.0, 3.0, 3.0].map(|x: f64| (x - 1.0 - f64::from(apart)).powi(2)).iter().sum::<f64>();
        assert!((found.inertia - inertia).abs() < 1e-12);
    }

    #[test]
    fn the_shift_ends_it_and_what_f32_cannot_tell_apart_is_told_apart() {
        let Some(device) = device_or_skip() else { return };
        let line = Tensor::from_slice(&[-3.0f32, -1.0, 1.5, 3.0], (4, 1), &device).unwrap();
        // (-3, -1, 1.5) and (3) move the centroids by 1/6 and 2; then 1.5 joins 3, and they move by 7/6 and
        // 3/4; then nothing moves.
        let iterations = [None, Some(1.0), Some(4.0), Some(4.1)]
            .map(|still| descend(&line, &[-1.0, 5.0], 100, still).unwrap().iterations);
        assert_eq!(iterations, [2, 2, 2, 1]);
        // Two groups 2e5 apart, each with two places 1 apart: their products are 1e10, which f32 resolves to
        // 1e3.
        let far = [1e5f32, 1e5 + 0.25, 1e5 + 1.0, 1e5 + 1.25, -1e5, -1e5 - 0.25, -1e5 - 1.0, -1e5 - 1.25];
        let start = [1e5f32, 1e5 + 1.0, -1e5, -1e5 - 1.0];
        let points = Tensor::from_slice(&far, (8, 1), &device).unwrap();
        for blocks in [(64, 64), (32, 32)] {
            let found = descend_in_blocks(&points, &start, 5, None, blocks).unwrap();
            assert_eq!(found.assignments, [0, 0, 1, 1, 2, 2, 3, 3]);
            assert_eq!(found.inertia, 8.0 * 0.125 * 0.125);
        }
    }
}
