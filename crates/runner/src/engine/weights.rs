//! Opens the weights of a network from a file of weights or from the state of a run.

use std::path::Path;

use invaspread_models::{WeightError, WeightsFile};

use crate::checkpoint::take_prefixed;

/// The prefix of the network's entries in the state that a run resumes from.
pub(super) const WEIGHTS: &str = "weights/";

/// Reads a file of weights. From the state that a run resumes from, it takes only the network's entries.
///
/// # Errors
/// Returns the errors of [`WeightsFile::open`].
pub fn open_weights(path: &Path) -> Result<WeightsFile, WeightError> {
    let mut file = WeightsFile::open(path)?;
    // Only this program seals files, so tensors of other programs with the same prefix are left alone.
    if file.content.is_some() {
        for state_dict in &mut file.state_dicts {
            let of_state = take_prefixed(&mut state_dict.tensors, WEIGHTS);
            if !of_state.is_empty() {
                state_dict.tensors = of_state;
            }
        }
    }
    Ok(file)
}
