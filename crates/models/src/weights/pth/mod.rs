//! A reader for what `torch.save` writes of a state dict, of something that holds one, or of a module, in the forms before and after
//! PyTorch 1.6.
//!
//! candle's reader of these (as of 0.11.1) takes the file at its word: a length in the pickle is reserved before it is compared with what
//! is there, a call with too few arguments ends the process, and what the memo holds is copied whenever it is mentioned, so that a file of
//! a kilobyte fills any memory; nor does it know the older form. Weights come from strangers; hence this reader, whose memory is a small
//! multiple of the file's length whatever the file says, and which calls nothing that a pickle names.

mod archive;
mod old_form;
mod saved;
mod view;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Cursor;

use candle_core::Tensor;
use invaspread_pickle::Pickle;

use crate::weights::StateDict;
use archive::Archive;
use old_form::{OldStorages, take_apart};

pub(crate) use old_form::is_old_form;

/// Tensors together may be so many times as long as the file: some share a storage, few all of it.
const SHARED: usize = 8;

/// Where a file keeps the bytes of tensors.
trait Storages {
    /// The bytes of a storage, whose elements take `element` bytes each, in little-endian order.
    fn read(&mut self, key: &str, element: usize) -> Result<Vec<u8>, String>;
}

/// The state dicts of a file: each dict of tensors, wherever it lies.
///
/// # Errors
/// What is wrong with it, in words that follow "found".
pub(crate) fn read(file: &[u8]) -> Result<Vec<StateDict>, String> {
    if is_old_form(file) {
        let (saved, rest) = take_apart(file)?;
        let pickle = Pickle::read(saved)?;
        let mut storages = OldStorages::new(rest, &pickle)?;
        return state_dicts(&pickle, &mut storages, file.len());
    }
    let (mut archive, saved) = Archive::open(Cursor::new(file), file.len() as u64)?;
    state_dicts(&Pickle::read(&saved)?, &mut archive, file.len())
}

fn state_dicts(
    pickle: &Pickle<'_>,
    storages: &mut impl Storages,
    length: usize,
) -> Result<Vec<StateDict>, String> {
    let mut known: HashMap<String, Vec<u8>> = HashMap::new();
    let mut left = length.saturating_mul(SHARED);
    let mut read = |found: saved::Tensors| {
        let mut tensors = HashMap::with_capacity(found.views.len());
        for (name, view) in found.views {
            let storage = match known.entry(view.storage.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(storages.read(&view.storage, view.dtype.size_in_bytes())?),
            };
            let tensor: Tensor =
                view.tensor(storage).map_err(|found| format!("the tensor {name:?} with {found}"))?;
            let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
            left = left
                .checked_sub(bytes)
                .ok_or_else(|| format!("tensors of more than {SHARED} times the file's length"))?;
            tensors.insert(name, tensor);
        }
        Ok(StateDict { place: found.place, tensors, not_read: found.not_read })
    };
    saved::state_dicts(pickle)?.into_iter().map(&mut read).collect()
}

#[cfg(test)]
pub(crate) mod tests;
