//! The CIFAR ResNet against the authors' PyTorch code: embeddings, gradients, running statistics and ten steps of SGD.
//!
//! Reads the folder that INVASPREAD_GOLDENS names, else tests/goldens of the workspace.

#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device, Tensor, backprop::GradStore};
use invaspread_losses::InvaSpread;
use invaspread_models::{Mode, ResNet, ResNetConfig};
use invaspread_tensor::{Algorithm, Sgd, SgdConfig};
use std::collections::HashMap;
use std::path::PathBuf;

fn goldens() -> PathBuf {
    std::env::var_os("INVASPREAD_GOLDENS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens"), PathBuf::from)
}

struct Golden {
    tensors: HashMap<String, Tensor>,
    seed: u32,
    dtype: DType,
    algorithm: Algorithm,
}

impl Golden {
    fn open(file: &str, dtype: DType) -> Self {
        let tensors = candle_core::safetensors::load(goldens().join(file), &Device::Cpu).unwrap();
        let values: serde_json::Value =
            serde_json::from_slice(&std::fs::read(goldens().join("values.json")).unwrap()).unwrap();
        let seed = values["made_with"]["seed"].as_u64().unwrap() as u32;
        Self { tensors, seed, dtype, algorithm: Algorithm::Direct }
    }

    /// The same values, met with Winograd's algorithm.
    fn by_winograd(self) -> Self {
        Self { algorithm: Algorithm::Fastest, ..self }
    }

    fn get(&self, name: &str) -> Tensor {
        self.tensors[&format!("resnet18_cifar.{name}")].to_dtype(DType::F64).unwrap()
    }

    /// Names of the entries that begin with `prefix`, without it.
    fn names(&self, prefix: &str) -> Vec<String> {
        let prefix = format!("resnet18_cifar.{prefix}.");
        let mut names: Vec<_> =
            self.tensors.keys().filter_map(|n| n.strip_prefix(&prefix)).map(String::from).collect();
        names.sort();
        names
    }

    /// The README's hash of a flat index, in [-0.5, 0.5).
    fn hash(&self, k: u32, i: u32) -> f64 {
        let salt = k.wrapping_mul(40_503).wrapping_add(12_345).wrapping_add(self.seed.wrapping_mul(7919));
        let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(salt);
        x ^= x >> 16;
        x = x.wrapping_mul(0x85eb_ca6b);
        x ^= x >> 13;
        x = x.wrapping_mul(0xc2b2_ae35);
        x ^= x >> 16;
        f64::from(x) / 4_294_967_296.0 - 0.5
    }

    /// Input `n` of `images` 32x32 pictures, turned to (N, H, W, C).
    fn input(&self, n: u32, images: usize) -> Tensor {
        let values: Vec<f64> =
            (0..images * 3072).map(|i| self.hash(1000 + n, i as u32) * 12f64.sqrt()).collect();
        Tensor::from_vec(values, (images, 3, 32, 32), &Device::Cpu).unwrap().to_dtype(self.dtype).unwrap()
    }

    fn network(&self) -> ResNet {
        let config = ResNetConfig { algorithm: self.algorithm, dtype: self.dtype, ..ResNetConfig::default() };
        let network = ResNet::new(config, 0).unwrap();
        let mut k = 0;
        let mut weights = HashMap::new();
        for (name, like) in network.state_dict().unwrap() {
            if name.ends_with("num_batches_tracked") {
                continue;
            }
            let fan_in = like.elem_count() / like.dim(0).unwrap();
            let value = |u: f64| match like.rank() {
                4 => u * 12f64.sqrt() * (2.0 / fan_in as f64).sqrt(),
                2 => u * 12f64.sqrt() * (1.0 / fan_in as f64).sqrt(),
                _ if name.ends_with("running_var") => 1.0 + 0.2 * u,
                _ if name.ends_with("running_mean") || name.ends_with("bias") => 0.1 * u,
                _ => 1.0 + 0.1 * u,
            };
            let values: Vec<f64> = (0..like.elem_count()).map(|i| value(self.hash(k, i as u32))).collect();
            let tensor = Tensor::from_vec(values, like.shape(), &Device::Cpu).unwrap();
            weights.insert(name, tensor.to_dtype(self.dtype).unwrap());
            k += 1;
        }
        network.load_state_dict(&weights).unwrap();
        network
    }
}

fn channels_last(x: &Tensor) -> Tensor {
    x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    let a = a.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    let difference = (a - b.flatten_all().unwrap()).unwrap().abs().unwrap();
    difference.max(0).unwrap().to_scalar().unwrap()
}

fn norm(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

fn loss() -> InvaSpread {
    InvaSpread { temperature: 0.1, ..InvaSpread::default() }
}

fn gradients(golden: &Golden, network: &ResNet) -> (Tensor, f64, GradStore) {
    let mut output = network.forward(&channels_last(&golden.input(0, 8)), Mode::Train).unwrap();
    let loss = loss().loss(&output.embedding).unwrap();
    let value = loss.to_dtype(DType::F64).unwrap().to_scalar().unwrap();
    let gradients = output.backward(&loss).unwrap();
    (output.embedding, value, gradients)
}

/// Embeddings in both modes, loss, gradients and running statistics, to the tolerances given.
fn check_one_step(golden: &Golden, eval: f64, train: f64, relative: f64) {
    let network = golden.network();
    let embedding = network.forward(&channels_last(&golden.input(0, 8)), Mode::Evaluate).unwrap().embedding;
    let error = largest_difference(&embedding, &golden.get("eval"));
    assert!(error <= eval, "evaluation embedding off by {error:e}");

    let (embedding, loss, gradients) = gradients(golden, &network);
    let error = largest_difference(&embedding, &golden.get("train"));
    assert!(error <= train, "training embedding off by {error:e}");
    let want = golden.get("loss").to_vec1::<f64>().unwrap()[0];
    assert!((loss - want).abs() <= relative * want.abs(), "loss {loss}, expected {want}");

    let parameters: HashMap<_, _> = network.parameters().into_iter().collect();
    let norms = golden.names("grad_norm");
    assert_eq!(norms.len(), parameters.len(), "a gradient norm for each parameter");
    for name in norms {
        let want = golden.get(&format!("grad_norm.{name}")).to_vec1::<f64>().unwrap()[0];
        let got = norm(gradients.get(&parameters[&name]).unwrap());
        assert!(
            (got - want).abs() <= relative * want,
            "norm of the gradient of {name}: {got}, expected {want}"
        );
    }
    for name in golden.names("grad") {
        let want = golden.get(&format!("grad.{name}"));
        let got = gradients.get(&parameters[&name]).unwrap();
        let got = if got.rank() == 4 {
            got.permute((3, 2, 0, 1)).unwrap().contiguous().unwrap()
        } else {
            got.clone()
        };
        let error = norm(&(got.to_dtype(DType::F64).unwrap() - &want).unwrap()) / norm(&want);
        assert!(error <= relative, "gradient of {name} off by {error:e} in norm");
    }
    let state: HashMap<_, _> = network.state_dict().unwrap().into_iter().collect();
    for name in golden.names("buffer") {
        let error = largest_difference(&state[&name], &golden.get(&format!("buffer.{name}")));
        assert!(error <= train, "{name} off by {error:e}");
    }
}

/// Losses of ten SGD steps, relative, and the embedding afterwards, absolute.
fn check_ten_steps(golden: &Golden, relative: f64, eval: f64) {
    let network = golden.network();
    let config = SgdConfig { momentum: 0.9, weight_decay: 5e-4 };
    let mut sgd = Sgd::new(network.parameters(), config).unwrap();
    for (step, want) in golden.get("sgd_losses").to_vec1::<f64>().unwrap().into_iter().enumerate() {
        let x = golden.input(100 + step as u32, 32);
        let (first, second) = (x.narrow(0, 0, 16).unwrap(), x.narrow(0, 16, 16).unwrap());
        let second = (&first + (second * 0.3).unwrap()).unwrap();
        let x = channels_last(&Tensor::cat(&[first, second], 0).unwrap());
        let mut output = network.forward(&x, Mode::Train).unwrap();
        let loss = loss().loss(&output.embedding).unwrap();
        sgd.step(&output.backward(&loss).unwrap(), 0.003).unwrap();
        let got = loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        assert!((got - want).abs() <= relative * want.abs(), "step {step}: loss {got}, expected {want}");
    }
    let embedding = network.forward(&channels_last(&golden.input(0, 8)), Mode::Evaluate).unwrap().embedding;
    let error = largest_difference(&embedding, &golden.get("sgd_eval"));
    assert!(error <= eval, "embedding after ten steps off by {error:e}");
}

#[test]
fn golden_resnet18_cifar_in_f64() {
    let golden = Golden::open("models_f64.safetensors", DType::F64);
    check_one_step(&golden, 1e-9, 1e-9, 1e-6);
}

#[test]
fn golden_resnet18_cifar_sgd_in_f64() {
    check_ten_steps(&Golden::open("models_f64.safetensors", DType::F64), 1e-6, 1e-6);
}

#[test]
fn golden_resnet18_cifar_in_f32() {
    check_one_step(&Golden::open("models.safetensors", DType::F32), 2e-5, 2e-4, 1e-2);
}

#[test]
fn golden_resnet18_cifar_sgd_in_f32() {
    check_ten_steps(&Golden::open("models.safetensors", DType::F32), 2e-3, 2e-3);
}

/// Winograd rounds more: ten times the tolerances of the direct path, and 2% in norm for gradients, which flipped ReLUs dominate.
#[test]
fn golden_resnet18_cifar_by_winograd() {
    check_one_step(&Golden::open("models.safetensors", DType::F32).by_winograd(), 2e-4, 2e-3, 2e-2);
}

#[test]
fn golden_resnet18_cifar_sgd_by_winograd() {
    check_ten_steps(&Golden::open("models.safetensors", DType::F32).by_winograd(), 2e-2, 2e-2);
}
