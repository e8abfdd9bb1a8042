//! The algorithms of convolutions in a run's checkpoint, on CUDA.
//!
//! cuDNN's search measures time, so it may choose other algorithms in the process that resumes a run, and
//! these round differently. The checkpoint therefore holds the chosen ones.

use candle_core::Device;

use super::journal::Journal;
use super::{EngineError, Observer};

/// Puts the algorithms chosen so far into the journal.
///
/// # Errors
/// Returns an error if the device does not answer.
#[cfg(feature = "cuda")]
pub(super) fn keep(journal: &mut Journal, device: &Device) -> Result<(), EngineError> {
    let chosen = invaspread_tensor::cuda::algorithms(device);
    journal.algorithms = chosen.map_err(EngineError::tensor("list the algorithms of convolutions"))?;
    Ok(())
}

/// Leaves the journal as it is: a program without CUDA chooses no algorithms.
#[cfg(not(feature = "cuda"))]
#[expect(clippy::unnecessary_wraps, reason = "a device can fail")]
pub(super) fn keep(_: &mut Journal, _: &Device) -> Result<(), EngineError> {
    Ok(())
}

/// The most notes that are given in full.
#[cfg(feature = "cuda")]
const NOTES: usize = 3;

/// Gives notes on the convolutions that were run: a plan of the checkpoint that could not
/// be made again, or a product that one of cuDNN's APIs did not compute.
#[cfg(feature = "cuda")]
pub(super) fn tell(observer: &mut dyn Observer, title: &str) {
    let notes = invaspread_tensor::cuda::notes();
    for note in notes.iter().take(NOTES) {
        observer.note(&format!("{title}: {note}"));
    }
    if notes.len() > NOTES {
        observer.note(&format!("{title}: the same holds for {} more products", notes.len() - NOTES));
    }
}

/// Gives no notes: a program without CUDA runs no convolution of cuDNN's.
#[cfg(not(feature = "cuda"))]
pub(super) fn tell(_: &mut dyn Observer, _: &str) {}

/// Uses the algorithms of the checkpoint that a run resumes from. Returns a note for the user if they come
/// from another machine and are therefore measured anew.
///
/// # Errors
/// Returns an error if an entry cannot be read, or the device does not answer.
#[cfg(feature = "cuda")]
pub(super) fn take_up(journal: &Journal, device: &Device) -> Result<Option<String>, EngineError> {
    // A new run uses the algorithms that this process has chosen for earlier runs.
    if journal.algorithms.is_empty() {
        return Ok(None);
    }
    invaspread_tensor::cuda::take_algorithms(device, &journal.algorithms)
        .map_err(EngineError::tensor("take up the algorithms of convolutions"))
}

/// Returns nothing: a program without CUDA chooses no algorithms.
#[cfg(not(feature = "cuda"))]
#[expect(clippy::unnecessary_wraps, reason = "a device can fail")]
pub(super) fn take_up(_: &Journal, _: &Device) -> Result<Option<String>, EngineError> {
    Ok(None)
}
