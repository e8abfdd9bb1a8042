//! A run whose steps are one CUDA graph comes to the same bits as one whose operations are launched one by
//! one: weights, running statistics, momentum, losses and metrics, over ends of epochs, evaluations,
//! checkpoints and a stop in the middle of an epoch. The tests are skipped where there is no device.

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

use candle_core::{DType, Result, Tensor};
use invaspread_losses::KeySide;
use invaspread_models::{NetworkConfig, Output, ResNetConfig};
use invaspread_runner::checkpoint::{self, CheckpointFiles};
use invaspread_runner::engine::{Observer, Outcome, Recipe, StepTaken, Stop, train};
use invaspread_runner::methods::{ChosenMethod, Method, MethodSettings, RunFacts, Step};
use invaspread_tensor::cuda::testing::{Counts, on_device};
use invaspread_tensor::cuda::{Switches, algorithms, take_algorithms};
use invaspread_tensor::{DeviceKind, LarsConfig, OptimizerConfig, Precision};
use stripes::{TRAIN, images, invaspread, methods, place, recipe, small};

/// Stops after some steps; keeps the losses and what it is told.
struct Watch {
    left: usize,
    /// After so many steps memory that the recorded step may know counts as replaced.
    replaced_in: Option<usize>,
    stop: Stop,
    losses: Vec<f64>,
    notes: Vec<String>,
}

impl Observer for Watch {
    fn step(&mut self, taken: &StepTaken) {
        self.losses.push(taken.loss);
        if self.replaced_in == Some(self.losses.len()) {
            let device = DeviceKind::Cuda(0).open().unwrap();
            take_algorithms(&device, &algorithms(&device).unwrap()).unwrap();
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.stop.raise();
        }
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// What a run came to.
#[derive(Debug, PartialEq)]
struct Came {
    /// All tensors of the last checkpoint: weights, running statistics with their numbers of batches,
    /// momentum, and the method's state.
    state: BTreeMap<String, Vec<f64>>,
    rows: Vec<(i64, String, String, f64)>,
}

fn go(recipe: &Recipe, folder: &Path, as_graph: bool, steps: usize) -> (Outcome, Watch) {
    let watch =
        Watch { left: steps, replaced_in: None, stop: Stop::new(), losses: Vec::new(), notes: Vec::new() };
    go_with(recipe, folder, as_graph, watch)
}

fn go_with(recipe: &Recipe, folder: &Path, as_graph: bool, mut watch: Watch) -> (Outcome, Watch) {
    Switches { step_as_graph: as_graph, ..Switches::default() }.take();
    let stop = watch.stop.clone();
    let outcome = train(recipe, &place(folder), &images(), &mut watch, &stop, &mut |_| Ok(()));
    Switches::default().take();
    (outcome.unwrap(), watch)
}

fn came(outcome: Outcome, folder: &Path) -> Came {
    let Outcome::Trained(trained) = outcome else { panic!("{outcome:?}") };
    let (state, _): (_, serde_json::Value) = checkpoint::read(&CheckpointFiles::of(folder).state()).unwrap();
    let numbers = |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let timed = |name: &str| name.contains("second");
    let rows = trained.rows.iter().filter(|row| !timed(&row.name));
    Came {
        state: state.iter().map(|(name, x)| (name.clone(), numbers(x))).collect(),
        rows: rows.map(|row| (row.epoch, row.split.clone(), row.name.clone(), row.value)).collect(),
    }
}

/// Returns the names of what differs.
fn differing(a: &Came, b: &Came) -> Vec<String> {
    let of_state =
        a.state.iter().filter(|(name, x)| b.state.get(*name) != Some(x)).map(|(name, _)| name.clone());
    let of_rows = a.rows.iter().filter(|row| !b.rows.contains(row)).map(|row| format!("{row:?}"));
    of_state.chain(of_rows).collect()
}

/// Trains to the end; returns what the run came to, what was said, and the launches of graphs.
fn whole(recipe: &Recipe, as_graph: bool) -> (Came, Watch, u64) {
    let folder = tempfile::tempdir().unwrap();
    let before = Counts::now().unwrap_or_default();
    let (outcome, watch) = go(recipe, folder.path(), as_graph, usize::MAX);
    let launched = Counts::now().unwrap_or_default().since(before).graph_launches;
    (came(outcome, folder.path()), watch, launched)
}

/// Two epochs of five steps, with a rate that changes between them.
fn two_epochs(method: ChosenMethod) -> Recipe {
    Recipe { device: DeviceKind::Cuda(0), epochs: 2, ..recipe(method) }
}

#[test]
fn steps_as_one_graph_change_no_bit() {
    on_device(|_| {
        let emulated = Counts::now().is_some();
        let network = small(4);
        let facts = RunFacts {
            images: TRAIN,
            dim: network.embedding,
            pooled: NetworkConfig::from(network.clone()).pooled(),
            seed: 3,
            epochs: 2,
            batch_size: 8,
            weight_decay: 0.0,
            device: DeviceKind::Cuda(0),
            key_side: KeySide::Detached,
        };
        let (mut repeated, mut others) = (Vec::new(), 0);
        for (name, method) in methods() {
            if !method.build(facts).unwrap().steps_repeat() {
                // One of them shows that the others go on as they were.
                others += usize::from(method.trains());
                if others != 1 {
                    continue;
                }
            }
            let recipe = Recipe { network: network.clone().into(), ..two_epochs(method) };
            let (alone, _, none) = whole(&recipe, false);
            let (graph, watch, launched) = whole(&recipe, true);
            assert_eq!(none, 0);
            assert_eq!(differing(&alone, &graph), Vec::<String>::new(), "{name}");
            if watch.notes.iter().all(|note| !note.contains("CUDA graph")) {
                // Ten steps, of which two are launched before the third.
                assert!(!emulated || launched == 8, "{name}: {launched} launches of graphs");
                repeated.push(name);
            } else {
                assert_eq!(launched, 0, "{name}: {:?}", watch.notes);
            }
        }
        repeated.sort();
        assert_eq!(repeated, ["invaspread_0", "invaspread_1", "triplet_hard_0"]);
    });
}

#[test]
fn a_run_in_bf16_that_stops_in_the_middle_of_an_epoch_goes_on_to_the_same_bits() {
    on_device(|_| {
        let network = ResNetConfig { precision: Precision::Bf16, ..small(8) }.into();
        let recipe = Recipe { network, ..two_epochs(invaspread()) };
        let (alone, ..) = whole(&recipe, false);
        for (first, second) in [(false, false), (true, true), (true, false), (false, true)] {
            let folder = tempfile::tempdir().unwrap();
            // The third step is the first that is launched as a graph.
            let (stopped, watch) = go(&recipe, folder.path(), first, 4);
            assert!(matches!(stopped, Outcome::Stopped { epoch: 0, step: 4 }), "{stopped:?}");
            assert!(watch.losses.iter().all(|loss| loss.is_finite()));
            let (outcome, watch) = go(&recipe, folder.path(), second, usize::MAX);
            assert_eq!(watch.notes, Vec::<String>::new());
            let found = differing(&came(outcome, folder.path()), &alone);
            assert_eq!(found, Vec::<String>::new(), "graphs before and after the stop: {first}, {second}");
        }
    });
}

#[test]
fn a_recorded_step_that_became_invalid_is_recorded_anew() {
    on_device(|_| {
        let recipe = two_epochs(invaspread());
        let (alone, ..) = whole(&recipe, false);
        let folder = tempfile::tempdir().unwrap();
        let before = Counts::now();
        let watch = Watch {
            left: usize::MAX,
            replaced_in: Some(4),
            stop: Stop::new(),
            losses: Vec::new(),
            notes: Vec::new(),
        };
        let (outcome, watch) = go_with(&recipe, folder.path(), true, watch);
        assert_eq!(differing(&came(outcome, folder.path()), &alone), Vec::<String>::new());
        assert_eq!(watch.notes, Vec::<String>::new());
        if let Some(before) = before {
            // Of ten steps the first two and the fifth are launched operation by operation.
            assert_eq!(Counts::now().unwrap().since(before).graph_launches, 7);
        }
    });
}

#[test]
fn a_run_says_why_its_steps_are_not_one_graph() {
    on_device(|_| {
        let lars = OptimizerConfig::Lars(LarsConfig::default());
        let recipe = Recipe { epochs: 1, optimizer: lars, ..two_epochs(invaspread()) };
        let (_, watch, launched) = whole(&recipe, true);
        assert_eq!(launched, 0);
        assert!(
            watch.notes.iter().any(|note| note.contains("the optimizer takes its rate from the host")),
            "{:?}",
            watch.notes
        );
    });
}

invaspread_runner::settings! {
    /// Settings of a method that says that its steps repeat, but waits for the device in each.
    pub struct WaitingSettings {
        /// Unused.
        nothing: usize = 0,
    }
}

impl MethodSettings for WaitingSettings {
    const NAME: &'static str = "waiting";
    const LABEL: &'static str = "Waiting";

    fn build(&self, _: RunFacts) -> Result<Box<dyn Method>> {
        Ok(Box::new(Waiting))
    }
}

struct Waiting;

impl Method for Waiting {
    fn loss(&mut self, output: &mut Output, _: &Step<'_>) -> Result<Tensor> {
        let loss = (&output.projection * &output.projection)?.sum_all()?.affine(1e-3, 0.0)?;
        loss.to_scalar::<f32>()?;
        Ok(loss)
    }

    fn steps_repeat(&self) -> bool {
        true
    }
}

#[test]
fn a_step_that_cannot_be_recorded_is_launched_and_that_is_said_once() {
    on_device(|_| {
        let recipe = two_epochs(ChosenMethod::new(WaitingSettings::default()));
        let (alone, ..) = whole(&recipe, false);
        let (graph, watch, launched) = whole(&recipe, true);
        assert_eq!(differing(&alone, &graph), Vec::<String>::new());
        assert_eq!(launched, 0);
        // The loss of this method also makes the embedding collapse, which is another note.
        let about = watch.notes.iter().filter(|note| note.contains("could not be recorded as a CUDA graph"));
        assert_eq!(about.count(), 1, "{:?}", watch.notes);
    });
}
