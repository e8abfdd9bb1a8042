//! Every method trains a vision transformer, and gray images; a run that is stopped repeatedly ends like one
//! that was not.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use std::path::Path;

use invaspread_augment::{AugmentConfig, Normalize};
use invaspread_models::{NetworkConfig, ResNetConfig, VitConfig};
use invaspread_runner::engine::{Outcome, Recipe, Stop, Trained, train};
use stripes::{SIDE, StopAfter, images, invaspread, methods, place, recipe, small};

/// Runs a recipe to its end; it is stopped each time after so many steps.
fn run(recipe: &Recipe, folder: &Path, steps: usize) -> Trained {
    for _ in 0..1000 {
        let stop = Stop::new();
        let mut observer = StopAfter { steps, stop: stop.clone() };
        match train(recipe, &place(folder), &images(), &mut observer, &stop, &mut |_| Ok(())).unwrap() {
            Outcome::Trained(trained) => return *trained,
            Outcome::Stopped { .. } => {}
        }
    }
    panic!("no progress")
}

fn vit(channels: usize) -> NetworkConfig {
    let sizes = VitConfig { width: 12, depth: 2, heads: 2, ..VitConfig::tiny() };
    VitConfig { image: SIDE, patch: 4, channels, embedding: 16, ..sizes }.into()
}

fn check(name: &str, recipe: &Recipe) {
    let (alone, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (expected, found) = (run(recipe, alone.path(), usize::MAX), run(recipe, stopped.path(), 4));
    for file in ["last.safetensors", "best.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join("checkpoints").join(file)).unwrap();
        assert!(read(alone.path()) == read(stopped.path()), "{name}: {file} differs");
    }
    assert_eq!(expected.embeddings.test.values, found.embeddings.test.values, "{name}");
    let losses: Vec<f64> =
        expected.rows.iter().filter(|row| row.name == "loss").map(|row| row.value).collect();
    assert!(losses.iter().all(|loss| loss.is_finite()), "{name}: {losses:?}");
}

/// The small views of `SwAV` and DINO have 12 pixels, so their position embeddings are resized.
#[test]
fn every_method_trains_a_vision_transformer() {
    for (name, method) in methods() {
        check(&name, &Recipe { network: vit(3), epochs: 2, ..recipe(method) });
    }
}

#[test]
fn gray_images_train_every_network() {
    let normalize = Normalize { mean: vec![0.48], std: vec![0.24], ..Normalize::default() };
    let augment = AugmentConfig { size: SIDE, normalize, ..AugmentConfig::default() };
    let resnet = ResNetConfig { channels: 1, ..small(8) };
    for network in [resnet.into(), vit(1)] {
        check("gray", &Recipe { network, augment: augment.clone(), epochs: 2, ..recipe(invaspread()) });
    }
}
