//! Waiting for runs that other processes work on.

use std::time::{Duration, Instant};

use crate::engine::{Observer, Stop};
use crate::record::Owner;

/// The time between two checks of the runs of other processes.
const PAUSE: Duration = Duration::from_millis(500);
/// The time between two checks of the stop flag.
const TICK: Duration = Duration::from_millis(50);

/// Notes which processes this one waits for, whenever that changes.
#[derive(Default)]
pub(super) struct Waiting {
    said: String,
}

impl Waiting {
    /// Waits a short time for runs that `owners` hold, one owner for each run. Returns at once when `stop` is
    /// raised.
    pub(super) fn pause(&mut self, owners: Vec<Option<Owner>>, observer: &mut dyn Observer, stop: &Stop) {
        // If there is no owner, a stop kept the remaining runs from being tried.
        let text = line(owners);
        if !text.is_empty() && text != self.said {
            observer.note(&text);
            self.said = text;
        }
        let from = Instant::now();
        while from.elapsed() < PAUSE && !stop.is_raised() {
            std::thread::sleep(TICK);
        }
    }
}

/// Returns a note such as "waiting for 2 runs of other processes (process 12 on host a, ...)".
fn line(owners: Vec<Option<Owner>>) -> String {
    let runs = owners.len();
    let mut named: Vec<String> = owners
        .into_iter()
        .flatten()
        .map(|owner| format!("process {} on host {}", owner.pid, owner.host))
        .collect();
    named.sort();
    named.dedup();
    let who = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
    match runs {
        0 => String::new(),
        1 => format!("waiting for a run of another process{who}"),
        _ => format!("waiting for {runs} runs of other processes{who}"),
    }
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::record::Owner;

    #[test]
    fn each_process_is_named_once() {
        let owner = |pid, since: &str| {
            Some(Owner {
                host: "a".into(),
                pid,
                since: since.into(),
                version: "invaspread 0.1.0".into(),
                machine: None,
                started: None,
                lease_milliseconds: 60_000,
            })
        };
        assert_eq!(
            line(vec![
                owner(7, "2026-11-29T00:00:00Z"),
                None,
                owner(7, "2026-11-29T00:00:05Z"),
                owner(12, "")
            ]),
            "waiting for 4 runs of other processes (process 12 on host a, process 7 on host a)"
        );
        assert_eq!(line(vec![None]), "waiting for a run of another process");
        assert_eq!(line(vec![]), "");
    }
}
