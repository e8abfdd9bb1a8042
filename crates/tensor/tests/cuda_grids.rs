//! Tests launches whose size depends on the card. The results are the same on cards of any size, and the bits
//! are the same on cards of one size, whether a batch norm is one launch or two. The tests are skipped where
//! there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test fails by panicking; bits are compared")]

use candle_core::{DType, Device, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::cuda::Switches;
use invaspread_tensor::cuda::testing::{Counts, on_device, set_multiprocessors};
use invaspread_tensor::{BatchNormConfig, batch_norm};

fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32 + 0.5).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Returns the output and the gradients of a batch norm with a residual.
fn results(inputs: &[Tensor; 4], device: &Device, dtype: DType, chunk: usize) -> Vec<Vec<f64>> {
    let at = |i: usize, dtype: DType| {
        Var::from_tensor(&inputs[i].to_dtype(dtype).unwrap().to_device(device).unwrap()).unwrap()
    };
    let parameters = if device.is_cuda() { DType::F32 } else { dtype };
    let (x, gamma, beta, residual) = (at(0, dtype), at(1, parameters), at(2, parameters), at(3, dtype));
    let config = BatchNormConfig { relu: true, chunk, ..Default::default() };
    let (y, _) = batch_norm(&x, &gamma, &beta, Some(&residual), config).unwrap();
    let weights: Vec<f32> = (0..y.elem_count()).map(|i| (0.3 + i as f32 * 0.71).sin()).collect();
    let weights = Tensor::from_vec(weights, y.shape(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let loss = (&y * weights.to_device(device).unwrap()).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let wide = |x: &Tensor| {
        x.to_device(&Device::Cpu)
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    };
    let mut all = vec![wide(&y)];
    all.extend([&x, &gamma, &beta, &residual].map(|v| wide(gradients.get(v).unwrap())));
    all
}

#[test]
fn a_card_of_any_size_gives_the_same_and_one_launch_the_bits_of_two() {
    on_device(|device| {
        let mut stream = Stream::new(9, Purpose::Synthetic, 30, 0);
        for (images, side, channels, chunk) in [(4, 16, 64, 0), (6, 9, 24, 2), (3, 7, 5, 0), (2, 5, 520, 1)] {
            let map = [images, side, side, channels];
            let shapes = [&map[..], &[channels], &[channels], &map];
            let inputs = shapes.map(|shape| random(&mut stream, shape));
            for dtype in [DType::F32, DType::BF16] {
                // The inputs are rounded first, so that rounding to bf16 is not part of the comparison.
                let rounded = inputs.clone().map(|x| {
                    if x.rank() == 1 { x } else { x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap() }
                });
                let want = results(&rounded, &Device::Cpu, DType::F64, chunk);
                let mut of_sizes = Vec::new();
                for multiprocessors in [1, 3, 4, 17] {
                    if !set_multiprocessors(multiprocessors) && multiprocessors != 4 {
                        continue;
                    }
                    let mut ways = Vec::new();
                    for norm_together in [true, false] {
                        Switches { norm_together, ..Switches::default() }.take();
                        let before = Counts::now();
                        ways.push(results(&rounded, device, dtype, chunk));
                        // A second run gives the same, since the counters are zero again after the first.
                        assert!(results(&rounded, device, dtype, chunk) == ways[ways.len() - 1]);
                        assert!(
                            before.is_none_or(|before| Counts::now().unwrap().since(before).launches > 0)
                        );
                    }
                    assert!(ways[0] == ways[1], "{map:?} {dtype:?} on {multiprocessors} multiprocessors");
                    of_sizes.push(ways.remove(0));
                }
                set_multiprocessors(4);
                Switches::default().take();
                let tolerance = if dtype == DType::F32 { 2e-4 } else { 2e-2 };
                for got in &of_sizes {
                    for (which, (got, want)) in got.iter().zip(&want).enumerate() {
                        let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
                        let error = (difference / want.iter().map(|w| w * w).sum::<f64>()).sqrt();
                        assert!(error < tolerance, "{map:?} {dtype:?}: result {which} is off by {error}");
                    }
                }
            }
        }
    });
}
