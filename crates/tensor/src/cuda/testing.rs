//! The device of tests that need a GPU.

use crate::DeviceKind;
use candle_core::Device;

/// Set where there must be a device, so that no test is skipped unseen.
const EXPECTED: &str = "INVASPREAD_EXPECT_CUDA";

/// The device, or `None` after a line that says why the test is skipped.
///
/// # Panics
/// If there is none though `INVASPREAD_EXPECT_CUDA` promises one, or if it cannot be opened.
pub fn device_or_skip() -> Option<Device> {
    if let Some(why) = DeviceKind::Cuda.why_not() {
        assert!(std::env::var_os(EXPECTED).is_none(), "{EXPECTED} promises a device: {why}");
        println!("skipped: {why}");
        return None;
    }
    Some(DeviceKind::Cuda.open().expect("a device that can be used can be opened"))
}
