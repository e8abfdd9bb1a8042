//! Counts the calls of the driver in a training step of a ResNet-18, on the emulated device. The tests are
//! skipped elsewhere.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use candle_core::{DType, Tensor};
use invaspread_models::{Mode, Network, ResNetConfig};
use invaspread_runner::engine::{Observer, Outcome, Recipe, StepTaken, Stop, train};
use invaspread_tensor::cuda::Switches;
use invaspread_tensor::cuda::testing::{Counts, graph_descriptors, on_device};
use invaspread_tensor::{DeviceKind, Precision};
use stripes::{images, invaspread, place, recipe, small};

/// Notes what the device has done at the end of each step, and the descriptors of cuDNN's graphs that were
/// made.
#[derive(Default)]
struct Steps(Vec<(Counts, u64)>);

impl Observer for Steps {
    fn step(&mut self, _: &StepTaken) {
        self.0.push((Counts::now().unwrap(), graph_descriptors().unwrap()[0]));
    }
}

/// Trains an epoch of a ResNet-18 in bf16; returns what the device had done at the end of each step.
fn steps() -> Vec<(Counts, u64)> {
    let network = ResNetConfig { precision: Precision::Bf16, ..small(8) }.into();
    let recipe =
        Recipe { device: DeviceKind::Cuda(0), epochs: 1, evaluate_every: 2, network, ..recipe(invaspread()) };
    let folder = tempfile::tempdir().unwrap();
    let mut steps = Steps::default();
    let outcome =
        train(&recipe, &place(folder.path()), &images(), &mut steps, &Stop::new(), &mut |_| Ok(())).unwrap();
    assert!(matches!(outcome, Outcome::Trained(_)));
    let Steps(counts) = steps;
    assert!(counts.len() >= 4, "{} steps", counts.len());
    counts
}

#[test]
fn a_step_takes_few_launches() {
    on_device(|_| {
        if Counts::now().is_none() {
            return;
        }
        for pair in steps().windows(2).skip(1) {
            let [(before, descriptors_before), (after, descriptors_after)] = [pair[0], pair[1]];
            let step = after.since(before);
            // 20 convolutions forward, 20 and 19 backward; the head's and the loss's products.
            assert!(step.library_calls <= 59 + 6, "{step:?}");
            // A batch norm is one launch in each direction; everything else is under two dozen.
            assert!(step.launches + step.copies_on_device <= 40 + 23, "{step:?}");
            assert!(step.launches + step.library_calls + step.copies_on_device <= 130, "{step:?}");
            // A step uses only memory that earlier steps freed, and copies only the loss to the host.
            assert_eq!(step.allocations, 0, "{step:?}");
            assert!(step.allocator_calls <= 165, "{step:?}");
            assert_eq!((step.copies_to_host, step.bytes_to_host), (1, 4), "{step:?}");
            assert_eq!((step.copies_to_device, step.graph_launches), (0, 0), "{step:?}");
            // Plans are kept; for addresses that a plan has not run on, cuDNN takes one descriptor.
            let descriptors = descriptors_after - descriptors_before;
            assert!(descriptors <= 59, "{descriptors} descriptors");
        }
    });
}

#[test]
fn a_step_as_a_graph_is_one_launch_and_allocates_nothing() {
    on_device(|_| {
        if Counts::now().is_none() {
            return;
        }
        Switches { step_as_graph: true, ..Switches::default() }.take();
        let counts = steps();
        Switches::default().take();
        // The second step is recorded once it was taken.
        for pair in counts.windows(2).skip(1) {
            let [(before, descriptors_before), (after, descriptors_after)] = [pair[0], pair[1]];
            let step = after.since(before);
            assert_eq!(descriptors_after, descriptors_before);
            assert!((100..=130).contains(&step.graph_nodes), "{step:?}");
            let rest = Counts { graph_launches: 0, graph_nodes: 0, ..step };
            assert_eq!((step.graph_launches, rest), (1, Counts::default()), "{step:?}");
        }
    });
}

#[test]
fn evaluation_copies_no_map_and_launches_one_kernel_for_each_batch_norm() {
    on_device(|device| {
        if Counts::now().is_none() {
            return;
        }
        let network =
            Network::on(device, ResNetConfig { precision: Precision::Bf16, ..small(8) }, 1).unwrap();
        let x = Tensor::ones((2, 16, 16, 3), DType::F32, device).unwrap();
        network.forward(&x, Mode::Evaluate).unwrap();
        let before = Counts::now().unwrap();
        network.forward(&x, Mode::Evaluate).unwrap();
        let pass = Counts::now().unwrap().since(before);
        assert_eq!((pass.copies_on_device, pass.copies_to_host, pass.allocations), (0, 0, 0), "{pass:?}");
        // There are 20 convolutions and the head. Each convolution needs a launch for the conversion of its
        // weights (no optimizer keeps them here) and one for its batch norm.
        assert_eq!(pass.library_calls, 21, "{pass:?}");
        assert!(pass.launches <= 40 + 5, "{pass:?}");
    });
}
