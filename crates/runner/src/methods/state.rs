//! Reads a method's tensors from a checkpoint.

#![expect(clippy::implicit_hasher, reason = "a state is the map that Method::load_state is given")]

use std::collections::HashMap;

use candle_core::{Tensor, bail};
use invaspread_losses::Queue;
use invaspread_models::Module;

use super::RunFacts;
use crate::checkpoint::{NamedTensors, prefixed, take_prefixed};

const QUEUE_ROWS: &str = "queue.rows";
const QUEUE_OLDEST: &str = "queue.oldest";

/// A checkpoint whose method state does not fit the method.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A tensor that the method needs is missing.
    #[error("no tensor `{name}`; expected one of shape {expected:?}")]
    Missing {
        /// The tensor's name within the method's state.
        name: String,
        /// The shape that is needed.
        expected: Vec<usize>,
    },
    /// A tensor has another shape.
    #[error("tensor `{name}` of shape {found:?}; expected {expected:?}")]
    Shape {
        /// The tensor's name within the method's state.
        name: String,
        /// The shape that was found.
        found: Vec<usize>,
        /// The shape that is needed.
        expected: Vec<usize>,
    },
    /// There are tensors that the method does not know.
    #[error("tensors {names:?}, which this method does not keep")]
    Unknown {
        /// The names of the tensors.
        names: Vec<String>,
    },
    /// candle could not convert a tensor.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Takes the tensor `name` of shape `expected` out of `state`.
///
/// # Errors
/// Returns an error if it is missing or has another shape.
pub fn take(
    state: &mut HashMap<String, Tensor>,
    name: &str,
    expected: &[usize],
) -> Result<Tensor, StateError> {
    let tensor = state
        .remove(name)
        .ok_or_else(|| StateError::Missing { name: name.to_owned(), expected: expected.to_vec() })?;
    if tensor.dims() != expected {
        return Err(StateError::Shape {
            name: name.to_owned(),
            found: tensor.dims().to_vec(),
            expected: expected.to_vec(),
        });
    }
    Ok(tensor)
}

/// Checks that every tensor of the state was taken.
///
/// # Errors
/// Returns an error that names the tensors that were not taken.
pub fn nothing_left(state: &HashMap<String, Tensor>) -> Result<(), StateError> {
    if state.is_empty() {
        return Ok(());
    }
    let mut names: Vec<String> = state.keys().cloned().collect();
    names.sort_unstable();
    Err(StateError::Unknown { names })
}

/// Checks that a queue of `length` rows, the method's key `queue`, can take up a batch.
///
/// # Errors
/// Returns an error if it is too short.
pub(super) fn check_queue(length: usize, facts: RunFacts) -> candle_core::Result<()> {
    let batch = facts.batch_size;
    if length < batch {
        bail!("method.queue: found {length}, expected at least {batch}, the value of optim.batch_size")
    }
    Ok(())
}

/// Returns the rows of a queue and the place of the oldest one.
///
/// # Errors
/// Returns an error if candle fails.
pub(super) fn queue_state(queue: &Queue) -> candle_core::Result<NamedTensors> {
    let [rows, oldest] = queue.state()?;
    Ok(vec![(QUEUE_ROWS.to_owned(), rows), (QUEUE_OLDEST.to_owned(), oldest)])
}

/// Takes from `state` what [`queue_state`] returned.
///
/// # Errors
/// Returns an error if a tensor is missing or does not fit the queue.
pub(super) fn load_queue(queue: &mut Queue, state: &mut HashMap<String, Tensor>) -> Result<(), StateError> {
    let [own, _] = queue.state()?;
    let rows = take(state, QUEUE_ROWS, own.dims())?;
    let oldest = take(state, QUEUE_OLDEST, &[])?;
    Ok(queue.load_state([&rows, &oldest])?)
}

/// Returns the weights and running statistics of a head, or of a copy of the network, under names that begin
/// with `prefix`.
///
/// # Errors
/// Returns an error if candle fails.
pub fn module_state(prefix: &str, module: &impl Module) -> candle_core::Result<NamedTensors> {
    Ok(prefixed(prefix, module.state_dict()?).collect())
}

/// Takes from `state` the tensors that [`module_state`] returned for the same `prefix`, and loads them.
///
/// # Errors
/// Returns an error if a tensor is missing, unknown or has another shape; the error names it.
pub fn load_module(
    prefix: &str,
    module: &impl Module,
    state: &mut HashMap<String, Tensor>,
) -> Result<(), StateError> {
    Ok(module.load_state_dict(&take_prefixed(state, prefix))?)
}
