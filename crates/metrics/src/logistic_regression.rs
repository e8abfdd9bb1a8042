//! Multinomial logistic regression as a linear probe.
//!
//! It minimizes `½ Σ_c |w_c|² + C Σ_i (log Σ_c exp f_c(x_i) - f_{y_i}(x_i))`, `f_c(x) = w_c · x + b_c`.
//!
//! Shapes: x (n, d), labels (n), w (k, d), b (k), which is not penalized. The paper has no such row. It is
//! the linear evaluation that later work reports, as scikit-learn's `LogisticRegression` defines it. For two
//! classes scikit-learn fits the difference `w = w_1 - w_0` alone, with the penalty `½ |w|²`. The best
//! softmax has `w_1 = -w_0`, with the penalty `¼ |w|²`, so C/2 gives the same difference here. Deviations
//! from scikit-learn: sums are in f64; Newton's method (`crate::newton`) finds the solution in a few steps,
//! even with a weak penalty; and the tolerance is a distance from the solution. scikit-learn's L-BFGS stops
//! when the gradient is small, and a gradient g means an error of g divided by the penalty in the weights: at
//! C = 100 this changes predictions.

use crate::linear_classifier::{LinearClassifier, TrainingSet, check_above_zero};
use crate::newton::{Newton, Problem};
use crate::{MetricError, Rows};
use invaspread_tensor::gemm;
use nalgebra::{Cholesky, DMatrix, DMatrixViewMut, Dyn};
use rayon::prelude::*;

/// The settings of the regression.
///
/// ```
/// use invaspread_metrics::{LogisticRegression, Rows};
///
/// let train = [-2.0, -1.0, 1.0, 2.0];
/// let classifier = LogisticRegression::default().fit(Rows::new(&train, 1), &[4, 4, 9, 9])?;
/// assert_eq!(classifier.accuracy(Rows::new(&[-0.5, 3.0], 1), &[4, 9])?, 100.0);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticRegression {
    /// C, the weight of the loss of the training rows relative to the penalty on w; above zero.
    pub c: f64,
    /// The fit ends when the next step of Newton's method would change no score of a training row by more
    /// than this share of the largest score (or of 1, if all scores are smaller); above zero. The
    /// distance from the solution is then much smaller, since each step squares it.
    pub tolerance: f64,
    /// The largest number of steps of Newton's method.
    pub max_iterations: usize,
}

impl Default for LogisticRegression {
    /// Returns C = 1, a tolerance of 1e-6 and at most 100 steps.
    fn default() -> Self {
        Self { c: 1.0, tolerance: 1e-6, max_iterations: 100 }
    }
}

impl LogisticRegression {
    /// Fits to `train` (n, d) with `labels` (n).
    ///
    /// # Errors
    /// If C or the tolerance is not above zero, there are no rows, there are more or fewer labels than
    /// rows, a row is not finite, there are fewer than two classes, or the steps do not suffice
    /// (`NotConverged`).
    pub fn fit(&self, train: Rows, labels: &[u32]) -> Result<LinearClassifier, MetricError> {
        check_above_zero("C", self.c)?;
        check_above_zero("the tolerance", self.tolerance)?;
        let set = TrainingSet::new(train, labels)?;
        let classes = set.classes.len();
        let c = if classes == 2 { 0.5 * self.c } else { self.c };
        let objective = Objective { set: &set, penalty: 1.0 / (c * train.len() as f64) };
        let newton = Newton { tolerance: self.tolerance, max_iterations: self.max_iterations };
        let found = newton.minimize(&objective, vec![0.0; classes * (train.dim + 1)]);
        if found.distance > self.tolerance || found.distance.is_nan() {
            return Err(MetricError::NotConverged {
                what: "logistic regression",
                found: found.distance,
                tolerance: self.tolerance,
                iterations: found.iterations,
            });
        }
        Ok(LinearClassifier::from_planes(set.classes, train.dim, &found.at))
    }
}

/// The number of rows that are multiplied together.
const BLOCK: usize = 512;

/// The largest number of columns for which a matrix of second derivatives is held.
const WIDEST: usize = 4096;

/// The function `1/n Σ_i (log Σ_c exp f_c(x_i) - f_{y_i}(x_i)) + penalty/2 Σ_c |w_c|²`.
struct Objective<'a> {
    set: &'a TrainingSet<'a>,
    penalty: f64,
}

impl Objective<'_> {
    fn width(&self) -> usize {
        self.set.rows.dim + 1
    }

    fn classes(&self) -> usize {
        self.set.classes.len()
    }

    /// Adds up the results of `work` over all blocks: a part (k, d + 1), which it writes, and a number, which
    /// it returns. Blocks are added in order, so threads do not change the sums.
    fn over_blocks(
        &self,
        sum: &mut [f64],
        work: impl Fn(&[f64], &[usize], usize, &mut [f64]) -> f64 + Sync,
    ) -> f64 {
        let rows = self.set.rows;
        let parts: Vec<(f64, Vec<f64>)> = rows
            .values
            .par_chunks(BLOCK * rows.dim)
            .zip(self.set.targets.par_chunks(BLOCK))
            .enumerate()
            .map(|(block, (values, targets))| {
                let mut part = vec![0.0; sum.len()];
                let number = work(&extended(values, rows.dim), targets, block * BLOCK, &mut part);
                (number, part)
            })
            .collect();
        sum.fill(0.0);
        let mut total = 0.0;
        for (number, part) in &parts {
            total += number;
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        total
    }

    /// Subtracts from each column of `sum` (k, d + 1) its mean over the classes. That mean is zero up to
    /// rounding errors. Without this step they would grow, since adding one number to the intercepts of all
    /// classes changes no prediction.
    fn less_class_mean(&self, sum: &mut [f64]) {
        let width = self.width();
        for column in 0..width {
            let total: f64 = sum[column..].iter().step_by(width).sum();
            let mean = total / self.classes() as f64;
            sum[column..].iter_mut().step_by(width).for_each(|s| *s -= mean);
        }
    }

    /// Divides `sum` (k, d + 1) by the number of rows and adds `planes` times the penalty, except for the
    /// intercepts.
    fn with_penalty(&self, sum: &mut [f64], planes: &[f64]) {
        let count = self.set.rows.len() as f64;
        for (plane, sum) in planes.chunks(self.width()).zip(sum.chunks_mut(self.width())) {
            for (i, s) in sum.iter_mut().enumerate() {
                *s /= count;
                if i < self.set.rows.dim {
                    *s += self.penalty * plane[i];
                }
            }
        }
    }

    /// Returns the scores of the training rows (n, k).
    fn scores(&self, planes: &[f64]) -> Vec<f64> {
        let (rows, width, classes) = (self.set.rows, self.width(), self.classes());
        let mut scores = vec![0.0; rows.len() * classes];
        scores.par_chunks_mut(BLOCK * classes).zip(rows.values.par_chunks(BLOCK * rows.dim)).for_each(
            |(scores, block)| {
                let count = block.len() / rows.dim;
                gemm::nt(count, classes, width, &extended(block, rows.dim), planes, scores);
            },
        );
        scores
    }
}

/// The numbers from which the second derivatives at a point are computed.
struct Curvature {
    /// (n, k) each row's probabilities.
    probabilities: Vec<f64>,
    preconditioner: Preconditioner,
}

/// An approximation of the inverse Hessian. It is the same matrix for every class, so that sums over the
/// classes stay zero.
enum Preconditioner {
    /// The factors of `1/n Σ_i (1 - Σ_c p_ic²)/k x_i x_iᵀ + penalty`, the mean of the diagonal blocks of the
    /// Hessian.
    Whole(Cholesky<f64, Dyn>),
    /// (d + 1) the diagonal of that matrix, if rows are too wide for a matrix or the matrix is not positive
    /// definite.
    Diagonal(Vec<f64>),
}

impl Problem for Objective<'_> {
    type Curvature = Curvature;

    /// Returns the value at `planes` (k, d + 1), for each class its weights and then its intercept; writes
    /// the gradient.
    fn value(&self, planes: &[f64], gradient: &mut [f64]) -> f64 {
        let (width, classes) = (self.width(), self.classes());
        let loss = self.over_blocks(gradient, |rows, targets, _, part| {
            let mut scores = vec![0.0; targets.len() * classes];
            gemm::nt(targets.len(), classes, width, rows, planes, &mut scores);
            let losses =
                scores.chunks_mut(classes).zip(targets).map(|(row, &target)| softmax_loss(row, target));
            let loss = losses.sum();
            gemm::tn(classes, width, targets.len(), &scores, rows, part);
            loss
        });
        self.less_class_mean(gradient);
        self.with_penalty(gradient, planes);
        let weights = planes.chunks(width).flat_map(|plane| &plane[..width - 1]);
        loss / self.set.rows.len() as f64 + 0.5 * self.penalty * weights.map(|w| w * w).sum::<f64>()
    }

    fn curvature(&self, planes: &[f64]) -> Curvature {
        let (rows, width, classes) = (self.set.rows, self.width(), self.classes());
        let mut probabilities = self.scores(planes);
        probabilities.par_chunks_mut(classes).for_each(|row| {
            softmax(row);
        });
        let weights: Vec<f64> = probabilities
            .par_chunks(classes)
            .map(|p| p.iter().map(|p| p * (1.0 - p)).sum::<f64>() / (classes * rows.len()) as f64)
            .collect();
        let mut diagonal = vec![0.0; width];
        let mut whole = (rows.dim <= WIDEST).then(|| DMatrix::<f64>::zeros(width, width));
        let mut product = vec![0.0; if whole.is_some() { width * width } else { 0 }];
        for (block, weights) in rows.values.chunks(BLOCK * rows.dim).zip(weights.chunks(BLOCK)) {
            let plain = extended(block, rows.dim);
            let mut weighted = plain.clone();
            for (row, weight) in weighted.chunks_mut(width).zip(weights) {
                for value in row {
                    *value *= weight;
                }
            }
            for (plain, weighted) in plain.chunks(width).zip(weighted.chunks(width)) {
                diagonal.iter_mut().zip(plain.iter().zip(weighted)).for_each(|(d, (p, w))| *d += p * w);
            }
            if let Some(whole) = &mut whole {
                gemm::tn(width, width, weights.len(), &plain, &weighted, &mut product);
                whole.iter_mut().zip(&product).for_each(|(w, p)| *w += p);
            }
        }
        // Intercepts have no penalty. A small penalty keeps the matrix invertible if the probabilities of all
        // rows are 0 or 1.
        let intercept = self.penalty.min(diagonal[rows.dim].max(f64::MIN_POSITIVE));
        for i in 0..width {
            let penalty = if i < rows.dim { self.penalty } else { intercept };
            diagonal[i] += penalty;
            if let Some(whole) = &mut whole {
                whole[(i, i)] += penalty;
            }
        }
        let preconditioner =
            whole.and_then(Cholesky::new).map_or(Preconditioner::Diagonal(diagonal), Preconditioner::Whole);
        Curvature { probabilities, preconditioner }
    }

    /// Computes `1/n Σ_i (diag(p_i) - p_i p_iᵀ) (V x_i) x_iᵀ + penalty V`.
    fn hessian_times(&self, at: &Curvature, vector: &[f64], product: &mut [f64]) {
        let (width, classes) = (self.width(), self.classes());
        self.over_blocks(product, |rows, targets, first, part| {
            let mut along = vec![0.0; targets.len() * classes];
            gemm::nt(targets.len(), classes, width, rows, vector, &mut along);
            let probabilities = at.probabilities[first * classes..].chunks(classes);
            for (along, probabilities) in along.chunks_mut(classes).zip(probabilities) {
                let mean: f64 = along.iter().zip(probabilities).map(|(a, p)| a * p).sum();
                along.iter_mut().zip(probabilities).for_each(|(a, p)| *a = p * (*a - mean));
            }
            gemm::tn(classes, width, targets.len(), &along, rows, part);
            0.0
        });
        self.less_class_mean(product);
        self.with_penalty(product, vector);
    }

    fn precondition(&self, at: &Curvature, vector: &mut [f64]) {
        match &at.preconditioner {
            Preconditioner::Whole(cholesky) => {
                // There is one column for each class.
                let mut columns = DMatrixViewMut::from_slice(vector, self.width(), self.classes());
                cholesky.solve_mut(&mut columns);
            }
            Preconditioner::Diagonal(diagonal) => {
                for plane in vector.chunks_mut(self.width()) {
                    plane.iter_mut().zip(diagonal).for_each(|(v, d)| *v /= d);
                }
            }
        }
    }

    /// Returns the largest change of a score of a training row, divided by the largest score.
    fn distance(&self, planes: &[f64], step: &[f64]) -> f64 {
        let largest = |planes: &[f64]| {
            self.scores(planes)
                .into_par_iter()
                .map(f64::abs)
                .reduce(|| 0.0, |a, b| if b > a || b.is_nan() { b } else { a })
        };
        largest(step) / largest(planes).max(1.0)
    }
}

/// Returns the rows of `block`, each with a 1 appended.
fn extended(block: &[f32], dim: usize) -> Vec<f64> {
    let mut extended = Vec::with_capacity(block.len() / dim * (dim + 1));
    for row in block.chunks(dim) {
        extended.extend(row.iter().map(|&v| f64::from(v)));
        extended.push(1.0);
    }
    extended
}

/// Returns the cross-entropy of `scores` (k) with `target`; replaces the scores by its derivatives.
fn softmax_loss(scores: &mut [f64], target: usize) -> f64 {
    let at_target = scores[target];
    let log_sum = softmax(scores);
    scores[target] -= 1.0;
    log_sum - at_target
}

/// Replaces `scores` (k) by probabilities and returns `log Σ exp` of the scores.
fn softmax(scores: &mut [f64]) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for s in scores.iter_mut() {
        *s = (*s - largest).exp();
        sum += *s;
    }
    for s in scores.iter_mut() {
        *s /= sum;
    }
    largest + sum.ln()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{LogisticRegression, Objective};
    use crate::linear_classifier::TrainingSet;
    use crate::newton::Problem;
    use crate::{MetricError, Rows};
    use invaspread_random::{Purpose, Stream};
    use proptest::prelude::*;

    const EXACT: LogisticRegression = LogisticRegression { c: 1.0, tolerance: 1e-11, max_iterations: 1000 };

    /// Values of scikit-learn: C, the weights of class 0, and its intercept.
    const WEAK: [(f64, [f64; 6], f64); 3] = [
        (
            1.0,
            [-1.423_969_703, -0.603_065_752, 1.393_560_645, -1.425_134_136, 0.419_166_538, 2.189_199_802],
            -0.107_928_838,
        ),
        (
            100.0,
            [-4.535_400_991, -1.787_017_19, 4.283_142_713, -4.472_017_963, 1.500_897_057, 7.031_417_031],
            0.674_342_301,
        ),
        (
            1e5,
            [-5.672_709_796, -2.190_456_112, 5.313_876_103, -5.566_090_259, 1.898_782_328, 8.804_060_273],
            0.927_958_013,
        ),
    ];

    fn normal(count: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        (0..count).map(|_| stream.normal() as f32).collect()
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (values, dim) = (normal(700 * 6, 1), 6);
        let labels: Vec<u32> = (0..700).map(|i| i * i % 4).collect();
        let set = TrainingSet::new(Rows::new(&values, dim), &labels).unwrap();
        let objective = Objective { set: &set, penalty: 0.3 };
        let mut planes: Vec<f64> =
            normal(set.classes.len() * (dim + 1), 2).into_iter().map(f64::from).collect();
        let (mut gradient, mut ignored) = (vec![0.0; planes.len()], vec![0.0; planes.len()]);
        objective.value(&planes, &mut gradient);
        for i in 0..planes.len() {
            let (at, step) = (planes[i], 1e-5);
            let mut value = |x| {
                planes[i] = x;
                objective.value(&planes, &mut ignored)
            };
            let want = (value(at + step) - value(at - step)) / (2.0 * step);
            planes[i] = at;
            assert!((gradient[i] - want).abs() < 1e-8, "parameter {i}: {} {want}", gradient[i]);
        }
    }

    #[test]
    fn two_points_solve_their_equation() {
        // For points a and -a, w = w_1 - w_0 minimizes ½ w² + 2 C log(1 + exp(-a w)), so w = 2 C a / (1 +
        // exp(a w)), and the intercept is 0.
        for (a, c) in [(1.0f32, 1.0), (0.2, 50.0), (4.0, 0.01)] {
            let got = LogisticRegression { c, ..EXACT }.fit(Rows::new(&[a, -a], 1), &[1, 0]).unwrap();
            let (w, b) = (got.weights()[1] - got.weights()[0], got.intercepts()[1] - got.intercepts()[0]);
            let a = f64::from(a);
            let want = 2.0 * c * a / (1.0 + (a * w).exp());
            assert!((w - want).abs() < 1e-8 && b.abs() < 1e-8, "{w} {want} {b}");
        }
    }

    #[test]
    fn rows_that_say_nothing_leave_the_classes_shares() {
        let labels = [0, 0, 0, 0, 5, 5, 9, 9, 9, 9];
        let got = EXACT.fit(Rows::new(&[0.0; 10], 1), &labels).unwrap();
        let odds = (got.intercepts()[1] - got.intercepts()[0]).exp();
        assert!((odds - 0.5).abs() < 1e-8 && got.classes() == [0, 5, 9], "{got:?}");
        assert!(got.weights().iter().all(|w| w.abs() < 1e-9));
    }

    #[test]
    fn weak_penalties_end_at_the_solution_that_scikit_learn_finds() {
        // The labels follow a noisy linear rule, so that no plane separates the classes. The expected values
        // are those of scikit-learn 1.9.1 (newton-cg, tol 1e-12) on the same rows.
        let hashed = |k: u32| {
            let mut x = k.wrapping_mul(2_654_435_761).wrapping_add(12_345);
            x ^= x >> 16;
            x = x.wrapping_mul(0x85eb_ca6b);
            x ^= x >> 13;
            x = x.wrapping_mul(0xc2b2_ae35);
            f64::from(x ^ (x >> 16)) / 4_294_967_296.0 - 0.5
        };
        let (n, dim) = (400, 6);
        let values: Vec<f32> = (0..n * dim).map(|k| (hashed(k) * 12.0_f64.sqrt()) as f32).collect();
        let score = |row: u32, class: u32| {
            let x = &values[(row * dim) as usize..][..dim as usize];
            let along: f64 = x
                .iter()
                .enumerate()
                .map(|(i, &v)| hashed(100_000 + class * dim + i as u32) * f64::from(v))
                .sum();
            4.0 * along + hashed(200_000 + row * 3 + class)
        };
        let labels: Vec<u32> = (0..n)
            .map(|row| (0..3).max_by(|&a, &b| score(row, a).total_cmp(&score(row, b))).unwrap())
            .collect();
        for (c, weight, intercept) in WEAK {
            let regression = LogisticRegression { c, ..LogisticRegression::default() };
            let got = regression.fit(Rows::new(&values, dim as usize), &labels).unwrap();
            for (got, want) in got.weights().iter().take(6).zip(weight) {
                assert!((got - want).abs() < 1e-5 * want.abs().max(1.0), "C = {c}: {got} {want}");
            }
            let got = got.intercepts()[0];
            assert!((got - intercept).abs() < 1e-5 * intercept.abs().max(1.0), "C = {c}: {got} {intercept}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let values = normal(2100 * 20, 3);
        let labels: Vec<u32> = (0..2100).map(|i| u32::from(values[i * 20] > 0.3) + i as u32 % 2).collect();
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| LogisticRegression::default().fit(Rows::new(&values, 20), &labels).unwrap())
        };
        assert!(fit(1) == fit(4));
    }

    #[test]
    fn what_cannot_be_fitted_is_named() {
        let rows = Rows::new(&[1.0, -1.0], 1);
        let fit = |regression: LogisticRegression, labels: &[u32]| regression.fit(rows, labels).unwrap_err();
        assert_eq!(
            fit(LogisticRegression { c: -2.0, ..EXACT }, &[0, 1]),
            MetricError::NotAboveZero { name: "C", value: -2.0 }
        );
        assert_eq!(fit(EXACT, &[1, 1]), MetricError::OneClass { label: 1, rows: 2 });
        assert!(matches!(fit(EXACT, &[1]), MetricError::LabelCount { rows: 2, labels: 1, .. }));
        let error = fit(LogisticRegression { max_iterations: 1, ..EXACT }, &[0, 1]);
        assert!(error.to_string().starts_with("the logistic regression stopped"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn agrees_with_gradient_descent(
            dim in 1usize..4, points in prop::collection::vec((prop::array::uniform3(-2.0f32..2.0), 0u32..3), 3..9),
            c in 0.1f64..2.0,
        ) {
            let labels: Vec<u32> = points.iter().map(|p| p.1).collect();
            let classes: Vec<u32> = (0..3).filter(|c| labels.contains(c)).collect();
            prop_assume!(classes.len() > 1);
            let rows: Vec<Vec<f64>> = points.iter().map(|p| p.0[..dim].iter().map(|&v| f64::from(v)).collect()).collect();
            let values: Vec<f32> = points.iter().flat_map(|p| p.0[..dim].to_vec()).collect();
            let got = LogisticRegression { c, ..EXACT }.fit(Rows::new(&values, dim), &labels).unwrap();

            let c = if classes.len() == 2 { 0.5 * c } else { c };
            let step = 1.0 / (1.0 + c * rows.iter().map(|x| 1.0 + x.iter().map(|v| v * v).sum::<f64>()).sum::<f64>());
            let (mut w, mut b) = (vec![vec![0.0; dim]; classes.len()], vec![0.0; classes.len()]);
            for _ in 0..20_000 {
                let (mut by_w, mut by_b) = (w.clone(), vec![0.0; classes.len()]);
                for (x, label) in rows.iter().zip(&labels) {
                    let powers: Vec<f64> = w.iter().zip(&b)
                        .map(|(w, b)| (b + w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()).exp()).collect();
                    let total: f64 = powers.iter().sum();
                    for k in 0..classes.len() {
                        let by_score = c * (powers[k] / total - f64::from(u8::from(classes[k] == *label)));
                        by_b[k] += by_score;
                        by_w[k].iter_mut().zip(x).for_each(|(g, x)| *g += by_score * x);
                    }
                }
                for k in 0..classes.len() {
                    b[k] -= step * by_b[k];
                    w[k].iter_mut().zip(&by_w[k]).for_each(|(w, g)| *w -= step * g);
                }
            }
            for k in 0..classes.len() {
                prop_assert!((got.intercepts()[k] - b[k]).abs() < 1e-6, "{got:?} {b:?}");
                for (got, want) in got.weights()[k * dim..].iter().zip(&w[k]) {
                    prop_assert!((got - want).abs() < 1e-6, "{got} {want}");
                }
            }
        }
    }
}
