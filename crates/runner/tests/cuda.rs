//! Whole runs on the GPU: every method agrees with its run on the CPU, in each precision, and a stopped run
//! resumes as if it had not been stopped. The tests are skipped where there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use std::path::Path;

use invaspread_models::{ResNetConfig, VitConfig};
use invaspread_runner::engine::{
    EngineError, Observer, Outcome, Recipe, StepTaken, Stop, Trained, evaluate, open_weights, train,
};
use invaspread_tensor::cuda::testing::on_device;
use invaspread_tensor::{DeviceKind, Precision};
use stripes::{images, invaspread, methods, place, recipe, small};

/// Raises the flag after some steps, and counts them.
struct StopAfter {
    steps: usize,
    stop: Stop,
}

impl Observer for StopAfter {
    fn step(&mut self, event: &StepTaken) {
        assert!(event.loss.is_finite() && event.mean_loss.is_finite());
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 {
            self.stop.raise();
        }
    }
}

fn go(recipe: &Recipe, folder: &Path, steps: usize) -> Result<Outcome, EngineError> {
    let stop = Stop::new();
    let mut observer = StopAfter { steps, stop: stop.clone() };
    train(recipe, &place(folder), &images(), &mut observer, &stop, &mut |_| Ok(()))
}

fn trained(outcome: Outcome) -> Trained {
    match outcome {
        Outcome::Trained(trained) => *trained,
        Outcome::Stopped { epoch, step } => panic!("stopped at epoch {epoch} step {step}"),
    }
}

fn run(recipe: &Recipe) -> Trained {
    let folder = tempfile::tempdir().unwrap();
    trained(go(recipe, folder.path(), usize::MAX).unwrap())
}

fn losses(trained: &Trained) -> Vec<f64> {
    trained.rows.iter().filter(|row| row.name == "loss").map(|row| row.value).collect()
}

/// Returns the cosine of the two runs' test embeddings, the lowest over all images.
fn agreement(a: &Trained, b: &Trained) -> f64 {
    let dim = a.embeddings.test.dim;
    let rows = a.embeddings.test.values.chunks(dim).zip(b.embeddings.test.values.chunks(dim));
    rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()).fold(1.0, f64::min)
}

#[test]
fn every_method_goes_the_cpus_way() {
    on_device(|_| {
        for (name, method) in methods() {
            // A single step compares what the GPU computes; three steps also compare two steps of the optimizer.
            // More steps are not compared, because a projector's units that are nearly constant over a batch
            // magnify rounding errors in its batch norms, a hundredfold in each step (losses are 2e-7 apart after
            // two steps, 7e-3 after five).
            for (batch_size, loss, cosine) in [(40, 1e-4, 0.9999), (13, 5e-3, 0.995)] {
                let mut here = Recipe { epochs: 1, batch_size, ..recipe(method.clone()) };
                here.schedule.base = 0.003;
                let there = Recipe { device: DeviceKind::Cuda(0), ..here.clone() };
                let (here, there) = (run(&here), run(&there));
                for (a, b) in losses(&here).iter().zip(&losses(&there)) {
                    assert!(
                        (a - b).abs() < loss * a.abs(),
                        "{name}, batches of {batch_size}: losses {a} and {b}"
                    );
                }
                let agreement = agreement(&here, &there);
                assert!(agreement > cosine, "{name}, batches of {batch_size}: a cosine of {agreement}");
            }
        }
    });
}

#[test]
fn each_gpu_comes_to_the_same() {
    on_device(|_| {
        let gpus = DeviceKind::gpus();
        assert!(gpus > 1 || std::env::var_os("INVASPREAD_EMULATOR_DEVICES").is_none(), "asked for several");
        let on = |index| run(&Recipe { device: DeviceKind::Cuda(index), epochs: 1, ..recipe(invaspread()) });
        let first = on(0);
        for index in 1..gpus {
            let other = on(index);
            assert_eq!(losses(&other), losses(&first), "cuda:{index}");
            assert_eq!(other.embeddings.test.values, first.embeddings.test.values, "cuda:{index}");
        }
        let missing = Recipe { device: DeviceKind::Cuda(gpus), ..recipe(invaspread()) };
        let folder = tempfile::tempdir().unwrap();
        let error = go(&missing, folder.path(), usize::MAX).unwrap_err().to_string();
        assert!(error.contains(&format!("cuda:{gpus}")), "{error}");
    });
}

#[test]
fn other_precisions_stay_near() {
    on_device(|_| {
        // TF32 rounds factors to ten bits, bf16 to seven. One step shows that; five steps with batch norms over
        // few rows magnify any rounding, so they show only that training goes on.
        let of_one_step = [(Precision::Tf32, 5e-4, 0.9999), (Precision::Bf16, 5e-3, 0.9999)];
        let of_five_steps = [(Precision::Tf32, 0.03, 0.98), (Precision::Bf16, 0.05, 0.9)];
        for (batch_size, bounds) in [(40, of_one_step), (8, of_five_steps)] {
            let mut single =
                Recipe { device: DeviceKind::Cuda(0), epochs: 1, batch_size, ..recipe(invaspread()) };
            single.schedule.base = 0.003;
            let reference = run(&single);
            for (precision, loss, cosine) in bounds {
                let network = ResNetConfig { precision, ..small(8) }.into();
                let found = run(&Recipe { network, ..single.clone() });
                let (a, b) = (losses(&reference)[0], losses(&found)[0]);
                let agreement = agreement(&reference, &found);
                assert!((a - b).abs() < loss * a, "{batch_size}, {precision:?}: losses {a} and {b}");
                assert!(agreement > cosine, "{batch_size}, {precision:?}: a cosine of {agreement}");
            }
        }
    });
}

/// The small views of `SwAV` have another size, so their positions are resized.
#[test]
fn a_vision_transformer_trains_as_on_the_cpu() {
    on_device(|_| {
        let sizes = VitConfig { width: 12, depth: 2, heads: 2, embedding: 16, ..VitConfig::tiny() };
        let network = VitConfig { image: stripes::SIDE, ..sizes };
        let of = |name: &str| {
            methods().into_iter().filter(move |(own, _)| own.starts_with(name)).collect::<Vec<_>>()
        };
        for (name, method) in [of("invaspread"), of("swav")].concat() {
            let here = Recipe { network: network.clone().into(), epochs: 1, ..recipe(method) };
            let there = Recipe { device: DeviceKind::Cuda(0), ..here.clone() };
            let (expected, found) = (run(&here), run(&there));
            for (a, b) in losses(&expected).iter().zip(losses(&found)) {
                assert!((a - b).abs() < 1e-3 * a.abs(), "{name}: losses {a} and {b}");
            }
            let agreement = agreement(&expected, &found);
            assert!(agreement > 0.999, "{name}: a cosine of {agreement}");
        }
    });
}

#[test]
fn a_stopped_run_goes_on_where_it_was() {
    on_device(|_| {
        for (name, method) in methods() {
            if !method.trains() {
                continue;
            }
            let recipe = Recipe { device: DeviceKind::Cuda(0), epochs: 2, ..recipe(method) };
            let (alone, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let expected = trained(go(&recipe, alone.path(), usize::MAX).unwrap());
            let mut stops = 0;
            let found = loop {
                match go(&recipe, stopped.path(), 3).unwrap() {
                    Outcome::Trained(trained) => break *trained,
                    Outcome::Stopped { .. } => stops += 1,
                }
                assert!(stops < 100, "{name} makes no progress");
            };
            assert!(stops >= 2, "{name} was stopped {stops} times only");
            let agreement = agreement(&expected, &found);
            assert!(agreement > 0.999, "{name}: embeddings agree to a cosine of {agreement}");
            // The CPU can also measure the weights that the GPU run wrote.
            let here = Recipe { device: DeviceKind::Cpu, ..recipe.clone() };
            let weights = stopped.path().join("checkpoints/last.safetensors");
            let measured = evaluate(&here, &images(), &open_weights(&weights).unwrap(), None).unwrap();
            let rows = measured.embeddings.test.values.iter().zip(&found.embeddings.test.values);
            let worst = rows.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            assert!(worst < 1e-3, "{name}: the CPU's embeddings are {worst} away");
        }
    });
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    on_device(|_| {
        let mut recipe = Recipe { device: DeviceKind::Cuda(0), ..recipe(invaspread()) };
        recipe.schedule.base = 1e30;
        let folder = tempfile::tempdir().unwrap();
        let error = go(&recipe, folder.path(), usize::MAX).unwrap_err();
        assert!(matches!(error, EngineError::NotFinite { .. }), "{error}");
    });
}
