//! The weights of convolutions as cuDNN takes them, kept beside the parameters that an optimizer trains.
//!
//! cuDNN takes a weight as (C_out, K, K, C_in) in the activations' precision; a parameter is (K, K, C_in,
//! C_out) in f32. Instead of converting at each use, the optimizer's step writes the new weight in both
//! layouts, and reads the gradient as cuDNN wrote it. Any other code that writes a parameter must report
//! this: [`crate::assign`] does, and clippy refuses candle's `Var::set` elsewhere.
//!
//! A parameter is identified by its address. This is correct as long as its optimizer exists, since the
//! optimizer keeps the parameter's memory; the entry is removed with the optimizer.

use super::algorithms::Key;
use super::graph;
use super::input::Input;
use super::switches::Switches;
use candle_core::{DType, Result, Tensor};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A weight in cuDNN's layout, with its channels padded.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub(super) values: Tensor,
    pub(super) channels: usize,
    pub(super) out_channels: usize,
}

struct Entry {
    /// The optimizers that train the parameter.
    owners: usize,
    /// Whether they take its gradient in cuDNN's layout.
    packed_gradients: bool,
    packed: Option<Packed>,
}

static ENTRIES: Mutex<Option<HashMap<u64, Entry>>> = Mutex::new(None);

fn entries() -> MutexGuard<'static, Option<HashMap<u64, Entry>>> {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An optimizer's share in the entry of a parameter. The entry is removed when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Kept(u64);

impl Kept {
    /// Keeps the second form of a parameter on the device, if it is the weight of a convolution. The
    /// optimizer takes its gradients in cuDNN's layout if `packed_gradients`.
    pub(crate) fn new(parameter: &Tensor, packed_gradients: bool) -> Result<Option<Self>> {
        if parameter.rank() != 4 || parameter.dtype() != DType::F32 || !Switches::taken()?.weights_kept {
            return Ok(None);
        }
        let address = Input::of(parameter)?.address;
        let mut entries = entries();
        let entry = entries.get_or_insert_default().entry(address);
        let entry = entry.or_insert(Entry { owners: 0, packed_gradients, packed: None });
        entry.owners += 1;
        entry.packed_gradients &= packed_gradients;
        Ok(Some(Self(address)))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut entries = entries();
        let all = entries.get_or_insert_default();
        if let Some(entry) = all.get_mut(&self.0) {
            entry.owners -= 1;
            if entry.owners == 0 {
                all.remove(&self.0);
            }
        }
    }
}

/// Returns the weight at `address` as the convolution `key` takes it, if the weight is kept: in the form that
/// the last step wrote or, if there is none, in the form that `pack` makes, which is kept from now on.
pub(super) fn packed(
    address: u64,
    key: Key,
    pack: impl FnOnce() -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    let mut entries = entries();
    let Some(entry) = entries.as_mut().and_then(|entries| entries.get_mut(&address)) else { return Ok(None) };
    if let Some(Packed { values, channels, out_channels }) = &entry.packed
        && values.dtype() == key.dtype
        && (*channels, *out_channels) == (key.channels, key.out_channels)
    {
        return Ok(Some(values.clone()));
    }
    let values = pack()?;
    graph::forget_if(entry.packed.is_some());
    entry.packed =
        Some(Packed { values: values.clone(), channels: key.channels, out_channels: key.out_channels });
    Ok(Some(values))
}

/// Returns the kept weight at `address`, for the step to write.
pub(super) fn to_write(address: u64) -> Option<Packed> {
    entries().as_ref()?.get(&address)?.packed.clone()
}

/// Returns whether the gradient of the weight at `address` is taken as cuDNN writes it.
pub(super) fn takes_packed_gradients(address: u64) -> bool {
    let entries = entries();
    entries.as_ref().and_then(|entries| entries.get(&address)).is_some_and(|entry| entry.packed_gradients)
}

/// Discards the kept form of a parameter that other code than its optimizer is about to write.
pub(crate) fn forget(parameter: &Tensor) -> Result<()> {
    let address = Input::of(parameter)?.address;
    if let Some(entry) = entries().as_mut().and_then(|entries| entries.get_mut(&address)) {
        graph::forget_if(entry.packed.take().is_some());
    }
    Ok(())
}
