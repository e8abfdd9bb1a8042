//! A queue of runs worked on by several processes of this machine: one for each GPU, or as many as `launcher=local`
//! asks for. The leases of the runs keep two processes from working on the same run. The first process shows the
//! progress of all, passes on a request to stop, and at the end does the runs that a process left when it died.
//!
//! A worker is this program, started for the same runs with `--worker DEVICE`. It writes its messages to standard
//! output, each a line of JSON, and stops when its standard input ends, which means that a stop is requested
//! or that the first process is gone.

use super::places::{Place, Places};
use crate::failure::Failure;
use crate::output::note_above;
use crate::progress::{Progress, Told, bar};
use anyhow::Context;
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

/// Works through the runs as a worker on `device`.
///
/// # Errors
/// Returns [`Failure::Stopped`] if it was asked to stop. The first process reports runs that failed.
pub(crate) fn serve(planned: &mut [Planned], root: &Path, device: DeviceKind) -> Result<(), Failure> {
    for run in &mut *planned {
        run.recipe.device = device;
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
    Told(Place, Told),
    /// The worker's output ended.
    Ended(Place),
}

/// Works through the remaining runs with a process in each of `places`, which is started with the arguments
/// `request`. The caller must do the runs that these processes leave undone.
///
/// # Errors
/// Returns an error if a process cannot be started.
pub(crate) fn spread(
    planned: &[Planned],
    root: &Path,
    places: &Places,
    request: &[OsString],
    stop: &Stop,
) -> Result<(), Failure> {
    let is_left = |run: &&Planned| matches!(run.standing(root), Ok(Standing::New | Standing::Begun { .. }));
    let left = planned.iter().filter(is_left).count();
    let places = places.at_most(left);
    if places.are_this_process() {
        return Ok(());
    }
    let bar = bar("{prefix} {bar:24} {pos}/{len}  {msg}");
    bar.set_length(left as u64);
    bar.set_prefix("runs");
    let (sender, events) = mpsc::channel();
    let mut workers: BTreeMap<Place, Child> = BTreeMap::new();
    for &place in places.all() {
        let worker = begin(place, &places, request, &sender).context("failed to begin a process")?;
        workers.insert(place, worker);
    }
    drop(sender);
    note_above(&bar, &places.said());
    let mut doing: BTreeMap<Place, String> = BTreeMap::new();
    while !workers.is_empty() {
        if stop.is_raised() {
            // The end of its standard input asks a worker to stop.
            for worker in workers.values_mut() {
                drop(worker.stdin.take());
            }
        }
        match events.recv_timeout(TICK) {
            Ok(Event::Told(place, Told::Line(text))) => note_above(&bar, &format!("{place}  {text}")),
            Ok(Event::Told(place, Told::Doing(text))) => {
                doing.insert(place, text);
                let all = doing.iter().map(|(place, text)| format!("{place} {text}"));
                bar.set_message(all.collect::<Vec<_>>().join("  "));
            }
            Ok(Event::Told(_, Told::Finished)) => bar.inc(1),
            Ok(Event::Ended(place)) => {
                doing.remove(&place);
                let Some(mut worker) = workers.remove(&place) else { continue };
                drop(worker.stdin.take());
                let ended = worker.wait().context("failed to wait for a process")?;
                if !ended.success() && !stop.is_raised() {
                    note_above(
                        &bar,
                        &format!("the process on {place} ended early ({ended}); others do its runs"),
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

/// Starts the worker in `place`, one of `places`, and a thread that reads its messages. The environment's number of
/// threads holds, unless the settings have one.
fn begin(
    place: Place,
    places: &Places,
    request: &[OsString],
    events: &Sender<Event>,
) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(request).args(["--worker", &place.device().to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if std::env::var_os(THREADS).is_none() || places.have_threads() {
        command.env(THREADS, places.threads().to_string());
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
                && events.send(Event::Told(place, told)).is_err()
            {
                return;
            }
        }
        // Sending fails if the first process no longer reads the events.
        let _ = events.send(Event::Ended(place));
    });
    Ok(child)
}

/// The variable for the number of threads with which a process computes.
const THREADS: &str = "RAYON_NUM_THREADS";
