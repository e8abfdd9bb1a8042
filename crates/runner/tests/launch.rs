//! A queue of runs on generated images: what is finished is skipped, what was stopped goes on, what fails does not hold up the rest.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use std::path::Path;

use invaspread_data::{DataConfig, SyntheticConfig};
use invaspread_losses::{InvaSpread, Nce};
use invaspread_runner::checkpoint;
use invaspread_runner::engine::{End, Observer, Recipe, RunFinished, Silent, StepTaken, Stop};
use invaspread_runner::launch::{Labels, Planned, Standing, estimate_all, run_all};
use invaspread_runner::methods::MethodRecipe;
use invaspread_runner::record::{MetricsTable, State, load_records};
use stripes::{SIDE, small};

fn planned(row: &str, method: MethodRecipe) -> Planned {
    let mut recipe = Recipe { epochs: 2, ..stripes::recipe(method) };
    recipe.network = small(8).into();
    let synthetic = SyntheticConfig { train: 40, test: 20, image_size: SIDE };
    Planned {
        suite: Some("table1".to_owned()),
        recipe,
        data: DataConfig { synthetic, ..DataConfig::default() },
        config: format!("row = \"{row}\"\n"),
        hash: format!("hash{row}"),
        labels: Labels {
            row: row.to_owned(),
            method: row.to_owned(),
            dataset: "synthetic".to_owned(),
            profile: "smoke".to_owned(),
            device: "cpu".to_owned(),
            model: "resnet18".to_owned(),
            protocol: "code".to_owned(),
            arguments: Vec::new(),
            reduced: true,
        },
    }
}

fn queue() -> Vec<Planned> {
    vec![
        planned("random", MethodRecipe::Random),
        planned("nce", MethodRecipe::Nce { loss: Nce { negatives: 16, ..Nce::default() }, momentum: 0.5 }),
        planned("invaspread", MethodRecipe::invaspread(InvaSpread::default())),
    ]
}

/// Counts steps and endings; raises the flag after some steps.
#[derive(Default)]
struct Watch {
    steps: usize,
    stop_after: Option<usize>,
    stop: Stop,
    ends: Vec<End>,
}

impl Observer for Watch {
    fn step(&mut self, _event: &StepTaken) {
        self.steps += 1;
        if self.stop_after == Some(self.steps) {
            self.stop.raise();
        }
    }

    fn run_finished(&mut self, event: &RunFinished) {
        self.ends.push(event.end.clone());
    }
}

fn go(plan: &[Planned], root: &Path, stop_after: Option<usize>) -> Watch {
    let mut watch = Watch { stop_after, ..Watch::default() };
    let stop = watch.stop.clone();
    run_all(plan, root, &mut watch, &stop);
    watch
}

#[test]
fn finished_runs_are_skipped_and_stopped_ones_go_on() {
    let root = tempfile::tempdir().unwrap();
    let plan = queue();
    assert!(estimate_all(&plan, root.path()).unwrap().len() == 3);

    let first = go(&plan, root.path(), Some(7));
    assert!(
        matches!(first.ends[..], [End::Done { .. }, End::Stopped { epoch: 1, step: 2 }]),
        "{:?}",
        first.ends
    );
    assert_eq!(plan[0].standing(root.path()).unwrap(), Standing::Done);
    assert_eq!(plan[1].standing(root.path()).unwrap(), Standing::Begun { epoch: 1 });
    assert_eq!(plan[2].standing(root.path()).unwrap(), Standing::New);
    let status = plan[1].layout(root.path()).read_status().unwrap().unwrap();
    assert_eq!(status.state, State::Interrupted);
    let left = estimate_all(&plan, root.path()).unwrap();
    assert_eq!(left.iter().map(|workload| workload.index).collect::<Vec<_>>(), [1, 2]);
    assert!(left[0].left < left[0].estimate.total());

    let second = go(&plan, root.path(), None);
    assert!(
        matches!(second.ends[..], [End::AlreadyDone, End::Done { .. }, End::Done { .. }]),
        "{:?}",
        second.ends
    );
    assert_eq!(second.steps, 3 + 10, "5 steps an epoch, 7 of 20 were taken before");

    let third = go(&plan, root.path(), None);
    assert_eq!((third.steps, third.ends), (0, vec![End::AlreadyDone; 3]));
}

#[test]
fn a_finished_run_leaves_all_its_files() {
    let root = tempfile::tempdir().unwrap();
    let plan = queue();
    let reports = run_all(&plan, root.path(), &mut Silent, &Stop::new());
    let records = load_records(root.path()).unwrap();
    assert_eq!(records.len(), 3);
    for (run, report) in plan.iter().zip(&reports) {
        let record = report.record.as_ref().unwrap();
        let layout = run.layout(root.path());
        assert!(records.iter().any(|stored| stored.record == *record));
        assert_eq!((record.suite.as_str(), record.data_state.as_str()), ("table1", "generated"));
        assert_eq!((record.train_images, record.test_images, record.width, record.seed), (40, 20, 8, 3));
        assert_eq!(record.path, format!("table1/{}", run.id()));
        let trained = run.labels.row != "random";
        assert_eq!(
            (record.epochs, record.images_per_second.is_some()),
            (if trained { 2 } else { 0 }, trained)
        );

        let table = MetricsTable::read(&layout.metrics()).unwrap();
        assert_eq!(table.series("test", "knn_top1").len(), if trained { 3 } else { 1 });
        assert_eq!(table.series("train", "loss").len(), if trained { 2 } else { 0 });
        let last = table.series("test", "knn_top1").last().unwrap().1;
        assert_eq!(record.metrics["knn_top1"].last.to_bits(), last.to_bits());
        assert!(record.metrics["knn_top5"].best >= record.metrics["knn_top5"].last);

        let (embeddings, _): (_, serde_json::Value) =
            checkpoint::read(&layout.embeddings().join("train.safetensors")).unwrap();
        assert_eq!(
            (embeddings["embeddings"].dims(), embeddings["labels"].dims()),
            (&[40, 16][..], &[40][..])
        );
        for file in [
            layout.log(),
            layout.environment(),
            layout.config(),
            layout.checkpoints().join("best.safetensors"),
        ] {
            assert!(file.is_file(), "{}", file.display());
        }
        assert_eq!(std::fs::read_dir(layout.tensorboard()).unwrap().count(), 1);
        assert_eq!(layout.read_status().unwrap().unwrap().state, State::Done);
    }
}

#[test]
fn a_run_that_fails_does_not_hold_up_the_others() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = queue();
    plan[1].recipe.batch_size = 1000;
    plan[2].data.name = "no such set".to_owned();
    plan.push(planned("later", MethodRecipe::Random));
    let reports = run_all(&plan, root.path(), &mut Silent, &Stop::new());
    let message = |at: usize| match &reports[at].end {
        End::Failed { message } => message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!((&reports[0].end, &reports[3].end), (End::Done { .. }, End::Done { .. })));
    assert!(message(1).contains("optim.batch_size is 1000") && message(1).contains("40"), "{}", message(1));
    assert!(message(2).contains("no such set"), "{}", message(2));
    let status = plan[1].layout(root.path()).read_status().unwrap().unwrap();
    assert!(status.state == State::Failed && status.message.unwrap().contains("optim.batch_size"));
}

#[test]
fn a_config_that_changed_under_a_half_done_run_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = queue().split_off(2);
    go(&plan, root.path(), Some(2));
    plan[0].config = "row = \"other\"\n".to_owned();
    let found = go(&plan, root.path(), None);
    let [End::Failed { message }] = &found.ends[..] else { panic!("{:?}", found.ends) };
    assert!(
        found.steps == 0 && message.contains("config.toml") && message.contains("row = \"invaspread\""),
        "{message}"
    );
}
