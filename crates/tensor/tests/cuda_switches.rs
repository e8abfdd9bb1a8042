//! The ways of computing one thing that a switch chooses between give the same, and a weight that is kept in
//! cuDNN's layout is never an old one. The tests are skipped where there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test fails by panicking; bits are compared")]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::cuda::testing::{Counts, on_device};
use invaspread_tensor::cuda::{ConvolutionApi, Switches, take_algorithms};
use invaspread_tensor::{
    Conv2dConfig, LarsConfig, Optimizer, OptimizerConfig, PoolConfig, SgdConfig, Tape, Value, assign, conv2d,
};

fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

const STEPS: usize = 3;

/// Takes some steps of two convolutions of one map and one behind them; returns the weights, and what the
/// last step launched.
fn train(device: &Device, dtype: DType, config: OptimizerConfig) -> (Vec<Vec<f32>>, Option<Counts>) {
    let mut stream = Stream::new(8, Purpose::Synthetic, 40, 0);
    let mut var = |shape: &[usize]| {
        let x = (random(&mut stream, shape) * 0.2).unwrap();
        Var::from_tensor(&x.to_device(device).unwrap()).unwrap()
    };
    let weights = [var(&[3, 3, 3, 16]), var(&[3, 3, 16, 10]), var(&[1, 1, 16, 10]), var(&[3, 3, 10, 40])];
    let named = weights.iter().enumerate().map(|(i, w)| (format!("w{i}"), w.clone())).collect();
    let mut optimizer = Optimizer::new(named, config).unwrap();
    let x = random(&mut stream, &[2, 6, 6, 3]).to_dtype(dtype).unwrap().to_device(device).unwrap();
    let target = random(&mut stream, &[2, 1, 1, 40]).to_device(device).unwrap();
    let (wide, narrow) = (Conv2dConfig { padding: 1, ..Default::default() }, Conv2dConfig::default());
    let mut counts = None;
    for _ in 0..STEPS {
        let before = Counts::now();
        let mut tape = Tape::default();
        let map = tape.conv2d(&Value::constant(&x), &weights[0], wide).unwrap();
        let a = tape.conv2d(&map, &weights[1], wide).unwrap();
        let b = tape.conv2d(&map, &weights[2], narrow).unwrap();
        let a = tape.conv2d(&a, &weights[3], wide).unwrap();
        let b = tape.conv2d(&b, &weights[3], wide).unwrap();
        let [a, b] = [&a, &b].map(|x| {
            let pooled = tape.avg_pool2d(x, PoolConfig::square(6)).unwrap();
            tape.leaf(&pooled).unwrap()
        });
        let sum = (a.to_dtype(DType::F32).unwrap() + b.to_dtype(DType::F32).unwrap()).unwrap();
        let mut gradients = (sum * &target).unwrap().sum_all().unwrap().backward().unwrap();
        tape.backward(&mut gradients).unwrap();
        optimizer.step(&gradients, 0.05).unwrap();
        counts = before.map(|before| Counts::now().unwrap().since(before));
    }
    (weights.iter().map(|w| values(w)).collect(), counts)
}

#[test]
fn weights_that_are_kept_and_sums_in_convolutions_change_no_bit() {
    on_device(|device| {
        let sgd = OptimizerConfig::Sgd(SgdConfig { momentum: 0.9, weight_decay: 1e-3 });
        let lars = OptimizerConfig::Lars(LarsConfig { trust_coefficient: 0.1, ..LarsConfig::default() });
        let apis = [ConvolutionApi::Both, ConvolutionApi::Legacy, ConvolutionApi::Backend];
        for (optimizer, convolution) in [sgd, lars].into_iter().flat_map(|sgd| apis.map(|api| (sgd, api))) {
            take_algorithms(device, &BTreeMap::new()).unwrap();
            for dtype in [DType::F32, DType::BF16] {
                let with = |weights_kept, sums_in_convolution| {
                    Switches { weights_kept, sums_in_convolution, convolution, ..Switches::default() }.take();
                    train(device, dtype, optimizer)
                };
                let (plain, plain_counts) = with(false, false);
                let (kept, kept_counts) = with(true, false);
                assert!(plain == kept, "{dtype:?} {optimizer:?}: kept weights are others");
                if let (Some(plain), Some(kept)) = (plain_counts, kept_counts) {
                    // Nine conversions of weights, at the least; five of gradients where the optimizer takes them
                    // as they are.
                    assert!(kept.launches + 9 <= plain.launches, "{dtype:?}: {kept:?} and {plain:?}");
                }
                let (summed, summed_counts) = with(true, true);
                if let (Some(kept), Some(summed)) = (kept_counts, summed_counts) {
                    assert!(summed.launches < kept.launches, "{dtype:?}: {summed:?} and {kept:?}");
                }
                for (a, b) in plain.iter().zip(&summed) {
                    // In bf16 a sum is rounded once instead of twice; f32 rounds alike on the emulated device.
                    let far: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
                    let far = (far / a.iter().map(|a| a * a).sum::<f32>()).sqrt();
                    let bound = if dtype == DType::BF16 { 3e-2 } else { 1e-6 };
                    assert!(far < bound, "{dtype:?} {optimizer:?}: {far}");
                }
            }
        }
        Switches::default().take();
        take_algorithms(device, &BTreeMap::new()).unwrap();
    });
}

#[test]
fn a_kept_weight_is_what_was_assigned_last() {
    on_device(|device| {
        Switches::default().take();
        let mut stream = Stream::new(8, Purpose::Synthetic, 41, 0);
        let there = |x: Tensor| x.to_device(device).unwrap();
        let [first, second] = [(); 2].map(|()| there(random(&mut stream, &[3, 3, 8, 8])));
        let x = there(random(&mut stream, &[1, 5, 5, 8]));
        let weight = Var::from_tensor(&first).unwrap();
        let config = OptimizerConfig::Sgd(SgdConfig { momentum: 0.0, weight_decay: 0.0 });
        let run = |w: &Tensor| values(&conv2d(&x, &w.detach(), Conv2dConfig::default()).unwrap());
        let (of_first, of_second) = (run(&first), run(&second));
        assert_ne!(of_first, of_second);
        let optimizer = Optimizer::new(vec![("w".to_owned(), weight.clone())], config).unwrap();
        assert_eq!(run(weight.as_tensor()), of_first);
        assign(&weight, &second).unwrap();
        assert_eq!(run(weight.as_tensor()), of_second);
        // Without its optimizer nothing is kept: an address may come to hold another weight.
        drop(optimizer);
        drop(weight);
        let other = Var::from_tensor(&first).unwrap();
        assert_eq!(run(other.as_tensor()), of_first);
    });
}
