//! The ops of vision transformers: in f64 against PyTorch's values and finite differences, and in f32 against
//! f64 on random shapes, on any number of threads.
//!
//! The goldens are read from the folder that INVASPREAD_GOLDENS names if it has them, else from tests/goldens
//! of the workspace.

#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::gradient_check::gradient_error;
use invaspread_tensor::{Tape, Value, attention, gelu, layer_norm, token_offsets, tokens, with_team};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| stream.normal()).collect();
    // The numbers are rounded to f32, so that both types compute on the same ones.
    Tensor::from_vec(values, shape, &Device::Cpu)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
}

fn stream(seed: u64) -> Stream {
    Stream::new(seed, Purpose::Bootstrap, 11, 0)
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns the norm of the difference, relative to the norm of `want`.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    let want = values(want);
    let difference: f64 = values(got).iter().zip(&want).map(|(g, w)| (g - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    (difference / size.max(1e-30)).sqrt()
}

/// Returns the result of `op` and the gradients of its inputs for the gradient `gy` of the result.
fn run(
    inputs: &[Tensor],
    gy: &Tensor,
    dtype: DType,
    op: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Vec<Tensor> {
    let variables: Vec<Var> =
        inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap()).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let y = op(&tensors).unwrap();
    let gradients = (&y * gy.to_dtype(dtype).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    let of_inputs = variables.iter().map(|variable| gradients.get(variable).unwrap().clone());
    std::iter::once(y.detach()).chain(of_inputs).collect()
}

/// Checks the f32 version against the f64 one, and that threads change no bit.
fn check_single(inputs: &[Tensor], op: impl Fn(&[Tensor]) -> Result<Tensor> + Sync) {
    let y = op(inputs).unwrap();
    let gy = random(&mut stream(99), y.dims());
    let double = run(inputs, &gy, DType::F64, &op);
    let single = run(inputs, &gy, DType::F32, &op);
    for (at, (single, double)) in single.iter().zip(&double).enumerate() {
        let error = error(single, double);
        assert!(error < 3e-6, "{at}: {error:e}");
    }
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| with_team(|| run(inputs, &gy, DType::F32, &op)));
        for (again, single) in again.iter().zip(&single) {
            let bits = |x: &Tensor| {
                x.flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap()
                    .iter()
                    .map(|x| x.to_bits())
                    .collect::<Vec<_>>()
            };
            assert_eq!(bits(again), bits(single), "{threads} threads");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn gelu_in_f32(seed: u64, len in 1usize..10_000, size in 0.1f64..5.0) {
        let x = (random(&mut stream(seed), &[len]) * size).unwrap();
        check_single(&[x.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap()], |x| gelu(&x[0]));
    }

    #[test]
    fn layer_norm_in_f32(seed: u64, rows in 1usize..200, channels in 4usize..100, mean in -3.0f64..3.0) {
        let mut stream = stream(seed);
        let x = (random(&mut stream, &[rows, channels]) + mean).unwrap();
        let x = x.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap();
        check_single(&[x, random(&mut stream, &[channels]), random(&mut stream, &[channels])], |t| {
            layer_norm(&t[0], &t[1], &t[2], 1e-6)
        });
    }

    #[test]
    fn attention_in_f32(seed: u64, images in 1usize..5, count in 1usize..40, heads in 1usize..4, dim in 1usize..40) {
        let x = random(&mut stream(seed), &[images * count, 3 * heads * dim]);
        check_single(&[x], |x| attention(&x[0], count, heads));
    }

    #[test]
    fn tokens_in_f32(seed: u64, images in 1usize..5, side in 1usize..6, h in 1usize..7, w in 1usize..7, dim in 1usize..80) {
        let mut stream = stream(seed);
        let inputs = [random(&mut stream, &[images, h, w, dim]), random(&mut stream, &[1 + h * w, dim])];
        check_single(&inputs, |t| tokens(&t[0], &t[1]));
        let inputs =
            [random(&mut stream, &[dim]), random(&mut stream, &[1, 1, dim]), random(&mut stream, &[1, 1 + side * side, dim])];
        check_single(&inputs, |t| token_offsets(&t[0], &t[1], &t[2], [h, w]));
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut stream = stream(3);
    let mut check = |name: &str, shapes: &[&[usize]], op: &dyn Fn(&[Tensor]) -> Result<Tensor>| {
        let inputs: Vec<Tensor> = shapes.iter().map(|shape| random(&mut stream, shape)).collect();
        let error = gradient_error(&inputs, op).unwrap();
        assert!(error < 1e-6, "{name}: {error:e}");
    };
    check("gelu", &[&[40]], &|t| gelu(&t[0]));
    check("layer norm", &[&[6, 7], &[7], &[7]], &|t| layer_norm(&t[0], &t[1], &t[2], 1e-6));
    check("attention", &[&[2 * 5, 3 * 2 * 3]], &|t| attention(&t[0], 5, 2));
    check("tokens", &[&[2, 3, 2, 4], &[7, 4]], &|t| tokens(&t[0], &t[1]));
    check("offsets", &[&[4], &[1, 1, 4], &[1, 10, 4]], &|t| token_offsets(&t[0], &t[1], &t[2], [3, 3]));
    check("resized offsets", &[&[2], &[1, 1, 2], &[1, 10, 2]], &|t| {
        token_offsets(&t[0], &t[1], &t[2], [2, 5])
    });
}

/// The tape's own ops, and its gradients where a value has two uses.
#[test]
fn the_tape_carries_the_gradients_of_sums_and_rows() {
    let mut stream = stream(4);
    let inputs = [random(&mut stream, &[6, 4]), random(&mut stream, &[4]), random(&mut stream, &[4])];
    let weight = random(&mut stream, &[3, 4]);
    let variables = inputs.each_ref().map(|x| Var::from_tensor(x).unwrap());
    // By candle: x + norm(x), its rows 0 and 3.
    let [x, gamma, beta] = variables.each_ref().map(|v| v.as_tensor().clone());
    let sum = (&x + layer_norm(&x, &gamma, &beta, 1e-6).unwrap()).unwrap();
    let rows = sum.index_select(&Tensor::new(&[0u32, 3], &Device::Cpu).unwrap(), 0).unwrap();
    let loss = |rows: &Tensor| rows.matmul(&weight.t().unwrap()).unwrap().sqr().unwrap().sum_all().unwrap();
    let want = loss(&rows).backward().unwrap();
    // By the tape.
    let mut tape = Tape::default();
    let value = tape.input(&x);
    let normed = tape.layer_norm(&value, [&variables[1], &variables[2]], 1e-6).unwrap();
    let sum = tape.add(&value, &normed).unwrap();
    let first = tape.every_row(&sum, 3).unwrap();
    let leaf = tape.leaf(&first).unwrap();
    let mut got = loss(&leaf).backward().unwrap();
    tape.backward(&mut got).unwrap();
    for variable in &variables {
        let error = error(got.get(variable).unwrap(), want.get(variable).unwrap());
        assert!(error < 1e-12, "{error:e}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let told = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert!(
        told(layer_norm(&zeros(&[2, 3]), &zeros(&[3]), &zeros(&[2]), 0.0)).contains("one gain and one shift")
    );
    assert!(told(attention(&zeros(&[10, 12]), 3, 2)).contains("whole images"));
    assert!(told(attention(&zeros(&[9, 10]), 3, 2)).contains("queries, keys and values"));
    assert!(told(tokens(&zeros(&[1, 2, 2, 3]), &zeros(&[4, 3]))).contains("class token and for each patch"));
    let [bias, class] = [zeros(&[3]), zeros(&[1, 1, 3])];
    assert!(told(token_offsets(&bias, &class, &zeros(&[1, 6, 3]), [2, 2])).contains("a square"));
    let mut tape = Tape::idle();
    let [a, b] = [[2, 3], [3, 2]].map(|shape| Value::constant(&zeros(&shape)));
    assert!(tape.add(&a, &b).is_err() && tape.every_row(&a, 3).is_err());
}

/// A NaN reaches everything that it is a part of.
#[test]
fn a_nan_is_passed_on() {
    for dtype in [DType::F32, DType::F64] {
        let x = Tensor::new(&[[f64::NAN, 1.0, 2.0], [3.0, 4.0, 6.0]], &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let [ones, zeros] =
            [Tensor::ones(3, dtype, &Device::Cpu).unwrap(), Tensor::zeros(3, dtype, &Device::Cpu).unwrap()];
        let found = |y: Tensor| values(&y).into_iter().map(f64::is_nan).collect::<Vec<_>>();
        assert_eq!(found(gelu(&x).unwrap()), [true, false, false, false, false, false]);
        assert_eq!(
            found(layer_norm(&x, &ones, &zeros, 1e-6).unwrap()),
            [true, true, true, false, false, false]
        );
        // A query that is a NaN makes the weights of its own token NaN, a value that is a NaN reaches all
        // tokens.
        assert_eq!(found(attention(&x, 2, 1).unwrap()), [true, false]);
        let value = x.flip(&[1]).unwrap();
        assert_eq!(found(attention(&value, 2, 1).unwrap()), [true, true]);
    }
}

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn open() -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
        let folder = std::env::var_os("INVASPREAD_GOLDENS").map_or_else(|| own.clone(), PathBuf::from);
        let named = folder.join("transformer.safetensors");
        let file = if named.exists() { named } else { own.join("transformer.safetensors") };
        Self(candle_core::safetensors::load(file, &Device::Cpu).unwrap())
    }

    fn get(&self, name: &str) -> Tensor {
        self.0[name].clone()
    }

    fn sizes(&self, name: &str) -> Vec<usize> {
        self.get(name).to_vec1::<i64>().unwrap().into_iter().map(|size| size as usize).collect()
    }

    /// Checks each case of `op`, whose inputs have these names. Returns the number of cases.
    fn check(&self, op: &str, inputs: &[&str], f: impl Fn(usize, &[Tensor]) -> Result<Tensor>) -> usize {
        let mut case = 0;
        while self.0.contains_key(&format!("{op}.{case}.y")) {
            let get = |name: &str| self.get(&format!("{op}.{case}.{name}"));
            let tensors: Vec<Tensor> = inputs.iter().map(|name| get(name)).collect();
            let names =
                std::iter::once("y".to_owned()).chain(inputs.iter().map(|name| format!("grad_{name}")));
            let want: Vec<Tensor> = names.map(|name| get(&name)).collect();
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 3e-6)] {
                let got = run(&tensors, &get("gy"), dtype, |t| f(case, t));
                for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                    let error = error(got, want);
                    assert!(error < tolerance, "{op}.{case}, {at} in {dtype:?}: {error:e}");
                }
            }
            case += 1;
        }
        case
    }
}

#[test]
fn golden_gelu_and_layer_norm() {
    let golden = Golden::open();
    assert!(golden.check("gelu", &["x"], |_, t| gelu(&t[0])) >= 1);
    let norm = |_, t: &[Tensor]| layer_norm(&t[0], &t[1], &t[2], 1e-6);
    assert!(golden.check("layer_norm", &["x", "gamma", "beta"], norm) >= 3);
}

#[test]
fn golden_attention() {
    let golden = Golden::open();
    let of_case = |case: usize, t: &[Tensor]| {
        let sizes = golden.sizes(&format!("attention.{case}.sizes"));
        attention(&t[0], sizes[1], sizes[2])
    };
    assert!(golden.check("attention", &["x"], of_case) >= 4);
}

#[test]
fn golden_positions() {
    let golden = Golden::open();
    let of_case = |case: usize, t: &[Tensor]| {
        let grid = golden.sizes(&format!("offsets.{case}.grid"));
        token_offsets(&t[0], &t[1], &t[2], [grid[0], grid[1]])
    };
    assert!(golden.check("offsets", &["bias", "class", "position"], of_case) >= 5);
}
