//! Matrix products on row-major slices, f32 or f64, by the `gemm` crate. All threads share the work in blocks
//! of rows of the result, and of its columns where it has few rows and many columns, as the layers of a
//! projector have.
//!
//! The names say which operand is transposed, as in BLAS: `nn` is A B, `nt` is A Bᵀ, `tn` is Aᵀ B. Every
//! element is one sum over k in a fixed order, so the thread count does not change it.

#![expect(unsafe_code, reason = "the gemm crate's entry point takes raw pointers")]

use crate::team;
use gemm::Parallelism;

/// Rows of the result that one task computes.
const ROWS: usize = 128;
/// Columns of the result that one task computes, where the columns are cut as well.
const COLUMNS: usize = 512;
/// Rows above which the blocks of rows alone are tasks enough.
const MANY_ROWS: usize = 8 * ROWS;

/// An element type of matrix products.
pub trait Element: Copy + Send + Sync + 'static {
    /// The additive identity.
    const ZERO: Self;
    /// The multiplicative identity.
    const ONE: Self;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Element for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// Computes `out (m x n) = a (m x k) · b (k x n)`.
///
/// ```
/// // (1 x 2) (2 x 2)
/// let mut out = [0.0; 2];
/// invaspread_tensor::gemm::nn(1, 2, 2, &[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], &mut out);
/// assert_eq!(out, [13.0, 16.0]);
/// ```
///
/// # Panics
/// If the length of a slice does not match its shape.
pub fn nn<T: Element>(m: usize, n: usize, k: usize, a: &[T], b: &[T], out: &mut [T]) {
    assert_eq!((a.len(), b.len(), out.len()), (m * k, k * n, m * n), "gemm nn {m} x {n} x {k}");
    product([m, n, k], (a, [k, 1]), (b, [n, 1]), out);
}

/// Computes `out (m x n) = a (m x k) · b (n x k)ᵀ`.
///
/// ```
/// // The rows of b are the columns of the second factor.
/// let mut out = [0.0; 2];
/// invaspread_tensor::gemm::nt(1, 2, 2, &[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], &mut out);
/// assert_eq!(out, [11.0, 17.0]);
/// ```
///
/// # Panics
/// If the length of a slice does not match its shape.
pub fn nt<T: Element>(m: usize, n: usize, k: usize, a: &[T], b: &[T], out: &mut [T]) {
    assert_eq!((a.len(), b.len(), out.len()), (m * k, n * k, m * n), "gemm nt {m} x {n} x {k}");
    product([m, n, k], (a, [k, 1]), (b, [1, k]), out);
}

/// Computes `out (m x n) = a (k x m)ᵀ · b (k x n)`.
///
/// ```
/// // (2 x 1)ᵀ (2 x 2)
/// let mut out = [0.0; 2];
/// invaspread_tensor::gemm::tn(1, 2, 2, &[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], &mut out);
/// assert_eq!(out, [13.0, 16.0]);
/// ```
///
/// # Panics
/// If the length of a slice does not match its shape.
pub fn tn<T: Element>(m: usize, n: usize, k: usize, a: &[T], b: &[T], out: &mut [T]) {
    assert_eq!((a.len(), b.len(), out.len()), (k * m, k * n, m * n), "gemm tn {m} x {n} x {k}");
    product([m, n, k], (a, [1, m]), (b, [n, 1]), out);
}

/// Computes the product of two strided operands; strides are `[row, column]` in elements.
fn product<T: Element>([m, n, k]: [usize; 3], a: (&[T], [usize; 2]), b: (&[T], [usize; 2]), out: &mut [T]) {
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        out.fill(T::ZERO);
        return;
    }
    // The block size is a constant: the `gemm` crate chooses the order of its sums by the block's shape.
    // No block has few columns, since the crate computes the smallest products in another order.
    let columns = if m <= MANY_ROWS && n >= 2 * COLUMNS { COLUMNS } else { n };
    team::for_each_block(out, n, [ROWS, columns], |[row, column], out| {
        let (a, b) = ((&a.0[row * a.1[0]..], a.1), (&b.0[column * b.1[1]..], b.1));
        // SAFETY: the block lies within `out`, and no other task has a part of it.
        unsafe { into_block([out.rows, out.columns, k], T::ONE, a, b, (out.start, n)) };
    });
}

/// Computes the product of two strided operands times `factor` on the calling thread; the strides of a factor
/// are `[row, column]` in elements, and the rows of `out` begin `step` elements after one another.
///
/// # Panics
/// If a slice is too short for its shape and strides.
pub(crate) fn on_one_thread<T: Element>(
    [m, n, k]: [usize; 3],
    factor: T,
    a: (&[T], [usize; 2]),
    b: (&[T], [usize; 2]),
    (out, step): (&mut [T], usize),
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(step >= n && holds(out.len(), [step, 1], m, n), "gemm {m} x {n} x {k}: the result");
    // SAFETY: `out` holds m x n elements with this step, as was checked, and is borrowed mutably.
    unsafe { into_block([m, n, k], factor, a, b, (out.as_mut_ptr(), step)) };
}

/// Returns whether `len` elements hold a matrix with these strides.
fn holds(len: usize, [row, column]: [usize; 2], rows: usize, columns: usize) -> bool {
    (rows - 1) * row + (columns - 1) * column < len
}

/// Does the same as [`on_one_thread`] for a result that other tasks may have other parts of.
///
/// # Safety
/// From `out` on there must be m x n elements whose rows begin `step` elements after one another; nothing else
/// reads or writes them meanwhile.
unsafe fn into_block<T: Element>(
    [m, n, k]: [usize; 3],
    factor: T,
    a: (&[T], [usize; 2]),
    b: (&[T], [usize; 2]),
    (out, step): (*mut T, usize),
) {
    assert!(holds(a.0.len(), a.1, m, k) && holds(b.0.len(), b.1, k, n), "gemm {m} x {n} x {k}: a factor");
    let stride = |s: usize| s as isize;
    // SAFETY: the slices hold m x k and k x n elements under these strides, as was checked, and `out` m x n, as
    // the caller guarantees; it overlaps neither operand, and `read_dst` is false, so it is only written.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            stride(step),
            false,
            a.0.as_ptr(),
            stride(a.1[1]),
            stride(a.1[0]),
            b.0.as_ptr(),
            stride(b.1[1]),
            stride(b.1[0]),
            T::ZERO,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{nn, nt, on_one_thread, tn};
    use invaspread_random::{Purpose, Stream};
    use proptest::prelude::*;

    type Of = fn(usize, usize, usize, &[f32], &[f32], &mut [f32]);

    proptest! {
        #[test]
        fn agrees_with_three_loops(m in 1usize..300, n in 1usize..20, k in 0usize..40, seed: u64) {
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let mut draw = |len: usize| (0..len).map(|_| stream.normal()).collect::<Vec<f64>>();
            let (a, b) = (draw(m * k), draw(k * n));
            let mut want = vec![0.0; m * n];
            for i in 0..m { for j in 0..n { for l in 0..k { want[i * n + j] += a[i * k + l] * b[l * n + j]; } } }
            let transpose = |x: &[f64], rows: usize, columns: usize| -> Vec<f64> {
                (0..columns * rows).map(|i| x[i % rows * columns + i / rows]).collect()
            };
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            let mut got = [vec![9.0; m * n], vec![9.0; m * n], vec![9.0; m * n]];
            nn(m, n, k, &a, &b, &mut got[0]);
            nt(m, n, k, &a, &bt, &mut got[1]);
            tn(m, n, k, &at, &b, &mut got[2]);
            for got in got { for (g, w) in got.iter().zip(&want) { prop_assert!((g - w).abs() < 1e-12); } }
        }

        /// Checks that the cut into blocks changes no bit, in the sizes of projectors.
        #[test]
        fn wide_results_have_the_bits_of_one_block(
            m in prop_oneof![1usize..4, 4usize..300], n in 900usize..2100, k in prop::sample::select(vec![1usize, 70, 512, 700]), seed: u64,
        ) {
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let mut draw = |len: usize| (0..len).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
            let (a, b) = (draw(m * k), draw(k * n));
            let rows = super::ROWS;
            for (name, of, a_at, b_at) in [
                ("nn", nn as Of, [k, 1], [n, 1]), ("nt", nt, [k, 1], [1, k]), ("tn", tn, [1, m], [n, 1]),
            ] {
                let (mut got, mut want) = (vec![9.0; m * n], vec![9.0; m * n]);
                of(m, n, k, &a, &b, &mut got);
                for (block, want) in want.chunks_mut(rows * n).enumerate() {
                    let a = &a[block * rows * a_at[0]..];
                    on_one_thread([want.len() / n, n, k], 1.0, (a, a_at), (&b, b_at), (want, n));
                }
                let same = got.iter().zip(&want).all(|(got, want)| got.to_bits() == want.to_bits());
                prop_assert!(same, "{name}");
            }
        }
    }
}
