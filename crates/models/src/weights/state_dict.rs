//! A state dict out of a file.

use std::collections::HashMap;
use std::fmt;

use candle_core::Tensor;

/// Tensors by name that lie together somewhere in a file.
#[derive(Debug, Clone)]
pub struct StateDict {
    /// The keys that lead to it in the file, with dots between; empty if it is the file's own.
    pub place: String,
    /// The tensors.
    pub tensors: HashMap<String, Tensor>,
    /// Entries that hold a tensor of a kind that is not read (sparse, boolean ...): name and kind.
    pub not_read: Vec<(String, String)>,
}

impl fmt::Display for StateDict {
    /// Its place and how much there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "the file itself" } else { &self.place };
        write!(f, "{place} ({} tensors)", self.tensors.len())
    }
}
