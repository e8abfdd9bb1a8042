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
use invaspread_tensor::cuda::testing::{Counts, on_device};
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
    on_device(|device| {
        let recipe = Recipe { device: DeviceKind::Cuda(0), epochs: 1, ..recipe(invaspread()) };
        let [alone, resumed, anew] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let expected = trained(go(&recipe, alone.path(), usize::MAX).0);
        let chosen = algorithms(device).unwrap();
        assert!(matches!(go(&recipe, resumed.path(), 3).0, Outcome::Stopped { .. }));
        assert_eq!(algorithms(device).unwrap(), chosen);

        // In a new process no algorithm is chosen yet, and the search would choose others.
        take_algorithms(device, &BTreeMap::new()).unwrap();
        let (outcome, notes) = go(&recipe, resumed.path(), usize::MAX);
        let found = trained(outcome);
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(algorithms(device).unwrap(), chosen);
        assert!(expected.embeddings.test.values == found.embeddings.test.values);
        assert!(weights(alone.path()) == weights(resumed.path()));

        // Other algorithms would have given other weights.
        take_algorithms(device, &BTreeMap::new()).unwrap();
        trained(go(&recipe, anew.path(), usize::MAX).0);
        assert!(Counts::now().is_none() || weights(alone.path()) != weights(anew.path()));
    });
}

/// The emulated engine 10 refuses every plan.
#[test]
fn a_plan_of_the_checkpoint_that_cannot_be_made_is_measured_anew_and_the_run_says_so() {
    on_device(|device| {
        if Counts::now().is_none() {
            return;
        }
        take_algorithms(device, &BTreeMap::new()).unwrap();
        let recipe = Recipe { device: DeviceKind::Cuda(0), epochs: 1, ..recipe(invaspread()) };
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(go(&recipe, folder.path(), 3).0, Outcome::Stopped { .. }));
        let mut chosen = algorithms(device).unwrap();
        let plans: Vec<String> = chosen
            .iter()
            .filter(|(_, choice)| choice.starts_with("engine"))
            .map(|(key, _)| key.clone())
            .collect();
        assert!(plans.len() > 4, "{chosen:?}");
        for plan in &plans {
            chosen.insert(plan.clone(), "engine 10 knobs".to_owned());
        }
        // As the checkpoint of a process that could make them would have it.
        take_algorithms(device, &chosen).unwrap();
        let again = tempfile::tempdir().unwrap();
        let (outcome, notes) = go(&recipe, again.path(), usize::MAX);
        trained(outcome);
        // The untrained network is evaluated before the first epoch: three notes in full for each, and how many
        // more.
        assert_eq!(notes.len(), 8, "{notes:?}");
        let in_full = notes.iter().filter(|note| note.contains("cannot be made here")).count();
        let more = notes.iter().filter_map(|note| {
            note.strip_suffix(" more products")?.rsplit(' ').next()?.parse::<usize>().ok()
        });
        assert_eq!(in_full + more.sum::<usize>(), plans.len(), "{notes:?}");
        assert!(algorithms(device).unwrap().values().all(|choice| choice != "engine 10 knobs"));
    });
}
