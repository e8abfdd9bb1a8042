//! Foreign weights against a network's state dict: what fits, what lacks, what has another shape, what is left over.

use crate::weights::{WeightError, to_our_layout};
use candle_core::{Result, Tensor, Var};
use std::collections::{HashMap, HashSet};

/// What weights hold for a network.
#[derive(Debug, Default)]
pub(crate) struct Fit {
    /// Entries that fit, under the network's names and in the shapes of its state dict.
    pub(crate) found: HashMap<String, Tensor>,
    /// Entries of the network, in its order, that the weights lack; counts of batches may be.
    pub(crate) missing: Vec<String>,
    /// `name: found shape, expected shape`, in the network's order.
    pub(crate) misshapen: Vec<String>,
    /// The weights' names that nothing was asked for under, in alphabetical order.
    pub(crate) left_over: Vec<String>,
}

impl Fit {
    /// Looks for each of `wanted`, a network's state dict, under the names that `names` gives for it; the first that is there counts.
    ///
    /// Shapes may differ by leading ones: Caffe writes a bias as (1, 1, 1, C), PyTorch some counts as (1).
    pub(crate) fn new(
        wanted: &[(String, Tensor)],
        weights: &HashMap<String, Tensor>,
        names: impl Fn(&str) -> Vec<String>,
    ) -> Result<Self> {
        let essential = |dims: &[usize]| dims.iter().copied().skip_while(|&len| len == 1).collect::<Vec<_>>();
        let mut fit = Self::default();
        let mut used = HashSet::new();
        for (name, like) in wanted {
            let Some((theirs, tensor)) = names(name).iter().find_map(|theirs| weights.get_key_value(theirs))
            else {
                if !name.ends_with("num_batches_tracked") {
                    fit.missing.push(name.clone());
                }
                continue;
            };
            used.insert(theirs);
            if essential(tensor.dims()) == essential(like.dims()) {
                fit.found.insert(name.clone(), tensor.reshape(like.dims())?);
            } else {
                let (found, expected) = (tensor.dims(), like.dims());
                fit.misshapen.push(format!("{name}: found {found:?}, expected {expected:?}"));
            }
        }
        fit.left_over = weights.keys().filter(|name| !used.contains(name)).cloned().collect();
        fit.left_over.sort();
        Ok(fit)
    }

    /// Whether every entry asked for was found.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.misshapen.is_empty()
    }

    /// The fit, if it is complete.
    ///
    /// # Errors
    /// Names every missing and every misshapen entry.
    pub(crate) fn complete(self) -> std::result::Result<Self, WeightError> {
        if self.is_complete() {
            return Ok(self);
        }
        Err(WeightError::Mismatch { missing: self.missing, misshapen: self.misshapen })
    }
}

/// An entry's name, and the same as `DataParallel` has it.
pub(crate) fn prefixed(name: &str) -> Vec<String> {
    vec![name.to_owned(), format!("module.{name}")]
}

/// Sets those of `parameters` that were found, in their type and on their device.
pub(crate) fn take_up(parameters: &[(String, Var)], found: &HashMap<String, Tensor>) -> Result<()> {
    for (name, parameter) in parameters {
        if let Some(tensor) = found.get(name) {
            let tensor = to_our_layout(tensor)?.to_dtype(parameter.dtype())?;
            parameter.set(&tensor.to_device(parameter.device())?)?;
        }
    }
    Ok(())
}
