//! Compares the losses with values and gradients of the authors' published `PyTorch` code.
//!
//! The folder is `INVASPREAD_GOLDENS` or, without that variable, the workspace's tests/goldens. Every case
//! found in it is checked. Losses must agree to 1e-5 relative, gradients to 1e-4 of their length.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use invaspread_losses::{
    BarlowTwins, Byol, Center, Dcl, Dino, InvaSpread, KeySide, MemoryBank, Mining, MocoV2, Nce, Nnclr,
    NpSoftmax, NtXent, SimSiam, Swav, Triplet, Vicreg,
};
use invaspread_tensor::l2_normalize;

/// The workspace's own goldens.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");

fn folder() -> PathBuf {
    std::env::var_os("INVASPREAD_GOLDENS").map_or_else(|| PathBuf::from(OWN), PathBuf::from)
}

struct Goldens {
    tensors: HashMap<String, Tensor>,
    settings: serde_json::Value,
}

impl Goldens {
    fn read() -> Self {
        let folder = folder();
        let file = folder.join("losses.safetensors");
        let tensors = candle_core::safetensors::load(&file, &Device::Cpu)
            .unwrap_or_else(|e| panic!("failed to read {}: {e}", file.display()));
        let settings = serde_json::from_slice(&std::fs::read(folder.join("values.json")).unwrap()).unwrap();
        Self { tensors, settings }
    }

    /// Returns the cases of a family: `invaspread.0`, `invaspread.1`, ... There must be some.
    fn cases(&self, family: &str) -> Vec<String> {
        let mut cases: Vec<String> = self
            .tensors
            .keys()
            .filter_map(|key| Some(key.strip_suffix(".features")?.to_string()))
            .filter(|case| case.split('.').next() == Some(family))
            .collect();
        cases.sort();
        assert!(!cases.is_empty(), "no case of {family}");
        cases
    }

    fn tensor(&self, case: &str, what: &str) -> &Tensor {
        let key = format!("{case}.{what}");
        self.tensors.get(&key).unwrap_or_else(|| panic!("losses.safetensors has no {key}"))
    }

    fn index(&self, case: &str, what: &str) -> Vec<u32> {
        let tensor = self.tensor(case, what).flatten_all().unwrap();
        tensor.to_vec1::<i64>().unwrap().into_iter().map(|i| u32::try_from(i).unwrap()).collect()
    }

    fn setting(&self, case: &str, what: &str) -> f64 {
        self.settings[case][what].as_f64().unwrap_or_else(|| panic!("values.json has no {case}.{what}"))
    }
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.elem_count(), want.elem_count());
    let (got, want) = (numbers(got), numbers(want));
    let away: f64 = got.iter().zip(&want).map(|(g, w)| (g - w).powi(2)).sum();
    (away / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
}

#[track_caller]
fn check(case: &str, what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    let away = relative(got, want);
    println!("{case} {what}: {away:.1e}");
    assert!(away <= tolerance, "{case}: {what} is {away:e} away (relative), {tolerance:e} is allowed");
}

/// Checks a loss and its gradient in f32 and in f64.
fn check_loss(case: &str, features: &Tensor, loss: &Tensor, grad: &Tensor, run: impl Fn(&Tensor) -> Tensor) {
    for dtype in [DType::F32, DType::F64] {
        let x = Var::from_tensor(&features.to_dtype(dtype).unwrap()).unwrap();
        let value = run(&x);
        check(case, &format!("loss in {dtype:?}"), &value, loss, 1e-5);
        let grads = value.backward().unwrap();
        check(case, &format!("gradient in {dtype:?}"), grads.get(&x).unwrap(), grad, 1e-4);
    }
}

#[test]
fn golden_invaspread() {
    let goldens = Goldens::read();
    for case in goldens.cases("invaspread") {
        for (key_side, grad) in [(KeySide::Detached, "grad"), (KeySide::BothSides, "grad_both_sides")] {
            let objective = InvaSpread {
                temperature: goldens.setting(&case, "temperature"),
                negative_weight: goldens.setting(&case, "negative_weight"),
                key_side,
                ..InvaSpread::default()
            };
            let [features, loss, grad] = ["features", "loss", grad].map(|what| goldens.tensor(&case, what));
            check_loss(&case, features, loss, grad, |x| objective.loss(x).unwrap());
        }
    }
}

#[test]
fn golden_nce() {
    let goldens = Goldens::read();
    for case in goldens.cases("nce") {
        let negatives = goldens.setting(&case, "negatives") as usize;
        let objective = Nce {
            temperature: goldens.setting(&case, "temperature"),
            noise_per_row: negatives,
            ..Nce::default()
        };
        let mut bank = MemoryBank::from_tensor(goldens.tensor(&case, "memory_before")).unwrap();
        let (index, noise) = (goldens.index(&case, "index"), goldens.index(&case, "noise_index"));
        let [features, loss, grad] = ["features", "loss", "grad"].map(|what| goldens.tensor(&case, what));
        check_loss(&case, features, loss, grad, |x| {
            let mut z = None;
            let value = objective.loss(x, &bank, &index, &noise, &mut z).unwrap();
            let z = Tensor::new(z.unwrap(), &Device::Cpu).unwrap();
            check(&case, "z", &z, goldens.tensor(&case, "z"), 1e-5);
            value
        });
        bank.update(&index, features, goldens.setting(&case, "momentum")).unwrap();
        check(&case, "memory", &bank.tensor().unwrap(), goldens.tensor(&case, "memory_after"), 1e-6);
    }
}

#[test]
fn golden_npsoftmax() {
    let goldens = Goldens::read();
    for case in goldens.cases("npsoftmax") {
        // The temperature is stored with the NCE case of the same number.
        let temperature = goldens.setting(&case.replace("npsoftmax", "nce"), "temperature");
        let bank = MemoryBank::from_tensor(goldens.tensor(&case, "memory_before")).unwrap();
        let index = goldens.index(&case, "index");
        let [features, loss, grad] = ["features", "loss", "grad"].map(|what| goldens.tensor(&case, what));
        check_loss(&case, features, loss, grad, |x| {
            NpSoftmax { temperature }.loss(x, &bank, &index).unwrap()
        });
    }
}

#[test]
fn golden_triplet_hard() {
    let goldens = Goldens::read();
    let mut found = 0;
    for case in goldens.tensors.keys().filter_map(|key| key.strip_suffix(".anchor")) {
        found += 1;
        let objective = Triplet { margin: 0.5, mining: Mining::Hardest };
        let [anchor, positive, loss] = ["anchor", "positive", "loss"].map(|what| goldens.tensor(case, what));
        let cast = |x: &Tensor, like: &Tensor| x.to_dtype(like.dtype()).unwrap();
        check_loss(case, anchor, loss, goldens.tensor(case, "grad_anchor"), |a| {
            objective.loss(a, &cast(positive, a), None).unwrap()
        });
        check_loss(case, positive, loss, goldens.tensor(case, "grad_positive"), |p| {
            objective.loss(&cast(anchor, p), p, None).unwrap()
        });
    }
    assert!(found > 0, "no case of triplet_hard");
}

/// Checks every case of a file that holds one loss. If the folder was made before that file existed, the
/// workspace's own file is read. `run` gets the features of a case, and its other tensors by name.
fn check_own_tensors(name: &str, run: impl Fn(&Tensor, &dyn Fn(&str) -> Option<Tensor>) -> Tensor) {
    let mut file = folder().join(name);
    if !file.exists() {
        file = PathBuf::from(OWN).join(name);
    }
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu)
        .unwrap_or_else(|e| panic!("failed to read {}: {e}", file.display()));
    let mut found = 0;
    for case in tensors.keys().filter_map(|key| key.strip_suffix(".features")) {
        found += 1;
        let [features, loss, grad] =
            ["features", "loss", "grad"].map(|what| &tensors[&format!("{case}.{what}")]);
        let tensor = |what: &str| tensors.get(&format!("{case}.{what}")).cloned();
        check_loss(case, features, loss, grad, |x| run(x, &tensor));
    }
    assert!(found > 0, "no case in {}", file.display());
}

/// Does the same for a loss of the features alone. `run` gets its settings by name.
fn check_own_file(name: &str, run: impl Fn(&Tensor, &dyn Fn(&str) -> Option<f64>) -> Tensor) {
    check_own_tensors(name, |x, tensor| run(x, &|what| Some(tensor(what)?.to_scalar().unwrap())));
}

/// Does the same for a loss of rows of length 1, to which the file's rows are scaled first, and of constant
/// rows. `run` gets the features, the constant rows by name, and the temperature.
fn check_own_rows(name: &str, run: impl Fn(&Tensor, &dyn Fn(&str) -> Tensor, Option<f64>) -> Tensor) {
    check_own_tensors(name, |x, tensor| {
        let rows = |what: &str| l2_normalize(&tensor(what).unwrap().to_dtype(x.dtype()).unwrap()).unwrap();
        let temperature = tensor("temperature").map(|number| number.to_scalar().unwrap());
        run(&l2_normalize(x).unwrap(), &rows, temperature)
    });
}

/// Compares with lightly's `BarlowTwinsLoss` and PyTorch's autograd.
#[test]
fn golden_barlow_twins() {
    check_own_file("barlow_twins.safetensors", |x, setting| {
        BarlowTwins { off_diagonal_weight: setting("lambda").unwrap(), scale: 1.0 }.loss(x).unwrap()
    });
}

/// Compares with lightly's `VICRegLoss` and PyTorch's autograd.
#[test]
fn golden_vicreg() {
    check_own_file("vicreg.safetensors", |x, setting| {
        let [invariance, variance, covariance] = ["lambda", "mu", "nu"].map(|what| setting(what).unwrap());
        Vicreg { invariance, variance, covariance }.loss(x).unwrap()
    });
}

/// Returns a function that gives a case's other tensors in the type of `x`, and one that gives its numbers.
fn of_case<'a>(
    x: &Tensor,
    tensor: &'a dyn Fn(&str) -> Option<Tensor>,
) -> (impl Fn(&str) -> Tensor + 'a, impl Fn(&str) -> f64 + 'a) {
    let dtype = x.dtype();
    let matrix = move |what: &str| tensor(what).unwrap().to_dtype(dtype).unwrap();
    (matrix, move |what: &str| tensor(what).unwrap().to_scalar::<f64>().unwrap())
}

/// Compares with lightly's `SwaVLoss` and PyTorch's autograd, also the gradient of the prototypes. Two of the
/// views are large; their codes share a queue each.
#[test]
fn golden_swav() {
    check_own_tensors("swav.safetensors", |x, tensor| {
        let (matrix, number) = of_case(x, tensor);
        let (images, queued) = (number("images") as usize, number("queued") as usize);
        let swav = Swav { temperature: number("temperature"), ..Swav::default() };
        let codes: Vec<Tensor> = (0..2)
            .map(|view| {
                let mut rows = vec![x.narrow(0, view * images, images).unwrap()];
                if queued > 0 {
                    rows.push(matrix(&format!("queue_{view}")));
                }
                let scores = Tensor::cat(&rows, 0).unwrap().matmul(&matrix("weight").t().unwrap()).unwrap();
                swav.codes(&scores).unwrap().narrow(0, 0, images).unwrap()
            })
            .collect();
        let codes = Tensor::cat(&codes, 0).unwrap();
        let weight = Var::from_tensor(&matrix("weight")).unwrap();
        let loss = |x: &Tensor| swav.loss(x, &weight, &codes, images).unwrap();
        let gradients = loss(&x.detach()).backward().unwrap();
        check(
            "swav",
            "gradient of the prototypes",
            gradients.get(&weight).unwrap(),
            &matrix("grad_weight"),
            1e-4,
        );
        loss(x)
    });
}

/// Compares with lightly's `DINOLoss`, PyTorch's weight norm and autograd, also the gradient of the last
/// layer and the center after the step.
#[test]
fn golden_dino() {
    check_own_tensors("dino.safetensors", |x, tensor| {
        let (matrix, number) = of_case(x, tensor);
        let scores = matrix("teacher");
        let mut center = Center::new(scores.dim(1).unwrap()).unwrap();
        center.load_state(&tensor("center_before").unwrap()).unwrap();
        let targets = center.targets(&scores, number("teacher_temperature")).unwrap();
        center.follow(&scores, number("center_momentum")).unwrap();
        check("dino", "center", &center.state().unwrap(), &tensor("center_after").unwrap(), 1e-6);
        let dino = Dino { student_temperature: number("temperature") };
        let weight = Var::from_tensor(&matrix("weight")).unwrap();
        let loss = |x: &Tensor| dino.loss(x, &weight, &targets, number("images") as usize).unwrap();
        let gradients = loss(&x.detach()).backward().unwrap();
        check(
            "dino",
            "gradient of the last layer",
            gradients.get(&weight).unwrap(),
            &matrix("grad_weight"),
            1e-4,
        );
        loss(x)
    });
}

/// Compares with PyTorch's own cross-entropy and autograd.
#[test]
fn golden_ntxent() {
    check_own_file("ntxent.safetensors", |x, setting| {
        NtXent { temperature: setting("temperature").unwrap() }.loss(x).unwrap()
    });
}

/// Compares with JAX's logsumexp and automatic differentiation.
#[test]
fn golden_dcl() {
    check_own_file("dcl.safetensors", |x, setting| {
        Dcl { temperature: setting("temperature").unwrap(), sigma: setting("sigma") }.loss(x).unwrap()
    });
}

/// Compares with lightly's `NTXentLoss` with a memory bank and PyTorch's autograd.
#[test]
fn golden_moco_v2() {
    check_own_rows("moco_v2.safetensors", |x, rows, temperature| {
        let loss = MocoV2 { temperature: temperature.unwrap() };
        loss.loss(x, &rows("targets"), &rows("queue")).unwrap()
    });
}

/// Compares with lightly's `NegativeCosineSimilarity` and PyTorch's autograd.
#[test]
fn golden_byol() {
    check_own_rows("byol.safetensors", |x, rows, _| Byol.loss(x, &rows("targets")).unwrap());
}

/// Compares with lightly's `NegativeCosineSimilarity` and PyTorch's autograd.
#[test]
fn golden_simsiam() {
    check_own_rows("simsiam.safetensors", |x, rows, _| SimSiam.loss(x, &rows("targets")).unwrap());
}

/// Compares with PyTorch's own cross-entropy and autograd.
#[test]
fn golden_nnclr() {
    check_own_rows("nnclr.safetensors", |x, rows, temperature| {
        Nnclr { temperature: temperature.unwrap() }.loss(x, &rows("targets")).unwrap()
    });
}
