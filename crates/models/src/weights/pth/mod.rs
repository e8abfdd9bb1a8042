//! Reads files of `torch.save` that hold a state dict, containers of state dicts, or a module, in the forms
//! before and after PyTorch 1.6.
//!
//! candle's reader (as of 0.11.1) trusts the file: it reserves memory for a length in the pickle before
//! comparing it with the bytes that are there, a call with too few arguments ends the process, and values of
//! the memo are copied whenever they are used, so that a file of a kilobyte can fill any memory. It cannot
//! read the older form. Files of weights are not trusted, so this reader needs at most a small multiple of
//! the length of the file as memory, and calls nothing that a pickle names.

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

/// All tensors together may be at most this many times as long as the file; they may be longer because some
/// tensors share a storage.
const SHARED: usize = 8;

/// The storages of a file, which hold the bytes of tensors.
trait Storages {
    /// Returns the bytes of a storage in little-endian order; each element takes `element` bytes.
    fn read(&mut self, key: &str, element: usize) -> Result<Vec<u8>, String>;
}

/// Returns the state dicts of a file: each dict of tensors, wherever it is.
///
/// # Errors
/// Says what is wrong with the file, in words that follow "found".
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
