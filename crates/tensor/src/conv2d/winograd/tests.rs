//! Products of pairs of bf16, which the processor of the tests need not have an instruction for.

use super::super::geometry::Geometry;
use super::super::im2col;
use super::super::tiles::Pairs;
use super::points::{Four, Points, Two};
use super::{convolve, weight_gradient};
use half::bf16;
use invaspread_random::{Purpose, Stream};
use proptest::prelude::*;

fn geometry([n, h, w, ci, co]: [usize; 5]) -> Geometry {
    Geometry { n, h, w, ci, co, kh: 3, kw: 3, stride: 1, padding: 1 }
}

/// The output and both gradients for activations `x` and gradients `gy`, by pairs.
fn by_pairs<F: Points>(g: &Geometry, [x, w, gy]: &[Vec<f64>; 3]) -> [Vec<f64>; 3] {
    let half = |values: &[f64]| values.iter().map(|x| bf16::from_f64(*x)).collect::<Vec<_>>();
    let wide = |values: &[bf16]| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let weights: Vec<f32> = w.iter().map(|w| *w as f32).collect();
    let (x, gy) = (half(x), half(gy));
    let (mut y, mut gx) = (vec![bf16::ZERO; gy.len()], vec![bf16::ZERO; x.len()]);
    let mut gw = vec![0.0f32; w.len()];
    convolve::forward::<bf16, Pairs, F>(g, &x, &weights, &mut y);
    convolve::input_gradient::<bf16, Pairs, F>(g, &weights, &gy, &mut gx);
    weight_gradient::weight_gradient::<bf16, Pairs, F>(g, &x, &gy, &mut gw);
    [wide(&y), wide(&gx), gw.into_iter().map(f64::from).collect()]
}

/// The same in f64, from unrolled patches.
fn plainly(g: &Geometry, [x, w, gy]: &[Vec<f64>; 3]) -> [Vec<f64>; 3] {
    let (mut y, mut gx, mut gw) = (vec![0.0; gy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
    im2col::forward(g, x, w, &mut y);
    im2col::input_gradient(g, w, gy, &mut gx);
    im2col::weight_gradient(g, x, gy, &mut gw);
    [y, gx, gw]
}

fn draw(g: &Geometry, mut number: impl FnMut(usize) -> f64) -> [Vec<f64>; 3] {
    let lens = [g.input_len(), g.weight_len(), g.output_len()];
    let mut which = 0;
    lens.map(|len| {
        let values = (0..len).map(|_| number(which)).collect();
        which += 1;
        values
    })
}

fn error(got: &[f64], want: &[f64]) -> f64 {
    let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    (difference / want.iter().map(|w| w * w).sum::<f64>().max(1e-30)).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Small whole numbers stay exact through all transforms of F(2x2, 3x3) and all sums; only the results
    /// are rounded, once.
    #[test]
    fn whole_numbers_are_exact(
        seed: u64, n in 1usize..5, h in 1usize..12, w in 1usize..12,
        ci in prop::sample::select(vec![16, 32, 48, 80]), co in prop::sample::select(vec![16, 32, 48, 80]),
    ) {
        let g = geometry([n, h, w, ci, co]);
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        // Weights are multiples of 4, which the transform of the weights divides by.
        let values = draw(&g, |which| (stream.below(5) as f64 - 2.0) * if which == 1 { 4.0 } else { 1.0 });
        let [y, gx, gw] = by_pairs::<Two>(&g, &values);
        let [want_y, want_gx, want_gw] = plainly(&g, &values);
        let rounded = |values: Vec<f64>| values.into_iter().map(|x| bf16::from_f64(x).to_f64()).collect::<Vec<_>>();
        prop_assert_eq!(y, rounded(want_y));
        prop_assert_eq!(gx, rounded(want_gx));
        prop_assert_eq!(gw, want_gw);
    }
}

/// Real numbers, with the transforms that a pass uses. There are more tiles than are transformed at once, an
/// odd number of them, and so many channels that sums are made in blocks and the transformed kernel is never
/// whole.
#[test]
fn rounding_is_that_of_bf16() {
    for size in [[3, 9, 7, 16, 48], [5, 17, 19, 64, 64], [1, 9, 9, 208, 240]] {
        let g = geometry(size);
        let mut stream = Stream::new(5, Purpose::Bootstrap, 0, 0);
        let values = draw(&g, |_| f64::from(bf16::from_f64(stream.normal()).to_f32()));
        let want = plainly(&g, &values);
        let [y, ..] = by_pairs::<Two>(&g, &values);
        let [_, gx, gw] = by_pairs::<Four>(&g, &values);
        let errors = [error(&y, &want[0]), error(&gx, &want[1]), error(&gw, &want[2])];
        for (error, allowed) in errors.into_iter().zip([5e-3, 1.5e-2, 1.2e-2]) {
            assert!(error < allowed && error > 1e-3, "{size:?}: {errors:?}");
        }
    }
}
