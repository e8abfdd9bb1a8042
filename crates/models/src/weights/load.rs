//! Loads the weights of a file into a network, whichever program trained them, wherever they are in the file,
//! and whatever prefix their names have.
//!
//! These files are common:
//!
//! - torchvision's ResNet-18, -34 and -50 (`.pth`, `.safetensors`) fit [`ResNet`](crate::ResNet) with the
//!   ImageNet stem. Their `fc` is a classifier of another size than the embedding layer, and is left over.
//! - BVLC GoogLeNet (`bvlc_googlenet.caffemodel`) fits [`Inception`](crate::Inception). It has no embedding
//!   layer; its three classifiers are left over.
//! - `googlenet.h5`, which the released code needs, is BVLC GoogLeNet after a conversion, and fits
//!   [`Inception`](crate::Inception). It has neither an embedding layer nor classifiers.
//! - timm's `vit_tiny_patch16_224` and `vit_small_patch16_224` fit [`Vit`](crate::Vit) with the same patches and
//!   images. Their `head` is a classifier of another size than the embedding layer, and is left over.
//! - A file that this program or the released code saved fits the network that it was saved from. The
//!   embedding layer is loaded too.
//! - torchvision's GoogLeNet is another network and fits none: see [`WeightError::Torchvision`].
//!
//! A network needs images that are normalized like those that its weights were trained on: for torchvision's
//! ResNets red, green, blue with the mean and the standard deviation of ImageNet, for BVLC's GoogLeNet as
//! [`Inception`](crate::Inception) says.

use super::WeightsFile;
use super::error::{Mismatch, WeightError};
use super::finite::check;
use super::fit::{Candidate, Fit};
use super::state_dict::StateDict;
use crate::network::Network;
use candle_core::Tensor;
use std::collections::HashMap;
use std::path::Path;

/// Whether weights must hold the embedding layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNeeded {
    /// A missing embedding layer is an error.
    Yes,
    /// The layer is loaded if the weights hold its weight and its bias in the right shapes; otherwise it
    /// stays as it is.
    No,
}

/// The entries that were loaded. A report exists only if all necessary entries were loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Entries of the network that were loaded, in the order of its state dict.
    pub loaded: Vec<String>,
    /// Entries that keep their initial values: those of the embedding layer or none. (Counts of batches also
    /// stay if the file has none, but are not listed.)
    pub missing: Vec<String>,
    /// Entries of the state dict that the network does not need, under the names of the file, in alphabetical
    /// order.
    pub left_over: Vec<String>,
    /// The place of the state dict in the file; empty for the top level.
    pub place: String,
    /// The prefix that was removed from each name.
    pub prefix: String,
    /// Other places whose entries fit equally well.
    pub others: Vec<String>,
}

impl LoadReport {
    /// Says which part of the file was loaded; `None` if the whole file was loaded as it is.
    pub fn choice(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.place.is_empty() {
            parts.push(format!("the state dict is `{}` in the file", self.place));
        }
        if !self.prefix.is_empty() {
            parts.push(format!("the prefix `{}` of its names was removed", self.prefix));
        }
        if !self.others.is_empty() {
            parts.push(format!("these would fit equally well: {}", self.others.join(", ")));
        }
        if parts.is_empty() { None } else { Some(parts.join("; ")) }
    }
}

/// Loads the weights of a file into `network`.
///
/// The best match among several state dicts is taken. All entries except the embedding layer must be there,
/// of the right shape and finite; otherwise nothing is changed. A network with some random entries would
/// train, and would be worse without a visible reason.
///
/// ```
/// use invaspread_models::{HeadNeeded, Network, ResNetConfig, WeightsFile, load, write_weights};
///
/// let small = ResNetConfig { width: 8, ..ResNetConfig::default() };
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
/// write_weights(&path, &Network::new(small.clone(), 1)?.state_dict()?)?;
///
/// let network = Network::new(small, 2)?;
/// let report = load(&WeightsFile::open(&path)?, &network, HeadNeeded::Yes)?;
/// assert!(report.missing.is_empty() && report.left_over.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the file is of another network, the error names every entry that is missing or of another shape;
/// otherwise the first entry that holds NaN, an infinity or a variance below zero.
pub fn load(file: &WeightsFile, network: &Network, head: HeadNeeded) -> Result<LoadReport, WeightError> {
    load_from(&file.state_dicts, network, head).map_err(|source| WeightError::Load {
        path: file.path.clone(),
        network: network.config().to_string(),
        source: Box::new(source),
    })
}

/// Loads the weights of the file at `path` into `network`. If the file has no embedding layer, that layer
/// keeps its initial values.
///
/// # Errors
/// Returns the errors of [`WeightsFile::open`] and [`load`].
pub fn import(path: &Path, network: &Network) -> Result<LoadReport, WeightError> {
    load(&WeightsFile::open(path)?, network, HeadNeeded::No)
}

impl Network {
    /// Loads weights under PyTorch's names and in its layouts, all of them or none. A common prefix of all
    /// names is removed. The names of Inception may lack `base_model.` or be those of Caffe.
    ///
    /// Counts of batches may be missing; everything else must be there, of the right shape and finite.
    /// Entries with other names are left over and listed.
    ///
    /// # Errors
    /// If entries are missing or have another shape (the error names all of them), or an entry holds NaN, an
    /// infinity or a variance below zero (the error names the first one).
    pub fn load_state_dict(&self, weights: &HashMap<String, Tensor>) -> Result<LoadReport, WeightError> {
        let state_dict = StateDict { place: String::new(), tensors: weights.clone(), not_read: Vec::new() };
        load_from(&[state_dict], self, HeadNeeded::Yes)
    }
}

/// Loads one of several state dicts; see [`load`].
pub(crate) fn load_from(
    state_dicts: &[StateDict],
    network: &Network,
    head: HeadNeeded,
) -> Result<LoadReport, WeightError> {
    let names = || state_dicts.iter().flat_map(|state_dict| state_dict.tensors.keys());
    if matches!(network, Network::Inception(_)) && names().any(|name| name.ends_with(TORCHVISION)) {
        return Err(WeightError::Torchvision);
    }
    let wanted = network.state_dict()?;
    let candidates = Candidate::all(state_dicts, &wanted, network);
    let Some(best) = candidates.first() else {
        return Err(WeightError::Mismatch(Box::new(strangers(state_dicts, &wanted))));
    };
    let (state_dict, prefix) = (best.state_dict, best.prefix);
    let head_names = network.head_names();
    let mut fit = Fit::new(&wanted, network, state_dict, prefix, &[])?;
    let head_found = head_names.iter().all(|name| fit.found.contains_key(name));
    if !head_found && head == HeadNeeded::No {
        fit = Fit::new(&wanted, network, state_dict, prefix, &head_names)?;
    }
    if !fit.is_complete() {
        let theirs = sorted(state_dict.tensors.keys());
        let ours = wanted.into_iter().map(|(name, _)| name).collect();
        let mut state_dicts: Vec<String> = if state_dicts.len() > 1 {
            state_dicts
                .iter()
                .map(ToString::to_string)
                .filter(|other| *other != state_dict.to_string())
                .collect()
        } else {
            Vec::new()
        };
        if !state_dicts.is_empty() {
            state_dicts.insert(0, state_dict.to_string());
        }
        let Fit { missing, misshapen, .. } = fit;
        let of_head = |entry: &String| head_names.iter().any(|name| entry.starts_with(name.as_str()));
        let only_head = missing.iter().chain(&misshapen).all(of_head);
        return Err(WeightError::Mismatch(Box::new(Mismatch {
            missing,
            misshapen,
            theirs,
            ours,
            state_dicts,
            only_head,
        })));
    }
    check(&wanted, &fit.found)?;
    network.take_up(&fit.found)?;
    let alike = candidates[1..].iter().filter(|candidate| candidate.rank() == best.rank());
    Ok(LoadReport {
        loaded: wanted
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| fit.found.contains_key(name))
            .collect(),
        missing: if head_found { Vec::new() } else { head_names.to_vec() },
        left_over: fit.left_over,
        place: state_dict.place.clone(),
        prefix: prefix.to_owned(),
        others: alike.map(Candidate::name).collect(),
    })
}

/// Returns the error for state dicts that have no name in common with the network.
fn strangers(state_dicts: &[StateDict], wanted: &[(String, Tensor)]) -> Mismatch {
    let ours: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
    let mut state_dicts: Vec<&StateDict> = state_dicts.iter().collect();
    state_dicts.sort_by_key(|state_dict| std::cmp::Reverse(state_dict.tensors.len()));
    Mismatch {
        missing: ours.clone(),
        misshapen: Vec::new(),
        theirs: state_dicts.first().map(|largest| sorted(largest.tensors.keys())).unwrap_or_default(),
        ours,
        state_dicts: if state_dicts.len() > 1 {
            state_dicts.iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        },
        only_head: false,
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = names.cloned().collect();
    names.sort_unstable();
    names
}

/// An entry of torchvision's GoogLeNet that BVLC's does not have.
const TORCHVISION: &str = "inception3a.branch1.bn.weight";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::import;
    use crate::weights::caffe::tests::{bytes, layer, old_layer};
    use crate::{InceptionConfig, Network, ResNetConfig, WeightError, write_weights};
    use candle_core::{DType, Device, Tensor};
    use std::path::Path;

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn state(network: &Network) -> Vec<(String, Vec<f32>)> {
        network.state_dict().unwrap().into_iter().map(|(name, tensor)| (name, values(&tensor))).collect()
    }

    fn resnet(seed: u64) -> Network {
        Network::new(ResNetConfig { width: 8, ..ResNetConfig::imagenet() }, seed).unwrap()
    }

    /// Writes a file like torchvision's, with a classifier of 1000 classes and without counts of batches.
    fn torchvision(path: &Path, network: &Network) {
        let mut tensors = network.state_dict().unwrap();
        tensors.retain(|(name, _)| !name.ends_with("num_batches_tracked"));
        for (name, tensor) in &mut tensors {
            if name.starts_with("fc.") {
                let shape: Vec<usize> = [1000].into_iter().chain(tensor.dims()[1..].to_vec()).collect();
                *tensor = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
            }
        }
        write_weights(path, &tensors).unwrap();
    }

    #[test]
    fn a_classifier_is_left_over_and_the_embedding_layer_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resnet18.safetensors");
        let (theirs, ours) = (resnet(1), resnet(2));
        let before = state(&ours);
        torchvision(&path, &theirs);
        let report = import(&path, &ours).unwrap();
        assert_eq!(report.missing, ["fc.weight", "fc.bias"]);
        assert_eq!(report.left_over, ["fc.bias", "fc.weight"]);
        for (((name, now), (_, theirs)), (_, before)) in
            state(&ours).into_iter().zip(state(&theirs)).zip(before)
        {
            let want = if name.starts_with("fc.") { before } else { theirs };
            assert_eq!(now, want, "{name}");
            let loaded = !name.starts_with("fc.") && !name.ends_with("num_batches_tracked");
            assert_eq!(report.loaded.contains(&name), loaded, "{name}");
        }
    }

    #[test]
    fn what_this_program_saved_comes_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.safetensors");
        let (theirs, ours) = (resnet(1), resnet(2));
        write_weights(&path, &theirs.state_dict().unwrap()).unwrap();
        let report = import(&path, &ours).unwrap();
        assert!(report.missing.is_empty() && report.left_over.is_empty());
        assert_eq!(state(&ours), state(&theirs));
    }

    #[test]
    fn another_network_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resnet18.safetensors");
        torchvision(&path, &resnet(1));
        let cifar = Network::new(ResNetConfig { width: 8, ..Default::default() }, 2).unwrap();
        let before = state(&cifar);
        let error = import(&path, &cifar).unwrap_err().to_string();
        for part in [
            "resnet18.safetensors",
            "ResNet-18 with the CIFAR stem",
            "layer2.0.shortcut.0.weight",
            "conv1.weight: found [8, 3, 7, 7], expected [8, 3, 3, 3]",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(state(&cifar), before);
    }

    /// The file is like BVLC's: it has layers of the old form, and classifiers, which the network does not
    /// have. One layer is of the new form.
    #[test]
    fn a_caffe_model_is_taken_up_by_its_layers_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bvlc_googlenet.caffemodel");
        let network =
            |seed| Network::new(InceptionConfig { embedding: 4, ..Default::default() }, seed).unwrap();
        let (theirs, ours) = (network(1), network(2));
        let mut file = bytes(1, b"GoogleNet");
        let entries = theirs.state_dict().unwrap();
        for pair in entries.chunks(2) {
            let [(name, weight), (_, bias)] = pair else { panic!("a weight and a bias each") };
            let Some(name) = name.strip_prefix("base_model.") else { continue };
            let name = name.strip_suffix(".weight").unwrap().replacen('.', "/", 1);
            let dims: Vec<u64> = weight.dims().iter().map(|&len| len as u64).collect();
            let (weight, bias) = (values(weight), values(bias));
            let outputs = bias.len() as u64;
            if name == "inception_4c/5x5" {
                file.extend(layer(&name, &[(&dims, &weight), (&[outputs], &bias)]));
            } else {
                let dims = dims.try_into().unwrap();
                file.extend(old_layer(&name, &[(dims, &weight), ([1, 1, 1, outputs], &bias)]));
            }
        }
        file.extend(old_layer("loss3/classifier", &[([1, 1, 3, 2], &[0.0; 6]), ([1, 1, 1, 3], &[0.0; 3])]));
        std::fs::write(&path, &file).unwrap();

        let before = state(&ours);
        let report = import(&path, &ours).unwrap();
        assert_eq!(report.loaded.len(), 2 * 57);
        assert_eq!(report.missing, ["embedder.weight", "embedder.bias"]);
        assert_eq!(report.left_over, ["loss3/classifier.bias", "loss3/classifier.weight"]);
        for (((name, now), (_, theirs)), (_, before)) in
            state(&ours).into_iter().zip(state(&theirs)).zip(before)
        {
            assert_eq!(now, if name.starts_with("embedder.") { before } else { theirs }, "{name}");
        }
    }

    #[test]
    fn torchvisions_googlenet_is_another_network() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("googlenet.safetensors");
        let gain = Tensor::ones(64, DType::F32, &Device::Cpu).unwrap();
        write_weights(&path, &[("inception3a.branch1.bn.weight".to_owned(), gain)]).unwrap();
        let network = Network::new(InceptionConfig::default(), 0).unwrap();
        let error = import(&path, &network).unwrap_err();
        assert!(
            matches!(&error, WeightError::Load { source, .. } if matches!(**source, WeightError::Torchvision)),
            "{error}"
        );
        assert!(error.to_string().contains("googlenet.safetensors"), "{error}");
    }
}
