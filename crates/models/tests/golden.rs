//! Compares the networks with the authors' PyTorch code: embeddings, gradients and running statistics, and
//! ten steps of SGD of the CIFAR ResNet.
//!
//! The values are read from the folder that INVASPREAD_GOLDENS names, or from tests/goldens of the workspace.

#![allow(clippy::unwrap_used, reason = "tests")]

mod hash;

use candle_core::{DType, Device, Tensor, backprop::GradStore};
use hash::hash;
use invaspread_losses::InvaSpread;
use invaspread_models::{InceptionConfig, Mode, Network, NetworkConfig, ResNetConfig};
use invaspread_tensor::{Algorithm, LocalResponseWindow, Sgd, SgdConfig};
use std::collections::HashMap;
use std::path::PathBuf;

fn goldens() -> PathBuf {
    std::env::var_os("INVASPREAD_GOLDENS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens"), PathBuf::from)
}

/// A network of the goldens, and its input.
struct Case {
    name: &'static str,
    network: fn(DType, Algorithm) -> NetworkConfig,
    /// Number of the input. The next fields are the number of its images and their side.
    input: u32,
    images: usize,
    side: usize,
    scale: f64,
}

const CIFAR: Case = Case {
    name: "resnet18_cifar",
    network: |dtype, algorithm| ResNetConfig { algorithm, dtype, ..Default::default() }.into(),
    input: 0,
    images: 8,
    side: 32,
    scale: 1.0,
};

const STL: Case = Case {
    name: "resnet18_stl",
    network: |dtype, algorithm| ResNetConfig { pool: 7, algorithm, dtype, ..Default::default() }.into(),
    input: 1,
    images: 4,
    side: 96,
    ..CIFAR
};

const IMAGENET: Case = Case {
    name: "resnet18_imagenet",
    network: |dtype, algorithm| ResNetConfig { algorithm, dtype, ..ResNetConfig::imagenet() }.into(),
    input: 2,
    images: 4,
    side: 224,
    ..CIFAR
};

const INCEPTION: Case = Case {
    name: "inception_v1",
    // The values were computed with a current PyTorch.
    network: |dtype, algorithm| {
        let window = LocalResponseWindow::CrossMapLrn2d;
        InceptionConfig { window, algorithm, dtype, ..Default::default() }.into()
    },
    input: 3,
    images: 4,
    side: 227,
    scale: 40.0,
};

struct Golden {
    case: Case,
    tensors: HashMap<String, Tensor>,
    seed: u32,
    dtype: DType,
    algorithm: Algorithm,
}

impl Golden {
    fn open(case: Case, file: &str, dtype: DType) -> Self {
        let tensors = candle_core::safetensors::load(goldens().join(file), &Device::Cpu).unwrap();
        let values: serde_json::Value =
            serde_json::from_slice(&std::fs::read(goldens().join("values.json")).unwrap()).unwrap();
        let seed = values["made_with"]["seed"].as_u64().unwrap() as u32;
        Self { case, tensors, seed, dtype, algorithm: Algorithm::Direct }
    }

    /// Returns the same golden, to be compared with Winograd's algorithm.
    fn by_winograd(self) -> Self {
        Self { algorithm: Algorithm::Fastest, ..self }
    }

    fn find(&self, name: &str) -> Option<Tensor> {
        let tensor = self.tensors.get(&format!("{}.{name}", self.case.name))?;
        Some(tensor.to_dtype(DType::F64).unwrap())
    }

    fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("the goldens have no {}.{name}", self.case.name))
    }

    /// Returns the names of the entries that begin with `prefix`, without it.
    fn names(&self, prefix: &str) -> Vec<String> {
        let prefix = format!("{}.{prefix}.", self.case.name);
        let mut names: Vec<_> =
            self.tensors.keys().filter_map(|n| n.strip_prefix(&prefix)).map(String::from).collect();
        names.sort();
        names
    }

    /// Returns input `n`, which has `images` square pictures, (N, C, H, W).
    fn input(&self, n: u32, images: usize) -> Tensor {
        let side = self.case.side;
        // The goldens were made in f32, also their input, so the scale is applied to values that are rounded
        // to f32.
        let values: Vec<f64> = (0..images * 3 * side * side)
            .map(|i| hash(self.seed, 1000 + n, i as u32) * 12f64.sqrt())
            .collect();
        let x = Tensor::from_vec(values, (images, 3, side, side), &Device::Cpu).unwrap();
        (x.to_dtype(self.dtype).unwrap() * self.case.scale).unwrap()
    }

    /// Returns the input of the embeddings, (N, H, W, C).
    fn images(&self) -> Tensor {
        channels_last(&self.input(self.case.input, self.case.images))
    }

    fn network(&self) -> Network {
        let network = Network::new((self.case.network)(self.dtype, self.algorithm), 0).unwrap();
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
            let values: Vec<f64> =
                (0..like.elem_count()).map(|i| value(hash(self.seed, k, i as u32))).collect();
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

/// Returns the rows divided by their length.
fn unit(x: &Tensor) -> Tensor {
    let x = x.to_dtype(DType::F64).unwrap();
    x.broadcast_div(&x.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap()).unwrap()
}

fn loss() -> InvaSpread {
    InvaSpread { temperature: 0.1, ..InvaSpread::default() }
}

fn gradients(golden: &Golden, network: &Network) -> (Tensor, f64, GradStore) {
    let mut output = network.forward(&golden.images(), Mode::Train).unwrap();
    let loss = loss().loss(&output.embedding).unwrap();
    let value = loss.to_dtype(DType::F64).unwrap().to_scalar().unwrap();
    let gradients = output.backward(&loss).unwrap();
    (output.embedding, value, gradients)
}

/// Checks embeddings in both modes, loss, gradients and running statistics, with the given tolerances.
fn check_one_step(golden: &Golden, eval: f64, train: f64, relative: f64) {
    let network = golden.network();
    let output = network.forward(&golden.images(), Mode::Evaluate).unwrap();
    let error = largest_difference(&output.embedding, &golden.get("eval"));
    assert!(error <= eval, "evaluation embedding off by {error:e}");
    if let Some(pooled) = golden.find("eval_pool") {
        let error = largest_difference(&unit(&output.pooled), &pooled);
        assert!(error <= eval, "pooled features off by {error:e}");
    }

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

/// Checks the losses of ten SGD steps with a relative tolerance, and the embedding afterwards with an
/// absolute one.
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
    let embedding = network.forward(&golden.images(), Mode::Evaluate).unwrap().embedding;
    let error = largest_difference(&embedding, &golden.get("sgd_eval"));
    assert!(error <= eval, "embedding after ten steps off by {error:e}");
}

#[test]
fn golden_resnet18_cifar_in_f64() {
    let golden = Golden::open(CIFAR, "models_f64.safetensors", DType::F64);
    check_one_step(&golden, 1e-9, 1e-9, 1e-6);
}

#[test]
fn golden_resnet18_cifar_sgd_in_f64() {
    check_ten_steps(&Golden::open(CIFAR, "models_f64.safetensors", DType::F64), 1e-6, 1e-6);
}

#[test]
fn golden_resnet18_cifar_in_f32() {
    check_one_step(&Golden::open(CIFAR, "models.safetensors", DType::F32), 2e-5, 2e-4, 1e-2);
}

#[test]
fn golden_resnet18_cifar_sgd_in_f32() {
    check_ten_steps(&Golden::open(CIFAR, "models.safetensors", DType::F32), 2e-3, 2e-3);
}

/// Winograd has larger rounding errors: the tolerances are ten times those of the direct path, and 2% in norm
/// for gradients, whose errors come mostly from ReLUs that change their side.
#[test]
fn golden_resnet18_cifar_by_winograd() {
    check_one_step(&Golden::open(CIFAR, "models.safetensors", DType::F32).by_winograd(), 2e-4, 2e-3, 2e-2);
}

#[test]
fn golden_resnet18_cifar_sgd_by_winograd() {
    check_ten_steps(&Golden::open(CIFAR, "models.safetensors", DType::F32).by_winograd(), 2e-2, 2e-2);
}

/// With four images the gradients nearly cancel, so the rounding of f32 becomes visible: the tolerance is 3%
/// in norm.
#[test]
fn golden_resnet18_stl() {
    check_one_step(&Golden::open(STL, "models.safetensors", DType::F32), 2e-5, 2e-4, 3e-2);
}

#[test]
fn golden_resnet18_imagenet() {
    check_one_step(&Golden::open(IMAGENET, "models.safetensors", DType::F32), 2e-5, 2e-4, 3e-2);
}

/// With four images the gradients nearly cancel, and there is no batch norm to limit the rounding errors:
/// over five seeds, PyTorch's own gradients in f32 differ from those in f64 by up to 2.6%.
#[test]
fn golden_inception_v1_in_f32() {
    check_one_step(&Golden::open(INCEPTION, "models.safetensors", DType::F32), 2e-5, 2e-5, 5e-2);
}

/// The expected values were computed in f32, so the differences to f64 are their rounding errors.
#[test]
fn golden_inception_v1_in_f64() {
    check_one_step(&Golden::open(INCEPTION, "models.safetensors", DType::F64), 2e-5, 2e-5, 5e-2);
}
