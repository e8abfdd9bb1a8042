//! Multinomial logistic regression as a linear probe.
//!
//! minimise `½ Σ_c |w_c|² + C Σ_i (log Σ_c exp f_c(x_i) - f_{y_i}(x_i))`, `f_c(x) = w_c · x + b_c`.
//!
//! Shapes: x (n, d), labels (n), w (k, d), b (k), not penalised. The paper has no such row: it is the linear evaluation
//! that later work reports, beside the SVM of its STL-10 table, as scikit-learn's `LogisticRegression` defines it. With two
//! classes that fits the difference `w = w_1 - w_0` alone with penalty `½ |w|²`; as the best softmax has `w_1 = -w_0`, of penalty
//! `¼ |w|²`, the same difference comes of C/2. Where this deviates: the tolerance is tighter by default, and sums are in f64.

use crate::lbfgs::Lbfgs;
use crate::linear_classifier::{LinearClassifier, TrainingSet, check_above_zero};
use crate::{MetricError, Rows};
use invaspread_tensor::gemm;
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
        let found = solver.minimize(start, |planes, gradient| objective.value(planes, gradient));
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
                let mut extended = Vec::with_capacity(targets.len() * width);
                for row in block.chunks(rows.dim) {
                    extended.extend(row.iter().map(|&v| f64::from(v)));
                    extended.push(1.0);
                }
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
