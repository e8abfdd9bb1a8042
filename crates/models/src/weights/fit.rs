//! Compares weights with the state dict of a network: which entries fit, are missing, have another shape, or
//! are left over.

use super::state_dict::StateDict;
use crate::network::Network;
use candle_core::{Result, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A place in a file where the entries of a network may be: a state dict, and a prefix of its names.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) state_dict: &'a StateDict,
    /// The prefix: `module.` from `DataParallel`, `_orig_mod.` from `torch.compile`, `backbone.`, or several
    /// of them; usually empty.
    pub(crate) prefix: &'a str,
    /// The names in the file of the entries of the network, by their place in its state dict.
    names: BTreeMap<usize, &'a str>,
    /// The number of these entries that have the right shape.
    shaped: usize,
}

/// Usual names of running averages of trained weights. If trained and averaged weights fit equally well, the
/// trained ones are loaded.
const AVERAGES: [&str; 7] = ["ema", "encoder_k", "target", "teacher", "momentum", "average", "shadow"];

impl<'a> Candidate<'a> {
    /// Returns every candidate, the best match first.
    pub(crate) fn all(
        state_dicts: &'a [StateDict],
        wanted: &[(String, Tensor)],
        network: &Network,
    ) -> Vec<Self> {
        let places: HashMap<String, usize> = wanted
            .iter()
            .enumerate()
            .flat_map(|(place, (name, _))| network.names(name).into_iter().map(move |name| (name, place)))
            .collect();
        let mut all: Vec<Self> = Vec::new();
        for state_dict in state_dicts {
            let mut by_prefix: BTreeMap<&str, BTreeMap<usize, &str>> = BTreeMap::new();
            for name in state_dict.tensors.keys() {
                let starts = name.match_indices(['.', '/']).map(|(at, _)| at + 1);
                for start in std::iter::once(0).chain(starts) {
                    if let Some(&place) = places.get(&name[start..]) {
                        by_prefix.entry(&name[..start]).or_default().insert(place, name);
                    }
                }
            }
            // The same entries under a shorter prefix are not another candidate: a network may accept names
            // with and without a wrapper.
            let mut seen = HashSet::new();
            for (prefix, names) in by_prefix {
                if seen.insert(names.clone()) {
                    let fits = |(place, name): (&usize, &&str)| {
                        same_shape(state_dict.tensors[*name].dims(), wanted[*place].1.dims())
                    };
                    let shaped = names.iter().filter(|&entry| fits(entry)).count();
                    all.push(Self { state_dict, prefix, names, shaped });
                }
            }
        }
        // The sort is stable, so equal candidates stay in the order of the file.
        all.sort_by_key(|candidate| {
            let (shaped, names) = candidate.rank();
            (usize::MAX - shaped, usize::MAX - names, candidate.is_average(), candidate.prefix.len())
        });
        all
    }

    /// Returns the number of entries with the right shape, and of all entries.
    pub(crate) fn rank(&self) -> (usize, usize) {
        (self.shaped, self.names.len())
    }

    fn is_average(&self) -> bool {
        let place = format!("{}.{}", self.state_dict.place, self.prefix).to_ascii_lowercase();
        AVERAGES.iter().any(|average| place.contains(average))
    }

    /// Returns the place and the prefix as one name.
    pub(crate) fn name(&self) -> String {
        match (&self.state_dict.place[..], self.prefix.trim_end_matches(['.', '/'])) {
            ("", "") => "the file itself".to_owned(),
            (place, "") => format!("`{place}`"),
            ("", prefix) => format!("`{prefix}`"),
            (place, prefix) => format!("`{prefix}` of `{place}`"),
        }
    }
}

/// Returns whether shapes are equal up to leading ones: Caffe writes a bias as (1, 1, 1, C), PyTorch some
/// counts as (1).
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    let essential = |dims: &[usize]| dims.iter().copied().skip_while(|&len| len == 1).collect::<Vec<_>>();
    essential(a) == essential(b)
}

/// The result of a comparison of weights with a network.
#[derive(Debug, Default)]
pub(crate) struct Fit {
    /// Entries that fit, under the names of the network and in the shapes of its state dict.
    pub(crate) found: HashMap<String, Tensor>,
    /// Entries of the network that are missing in the weights, in the order of the network; counts of batches
    /// may be missing.
    pub(crate) missing: Vec<String>,
    /// Entries of another shape, each as `name: found shape, expected shape`, in the order of the network.
    pub(crate) misshapen: Vec<String>,
    /// The names of the weights that the network does not need, in alphabetical order.
    pub(crate) left_over: Vec<String>,
}

impl Fit {
    /// Searches for the entries of `wanted`, the state dict of a network, except those to be `left_alone`. An
    /// entry may have several names, each after the prefix; the first that exists counts.
    pub(crate) fn new(
        wanted: &[(String, Tensor)],
        network: &Network,
        state_dict: &StateDict,
        prefix: &str,
        left_alone: &[String],
    ) -> Result<Self> {
        let weights = &state_dict.tensors;
        let mut fit = Self::default();
        let mut used = HashSet::new();
        for (name, like) in wanted.iter().filter(|(name, _)| !left_alone.contains(name)) {
            let theirs: Vec<String> =
                network.names(name).iter().map(|name| format!("{prefix}{name}")).collect();
            let Some((theirs, tensor)) = theirs.iter().find_map(|theirs| weights.get_key_value(theirs))
            else {
                if let Some((_, kind)) = state_dict.not_read.iter().find(|(name, _)| theirs.contains(name)) {
                    fit.missing.push(format!("{name} (present as {kind}, which cannot be read)"));
                } else if !name.ends_with("num_batches_tracked") {
                    fit.missing.push(name.clone());
                }
                continue;
            };
            used.insert(theirs);
            if same_shape(tensor.dims(), like.dims()) {
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

    /// Returns whether every entry was found in the right shape.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.misshapen.is_empty()
    }
}
