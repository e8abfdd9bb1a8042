//! The queue: works through planned runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use invaspread_data::{DataConfig, DataError, DataState, Dataset};
use serde_json::json;

use super::dataset_cache::DatasetCache;
use super::finish::finish;
use super::inspect::{Depth, Finished, look};
use super::repair::repair;
use super::wait::Waiting;
use super::{LaunchError, Planned, Standing, images, trained_on};
use crate::checkpoint::CheckpointFiles;
use crate::engine::{End, Estimate, Observer, Outcome, Recipe, RunFinished, RunPlace, Stop, estimate, train};
use crate::machine;
use crate::record::{
    EventWriter, Fault, FileList, MetricsTable, Owner, RecordError, RunDirectory, RunRecord, State, Status,
    names,
};

/// The outcome of one planned run.
#[derive(Debug)]
pub struct RunReport {
    /// The run's name, `<hash>-s<seed>`.
    pub id: String,
    /// The table's row.
    pub row: String,
    /// The run's folder.
    pub folder: PathBuf,
    /// How the run ended.
    pub end: End,
    /// The record, if the run is finished.
    pub record: Option<RunRecord>,
}

/// The time that a planned run still takes.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The run's place in the plan.
    pub index: usize,
    /// The time of its parts.
    pub estimate: Estimate,
    /// The time until it is done.
    pub left: Duration,
}

/// Works through `planned` under `root` (`runs.root`) in order, then waits for the runs that other processes
/// work on, on this machine or others. If another process ends without finishing its run, this one resumes it; a
/// run that failed there is tried here once. Stops early only when `stop` is raised; runs that were not reached then have no
/// report.
pub fn run_all(planned: &[Planned], root: &Path, observer: &mut dyn Observer, stop: &Stop) -> Vec<RunReport> {
    let mut queue = Queue { root, datasets: DatasetCache::default(), observer, stop };
    let mut reports: Vec<Option<RunReport>> = planned.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..planned.len()).collect();
    let mut waiting = Waiting::default();
    while !left.is_empty() && !stop.is_raised() {
        let mut owners = Vec::new();
        left.retain(|&index| {
            if stop.is_raised() {
                return true;
            }
            match queue.report(&planned[index]) {
                Attempt::Ended(report) => reports[index] = Some(*report),
                Attempt::Busy(owner) => owners.push(owner),
            }
            reports[index].is_none()
        });
        if !left.is_empty() {
            waiting.pause(owners, queue.observer, stop);
        }
    }
    reports.into_iter().flatten().collect()
}

/// Times the unfinished runs of `planned`, each distinct recipe once (all seeds take the same time).
/// `standings` says how far each has come. `timing` is called before the first run is timed, after the
/// settings of all of them were compared with their images.
///
/// # Errors
/// Returns an error if the images of a run cannot be opened or do not fit its settings, or the run cannot be
/// set up.
pub fn estimate_all(
    planned: &[Planned],
    standings: &[Result<Standing, LaunchError>],
    root: &Path,
    timing: impl FnOnce(),
) -> Result<Vec<Workload>, LaunchError> {
    let mut datasets = DatasetCache::default();
    let mut known: Vec<(Recipe, DataConfig, Estimate)> = Vec::new();
    let mut workloads = Vec::new();
    let done = |standing: &Result<Standing, LaunchError>| match standing {
        // A run whose files cannot be read fails when its turn comes.
        Ok(Standing::Done | Standing::Incomplete { .. }) | Err(_) => None,
        Ok(Standing::Begun { epoch }) => Some(*epoch),
        Ok(Standing::New) => Some(0),
    };
    let with_standing = || planned.iter().zip(standings).enumerate();
    let left = || with_standing().filter_map(|(index, (run, standing))| Some((index, run, done(standing)?)));
    for (_, run, _) in left() {
        images(&opened(&mut datasets, run, root)?).fit(&run.recipe)?;
    }
    timing();
    for (index, run, done) in left() {
        let timed = known.iter_mut().find_map(|(other, data, estimate)| {
            other.seed = run.recipe.seed;
            (*other == run.recipe && *data == run.data).then_some(*estimate)
        });
        let estimate = if let Some(estimate) = timed {
            estimate
        } else {
            let estimate = estimate(&run.recipe, &images(&opened(&mut datasets, run, root)?))?;
            known.push((run.recipe.clone(), run.data.clone(), estimate));
            estimate
        };
        workloads.push(Workload { index, estimate, left: estimate.left(done, 0) });
    }
    Ok(workloads)
}

/// The outcome of trying a run.
enum Attempt {
    /// The run ended.
    Ended(Box<RunReport>),
    /// Another process works on the run; its description, if its claim gives it.
    Busy(Option<Owner>),
}

type Ended = (End, Option<RunRecord>);

/// The state that the runs of a queue share.
struct Queue<'a> {
    root: &'a Path,
    datasets: DatasetCache,
    observer: &'a mut dyn Observer,
    stop: &'a Stop,
}

impl Queue<'_> {
    fn report(&mut self, run: &Planned) -> Attempt {
        let from = Instant::now();
        let (end, record) = match self.run(run) {
            Ok(ended) => ended,
            Err(LaunchError::Record(RecordError::Busy { owner, .. })) => {
                return Attempt::Busy(owner.map(|owner| *owner));
            }
            Err(LaunchError::Data(DataError::Stopped { .. })) => (End::Stopped { epoch: 0, step: 0 }, None),
            Err(error) => (End::Failed { message: error.to_string() }, None),
        };
        let (id, folder) = (run.id(), run.layout(self.root).folder().to_path_buf());
        self.observer.run_finished(&RunFinished {
            id: id.clone(),
            title: run.title(),
            folder: folder.clone(),
            end: end.clone(),
            took: from.elapsed(),
        });
        Attempt::Ended(Box::new(RunReport { id, row: run.labels.row.clone(), folder, end, record }))
    }

    fn run(&mut self, run: &Planned) -> Result<Ended, LaunchError> {
        let layout = run.layout(self.root);
        let found = look(&layout, Depth::Glance)?;
        if let Some(found) = &found
            && found.is_settled()
        {
            let record = RunRecord::read(&layout)?;
            if record.is_of_row(&run.labels.row) {
                self.note_record_alone(run, found);
                return Ok((End::AlreadyDone, Some(record)));
            }
        }
        if matches!(run.standing(self.root), Ok(Standing::New)) {
            trained_on::check_planned(run, self.root)?;
            if let Some(note) = trained_on::note_on_similar_run(run, self.root) {
                self.observer.note(&note);
            }
        }
        let directory = match RunDirectory::claim(layout.clone(), run.lease) {
            Ok(directory) => directory,
            // In a folder without write permission, a finished run with whole results is accepted.
            Err(error) => {
                let is_io = matches!(error, RecordError::Io { .. });
                let whole =
                    found.filter(|found| is_io && found.faults.iter().all(|f| !names::is_result(&f.file)));
                let (Some(found), Ok(record)) = (whole, RunRecord::read(&layout)) else {
                    return Err(error.into());
                };
                if !record.is_of_row(&run.labels.row) {
                    return Err(error.into());
                }
                self.note_lost(run, &found.faults);
                return Ok((End::AlreadyDone, Some(record)));
            }
        };
        if let Some(owner) = directory.succeeded().filter(|owner| owner.has_ended().is_none()) {
            self.observer.note(&format!(
                "{}: {owner} gave no sign of life for {} s and counts as dead; this process goes on with the run",
                run.title(),
                owner.lease_milliseconds as f64 / 1000.0
            ));
        }
        let ended = self.work(run, &directory);
        if directory.is_lost() {
            self.observer.note(&format!(
                "{}: another process has taken it over, because this one gave no sign of life for {} s",
                run.title(),
                run.lease.as_secs_f64()
            ));
            let (path, owner) = (layout.folder().to_path_buf(), Owner::of(&layout).map(Box::new));
            return Err(RecordError::Busy { path, owner }.into());
        }
        ended
    }

    /// Finishes a run that this process holds.
    fn work(&mut self, run: &Planned, directory: &RunDirectory) -> Result<Ended, LaunchError> {
        // Nobody else changes the run now; another process may have finished it since it was looked at.
        if let Some(repaired) = repair(run, self.root, directory, &mut self.datasets)? {
            self.note_lost(run, &repaired.lost);
            let record = with_row(directory, &run.labels.row)?;
            let files = repaired.files;
            let end = if files.is_empty() { End::AlreadyDone } else { End::Repaired { files } };
            return Ok((end, Some(record)));
        }
        directory.check_config(&run.config)?;
        self.train(run, directory)
    }

    /// Trains a run that is not finished, and writes into its status how that ended.
    fn train(&mut self, run: &Planned, directory: &RunDirectory) -> Result<Ended, LaunchError> {
        let layout = directory.layout();
        let done_before = self.epochs_before(run, directory)?;
        let ended = self.train_and_finish(run, directory, done_before);
        let (state, message) = match &ended {
            Err(error @ LaunchError::Data(DataError::Stopped { .. })) => {
                (State::Interrupted, error.to_string())
            }
            Ok((End::Stopped { epoch, step }, _)) => {
                (State::Interrupted, format!("stopped after {epoch} epochs and {step} steps"))
            }
            Ok((End::Failed { message }, _)) => (State::Failed, message.clone()),
            Ok(_) => return ended,
            Err(error) => (State::Failed, error.to_string()),
        };
        let epoch = match &ended {
            Ok((End::Stopped { epoch, .. }, _)) => *epoch,
            _ => Status::read(layout).ok().flatten().map_or(done_before, |status| status.epoch),
        };
        // The run's own error is more important than an error in writing the status.
        let noted = directory
            .set_status(state, epoch, Some(&message))
            .and_then(|()| directory.log("run_ended", &json!({ "state": state, "message": message })));
        match (ended, noted) {
            (Ok(_), Err(error)) => Err(error.into()),
            (ended, _) => ended,
        }
    }

    /// Returns the number of whole epochs in the status of an unfinished run. Notes if the status or the
    /// checkpoint is missing.
    fn epochs_before(&mut self, run: &Planned, directory: &RunDirectory) -> Result<u64, LaunchError> {
        let layout = directory.layout();
        let epoch = match Status::read(layout) {
            Ok(status) => status.map_or(0, |status| status.epoch),
            Err(error @ RecordError::Damaged { .. }) => {
                self.observer.note(&format!(
                    "{}: {} is damaged and is written again; the run resumes from its checkpoint",
                    run.title(),
                    layout.status().display()
                ));
                directory.log("status_damaged", &error.to_string())?;
                0
            }
            Err(error) => return Err(error.into()),
        };
        let state = CheckpointFiles::of(layout.folder()).state();
        if epoch > 0 && !state.exists() {
            self.observer.note(&format!(
                "{}: {epoch} {} trained before, but {} is missing: the run starts from the beginning",
                run.title(),
                if epoch == 1 { "epoch was" } else { "epochs were" },
                state.display()
            ));
        }
        Ok(epoch)
    }

    fn train_and_finish(
        &mut self,
        run: &Planned,
        directory: &RunDirectory,
        done_before: u64,
    ) -> Result<Ended, LaunchError> {
        let layout = directory.layout();
        let memory = machine::PeakMemory::begin();
        directory.set_status(State::Running, done_before, None)?;
        let environment = machine::environment(run.recipe.device);
        directory.write_environment(&environment)?;
        if let Some(request) = &run.request {
            request.write(layout)?;
        }
        directory.log(
            "run_begun",
            &json!({ "id": run.id(), "epochs_done": done_before, "environment": environment }),
        )?;
        let dataset = opened(&mut self.datasets, run, self.root)?;
        trained_on::write_image_list(run, layout)?;
        if let DataState::Unverified { reason } = &dataset.state {
            self.observer
                .note(&format!("{} is used but marked unverified in the record: {reason}", dataset.name));
        }
        if dataset.skipped > 0 {
            self.observer.note(&format!(
                "{}: {} images could not be read or decoded and were left out",
                dataset.name, dataset.skipped
            ));
        }
        for note in &dataset.notes {
            self.observer.note(&format!("{}: {note}", dataset.name));
        }
        let place = RunPlace {
            id: run.id(),
            title: run.title(),
            folder: layout.folder().to_path_buf(),
            checkpoints: CheckpointFiles::of(layout.folder()),
        };
        // Tells TensorBoard to drop what earlier processes wrote: they may have been killed before they wrote
        // everything, and the first call below writes every row.
        let mut events = EventWriter::create(&layout.tensorboard(), Some(-1))?;
        let mut shown = 0;
        let (observer, stop) = (&mut *self.observer, self.stop.or(directory.lost()));
        let outcome = train(&run.recipe, &place, &images(&dataset), observer, &stop, &mut |rows| {
            MetricsTable::new(rows.to_vec()).write(&layout.metrics())?;
            events.rows(&rows[shown..])?;
            shown = rows.len();
            let epoch = rows.last().map_or(0, |row| row.epoch);
            directory.log("epoch_finished", &json!({ "epoch": epoch }))?;
            Ok(directory.set_status(State::Running, epoch as u64, None)?)
        })?;
        let trained = match outcome {
            Outcome::Stopped { epoch, step } => return Ok((End::Stopped { epoch, step }, None)),
            Outcome::Trained(trained) => *trained,
        };
        let record = finish(run, self.root, directory, &dataset, &environment, &trained, memory)?;
        Ok((End::Done { measured: trained.last }, Some(record)))
    }

    fn note_lost(&mut self, run: &Planned, lost: &[Fault]) {
        if !lost.is_empty() {
            let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
            self.observer.note(&format!(
                "{}: its results are whole, but {}, which only training could make again",
                run.title(),
                lost.join(", ")
            ));
        }
    }

    fn note_record_alone(&mut self, run: &Planned, found: &Finished) {
        if found.is_record_alone {
            self.observer.note(&format!(
                "{}: only its record and its measurements are there, no embeddings and no checkpoints",
                run.title()
            ));
        }
    }
}

/// Reads the record of a finished run and adds `row` to the rows that it measures.
fn with_row(directory: &RunDirectory, row: &str) -> Result<RunRecord, LaunchError> {
    let layout = directory.layout();
    let mut record = RunRecord::read(layout)?;
    if !record.is_of_row(row) {
        // Another suite's row asked for the same settings: reports of both must find the run.
        record.also.push(row.to_owned());
        record.write(layout)?;
        directory.log("row_added", &record)?;
        if let Some(mut list) = FileList::read(layout)? {
            list.note(layout, names::RECORD)?;
            list.write(layout)?;
        }
    }
    Ok(record)
}

/// Opens the data set of `run`.
///
/// # Errors
/// Returns an error that says why it cannot be opened, and names a run of the same settings if there is one.
fn opened(datasets: &mut DatasetCache, run: &Planned, root: &Path) -> Result<Arc<Dataset>, LaunchError> {
    datasets.open(&run.data).map_err(|error| trained_on::with_similar_run(error, run, root))
}
