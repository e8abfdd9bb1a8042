//! Tests writing and reading networks, and files of other kinds.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::WeightsFile;
use crate::corpus::corpus;
use crate::{
    HeadNeeded, Mode, Network, ResNetConfig, WeightError, WeightsFormat, import, load, write_weights,
};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

fn small(seed: u64) -> Network {
    Network::new(ResNetConfig { width: 8, ..Default::default() }, seed).unwrap()
}

fn embed(network: &Network) -> Vec<f32> {
    let values: Vec<f32> = (0..2 * 3072).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = Tensor::from_vec(values, (2, 32, 32, 3), &Device::Cpu).unwrap();
    network.forward(&x, Mode::Train).unwrap();
    let output = network.forward(&x, Mode::Evaluate).unwrap();
    output.embedding.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_network_survives_the_way_to_disk_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let (first, second) = (small(1), small(2));
    let want = embed(&first);
    write_weights(&path, &first.state_dict().unwrap()).unwrap();
    let report = second.load_state_dict(&WeightsFile::open(&path).unwrap().state_dicts[0].tensors).unwrap();
    assert!(report.left_over.is_empty() && report.loaded.len() == first.state_dict().unwrap().len());
    let (a, b) = (first.state_dict().unwrap(), second.state_dict().unwrap());
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        let values =
            |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(values(a), values(b), "{name}");
    }
    // Both networks get the same batch once more in training mode, so both update their running statistics in
    // the same way.
    assert_eq!(embed(&first), embed(&second));
    assert_ne!(want, embed(&small(2)));
}

#[test]
fn what_does_not_fit_is_named_and_changes_nothing() {
    let network = small(1);
    let before = embed(&small(1));
    let mut weights: HashMap<_, _> = small(2).state_dict().unwrap().into_iter().collect();
    weights.remove("layer3.0.bn2.bias");
    weights.insert("linear.bias".into(), Tensor::zeros(7, DType::F32, &Device::Cpu).unwrap());
    let error = network.load_state_dict(&weights).unwrap_err().to_string();
    assert!(
        error.contains("layer3.0.bn2.bias") && error.contains("linear.bias: found [7], expected [128]"),
        "{error}"
    );
    assert_eq!(before, embed(&network));
}

#[test]
fn counts_of_batches_may_be_floats_or_absent() {
    let counts = |network: &Network| -> Vec<i64> {
        let state = network.state_dict().unwrap();
        let counts = state.iter().filter(|(name, _)| name.ends_with("num_batches_tracked"));
        counts.map(|(_, count)| count.to_scalar().unwrap()).collect()
    };
    let network = small(1);
    let mut weights: HashMap<_, _> = small(2).state_dict().unwrap().into_iter().collect();
    for (name, tensor) in &mut weights {
        if name.ends_with("num_batches_tracked") {
            *tensor = Tensor::new(&[7f32], &Device::Cpu).unwrap();
        }
    }
    network.load_state_dict(&weights).unwrap();
    assert!(counts(&network).iter().all(|count| *count == 7), "{:?}", counts(&network));
    weights.retain(|name, _| !name.ends_with("num_batches_tracked"));
    network.load_state_dict(&weights).unwrap();
    assert!(counts(&network).iter().all(|count| *count == 7), "{:?}", counts(&network));
}

/// Checks the prefixes that `DataParallel`, `torch.compile`, Lightning, lightly, MoCo and their combinations
/// put before each name.
#[test]
fn a_prefix_that_all_names_have_is_dropped_and_told() {
    let network = small(1);
    let theirs = small(2).state_dict().unwrap();
    for prefix in [
        "module.",
        "_orig_mod.",
        "model.",
        "backbone.",
        "encoder.",
        "module.encoder_q.",
        "_orig_mod.module.",
        "module._orig_mod.model.backbone.",
        "net/",
    ] {
        let mut weights: HashMap<String, Tensor> =
            theirs.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect();
        let strange = format!("{prefix}fc.weight");
        weights.insert(strange.clone(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
        weights.insert("projector.0.weight".into(), Tensor::zeros((4, 4), DType::F32, &Device::Cpu).unwrap());
        let report = network.load_state_dict(&weights).unwrap();
        let mut left_over = [strange, "projector.0.weight".to_owned()];
        left_over.sort();
        assert_eq!(report.left_over, left_over);
        assert_eq!(report.prefix, prefix);
        assert!(report.choice().unwrap().contains(prefix), "{:?}", report.choice());
        assert_eq!(report.loaded.len(), theirs.len());
    }
    assert_eq!(embed(&network), embed(&small(2)));
}

#[test]
fn of_two_networks_in_a_file_the_trained_one_is_taken_and_the_other_told() {
    let network = small(1);
    let mut weights = HashMap::new();
    for (seed, prefix) in [(2, "module.encoder_q."), (3, "module.encoder_k.")] {
        let state = small(seed).state_dict().unwrap();
        weights.extend(state.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    }
    let report = network.load_state_dict(&weights).unwrap();
    assert_eq!(
        (&report.prefix[..], &report.others[..]),
        ("module.encoder_q.", &["`module.encoder_k`".to_owned()][..])
    );
    assert_eq!(embed(&network), embed(&small(2)));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moco.safetensors");
    write_weights(&path, &weights.into_iter().collect::<Vec<_>>()).unwrap();
    let within = WeightsFile::open(&path).unwrap().within("module.encoder_k").unwrap();
    let report = load(&within, &network, HeadNeeded::Yes).unwrap();
    assert!(report.others.is_empty(), "{report:?}");
    assert_eq!(embed(&network), embed(&small(3)));
    let error = WeightsFile::open(&path).unwrap().within("ema").unwrap_err().to_string();
    assert!(error.contains("moco.safetensors") && error.contains("\"ema\""), "{error}");
}

#[test]
fn names_of_both_sides_are_shown_where_none_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other");
    let tensor = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    write_weights(&path, &[("features.0.weight".to_owned(), tensor)]).unwrap();
    let error = import(&path, &small(1)).unwrap_err().to_string();
    for part in [
        "other into ResNet-18",
        "names in the file: features.0.weight;",
        "names in the network: conv1.weight, ",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn nothing_but_numbers_is_loaded() {
    let network = small(1);
    let before = embed(&small(1));
    let spoiled = |name: &str, value: f64| {
        let mut weights: HashMap<_, _> = small(2).state_dict().unwrap().into_iter().collect();
        let dims = weights[name].dims().to_vec();
        let mut values: Vec<f64> =
            weights[name].to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        values[1] = value;
        weights.insert(name.to_owned(), Tensor::from_vec(values, dims, &Device::Cpu).unwrap());
        network.load_state_dict(&weights).map_err(|error| error.to_string())
    };
    for (name, value, told) in [
        ("conv1.weight", f64::NAN, "conv1.weight holds NaN at [0, 0, 0, 1], one of 216 values"),
        ("layer1.0.bn1.bias", f64::INFINITY, "layer1.0.bn1.bias holds an infinity at [1], one of 8 values"),
        ("bn1.running_mean", f64::NEG_INFINITY, "bn1.running_mean holds a negative infinity at [1]"),
        ("bn1.running_var", -0.5, "bn1.running_var holds -0.5 at [1], where only values of 0 or more"),
        ("linear.weight", 1e39, "linear.weight holds 1e39 at [0, 1], which is outside the range of f32"),
    ] {
        let error = spoiled(name, value).unwrap_err();
        assert!(error.starts_with(told), "{error}");
    }
    assert_eq!(before, embed(&network), "nothing was changed");
    spoiled("linear.weight", 1e38).unwrap();
}

#[test]
fn content_decides_whatever_a_file_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_weights(&path("w"), &small(2).state_dict().unwrap()).unwrap();
    let safetensors = std::fs::read(path("w")).unwrap();
    for (bytes, form) in [
        (safetensors, WeightsFormat::Safetensors),
        (corpus("weights_pickle/torch1.12_entries"), WeightsFormat::Torch),
        (corpus("weights_pickle/torch1.12_entries.pth.tar"), WeightsFormat::Torch),
        (corpus("weights_hdf5/hickle2.h5"), WeightsFormat::Hdf5),
        (corpus("weights_caffemodel/seed_old"), WeightsFormat::Caffe),
    ] {
        let names =
            ["none", "a.t", "b.PTH", "c.pth.tar", "d.ckpt", "e.bin", "f.safetensors", "g.caffemodel", "h.H5"];
        for name in names {
            std::fs::write(path(name), &bytes).unwrap();
            assert_eq!(WeightsFile::open(&path(name)).unwrap().format, form, "{name}");
        }
    }
}

#[test]
fn damaged_missing_and_strange_files_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(matches!(WeightsFile::open(&path("none.safetensors")), Err(WeightError::Open { .. })));
    for name in ["cut.safetensors", "cut.pth", "cut.caffemodel", "cut.h5", "cut.hdf5"] {
        std::fs::write(path(name), b"PK\x03\x04 not a file of weights").unwrap();
        let error = WeightsFile::open(&path(name)).unwrap_err();
        assert!(matches!(error, WeightError::Damaged { .. }) && error.to_string().contains(name), "{error}");
        std::fs::write(path(name), b"not a file of weights").unwrap();
        let error = WeightsFile::open(&path(name)).unwrap_err();
        assert!(matches!(error, WeightError::Damaged { .. }) && error.to_string().contains(name), "{error}");
    }
    let mut tar = vec![b'x'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, told) in [
        (&b""[..], "an empty file"),
        (b"no weights", "10 bytes that begin with 6e 6f 20 77"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x93NUMPY\x01\x00", "numpy"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"\x80\x04\x95\x00\x00", "torch.save did not write"),
        (&tar, "a tar archive"),
    ] {
        std::fs::write(path("strange.t"), bytes).unwrap();
        let error = WeightsFile::open(&path("strange.t")).unwrap_err().to_string();
        assert!(error.contains("strange.t") && error.contains(told), "{error}");
    }
    let error = WeightsFile::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("a folder"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn no_device_is_read() {
    let error = WeightsFile::open(std::path::Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(error.contains("/dev/zero") && error.contains("is a device"), "{error}");
}
