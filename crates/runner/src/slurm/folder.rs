//! The files of a launch.
//!
//! | file | content |
//! |---|---|
//! | `launch.json` | [`Launch`]: what was asked for, where, and with which program |
//! | `runs.jsonl` | a [`Task`] in each line: which run the task of that index does |
//! | `array.sh` | the job array |
//! | `report.sh` | the job that writes the report, if the runs are those of a suite |
//! | `jobs.jsonl` | a [`Job`] in each line: what was submitted |
//! | `ARRAY_INDEX.log` | what a task printed; `report_JOB.log` for the report |

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::SlurmError;
use crate::record::{now_rfc3339, write_atomically};

/// The folder of all launches, in the folder of runs.
const LAUNCHES: &str = "launches";
const LAUNCH: &str = "launch.json";
const TASKS: &str = "runs.jsonl";
const JOBS: &str = "jobs.jsonl";
/// The script of the job array.
pub const ARRAY: &str = "array.sh";
/// The script of the report.
pub const REPORT: &str = "report.sh";

/// What was asked for, where, and with which program. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program's name and version.
    pub version: String,
    /// The time of the launch, RFC 3339.
    pub time: String,
    /// The suite whose runs they are; `None` for runs of `train`.
    pub suite: Option<String>,
    /// The folder of the report, if one was given.
    pub out: Option<PathBuf>,
    /// The arguments that were given, without the program and the command.
    pub request: Vec<String>,
    /// The folder of runs (`runs.root`).
    pub root: PathBuf,
    /// The working directory, in which relative paths of settings and `./experiments` are looked up.
    pub working_directory: PathBuf,
    /// The program's file.
    pub program: PathBuf,
    /// The BLAKE3 hash of that file; `None` if it could not be read.
    pub program_hash: Option<String>,
    /// Whether a task that was stopped goes on (`slurm.requeue`).
    pub requeue: bool,
}

/// The run that a task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The index of the task.
    pub index: usize,
    /// The run's folder, relative to the folder of runs: `<suite or "train">/<hash>-s<seed>`.
    pub run: String,
    /// The rows that the run is measured for; several if rows of a suite have the same settings.
    pub rows: Vec<String>,
    /// The arguments that plan this run, beside the folder of runs: alone as those of `train`, or with the other
    /// rows of the suite as those of `reproduce`.
    pub arguments: Vec<String>,
}

/// The kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// All tasks.
    Array,
    /// One task, which could not be requeued.
    Task,
    /// The report.
    Report,
}

/// A job that was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub job: u64,
    /// Its kind.
    pub kind: JobKind,
    /// The time at which it was submitted, RFC 3339.
    pub submitted: String,
}

impl Job {
    /// Returns a job that was submitted now.
    pub fn now(job: u64, kind: JobKind) -> Self {
        Self { job, kind, submitted: now_rfc3339() }
    }
}

impl Launch {
    /// Returns the path of a folder for this launch that does not exist: `launches/TIME-SUITE`, or with a number
    /// behind it if several launches are made in a second.
    pub fn free_folder(&self) -> PathBuf {
        let compact: String = self.time.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!("{compact}-{}", self.suite.as_deref().unwrap_or("train"));
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let folders =
            std::iter::once(name.clone()).chain(numbered).map(|name| self.root.join(LAUNCHES).join(name));
        folders.into_iter().find(|folder| fs::symlink_metadata(folder).is_err()).unwrap_or_default()
    }

    /// Makes `folder` and writes this, the tasks and the scripts (each with its name) into it.
    ///
    /// # Errors
    /// Returns an error that names the path, if the folder exists or the file system refuses.
    pub fn write(&self, folder: &Path, tasks: &[Task], scripts: &[(&str, String)]) -> Result<(), SlurmError> {
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).map_err(SlurmError::io("write", parent))?;
        }
        fs::create_dir(folder).map_err(SlurmError::io("write", folder))?;
        let write = |name: &str, text: &[u8]| {
            let path = folder.join(name);
            write_atomically(&path, text).map_err(SlurmError::io("write", &path))
        };
        let json = |value: serde_json::Result<String>| {
            value.map_err(|error| SlurmError::io("write", folder)(io::Error::from(error)))
        };
        let mut lines = String::new();
        for task in tasks {
            lines += &json(serde_json::to_string(task))?;
            lines.push('\n');
        }
        write(TASKS, lines.as_bytes())?;
        for (name, script) in scripts {
            write(name, script.as_bytes())?;
        }
        write(LAUNCH, (json(serde_json::to_string_pretty(self))? + "\n").as_bytes())
    }

    /// Reads the launch in `folder`.
    ///
    /// # Errors
    /// Returns an error that names the file, if it cannot be read or used.
    pub fn read(folder: &Path) -> Result<Self, SlurmError> {
        let path = folder.join(LAUNCH);
        let text = fs::read(&path).map_err(SlurmError::io("read", &path))?;
        serde_json::from_slice(&text).map_err(|error| SlurmError::Damaged { path, reason: error.to_string() })
    }
}

impl Task {
    /// Reads the tasks of the launch in `folder`, in the order of their indices.
    ///
    /// # Errors
    /// Returns an error that names the file, if it cannot be read or used.
    pub fn all(folder: &Path) -> Result<Vec<Self>, SlurmError> {
        let path = folder.join(TASKS);
        let tasks: Vec<Self> = lines(&path)?;
        match tasks.iter().enumerate().find(|(index, task)| *index != task.index) {
            Some((index, task)) => Err(SlurmError::Damaged {
                reason: format!("line {} has the index {}, expected {index}", index + 1, task.index),
                path,
            }),
            None => Ok(tasks),
        }
    }

    /// Reads the task of an index.
    ///
    /// # Errors
    /// Returns the errors of [`Task::all`], and one if there is no such task.
    pub fn of(folder: &Path, index: usize) -> Result<Self, SlurmError> {
        let mut tasks = Self::all(folder)?;
        if index >= tasks.len() {
            let last = tasks.len().saturating_sub(1);
            return Err(SlurmError::NoTask { path: folder.join(TASKS), index, last });
        }
        Ok(tasks.swap_remove(index))
    }
}

/// Reads the jobs that were submitted for the launch in `folder`.
///
/// # Errors
/// Returns an error that names the file, if it cannot be read or used.
pub fn jobs(folder: &Path) -> Result<Vec<Job>, SlurmError> {
    let path = folder.join(JOBS);
    if path.exists() { lines(&path) } else { Ok(Vec::new()) }
}

/// Adds a job to those of the launch in `folder`. Then, while no other process adds one, calls `then` with all
/// of them.
///
/// # Errors
/// Returns an error that names the file, if it cannot be written or used, and those of `then`.
pub fn add_job<T>(
    folder: &Path,
    job: &Job,
    then: impl FnOnce(&[Job]) -> Result<T, SlurmError>,
) -> Result<T, SlurmError> {
    let path = folder.join(JOBS);
    let add = || -> io::Result<File> {
        let mut file = File::options().append(true).create(true).open(&path)?;
        // Where a file system has no locks, two tasks that cannot be requeued at the same moment may lose one
        // another's place in the report's dependency; the report then says which runs are missing.
        let _ = file.lock();
        file.write_all(format!("{}\n", serde_json::to_string(job)?).as_bytes())?;
        file.sync_all()?;
        Ok(file)
    };
    let held = add().map_err(SlurmError::io("write", &path))?;
    let done = then(&lines(&path)?);
    drop(held);
    done
}

/// Returns the folders of all launches in the folder of runs `root`, ordered by name.
///
/// # Errors
/// Returns an error that names the folder, if the system refuses to list it.
pub fn launches(root: &Path) -> Result<Vec<PathBuf>, SlurmError> {
    let all = root.join(LAUNCHES);
    let listed = match fs::read_dir(&all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => {
            listed.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        }
    };
    let mut folders = listed.map_err(SlurmError::io("read", &all))?;
    folders.retain(|folder| folder.join(LAUNCH).is_file());
    folders.sort();
    Ok(folders)
}

/// Reads a file of JSON lines.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, SlurmError> {
    let text = fs::read_to_string(path).map_err(SlurmError::io("read", path))?;
    let read = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| SlurmError::Damaged {
            path: path.to_path_buf(),
            reason: format!("line {}: {error}", at + 1),
        })
    };
    text.lines().enumerate().map(read).collect()
}
