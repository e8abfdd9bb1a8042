//! The linear support vector machine that classifies features in the paper's STL-10 table.
//!
//! For each class, with y = 1 for its rows and -1 for the rest, it minimizes
//! `P(w) = ½ |w|² + C Σ_i max(0, 1 - y_i w · x_i)²`.
//!
//! Shapes: x (n, d), each with a 1 appended, so that the last entry of w (d + 1) is the intercept, which is
//! penalized too; labels (n). Source: paper section 4.2, the column "Linear", which names neither C nor the
//! loss. This is the problem that scikit-learn's `LinearSVC` solves with its defaults (squared hinge, C = 1,
//! one class against the rest).
//!
//! A few sweeps of dual coordinate descent (Hsieh et al. 2008) find most support vectors at low cost. They
//! converge slowly if features are long or correlated, so Newton's method on P follows (Keerthi and DeCoste
//! 2005): P is quadratic as long as the support vectors stay the same, so a few steps reach the exact
//! solution. The order of a sweep is random, and the result does not depend on it. Deviation from
//! scikit-learn: the tolerance bounds the distance from the solution. With `h_i = max(0, 1 - y_i w · x_i)`,
//! `∇P = w - 2 C Σ h_i y_i x_i`, and since P is strongly convex, `|w - w*| ≤ |∇P|`; the duality gap at `α_i =
//! 2 C h_i` is `½ |∇P|²`.

use crate::linear_classifier::{LinearClassifier, TrainingSet, check_above_zero};
use crate::{MetricError, Rows};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::gemm;
use nalgebra::{Cholesky, DMatrix, DVector};
use rayon::prelude::*;

/// The settings of the SVM.
///
/// ```
/// use invaspread_metrics::{LinearSvm, Rows};
///
/// let train = [-2.0, -1.0, 1.0, 2.0];
/// let classifier = LinearSvm::default().fit(Rows::new(&train, 1), &[4, 4, 9, 9])?;
/// assert_eq!(classifier.predict(Rows::new(&[-0.5, 3.0], 1))?, [4, 9]);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearSvm {
    /// C, the weight of the loss of the training rows relative to the penalty on w; above zero.
    pub c: f64,
    /// The largest distance of the score of a training row from its value at the solution; above zero.
    pub tolerance: f64,
    /// The largest number of sweeps and Newton steps together, for each class.
    pub max_iterations: usize,
    /// Seed of the order of rows in a sweep. It changes the result by no more than the tolerance.
    pub seed: u64,
}

impl Default for LinearSvm {
    /// Returns C = 1, a tolerance of 1e-6 and at most 1000 iterations.
    fn default() -> Self {
        Self { c: 1.0, tolerance: 1e-6, max_iterations: 1000, seed: 0 }
    }
}

impl LinearSvm {
    /// Trains each class of `labels` (n) against the rest of `train` (n, d).
    ///
    /// # Errors
    /// If C or the tolerance is not above zero, there are no rows, there are more or fewer labels than
    /// rows, a row is not finite, there are fewer than two classes, or the iterations do not suffice
    /// (`NotConverged`).
    pub fn fit(&self, train: Rows, labels: &[u32]) -> Result<LinearClassifier, MetricError> {
        check_above_zero("C", self.c)?;
        check_above_zero("the tolerance", self.tolerance)?;
        let set = TrainingSet::new(train, labels)?;
        let squares: Vec<f64> = (0..train.len()).map(|i| 1.0 + squared_length(train.row(i))).collect();
        let longest = squares.iter().copied().fold(0.0, f64::max).sqrt();
        let planes: Vec<Vec<f64>> = (0..set.classes.len())
            .into_par_iter()
            .map(|class| {
                let signs = set.targets.iter().map(|&t| if t == class { 1.0 } else { -1.0 }).collect();
                let problem =
                    OneAgainstRest { settings: *self, class, rows: train, signs, squares: &squares, longest };
                problem.solve()
            })
            .collect::<Result<_, _>>()?;
        Ok(LinearClassifier::from_planes(set.classes, train.dim, &planes.concat()))
    }
}

/// Sweeps before the first Newton step. Of 0, 3, 10 and 30 sweeps, three took the least time, for 50,000 x
/// 128 and for 5,000 x 512 training rows.
const SWEEPS: usize = 3;

/// Sweeps between checks of the gradient if rows are too wide for Newton steps.
const SWEEPS_PER_LOOK: usize = 10;

/// The largest number of columns for which a Hessian is held.
const WIDEST: usize = 4096;

/// The number of rows whose outer products are added to the Hessian together.
const BLOCK: usize = 512;

/// The problem of one class.
struct OneAgainstRest<'a> {
    settings: LinearSvm,
    class: usize,
    rows: Rows<'a>,
    /// (n) the signs y.
    signs: Vec<f64>,
    /// (n) squared lengths of the rows with the 1 appended.
    squares: &'a [f64],
    /// The largest length.
    longest: f64,
}

impl OneAgainstRest<'_> {
    /// Returns the minimizer of P (d + 1).
    fn solve(&self) -> Result<Vec<f64>, MetricError> {
        let steps = self.rows.dim <= WIDEST;
        let mut w = vec![0.0; self.rows.dim + 1];
        let mut dual = vec![0.0; self.rows.len()];
        let mut iterations = 0;
        while iterations < self.settings.max_iterations && !(steps && iterations == SWEEPS) {
            self.sweep(iterations, &mut dual, &mut w);
            iterations += 1;
            if !steps && iterations.is_multiple_of(SWEEPS_PER_LOOK) && self.at(&w).converged(self) {
                break;
            }
        }
        let mut point = self.at(&w);
        if steps {
            let mut hessian = Hessian::new(self);
            while !point.converged(self) && iterations < self.settings.max_iterations {
                if !self.step(&mut hessian, &mut w, &mut point) {
                    break;
                }
                iterations += 1;
            }
        }
        if point.converged(self) {
            return Ok(w);
        }
        Err(MetricError::NotConverged {
            what: "linear SVM",
            found: self.longest * point.gradient_length(),
            tolerance: self.settings.tolerance,
            iterations,
        })
    }

    /// Minimizes the dual `½ |w|² + Σ α_i² / 4C - Σ α_i`, `w = Σ α_i y_i x_i`, over each α_i ≥ 0 in turn.
    fn sweep(&self, number: usize, dual: &mut [f64], w: &mut [f64]) {
        let order = Stream::new(self.settings.seed, Purpose::LinearSvm, number as u64, self.class as u64)
            .permutation(self.rows.len());
        let softness = 0.5 / self.settings.c;
        for i in order {
            let i = i as usize;
            let (x, y) = (self.rows.row(i), self.signs[i]);
            let slope = y * score(x, w) - 1.0 + softness * dual[i];
            let new = (dual[i] - slope / (self.squares[i] + softness)).max(0.0);
            let change = new - dual[i];
            if change != 0.0 {
                add_row(w, change * y, x);
                dual[i] = new;
            }
        }
    }

    /// Computes scores and gradient of P at `w`.
    fn at(&self, w: &[f64]) -> Point {
        let scores = (0..self.rows.len()).map(|i| score(self.rows.row(i), w)).collect();
        self.with_scores(w, scores)
    }

    fn with_scores(&self, w: &[f64], scores: Vec<f64>) -> Point {
        let mut gradient = w.to_vec();
        let mut total = 0.0;
        for (i, score) in scores.iter().enumerate() {
            let short = 1.0 - self.signs[i] * score;
            if short > 0.0 {
                let weight = 2.0 * self.settings.c * short;
                total += weight;
                add_row(&mut gradient, -weight * self.signs[i], self.rows.row(i));
            }
        }
        Point { scores, gradient, total }
    }

    /// Takes a Newton step with a line search. Returns false if the Hessian is too badly scaled to be
    /// factored.
    fn step(&self, hessian: &mut Hessian, w: &mut [f64], point: &mut Point) -> bool {
        hessian.follow(self, &point.scores);
        let Some(factor) = Cholesky::new(hessian.matrix.clone()) else { return false };
        let direction = factor.solve(&-DVector::from_column_slice(&point.gradient));
        let direction = direction.as_slice();
        let slopes: Vec<f64> = (0..self.rows.len()).map(|i| score(self.rows.row(i), direction)).collect();
        let length = self.search(w, direction, &point.scores, &slopes);
        w.iter_mut().zip(direction).for_each(|(w, d)| *w += length * d);
        let scores = point.scores.iter().zip(&slopes).map(|(s, q)| s + length * q).collect();
        *point = self.with_scores(w, scores);
        true
    }

    /// Returns the t that nearly minimizes `P(w + t p)`, for the `scores` of w and the `slopes` of p.
    fn search(&self, w: &[f64], direction: &[f64], scores: &[f64], slopes: &[f64]) -> f64 {
        let (along, square) = (dot(w, direction), dot(direction, direction));
        let derivatives = |t: f64| {
            let (mut first, mut second) = (0.0, 0.0);
            for ((score, slope), y) in scores.iter().zip(slopes).zip(&self.signs) {
                let short = 1.0 - y * (score + t * slope);
                if short > 0.0 {
                    first -= short * y * slope;
                    second += slope * slope;
                }
            }
            let c2 = 2.0 * self.settings.c;
            (along + t * square + c2 * first, square + c2 * second)
        };
        let enough = 1e-3 * derivatives(0.0).0.abs();
        let (mut low, mut high, mut t) = (0.0, f64::INFINITY, 1.0);
        for _ in 0..50 {
            let (first, second) = derivatives(t);
            if first.abs() <= enough {
                break;
            }
            if first < 0.0 {
                low = t;
            } else {
                high = t;
            }
            t -= first / second;
            if t <= low || t >= high {
                t = 0.5 * (low + high);
            }
        }
        t
    }
}

/// The scores and the gradient of P at some w.
struct Point {
    /// (n) w · x_i.
    scores: Vec<f64>,
    /// (d + 1) the gradient ∇P.
    gradient: Vec<f64>,
    /// The sum 2 C Σ h_i.
    total: f64,
}

impl Point {
    fn gradient_length(&self) -> f64 {
        dot(&self.gradient, &self.gradient).sqrt()
    }

    /// Returns whether every score is within the tolerance of its value at the solution, or the gradient is
    /// no larger than its rounding.
    fn converged(&self, problem: &OneAgainstRest) -> bool {
        let rounding = f64::EPSILON * self.total * problem.longest;
        self.gradient_length() <= (problem.settings.tolerance / problem.longest).max(rounding)
    }
}

/// `I + 2 C Σ x_i x_iᵀ` over the support vectors. It is kept from step to step. A row is added when it
/// becomes a support vector, and subtracted when it no longer is one.
struct Hessian {
    /// (d + 1, d + 1) the sum.
    matrix: DMatrix<f64>,
    /// (n) whether each row is a support vector.
    support: Vec<bool>,
}

impl Hessian {
    fn new(problem: &OneAgainstRest) -> Self {
        let size = problem.rows.dim + 1;
        Self { matrix: DMatrix::identity(size, size), support: vec![false; problem.rows.len()] }
    }

    /// Makes the rows with a margin below 1 at these `scores` the support vectors.
    fn follow(&mut self, problem: &OneAgainstRest, scores: &[f64]) {
        let mut changed = Vec::new();
        for (i, score) in scores.iter().enumerate() {
            let inside = problem.signs[i] * score < 1.0;
            if inside != self.support[i] {
                self.support[i] = inside;
                changed.push(i);
            }
        }
        let size = problem.rows.dim + 1;
        let mut product = vec![0.0; size * size];
        for block in changed.chunks(BLOCK) {
            let (mut plain, mut weighted) = (Vec::with_capacity(block.len() * size), Vec::new());
            for &i in block {
                let weight = 2.0 * problem.settings.c * if self.support[i] { 1.0 } else { -1.0 };
                let x = problem.rows.row(i).iter().map(|&v| f64::from(v)).chain(std::iter::once(1.0));
                plain.extend(x.clone());
                weighted.extend(x.map(|v| weight * v));
            }
            gemm::tn(size, size, block.len(), &weighted, &plain, &mut product);
            self.matrix.iter_mut().zip(&product).for_each(|(h, p)| *h += p);
        }
    }
}

/// The number of partial sums of an inner product, which the compiler keeps in vector registers.
const LANES: usize = 8;

/// Returns `w · (x, 1)`.
fn score(x: &[f32], w: &[f64]) -> f64 {
    let (bodies, bias) = (&w[..x.len()], w[x.len()]);
    let mut sums = [0.0; LANES];
    let (xs, ws) = (x.chunks_exact(LANES), bodies.chunks_exact(LANES));
    let rest: f64 = xs.remainder().iter().zip(ws.remainder()).map(|(&x, w)| f64::from(x) * w).sum();
    for (x, w) in xs.zip(ws) {
        for lane in 0..LANES {
            sums[lane] += f64::from(x[lane]) * w[lane];
        }
    }
    sums.iter().sum::<f64>() + rest + bias
}

/// Adds `factor (x, 1)` to w.
fn add_row(w: &mut [f64], factor: f64, x: &[f32]) {
    w.iter_mut().zip(x).for_each(|(w, &x)| *w += factor * f64::from(x));
    w[x.len()] += factor;
}

fn squared_length(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{LinearSvm, WIDEST};
    use crate::{LinearClassifier, MetricError, Rows};
    use invaspread_random::{Purpose, Stream};
    use proptest::prelude::*;

    /// Returns `n` rows around one center for each class, scaled and shifted away from the origin.
    fn clouds(n: usize, dim: usize, classes: usize, scale: f64, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let centers: Vec<f64> = (0..classes * dim).map(|_| 0.5 + stream.normal()).collect();
        let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
        let values = (0..n * dim)
            .map(|i| (scale * (0.6 * centers[i / dim % classes * dim + i % dim] + stream.normal())) as f32)
            .collect();
        (values, labels)
    }

    /// Returns P and its gradient (d + 1) by the equations at the head of the file.
    fn plain(rows: Rows, signs: &[f64], c: f64, w: &[f64]) -> (f64, Vec<f64>) {
        let mut gradient = w.to_vec();
        let mut value = w.iter().map(|w| 0.5 * w * w).sum();
        for (i, y) in signs.iter().enumerate() {
            let x: Vec<f64> = rows.row(i).iter().map(|&v| f64::from(v)).chain([1.0]).collect();
            let short = (1.0 - y * x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>()).max(0.0);
            value += c * short * short;
            gradient.iter_mut().zip(&x).for_each(|(g, x)| *g -= 2.0 * c * short * y * x);
        }
        (value, gradient)
    }

    fn plane(classifier: &LinearClassifier, dim: usize, class: usize) -> Vec<f64> {
        let weights = &classifier.weights()[class * dim..][..dim];
        weights.iter().copied().chain([classifier.intercepts()[class]]).collect()
    }

    fn signs(labels: &[u32], class: u32) -> Vec<f64> {
        labels.iter().map(|&label| if label == class { 1.0 } else { -1.0 }).collect()
    }

    /// Checks that the gradient and the duality gap of every class are zero up to the tolerance.
    fn assert_solved(svm: LinearSvm, rows: Rows, labels: &[u32]) -> LinearClassifier {
        let classifier = svm.fit(rows, labels).unwrap();
        let longest = (0..rows.len())
            .map(|i| rows.row(i).iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() + 1.0)
            .fold(0.0, f64::max)
            .sqrt();
        for (index, &class) in classifier.classes().iter().enumerate() {
            let (w, signs) = (plane(&classifier, rows.dim, index), signs(labels, class));
            let (value, gradient) = plain(rows, &signs, svm.c, &w);
            let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!(longest * length <= 1.01 * svm.tolerance, "class {class}: {length} at rows of {longest}");
            // The dual is computed at α_i = 2 C h_i, which is feasible; its distance from P is the duality
            // gap.
            let (mut dual, mut v) = (0.0, vec![0.0; rows.dim + 1]);
            for (i, y) in signs.iter().enumerate() {
                let x: Vec<f64> = rows.row(i).iter().map(|&v| f64::from(v)).chain([1.0]).collect();
                let short = 1.0 - y * x.iter().zip(&w).map(|(x, w)| x * w).sum::<f64>();
                let alpha = 2.0 * svm.c * short.max(0.0);
                dual += alpha - alpha * alpha / (4.0 * svm.c);
                v.iter_mut().zip(&x).for_each(|(v, x)| *v += alpha * y * x);
            }
            dual -= 0.5 * v.iter().map(|v| v * v).sum::<f64>();
            assert!((value - dual).abs() <= 1e-9 * value, "class {class}: primal {value}, dual {dual}");
        }
        classifier
    }

    #[test]
    fn two_points_have_a_closed_form() {
        // For points a and -a, the intercept is 0 and w minimizes ½ w² + 2 C (1 - a w)², so w = 4 C a / (1 +
        // 4 C a²).
        for (a, c) in [(2.0f32, 1.0), (0.1, 1.0), (0.5, 30.0), (3.0, 1e-3)] {
            let svm = LinearSvm { c, tolerance: 1e-12, ..LinearSvm::default() };
            let got = svm.fit(Rows::new(&[a, -a], 1), &[1, 0]).unwrap();
            let a = f64::from(a);
            let want = 4.0 * c * a / (1.0 + 4.0 * c * a * a);
            assert!((got.weights()[1] - want).abs() < 1e-12 && got.intercepts()[1].abs() < 1e-12, "{got:?}");
            assert!((got.weights()[0] + want).abs() < 1e-12, "{got:?}");
        }
    }

    #[test]
    fn gradient_and_duality_gap_vanish() {
        for (scale, c) in [(1.0, 1.0), (1.0, 100.0), (0.01, 1.0), (100.0, 1.0)] {
            let (values, labels) = clouds(600, 24, 5, scale, 1);
            let rows = Rows::new(&values, 24);
            let classifier = assert_solved(LinearSvm { c, ..LinearSvm::default() }, rows, &labels);
            assert!(classifier.accuracy(rows, &labels).unwrap() > 80.0);
        }
    }

    #[test]
    fn rows_too_wide_for_a_hessian_are_solved_by_sweeps() {
        let (values, labels) = clouds(24, WIDEST + 1, 3, 0.02, 2);
        let svm = LinearSvm { max_iterations: 3000, ..LinearSvm::default() };
        assert_solved(svm, Rows::new(&values, WIDEST + 1), &labels);
    }

    #[test]
    fn more_dimensions_than_rows_and_repeated_rows_are_solved() {
        let (values, labels) = clouds(20, 100, 4, 1.0, 3);
        assert_solved(LinearSvm::default(), Rows::new(&values, 100), &labels);
        // The same row is in both classes.
        let svm = LinearSvm { tolerance: 1e-9, ..LinearSvm::default() };
        assert_solved(svm, Rows::new(&[1.0, 0.0, 1.0, 0.0, 0.0, 0.0], 2), &[0, 1, 1]);
    }

    #[test]
    fn threads_change_no_bit_and_the_seed_no_more_than_the_tolerance() {
        let (values, labels) = clouds(900, 40, 7, 1.0, 4);
        let rows = Rows::new(&values, 40);
        let fit = |seed, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| LinearSvm { seed, ..LinearSvm::default() }.fit(rows, &labels).unwrap())
        };
        let base = fit(0, 1);
        assert!(base == fit(0, 4));
        let other = fit(1, 2);
        let scores = base.scores(rows).unwrap().into_iter().zip(other.scores(rows).unwrap());
        assert!(scores.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) < 2e-6);
        assert_eq!(base.predict(rows).unwrap(), other.predict(rows).unwrap());
    }

    #[test]
    fn what_cannot_be_trained_is_named() {
        let rows = Rows::new(&[1.0, -1.0], 1);
        for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = LinearSvm { c, ..LinearSvm::default() }.fit(rows, &[0, 1]).unwrap_err().to_string();
            assert!(error.starts_with("C is ") && error.contains("above zero"), "{error}");
        }
        let error = LinearSvm { tolerance: 0.0, ..LinearSvm::default() }.fit(rows, &[0, 1]).unwrap_err();
        assert_eq!(error, MetricError::NotAboveZero { name: "the tolerance", value: 0.0 });
        let askew = Rows::new(&[1.0, -0.3], 1);
        let error = LinearSvm { max_iterations: 1, ..LinearSvm::default() }.fit(askew, &[0, 1]).unwrap_err();
        assert!(error.to_string().contains("after 1 iterations, expected at most 1e-6"), "{error}");
        let error = LinearSvm::default().fit(rows, &[3, 3]).unwrap_err();
        assert_eq!(error, MetricError::OneClass { label: 3, rows: 2 });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn agrees_with_gradient_descent(
            dim in 1usize..4, points in prop::collection::vec((prop::array::uniform3(-2.0f32..2.0), 0u32..3), 2..9),
            c in 0.1f64..2.0, seed: u64,
        ) {
            let labels: Vec<u32> = points.iter().map(|p| p.1).collect();
            prop_assume!(labels.iter().any(|&label| label != labels[0]));
            let values: Vec<f32> = points.iter().flat_map(|p| p.0[..dim].to_vec()).collect();
            let rows = Rows::new(&values, dim);
            let got = LinearSvm { c, tolerance: 1e-9, seed, ..LinearSvm::default() }.fit(rows, &labels).unwrap();
            // The step size is one over a bound of the curvature.
            let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
            let step = 1.0 / (1.0 + 2.0 * c * (squares + labels.len() as f64));
            for (index, &class) in got.classes().iter().enumerate() {
                let signs = signs(&labels, class);
                let mut w = vec![0.0; dim + 1];
                for _ in 0..20_000 {
                    let (_, gradient) = plain(rows, &signs, c, &w);
                    w.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= step * g);
                }
                for (got, want) in plane(&got, dim, index).iter().zip(&w) {
                    prop_assert!((got - want).abs() < 1e-7, "{got} {want}");
                }
            }
        }
    }
}
