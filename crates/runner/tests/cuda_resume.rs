//! A run on the GPU that another process resumes ends with the same bits, whatever cuDNN's search would
//! choose there. The test is skipped if there is no device.

#![cfg(feature = "cuda")]
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    missing_docs,
    reason = "a test fails by panicking; bits are compared"
)]

mod stripes;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::DType;
use invaspread_runner::checkpoint::CheckpointFiles;
use invaspread_runner::engine::{Observer, Outcome, Recipe, StepTaken, Stop, Trained, read_state, train};
use invaspread_tensor::DeviceKind;
use invaspread_tensor::cuda::testing::{Counts, device_or_skip};
use invaspread_tensor::cuda::{algorithms, take_algorithms};
use stripes::{images, invaspread, place, recipe};

/// Raises the flag after some steps, and keeps the notes.
struct StopAfter {
    steps: usize,
    stop: Stop,
    notes: Vec<String>,
}

impl Observer for StopAfter {
    fn step(&mut self, _: &StepTaken) {
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 {
            self.stop.raise();
        }
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

fn go(recipe: &Recipe, folder: &Path, steps: usize) -> (Outcome, Vec<String>) {
    let stop = Stop::new();
    let mut observer = StopAfter { steps, stop: stop.clone(), notes: Vec::new() };
    let outcome = train(recipe, &place(folder), &images(), &mut observer, &stop, &mut |_| Ok(())).unwrap();
    (outcome, observer.notes)
}

fn trained(outcome: Outcome) -> Trained {
    match outcome {
        Outcome::Trained(trained) => *trained,
        Outcome::Stopped { epoch, step } => panic!("stopped at epoch {epoch} step {step}"),
    }
}

fn weights(folder: &Path) -> BTreeMap<String, Vec<f64>> {
    let state = read_state(&CheckpointFiles::of(folder)).unwrap();
    state
        .weights
        .iter()
        .map(|(name, x)| {
            (name.clone(), x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap())
        })
        .collect()
}

#[test]
fn a_resumed_run_takes_the_algorithms_that_it_began_with() {
    let Some(device) = device_or_skip() else { return };
    let recipe = Recipe { device: DeviceKind::Cuda(0), epochs: 1, ..recipe(invaspread()) };
    let [alone, resumed, anew] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let expected = trained(go(&recipe, alone.path(), usize::MAX).0);
    let chosen = algorithms(&device).unwrap();
    assert!(matches!(go(&recipe, resumed.path(), 3).0, Outcome::Stopped { .. }));
    assert_eq!(algorithms(&device).unwrap(), chosen);

    // In a new process no algorithm is chosen yet, and the search would choose others.
    take_algorithms(&device, &BTreeMap::new()).unwrap();
    let (outcome, notes) = go(&recipe, resumed.path(), usize::MAX);
    let found = trained(outcome);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(algorithms(&device).unwrap(), chosen);
    assert!(expected.embeddings.test.values == found.embeddings.test.values);
    assert!(weights(alone.path()) == weights(resumed.path()));

    // Other algorithms would have given other weights.
    take_algorithms(&device, &BTreeMap::new()).unwrap();
    trained(go(&recipe, anew.path(), usize::MAX).0);
    assert!(Counts::now().is_none() || weights(alone.path()) != weights(anew.path()));
}
