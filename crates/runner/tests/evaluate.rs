//! Tests of the evaluation of a file of weights, and of the estimate of a run's time.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use invaspread_runner::engine::{Outcome, Recipe, Silent, Stop, estimate, evaluate, open_weights, train};
use stripes::{images, invaspread, methods, place, recipe, small};

fn small_run() -> Recipe {
    recipe(invaspread())
}

#[test]
fn a_checkpoint_scores_what_its_run_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    let outcome = train(&small_run(), &place, &images(), &mut Silent, &Stop::new(), &mut |_| Ok(())).unwrap();
    let Outcome::Trained(trained) = outcome else { panic!("nothing stopped it") };
    for file in [place.checkpoints.last(), place.checkpoints.state()] {
        let found = evaluate(&small_run(), &images(), &open_weights(&file).unwrap(), None).unwrap();
        assert_eq!(found.measured, trained.last);
        assert_eq!(found.embeddings.test.values, trained.embeddings.test.values);
    }
    let best =
        evaluate(&small_run(), &images(), &open_weights(&place.checkpoints.best()).unwrap(), None).unwrap();
    assert_eq!(best.measured.headline(), Some(("knn_top1", trained.best.headline)));

    let wider = Recipe { network: small(16).into(), ..small_run() };
    let last = open_weights(&place.checkpoints.last()).unwrap();
    let message = evaluate(&wider, &images(), &last, None).unwrap_err().to_string();
    assert!(message.contains("last.safetensors") && message.contains("bn1.weight: found ["), "{message}");
    let message = open_weights(&folder.path().join("no.safetensors")).unwrap_err().to_string();
    assert!(message.contains("no.safetensors"), "{message}");
}

#[test]
fn the_estimate_is_of_the_order_of_the_run() {
    for (name, method) in methods() {
        let trains = method.trains();
        let recipe = recipe(method);
        let estimate = estimate(&recipe, &images()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let from = Instant::now();
        train(&recipe, &place(folder.path()), &images(), &mut Silent, &Stop::new(), &mut |_| Ok(())).unwrap();
        let (took, expected) = (from.elapsed(), estimate.total());
        // Other tests run at the same time and the run also writes files, so only the order of magnitude is
        // checked.
        let slack = Duration::from_millis(500);
        assert!(
            took < 10 * expected + slack && expected < 10 * took + slack,
            "{name}: {expected:?}, took {took:?}"
        );
        if trains {
            assert_eq!((estimate.steps, estimate.epochs, estimate.evaluations), (5, 3, 4));
            assert!(estimate.left(2, 4) < estimate.left(1, 0) && estimate.left(1, 0) < estimate.total());
        }
    }
}

/// Weights with a NaN anywhere are an error and are not measured.
#[test]
fn weights_with_a_nan_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    let stop = Stop::new();
    let recipe = Recipe { epochs: 0, ..small_run() };
    train(&recipe, &place, &images(), &mut Silent, &stop, &mut |_| Ok(())).unwrap();
    let sound = candle_core::safetensors::load(place.checkpoints.last(), &Device::Cpu).unwrap();
    let broken = folder.path().join("broken.safetensors");
    let mut tried = 0;
    for (name, tensor) in &sound {
        if tensor.dtype() != DType::F32 {
            continue;
        }
        let mut tensors = sound.clone();
        let mut values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let middle = values.len() / 2;
        values[middle] = f32::NAN;
        tensors.insert(name.clone(), Tensor::from_vec(values, tensor.shape(), &Device::Cpu).unwrap());
        candle_core::safetensors::save(&tensors, &broken).unwrap();
        let message = match open_weights(&broken) {
            Err(error) => error.to_string(),
            Ok(weights) => evaluate(&recipe, &images(), &weights, None).unwrap_err().to_string(),
        };
        assert!(message.contains(name) && message.contains("NaN"), "{name}: {message}");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}
