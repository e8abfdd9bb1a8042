//! The objectives on the GPU against themselves on the CPU, at several sizes. Skipped where there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use invaspread_losses::self_check_on;
use invaspread_tensor::cuda::testing::device_or_skip;

#[test]
fn every_objective_agrees_with_the_cpu() {
    let Some(device) = device_or_skip() else { return };
    for (images, dim, entries) in [(2, 3, 5), (8, 16, 40), (33, 128, 300), (7, 65, 1031)] {
        for check in self_check_on(&device, images, dim, entries).unwrap() {
            assert!(check.is_good(), "{images} images, {dim} numbers, {entries} entries: {check:?}");
        }
    }
}
