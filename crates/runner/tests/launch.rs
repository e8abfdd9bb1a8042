//! A queue of runs on generated images: finished runs are skipped, stopped runs resume, and a run that fails
//! does not stop the others.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod queue;
mod stripes;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use invaspread_runner::checkpoint;
use invaspread_runner::engine::{End, Observer, RunFinished, Silent, StepTaken, Stop};
use invaspread_runner::launch::{Planned, Standing, Workload, damaged_results, estimate_all, run_all};
use invaspread_runner::record::{MetricsTable, RunDirectory, State, Status, load_records};
use queue::{Watch, go, nce, planned, queue};
use stripes::random;

fn estimates(plan: &[Planned], root: &Path) -> Vec<Workload> {
    let standings: Vec<_> = plan.iter().map(|run| run.standing(root)).collect();
    estimate_all(plan, &standings, root, || ()).unwrap()
}

#[test]
fn finished_runs_are_skipped_and_stopped_ones_go_on() {
    let root = tempfile::tempdir().unwrap();
    let plan = queue();
    assert!(estimates(&plan, root.path()).len() == 3);

    let first = go(&plan, root.path(), Some(7));
    assert!(
        matches!(first.ends[..], [End::Done { .. }, End::Stopped { epoch: 1, step: 2 }]),
        "{:?}",
        first.ends
    );
    assert_eq!(plan[0].standing(root.path()).unwrap(), Standing::Done);
    assert_eq!(plan[1].standing(root.path()).unwrap(), Standing::Begun { epoch: 1 });
    assert_eq!(plan[2].standing(root.path()).unwrap(), Standing::New);
    let status = Status::read(&plan[1].layout(root.path())).unwrap().unwrap();
    assert_eq!(status.state, State::Interrupted);
    let left = estimates(&plan, root.path());
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
        let trained = run.recipe.method.trains();
        assert_eq!(
            (record.epochs, record.images_per_second.is_some()),
            (if trained { 2 } else { 0 }, trained)
        );
        let known = record.training_processor_seconds.is_some_and(|seconds| seconds > 0.0);
        assert_eq!(known, trained && cfg!(unix));

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
        assert_eq!(Status::read(&layout).unwrap().unwrap().state, State::Done);
    }
}

#[test]
fn a_run_that_fails_does_not_hold_up_the_others() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = queue();
    plan[1].recipe.batch_size = 1000;
    plan[2].data.name = "no such set".to_owned();
    plan.push(planned("later", random()));
    let reports = run_all(&plan, root.path(), &mut Silent, &Stop::new());
    let message = |at: usize| match &reports[at].end {
        End::Failed { message } => message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!((&reports[0].end, &reports[3].end), (End::Done { .. }, End::Done { .. })));
    assert!(message(1).contains("optim.batch_size is 1000") && message(1).contains("40"), "{}", message(1));
    assert!(message(2).contains("no such set"), "{}", message(2));
    let status = Status::read(&plan[1].layout(root.path())).unwrap().unwrap();
    assert!(status.state == State::Failed && status.message.unwrap().contains("optim.batch_size"));
}

#[test]
fn a_config_that_changed_under_a_half_done_run_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = queue().split_off(2);
    go(&plan, root.path(), Some(2));
    plan[0].config = "row = \"other\"\n".into();
    let found = go(&plan, root.path(), None);
    let [End::Failed { message }] = &found.ends[..] else { panic!("{:?}", found.ends) };
    assert!(
        found.steps == 0 && message.contains("config.toml") && message.contains("row = \"invaspread\""),
        "{message}"
    );
}

#[test]
fn a_status_that_is_damaged_or_a_checkpoint_that_is_gone_is_said() {
    let root = tempfile::tempdir().unwrap();
    let plan = [nce()];
    let layout = plan[0].layout(root.path());
    go(&plan, root.path(), Some(7));
    std::fs::write(layout.status(), b"{\"state\": \"inter").unwrap();
    assert_eq!(plan[0].standing(root.path()).unwrap(), Standing::Begun { epoch: 0 });
    let found = go(&plan, root.path(), Some(1));
    assert!(matches!(found.ends[..], [End::Stopped { epoch: 1, step: 3 }]), "{:?}", found.ends);
    assert!(found.notes.iter().any(|note| note.contains("status.json is damaged")), "{:?}", found.notes);

    std::fs::remove_file(layout.checkpoints().join("last.state.safetensors")).unwrap();
    let found = go(&plan, root.path(), Some(1));
    assert!(matches!(found.ends[..], [End::Stopped { epoch: 0, step: 1 }]), "{:?}", found.ends);
    let said =
        |note: &String| note.contains("1 epoch was trained before") && note.contains("from the beginning");
    assert!(found.notes.iter().any(said), "{:?}", found.notes);
}

/// The words of the error, and a function that puts something in the place of a run's folder or of a file in
/// it.
type Obstacle = (&'static str, fn(&Path));

#[cfg(unix)]
fn pipe(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// An error names what is in the place of a run's files, and the other runs go on.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let obstacles: [Obstacle; 7] = [
        ("a file is where a folder was expected", |folder| std::fs::write(folder, b"").unwrap()),
        ("a link that leads nowhere", |folder| std::os::unix::fs::symlink("nowhere", folder).unwrap()),
        ("a folder is where a file was expected", |folder| {
            std::fs::create_dir_all(folder.join("status.json")).unwrap();
        }),
        ("something else has that name", |folder| {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("embeddings"), b"").unwrap();
        }),
        ("found a pipe", |folder| pipe(&folder.join("lease-000001"))),
        ("found a pipe", |folder| pipe(&folder.join("files.json"))),
        ("found a pipe", |folder| pipe(&folder.join("checkpoints/last.state.safetensors"))),
    ];
    for (said, obstacle) in obstacles {
        let root = tempfile::tempdir().unwrap();
        let plan = [planned("random", random()), planned("other", random())];
        let folder = plan[0].layout(root.path()).folder().to_path_buf();
        std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
        obstacle(&folder);
        let found = go(&plan, root.path(), None);
        let [End::Failed { message }, End::Done { .. }] = &found.ends[..] else { panic!("{:?}", found.ends) };
        assert!(message.contains(said) && message.contains(&folder.display().to_string()), "{message}");
    }
}

/// Names the folder that a process of a test below is to work in; without it, that test does nothing.
const ROOT: &str = "INVASPREAD_TEST_ROOT";

fn process(test: &str, root: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ROOT, root).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// Works through the queue as one of several processes, and writes the number of its steps to a file.
#[test]
fn one_of_several() {
    let Some(root) = std::env::var_os(ROOT).map(PathBuf::from) else { return };
    let found = go(&queue(), &root, None);
    assert_eq!(found.ends.len(), 3);
    assert!(
        found.ends.iter().all(|end| matches!(end, End::Done { .. } | End::AlreadyDone)),
        "{:?}",
        found.ends
    );
    std::fs::write(root.join(format!("steps-{}", std::process::id())), found.steps.to_string()).unwrap();
}

/// Trains one epoch and then holds the run without training further.
struct Halted;

impl Observer for Halted {
    fn step(&mut self, event: &StepTaken) {
        if event.epoch == 2 {
            std::thread::sleep(Duration::from_mins(5));
        }
    }
}

/// Begins a run and does not end it.
#[test]
fn first_of_two() {
    let Some(root) = std::env::var_os(ROOT).map(PathBuf::from) else { return };
    run_all(&[nce()], &root, &mut Halted, &Stop::new());
}

#[test]
fn several_processes_share_a_queue_and_nothing_is_trained_twice() {
    let root = tempfile::tempdir().unwrap();
    let mut processes: Vec<Child> = (0..4).map(|_| process("one_of_several", root.path())).collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success(), "each waits for what the others do, and is content");
    }
    let steps = |process: &Child| {
        let path = root.path().join(format!("steps-{}", process.id()));
        std::fs::read_to_string(path).unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(processes.iter().map(steps).sum::<usize>(), 20, "two runs of two epochs of five steps");
    for run in queue() {
        assert_eq!(run.standing(root.path()).unwrap(), Standing::Done);
        let log = std::fs::read_to_string(run.layout(root.path()).log()).unwrap();
        assert_eq!(log.matches("\"run_finished\"").count(), 1, "{log}");
    }
}

/// Watches a queue whose run another process holds, and calls `act` at the note about waiting.
struct WhileWaiting<F> {
    watch: Watch,
    act: Option<F>,
}

impl<F: FnOnce(&str)> Observer for WhileWaiting<F> {
    fn note(&mut self, text: &str) {
        self.watch.note(text);
        if text.starts_with("waiting for")
            && let Some(act) = self.act.take()
        {
            act(text);
        }
    }

    fn run_started(&mut self, event: &invaspread_runner::engine::RunStarted) {
        self.watch.run_started(event);
    }

    fn step(&mut self, event: &StepTaken) {
        self.watch.step(event);
    }

    fn run_finished(&mut self, event: &RunFinished) {
        self.watch.run_finished(event);
    }
}

/// Starts the process that does not end its run, and waits until it has trained an epoch.
fn first_process(root: &Path) -> Child {
    let child = process("first_of_two", root);
    let from = Instant::now();
    while !matches!(nce().standing(root).unwrap(), Standing::Begun { epoch: 1.. }) {
        assert!(from.elapsed() < Duration::from_mins(2), "the first process did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_run_of_a_process_that_dies_is_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let mut first = first_process(root.path());
    let name = format!("process {} on host ", first.id());
    let act = |text: &str| {
        assert!(text.contains(&name), "{text}");
        first.kill().unwrap();
        first.wait().unwrap();
    };
    let mut observer = WhileWaiting { watch: Watch::default(), act: Some(act) };
    run_all(&[nce()], root.path(), &mut observer, &Stop::new());
    assert!(observer.act.is_none(), "there was nothing to wait for");
    let watch = observer.watch;
    assert!(matches!(watch.ends[..], [End::Done { .. }]), "{:?}", watch.ends);
    assert_eq!((&watch.resumed_at[..], watch.steps), (&[(1, 0)][..], 5), "the second epoch is trained here");
}

#[test]
fn waiting_ends_at_once_when_a_stop_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let mut first = first_process(root.path());
    let (stop, mut asked) = (Stop::new(), None);
    let raised = stop.clone();
    let act = |_: &str| {
        raised.raise();
        asked = Some(Instant::now());
    };
    let mut observer = WhileWaiting { watch: Watch::default(), act: Some(act) };
    let reports = run_all(&[nce()], root.path(), &mut observer, &stop);
    let ended = Instant::now();
    drop(observer);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(reports.is_empty());
    assert!(ended - asked.expect("it waited") < Duration::from_millis(400));
}

/// Another process may finish a run after this one has looked at it and before this one has its lock.
#[test]
fn what_another_process_finished_meanwhile_is_not_finished_again() {
    let root = tempfile::tempdir().unwrap();
    let plan = [planned("random", random())];
    let layout = plan[0].layout(root.path());
    let held = RunDirectory::open(layout.clone(), &plan[0].config).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| go(&plan, root.path(), None));
        std::thread::sleep(Duration::from_millis(300));
        drop(held);
        let second = go(&plan, root.path(), None);
        let first = waiting.join().unwrap();
        let done = first.ends.iter().chain(&second.ends).filter(|end| matches!(end, End::Done { .. }));
        assert_eq!(done.count(), 1, "{:?} {:?}", first.ends, second.ends);
    });
    let log = std::fs::read_to_string(layout.log()).unwrap();
    assert_eq!(log.matches("\"run_finished\"").count(), 1, "{log}");
}

#[test]
fn a_row_of_another_suite_is_added_to_the_record_of_a_shared_run() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = [planned("random", random())];
    go(&plan, root.path(), None);
    plan[0].labels.row = "untrained".to_owned();
    for _ in 0..2 {
        let reports = run_all(&plan, root.path(), &mut Silent, &Stop::new());
        assert_eq!(reports[0].end, End::AlreadyDone);
        assert_eq!(reports[0].record.as_ref().unwrap().also, ["untrained"]);
        assert_eq!(plan[0].standing(root.path()).unwrap(), Standing::Done);
    }
}

/// The committed records are those from which the project's tables are made.
#[test]
fn committed_runs_are_finished_and_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/runs");
    let mut runs = 0;
    for suite in ["table1", "figure4", "cars196-half", "cub200-2010", "winograd"] {
        assert_eq!(damaged_results(&root, suite).unwrap(), []);
        runs += std::fs::read_dir(root.join(suite)).unwrap().count();
    }
    assert!(runs >= 60, "{runs}");
}
