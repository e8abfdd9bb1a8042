//! Weights trained elsewhere into a network: all of it but the embedding layer, which starts afresh where the file has none.
//!
//! What people have, and what becomes of it:
//!
//! | file | network | embedding layer |
//! |---|---|---|
//! | torchvision's ResNet-18, -34, -50 (`.pth`, `.safetensors`) | [`ResNet`](crate::ResNet) with the ImageNet stem | its `fc` is a classifier of another size: left over |
//! | BVLC GoogLeNet (`bvlc_googlenet.caffemodel`) | [`Inception`](crate::Inception) | it has none; its three classifiers are left over |
//! | what this program or the released code saved | the network it was saved from | loaded |
//! | torchvision's GoogLeNet | none: another network, see [`WeightError::Torchvision`] | |
//! | `googlenet.h5`, which the released code asks for: the same, converted | [`Inception`](crate::Inception) | it has none, and no classifiers |
//!
//! A network must see images normalised as those that its weights were trained on: torchvision's ResNets in red, green, blue with ImageNet's
//! mean and standard deviation, BVLC's GoogLeNet as [`Inception`](crate::Inception) says.

use crate::network::Network;
use crate::weights::{WeightError, read_weights};
use std::path::Path;

/// What an import did. That there is one means that all but the embedding layer was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// Entries of the network that were filled, in the order of its state dict.
    pub loaded: Vec<String>,
    /// Entries that stay as they were, freshly drawn: the embedding layer's or none. (A file without counts of batches lacks nothing: they
    /// stay too.)
    pub missing: Vec<String>,
    /// Entries of the file that the network has no use for, under the file's names, in alphabetical order.
    pub left_over: Vec<String>,
}

/// Loads the weights of a file ([`read_weights`]) into `network`.
///
/// The embedding layer is loaded if the file has both its weight and its bias in their shapes, and left alone otherwise. All else must be
/// there and of the right shape, or nothing is changed: a network half of which is random would train, and be worse for no reason that
/// shows.
///
/// # Errors
/// If the file cannot be read, or is of another network: names every entry that is missing or of another shape.
pub fn import(path: &Path, network: &Network) -> Result<ImportReport, WeightError> {
    let weights = read_weights(path)?;
    if matches!(network, Network::Inception(_)) && weights.keys().any(|name| name.ends_with(TORCHVISION)) {
        return Err(WeightError::Torchvision { path: path.into() });
    }
    let head = network.head_names();
    let mut fit = network.fit(&weights, |_| true)?;
    let head_found = head.iter().all(|name| fit.found.contains_key(name));
    if !head_found {
        fit = network.fit(&weights, |name| !head.iter().any(|of_head| of_head == name))?;
    }
    if !fit.is_complete() {
        return Err(WeightError::OtherNetwork {
            path: path.into(),
            network: network.config().to_string(),
            missing: fit.missing,
            misshapen: fit.misshapen,
        });
    }
    network.take_up(&fit.found)?;
    let loaded = network
        .state_dict()?
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| fit.found.contains_key(name))
        .collect();
    let missing = if head_found { Vec::new() } else { head.to_vec() };
    Ok(ImportReport { loaded, missing, left_over: fit.left_over })
}

/// An entry that torchvision's GoogLeNet has and BVLC's has not.
const TORCHVISION: &str = "inception3a.branch1.bn.weight";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::import;
    use crate::caffe::tests::{bytes, layer, old_layer};
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

    /// A file as torchvision's: a classifier of 1000 classes, no counts of batches.
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

    /// BVLC's file: layers of the old form, and classifiers that the network has no place for. One layer is of the new form.
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
        assert!(matches!(error, WeightError::Torchvision { .. }), "{error}");
        assert!(error.to_string().contains("googlenet.safetensors"), "{error}");
    }
}
