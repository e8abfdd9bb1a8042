//! The device for tests that need a GPU.

use crate::DeviceKind;
use candle_core::Device;

/// This variable is set where there must be a device, so that no test is skipped unnoticed.
const EXPECTED: &str = "INVASPREAD_EXPECT_CUDA";

/// Returns the device, or prints why the test is skipped and returns `None`.
///
/// # Panics
/// If there is no device although `INVASPREAD_EXPECT_CUDA` is set, or if it cannot be opened.
pub fn device_or_skip() -> Option<Device> {
    if let Some(why) = DeviceKind::Cuda(0).why_not() {
        assert!(std::env::var_os(EXPECTED).is_none(), "{EXPECTED} promises a device: {why}");
        println!("skipped: {why}");
        return None;
    }
    Some(DeviceKind::Cuda(0).open().expect("a device that can be used can be opened"))
}
