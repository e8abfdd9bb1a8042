//! Runs ops on NaN, infinities and zeros of either sign, and compares them with their equations under IEEE
//! arithmetic.
//!
//! These special values are scattered over the inputs, the parameters and the output gradient of an op. Each
//! result is compared with loops in f64 that read like the op's equation. A [`Rule`] says what must agree; it
//! is the strictest one unless an op chooses another.

#![allow(
    dead_code,
    clippy::float_cmp,
    reason = "each test file uses its part; infinities are compared exactly"
)]

pub(crate) mod ops;

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::Stream;

/// A tensor's shape and its values; f32 holds each value exactly.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Values {
    /// Draws normal values; about one in `rarity` of the first `sprinkled` is NaN, an infinity or a zero of
    /// either sign.
    pub(crate) fn draw(stream: &mut Stream, shape: &[usize], sprinkled: usize, rarity: usize) -> Self {
        const SPECIAL: [f64; 5] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
        let values = (0..shape.iter().product())
            .map(|i| {
                let normal = f64::from(stream.normal() as f32);
                if i < sprinkled && stream.below(rarity) == 0 { SPECIAL[stream.below(5)] } else { normal }
            })
            .collect();
        Self { shape: shape.to_vec(), values }
    }

    /// Does the same, with special values among all values or among none.
    pub(crate) fn sprinkled(stream: &mut Stream, shape: &[usize], yes: bool, rarity: usize) -> Self {
        Self::draw(stream, shape, if yes { usize::MAX } else { 0 }, rarity)
    }

    pub(crate) fn tensor(&self, dtype: DType, device: &Device) -> Tensor {
        let tensor = Tensor::from_vec(self.values.clone(), self.shape.as_slice(), &Device::Cpu).unwrap();
        tensor.to_dtype(dtype).unwrap().to_device(device).unwrap()
    }
}

/// The way in which a value must agree with that of the equation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// NaN where the equation gives NaN, the same infinity where it gives one, else the same number up to
    /// rounding.
    Same,
    /// As in [`Rule::Same`], but NaN and the infinities may replace one another. This is for ops that compute
    /// their equation in another order.
    AsFinite,
    /// NaN or an infinity wherever the equation gives either. Elsewhere the same number, or NaN: the op may
    /// sum products with the zeros of the padding (zero times infinity is NaN), and Winograd's transforms
    /// spread a value over its tile.
    Spreads,
}

impl Rule {
    fn holds(self, got: f64, want: f64, tolerance: f64) -> bool {
        let close = (got - want).abs() <= tolerance;
        match self {
            Self::Same => {
                if want.is_nan() {
                    got.is_nan()
                } else {
                    got == want || close
                }
            }
            Self::AsFinite => {
                if want.is_finite() {
                    close
                } else {
                    !got.is_finite()
                }
            }
            Self::Spreads => !got.is_finite() || (want.is_finite() && close),
        }
    }
}

/// Panics unless each value agrees with the expected one, by the rule for its place. Finite numbers may
/// differ by `tolerance` times one more than the largest of them.
pub(crate) fn compare(what: &str, got: &[f64], want: &[f64], tolerance: f64, rule: impl Fn(usize) -> Rule) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().filter(|w| w.is_finite()).fold(0.0f64, |m, w| m.max(w.abs()));
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let rule = rule(i);
        assert!(
            rule.holds(got, want, tolerance * (1.0 + largest)),
            "{what}: value {i} is {got}, the equation gives {want} ({rule:?})"
        );
    }
}

/// An op with its inputs, and its equation.
pub(crate) trait Op {
    fn name(&self) -> String;
    fn inputs(&self) -> &[Values];
    fn apply(&self, inputs: &[Tensor]) -> Result<Tensor>;
    /// Returns the output, then the gradient of each input, given the output's gradient. `y` is the op's own
    /// output, which says on which side of a ReLU a value fell.
    fn equation(&self, gy: &[f64], y: &[f64]) -> Vec<Vec<f64>>;
    /// Returns the rule for value `at` of result `which`; `spreads` says that the device may use Winograd.
    fn rule(&self, _which: usize, _at: usize, _gy: &[f64], _spreads: bool) -> Rule {
        Rule::Same
    }
    /// Returns the error allowed in f32.
    fn tolerance(&self) -> f64 {
        1e-5
    }
}

pub(crate) fn wide(x: &Tensor) -> Vec<f64> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Runs `op` forward and backward on `device` in `dtype` and compares both with its equation. The output
/// gradient holds special values if `in_gradient`.
pub(crate) fn check(op: &dyn Op, device: &Device, dtype: DType, (stream, in_gradient): (&mut Stream, bool)) {
    let variables: Vec<Var> =
        op.inputs().iter().map(|x| Var::from_tensor(&x.tensor(dtype, device)).unwrap()).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let y = op.apply(&tensors).unwrap();
    let gy = Values::sprinkled(stream, y.dims(), in_gradient, 30);
    // The gradient of this sum with respect to y is `gy`, whatever y is.
    let loss = (&y * gy.tensor(y.dtype(), device)).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let mut results = vec![wide(&y)];
    results.extend(variables.iter().map(|v| wide(gradients.get(v).unwrap())));
    let want = op.equation(&gy.values, &results[0]);
    let tolerance = if dtype == DType::F64 { 1e-10 } else { op.tolerance() };
    let spreads = dtype != DType::F64;
    for (which, (got, want)) in results.iter().zip(&want).enumerate() {
        let what = format!("{}, {dtype:?}, result {which}", op.name());
        compare(&what, got, want, tolerance, |at| op.rule(which, at, &gy.values, spreads));
    }
}
