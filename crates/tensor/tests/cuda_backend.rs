//! Convolutions by plans of cuDNN's graph API: which engines are taken, what is kept of them, and what
//! happens where there is no plan. The tests are skipped where there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test fails by panicking; bits are compared")]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::cuda::testing::{Counts, graph_descriptors, on_device};
use invaspread_tensor::cuda::{ConvolutionApi, Switches, algorithms, notes, take_algorithms};
use invaspread_tensor::{Conv2dConfig, conv2d};

/// Begins anew, with nothing chosen.
fn begin(device: &Device, convolution: ConvolutionApi) {
    Switches { convolution, ..Switches::default() }.take();
    take_algorithms(device, &BTreeMap::new()).unwrap();
    notes();
}

fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Returns the output and the gradients of input and weight, all on the CPU in f64.
fn all_products(x: &Tensor, w: &Tensor, config: Conv2dConfig) -> [Vec<f64>; 3] {
    let [x, w] = [x, w].map(|x| Var::from_tensor(x).unwrap());
    let y = conv2d(&x, &w, config).unwrap();
    let weights: Vec<f32> = (0..y.elem_count()).map(|i| (1.0 + i as f32 * 0.37).sin()).collect();
    let weights = Tensor::from_vec(weights, y.shape(), &Device::Cpu).unwrap().to_dtype(y.dtype()).unwrap();
    let weights = weights.to_device(y.device()).unwrap();
    let gradients = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let wide = |x: &Tensor| {
        let x = x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        x.flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    [wide(&y), wide(gradients.get(&x).unwrap()), wide(gradients.get(&w).unwrap())]
}

/// Returns the random input and weight of a convolution of `side` x `side` pixels.
fn operands(seed: u64, side: usize, channels: [usize; 2], kernel: usize, device: &Device) -> [Tensor; 2] {
    let mut stream = Stream::new(seed, Purpose::Synthetic, 30, 0);
    let [ci, co] = channels;
    [&[2, side, side, ci][..], &[kernel, kernel, ci, co]]
        .map(|shape| random(&mut stream, shape).to_device(device).unwrap())
}

fn relative(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    (difference / want.iter().map(|w| w * w).sum::<f64>().max(1e-30)).sqrt()
}

/// Returns what was chosen, by the product.
fn chosen(device: &Device) -> BTreeMap<String, String> {
    let mut all = algorithms(device).unwrap();
    all.remove("machine");
    all
}

/// The engines of the emulated library: one that may be taken, and in f32 one that computes in TF32.
const FINE: &str = "engine 8 knobs 2=";
const ROUNDING: &str = "engine 7 knobs";

#[test]
fn every_product_is_what_the_definition_gives() {
    on_device(|device| {
        begin(device, ConvolutionApi::Backend);
        let precisions = [(DType::F32, false, 1e-6), (DType::F32, true, 2e-3), (DType::BF16, true, 1e-2)];
        for (seed, (ci, co)) in [(1, 1), (3, 5), (7, 9), (8, 3), (16, 24)].into_iter().enumerate() {
            for (kernel, stride, side) in [(1, 1, 6), (1, 2, 7), (3, 1, 6), (3, 2, 7), (5, 1, 6)] {
                let [x, w] = operands(seed as u64, side, [ci, co], kernel, &Device::Cpu);
                for (dtype, tf32, tolerance) in precisions {
                    let config = Conv2dConfig { stride, padding: kernel / 2, tf32, ..Default::default() };
                    let exact = |t: &Tensor, dtype| t.to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap();
                    let want = all_products(&exact(&x, dtype), &exact(&w, DType::F32), config);
                    let there = x.to_dtype(dtype).unwrap().to_device(device).unwrap();
                    let got = all_products(&there, &w.to_device(device).unwrap(), config);
                    for (which, (got, want)) in got.iter().zip(&want).enumerate() {
                        let error = relative(got, want);
                        assert!(
                            error < tolerance,
                            "{dtype:?} {tf32} {ci} to {co}, kernel {kernel}: result {which} is off by {error}"
                        );
                    }
                }
            }
        }
        if Counts::now().is_none() {
            return;
        }
        assert_eq!(notes(), Vec::<String>::new());
        // The emulated library ends the program if an engine runs that must not. In full f32 none with tensor
        // cores is taken; where TF32 is allowed it is the fastest.
        for (product, choice) in chosen(device) {
            let expected = if product.ends_with("tf32") { ROUNDING } else { FINE };
            assert!(choice.starts_with(expected), "{product}: {choice}");
        }
    });
}

/// The emulated plans are faster for large kernels, and the older algorithms for 1 x 1.
#[test]
fn the_faster_of_both_is_kept() {
    on_device(|device| {
        if Counts::now().is_none() {
            return;
        }
        begin(device, ConvolutionApi::Both);
        for kernel in [1, 3] {
            let [x, w] = operands(20, 6, [16, 8], kernel, device);
            all_products(&x, &w, Conv2dConfig { padding: kernel / 2, ..Default::default() });
        }
        let all = chosen(device);
        assert_eq!(all.len(), 6, "{all:?}");
        for (product, choice) in &all {
            let expected = if product.contains("kernel 1x1") { "algorithm " } else { FINE };
            assert!(choice.starts_with(expected), "{product}: {choice}");
        }
        for (convolution, expected) in
            [(ConvolutionApi::Legacy, "algorithm "), (ConvolutionApi::Backend, FINE)]
        {
            begin(device, convolution);
            let [x, w] = operands(20, 6, [16, 8], 3, device);
            all_products(&x, &w, Conv2dConfig { padding: 1, ..Default::default() });
            let all = chosen(device);
            assert!(all.len() == 3 && all.values().all(|choice| choice.starts_with(expected)), "{all:?}");
        }
        assert_eq!(notes(), Vec::<String>::new());
        begin(device, ConvolutionApi::Both);
    });
}

/// The emulated heuristics offer two configurations of one engine in turn, which round differently.
#[test]
fn a_plan_that_was_kept_is_made_again_from_its_engine_and_knobs() {
    on_device(|device| {
        begin(device, ConvolutionApi::Backend);
        let [x, w] = operands(21, 9, [16, 24], 3, device);
        let run = || all_products(&x, &w, Conv2dConfig { padding: 1, ..Default::default() });
        let first = run();
        let kept = algorithms(device).unwrap();
        assert_eq!(kept.len(), 3 + 1, "{kept:?}");
        assert!(
            kept.iter().all(|(key, choice)| key == "machine" || choice.starts_with("engine ")),
            "{kept:?}"
        );

        // Another process, without the choices and with them.
        take_algorithms(device, &BTreeMap::new()).unwrap();
        let other = run();
        let kept_other = algorithms(device).unwrap();
        if Counts::now().is_some() {
            assert_ne!(kept_other, kept);
            assert_ne!(other, first);
        }
        for (kept, result) in [(&kept, &first), (&kept_other, &other)] {
            assert_eq!(take_algorithms(device, kept).unwrap(), None);
            assert_eq!(run(), *result);
            // Another thread has a cuDNN of its own, and makes its plans from what is kept.
            std::thread::scope(|scope| scope.spawn(|| assert_eq!(run(), *result)).join().unwrap());
            assert_eq!(algorithms(device).unwrap(), *kept);
        }
        assert_eq!(notes(), Vec::<String>::new());

        // Another card: nothing is taken, and that is said.
        let mut elsewhere = kept.clone();
        elsewhere.insert("machine".to_owned(), "another card".to_owned());
        let said = take_algorithms(device, &elsewhere).unwrap().unwrap();
        assert!(said.contains("another card") && said.contains("measured anew"), "{said}");
        assert!(algorithms(device).unwrap().is_empty());

        // A switch that asks for the older API is obeyed, and that is said.
        Switches { convolution: ConvolutionApi::Legacy, ..Switches::default() }.take();
        let said = take_algorithms(device, &kept).unwrap().unwrap();
        assert!(said.contains("3 of the 3") && said.contains("measured anew"), "{said}");
        run();
        assert!(chosen(device).values().all(|choice| choice.starts_with("algorithm ")));
        begin(device, ConvolutionApi::Both);
    });
}

/// Engines of the emulated library that cannot be taken: not deterministic, too much memory, no plan,
/// compiled, rounded factors, unknown, a knob that is out of range.
#[test]
fn a_recorded_plan_that_cannot_be_made_or_must_not_be_taken_is_measured_anew() {
    on_device(|device| {
        if Counts::now().is_none() {
            return;
        }
        begin(device, ConvolutionApi::Both);
        let [x, w] = operands(22, 7, [16, 8], 3, device);
        let run = || all_products(&x, &w, Conv2dConfig { padding: 1, ..Default::default() });
        let first = run();
        let kept = algorithms(device).unwrap();
        for engine in [
            "engine 3 knobs",
            "engine 5 knobs",
            "engine 7 knobs",
            "engine 10 knobs",
            "engine 11 knobs",
            "engine 13 knobs",
            "engine 99 knobs",
            "engine 8 knobs 2=5",
            "engine 8 knobs 3=0",
        ] {
            let mut damaged = kept.clone();
            let product = damaged.keys().find(|key| key.starts_with("output")).unwrap().clone();
            damaged.insert(product.clone(), engine.to_owned());
            assert_eq!(take_algorithms(device, &damaged).unwrap(), None);
            let again = run();
            // The others are as they were.
            assert_eq!(again[1..], first[1..], "{engine}");
            assert!(relative(&again[0], &first[0]) < 1e-6, "{engine}");
            let all = chosen(device);
            assert!(all[&product].starts_with(FINE), "{engine}: {all:?}");
            let said = notes();
            assert!(
                said.len() == 1 && said[0].contains(&product) && said[0].contains("measured anew"),
                "{engine}: {said:?}"
            );
        }
        begin(device, ConvolutionApi::Both);
    });
}

#[test]
fn what_the_graph_api_does_not_compute_the_older_one_does_and_that_is_said_once() {
    on_device(|device| {
        if Counts::now().is_none() {
            return;
        }
        for convolution in [ConvolutionApi::Both, ConvolutionApi::Backend] {
            begin(device, convolution);
            // The emulated graphs refuse kernels of an even height. Another size for each switch: a process asks
            // only once.
            let side = if convolution == ConvolutionApi::Both { 6 } else { 8 };
            let [x, w] = operands(23, side, [16, 8], 2, &Device::Cpu);
            let config = Conv2dConfig::default();
            let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
            let want = all_products(&wide(&x), &wide(&w), config);
            let [x, w] = [x, w].map(|t| t.to_device(device).unwrap());
            let got = all_products(&x, &w, config);
            for (got, want) in got.iter().zip(&want) {
                assert!(relative(got, want) < 1e-6);
            }
            assert!(chosen(device).values().all(|choice| choice.starts_with("algorithm ")));
            let said = notes();
            let of_graph = |note: &String| note.contains("kernel 2x2") && note.contains("GRAPH_PATTERN");
            assert!(said.len() == 3 && said.iter().all(of_graph), "{said:?}");
            assert_eq!(all_products(&x, &w, config), got);
            assert_eq!(notes(), Vec::<String>::new());
        }

        // A plan that can be made and fails when it is run.
        begin(device, ConvolutionApi::Both);
        let [x, w] = operands(24, 10, [16, 8], 3, device);
        let run = || all_products(&x, &w, Conv2dConfig { padding: 1, ..Default::default() });
        let first = run();
        let mut failing = algorithms(device).unwrap();
        let product = failing.keys().find(|key| key.starts_with("weight gradient")).unwrap().clone();
        failing.insert(product.clone(), "engine 12 knobs".to_owned());
        take_algorithms(device, &failing).unwrap();
        let again = run();
        assert!(again[..2] == first[..2] && relative(&again[2], &first[2]) < 1e-6);
        assert!(chosen(device)[&product].starts_with("algorithm "));
        let said = notes();
        assert!(said.len() == 1 && said[0].contains(&product) && said[0].contains("failed"), "{said:?}");
        begin(device, ConvolutionApi::Both);
    });
}

#[test]
fn plans_and_what_cudnn_is_told_of_addresses_are_kept() {
    on_device(|device| {
        if Counts::now().is_none() {
            return;
        }
        begin(device, ConvolutionApi::Backend);
        let [x, w] = operands(25, 6, [16, 8], 3, device);
        let forward = || conv2d(&x, &w, Conv2dConfig { padding: 1, ..Default::default() }).unwrap();
        // The pool hands out a few addresses in turn.
        for _ in 0..12 {
            forward();
        }
        let [made, there] = graph_descriptors().unwrap();
        assert!(there < 1000, "{there}");
        for _ in 0..12 {
            forward();
        }
        assert_eq!(graph_descriptors().unwrap(), [made, there]);
        // Addresses that change in each step are not all kept.
        let mut held = Vec::new();
        for _ in 0..200 {
            held.push(forward());
        }
        assert!(graph_descriptors().unwrap()[1] < there + 100);
        begin(device, ConvolutionApi::Both);
    });
}
