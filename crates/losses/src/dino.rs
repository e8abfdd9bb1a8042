//! DINO: the views predict what a momentum teacher says about the two large views of their image, where the
//! teacher's scores are centered and sharpened.
//!
//! ```text
//! x in R^{VB x D}: the student's unit rows, view 1 of all B images, then view 2, ..., then the small views
//! W in R^{K x D}: the student's last layer, whose rows are scaled to length 1
//! s in R^{2B x K}: the teacher's scores of the two large views, constants;  c in R^K the center
//! t_a,b = softmax((s_a,b − c) / τ_t)
//! loss = 1/(2 (V − 1)) Σ_{a ≤ 2} Σ_{v ≠ a} −(1/B) Σ_b Σ_k t_a,b,k log softmax(x_v,b Ŵᵀ / τ_s)_k
//! then c ← m c + (1 − m) mean_{a,b} s_a,b
//! ```
//!
//! Source: Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised
//! Vision Transformers", ICCV 2021, equations 1 to 4 and algorithm 1; means and the weight-normalized last
//! layer with gain 1 as in the authors' code (facebookresearch/dino, `main_dino.py`, `--norm_last_layer
//! true`).
//!
//! No deviation in the loss. The teacher's softmax and the center are computed in f64 on the host; the center
//! is kept in f32. There is no CUDA kernel: for rows on a GPU, targets and loss are computed on the host.

use candle_core::{DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::{check_temperature, matrix};
use crate::softmax::{maximum, shifted_exp};
use crate::swapped::Swapped;

const NAME: &str = "dino";

/// The objective and the student's temperature.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::{Center, Dino};
///
/// let axes = Tensor::new(&[[1f64, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let rows = Tensor::cat(&[&axes, &axes], 0)?;
/// let center = Center::new(2)?;
/// // Teacher and student see the same: the loss is nearly the entropy of the targets, which is nearly 0.
/// let targets = center.targets(&rows, 0.04)?;
/// let loss = Dino::default().loss(&rows, &axes, &targets, 2)?.to_scalar::<f64>()?;
/// assert!(loss < 1e-4);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dino {
    /// τ_s, above 0.
    pub student_temperature: f64,
}

impl Default for Dino {
    fn default() -> Self {
        Self { student_temperature: 0.1 }
    }
}

impl Dino {
    /// Returns the loss of the student's `rows` (V B x D, B = `images`) with its last layer `weight` (K x D)
    /// and the teacher's `targets` for the first views (2 B x K for two): a scalar. Gradients flow to the
    /// rows and to the weight.
    ///
    /// # Errors
    /// If shapes or types do not fit one another, there are fewer than two views, or the temperature is not
    /// positive.
    pub fn loss(&self, rows: &Tensor, weight: &Tensor, targets: &Tensor, images: usize) -> Result<Tensor> {
        let temperature = self.student_temperature;
        Swapped { name: NAME, images, temperature, unit_weight: true }.loss(rows, weight, targets)
    }
}

/// The center c of the teacher's scores: a moving mean.
#[derive(Debug, Clone)]
pub struct Center {
    /// K numbers, f32, on the host.
    values: Vec<f32>,
}

impl Center {
    /// Returns a center of zeros for `length` scores.
    ///
    /// # Errors
    /// If the length is 0.
    pub fn new(length: usize) -> Result<Self> {
        if length == 0 {
            bail!("{NAME}: a center of no scores; expected at least one")
        }
        Ok(Self { values: vec![0.0; length] })
    }

    /// Returns the targets of the teacher's `scores` (N x K) at its temperature: N x K, each row a softmax,
    /// in the type of the scores and on their device, without a gradient.
    ///
    /// # Errors
    /// If the scores are no such matrix, or the temperature is not positive.
    pub fn targets(&self, scores: &Tensor, temperature: f64) -> Result<Tensor> {
        check_temperature(NAME, temperature)?;
        let mut values = self.read(scores)?;
        for row in values.chunks_exact_mut(self.values.len()) {
            for (score, center) in row.iter_mut().zip(&self.values) {
                *score = (*score - f64::from(*center)) / temperature;
            }
            let top = maximum(row);
            let sum = shifted_exp(row, top, None);
            for share in row.iter_mut() {
                *share /= sum;
            }
        }
        Tensor::from_vec(values, scores.shape(), &Device::Cpu)?
            .to_dtype(scores.dtype())?
            .to_device(scores.device())
    }

    /// Moves the center towards the mean of the teacher's `scores` (N x K). `momentum`, from 0 to 1, is the
    /// share of the old center.
    ///
    /// # Errors
    /// If the scores are no such matrix, or the momentum is out of its range.
    pub fn follow(&mut self, scores: &Tensor, momentum: f64) -> Result<()> {
        if !(0.0..=1.0).contains(&momentum) {
            bail!("{NAME}: the center's momentum must lie between 0 and 1, it is {momentum}")
        }
        let values = self.read(scores)?;
        let columns = self.values.len();
        let mut means = vec![0.0; columns];
        for row in values.chunks_exact(columns) {
            for (mean, score) in means.iter_mut().zip(row) {
                *mean += score;
            }
        }
        let rows = (values.len() / columns) as f64;
        for (center, sum) in self.values.iter_mut().zip(means) {
            *center = (momentum * f64::from(*center) + (1.0 - momentum) * sum / rows) as f32;
        }
        Ok(())
    }

    /// Returns the center, K numbers, on the CPU.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state(&self) -> Result<Tensor> {
        Tensor::from_slice(&self.values, self.values.len(), &Device::Cpu)
    }

    /// Restores what [`Center::state`] returned.
    ///
    /// # Errors
    /// If it has another length.
    pub fn load_state(&mut self, state: &Tensor) -> Result<()> {
        if state.dims() != [self.values.len()] {
            bail!("{NAME}: a center of {:?}, expected {} numbers", state.dims(), self.values.len())
        }
        self.values = state.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec1()?;
        Ok(())
    }

    /// Returns the scores in f64, row by row.
    fn read(&self, scores: &Tensor) -> Result<Vec<f64>> {
        let (_, columns) = matrix(NAME, "the teacher's scores", scores)?;
        if columns != self.values.len() {
            bail!("{NAME}: the teacher's scores have {columns} columns and the center {}", self.values.len())
        }
        scores.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<3, Swapped>("DINO", [Input::Views, Input::Entries, Input::ViewScores], |x, _| {
        let targets = Center::new(x[2].dim(1)?)?.targets(&x[2], 0.5)?;
        Dino::default().loss(&x[0], &x[1], &targets, x[0].dim(0)? / 2)
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Center, Dino};
    use crate::swapped::{Swapped, plain};
    use crate::testing::{
        assert_close, central_differences, gradient_of, matrix_f64, random_rows, unit_rows, values,
    };
    use candle_core::{DType, Device, Tensor};

    /// Goes from the teacher's scores to the gradient of the student, with a center that is not zero.
    #[test]
    fn agrees_with_the_equations_and_their_differences() {
        let (images, dim, prototypes) = (3, 4, 5);
        let scores = random_rows(2 * images, prototypes, 0);
        let (x, w) = (unit_rows(4 * images, dim, 1), random_rows(prototypes, dim, 2));
        let mut center = Center::new(prototypes).unwrap();
        center.follow(&matrix_f64(&random_rows(7, prototypes, 3), prototypes), 0.5).unwrap();
        let c = values(&center.state().unwrap());
        let mut t = Vec::new();
        for row in scores.chunks(prototypes) {
            let powers: Vec<f64> = row.iter().zip(&c).map(|(s, c)| ((s - c) / 0.07).exp()).collect();
            let sum: f64 = powers.iter().sum();
            t.extend(powers.iter().map(|p| p / sum));
        }
        let targets = center.targets(&matrix_f64(&scores, prototypes), 0.07).unwrap();
        assert_close(&values(&targets), &t, 1e-13, 0.0);
        let swapped = Swapped { name: "plain", images, temperature: 0.1, unit_weight: true };
        let w64 = matrix_f64(&w, dim);
        let loss = |x: &Tensor| Dino::default().loss(x, &w64, &targets, images);
        let (value, gradient) = gradient_of(&matrix_f64(&x, dim), loss).unwrap();
        let want = plain(&swapped, &x, &w, &t, dim);
        assert!((value - want).abs() < 1e-12 * want, "{value} {want}");
        let differences = central_differences(&x, 1e-5, |x| plain(&swapped, x, &w, &t, dim));
        assert_close(&gradient, &differences, 1e-6, 1e-8);
    }

    #[test]
    fn the_center_is_a_moving_mean_and_goes_on_from_its_state() {
        let scores = matrix_f64(&[1.0, 4.0, 3.0, 0.0], 2);
        let mut center = Center::new(2).unwrap();
        center.follow(&scores, 0.75).unwrap();
        assert_eq!(values(&center.state().unwrap()), [0.5, 0.5]);
        let mut other = Center::new(2).unwrap();
        other.load_state(&center.state().unwrap()).unwrap();
        center.follow(&scores, 0.75).unwrap();
        other.follow(&scores, 0.75).unwrap();
        assert_eq!(values(&center.state().unwrap()), values(&other.state().unwrap()));
        assert_eq!(values(&center.state().unwrap()), [0.875, 0.875]);
    }

    #[test]
    fn a_score_that_all_rows_have_is_centered_away() {
        // After many steps the center is the mean; scores that are alike give uniform targets.
        let scores = matrix_f64(&[9.0, -3.0, 9.0, -3.0], 2);
        let mut center = Center::new(2).unwrap();
        center.follow(&scores, 0.0).unwrap();
        assert_close(&values(&center.targets(&scores, 0.04).unwrap()), &[0.5; 4], 1e-12, 0.0);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let says = |error: candle_core::Error, what: &str| {
            let error = error.to_string();
            assert!(error.starts_with("dino") && error.contains(what), "{error}");
        };
        let mut center = Center::new(3).unwrap();
        says(center.targets(&zeros((2, 2)), 0.1).unwrap_err(), "2 columns and the center 3");
        says(center.targets(&zeros((2, 3)), 0.0).unwrap_err(), "temperature");
        says(center.follow(&zeros((2, 3)), 1.5).unwrap_err(), "momentum");
        says(center.load_state(&zeros((1, 3))).unwrap_err(), "[1, 3]");
        says(Center::new(0).unwrap_err(), "no scores");
        says(
            Dino::default().loss(&zeros((2, 3)), &zeros((4, 3)), &zeros((2, 4)), 2).unwrap_err(),
            "two views",
        );
    }
}
