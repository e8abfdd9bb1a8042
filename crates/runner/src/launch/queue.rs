//! Working through planned runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use invaspread_data::{DataConfig, DataState, Dataset};
use serde_json::json;

use super::finish::finish;
use super::{LaunchError, Planned, Standing, images, trained_on};
use crate::checkpoint::CheckpointFiles;
use crate::engine::{End, Estimate, Observer, Outcome, Place, Recipe, RunFinished, Stop, estimate, train};
use crate::record::{Environment, EventWriter, MetricRow, MetricsTable, RunDirectory, RunRecord, State};

/// What to tell whoever finds the estimate too long.
pub const HOW_TO_SHORTEN: &str = "to make it shorter: profile=quick (a smaller network on fewer images, for a CPU), or \
     data.subset=N (training images), model.width=N (channels), optim.epochs=N; Ctrl-C stops at any time and the same command \
     resumes";

/// How one planned run ended.
#[derive(Debug)]
pub struct Report {
    /// `<hash>-s<seed>`.
    pub id: String,
    /// The table's row.
    pub row: String,
    /// The run's folder.
    pub folder: PathBuf,
    /// How it ended.
    pub end: End,
    /// The record, if it is finished.
    pub record: Option<RunRecord>,
}

/// How long a planned run will still take.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its place in the plan.
    pub index: usize,
    /// What its parts take.
    pub estimate: Estimate,
    /// Time until it is done.
    pub left: Duration,
}

/// Works through `planned` under `root` (`runs.root`), in order. Stops early only when `stop` is raised; the reports then cover
/// the runs up to there.
pub fn run_all(planned: &[Planned], root: &Path, observer: &mut dyn Observer, stop: &Stop) -> Vec<Report> {
    let mut shelf = Shelf::default();
    let mut reports = Vec::new();
    for run in planned {
        if stop.is_raised() {
            break;
        }
        let from = Instant::now();
        let layout = run.layout(root);
        let (end, record) = match run_one(run, root, &mut shelf, observer, stop) {
            Ok(ended) => ended,
            Err(error) => (End::Failed { message: error.to_string() }, None),
        };
        let (id, folder) = (run.id(), layout.folder().to_path_buf());
        observer.run_finished(&RunFinished {
            id: id.clone(),
            title: run.title(),
            folder: folder.clone(),
            end: end.clone(),
            took: from.elapsed(),
        });
        reports.push(Report { id, row: run.labels.row.clone(), folder, end, record });
    }
    reports
}

/// Times what is not done of `planned`, each distinct recipe once (seeds cost the same).
///
/// # Errors
/// If a run's images cannot be had, or it cannot be set up.
pub fn estimate_all(planned: &[Planned], root: &Path) -> Result<Vec<Workload>, LaunchError> {
    let mut shelf = Shelf::default();
    let mut known: Vec<(Recipe, DataConfig, Estimate)> = Vec::new();
    let mut workloads = Vec::new();
    for (index, run) in planned.iter().enumerate() {
        let done = match run.standing(root)? {
            Standing::Done => continue,
            Standing::Begun { epoch } => epoch,
            Standing::New => 0,
        };
        let recipe = Recipe { seed: 0, ..run.recipe.clone() };
        let timed = known.iter().find(|(other, data, _)| *other == recipe && *data == run.data);
        let estimate = if let Some(&(_, _, estimate)) = timed {
            estimate
        } else {
            let estimate = estimate(&run.recipe, &images(&opened(&mut shelf, run, root)?))?;
            known.push((recipe, run.data.clone(), estimate));
            estimate
        };
        workloads.push(Workload { index, estimate, left: estimate.left(done, 0) });
    }
    Ok(workloads)
}

fn run_one(
    run: &Planned,
    root: &Path,
    shelf: &mut Shelf,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<(End, Option<RunRecord>), LaunchError> {
    let layout = run.layout(root);
    let done_before = match run.standing(root)? {
        Standing::Done => {
            let mut record = RunRecord::read(&layout)?;
            let row = &run.labels.row;
            if record.row != *row && !record.also.contains(row) {
                // Another suite's row asked for the same settings: reports of both must find the run.
                record.also.push(row.clone());
                record.write(&layout)?;
            }
            return Ok((End::AlreadyDone, Some(record)));
        }
        Standing::Begun { epoch } => epoch,
        Standing::New => {
            trained_on::check_planned(run, root)?;
            if let Some(note) = trained_on::told_apart(run, root) {
                observer.note(&note);
            }
            0
        }
    };
    let directory = RunDirectory::open(layout, &run.config)?;
    let ended = run_locked(run, root, &directory, done_before, shelf, observer, stop);
    let (state, message) = match &ended {
        Ok((End::Done { .. } | End::AlreadyDone, _)) => return ended,
        Ok((End::Stopped { epoch, step }, _)) => {
            (State::Interrupted, format!("stopped after {epoch} epochs and {step} steps"))
        }
        Ok((End::Failed { message }, _)) => (State::Failed, message.clone()),
        Err(error) => (State::Failed, error.to_string()),
    };
    let epoch = match &ended {
        Ok((End::Stopped { epoch, .. }, _)) => *epoch,
        _ => directory.layout().read_status().ok().flatten().map_or(0, |status| status.epoch),
    };
    // The run's own error says more than one in noting it down.
    let noted = directory
        .set_status(state, epoch, Some(&message))
        .and_then(|()| directory.log("run_ended", &json!({ "state": state, "message": message })));
    match (ended, noted) {
        (Ok(_), Err(error)) => Err(error.into()),
        (ended, _) => ended,
    }
}

fn run_locked(
    run: &Planned,
    root: &Path,
    directory: &RunDirectory,
    done_before: u64,
    shelf: &mut Shelf,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<(End, Option<RunRecord>), LaunchError> {
    let layout = directory.layout();
    directory.set_status(State::Running, done_before, None)?;
    let environment = Environment::capture(&run.labels.device);
    directory.write_environment(&environment)?;
    directory.log(
        "run_begun",
        &json!({ "id": run.id(), "epochs_done": done_before, "environment": environment }),
    )?;
    let dataset = opened(shelf, run, root)?;
    trained_on::note_down(run, layout)?;
    if let DataState::Unverified { reason } = &dataset.state {
        observer.note(&format!("{} is used but marked unverified in the record: {reason}", dataset.name));
    }
    if dataset.skipped > 0 {
        observer.note(&format!(
            "{}: {} images could not be read or decoded and were left out",
            dataset.name, dataset.skipped
        ));
    }
    for note in &dataset.notes {
        observer.note(&format!("{}: {note}", dataset.name));
    }
    let place = Place {
        id: run.id(),
        title: run.title(),
        folder: layout.folder().to_path_buf(),
        checkpoints: CheckpointFiles::new(layout.checkpoints()),
    };
    // Asks TensorBoard to drop what earlier processes showed: they may have been killed before they could show all of it, and
    // the first call below has every row.
    let mut events = EventWriter::create(&layout.tensorboard(), Some(-1))?;
    let mut shown = 0;
    let outcome = train(&run.recipe, &place, &images(&dataset), observer, stop, &mut |rows| {
        MetricsTable::new(rows.to_vec()).write(&layout.metrics())?;
        for MetricRow { step, split, name, value, .. } in &rows[shown..] {
            events.scalar(*step, &format!("{split}/{name}"), *value)?;
        }
        events.flush()?;
        shown = rows.len();
        let epoch = rows.last().map_or(0, |row| row.epoch);
        directory.log("epoch_finished", &json!({ "epoch": epoch }))?;
        Ok(directory.set_status(State::Running, epoch as u64, None)?)
    })?;
    let trained = match outcome {
        Outcome::Stopped { epoch, step } => return Ok((End::Stopped { epoch, step }, None)),
        Outcome::Trained(trained) => *trained,
    };
    let record = finish(run, root, directory, &dataset, &environment, &trained)?;
    Ok((End::Done { measured: trained.last }, Some(record)))
}

/// The images of `run`, or why they cannot be had and which runs of the same settings are there.
fn opened(shelf: &mut Shelf, run: &Planned, root: &Path) -> Result<Arc<Dataset>, LaunchError> {
    shelf.open(&run.data).map_err(|error| trained_on::with_others(error, run, root))
}

/// The data set opened last, as a queue's runs mostly share one.
#[derive(Default)]
struct Shelf(Option<(DataConfig, Arc<Dataset>)>);

impl Shelf {
    fn open(&mut self, config: &DataConfig) -> Result<Arc<Dataset>, LaunchError> {
        if let Some((known, dataset)) = &self.0
            && known == config
        {
            return Ok(Arc::clone(dataset));
        }
        // The old one goes before the new one comes: both at once may not fit.
        self.0 = None;
        let dataset = Arc::new(invaspread_data::open(config)?);
        self.0 = Some((config.clone(), Arc::clone(&dataset)));
        Ok(dataset)
    }
}
