//! Compares the objectives on the GPU with the same objectives on the CPU, at several sizes. The test is
//! skipped where there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;

use broken::{Place, tells};
use candle_core::DType;
use invaspread_losses::{Sizes, all_cases, self_check_on};
use invaspread_tensor::cuda::losses::indices;
use invaspread_tensor::cuda::testing::device_or_skip;

#[test]
fn every_objective_agrees_with_the_cpu() {
    let Some(device) = device_or_skip() else { return };
    // With 1366 numbers or more, a row of NCE needs more shared memory than a block has by default.
    for (images, dim, entries) in [(2, 3, 5), (8, 16, 40), (33, 128, 300), (7, 65, 1031), (2, 2048, 9)] {
        for check in self_check_on(&device, images, dim, entries).unwrap() {
            assert!(check.is_good(), "{images} images, {dim} numbers, {entries} entries: {check:?}");
        }
    }
}

/// A value that is not finite is visible in the loss on the device, as on the CPU.
#[test]
fn no_objective_hides_what_is_not_finite() {
    let Some(device) = device_or_skip() else { return };
    for (images, dim, more, input, at) in
        [(2, 1, 0, 0, 0), (3, 8, 30, 1, 17), (6, 40, 300, 0, 201), (5, 33, 3, 1, 5)]
    {
        let sizes = Sizes { images, dim, entries: images + more };
        for case in all_cases() {
            let told = |value| tells(&case, (sizes, 1), (DType::F32, &device), Place { input, at }, value);
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert!(told(value), "{}, {sizes:?}: {value} was not noticed", case.name);
            }
            assert!(!told(-0.0), "{}, {sizes:?}: -0 gave no finite loss", case.name);
        }
    }
}

/// Long arrays are copied through page-locked memory that is reused: each array arrives complete, and earlier
/// ones are not overwritten.
#[test]
fn arrays_of_any_length_arrive() {
    let Some(device) = device_or_skip() else { return };
    let like = candle_core::Tensor::zeros(1, DType::F32, &device).unwrap();
    let mut sent = Vec::new();
    for (round, len) in [3u32, 16_383, 16_384, 50_000, 16_384, 16_384, 50_000].into_iter().enumerate() {
        let values: Vec<u32> = (0..len).map(|i| i * 7 + round as u32).collect();
        sent.push((indices(&values, &[values.len()], &like).unwrap(), values));
    }
    for (there, values) in sent {
        assert!(there.to_vec1::<u32>().unwrap() == values, "{} numbers", values.len());
    }
    assert!(indices(&vec![1; 20_000], &[3], &like).is_err());
}
