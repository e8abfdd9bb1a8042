//! Tests of `weights export --onnx`, from outside: what the command says and refuses, and that other programs compute from
//! the model what our network computes.
//!
//! `INVASPREAD_PYTHON` names a Python with onnxruntime and numpy, which then runs a model of every network
//! (`tests/in_onnxruntime.py`); without it that test is skipped and says so. `INVASPREAD_ONNX_CASES` names a folder that keeps the models
//! with images and expected outputs, for `tests/tract`, which runs them in tract.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use candle_core::{DType, Device, Tensor};
use invaspread_models::{
    InceptionConfig, Mode, Network, NetworkConfig, OnnxNotes, OnnxOutput, ResNetConfig, VitConfig,
    write_weights,
};
use serde_json::json;

const SMALL: [&str; 2] = ["model.width=8", "model.embedding=16"];

fn invaspread(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("invaspread").unwrap();
    command.env_remove("INVASPREAD_DATA").env_remove("INVASPREAD_LOG").env("RUST_BACKTRACE", "0");
    let output = command.current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = invaspread(folder, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    out
}

fn refused(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let (found, _, err) = invaspread(folder, arguments);
    assert_eq!(found, Some(code), "{arguments:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{arguments:?}: expected {word:?} in: {err}");
    }
}

/// Returns pseudo-random numbers in -1..1 (a Weyl sequence), which differ from `seed` to `seed`.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (1..=count)
        .map(|i| ((i + 7919 * seed) as f64 * 0.618_033_988_749_895).fract() as f32 * 2.0 - 1.0)
        .collect()
}

/// Returns a network whose batch norms and layer norms are far from their initial values, so that each of their numbers
/// matters, with its state. The running variances, and the weights of Inception-v1, which has no norms, are such that no layer
/// loses the signal.
fn network(config: impl Into<NetworkConfig>) -> (Network, Vec<(String, Tensor)>) {
    let network = Network::new(config, 5).unwrap();
    let mut state = network.state_dict().unwrap();
    for (number, (name, tensor)) in state.iter_mut().enumerate() {
        if name.starts_with("base_model.") && tensor.rank() == 4 {
            *tensor = (tensor.clone() * 2.4).unwrap();
        }
        let of_norm =
            ["bn", "norm", "running", "downsample.1", "shortcut.1"].iter().any(|part| name.contains(part));
        if !of_norm || tensor.rank() != 1 || tensor.dtype() != DType::F32 {
            continue;
        }
        let (around, share) = match name.rsplit('.').next() {
            Some("running_var") => (0.2, 0.06),
            Some("weight") => (1.0, 0.3),
            _ => (0.0, 0.3),
        };
        let values: Vec<f32> =
            numbers(tensor.elem_count(), number).into_iter().map(|x| around + share * x).collect();
        *tensor = Tensor::from_vec(values, tensor.dims(), &Device::Cpu).unwrap();
    }
    let weights: HashMap<String, Tensor> = state.iter().cloned().collect();
    network.load_state_dict(&weights).unwrap();
    (network, state)
}

#[test]
fn a_model_says_where_it_is_from_and_how_images_are_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let config = ResNetConfig { width: 8, embedding: 16, ..Default::default() };
    let (ours, state) = network(config);
    write_weights(&folder.path().join("w"), &state).unwrap();
    // A setting may stand where the other form has the file to write.
    let said = done(folder.path(), &[&["weights", "export", "w", "--onnx", "m.onnx"], &SMALL[..]].concat());
    for part in [
        "config: the defaults, with model.width=8 model.embedding=16",
        "m.onnx: 122 entries loaded into ResNet-18 with the CIFAR stem and width 8",
        "preprocessing: resize the shorter side to 32 pixels",
        "mean [0.4914, 0.4822, 0.4465]",
        "output: `embedding`: (N, 16), f32, rows of length 1",
    ] {
        assert!(said.contains(part), "expected {part:?} in {said}");
    }
    // The model is that of the library, up to what it says about itself.
    let model = fs::read(folder.path().join("m.onnx")).unwrap();
    let plain = ours.to_onnx(32, OnnxOutput::Embedding, OnnxNotes::default()).unwrap();
    let graph = &plain[plain.len() - 40_000..plain.len() - 1_000];
    assert!(model.windows(graph.len()).any(|part| part == graph), "the weights are in the file");
    for text in
        ["\"RGB\"", "[0.4914, 0.4822, 0.4465]", "channel_order", "shorter_side", "made of an image so: "]
    {
        assert!(model.windows(text.len()).any(|part| part == text.as_bytes()), "{text} in the file");
    }
    // Again: the same bytes, in place of the older file.
    done(folder.path(), &[&["weights", "export", "w", "--onnx", "m.onnx"], &SMALL[..]].concat());
    assert!(fs::read(folder.path().join("m.onnx")).unwrap() == model);
}

#[test]
fn pooled_features_need_no_embedding_layer() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut state) = network(ResNetConfig { width: 8, embedding: 16, ..Default::default() });
    state.retain(|(name, _)| !name.starts_with("linear."));
    write_weights(&folder.path().join("backbone"), &state).unwrap();
    let export = [&["weights", "export", "backbone", "--onnx", "m.onnx"], &SMALL[..]].concat();
    refused(folder.path(), &export, 1, &["missing: linear.weight, linear.bias", "eval.layer=pooled"]);
    assert!(!folder.path().join("m.onnx").exists());
    let said = done(folder.path(), &[&export[..], &["eval.layer=pooled"]].concat());
    for part in
        ["`pooled`: (N, 64), f32, rows not scaled", "not needed for the pooled features: linear.weight"]
    {
        assert!(said.contains(part), "expected {part:?} in {said}");
    }
}

#[test]
fn no_file_is_replaced_that_the_command_did_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let (_, state) = network(ResNetConfig { width: 8, embedding: 16, ..Default::default() });
    write_weights(&folder.path().join("w"), &state).unwrap();
    write_weights(&folder.path().join("w.onnx"), &state).unwrap();
    // The beginning of a model of torch.onnx.
    fs::write(folder.path().join("torch.onnx"), b"\x08\x08\x12\x07pytorch\x1a\x052.0.0").unwrap();
    fs::write(folder.path().join("empty.onnx"), b"").unwrap();
    let export = |out: &'static str| [&["weights", "export", "w", "--onnx", out], &SMALL[..]].concat();
    refused(folder.path(), &export("m.safetensors"), 2, &["expected .onnx"]);
    refused(folder.path(), &export("torch.onnx"), 2, &["did not write"]);
    refused(folder.path(), &export("empty.onnx"), 2, &["did not write"]);
    let same = [&["weights", "export", "w.onnx", "--onnx", "w.onnx"], &SMALL[..]].concat();
    refused(folder.path(), &same, 2, &["it is the file that is read"]);
    refused(folder.path(), &[&export("m.onnx")[..], &["--half"]].concat(), 2, &["--half", "--onnx"]);
    refused(folder.path(), &["weights", "export", "w"], 2, &["<OUT>"]);
    refused(folder.path(), &[&export("no/folder/m.onnx")[..]].concat(), 1, &["no/folder/m.onnx"]);
    // Images for which the network has no output.
    refused(folder.path(), &[&export("m.onnx")[..], &["augment.size=64"]].concat(), 1, &["model.pool"]);
    assert!(!folder.path().join("m.onnx").exists());
}

/// Every network of the program: its name, its config, the settings that ask for it, and the side of its images.
fn networks() -> Vec<(&'static str, NetworkConfig, Vec<&'static str>, usize)> {
    let imagenet = |depth| ResNetConfig { depth, ..ResNetConfig::imagenet() };
    let cifar = |depth| ResNetConfig { depth, ..ResNetConfig::default() };
    let of_imagenet = |model| vec![model, "augment=imagenet"];
    let patches_of_16 = VitConfig { image: 224, patch: 16, ..VitConfig::tiny() };
    vec![
        ("resnet18", cifar(18).into(), vec!["model=resnet18"], 32),
        ("resnet34", cifar(34).into(), vec!["model=resnet34"], 32),
        ("resnet50", cifar(50).into(), vec!["model=resnet50"], 32),
        ("resnet18_gray", ResNetConfig { channels: 1, ..cifar(18) }.into(), gray(), 32),
        ("resnet18_imagenet", imagenet(18).into(), of_imagenet("model=resnet18_imagenet"), 224),
        ("resnet50_imagenet", imagenet(50).into(), of_imagenet("model=resnet50_imagenet"), 224),
        (
            "inception_v1",
            InceptionConfig::default().into(),
            vec!["model=inception_v1", "augment=inception"],
            227,
        ),
        ("vit_tiny", VitConfig::tiny().into(), vec!["model=vit_tiny"], 32),
        ("vit_small", VitConfig::small().into(), vec!["model=vit_small"], 32),
        (
            "vit_tiny_patch16_224",
            patches_of_16.into(),
            vec!["model=vit_tiny", "model.patch=16", "augment=imagenet"],
            224,
        ),
    ]
}

fn gray() -> Vec<&'static str> {
    vec!["model.input_channels=1", "augment.normalize.mean=[0.48]", "augment.normalize.std=[0.24]"]
}

/// Exports `config` through the program into `folder`, with images and the output that our network gives for them.
fn write_case(folder: &Path, config: &NetworkConfig, settings: &[&str], side: usize, layer: &str) {
    fs::create_dir_all(folder).unwrap();
    let (network, state) = network(config.clone());
    write_weights(&folder.join("weights"), &state).unwrap();
    let layer_set = format!("eval.layer={layer}");
    let export = ["weights", "export", "weights", "--onnx", "model.onnx", &layer_set];
    done(folder, &[&export, settings].concat());
    fs::remove_file(folder.join("weights")).unwrap();

    let shape = [3, config.channels(), side, side];
    // Images of different brightness and contrast, strong enough not to drown in the biases of the layers.
    let mut values = numbers(shape.iter().product(), 1);
    for (number, image) in values.chunks_exact_mut(config.channels() * side * side).enumerate() {
        for (place, value) in image.iter_mut().enumerate() {
            let wave = (place as f32 * 0.01 * (number + 1) as f32).sin();
            *value = 20.0 * *value * (number + 1) as f32 + 30.0 * wave + 10.0 * number as f32;
        }
    }
    let images = Tensor::from_slice(&values, &shape, &Device::Cpu).unwrap();
    let rows = images.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    let output = network.forward(&rows, Mode::Evaluate).unwrap();
    let expected = match layer {
        "pooled" => output.pooled,
        "projection" => output.projection,
        _ => output.embedding,
    };
    // If the rows were nearly equal, a wrong model could pass.
    let rows = expected.to_vec2::<f32>().unwrap();
    let apart = rows[0].iter().zip(&rows[1]).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(apart > 1e-3, "{}: rows are {apart} apart", folder.display());
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    fs::write(folder.join("images.f32"), bytes(&values)).unwrap();
    fs::write(folder.join("expected.f32"), bytes(&rows.concat())).unwrap();
    let case = json!({ "images": shape, "expected": expected.dims(), "output": layer });
    fs::write(folder.join("case.json"), case.to_string()).unwrap();
}

#[test]
fn onnxruntime_gives_our_embedding() {
    let (python, kept) = (std::env::var_os("INVASPREAD_PYTHON"), std::env::var_os("INVASPREAD_ONNX_CASES"));
    if python.is_none() && kept.is_none() {
        eprintln!(
            "skipped: INVASPREAD_PYTHON names no Python with onnxruntime, INVASPREAD_ONNX_CASES no folder"
        );
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = kept.map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    for (name, config, settings, side) in networks() {
        write_case(&folder.join(name), &config, &settings, side, "embedding");
    }
    let small = ResNetConfig { width: 8, embedding: 16, ..Default::default() };
    for layer in ["projection", "pooled"] {
        write_case(&folder.join(format!("resnet18_{layer}")), &small.clone().into(), &SMALL, 32, layer);
    }
    let Some(python) = python else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/in_onnxruntime.py");
    let output = std::process::Command::new(python).arg(script).arg(&folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    eprintln!("{}", text(&output.stdout));
    assert!(output.status.success(), "{}", text(&output.stderr));
}
