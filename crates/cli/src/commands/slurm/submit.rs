//! Submits runs: writes the folder of the launch, submits its job array and, for a suite, the report, and
//! returns at once. Finished runs and those that are in the queue already are left out.

use super::super::launch::{Found, standings};
use super::super::print_json;
use crate::arguments::{Gpus, Settings};
use crate::failure::Failure;
use crate::output::{note, print_block, print_line};
use anyhow::{Context, anyhow};
use invaspread_runner::config::Sweep;
use invaspread_runner::launch::{Planned, Standing};
use invaspread_runner::machine::program_hash;
use invaspread_runner::record::{RecordError, RunDirectory, State, Status, VERSION, now_rfc3339};
use invaspread_runner::slurm::{
    Launch, SlurmError, Task, array_script, folder, queued_tasks, report_script, shell_word, submit_array,
    submit_report,
};
use serde_json::json;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What a command asks for beside its runs.
pub(crate) struct Asked<'a> {
    /// The suite; `None` for `train`.
    pub(crate) suite: Option<&'a str>,
    /// The folder of the report, if one was given.
    pub(crate) out: Option<&'a Path>,
    pub(crate) settings: &'a Settings,
    pub(crate) gpus: &'a Gpus,
    /// Whether to print the scripts and do nothing else.
    pub(crate) dry_run: bool,
    pub(crate) json: bool,
}

/// Submits the runs of `sweep` that are not finished.
///
/// # Errors
/// Returns an error if the scripts cannot be written, or one with all that sbatch wrote if it refuses.
pub(crate) fn submit(sweep: &Sweep, asked: &Asked<'_>) -> Result<(), Failure> {
    if asked.gpus.gpus.is_some() {
        let error =
            anyhow!("--gpus: found GPUs of this machine with launcher=slurm, expected slurm.gpus=NUMBER");
        return Err(Failure::Usage(error));
    }
    let root = absolute(&sweep.root)?;
    let found = standings(&sweep.planned, &sweep.root)?;
    let in_queue = match in_queue(&root) {
        // Nothing is submitted, so nothing is submitted twice.
        Err(error) if asked.dry_run => {
            note!("runs that are in the queue already are not left out of what follows: {error}");
            HashMap::new()
        }
        in_queue => in_queue.map_err(anyhow::Error::new)?,
    };
    let Left { tasks, queued } = left(sweep, &found, &in_queue);
    if !queued.is_empty() {
        let arrays: Vec<String> = queued.iter().map(ToString::to_string).collect();
        note!("runs that are in the queue already are left out (job {})", arrays.join(", "));
    }
    if tasks.is_empty() {
        return nothing_left(sweep, asked, &queued);
    }
    let launch = Launch {
        version: VERSION.to_owned(),
        time: now_rfc3339(),
        suite: asked.suite.map(str::to_owned),
        out: asked.out.map(absolute).transpose()?,
        request: asked.settings.arguments().into_iter().map(text).collect::<Result<_, _>>()?,
        working_directory: std::env::current_dir().context("failed to find the working directory")?,
        program: std::env::current_exe().context("failed to find the program's own file")?,
        program_hash: program_hash(),
        requeue: sweep.slurm.requeue,
        root,
    };
    let folder = launch.free_folder();
    let scripts =
        scripts(&launch, &folder, sweep, tasks.len()).map_err(|error| Failure::Usage(error.into()))?;
    if asked.dry_run {
        for (name, script) in &scripts {
            print_line!("# {}", folder.join(name).display());
            print_block(script);
        }
        note!("{} would be submitted; nothing is written or submitted", runs(tasks.len()));
        return Ok(());
    }
    launch.write(&folder, &tasks, &scripts).map_err(anyhow::Error::new)?;
    note_queued(sweep, &found);
    let array = submit_array(&folder).map_err(|error| refused(&error, &folder, folder::ARRAY, ""))?;
    let report = match asked.suite {
        Some(_) => {
            let after: Vec<u64> = std::iter::once(array).chain(queued).collect();
            let option = format!("--dependency=afterany:{array} ");
            let report = submit_report(&folder, &after);
            let named = |error| {
                note!("job {array}: {}, one a task", runs(tasks.len()));
                refused(&error, &folder, folder::REPORT, &option)
            };
            Some(report.map_err(named)?)
        }
        None => None,
    };
    if asked.json {
        let of_all: Vec<&str> = tasks.iter().map(|task| task.run.as_str()).collect();
        return Ok(print_json(
            &json!({ "folder": folder, "array": array, "report": report, "runs": of_all }),
        )?);
    }
    print_line!("job {array}: {}, one a task", runs(tasks.len()));
    if let Some(report) = report {
        print_line!("job {report}: the report, once they have ended");
    }
    print_line!("scripts and logs: {}", folder.display());
    let (root, ids) = (shell_word(&launch.root.to_string_lossy()), array);
    print_line!(
        "to follow: squeue --me --array; invaspread runs watch --runs {root}; to cancel: scancel {ids}"
    );
    Ok(())
}

/// The runs of a sweep that are not finished.
struct Left {
    /// Those that are to be submitted, each once.
    tasks: Vec<Task>,
    /// The job arrays that do the others.
    queued: Vec<u64>,
}

/// Returns what is left to do. `in_queue` are the runs in the queue with their job arrays.
fn left(sweep: &Sweep, found: &[Found], in_queue: &HashMap<String, u64>) -> Left {
    let mut left = Left { tasks: Vec::new(), queued: Vec::new() };
    let mut places: HashMap<String, usize> = HashMap::new();
    for ((planned, alone), found) in sweep.planned.iter().zip(&sweep.alone).zip(found) {
        if matches!(found, Ok(Standing::Done)) {
            continue;
        }
        let run = name(planned);
        if let Some(&array) = in_queue.get(&run) {
            if !left.queued.contains(&array) {
                left.queued.push(array);
            }
        } else if let Some(&place) = places.get(&run) {
            // Another row has the same settings.
            left.tasks[place].rows.push(planned.labels.row.clone());
        } else {
            let index = left.tasks.len();
            places.insert(run.clone(), index);
            let rows = vec![planned.labels.row.clone()];
            left.tasks.push(Task { index, run, rows, arguments: alone.clone() });
        }
    }
    left
}

/// Writes into the folder of each run that is not begun that it is planned, so that `runs list` and `runs watch` have
/// it. A run that another process holds is left alone.
fn note_queued(sweep: &Sweep, found: &[Found]) {
    for (planned, _) in
        sweep.planned.iter().zip(found).filter(|(_, found)| matches!(found, Ok(Standing::New)))
    {
        let noted = || -> Result<(), RecordError> {
            let directory = RunDirectory::open(planned.layout(&sweep.root), &planned.config)?;
            if let Some(request) = &planned.request {
                request.write(directory.layout())?;
            }
            match Status::read(directory.layout())? {
                None => directory.set_status(State::Queued, 0, None),
                Some(_) => Ok(()),
            }
        };
        // The task itself meets what is wrong with the folder, and says so.
        if let Err(error) = noted() {
            note!("{}: it is not yet listed as queued: {error}", planned.title());
        }
    }
}

/// Returns the run's folder, relative to the folder of runs.
pub(super) fn name(run: &Planned) -> String {
    let folder = run.layout(Path::new(""));
    folder.folder().to_string_lossy().into_owned()
}

/// Returns the runs below `root` that earlier launches have in the queue, each with its job array.
fn in_queue(root: &Path) -> Result<HashMap<String, u64>, SlurmError> {
    let mut known = Vec::new();
    for launch in folder::launches(root)? {
        let jobs = folder::jobs(&launch)?;
        if !jobs.is_empty() {
            known.push((jobs, Task::all(&launch)?));
        }
    }
    let mut runs = HashMap::new();
    if known.is_empty() {
        return Ok(runs);
    }
    for (array, index) in queued_tasks()? {
        let of_array = known.iter().find(|(jobs, _)| jobs.iter().any(|job| job.job == array));
        if let Some(task) = of_array.and_then(|(_, tasks)| tasks.get(index)) {
            runs.insert(task.run.clone(), array);
        }
    }
    Ok(runs)
}

/// Says that nothing is submitted.
fn nothing_left(sweep: &Sweep, asked: &Asked<'_>, queued: &[u64]) -> Result<(), Failure> {
    let are = if queued.is_empty() { "all runs are finished" } else { "all other runs are finished" };
    note!("{are}: nothing is submitted");
    if let Some(suite) = asked.suite.filter(|_| !asked.dry_run) {
        let root = shell_word(&sweep.root.to_string_lossy());
        note!("`invaspread report {suite} --runs {root}` writes the report");
    }
    if asked.json {
        print_json(&json!({ "folder": null, "array": null, "report": null, "runs": [] }))?;
    }
    Ok(())
}

fn scripts(
    launch: &Launch,
    folder: &Path,
    sweep: &Sweep,
    tasks: usize,
) -> Result<Vec<(&'static str, String)>, SlurmError> {
    let mut scripts = vec![(folder::ARRAY, array_script(launch, folder, &sweep.slurm, tasks)?)];
    if launch.suite.is_some() {
        scripts.push((folder::REPORT, report_script(launch, folder, &sweep.slurm)?));
    }
    Ok(scripts)
}

/// Returns the failure of a script that was not submitted.
fn refused(error: &SlurmError, folder: &Path, script: &str, options: &str) -> Failure {
    let script = shell_word(&folder.join(script).to_string_lossy());
    Failure::Failed(anyhow!(
        "{error}; nothing is lost: `sbatch {options}{script}` submits the script by hand, or give the command again"
    ))
}

fn runs(number: usize) -> String {
    if number == 1 { "1 run".to_owned() } else { format!("{number} runs") }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    Ok(std::path::absolute(path).with_context(|| format!("failed to find {}", path.display()))?)
}

/// Returns an argument as text.
fn text(argument: OsString) -> Result<String, Failure> {
    #[allow(clippy::unnecessary_debug_formatting, reason = "its escapes show the bytes that are not text")]
    argument
        .into_string()
        .map_err(|found| Failure::Usage(anyhow!("found {found:?}, expected UTF-8, which a launch can hold")))
}
