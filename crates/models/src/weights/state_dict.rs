//! A state dict of a file.

use std::collections::HashMap;
use std::fmt;

use candle_core::Tensor;

/// Tensors by name that lie together in a file.
#[derive(Debug, Clone)]
pub struct StateDict {
    /// The keys that lead to the state dict in the file, joined by dots; empty for the top level.
    pub place: String,
    /// The tensors.
    pub tensors: HashMap<String, Tensor>,
    /// Name and kind of each entry with a tensor of a kind that cannot be read (sparse, boolean ...).
    pub not_read: Vec<(String, String)>,
}

impl fmt::Display for StateDict {
    /// Writes the state dict's place and the number of its tensors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "the file itself" } else { &self.place };
        write!(f, "{place} ({} tensors)", self.tensors.len())
    }
}
