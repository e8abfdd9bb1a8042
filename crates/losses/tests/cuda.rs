//! The objectives on the GPU against themselves on the CPU, at several sizes. Skipped where there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use invaspread_losses::self_check_on;
use invaspread_tensor::DeviceKind;

#[test]
fn every_objective_agrees_with_the_cpu() {
    if let Some(why) = DeviceKind::Cuda.why_not() {
        assert!(std::env::var_os("INVASPREAD_EXPECT_CUDA").is_none(), "a device was promised: {why}");
        println!("skipped: {why}");
        return;
    }
    let device = DeviceKind::Cuda.open().unwrap();
    for (images, dim, entries) in [(2, 3, 5), (8, 16, 40), (33, 128, 300), (7, 65, 1031)] {
        for check in self_check_on(&device, images, dim, entries).unwrap() {
            assert!(check.is_good(), "{images} images, {dim} numbers, {entries} entries: {check:?}");
        }
    }
}
