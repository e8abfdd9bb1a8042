//! The weighted vote of the nearest neighbors and the scores of retrieval on the device (see
//! `kernels/knn.cu`).

use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Result, Tensor, bail};

use super::device_of;
use super::kernel::{Argument, launch, launch_with};
use super::losses::indices;
use super::memory::{spread, tensor, uninitialized};
use super::top_k::{LARGEST_K, nearest};

/// The number of threads of a kernel's block; a warp takes one row.
const THREADS: u32 = 256;
/// The columns are summed up in this many slices.
const SLICES: usize = 64;
/// The kernel writes this number where the host must decide.
const UNDECIDED: u32 = u32::MAX;
/// The same in place of a neighbor's place.
const UNSEEN: f64 = -2.0;

/// Rows on the device, with the squares of their lengths in f64.
#[derive(Debug)]
pub struct MeasuredRows {
    rows: Tensor,
    squares: Tensor,
    /// The means of the columns.
    pub means: Vec<f64>,
    /// The mean of the squares.
    pub mean_square: f64,
    /// The largest of the squares; NaN if a value is NaN.
    pub largest_square: f64,
    /// The largest distance of a square from 1; NaN if a value is NaN.
    pub from_one: f64,
}

impl MeasuredRows {
    /// Measures `rows`, at least one row of f32 on the device. Waits for the device.
    ///
    /// # Errors
    /// Returns an error if the rows are no such matrix, or the device fails.
    pub fn new(rows: &Tensor) -> Result<Self> {
        let rows = matrix(rows)?;
        let (count, dim) = rows.dims2()?;
        if count == 0 || dim == 0 {
            bail!("cuda: expected at least one value, found {:?}", rows.shape())
        }
        let device = device_of(&rows)?;
        let squares = uninitialized(count, DType::F64, device)?;
        let sizes = [Argument::Int(count as i32), Argument::Int(dim as i32)];
        let mut arguments = vec![Argument::address(&rows)?, Argument::address(&squares)?];
        arguments.extend(sizes);
        launch(device, "knn", "knn_squares", by_warps(count), [THREADS, 1, 1], 0, &arguments)?;
        let sums = uninitialized((SLICES, dim), DType::F64, device)?;
        let mut arguments = vec![Argument::address(&rows)?, Argument::address(&sums)?];
        arguments.extend(sizes);
        let grid = [dim.div_ceil(32) as u32, SLICES as u32, 1];
        launch(device, "knn", "knn_column_sums", grid, [32, 8, 1], 0, &arguments)?;
        let facts = uninitialized(dim + 3, DType::F64, device)?;
        let mut arguments =
            [&squares, &sums, &facts].map(Argument::address).into_iter().collect::<Result<Vec<_>>>()?;
        arguments.extend(sizes);
        arguments.push(Argument::Int(SLICES as i32));
        launch(device, "knn", "knn_facts", [1, 1, 1], [THREADS, 1, 1], 0, &arguments)?;
        let mut means = facts.to_vec1::<f64>()?;
        let [mean_square, largest_square, from_one] = [dim, dim + 1, dim + 2].map(|at| means[at]);
        means.truncate(dim);
        Ok(Self { rows, squares, means, mean_square, largest_square, from_one })
    }
}

/// A gallery in the form in which it is multiplied with queries.
#[derive(Debug)]
pub struct Multiplied<'a> {
    rows: &'a MeasuredRows,
    /// The offset (d) and the rows without it (m, d + 1), if there is one.
    less_offset: Option<(Tensor, Tensor)>,
    longest: f64,
    largest_term: f64,
}

impl<'a> Multiplied<'a> {
    /// Takes the rows as they are.
    pub fn plain(rows: &'a MeasuredRows) -> Self {
        Self { rows, less_offset: None, longest: rows.largest_square.sqrt(), largest_term: 0.0 }
    }

    /// Subtracts `offset` (d) from the rows, which have length 1 if `unit`: `q · g = (q - m) · (g - m) + m ·
    /// (g - m) + q · m`, where the last term is the same for all g, and the middle one is stored as one more
    /// number of the row. Waits for the device.
    ///
    /// # Errors
    /// Returns an error if the lengths differ or the device fails.
    pub fn less_offset(rows: &'a MeasuredRows, offset: &[f32], unit: bool) -> Result<Self> {
        let (count, dim) = rows.rows.dims2()?;
        if offset.len() != dim {
            bail!("cuda: an offset of {} numbers for rows of {dim}", offset.len())
        }
        let device = device_of(&rows.rows)?;
        let offset = tensor(offset, dim, device)?;
        let written = uninitialized((count, dim + 1), DType::F32, device)?;
        let squares = uninitialized(count, DType::F64, device)?;
        let terms = uninitialized(count, DType::F64, device)?;
        let tensors = [&rows.rows, &rows.squares, &offset, &written, &squares, &terms];
        let mut arguments = tensors.map(Argument::address).into_iter().collect::<Result<Vec<_>>>()?;
        arguments.extend([count as i32, dim as i32, i32::from(unit)].map(Argument::Int));
        launch(device, "knn", "knn_gallery_less_offset", by_warps(count), [THREADS, 1, 1], 0, &arguments)?;
        let largest = uninitialized(2, DType::F64, device)?;
        let tensors = [&squares, &terms, &largest];
        let mut arguments = tensors.map(Argument::address).into_iter().collect::<Result<Vec<_>>>()?;
        arguments.push(Argument::Int(count as i32));
        launch(device, "knn", "knn_largest", [1, 1, 1], [THREADS, 1, 1], 0, &arguments)?;
        let largest = largest.to_vec1::<f64>()?;
        // The term has been rounded once.
        let largest_term = largest[1] * (1.0 + f64::from(f32::EPSILON));
        Ok(Self { rows, less_offset: Some((offset, written)), longest: largest[0].sqrt(), largest_term })
    }

    /// Returns the queries in the form in which they are multiplied.
    fn asked(&self, queries: &Tensor) -> Result<Tensor> {
        let Some((offset, _)) = &self.less_offset else { return Ok(queries.clone()) };
        let (count, dim) = queries.dims2()?;
        let device = device_of(queries)?;
        let asked = uninitialized((count, dim + 1), DType::F32, device)?;
        let mut arguments =
            [queries, offset, &asked].map(Argument::address).into_iter().collect::<Result<Vec<_>>>()?;
        let numbers = asked.elem_count();
        arguments.extend([Argument::Long(numbers as i64), Argument::Int(dim as i32)]);
        let (grid, threads) = spread(numbers);
        launch(device, "knn", "knn_queries_less_offset", grid, threads, 0, &arguments)?;
        Ok(asked)
    }
}

/// The settings of a search among a gallery's rows.
#[derive(Debug, Clone, Copy)]
pub struct SearchSettings {
    /// The number of neighbors that count, at least 1.
    pub k: usize,
    /// The number of candidates among which the neighbors are chosen, at least `k`.
    pub candidates: usize,
    /// Whether all rows of the gallery have length 1, so that similarities are cosines.
    pub unit: bool,
    /// The largest distance from 1 of the square of a unit row's length.
    pub unit_error: f64,
    /// Twice the error of a product in f32 is at most `rounding` times the lengths of both rows and the
    /// largest term of the offset, plus `underflow`.
    pub rounding: f64,
    /// See `rounding`.
    pub underflow: f64,
}

/// The struct `Search` of `kernels/knn.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Search {
    dim: i32,
    width: i32,
    k: i32,
    found: i32,
    complete: i32,
    unit: i32,
    longest: f64,
    largest_term: f64,
    rounding: f64,
    underflow: f64,
    unit_error: f64,
}

// SAFETY: numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for Search {}

/// The struct `Vote` of `kernels/knn.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Vote {
    search: Search,
    temperature: f64,
    classes: i32,
    /// Fills the last eight bytes.
    unused: i32,
}

// SAFETY: numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for Vote {}

/// Queries whose candidates have been found: the first arguments of a kernel that puts them in order.
struct Candidates {
    arguments: Vec<Argument>,
    search: Search,
    /// Keeps the memory of the arguments until the kernel is launched.
    _tensors: Vec<Tensor>,
}

/// Searches the candidates of `queries` in `gallery`, whose rows have `labels`. With `itself`, the queries are
/// the rows of the gallery, and none is its own neighbor.
fn candidates(
    queries: &Tensor,
    gallery: &Multiplied<'_>,
    labels: &[u32],
    settings: &SearchSettings,
    itself: bool,
) -> Result<Candidates> {
    let MeasuredRows { rows: those, squares, .. } = gallery.rows;
    let ((count, dim), (rows, gallery_dim)) = (queries.dims2()?, those.dims2()?);
    let SearchSettings { k, candidates, unit, unit_error, rounding, underflow } = *settings;
    let all = rows - usize::from(itself);
    let found = candidates.min(all);
    let fits = dim == gallery_dim && labels.len() == rows && (!itself || count == rows);
    if !fits || k == 0 || k > found || found > LARGEST_K {
        bail!(
            "cuda: {k} of {found} neighbors of {:?} among {:?} with {} classes",
            queries.shape(),
            those.shape(),
            labels.len()
        )
    }
    let labels = indices(labels, &[rows], queries)?;
    let asked = gallery.asked(queries)?;
    let among = gallery.less_offset.as_ref().map_or(those, |(_, written)| written);
    let (numbers, products) = nearest(&asked, among, found, itself)?;
    let search = Search {
        dim: dim as i32,
        width: asked.dim(1)? as i32,
        k: k as i32,
        found: found as i32,
        complete: i32::from(found == all),
        unit: i32::from(unit),
        longest: gallery.longest,
        largest_term: gallery.largest_term,
        rounding,
        underflow,
        unit_error,
    };
    let arguments = [queries, &asked, those, squares, &labels, &numbers, &products].map(Argument::address);
    let arguments = arguments.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Candidates { arguments, search, _tensors: vec![labels, asked, numbers, products] })
}

/// A query's vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voted {
    /// The class with the highest score; of equal scores the lower class.
    pub class: u32,
    /// The number of classes that come before the query's own.
    pub rank: u32,
}

/// Lets the nearest rows of `gallery` (m, d) vote on the class of each row of `queries` (n, d), each with the
/// weight `exp(similarity / temperature)`. `labels` (m) and `wanted` (n) are below `classes`. Waits for the
/// device. Returns `None` if any query cannot be decided by its candidates: they may lack one of the k nearest,
/// or its products are not finite.
///
/// # Errors
/// Returns an error if the sizes do not match, there are more candidates than [`LARGEST_K`], or the device
/// fails.
pub fn vote(
    queries: &Tensor,
    gallery: &Multiplied<'_>,
    labels: &[u32],
    wanted: &[u32],
    settings: &SearchSettings,
    (temperature, classes): (f64, usize),
) -> Result<Option<Vec<Voted>>> {
    let queries = matrix(queries)?;
    let count = queries.dim(0)?;
    let device = device_of(&queries)?;
    let Candidates { mut arguments, search, _tensors } =
        candidates(&queries, gallery, labels, settings, false)?;
    let wanted = of_queries(wanted, &queries)?;
    let decided = uninitialized((count, 2), DType::U32, device)?;
    arguments.extend([Argument::address(&wanted)?, Argument::address(&decided)?]);
    let vote = Vote { search, temperature, classes: classes as i32, unused: 0 };
    let (grid, block) = ([count as u32, 1, 1], [THREADS, 1, 1]);
    launch_with(device, "knn", "knn_vote", grid, block, 0, &arguments, Some(&vote))?;
    let decided = decided.to_vec2::<u32>()?;
    let voted = |pair: &Vec<u32>| (pair[0] != UNDECIDED).then_some(Voted { class: pair[0], rank: pair[1] });
    Ok(decided.iter().map(voted).collect())
}

/// What a query retrieves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retrieved {
    /// The place of the first row of its class, counted from 0; `None` if none is among the k nearest.
    pub first: Option<usize>,
    /// The number of rows of its class among the first R, of which there are R.
    pub found: usize,
    /// The sum of the precisions at the places of these rows.
    pub precisions: f64,
}

/// Looks up each row of `gallery` (n, d) among all others. `labels` (n) are their classes, and `relevant` (n)
/// counts the other rows of each row's class. Waits for the device. Returns `None` where [`vote`] does.
///
/// # Errors
/// Returns the errors of [`vote`].
pub fn retrieve(
    gallery: &Multiplied<'_>,
    labels: &[u32],
    relevant: &[u32],
    settings: &SearchSettings,
) -> Result<Option<Vec<Retrieved>>> {
    let queries = &gallery.rows.rows;
    let count = queries.dim(0)?;
    let device = device_of(queries)?;
    let Candidates { mut arguments, search, _tensors } =
        candidates(queries, gallery, labels, settings, true)?;
    let (wanted, relevant) = (of_queries(labels, queries)?, of_queries(relevant, queries)?);
    let scores = uninitialized((count, 3), DType::F64, device)?;
    for tensor in [&wanted, &relevant, &scores] {
        arguments.push(Argument::address(tensor)?);
    }
    let (grid, block) = ([count as u32, 1, 1], [THREADS, 1, 1]);
    launch_with(device, "knn", "knn_retrieve", grid, block, 0, &arguments, Some(&search))?;
    let retrieved = |score: &Vec<f64>| {
        let first = score[0];
        (first > UNSEEN).then(|| Retrieved {
            first: (first >= 0.0).then_some(first as usize),
            found: score[1] as usize,
            precisions: score[2],
        })
    };
    Ok(scores.to_vec2::<f64>()?.iter().map(retrieved).collect())
}

/// Copies one number for each query to the device.
fn of_queries(numbers: &[u32], queries: &Tensor) -> Result<Tensor> {
    let count = queries.dim(0)?;
    if numbers.len() != count {
        bail!("cuda: {} numbers for the queries {:?}", numbers.len(), queries.shape())
    }
    indices(numbers, &[count], queries)
}

/// Divides each row of `rows` (N, D) by its length, which is computed in f64. A row of zeros stays as it is.
///
/// # Errors
/// Returns an error if it is no matrix of f32 on the device, or the device fails.
pub fn unit_rows(rows: &Tensor) -> Result<Tensor> {
    let rows = matrix(rows)?.copy()?;
    let (count, dim) = rows.dims2()?;
    let arguments = [Argument::address(&rows)?, Argument::Int(count as i32), Argument::Int(dim as i32)];
    launch(device_of(&rows)?, "knn", "knn_unit_rows", by_warps(count), [THREADS, 1, 1], 0, &arguments)?;
    Ok(rows)
}

fn by_warps(rows: usize) -> [u32; 3] {
    [(rows as u32).div_ceil(THREADS / 32), 1, 1]
}

fn matrix(rows: &Tensor) -> Result<Tensor> {
    let (count, _) = rows.dims2()?;
    if rows.dtype() != DType::F32 || i32::try_from(count).is_err() {
        bail!("cuda: expected rows of f32, found {:?} of {:?}", rows.shape(), rows.dtype())
    }
    rows.detach().contiguous()
}
