//! Linear classification by support vectors: the "Linear" column of Table 2.
//!
//! For each class k, with y_i = 1 where image i is of it and -1 elsewhere, and x_i the embedding with a 1 appended:
//!
//! `minimise over w_k: 1/2 |w_k|² + C Σ_i max(0, 1 - y_i w_k · x_i)²`; prediction = argmax_k w_k · x.
//!
//! Shapes: rows (n, d), labels (n), weights (classes, d + 1), the last of a row the intercept. The paper names neither library nor C (section
//! 4.1: "linear SVM on the training features"); this is liblinear's default problem, which scikit-learn's `LinearSVC` solves too: squared hinge,
//! one class against the rest, the intercept penalised as a weight. It is solved in the dual by coordinate descent (Hsieh et al., ICML
//! 2008), to a tolerance at which the order of the coordinates no longer shows in the weights; sums are in f64.

use crate::{MetricError, Rows};
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;

/// The settings of the classifier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearSvm {
    /// C, above zero.
    pub c: f64,
    /// Ends when no projected gradient of the dual is larger in a whole pass over all images.
    pub tolerance: f64,
    /// Passes over the images at most.
    pub iterations: usize,
    /// Seed of the order in which coordinates are visited.
    pub seed: u64,
}

impl Default for LinearSvm {
    /// C = 1, tolerance 1e-4 and 1,000 passes, as scikit-learn.
    fn default() -> Self {
        Self { c: 1.0, tolerance: 1e-4, iterations: 1000, seed: 0 }
    }
}

/// Weights that tell classes apart.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearClassifier {
    /// (classes, d + 1): the weights of each class, then its intercept.
    pub weights: Vec<f64>,
    /// d.
    pub dim: usize,
    /// Whether each class's solution reached the tolerance.
    pub converged: bool,
}

impl LinearSvm {
    /// Learns to tell the `classes` classes of `labels` (n) by `rows` (n, d).
    ///
    /// # Errors
    /// No rows, rows that are not finite, labels that are not below `classes`.
    ///
    /// # Panics
    /// If labels and rows differ in number, or C or the tolerance is not above zero.
    pub fn fit(&self, rows: Rows, labels: &[u32], classes: usize) -> Result<LinearClassifier, MetricError> {
        assert!(self.c > 0.0 && self.tolerance > 0.0, "{self:?}");
        crate::knn::check_labels("training rows", rows, labels, classes)?;
        rows.check_finite("training rows")?;
        let squares: Vec<f64> = (0..rows.len()).map(|i| 1.0 + dot(rows.row(i), rows.row(i))).collect();
        let solved: Vec<(Vec<f64>, bool)> = (0..classes as u32)
            .into_par_iter()
            .map(|class| self.one_against_the_rest(rows, labels, class, &squares))
            .collect();
        let converged = solved.iter().all(|(_, converged)| *converged);
        let weights = solved.into_iter().flat_map(|(weights, _)| weights).collect();
        Ok(LinearClassifier { weights, dim: rows.dim, converged })
    }

    /// Coordinate descent on `1/2 αᵀ Q α - Σ α`, α >= 0, where `Q_ij = y_i y_j x_i·x_j` and `1/2C` more on the diagonal; `w = Σ α_i y_i x_i`
    /// is kept beside it. Coordinates that lie at 0 and are pressed towards it are left out until the others have settled.
    fn one_against_the_rest(
        &self,
        rows: Rows,
        labels: &[u32],
        class: u32,
        squares: &[f64],
    ) -> (Vec<f64>, bool) {
        let dim = rows.dim;
        let ridge = 0.5 / self.c;
        let sign = |i: usize| if labels[i] == class { 1.0 } else { -1.0 };
        let mut weights = vec![0.0; dim + 1];
        let mut alpha = vec![0.0; rows.len()];
        let mut active: Vec<u32> = (0..rows.len() as u32).collect();
        // What presses a coordinate at 0 harder than the last pass's largest gradient is left out.
        let mut bound = f64::INFINITY;
        for pass in 0..self.iterations {
            let mut stream = Stream::new(self.seed, Purpose::SupportVectors, pass as u64, class.into());
            stream.shuffle(&mut active);
            let whole = active.len() == rows.len();
            let (mut largest, mut smallest) = (f64::NEG_INFINITY, f64::INFINITY);
            active.retain(|&i| {
                let i = i as usize;
                let (row, y) = (rows.row(i), sign(i));
                let margin = y * (dot_mixed(&weights[..dim], row) + weights[dim]);
                let gradient = margin - 1.0 + alpha[i] * ridge;
                if alpha[i] == 0.0 && gradient > bound {
                    return false;
                }
                let projected = if alpha[i] == 0.0 { gradient.min(0.0) } else { gradient };
                largest = largest.max(projected);
                smallest = smallest.min(projected);
                if projected.abs() > 1e-12 {
                    let old = alpha[i];
                    alpha[i] = (old - gradient / (squares[i] + ridge)).max(0.0);
                    let step = (alpha[i] - old) * y;
                    weights[..dim].iter_mut().zip(row).for_each(|(w, &x)| *w += step * f64::from(x));
                    weights[dim] += step;
                }
                true
            });
            if active.is_empty() || largest.max(-smallest) <= self.tolerance {
                if whole {
                    return (weights, true);
                }
                active = (0..rows.len() as u32).collect();
                bound = f64::INFINITY;
            } else {
                bound = if largest > 0.0 { largest } else { f64::INFINITY };
            }
        }
        (weights, false)
    }
}

impl LinearClassifier {
    /// The class of each row: the largest score, the lowest class of equals.
    ///
    /// # Panics
    /// If the rows are not as long as those it learned from.
    pub fn predict(&self, rows: Rows) -> Vec<u32> {
        assert_eq!(rows.dim, self.dim, "rows of another length than the classifier's");
        (0..rows.len())
            .into_par_iter()
            .map(|i| {
                let score = |w: &[f64]| dot_mixed(&w[..self.dim], rows.row(i)) + w[self.dim];
                let scores = self.weights.chunks_exact(self.dim + 1).map(score);
                let best = scores.enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
                best.map_or(0, |(class, _)| class as u32)
            })
            .collect()
    }

    /// Percent of rows that get their label.
    ///
    /// # Panics
    /// As [`LinearClassifier::predict`], or if labels and rows differ in number.
    pub fn accuracy(&self, rows: Rows, labels: &[u32]) -> f64 {
        assert_eq!(rows.len(), labels.len(), "one label per row");
        let right = self.predict(rows).iter().zip(labels).filter(|(found, label)| found == label).count();
        100.0 * right as f64 / labels.len().max(1) as f64
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// In eight sums, so that the compiler may take several numbers at once.
fn dot_mixed(weights: &[f64], row: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (w, x) = (weights.chunks_exact(LANES), row.chunks_exact(LANES));
    let rest: f64 = w.remainder().iter().zip(x.remainder()).map(|(&w, &x)| w * f64::from(x)).sum();
    for (w, x) in w.zip(x) {
        for lane in 0..LANES {
            sums[lane] += w[lane] * f64::from(x[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::LinearSvm;
    use crate::{MetricError, Rows};
    use proptest::prelude::*;

    const EXACT: LinearSvm = LinearSvm { c: 1.0, tolerance: 1e-9, iterations: 100_000, seed: 0 };

    #[test]
    fn two_points_by_hand() {
        // x = 1 and -1 on a line with an intercept column: by symmetry the intercept is 0 and w minimises w²/2 + 2C (1 - w)²: w = 4C / (1 + 4C).
        for c in [0.1, 1.0, 10.0] {
            let found = LinearSvm { c, ..EXACT }.fit(Rows::new(&[1.0, -1.0], 1), &[1, 0], 2).unwrap();
            let want = 4.0 * c / (1.0 + 4.0 * c);
            for (weight, want) in found.weights.iter().zip([-want, 0.0, want, 0.0]) {
                assert!((weight - want).abs() < 1e-8, "C = {c}: {found:?}");
            }
            assert_eq!((found.predict(Rows::new(&[3.0, -0.5], 1)), found.converged), (vec![1, 0], true));
        }
    }

    #[test]
    fn bad_labels_are_named() {
        let rows = Rows::new(&[1.0, 2.0], 1);
        let error = EXACT.fit(rows, &[0, 7], 2).unwrap_err();
        assert!(matches!(error, MetricError::LabelOutOfRange { row: 1, label: 7, .. }));
        let error = EXACT.fit(Rows::new(&[1.0, f32::NAN], 1), &[0, 1], 2).unwrap_err();
        assert!(matches!(error, MetricError::NotFinite { row: 1, .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The primal problem is strictly convex and differentiable: its gradient is zero at the solution and nowhere else.
        #[test]
        fn the_primal_gradient_vanishes(
            values in prop::collection::vec(-2.0_f32..2.0, 6..90), labels in prop::collection::vec(0_u32..3, 30), c in 0.05_f64..20.0, seed: u64,
        ) {
            let dim = 3;
            let n = values.len() / dim;
            let rows = Rows::new(&values[..n * dim], dim);
            let labels = &labels[..n];
            let found = LinearSvm { c, seed, ..EXACT }.fit(rows, labels, 3).unwrap();
            for (class, w) in found.weights.chunks(dim + 1).enumerate() {
                let mut gradient = w.to_vec();
                let mut scale: f64 = 1.0;
                for i in 0..n {
                    let x: Vec<f64> = rows.row(i).iter().map(|&x| f64::from(x)).chain([1.0]).collect();
                    let y = if labels[i] as usize == class { 1.0 } else { -1.0 };
                    let slack = (1.0 - y * w.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>()).max(0.0);
                    for (g, x) in gradient.iter_mut().zip(&x) {
                        *g -= 2.0 * c * slack * y * x;
                        scale = scale.max(2.0 * c * slack * x.abs());
                    }
                }
                prop_assert!(gradient.iter().all(|g| g.abs() < 1e-5 * scale), "class {class}: {gradient:?}");
            }
        }
    }

    #[test]
    fn neither_threads_nor_the_order_of_coordinates_show() {
        let values: Vec<f32> =
            (0..600).map(|i| ((i * 7919 % 613) as f32 / 306.0 - 1.0) + (i % 3) as f32 * 0.2).collect();
        let labels: Vec<u32> =
            (0..200).map(|i| u32::from(values[i * 3] > 0.1) + u32::from(values[i * 3 + 1] > 0.4)).collect();
        let rows = Rows::new(&values, 3);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| LinearSvm::default().fit(rows, &labels, 3).unwrap())
        };
        assert_eq!(with(1), with(3));
        let other = LinearSvm { seed: 9, tolerance: 1e-8, iterations: 100_000, ..LinearSvm::default() };
        let (a, b) = (EXACT.fit(rows, &labels, 3).unwrap(), other.fit(rows, &labels, 3).unwrap());
        assert!(a.weights.iter().zip(&b.weights).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
