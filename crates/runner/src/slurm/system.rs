//! Calls of Slurm's programs: sbatch, scontrol and squeue.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::folder::{ARRAY, REPORT, add_job};
use super::{ArrayTask, Job, JobFacts, JobKind, SlurmError};

/// Variables of Slurm that say where the cluster is. All others that begin with [`OF_A_JOB`] describe the job
/// that this process is in, and sbatch would take them for options of the new one.
const OF_THE_CLUSTER: [&str; 2] = ["SLURM_CONF", "SLURM_JWT"];
const OF_A_JOB: &str = "SLURM_";

/// Calls a program of Slurm, and returns what it wrote.
///
/// # Errors
/// Returns an error if the program is not there, or all that it wrote if it refused.
fn call(program: &'static str, arguments: &[OsString]) -> Result<String, SlurmError> {
    let output = run(program, arguments)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refused(program, arguments, &output))
}

fn run(program: &'static str, arguments: &[OsString]) -> Result<Output, SlurmError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with(OF_A_JOB) && !OF_THE_CLUSTER.contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command.output().map_err(|source| SlurmError::NoProgram { program, source })
}

fn refused(program: &str, arguments: &[OsString], output: &Output) -> SlurmError {
    let said = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text).trim().to_owned());
    let said: Vec<&str> = said.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    SlurmError::Refused {
        command: line(program, arguments),
        ended: output.status.to_string(),
        said: if said.is_empty() { "it wrote nothing".to_owned() } else { said.join("\n") },
    }
}

/// Returns a command as a line for people.
fn line(program: &str, arguments: &[OsString]) -> String {
    let words = arguments.iter().map(|argument| super::shell_word(&argument.to_string_lossy()));
    std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn words<const N: usize>(words: [&OsStr; N]) -> Vec<OsString> {
    words.map(OsStr::to_os_string).to_vec()
}

/// Submits a script and returns the number of the job.
fn submit(options: &[String], script: &Path) -> Result<u64, SlurmError> {
    let mut arguments: Vec<OsString> = vec!["--parsable".into()];
    arguments.extend(options.iter().map(OsString::from));
    arguments.push(script.into());
    let said = call("sbatch", &arguments)?;
    // On a cluster of several, the number is followed by a semicolon and the name of the cluster.
    let number = said.trim().split(';').next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| SlurmError::Unexpected {
        command: line("sbatch", &arguments),
        said,
        expected: "the number of a job",
    })
}

/// Submits the job array of the launch in `folder`, and returns its number.
///
/// # Errors
/// Returns an error with all that sbatch wrote if it refuses, or one that names the file if the number cannot be
/// noted.
pub fn submit_array(folder: &Path) -> Result<u64, SlurmError> {
    let array = submit(&[], &folder.join(ARRAY))?;
    add_job(folder, &Job::now(array, JobKind::Array), |_| Ok(array))
}

/// Submits the report of the launch in `folder`, which begins once the jobs `after` have ended, and returns its
/// number.
///
/// # Errors
/// Returns the errors of [`submit_array`].
pub fn submit_report(folder: &Path, after: &[u64]) -> Result<u64, SlurmError> {
    let report = submit(&[format!("--dependency={}", after_any(after))], &folder.join(REPORT))?;
    add_job(folder, &Job::now(report, JobKind::Report), |_| Ok(report))
}

fn after_any(jobs: &[u64]) -> String {
    jobs.iter().fold("afterany".to_owned(), |text, job| format!("{text}:{job}"))
}

/// Returns what Slurm says about a task.
///
/// # Errors
/// Returns an error if Slurm does not answer.
pub fn facts(task: &ArrayTask) -> Result<JobFacts, SlurmError> {
    let name = task.name();
    let arguments = words(["--oneliner".as_ref(), "show".as_ref(), "job".as_ref(), name.as_ref()]);
    JobFacts::parse(&line("scontrol", &arguments), &call("scontrol", &arguments)?)
}

/// How a task goes on.
#[derive(Debug)]
pub enum Requeued {
    /// Slurm requeued it.
    Requeued,
    /// Slurm refused to, and a new job does its index.
    Resubmitted {
        /// The number of the new job.
        job: u64,
        /// Why Slurm refused.
        refusal: SlurmError,
        /// Why the report does not wait for the new job, if it does not.
        report: Option<SlurmError>,
    },
}

/// Lets a task of the launch in `folder` go on: requeues it, or submits its index again where Slurm refuses. The
/// report then waits for the new job too.
///
/// # Errors
/// Returns an error if Slurm refuses both.
pub fn go_on(folder: &Path, task: &ArrayTask) -> Result<Requeued, SlurmError> {
    let name = task.name();
    let arguments = words(["requeue".as_ref(), name.as_ref()]);
    let output = run("scontrol", &arguments)?;
    // A task that is requeued is ended, with all of its processes. If scontrol was among them, it was obeyed.
    if output.status.success() || output.status.code().is_none() {
        return Ok(Requeued::Requeued);
    }
    let refusal = refused("scontrol", &arguments, &output);
    let job = submit(&[format!("--array={}", task.index)], &folder.join(ARRAY))?;
    let report = add_job(folder, &Job::now(job, JobKind::Task), |jobs| {
        // The array in which this task is may have been submitted by hand.
        let done_by: Vec<u64> =
            jobs.iter().filter(|job| job.kind != JobKind::Report).map(|job| job.job).collect();
        let after =
            if done_by.contains(&task.array) { done_by } else { [done_by, vec![task.array]].concat() };
        Ok(match jobs.iter().rfind(|job| job.kind == JobKind::Report) {
            Some(report) => wait_for(report.job, &after).err(),
            None => None,
        })
    })?;
    // The report may have begun, if this was the last task and Slurm counted it as ended.
    let report = match report {
        Some(refusal) => submit_report(folder, &[job]).is_err().then_some(refusal),
        None => None,
    };
    Ok(Requeued::Resubmitted { job, refusal, report })
}

/// Makes a job that has not begun wait until the jobs `after` have ended.
fn wait_for(job: u64, after: &[u64]) -> Result<(), SlurmError> {
    let (job, dependency) = (format!("JobId={job}"), format!("Dependency={}", after_any(after)));
    call("scontrol", &words(["update".as_ref(), job.as_ref(), dependency.as_ref()])).map(drop)
}

/// Returns the tasks of job arrays that this user has in the queue, pending or running, as array and index.
///
/// # Errors
/// Returns an error if squeue is not there or refuses.
pub fn queued_tasks() -> Result<Vec<(u64, usize)>, SlurmError> {
    let arguments = ["--me", "--array", "--noheader", "--format=%F %K"];
    let said = call("squeue", &words(arguments.map(OsStr::new)))?;
    // A job that is no array has no index.
    let task = |line: &str| {
        let (array, index) = line.trim().split_once(' ')?;
        Some((array.parse().ok()?, index.trim().parse().ok()?))
    };
    Ok(said.lines().filter_map(task).collect())
}
