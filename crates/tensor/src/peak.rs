//! Measures the peak arithmetic rate of the machine's vector units, with which the speed of kernels is
//! compared.

use crate::simd::{Kernel, Vector, dispatch};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Independent sums: enough to hide the latency of a fused multiply-add, few enough to stay in registers.
const SUMS: usize = 12;
/// Multiply-adds of each sum in one measurement, which takes some tens of milliseconds.
const ROUNDS: usize = 8_000_000;

struct MultiplyAdds<'a> {
    rounds: usize,
    /// Receives the vector's number of lanes, and a value that depends on every sum, so that the compiler
    /// removes none.
    out: &'a mut (usize, f32),
}

impl Kernel for MultiplyAdds<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (factor, term) = (V::splat(black_box(0.999)), V::splat(black_box(0.001)));
        let mut sums = [V::splat(black_box(1.0)); SUMS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, term);
            }
        }
        let total = sums.into_iter().fold(V::zero(), V::add);
        *self.out = (V::LANES, total.sum());
    }
}

/// Measures the peak rate in billions of floating-point operations per second: fused multiply-adds on
/// registers in f32, on all of rayon's threads at once. An addition and a multiplication are two operations.
/// Returns the best of five short measurements.
pub fn peak_gflops() -> f64 {
    let threads = rayon::current_num_threads();
    let once = || {
        let from = Instant::now();
        let lanes: usize = (0..threads)
            .into_par_iter()
            .with_max_len(1)
            .map(|_| {
                let mut out = (0, 0.0);
                dispatch(MultiplyAdds { rounds: ROUNDS, out: &mut out });
                black_box(out).0
            })
            .sum();
        2.0 * (lanes * SUMS * ROUNDS) as f64 / from.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| once()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    /// No machine that runs this does less than a tenth of a billion operations per second or more than
    /// 100,000 billion.
    #[test]
    fn the_peak_is_a_possible_one() {
        let peak = super::peak_gflops();
        assert!((0.1..1e5).contains(&peak), "{peak} GFLOP/s");
    }
}
