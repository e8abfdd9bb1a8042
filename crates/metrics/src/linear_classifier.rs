//! A linear classifier, the result of fitting the linear SVM or the logistic regression.
//!
//! `f_c(x) = w_c · x + b_c`, prediction = argmax over c.
//!
//! Shapes: x (n, d), w (k, d), b (k), for the k distinct training labels. Scores are in f64; of classes with
//! equal scores the lower one is predicted.

use crate::{MetricError, Rows};
use invaspread_tensor::gemm;
use rayon::prelude::*;

/// The number of rows that are scored together.
const BLOCK: usize = 512;

/// A linear classifier with one hyperplane for each class.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearClassifier {
    classes: Vec<u32>,
    dim: usize,
    weights: Vec<f64>,
    intercepts: Vec<f64>,
}

impl LinearClassifier {
    /// Makes a classifier of `planes` (k, d + 1): for each class its weights, then its intercept.
    pub(crate) fn from_planes(classes: Vec<u32>, dim: usize, planes: &[f64]) -> Self {
        assert_eq!(planes.len(), classes.len() * (dim + 1), "one plane per class");
        let (mut weights, mut intercepts) = (Vec::with_capacity(classes.len() * dim), Vec::new());
        for plane in planes.chunks(dim + 1) {
            weights.extend_from_slice(&plane[..dim]);
            intercepts.push(plane[dim]);
        }
        Self { classes, dim, weights, intercepts }
    }

    /// Returns the distinct labels of the training rows (k), in ascending order.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// Returns the weights (k, d), in the order of [`LinearClassifier::classes`].
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Returns the intercepts (k), in the order of [`LinearClassifier::classes`].
    pub fn intercepts(&self) -> &[f64] {
        &self.intercepts
    }

    /// Returns the scores (n, k) of `rows` (n, d).
    ///
    /// # Errors
    /// If a row is not finite, or the rows do not have the dimension of the training rows.
    pub fn scores(&self, rows: Rows) -> Result<Vec<f64>, MetricError> {
        if rows.dim != self.dim {
            return Err(MetricError::Dimension { what: "rows", found: rows.dim, expected: self.dim });
        }
        rows.check_finite("rows")?;
        let classes = self.classes.len();
        let mut scores = vec![0.0; rows.len() * classes];
        scores.par_chunks_mut(BLOCK * classes).zip(rows.values.par_chunks(BLOCK * self.dim)).for_each(
            |(scores, block)| {
                let block: Vec<f64> = block.iter().map(|&v| f64::from(v)).collect();
                gemm::nt(block.len() / self.dim, classes, self.dim, &block, &self.weights, scores);
                for scores in scores.chunks_mut(classes) {
                    scores.iter_mut().zip(&self.intercepts).for_each(|(s, b)| *s += b);
                }
            },
        );
        Ok(scores)
    }

    /// Returns for each of `rows` (n, d) the class with the highest score.
    ///
    /// # Errors
    /// Returns the errors of [`LinearClassifier::scores`].
    pub fn predict(&self, rows: Rows) -> Result<Vec<u32>, MetricError> {
        let first_largest = |scores: &[f64]| {
            let mut best = 0;
            for class in 1..scores.len() {
                if scores[class] > scores[best] {
                    best = class;
                }
            }
            self.classes[best]
        };
        Ok(self.scores(rows)?.chunks(self.classes.len()).map(first_largest).collect())
    }

    /// Returns the percentage of `rows` (n, d) whose predicted class is the label in `labels` (n).
    ///
    /// # Errors
    /// Returns the errors of [`LinearClassifier::scores`]. Also an error: no rows, or more or fewer
    /// labels than rows.
    pub fn accuracy(&self, rows: Rows, labels: &[u32]) -> Result<f64, MetricError> {
        check_counts("rows", rows, labels)?;
        let right = self.predict(rows)?.iter().zip(labels).filter(|(got, want)| got == want).count();
        Ok(100.0 * right as f64 / labels.len() as f64)
    }
}

/// A training set whose rows and labels have been checked.
#[derive(Debug)]
pub(crate) struct TrainingSet<'a> {
    /// (n, d) the training rows.
    pub(crate) rows: Rows<'a>,
    /// (k) the distinct labels in ascending order; at least two.
    pub(crate) classes: Vec<u32>,
    /// (n) for each row the index of its class.
    pub(crate) targets: Vec<usize>,
}

impl<'a> TrainingSet<'a> {
    /// Checks `rows` (n, d) and `labels` (n).
    ///
    /// # Errors
    /// If there are no rows, there are more or fewer labels than rows, a row is not finite, or all labels
    /// are equal.
    pub(crate) fn new(rows: Rows<'a>, labels: &[u32]) -> Result<Self, MetricError> {
        check_counts("training rows", rows, labels)?;
        rows.check_finite("training rows")?;
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        if let [label] = classes[..] {
            return Err(MetricError::OneClass { label, rows: rows.len() });
        }
        let targets = labels.iter().map(|&label| classes.partition_point(|&class| class < label)).collect();
        Ok(Self { rows, classes, targets })
    }
}

/// Returns an error unless `value` is a finite number above zero.
pub(crate) fn check_above_zero(name: &'static str, value: f64) -> Result<(), MetricError> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(MetricError::NotAboveZero { name, value }) }
}

fn check_counts(what: &'static str, rows: Rows, labels: &[u32]) -> Result<(), MetricError> {
    if rows.len() != labels.len() {
        return Err(MetricError::LabelCount { what, rows: rows.len(), labels: labels.len() });
    }
    if rows.is_empty() {
        return Err(MetricError::TooFewRows { what, found: 0, needed: 1, advice: "use more images" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::{LinearClassifier, TrainingSet};
    use crate::{MetricError, Rows};

    /// Returns the classifier with f_3 = x_0 + 1 and f_5 = 2 x_1.
    fn classifier() -> LinearClassifier {
        LinearClassifier::from_planes(vec![3, 5], 2, &[1.0, 0.0, 1.0, 0.0, 2.0, 0.0])
    }

    #[test]
    fn the_highest_score_wins_and_equal_ones_go_to_the_lower_class() {
        let classifier = classifier();
        assert_eq!(
            (classifier.weights(), classifier.intercepts()),
            (&[1.0, 0.0, 0.0, 2.0][..], &[1.0, 0.0][..])
        );
        let rows = Rows::new(&[0.0, 0.0, 0.0, 1.0, 1.0, 1.0], 2);
        assert_eq!(classifier.scores(rows).unwrap(), [1.0, 0.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(classifier.predict(rows).unwrap(), [3, 5, 3]);
        assert_eq!(classifier.accuracy(rows, &[3, 5, 9]).unwrap(), 200.0 / 3.0);
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        let classifier = classifier();
        let error = classifier.predict(Rows::new(&[0.0; 3], 3)).unwrap_err().to_string();
        assert!(error.contains("3 numbers each, expected 2"), "{error}");
        let error = classifier.accuracy(Rows::new(&[0.0; 4], 2), &[3]).unwrap_err().to_string();
        assert!(error.contains("1 labels for 2 rows"), "{error}");
        let error = classifier.accuracy(Rows::new(&[], 2), &[]).unwrap_err();
        assert!(matches!(error, MetricError::TooFewRows { found: 0, .. }));
        let error = classifier.predict(Rows::new(&[0.0, 1.0, f32::NAN, 0.0], 2)).unwrap_err();
        assert!(matches!(error, MetricError::NotFinite { row: 1, .. }));
    }

    #[test]
    fn a_training_set_needs_rows_labels_and_two_classes() {
        let rows = Rows::new(&[0.0, 1.0, 2.0], 1);
        let set = TrainingSet::new(rows, &[7, 2, 7]).unwrap();
        assert_eq!((set.classes, set.targets), (vec![2, 7], vec![1, 0, 1]));
        let error = TrainingSet::new(rows, &[4, 4, 4]).unwrap_err().to_string();
        assert!(error.contains("all 3 training rows have the label 4"), "{error}");
        let error = TrainingSet::new(rows, &[4, 4]).unwrap_err();
        assert_eq!(error, MetricError::LabelCount { what: "training rows", rows: 3, labels: 2 });
        let error = TrainingSet::new(Rows::new(&[], 1), &[]).unwrap_err();
        assert!(matches!(error, MetricError::TooFewRows { .. }));
        let error = TrainingSet::new(Rows::new(&[0.0, f32::INFINITY], 1), &[0, 1]).unwrap_err();
        assert!(error.to_string().starts_with("row 1 of the training rows holds inf"), "{error}");
    }
}
