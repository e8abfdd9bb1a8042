//! Compares with the CPU what the GPU computes for a run besides the network's ops, for `invaspread doctor`
//! and the tests.

use candle_core::{Device, Result};
use invaspread_tensor::self_check::Check;

/// Compares every objective on `device`, a CUDA device, with the CPU.
///
/// # Errors
/// Returns an error if an objective cannot be computed.
pub fn self_check_on(device: &Device) -> Result<Vec<Check>> {
    invaspread_losses::self_check_on(device, 48, 128, 2000)
}
