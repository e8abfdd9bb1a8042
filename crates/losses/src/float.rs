//! What a loss needs from its number type: f32 for training, f64 for checks of gradients.

use std::borrow::Cow;
use std::ops::Neg;

use candle_core::WithDType;
use invaspread_tensor::gemm::Element;

/// A floating type that candle stores and `gemm` multiplies, with the functions that losses need: f32 or f64.
pub trait Float: Element + WithDType + Neg<Output = Self> {
    /// Returns e to the power of this.
    #[must_use]
    fn exp(self) -> Self;
    /// Returns ln(1 + this), which is accurate for small values too.
    #[must_use]
    fn ln_1p(self) -> Self;
    /// Returns a memory bank's f32 entries in this type; f32 entries are borrowed.
    fn widen(entries: &[f32]) -> Cow<'_, [Self]>;
}

impl Float for f32 {
    fn exp(self) -> Self {
        f32::exp(self)
    }
    fn ln_1p(self) -> Self {
        f32::ln_1p(self)
    }
    fn widen(entries: &[f32]) -> Cow<'_, [Self]> {
        Cow::Borrowed(entries)
    }
}

impl Float for f64 {
    fn exp(self) -> Self {
        f64::exp(self)
    }
    fn ln_1p(self) -> Self {
        f64::ln_1p(self)
    }
    fn widen(entries: &[f32]) -> Cow<'_, [Self]> {
        Cow::Owned(entries.iter().map(|&v| f64::from(v)).collect())
    }
}

/// Returns the inner product. It is computed in eight interleaved sums: the order is fixed, and the compiler
/// can keep them in one vector register.
pub(crate) fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    const LANES: usize = 8;
    let mut sums = [T::ZERO; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] += a * b;
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}

/// Adds: `y += factor * x`.
pub(crate) fn add_scaled<T: Float>(y: &mut [T], factor: T, x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}
