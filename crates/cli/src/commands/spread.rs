//! A queue of runs on several GPUs, with one process for each GPU; the locks of the runs keep two processes
//! from working on the same run. The first process shows the progress of all, passes on a request to stop,
//! and at the end does the runs that a process left when it died.
//!
//! A worker is this program, started for the same runs with `--worker N`. It writes its messages to standard
//! output, each a line of JSON, and stops when its standard input ends, which means that a stop is requested
//! or that the first process is gone.

use crate::arguments::Gpus;
use crate::failure::Failure;
use crate::output::note_above;
use crate::progress::{Progress, Told, bar};
use anyhow::{Context, anyhow};
use invaspread_runner::engine::Stop;
use invaspread_runner::launch::{Planned, Standing, run_all};
use invaspread_tensor::DeviceKind;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// The time between two checks for a request to stop.
const TICK: Duration = Duration::from_millis(50);

impl Gpus {
    /// Returns the GPUs that runs are spread over: those of `--gpus`. Without this flag they are all GPUs of
    /// the machine, or none if the runs use the CPU or an argument in `typed` names a GPU (`device=cuda:N`).
    /// Sets the first GPU of `--gpus` in the runs.
    ///
    /// # Errors
    /// Returns an error if `--gpus` names a GPU that is not there, or the runs are not for GPUs.
    pub(crate) fn choose(&self, planned: &mut [Planned], typed: &[String]) -> Result<Vec<usize>, Failure> {
        let Some(asked) = &self.gpus else {
            let on_first = planned.iter().all(|run| run.recipe.device == DeviceKind::Cuda(0));
            let is_named = typed.iter().any(|argument| argument.starts_with("device=cuda:"));
            let all = if on_first && !is_named { DeviceKind::gpus() } else { 0 };
            return Ok((0..all).collect());
        };
        let usage = |error: String| Failure::Usage(anyhow!("--gpus: {error}"));
        let mut gpus = asked.clone();
        gpus.sort_unstable();
        gpus.dedup();
        if let Some(why) = gpus.iter().find_map(|&gpu| DeviceKind::Cuda(gpu).why_not()) {
            return Err(usage(why));
        }
        if let Some(run) = planned.iter().find(|run| !run.recipe.device.is_cuda()) {
            return Err(usage(format!("found {} with device=cpu, expected device=cuda", run.title())));
        }
        for run in planned {
            run.recipe.device = DeviceKind::Cuda(gpus[0]);
        }
        Ok(gpus)
    }
}

/// Works through the runs as a worker on GPU number `gpu`.
///
/// # Errors
/// Returns [`Failure::Stopped`] if it was asked to stop. The first process reports runs that failed.
pub(crate) fn serve(planned: &mut [Planned], root: &Path, gpu: usize) -> Result<(), Failure> {
    for run in &mut *planned {
        run.recipe.device = DeviceKind::Cuda(gpu);
    }
    let stop = Stop::on_signals().context("failed to listen for signals")?;
    let raised = stop.clone();
    std::thread::spawn(move || {
        // Nothing is ever written to standard input; only its end matters.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        raised.raise();
    });
    run_all(planned, root, &mut Progress::for_another(planned.len()), &stop);
    if stop.is_raised() { Err(Failure::Stopped) } else { Ok(()) }
}

/// An event of a worker.
enum Event {
    Told(usize, Told),
    /// The worker's output ended.
    Ended(usize),
}

/// Works through the remaining runs with a process on each of `gpus`, which is started with the arguments
/// `request`. The caller must do the runs that these processes leave undone.
///
/// # Errors
/// Returns an error if a process cannot be started.
pub(crate) fn spread(
    planned: &[Planned],
    root: &Path,
    gpus: &[usize],
    request: &[OsString],
    stop: &Stop,
) -> Result<(), Failure> {
    let is_left = |run: &&Planned| matches!(run.standing(root), Ok(Standing::New | Standing::Begun { .. }));
    let left = planned.iter().filter(is_left).count();
    if gpus.len().min(left) < 2 {
        return Ok(());
    }
    let gpus = &gpus[..gpus.len().min(left)];
    let bar = bar("{prefix} {bar:24} {pos}/{len}  {msg}");
    bar.set_length(left as u64);
    bar.set_prefix("runs");
    let (sender, events) = mpsc::channel();
    let mut workers: BTreeMap<usize, Child> = BTreeMap::new();
    for &gpu in gpus {
        let worker = begin(gpu, gpus.len(), request, &sender).context("failed to begin a process")?;
        workers.insert(gpu, worker);
    }
    drop(sender);
    note_above(&bar, &format!("a process on each of {}", named(gpus)));
    let mut doing: BTreeMap<usize, String> = BTreeMap::new();
    while !workers.is_empty() {
        if stop.is_raised() {
            // The end of its standard input asks a worker to stop.
            for worker in workers.values_mut() {
                drop(worker.stdin.take());
            }
        }
        match events.recv_timeout(TICK) {
            Ok(Event::Told(gpu, Told::Line(text))) => note_above(&bar, &format!("cuda:{gpu}  {text}")),
            Ok(Event::Told(gpu, Told::Doing(text))) => {
                doing.insert(gpu, text);
                let all = doing.iter().map(|(gpu, text)| format!("cuda:{gpu} {text}"));
                bar.set_message(all.collect::<Vec<_>>().join("  "));
            }
            Ok(Event::Told(_, Told::Finished)) => bar.inc(1),
            Ok(Event::Ended(gpu)) => {
                doing.remove(&gpu);
                let Some(mut worker) = workers.remove(&gpu) else { continue };
                drop(worker.stdin.take());
                let ended = worker.wait().context("failed to wait for a process")?;
                if !ended.success() && !stop.is_raised() {
                    note_above(
                        &bar,
                        &format!("the process on cuda:{gpu} ended early ({ended}); others do its runs"),
                    );
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Returns the names of the GPUs, such as "cuda:0, cuda:1".
fn named(gpus: &[usize]) -> String {
    gpus.iter().map(|gpu| format!("cuda:{gpu}")).collect::<Vec<_>>().join(", ")
}

/// Starts the worker on GPU number `gpu`, one of `workers`, and a thread that reads its messages.
fn begin(gpu: usize, workers: usize, request: &[OsString], events: &Sender<Event>) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(request).args(["--worker", &gpu.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if std::env::var_os(THREADS).is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env(THREADS, (cores / workers).max(1).to_string());
    }
    // A terminal sends its interrupt to the whole process group, and a second interrupt would end a worker at
    // once. In a group of its own, a worker is stopped only by the first process.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    let output = child.stdout.take().expect("it is piped");
    let events = events.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Ok(told) = serde_json::from_str(&line)
                && events.send(Event::Told(gpu, told)).is_err()
            {
                return;
            }
        }
        // Sending fails if the first process no longer reads the events.
        let _ = events.send(Event::Ended(gpu));
    });
    Ok(child)
}

/// The variable for the number of threads with which a process computes.
const THREADS: &str = "RAYON_NUM_THREADS";
