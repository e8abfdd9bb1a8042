//! A run that is stopped or killed repeatedly ends like one that was not: with the same weights, byte for
//! byte, and the same measurements. This is tested for every method, because each has another state.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use invaspread_augment::AugmentConfig;
use invaspread_models::{InceptionConfig, ResNetConfig};
use invaspread_random::{Purpose, Stream};
use invaspread_runner::engine::{
    EngineError, Images, Outcome, Recipe, RetrievalRecipe, Schedule, Silent, Stop, Trained, train,
};
use invaspread_runner::record::MetricRow;
use invaspread_tensor::Precision;
use stripes::{StopAfter, images, invaspread, methods, nce, place, recipe, small};

fn go(recipe: &Recipe, folder: &Path, steps: usize) -> Result<Outcome, EngineError> {
    let stop = Stop::new();
    if steps == 0 {
        stop.raise();
    }
    let mut observer = StopAfter { steps, stop: stop.clone() };
    train(recipe, &place(folder), &images(), &mut observer, &stop, &mut |_| Ok(()))
}

fn trained(outcome: Outcome) -> Trained {
    match outcome {
        Outcome::Trained(trained) => *trained,
        Outcome::Stopped { epoch, step } => panic!("stopped at epoch {epoch} step {step}"),
    }
}

/// Returns all measurements except times, which may differ if the run is stopped.
fn measurements(rows: &[MetricRow]) -> Vec<(i64, i64, String, String, u64)> {
    rows.iter()
        .filter(|row| row.name != "images_per_second" && row.name != "wait_seconds")
        .map(|row| (row.epoch, row.step, row.split.clone(), row.name.clone(), row.value.to_bits()))
        .collect()
}

fn assert_same_files(a: &Path, b: &Path, what: &str) {
    for name in ["last.safetensors", "best.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join("checkpoints").join(name)).unwrap();
        assert!(read(a) == read(b), "{what}: {name} differs");
    }
}

/// Runs a recipe twice, once stopped at random steps, and compares everything that the runs leave.
fn check_stopped_at_random_steps(name: &str, recipe: &Recipe) {
    let trains = recipe.method.trains();
    let (alone, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = trained(go(recipe, alone.path(), usize::MAX).unwrap());
    let mut delays = Stream::new(1, Purpose::Bootstrap, 0, 0);
    let mut stops = 0;
    let found = loop {
        match go(recipe, stopped.path(), delays.below(5)).unwrap() {
            Outcome::Trained(trained) => break *trained,
            Outcome::Stopped { .. } => stops += 1,
        }
        assert!(stops < 1000, "{name} makes no progress");
    };
    assert!(stops >= 3 || !trains, "{name} was stopped {stops} times only");
    assert_same_files(alone.path(), stopped.path(), name);
    assert_eq!(measurements(&expected.rows), measurements(&found.rows), "{name}");
    assert_eq!(expected.embeddings.test.values, found.embeddings.test.values, "{name}");
    assert_eq!((expected.last, expected.best), (found.last, found.best), "{name}");
    assert_eq!(expected.rows.iter().filter(|row| row.name == "knn_top1").count(), if trains { 4 } else { 1 });
}

#[test]
fn a_run_stopped_at_random_steps_ends_as_one_left_alone() {
    for (name, method) in methods() {
        check_stopped_at_random_steps(&name, &recipe(method));
    }
}

/// The widths make all kernels run: those of 16 channels, and those of others.
#[test]
fn a_run_in_bf16_stopped_at_random_steps_ends_as_one_left_alone() {
    for width in [8, 16] {
        let network = ResNetConfig { precision: Precision::Bf16, ..small(width) }.into();
        check_stopped_at_random_steps("bf16", &Recipe { network, ..recipe(invaspread()) });
    }
}

/// One step shows how bf16 rounds; five steps with batch norms over few rows magnify any rounding, so they show
/// only that training goes on. The bounds are those of bf16 on a GPU.
#[test]
fn a_run_in_bf16_stays_near_one_in_f32() {
    for (batch_size, most_of_loss, least_cosine) in [(40, 5e-3, 0.9999), (8, 0.05, 0.9)] {
        let mut single = Recipe { epochs: 1, batch_size, ..recipe(invaspread()) };
        single.schedule = Schedule::by_factors(0.003, vec![]);
        let run = |precision| {
            let folder = tempfile::tempdir().unwrap();
            let network = ResNetConfig { precision, ..small(16) }.into();
            let run = trained(go(&Recipe { network, ..single.clone() }, folder.path(), usize::MAX).unwrap());
            let loss = run.rows.iter().find(|row| row.name == "loss").unwrap().value;
            (loss, run.embeddings.test)
        };
        let ((a, wide), (b, half)) = (run(Precision::F32), run(Precision::Bf16));
        assert!((a - b).abs() < most_of_loss * a, "{batch_size}: losses {a} and {b}");
        assert!(wide.values != half.values, "{batch_size}: bf16 rounds");
        for (a, b) in wide.values.chunks(wide.dim).zip(half.values.chunks(half.dim)) {
            let cosine: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!(cosine > least_cosine, "{batch_size}: a cosine of {cosine}");
        }
    }
}

/// A network without batch norm: biases, local response norms, maximum pools and joined maps.
#[test]
fn inception_trains_in_bf16_as_in_f32() {
    let losses = [Precision::F32, Precision::Bf16].map(|precision| {
        let folder = tempfile::tempdir().unwrap();
        let network = InceptionConfig { embedding: 16, precision, ..InceptionConfig::default() }.into();
        let augment = AugmentConfig { size: 64, ..AugmentConfig::default() };
        let recipe = Recipe { network, augment, epochs: 1, ..recipe(invaspread()) };
        let run = trained(go(&recipe, folder.path(), usize::MAX).unwrap());
        run.rows.into_iter().filter(|row| row.name == "loss").map(|row| row.value).collect::<Vec<_>>()
    });
    let [wide, half] = &losses;
    assert_ne!(wide, half);
    for (a, b) in wide.iter().zip(half) {
        assert!((a - b).abs() < 0.05 * a, "{losses:?}");
    }
}

/// With checkpoints further apart than epochs, a run that ends without a checkpoint repeats the epochs since
/// the last one and reports the same rows again. The run ends by an error in the function that receives its
/// rows, because a test can time this, unlike a kill.
#[test]
fn a_run_repeats_the_epochs_since_its_last_checkpoint() {
    for (name, method) in methods().into_iter().filter(|(_, method)| method.trains()) {
        let each = Recipe { epochs: 4, ..recipe(method) };
        let rare = Recipe { checkpoint_every: Duration::from_hours(1), ..each.clone() };
        let (alone, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = trained(go(&each, alone.path(), usize::MAX).unwrap());
        let until = |epoch: i64| {
            let mut seen = Vec::new();
            let mut rows_of = |rows: &[MetricRow]| {
                seen = rows.to_vec();
                if rows.last().is_some_and(|row| row.epoch >= epoch) {
                    return Err(EngineError::TooFewImages { images: 0, batch_size: 0 });
                }
                Ok(())
            };
            let outcome =
                train(&rare, &place(broken.path()), &images(), &mut Silent, &Stop::new(), &mut rows_of);
            assert!(matches!(outcome, Err(EngineError::TooFewImages { .. })), "{name}: {outcome:?}");
            seen
        };
        let epoch_of = |name| -> i64 {
            let path = broken.path().join("checkpoints").join(name);
            let (_, header): (_, serde_json::Value) = invaspread_runner::checkpoint::read(&path).unwrap();
            header["epoch"].as_i64().unwrap()
        };
        let before = until(3);
        // There is a checkpoint before the first epoch, and the next one comes only at the end.
        assert_eq!(epoch_of("last.safetensors"), 0, "{name}");
        let again = until(2);
        assert!(!again.is_empty() && before.len() > again.len());
        let (before, again) = (measurements(&before), measurements(&again));
        assert_eq!(again, before[..again.len()], "{name}: the repeated epochs measure the same");
        // A stop writes a checkpoint at once, including the best weights of an earlier epoch.
        assert!(
            matches!(go(&rare, broken.path(), 12).unwrap(), Outcome::Stopped { epoch: 2, step: 2 }),
            "{name}"
        );
        assert!(epoch_of("best.safetensors") <= 2 && epoch_of("last.safetensors") == 2, "{name}");
        let found = trained(go(&rare, broken.path(), usize::MAX).unwrap());
        assert_same_files(alone.path(), broken.path(), &name);
        assert_eq!(measurements(&expected.rows), measurements(&found.rows), "{name}");
        assert_eq!((expected.last, expected.best), (found.last, found.best), "{name}");
    }
}

/// A checkpoint that cannot be written ends the run, although a thread writes it.
#[test]
fn a_write_that_fails_ends_the_run_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let files = place(folder.path()).checkpoints;
    // A folder is in the place of the file, and no rename can replace it.
    std::fs::create_dir_all(files.best().join("in the way")).unwrap();
    let error = go(&recipe(invaspread()), folder.path(), usize::MAX).unwrap_err().to_string();
    assert!(error.contains("failed to write") && error.contains("best.safetensors"), "{error}");
    assert!(files.state().is_file(), "the checkpoint before it is whole");
}

#[test]
fn classes_never_trained_on_are_measured_by_retrieval() {
    let recipe = Recipe {
        retrieval: RetrievalRecipe { recall_at: vec![1, 4], kmeans_restarts: 2, ..Default::default() },
        ..recipe(invaspread())
    };
    let unseen = Images { gallery: None, ..images() };
    let go = |folder: &Path, steps| {
        let stop = Stop::new();
        let mut observer = StopAfter { steps, stop: stop.clone() };
        train(&recipe, &place(folder), &unseen, &mut observer, &stop, &mut |_| Ok(())).unwrap()
    };
    let (alone, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = trained(go(alone.path(), usize::MAX));
    assert!(matches!(go(stopped.path(), 7), Outcome::Stopped { epoch: 1, step: 2 }));
    let found = trained(go(stopped.path(), usize::MAX));
    assert_same_files(alone.path(), stopped.path(), "retrieval");
    assert_eq!(measurements(&expected.rows), measurements(&found.rows));
    // A run that is started again after its last epoch measures the same.
    assert_eq!(trained(go(alone.path(), usize::MAX)).last, expected.last);

    let of = |name: &str| expected.rows.iter().filter(|row| row.name == name).count();
    assert_eq!(["recall_at_1", "recall_at_4", "map_at_r", "r_precision"].map(of), [4; 4]);
    assert_eq!(["nmi_geometric", "nmi_arithmetic", "ami", "knn_top1"].map(of), [1, 1, 1, 0]);
    assert!(expected.last.get("recall_at_4").unwrap() >= expected.last.get("recall_at_1").unwrap());
    assert_eq!(expected.last.headline().unwrap().0, "recall_at_1");
    assert!(expected.embeddings.gallery.is_none());
}

#[test]
fn training_moves_the_weights_and_lowers_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe { epochs: 6, ..recipe(invaspread()) };
    let trained = trained(go(&recipe, folder.path(), usize::MAX).unwrap());
    let losses: Vec<f64> =
        trained.rows.iter().filter(|row| row.name == "loss").map(|row| row.value).collect();
    assert!(losses.len() == 6 && losses[5] < losses[0], "{losses:?}");
    let rates: Vec<f64> = trained.rows.iter().filter(|row| row.name == "lr").map(|row| row.value).collect();
    assert!((rates[1] - 0.03).abs() < 1e-15 && (rates[2] - 0.003).abs() < 1e-15, "{rates:?}");
}

#[test]
fn no_thread_count_changes_a_byte() {
    let recipe = Recipe { epochs: 1, ..recipe(invaspread()) };
    let run = |threads| {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| go(&recipe, folder.path(), usize::MAX)).unwrap();
        folder
    };
    let (one, two) = (run(1), run(2));
    assert_same_files(one.path(), two.path(), "1 and 2 threads");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe { schedule: Schedule::by_factors(0.03, vec![(1, 1e30)]), ..recipe(invaspread()) };
    let error = go(&recipe, folder.path(), usize::MAX).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("of epoch 2") && message.contains("optim.lr"), "{message}");
    let (_, header): (_, serde_json::Value) =
        invaspread_runner::checkpoint::read(&place(folder.path()).checkpoints.last()).unwrap();
    assert_eq!(header["epoch"], 1);
}

#[test]
fn checkpoints_that_are_damaged_or_of_another_run_are_errors() {
    let recipe_a = recipe(invaspread());
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(go(&recipe_a, folder.path(), 2).unwrap(), Outcome::Stopped { epoch: 0, step: 2 }));
    let state = place(folder.path()).checkpoints.state();
    let whole = std::fs::read(&state).unwrap();

    let wider = Recipe { network: small(16).into(), ..recipe_a.clone() };
    let message = go(&wider, folder.path(), 2).unwrap_err().to_string();
    assert!(
        message.contains("last.state.safetensors") && message.contains("does not fit this run"),
        "{message}"
    );
    let other = recipe(nce(4096));
    let message = go(&other, folder.path(), 2).unwrap_err().to_string();
    assert!(message.contains("memory") && message.contains("delete the run's folder"), "{message}");

    std::fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    let message = go(&recipe_a, folder.path(), 2).unwrap_err().to_string();
    assert!(
        message.contains("last.state.safetensors is damaged") && message.contains("delete the run's folder"),
        "{message}"
    );
}

/// Runs in the killed process; does nothing unless the test below started it.
#[test]
fn child() {
    let Ok(folder) = std::env::var("INVASPREAD_TEST_CHILD") else { return };
    let method =
        methods().into_iter().find(|(name, _)| *name == std::env::var("INVASPREAD_TEST_METHOD").unwrap());
    trained(go(&recipe(method.unwrap().1), Path::new(&folder), usize::MAX).unwrap());
}

#[test]
fn a_run_killed_at_random_moments_ends_as_one_left_alone() {
    for (name, method) in methods().into_iter().filter(|(_, method)| method.trains()) {
        let name = name.as_str();
        let (alone, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = std::time::Instant::now();
        trained(go(&recipe(method.clone()), alone.path(), usize::MAX).unwrap());
        let whole = from.elapsed();
        let mut delays = Stream::new(2, Purpose::Bootstrap, 0, 0);
        let child = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child", "--nocapture"])
                .env("INVASPREAD_TEST_CHILD", killed.path())
                .env("INVASPREAD_TEST_METHOD", name)
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        // Ten kills, of which some come before the first checkpoint and some in the middle of writing one.
        for _ in 0..10 {
            let mut child = child();
            std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * delays.between(0.05, 0.6)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(child().wait().unwrap().success());
        assert_same_files(alone.path(), killed.path(), name);
        // Resuming a finished run changes nothing and returns all measurements.
        let again = trained(go(&recipe(method.clone()), killed.path(), usize::MAX).unwrap());
        let expected = tempfile::tempdir().unwrap();
        let expected = trained(go(&recipe(method), expected.path(), usize::MAX).unwrap());
        assert_eq!(measurements(&again.rows), measurements(&expected.rows), "{name}");
    }
}

/// If a step makes the weights infinite while its own loss is still a number, the run ends with an error that
/// names a tensor. The checkpoint before the step is unchanged, so that the run can still resume.
#[test]
fn a_state_that_is_not_finite_is_never_written() {
    let method = || invaspread();
    let broken = Recipe { schedule: Schedule::by_factors(1e39, Vec::new()), ..recipe(method()) };
    let folder = tempfile::tempdir().unwrap();
    let files = place(folder.path()).checkpoints;
    assert!(matches!(
        go(&recipe(method()), folder.path(), 1).unwrap(),
        Outcome::Stopped { epoch: 0, step: 1 }
    ));
    let before = [files.state(), files.last()].map(|path| std::fs::read(path).unwrap());
    let error = go(&broken, folder.path(), 1).unwrap_err();
    let EngineError::NotFinite { what, epoch, step, .. } = &error else { panic!("{error}") };
    assert!(what.starts_with("weights/"), "{error}");
    assert_eq!((*epoch, *step), (1, 2), "{error}");
    let after = [files.state(), files.last()].map(|path| std::fs::read(path).unwrap());
    assert!(before == after);
}
