//! Multinomial logistic regression as a linear probe.
//!
//! minimise `½ Σ_c |w_c|² + C Σ_i (log Σ_c exp f_c(x_i) - f_{y_i}(x_i))`, `f_c(x) = w_c · x + b_c`.
//!
//! Shapes: x (n, d), labels (n), w (k, d), b (k), not penalised. The paper has no such row: it is the linear evaluation
//! that later work reports, beside the SVM of its STL-10 table, as scikit-learn's `LogisticRegression` defines it. With two
//! classes that fits the difference `w = w_1 - w_0` alone with penalty `½ |w|²`; as the best softmax has `w_1 = -w_0`, of penalty
//! `¼ |w|²`, the same difference comes of C/2. Where this deviates: the tolerance is tighter by default, sums are in f64, and
//! L-BFGS starts from the curvature that Böhning (1992) bounds every softmax's Hessian by, `½ Σ x xᵀ`, plus the penalty's, so that long or
//! correlated features take no more steps than others.

use crate::lbfgs::Lbfgs;
use crate::linear_classifier::{LinearClassifier, TrainingSet, check_above_zero};
use crate::{MetricError, Rows};
use invaspread_tensor::gemm;
use nalgebra::{Cholesky, DMatrix, DMatrixViewMut};
use rayon::prelude::*;

/// The regression's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticRegression {
    /// C, the weight of the training rows against the length of w; above zero.
    pub c: f64,
    /// Ends when no partial derivative of the objective over C n is further from zero; above zero.
    pub tolerance: f64,
    /// Most steps of L-BFGS.
    pub max_iterations: usize,
}

impl Default for LogisticRegression {
    /// C = 1, derivatives within 1e-6, in at most 1000 steps.
    fn default() -> Self {
        Self { c: 1.0, tolerance: 1e-6, max_iterations: 1000 }
    }
}

impl LogisticRegression {
    /// Fits to `train` (n, d) with `labels` (n).
    ///
    /// # Errors
    /// C or the tolerance not above zero; no rows; another number of labels than rows; `NotFinite` rows; fewer than two
    /// classes; `NotConverged` within the steps allowed.
    pub fn fit(&self, train: Rows, labels: &[u32]) -> Result<LinearClassifier, MetricError> {
        check_above_zero("C", self.c)?;
        check_above_zero("the tolerance", self.tolerance)?;
        let set = TrainingSet::new(train, labels)?;
        let classes = set.classes.len();
        let c = if classes == 2 { 0.5 * self.c } else { self.c };
        let objective = Objective { set: &set, penalty: 1.0 / (c * train.len() as f64) };
        let solver = Lbfgs { memory: MEMORY, tolerance: self.tolerance, max_iterations: self.max_iterations };
        let start = vec![0.0; classes * (train.dim + 1)];
        let bound = objective.curvature_bound().and_then(Cholesky::new);
        let precondition = |planes: &mut [f64]| {
            if let Some(bound) = &bound {
                // A column per class.
                let mut columns = DMatrixViewMut::from_slice(planes, train.dim + 1, classes);
                bound.solve_mut(&mut columns);
            }
        };
        let found =
            solver.minimize(start, |planes, gradient| objective.value(planes, gradient), precondition);
        // Negated, so that a NaN is no success.
        if !(found.largest_derivative <= self.tolerance) {
            return Err(MetricError::NotConverged {
                what: "logistic regression",
                found: found.largest_derivative,
                tolerance: self.tolerance,
                iterations: found.iterations,
            });
        }
        Ok(LinearClassifier::from_planes(set.classes, train.dim, &found.at))
    }
}

/// Steps that L-BFGS remembers.
const MEMORY: usize = 10;

/// Rows multiplied at a time.
const BLOCK: usize = 512;

/// Widest rows for which a matrix of their curvature is held.
const WIDEST: usize = 4096;

/// `1/n Σ_i (log Σ_c exp f_c(x_i) - f_{y_i}(x_i)) + penalty/2 Σ_c |w_c|²`.
struct Objective<'a> {
    set: &'a TrainingSet<'a>,
    penalty: f64,
}

impl Objective<'_> {
    /// The value at `planes` (k, d + 1), each weights and then the intercept; writes the gradient, of the same shape.
    fn value(&self, planes: &[f64], gradient: &mut [f64]) -> f64 {
        let (rows, width) = (self.set.rows, self.set.rows.dim + 1);
        let classes = self.set.classes.len();
        // Blocks are added in order, so threads do not change the sums.
        let parts: Vec<(f64, Vec<f64>)> = rows
            .values
            .par_chunks(BLOCK * rows.dim)
            .zip(self.set.targets.par_chunks(BLOCK))
            .map(|(block, targets)| {
                let extended = extended(block, rows.dim);
                let mut scores = vec![0.0; targets.len() * classes];
                gemm::nt(targets.len(), classes, width, &extended, planes, &mut scores);
                let loss: f64 = scores
                    .chunks_mut(classes)
                    .zip(targets)
                    .map(|(row, &target)| softmax_loss(row, target))
                    .sum();
                let mut part = vec![0.0; classes * width];
                gemm::tn(classes, width, targets.len(), &scores, &extended, &mut part);
                (loss, part)
            })
            .collect();

        gradient.fill(0.0);
        let mut loss = 0.0;
        for (part_loss, part) in &parts {
            loss += part_loss;
            gradient.iter_mut().zip(part).for_each(|(g, p)| *g += p);
        }
        let count = rows.len() as f64;
        let mut squares = 0.0;
        for (plane, gradient) in planes.chunks(width).zip(gradient.chunks_mut(width)) {
            for (i, g) in gradient.iter_mut().enumerate() {
                *g /= count;
                if i < rows.dim {
                    *g += self.penalty * plane[i];
                    squares += plane[i] * plane[i];
                }
            }
        }
        loss / count + 0.5 * self.penalty * squares
    }

    /// (d + 1, d + 1) what no class's Hessian exceeds; none if the rows are too wide.
    fn curvature_bound(&self) -> Option<DMatrix<f64>> {
        let (rows, width) = (self.set.rows, self.set.rows.dim + 1);
        if rows.dim > WIDEST {
            return None;
        }
        let mut bound = DMatrix::from_diagonal_element(width, width, self.penalty);
        bound[(rows.dim, rows.dim)] = 0.0;
        let mut product = vec![0.0; width * width];
        let share = 0.5 / rows.len() as f64;
        for block in rows.values.chunks(BLOCK * rows.dim) {
            let extended = extended(block, rows.dim);
            gemm::tn(width, width, block.len() / rows.dim, &extended, &extended, &mut product);
            bound.iter_mut().zip(&product).for_each(|(b, p)| *b += share * p);
        }
        Some(bound)
    }
}

/// The rows of `block`, a 1 appended to each.
fn extended(block: &[f32], dim: usize) -> Vec<f64> {
    let mut extended = Vec::with_capacity(block.len() / dim * (dim + 1));
    for row in block.chunks(dim) {
        extended.extend(row.iter().map(|&v| f64::from(v)));
        extended.push(1.0);
    }
    extended
}

/// The cross-entropy of `scores` (k) with `target`; turns the scores into its derivatives by them.
fn softmax_loss(scores: &mut [f64], target: usize) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let at_target = scores[target] - largest;
    let mut sum = 0.0;
    for s in scores.iter_mut() {
        *s = (*s - largest).exp();
        sum += *s;
    }
    scores.iter_mut().for_each(|s| *s /= sum);
    scores[target] -= 1.0;
    sum.ln() - at_target
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{LogisticRegression, Objective};
    use crate::linear_classifier::TrainingSet;
    use crate::{MetricError, Rows};
    use invaspread_random::{Purpose, Stream};
    use proptest::prelude::*;

    const EXACT: LogisticRegression = LogisticRegression { c: 1.0, tolerance: 1e-11, max_iterations: 1000 };

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
        // Points a and -a: w = w_1 - w_0 minimises ½ w² + 2 C log(1 + exp(-a w)), so w = 2 C a / (1 + exp(a w)); b is free of sign.
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
