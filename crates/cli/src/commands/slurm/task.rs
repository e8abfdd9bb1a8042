//! `invaspread slurm task FOLDER [INDEX]`: one run of a launch. At its time limit, and when it is preempted, the
//! run writes its checkpoint, and the task goes on as `invaspread_runner::slurm` says.

use super::super::launch::note_request;
use super::submit::name;
use super::{command_of, entered};
use crate::arguments::Command;
use crate::failure::Failure;
use crate::output::note;
use crate::packing::stops_packing;
use crate::progress::Progress;
use anyhow::{Context, anyhow};
#[cfg(feature = "report")]
use invaspread_runner::config::Suite;
use invaspread_runner::config::plan_runs;
use invaspread_runner::engine::{End, EpochFinished, Observer, RunFinished, RunStarted, StepTaken};
use invaspread_runner::launch::{Planned, RunReport, run_all};
use invaspread_runner::memory::Memory;
use invaspread_runner::slurm::{ArrayTask, Heard, Launch, Next, Requeued, Task, facts, go_on, next};
use std::ffi::OsString;
use std::path::Path;

/// Returns the number of threads of a task: its processors, unless rayon's own variable says otherwise. A job
/// without `slurm.cpus` has the processors of its node that Slurm gave it.
pub(crate) fn threads_of_task(variable: impl Fn(&str) -> Option<String>) -> Option<usize> {
    if variable("RAYON_NUM_THREADS").is_some() {
        return None;
    }
    let number = |name| variable(name)?.parse().ok().filter(|&threads| threads > 0);
    number("SLURM_CPUS_PER_TASK").or_else(|| number("SLURM_CPUS_ON_NODE"))
}

/// Does the run of a task. With an `index` it is done by hand, and never requeued.
pub(super) fn task(folder: &Path, index: Option<usize>) -> Result<(), Failure> {
    // The signals come first: what follows may take long.
    let stop = stops_packing()?;
    let near_limit = stop.on_time_limit().context("failed to listen for signals")?;
    let (launch, folder) = entered(folder)?;
    let job = match index {
        Some(_) => None,
        None => ArrayTask::of(|name| std::env::var(name).ok()),
    };
    let Some(index) = index.or(job.as_ref().map(|job| job.index)) else {
        let error = anyhow!(
            "found no index: SLURM_ARRAY_JOB_ID and SLURM_ARRAY_TASK_ID are not set, expected a task of a job array, or an \
             index, as in `invaspread slurm task FOLDER 0`"
        );
        return Err(Failure::Usage(error));
    };
    let task = Task::of(&folder, index).map_err(anyhow::Error::new)?;
    let planned = plan(&launch, &task)?;
    let by = match &job {
        Some(job) if job.restarts > 0 => format!(", job {}, restart {}", job.name(), job.restarts),
        Some(job) => format!(", job {}", job.name()),
        None => ", by hand".to_owned(),
    };
    note!("task {index} of {}: run {}{by}", folder.display(), task.run);
    let mut watch = Watch { shown: Progress::new(planned.len()), begun: None };
    let reports = run_all(&planned, &launch.root, &mut watch, &stop);
    let end = ended(&reports, planned.len());
    match end {
        Ended::Done => Ok(()),
        // The reason was printed when it happened.
        Ended::Failed => Err(Failure::Failed(anyhow!("the run failed; it is not requeued"))),
        Ended::Stopped(at) => {
            let heard = if near_limit.is_raised() { Heard::TimeLimit } else { Heard::Termination };
            after_stop(&launch, &folder, job.as_ref(), heard, watch.begun, at)
        }
    }
}

/// Plans the run of a task.
fn plan(launch: &Launch, task: &Task) -> Result<Vec<Planned>, Failure> {
    let root = launch.root.to_str().ok_or_else(|| anyhow!("found a folder of runs that is not UTF-8"))?;
    let arguments: Vec<String> =
        std::iter::once(format!("--runs={root}")).chain(task.arguments.iter().cloned()).collect();
    let sweep = match command_of(launch, &arguments)? {
        Command::Train(train) => plan_runs(&train.settings.overrides()?, false, &Memory::of)?,
        #[cfg(feature = "report")]
        Command::Reproduce(suite) => {
            Suite::open(&suite.suite)?.plan_all(&suite.settings.overrides()?, &Memory::of)?
        }
        _ => unreachable!("the command is train or reproduce"),
    };
    let mut planned = sweep.planned;
    let words = match &launch.suite {
        Some(suite) => vec!["reproduce".into(), suite.into()],
        None => vec!["train".into()],
    };
    let words: Vec<OsString> = words.into_iter().chain(arguments.iter().map(OsString::from)).collect();
    note_request(&mut planned, &words);
    planned.retain(|run| task.rows.contains(&run.labels.row));
    let other = planned.iter().map(name).find(|name| *name != task.run);
    if planned.len() == task.rows.len() && other.is_none() {
        return Ok(planned);
    }
    let found = other.map_or_else(|| format!("{} runs", planned.len()), |other| format!("run {other}"));
    Err(Failure::Failed(anyhow!(
        "task {} is run {} ({}), and its arguments plan {found} here: the files under ./experiments or the images are not those \
         of the launch any more. Give the command of the launch again",
        task.index,
        task.run,
        task.rows.join(", ")
    )))
}

/// How the runs of a task ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Done,
    Failed,
    /// They were stopped; the epochs and steps that were done, if training had begun.
    Stopped(Option<(u64, u64)>),
}

/// Returns how the `planned` runs of a task ended. Those that were not reached before the stop have no report.
fn ended(reports: &[RunReport], planned: usize) -> Ended {
    let mut stopped = None;
    for report in reports {
        match report.end {
            End::Failed { .. } => return Ended::Failed,
            End::Stopped { epoch, step } => stopped = Some((epoch, step)),
            End::Done { .. } | End::AlreadyDone | End::Repaired { .. } => {}
        }
    }
    if stopped.is_none() && reports.len() == planned { Ended::Done } else { Ended::Stopped(stopped) }
}

/// Does what follows a stop. The run began at `begun` and stopped at `at`, in epochs and steps.
fn after_stop(
    launch: &Launch,
    folder: &Path,
    job: Option<&ArrayTask>,
    heard: Heard,
    begun: Option<(u64, u64)>,
    at: Option<(u64, u64)>,
) -> Result<(), Failure> {
    let Some(job) = job else { return Err(Failure::Stopped) };
    let found = facts(job);
    if let Err(error) = &found {
        note!("Slurm does not say why the task was stopped: {error}");
    }
    match next(heard, job.restarts, found.as_ref().ok(), launch.requeue) {
        Next::NotAsked => note!("slurm.requeue=false: the task is not requeued"),
        Next::SlurmRequeues => note!("Slurm requeues the task {}, which resumes the run", job.name()),
        Next::Cancelled => {
            note!("the task was cancelled and is not requeued; the command of the launch submits it again");
        }
        Next::Requeue => {
            if !has_progressed(begun, at) {
                let at = begun
                    .map_or_else(String::new, |(epoch, step)| format!(" (after epoch {epoch}, step {step})"));
                return Err(Failure::Failed(anyhow!(
                    "the run took no step since this task began{at}. It is not requeued, because it would never end: give tasks more \
                     time (slurm.time), or see above what the run waited for"
                )));
            }
            match go_on(folder, job).map_err(anyhow::Error::new)? {
                Requeued::Requeued => note!("the task {} is requeued and resumes the run", job.name()),
                Requeued::Resubmitted { job, refusal, report } => {
                    note!("Slurm does not requeue the task ({refusal}); job {job} does its index");
                    if let Some(error) = report {
                        note!("the report may not wait for job {job}: {error}");
                    }
                }
            }
        }
    }
    Err(Failure::Stopped)
}

/// Returns whether a run that began at one position and stopped at another took a step.
fn has_progressed(begun: Option<(u64, u64)>, at: Option<(u64, u64)>) -> bool {
    begun.zip(at).is_some_and(|(begun, at)| at > begun)
}

/// Shows the progress, and notes where the run began.
struct Watch {
    shown: Progress,
    begun: Option<(u64, u64)>,
}

impl Observer for Watch {
    fn run_started(&mut self, event: &RunStarted) {
        self.begun = Some(event.resumed_at);
        self.shown.run_started(event);
    }

    fn step(&mut self, event: &StepTaken) {
        self.shown.step(event);
    }

    fn epoch_finished(&mut self, event: &EpochFinished) {
        self.shown.epoch_finished(event);
    }

    fn run_finished(&mut self, event: &RunFinished) {
        self.shown.run_finished(event);
    }

    fn note(&mut self, text: &str) {
        self.shown.note(text);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, ended, has_progressed, threads_of_task};
    use invaspread_runner::engine::End;
    use invaspread_runner::launch::RunReport;

    #[test]
    fn a_run_that_took_no_step_has_not_progressed() {
        assert!(has_progressed(Some((3, 5)), Some((3, 6))) && has_progressed(Some((3, 5)), Some((4, 0))));
        assert!(!has_progressed(Some((3, 5)), Some((3, 5))));
        // It was stopped before training began, or waited for another process.
        assert!(!has_progressed(None, Some((0, 0))) && !has_progressed(None, None));
        assert!(!has_progressed(Some((3, 5)), None));
    }

    #[test]
    fn a_task_is_done_if_all_of_its_rows_are() {
        let report = |end: End| RunReport {
            id: "0-s0".into(),
            row: "nce".into(),
            folder: "x".into(),
            end,
            record: None,
        };
        let stopped = || report(End::Stopped { epoch: 2, step: 1 });
        assert_eq!(ended(&[report(End::AlreadyDone), report(End::AlreadyDone)], 2), Ended::Done);
        // The second row was not reached.
        assert_eq!(ended(&[report(End::AlreadyDone)], 2), Ended::Stopped(None));
        assert_eq!(ended(&[stopped()], 1), Ended::Stopped(Some((2, 1))));
        assert_eq!(ended(&[], 1), Ended::Stopped(None));
        assert_eq!(ended(&[stopped(), report(End::Failed { message: "x".into() })], 2), Ended::Failed);
    }

    #[test]
    fn a_task_has_as_many_threads_as_processors() {
        let of = |variables: &[(&str, &str)]| {
            threads_of_task(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[("SLURM_CPUS_PER_TASK", "4"), ("SLURM_CPUS_ON_NODE", "64")]), Some(4));
        assert_eq!(of(&[("SLURM_CPUS_ON_NODE", "2")]), Some(2));
        assert_eq!(of(&[("SLURM_CPUS_PER_TASK", "4"), ("RAYON_NUM_THREADS", "3")]), None);
        assert_eq!(of(&[]), None);
    }
}
