//! Compares vision transformers with timm: features, embeddings and gradients of small networks with weights
//! that timm made, also for images of other sizes; and features of the two networks of full size. The names
//! of the weights are timm's.
//!
//! The values are read from the folder that INVASPREAD_GOLDENS names if it has them, else from tests/goldens
//! of the workspace.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests; equal numbers are expected")]

mod hash;

use candle_core::{DType, Device, Tensor};
use hash::hash;
use invaspread_models::{
    HeadNeeded, Mode, Module, Momentum, Network, VitConfig, WeightError, WeightsFile, load, write_weights,
};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn open() -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
        let folder = std::env::var_os("INVASPREAD_GOLDENS").map_or_else(|| own.clone(), PathBuf::from);
        let named = folder.join("vit.safetensors");
        let file = if named.exists() { named } else { own.join("vit.safetensors") };
        Self(candle_core::safetensors::load(file, &Device::Cpu).unwrap())
    }

    /// Returns the entries whose names begin with `prefix`, without it.
    fn within(&self, prefix: &str) -> HashMap<String, Tensor> {
        let found = self.0.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)));
        found.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
    }

    fn small(&self, case: usize, dtype: DType) -> Option<(Network, HashMap<String, Tensor>)> {
        let sizes = self.0.get(&format!("small.{case}.sizes"))?.to_vec1::<i64>().unwrap();
        let [image, patch, channels, width, depth, heads, embedding] = sizes[..] else { panic!("{sizes:?}") };
        let [image, patch, channels, width, depth, heads, embedding] =
            [image, patch, channels, width, depth, heads, embedding].map(|size| size as usize);
        let config = VitConfig { width, depth, heads, image, patch, channels, embedding, dtype };
        let network = Network::new(config, 0).unwrap();
        let weights = self.within(&format!("small.{case}.weights."));
        let report = network.load_state_dict(&weights).unwrap();
        assert!(report.missing.is_empty() && report.left_over.is_empty(), "{report:?}");
        Some((network, weights))
    }
}

fn channels_last(x: &Tensor) -> Tensor {
    x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = [a, b].map(|x| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap());
    (a - b).unwrap().abs().unwrap().max(0).unwrap().to_scalar().unwrap()
}

fn norm(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

#[test]
fn golden_networks_of_timm() {
    let golden = Golden::open();
    // timm resizes positions in f32 even if the network is f64.
    for (dtype, tolerance) in [(DType::F64, 2e-6), (DType::F32, 1e-5)] {
        let mut case = 0;
        while let Some((network, _)) = golden.small(case, dtype) {
            let mut view = 0;
            while let Some(images) = golden.0.get(&format!("small.{case}.view.{view}.images")) {
                let what = format!("case {case}, view {view}, {dtype:?}");
                let values = golden.within(&format!("small.{case}.view.{view}."));
                let images = channels_last(&images.to_dtype(dtype).unwrap());
                let evaluated = network.forward(&images, Mode::Evaluate).unwrap();
                let mut output = network.forward(&images, Mode::Train).unwrap();
                for found in [&evaluated, &output] {
                    let pooled = largest_difference(&found.pooled, &values["pooled"]);
                    let embedding = largest_difference(&found.embedding, &values["embedding"]);
                    assert!(pooled < tolerance && embedding < tolerance, "{what}: {pooled:e} {embedding:e}");
                }
                let weights = values["gradient"].to_dtype(dtype).unwrap();
                let loss = (&output.embedding * weights).unwrap().sum_all().unwrap();
                let gradients = output.backward(&loss).unwrap();
                for (name, parameter) in network.parameters() {
                    let want = &values[&format!("grad.{name}")];
                    let got = gradients.get(&parameter).unwrap();
                    let got = if got.rank() == 4 { got.permute((3, 2, 0, 1)).unwrap() } else { got.clone() };
                    assert_eq!(got.dims(), want.dims(), "{name}");
                    let error = largest_difference(&got, want) / norm(want).max(1e-3);
                    assert!(error < tolerance, "{what}, {name}: {error:e}");
                }
                view += 1;
            }
            assert!(view > 1, "{case}");
            case += 1;
        }
        assert!(case >= 3);
    }
}

fn check_full(name: &str, config: VitConfig, [count, number]: [usize; 2]) {
    let golden = Golden::open();
    let seed = golden.0["seed"].to_scalar::<i64>().unwrap() as u32;
    let side = config.image;
    let network = Network::new(config, 0).unwrap();
    let mut weights = HashMap::new();
    for (k, (name, like)) in network.state_dict().unwrap().into_iter().enumerate() {
        let fan_in = like.elem_count() / like.dim(0).unwrap();
        let value = |u: f64| match like.rank() {
            4 => u * 12f64.sqrt() * (2.0 / fan_in as f64).sqrt(),
            3 => 0.1 * u,
            2 => u * 12f64.sqrt() * (1.0 / fan_in as f64).sqrt(),
            _ if name.ends_with("bias") => 0.1 * u,
            _ => 1.0 + 0.1 * u,
        };
        let values: Vec<f32> =
            (0..like.elem_count()).map(|i| value(hash(seed, k as u32, i as u32)) as f32).collect();
        weights.insert(name, Tensor::from_vec(values, like.shape(), &Device::Cpu).unwrap());
    }
    network.load_state_dict(&weights).unwrap();
    let pixel = |i: usize| (hash(seed, 1000 + number as u32, i as u32) * 12f64.sqrt()) as f32;
    let images: Vec<f32> = (0..count * 3 * side * side).map(pixel).collect();
    let images = Tensor::from_vec(images, (count, 3, side, side), &Device::Cpu).unwrap();
    let output = network.forward(&channels_last(&images), Mode::Evaluate).unwrap();
    let pooled = &golden.0[&format!("{name}.pooled")];
    let error = norm(&(output.pooled.to_dtype(DType::F64).unwrap() - pooled).unwrap()) / norm(pooled);
    let embedding = largest_difference(&output.embedding, &golden.0[&format!("{name}.embedding")]);
    assert!(error < 1e-5 && embedding < 1e-5, "{name}: {error:e} {embedding:e}");
}

#[test]
fn golden_vit_tiny_for_small_images() {
    check_full("vit_tiny_patch16_224", VitConfig::tiny(), [2, 4]);
}

#[test]
fn golden_vit_small_for_large_images() {
    check_full("vit_small_patch16_224", VitConfig { image: 224, patch: 16, ..VitConfig::small() }, [1, 5]);
}

fn tiny() -> VitConfig {
    VitConfig { width: 12, depth: 2, heads: 2, image: 8, embedding: 6, ..VitConfig::tiny() }
}

#[test]
fn what_is_written_is_read_back_and_is_strict() {
    let golden = Golden::open();
    let (network, weights) = golden.small(0, DType::F32).unwrap();
    // The names are timm's, no more and no fewer.
    let state = network.state_dict().unwrap();
    let names: HashSet<&String> = state.iter().map(|(name, _)| name).collect();
    assert_eq!(names, weights.keys().collect());
    for (name, tensor) in &state {
        assert_eq!(largest_difference(tensor, &weights[name]), 0.0, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vit.safetensors");
    let write = |entries: &[(String, Tensor)]| write_weights(&path, entries).unwrap();
    let other = || Network::new(network.config(), 3).unwrap();
    let read = |head| load(&WeightsFile::open(&path).unwrap(), &other(), head);
    write(&state);
    assert!(read(HeadNeeded::Yes).unwrap().left_over.is_empty());
    // A missing entry, an entry of another shape, and one that the network does not have.
    write(&state.iter().filter(|(name, _)| name != "pos_embed").cloned().collect::<Vec<_>>());
    assert!(read(HeadNeeded::No).unwrap_err().to_string().contains("vit.safetensors"));
    let told = |error: WeightError| match error {
        WeightError::Load { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    assert!(told(read(HeadNeeded::No).unwrap_err()).contains("pos_embed"));
    let mut changed = state.clone();
    changed[1].1 = Tensor::zeros((1, 50, 24), DType::F32, &Device::Cpu).unwrap();
    write(&changed);
    let error = told(read(HeadNeeded::No).unwrap_err());
    assert!(error.contains("pos_embed: found [1, 50, 24], expected [1, 65, 24]"), "{error}");
    let mut more = state.clone();
    more.push(("blocks.2.norm1.weight".to_owned(), Tensor::zeros(24, DType::F32, &Device::Cpu).unwrap()));
    write(&more);
    assert_eq!(read(HeadNeeded::Yes).unwrap().left_over, ["blocks.2.norm1.weight"]);
    // timm's classifier of another size is left over, and so is the embedding layer of such a network.
    let head = |entry: &&(String, Tensor)| !entry.0.starts_with("head.");
    write(&state.iter().filter(head).cloned().collect::<Vec<_>>());
    assert_eq!(read(HeadNeeded::No).unwrap().missing, ["head.weight", "head.bias"]);
    assert!(read(HeadNeeded::Yes).is_err());
}

#[test]
fn initial_weights_are_timms() {
    let network = Network::new(VitConfig::tiny(), 7).unwrap();
    let of = |name: &str| {
        let values = network.parameters().into_iter().find(|(own, _)| own == name).unwrap().1;
        let values = values.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt())
    };
    for name in ["pos_embed", "blocks.0.attn.qkv.weight", "blocks.11.mlp.fc2.weight", "head.weight"] {
        let (mean, deviation) = of(name);
        assert!(mean.abs() < 1e-3 && (deviation - 0.02).abs() < 1e-3, "{name}: {mean} {deviation}");
    }
    let (_, deviation) = of("cls_token");
    assert!((5e-7..2e-6).contains(&deviation), "{deviation:e}");
    for (name, value) in [
        ("blocks.0.attn.qkv.bias", 0.0),
        ("head.bias", 0.0),
        ("norm.bias", 0.0),
        ("norm.weight", 1.0),
        ("blocks.3.norm2.weight", 1.0),
    ] {
        assert_eq!(of(name), (value, 0.0), "{name}");
    }
    // Uniform in ±1/√48, as PyTorch's convolution.
    let (mean, deviation) = of("patch_embed.proj.weight");
    assert!(mean.abs() < 5e-3 && (deviation - (1f32 / 48.0 / 3.0).sqrt()).abs() < 3e-3, "{mean} {deviation}");
    // A seed gives the same network again.
    let again = Network::new(VitConfig::tiny(), 7).unwrap();
    let other = Network::new(VitConfig::tiny(), 8).unwrap();
    let position = |network: &Network| network.parameters()[1].1.as_detached_tensor();
    assert_eq!(largest_difference(&position(&again), &position(&network)), 0.0);
    assert!(largest_difference(&position(&other), &position(&network)) > 0.01);
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let told = |config: VitConfig| Network::new(config, 0).err().unwrap().to_string();
    let error = told(VitConfig { image: 30, ..tiny() });
    assert!(
        error.contains("model.patch: found 4") && error.contains("30 x 30") && error.contains("augment.size"),
        "{error}"
    );
    assert!(told(VitConfig { heads: 5, ..tiny() }).contains("divide the width"));
    assert!(told(VitConfig { depth: 0, ..tiny() }).contains("at least 1"));
    let network = Network::new(tiny(), 0).unwrap();
    let run = |shape: (usize, usize, usize, usize)| {
        let images = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        network.forward(&images, Mode::Evaluate).err().map(|error| error.to_string())
    };
    assert!(run((1, 10, 8, 3)).unwrap().contains("8 x 10 pixels"));
    assert!(run((1, 8, 8, 1)).unwrap().contains("have 1 channels"));
    assert_eq!(run((2, 4, 12, 3)), None);
}

/// A momentum encoder is a copy of the network, and two threads give the bits of one.
#[test]
fn copies_follow_and_threads_change_no_bit() {
    let network = Network::new(tiny(), 1).unwrap();
    let copy = Momentum::of(&network).unwrap();
    copy.follow(&Network::new(tiny(), 2).unwrap(), 0.0).unwrap();
    let [moved, like] = [copy.module(), &Network::new(tiny(), 2).unwrap()].map(Module::parameters);
    for ((name, moved), (_, like)) in moved.iter().zip(&like) {
        assert_eq!(largest_difference(moved, like), 0.0, "{name}");
    }
    let images: Vec<f32> = (0..5 * 8 * 8 * 3).map(|i| (i as f32 * 0.37).sin()).collect();
    let images = Tensor::from_vec(images, (5, 8, 8, 3), &Device::Cpu).unwrap();
    let gradients = |threads: usize| -> Vec<Vec<u32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut output = network.forward(&images, Mode::Train).unwrap();
            let loss = output.embedding.narrow(1, 0, 3).unwrap().sum_all().unwrap();
            let gradients = output.backward(&loss).unwrap();
            let bits = |tensor: &Tensor| {
                tensor
                    .flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap()
                    .into_iter()
                    .map(f32::to_bits)
                    .collect()
            };
            network
                .parameters()
                .iter()
                .map(|(_, parameter)| bits(gradients.get(parameter).unwrap()))
                .collect()
        })
    };
    assert_eq!(gradients(1), gradients(3));
}
