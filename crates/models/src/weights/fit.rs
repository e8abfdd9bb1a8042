//! Foreign weights against a network's state dict: what fits, what lacks, what has another shape, what is left over.

use super::state_dict::StateDict;
use crate::network::Network;
use candle_core::{Result, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Where in a file a network's entries may be: a state dict, and what its names have before the network's.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) state_dict: &'a StateDict,
    /// Such as `module.` of `DataParallel`, `_orig_mod.` of `torch.compile`, `backbone.`, or several; mostly empty.
    pub(crate) prefix: &'a str,
    /// The network's entries by their place in its state dict, with the names of the file.
    names: BTreeMap<usize, &'a str>,
    /// How many of them have the right shape.
    shaped: usize,
}

/// What training averages weights into, rather than what it trains, is mostly called so. Of two that fit alike the trained one is taken.
const AVERAGES: [&str; 7] = ["ema", "encoder_k", "target", "teacher", "momentum", "average", "shadow"];

impl<'a> Candidate<'a> {
    /// Every candidate, the one that fits best first.
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
            // The same entries under a shorter prefix, as where a network's own names may be without a wrapper, are no other candidate.
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
        // Stable: of those that are alike the file's first stays first.
        all.sort_by_key(|candidate| {
            let (shaped, names) = candidate.rank();
            (usize::MAX - shaped, usize::MAX - names, candidate.is_average(), candidate.prefix.len())
        });
        all
    }

    /// How many entries have the right shape, and how many there are at all.
    pub(crate) fn rank(&self) -> (usize, usize) {
        (self.shaped, self.names.len())
    }

    fn is_average(&self) -> bool {
        let place = format!("{}.{}", self.state_dict.place, self.prefix).to_ascii_lowercase();
        AVERAGES.iter().any(|average| place.contains(average))
    }

    /// The place and the prefix, as one name.
    pub(crate) fn name(&self) -> String {
        match (&self.state_dict.place[..], self.prefix.trim_end_matches(['.', '/'])) {
            ("", "") => "the file itself".to_owned(),
            (place, "") => format!("`{place}`"),
            ("", prefix) => format!("`{prefix}`"),
            (place, prefix) => format!("`{prefix}` of `{place}`"),
        }
    }
}

/// Whether shapes differ by leading ones alone: Caffe writes a bias as (1, 1, 1, C), PyTorch some counts as (1).
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    let essential = |dims: &[usize]| dims.iter().copied().skip_while(|&len| len == 1).collect::<Vec<_>>();
    essential(a) == essential(b)
}

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
    /// Looks for those of `wanted`, a network's state dict, that are not to be `left_alone`, under the names that the network has for them
    /// and after the prefix; the first that is there counts.
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
                    fit.missing.push(format!("{name} (there as {kind}, which is not read)"));
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

    /// Whether every entry asked for was found.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.misshapen.is_empty()
    }
}
