//! What goes from a GPU to the host in an epoch: embeddings, neighbours and losses, and no weights unless a checkpoint is due. Counted by the
//! emulated device; skipped elsewhere. One test in a process of its own, because the counts are of the whole process.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use std::time::Duration;

use invaspread_runner::engine::{EpochFinished, Observer, Outcome, Recipe, Stop, train};
use invaspread_tensor::DeviceKind;
use invaspread_tensor::cuda::testing::{Counts, device_or_skip};
use stripes::{TRAIN, images, invaspread, place, recipe, small};

/// Notes what was counted by the end of each epoch.
#[derive(Default)]
struct Traffic(Vec<Counts>);

impl Observer for Traffic {
    fn epoch_finished(&mut self, _event: &EpochFinished) {
        self.0.push(Counts::now().unwrap());
    }
}

/// The bytes to the host in each epoch after the first.
fn bytes_to_host(checkpoint_every: Duration) -> Vec<u64> {
    let recipe = Recipe {
        device: DeviceKind::Cuda(0),
        epochs: 3,
        network: small(4).into(),
        checkpoint_every,
        ..recipe(invaspread())
    };
    let folder = tempfile::tempdir().unwrap();
    let mut traffic = Traffic::default();
    let outcome =
        train(&recipe, &place(folder.path()), &images(), &mut traffic, &Stop::new(), &mut |_| Ok(()));
    assert!(matches!(outcome, Ok(Outcome::Trained(_))), "{outcome:?}");
    let Traffic(counts) = traffic;
    assert_eq!(counts.len(), 4);
    counts.windows(2).map(|pair| pair[1].since(pair[0]).bytes_to_host).collect()
}

#[test]
fn an_epoch_sends_the_host_its_embeddings_neighbours_and_losses_alone() {
    if device_or_skip().is_none() || Counts::now().is_none() {
        return;
    }
    let (dim, tests, steps) = (16, 18, TRAIN / recipe(invaspread()).batch_size);
    let embeddings = (TRAIN + tests) * dim * 4;
    // Ten neighbours are asked for; the device looks for 32 more, so that ties at the end can be told. Each has a number and a similarity.
    let neighbours = tests * (10 + 32) * 8;
    let expected = (embeddings + neighbours + steps * 4) as u64;
    let rare = bytes_to_host(Duration::from_hours(1));
    let (last, between) = rare.split_last().unwrap();
    // A new best epoch's weights stay on the device, but for the means and variances of its batch norms, of 300 channels in all.
    let statistics = 300 * 2 * 4;
    let kept = |bytes: &u64| *bytes == expected || *bytes == expected + statistics;
    assert!(
        between.len() == 2 && between.iter().all(kept),
        "without a checkpoint: {between:?}, not {expected}"
    );
    let each = bytes_to_host(Duration::ZERO);
    let state = each[0] - expected;
    // Weights and running steps go over once, though three files are written from them.
    assert_eq!(each, [expected + state; 3], "with a checkpoint");
    // The last epoch's has the weights of an earlier best epoch with it, if one was better.
    assert!(state > 0 && (expected + state..expected + 2 * state).contains(last), "{last}");
}
