//! Convolutions by tiles, compared with unrolled patches in f64. Skipped, saying so, without AMX.

use super::{fits, forward, input_gradient, input_gradient_fits, weight_gradient};
use crate::conv2d::geometry::Geometry;
use crate::conv2d::im2col;
use crate::simd::{InstructionSet, instruction_set};
use half::bf16;
use invaspread_random::{Purpose, Stream};
use proptest::prelude::*;

/// Returns whether there are tiles; a test without them says that it is skipped.
fn has_tiles() -> bool {
    let found = instruction_set() == InstructionSet::Amx;
    if !found {
        eprintln!("skipped: this processor has no AMX, or the system does not permit it");
    }
    found
}

/// Returns the output and the gradients of the input (if there is one) and of the weights.
fn by_tiles(g: &Geometry, [x, w, gy]: &[Vec<f64>; 3]) -> [Vec<f64>; 3] {
    let half = |values: &[f64]| values.iter().map(|x| bf16::from_f64(*x)).collect::<Vec<_>>();
    let wide = |values: &[bf16]| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let weights: Vec<f32> = w.iter().map(|w| *w as f32).collect();
    let (x, gy) = (half(x), half(gy));
    let (mut y, mut gx) = (vec![bf16::NAN; gy.len()], vec![bf16::NAN; x.len()]);
    let mut gw = vec![f32::NAN; w.len()];
    forward(g, &x, &weights, &mut y);
    if input_gradient_fits(g) {
        input_gradient(g, &weights, &gy, &mut gx);
    } else {
        gx.clear();
    }
    weight_gradient(g, &x, &gy, &mut gw);
    [wide(&y), wide(&gx), gw.into_iter().map(f64::from).collect()]
}

/// Returns the same in f64, from unrolled patches.
fn plainly(g: &Geometry, [x, w, gy]: &[Vec<f64>; 3]) -> [Vec<f64>; 3] {
    let (mut y, mut gx, mut gw) = (vec![0.0; gy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
    im2col::forward(g, x, w, &mut y);
    if input_gradient_fits(g) {
        im2col::input_gradient(g, w, gy, &mut gx);
    } else {
        gx.clear();
    }
    im2col::weight_gradient(g, x, gy, &mut gw);
    [y, gx, gw]
}

fn draw(g: &Geometry, mut number: impl FnMut() -> f64) -> [Vec<f64>; 3] {
    [g.input_len(), g.weight_len(), g.output_len()].map(|len| (0..len).map(|_| number()).collect())
}

fn error(got: &[f64], want: &[f64]) -> f64 {
    let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    (difference / want.iter().map(|w| w * w).sum::<f64>().max(1e-30)).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Small whole numbers are exact in bf16, and so are their sums in f32: only the results are rounded,
    /// once.
    #[test]
    fn whole_numbers_are_exact(
        seed: u64, n in 1usize..5, h in 1usize..20,
        // Maps of whole tiles have a path of their own.
        w in prop_oneof![1usize..20, prop::sample::select(vec![16usize, 32, 48])],
        ci in prop::sample::select(vec![1, 3, 16, 32, 48, 80]), co in prop::sample::select(vec![16, 32, 48, 80]),
        kernel in prop::sample::select(vec![1usize, 2, 3, 5]), stride in 1usize..4, padding in 0usize..3,
    ) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let g = Geometry { n, h, w, ci, co, kh: kernel, kw: kernel, stride, padding };
        if has_tiles() {
            prop_assert!(fits(&g));
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let values = draw(&g, || stream.below(5) as f64 - 2.0);
            let [y, gx, gw] = by_tiles(&g, &values);
            let [want_y, want_gx, want_gw] = plainly(&g, &values);
            let rounded =
                |values: Vec<f64>| values.into_iter().map(|x| bf16::from_f64(x).to_f64()).collect::<Vec<_>>();
            prop_assert_eq!(y, rounded(want_y));
            prop_assert_eq!(gx, rounded(want_gx));
            prop_assert_eq!(gw, want_gw);
        }
    }
}

/// Real numbers, in shapes with more pixels than are summed at once and more channels than one step takes.
#[test]
fn rounding_is_that_of_bf16() {
    if !has_tiles() {
        return;
    }
    for ([n, h, w, ci, co], kernel, stride) in [
        ([5, 33, 31, 64, 32], 3, 1),
        ([3, 9, 7, 208, 240], 3, 2),
        ([9, 32, 32, 3, 64], 3, 1),
        ([2, 40, 40, 16, 16], 1, 2),
    ] {
        let g = Geometry { n, h, w, ci, co, kh: kernel, kw: kernel, stride, padding: kernel / 2 };
        let mut stream = Stream::new(5, Purpose::Bootstrap, 0, 0);
        let values = draw(&g, || f64::from(bf16::from_f64(stream.normal()).to_f32()));
        let (got, want) = (by_tiles(&g, &values), plainly(&g, &values));
        for (which, allowed) in [2.5e-3, 2.5e-3, 1e-6].into_iter().enumerate() {
            let error = error(&got[which], &want[which]);
            assert!(error < allowed, "{g:?}: result {which} is off by {error}");
        }
    }
}

/// A pixel that is not a number reaches the outputs and weights that it is summed in, and no others.
#[test]
fn what_is_not_a_number_stays_where_it_is() {
    if !has_tiles() {
        return;
    }
    let g = Geometry { n: 3, h: 6, w: 6, ci: 16, co: 16, kh: 3, kw: 3, stride: 1, padding: 1 };
    let mut stream = Stream::new(6, Purpose::Bootstrap, 0, 0);
    let mut values = draw(&g, || stream.below(5) as f64 - 2.0);
    values[0][(36 + 2 * 6 + 2) * 16 + 5] = f64::NAN;
    let (got, want) = (by_tiles(&g, &values), plainly(&g, &values));
    for (got, want) in got.iter().zip(&want) {
        for (got, want) in got.iter().zip(want) {
            assert_eq!(got.is_nan(), want.is_nan(), "{got} for {want}");
        }
    }
}

/// With 16 channels and rows of whole tiles, a pixel that is not a number may reach one more output for each row
/// of the kernel, but none of another image, and all those that it must.
#[test]
fn what_is_not_a_number_stays_in_its_image() {
    if !has_tiles() {
        return;
    }
    let g = Geometry { n: 3, h: 4, w: 16, ci: 16, co: 16, kh: 3, kw: 3, stride: 1, padding: 1 };
    let image = g.h * g.w * 16;
    let mut stream = Stream::new(7, Purpose::Bootstrap, 0, 0);
    let mut values = draw(&g, || stream.below(5) as f64 - 2.0);
    values[0][image + (16 + 8) * 16 + 5] = f64::NAN;
    let ([y, ..], [want, ..]) = (by_tiles(&g, &values), plainly(&g, &values));
    let more = y.iter().zip(&want).filter(|(y, want)| y.is_nan() && !want.is_nan()).count();
    assert!(y.iter().zip(&want).all(|(y, want)| y.is_nan() || !want.is_nan()) && more <= 3 * 16, "{more}");
    assert!(y[..image].iter().chain(&y[2 * image..]).all(|y| !y.is_nan()));
}
