//! Counts the bytes that go from a GPU to the host in an epoch: votes or the scores of retrieval, losses, a
//! sample of embeddings, all embeddings in the last epoch, and no weights unless a checkpoint is due. The
//! emulated device counts them; elsewhere the test is skipped. It is the only test of its process, because the
//! counts are those of the whole process.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use std::time::Duration;

use invaspread_runner::engine::{EpochFinished, Images, Observer, Outcome, Recipe, Stop, train};
use invaspread_tensor::DeviceKind;
use invaspread_tensor::cuda::testing::{Counts, device_or_skip};
use stripes::{TRAIN, images, invaspread, place, recipe, small};

/// Keeps the counts at the end of each epoch.
#[derive(Default)]
struct Traffic(Vec<Counts>);

impl Observer for Traffic {
    fn epoch_finished(&mut self, _event: &EpochFinished) {
        self.0.push(Counts::now().unwrap());
    }
}

/// Returns the bytes to the host in each epoch.
fn bytes_to_host(checkpoint_every: Duration, images: &Images) -> Vec<u64> {
    let recipe = Recipe {
        device: DeviceKind::Cuda(0),
        epochs: 3,
        network: small(4).into(),
        checkpoint_every,
        ..recipe(invaspread())
    };
    let folder = tempfile::tempdir().unwrap();
    let mut traffic = Traffic::default();
    let outcome = train(&recipe, &place(folder.path()), images, &mut traffic, &Stop::new(), &mut |_| Ok(()));
    assert!(matches!(outcome, Ok(Outcome::Trained(_))), "{outcome:?}");
    let Traffic(counts) = traffic;
    assert_eq!(counts.len(), 4);
    counts.windows(2).map(|pair| pair[1].since(pair[0]).bytes_to_host).collect()
}

#[test]
fn an_epoch_sends_the_host_its_results_and_losses_alone() {
    if device_or_skip().is_none() || Counts::now().is_none() {
        return;
    }
    let (dim, tests, losses) = (16, 18, TRAIN / recipe(invaspread()).batch_size * 4);
    // The class and the rank of each test image, and what the search must know of the gallery, in f64: its
    // column means, two squares and a distance; and two sizes without its offset, as so young a network has
    // one.
    let votes = tests * 8 + (dim + 3 + 2) * 8;
    // In the last epoch the host measures the embeddings, which it keeps. It asks for ten neighbors; the
    // device looks for 32 more, to recognize ties at the end. Each neighbor is a number and a similarity.
    let embeddings = (TRAIN + tests) * dim * 4 + tests * (10 + 32) * 8;
    // The shape of the embedding is measured from all of so few test images, and from two views of each.
    let shape = 3 * tests * dim * 4;
    let (between_epochs, at_the_end) =
        ((votes + losses + shape) as u64, (embeddings + losses + shape) as u64);
    let rare = bytes_to_host(Duration::from_hours(1), &images());
    let (last, between) = rare.split_last().unwrap();
    // The weights of a new best epoch stay on the device, except for the means and variances of the batch
    // norms, which have 300 channels in all.
    let statistics = 300 * 2 * 4;
    let kept = |bytes: &u64| *bytes == between_epochs || *bytes == between_epochs + statistics;
    assert!(
        between.len() == 2 && between.iter().all(kept),
        "without a checkpoint: {between:?}, not {between_epochs}"
    );
    let each = bytes_to_host(Duration::ZERO, &images());
    let state = each[0] - between_epochs;
    // The state goes to the host once, although three files are written from it.
    assert_eq!(
        each,
        [between_epochs + state, between_epochs + state, at_the_end + state],
        "with a checkpoint"
    );
    // The last checkpoint also has the weights of an earlier epoch if that was the best.
    assert!(state > 0 && (at_the_end + state..at_the_end + 2 * state).contains(last), "{last}");

    // Without a gallery: the place of the first hit, the hits and their precisions of each test image, in f64.
    let scores = tests * 3 * 8 + (dim + 3 + 2) * 8;
    let retrieval = bytes_to_host(Duration::from_hours(1), &Images { gallery: None, ..images() });
    let between_epochs = (scores + losses + shape) as u64;
    let kept = |bytes: &u64| *bytes == between_epochs || *bytes == between_epochs + statistics;
    assert!(retrieval[..2].iter().all(kept), "retrieval: {retrieval:?}, not {between_epochs}");
}
