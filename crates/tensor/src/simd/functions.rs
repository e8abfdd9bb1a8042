//! The exponential and the error function in f32, without a branch or a call, so that the compiler makes
//! vectors of a loop over them. Every product and sum is rounded by itself (nothing is fused), so each
//! instruction set gives the same bits.

/// Returns eˣ with a relative error below 2e-7; 0 below the logarithm of f32's smallest normal number. A NaN
/// stays a NaN.
///
/// x = n ln 2 + r with |r| at most ln 2 / 2; eʳ is the polynomial of the Cephes library (`expf`), and 2ⁿ is
/// written into the exponent.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: a sum with it has no fraction bits, and its low bits hold the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts. The first has few bits, so that its products with n are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const LEAST: f32 = -87.336_54;
    const MOST: f32 = 88.0;
    let within = if x > MOST { MOST } else { x };
    let within = if within < LEAST { LEAST } else { within };
    let shifted = within * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (within - n * LN_2[0]) - n * LN_2[1];
    let mut power = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        power = power * r + coefficient;
    }
    let power = power * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let scaled = power * f32::from_bits(exponent);
    let scaled = if x > MOST { f32::INFINITY } else { scaled };
    if x < LEAST { 0.0 } else { scaled }
}

/// Returns the error function with an absolute error below 5e-7 (4.2e-7 was measured); ±1 from |x| = 4 on,
/// where f32 has no nearer number. A NaN stays a NaN.
///
/// The quotient of polynomials is that of the Eigen library (`erf` of f32).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    const ABOVE: [f32; 6] =
        [2.770_681_5e-8, -2.101_024e-6, -5.692_506_2e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2];
    const BELOW: [f32; 4] = [-2.133_740_5e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2];
    let square = x * x;
    let (mut above, mut below) = (-2.726_142_3e-10, -1.456_607_15e-5);
    for coefficient in ABOVE {
        above = above * square + coefficient;
    }
    for coefficient in BELOW {
        below = below * square + coefficient;
    }
    let quotient = x * above / below;
    let quotient = if x >= 4.0 { 1.0 } else { quotient };
    if x <= -4.0 { -1.0 } else { quotient }
}

/// Lanes of [`sum_of`].
const LANES: usize = 16;

/// Returns the sum of `term(i)` for all `i` below `len`, in sixteen sums that are added at the end: the
/// compiler makes vectors of them.
#[inline(always)]
pub(crate) fn sum_of(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(first + lane);
        }
    }
    for (lane, sum) in sums.iter_mut().enumerate().take(len - whole) {
        *sum += term(whole + lane);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::{erf, exp, sum_of};

    fn steps(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| from + (to - from) * i as f32 / 200_000.0)
    }

    #[test]
    fn the_exponential_is_near_the_true_one() {
        for x in steps(-87.0, 88.0) {
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 2e-7, "{x}: {error:e}");
        }
        assert_eq!(
            [exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)].map(f32::to_bits),
            [1.0, 0.0, 0.0].map(f32::to_bits)
        );
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY).is_infinite());
    }

    #[test]
    fn the_error_function_is_near_the_true_one() {
        for x in steps(-5.0, 5.0) {
            let error = (f64::from(erf(x)) - candle_core::cpu::erf::erf_f64(x.into())).abs();
            assert!(error < 5e-7, "{x}: {error:e}");
        }
        assert_eq!(
            [erf(0.0), erf(f32::INFINITY), erf(f32::NEG_INFINITY)].map(f32::to_bits),
            [0.0f32, 1.0, -1.0].map(f32::to_bits)
        );
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn sums_have_every_term_once() {
        for len in 0..70 {
            let sum = sum_of(len, |i| i as f32);
            assert!((sum - (0..len).sum::<usize>() as f32).abs() < 1e-6, "{len}: {sum}");
        }
    }
}
