//! Tests convolutions on the device: any number of channels, full f32 where it is requested, and algorithms
//! that are kept and used again. The tests are skipped where there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test fails by panicking; bits are compared")]

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::cuda::testing::{Counts, on_device};
use invaspread_tensor::cuda::{algorithms, peak_memory, take_algorithms};
use invaspread_tensor::{Conv2dConfig, conv2d};

fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Returns the output and the gradients of input and weight, all on the CPU in f64.
fn all_products(inputs: [&Tensor; 2], config: Conv2dConfig) -> Result<[Vec<f64>; 3]> {
    let [x, w] = inputs.map(|x| Var::from_tensor(x).unwrap());
    let y = conv2d(&x, &w, config)?;
    let weights: Vec<f32> = (0..y.elem_count()).map(|i| (1.0 + i as f32 * 0.37).sin()).collect();
    let weights = Tensor::from_vec(weights, y.shape(), &Device::Cpu)?.to_dtype(y.dtype())?;
    let gradients = (&y * weights.to_device(y.device())?)?.sum_all()?.backward()?;
    let wide = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    Ok([wide(&y)?, wide(gradients.get(&x).unwrap())?, wide(gradients.get(&w).unwrap())?])
}

fn relative(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    (difference / want.iter().map(|w| w * w).sum::<f64>().max(1e-30)).sqrt()
}

#[test]
fn any_number_of_channels_is_taken_in_either_precision() {
    on_device(|device| {
        let mut stream = Stream::new(1, Purpose::Synthetic, 20, 0);
        for (ci, co) in [(1, 1), (3, 5), (7, 9), (8, 3), (5, 16), (13, 10)] {
            for (kernel, stride) in [(1, 1), (3, 1), (3, 2)] {
                let x = random(&mut stream, &[2, 6, 5, ci]);
                let w = random(&mut stream, &[kernel, kernel, ci, co]);
                let config = Conv2dConfig { stride, padding: kernel / 2, ..Default::default() };
                let exact = |t: &Tensor, dtype| t.to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap();
                for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 1e-2)] {
                    // The weight is rounded on the device.
                    let want = all_products([&exact(&x, dtype), &exact(&w, DType::F32)], config).unwrap();
                    let there = x.to_dtype(dtype).unwrap().to_device(device).unwrap();
                    let got = all_products([&there, &w.to_device(device).unwrap()], config).unwrap();
                    for (which, (got, want)) in got.iter().zip(&want).enumerate() {
                        let error = relative(got, want);
                        assert!(
                            error < tolerance,
                            "{dtype:?} {ci} to {co}, kernel {kernel}: result {which} is off by {error}"
                        );
                    }
                }
            }
        }
    });
}

/// The emulated cuDNN offers a faster algorithm that rounds its factors to TF32.
#[test]
fn full_f32_is_not_rounded_to_tf32() {
    on_device(|device| {
        let mut stream = Stream::new(2, Purpose::Synthetic, 21, 0);
        let [x, w] = [&[2, 7, 7, 16][..], &[3, 3, 16, 8]].map(|shape| random(&mut stream, shape));
        let run = |device: &Device, dtype: DType, tf32: bool| {
            let config = Conv2dConfig { padding: 1, tf32, ..Default::default() };
            let [x, w] = [&x, &w].map(|t| t.to_dtype(dtype).unwrap().to_device(device).unwrap());
            all_products([&x, &w], config).unwrap()
        };
        let want = run(&Device::Cpu, DType::F64, false);
        for (which, (got, want)) in run(device, DType::F32, false).iter().zip(&want).enumerate() {
            assert!(relative(got, want) < 1e-6, "result {which} is off by {}", relative(got, want));
        }
        for (which, (got, want)) in run(device, DType::F32, true).iter().zip(&want).enumerate() {
            let error = relative(got, want);
            assert!(error < 2e-3, "TF32: result {which} is off by {error}");
            // On a real card, full f32 may be the fastest.
            assert!(Counts::now().is_none() || error > 1e-5, "TF32 was allowed and not used: {error}");
        }
    });
}

/// The emulated search makes another choice the second time, among algorithms that round differently.
#[test]
fn algorithms_that_were_kept_are_taken_again() {
    on_device(|device| {
        let mut stream = Stream::new(3, Purpose::Synthetic, 22, 0);
        let [x, w] = [&[2, 9, 9, 16][..], &[3, 3, 16, 24]]
            .map(|shape| random(&mut stream, shape).to_device(device).unwrap());
        let config = Conv2dConfig { padding: 1, ..Default::default() };
        let run = || all_products([&x, &w], config).unwrap();
        let nothing = std::collections::BTreeMap::new();
        take_algorithms(device, &nothing).unwrap();
        assert!(algorithms(device).unwrap().is_empty());
        let first = run();
        let kept = algorithms(device).unwrap();
        assert_eq!(kept.len(), 3 + 1, "{kept:?}");
        assert_eq!(run(), first);

        // This is like another process, first without the choices and then with them.
        take_algorithms(device, &nothing).unwrap();
        let other = run();
        if Counts::now().is_some() {
            assert_ne!(algorithms(device).unwrap(), kept);
            assert_ne!(other, first);
        }
        assert_eq!(take_algorithms(device, &kept).unwrap(), None);
        assert_eq!(algorithms(device).unwrap(), kept);
        assert_eq!(run(), first);

        // With the choices of another card, nothing is taken, and the result says so.
        let mut elsewhere = kept.clone();
        elsewhere.insert("machine".to_owned(), "another card".to_owned());
        let said = take_algorithms(device, &elsewhere).unwrap().unwrap();
        assert!(said.contains("another card") && said.contains("measured anew"), "{said}");
        assert!(algorithms(device).unwrap().is_empty());

        // A damaged entry is named.
        let mut damaged = kept;
        let key = damaged.keys().next().unwrap().clone();
        damaged.insert(key.clone(), "algorithm x".to_owned());
        let error = take_algorithms(device, &damaged).unwrap_err().to_string();
        assert!(error.contains(&key) && error.contains("algorithm x"), "{error}");
        take_algorithms(device, &nothing).unwrap();
    });
}

/// A search has a gigabyte of scratch memory, which a run's own peak must not hold.
#[test]
fn the_peak_of_memory_is_known_without_the_search() {
    on_device(|device| {
        let mut stream = Stream::new(4, Purpose::Synthetic, 23, 0);
        let [x, w] = [&[1, 5, 5, 8][..], &[3, 3, 8, 8]]
            .map(|shape| random(&mut stream, shape).to_device(device).unwrap());
        conv2d(&x, &w, Conv2dConfig::default()).unwrap();
        let peak = peak_memory(device).unwrap();
        assert!(peak.with_search >= 1 << 30, "{peak:?}");
        assert!(peak.outside_search >= 5 * 5 * 8 * 4 && peak.outside_search < 1 << 28, "{peak:?}");
    });
}
