//! What a training step of a ResNet-18 asks of the driver, as the emulated device counts it. Skipped elsewhere.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use invaspread_models::ResNetConfig;
use invaspread_runner::engine::{Observer, Outcome, Recipe, StepTaken, Stop, train};
use invaspread_tensor::cuda::testing::{Counts, device_or_skip};
use invaspread_tensor::{DeviceKind, Precision};
use stripes::{images, invaspread, place, recipe, small};

/// Notes what the device has done at the end of each step.
#[derive(Default)]
struct Steps(Vec<Counts>);

impl Observer for Steps {
    fn step(&mut self, _: &StepTaken) {
        self.0.push(Counts::now().unwrap());
    }
}

#[test]
fn a_step_takes_few_launches() {
    if device_or_skip().is_none() || Counts::now().is_none() {
        return;
    }
    let network = ResNetConfig { precision: Precision::Bf16, ..small(8) }.into();
    let recipe =
        Recipe { device: DeviceKind::Cuda, epochs: 1, evaluate_every: 2, network, ..recipe(invaspread()) };
    let folder = tempfile::tempdir().unwrap();
    let mut steps = Steps::default();
    let outcome =
        train(&recipe, &place(folder.path()), &images(), &mut steps, &Stop::new(), &mut |_| Ok(())).unwrap();
    assert!(matches!(outcome, Outcome::Trained(_)));
    let Steps(counts) = steps;
    assert!(counts.len() >= 4, "{} steps", counts.len());
    for pair in counts.windows(2).skip(1) {
        let step = pair[1].since(pair[0]);
        println!("{step:?}");
        // 59 convolutions and 5 products among the calls of libraries.
        assert!(step.launches + step.library_calls <= 130, "{step:?}");
    }
}
