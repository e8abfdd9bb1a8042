//! What the GPU computes for a run besides the network's ops, against the CPU: for `invaspread doctor` and
//! the tests.

use candle_core::{Device, Result};
use invaspread_tensor::self_check::Check;

/// Returns every objective on `device`, which is CUDA.
///
/// # Errors
/// Returns an error if one fails outright.
pub fn self_check_on(device: &Device) -> Result<Vec<Check>> {
    invaspread_losses::self_check_on(device, 48, 128, 2000)
}
