//! The runs in a folder, finished or not: what each is, how far it is, and the values by which people look for them.

mod filter;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::config::{leaves, lookup};
use crate::record::{Layout, Owner, RecordError, RunRecord, State, Status};

pub use filter::{Filter, FilterError};

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// It has a record.
    Finished,
    /// A process works on it.
    Running(Owner),
    /// A process of another machine works on it.
    Elsewhere(Owner),
    /// A process of another machine, or of this one before it restarted, worked on it and has given no sign of life for
    /// this time, which is longer than its lease. It counts as dead; the same command resumes the run.
    Silent(Owner, Duration),
    /// It was stopped on request; the same command resumes it.
    Stopped,
    /// Its process was killed; the same command resumes it.
    Killed,
    /// It was stopped by this error.
    Failed(String),
    /// It was planned and not begun.
    Queued,
    /// A file of it cannot be read, for this reason.
    Unreadable(String),
}

impl RunState {
    /// Returns a word for it, by which runs can be chosen.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Running(_) => "running",
            Self::Elsewhere(_) => "elsewhere",
            Self::Silent(..) => "silent",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Failed(_) => "failed",
            Self::Queued => "queued",
            Self::Unreadable(_) => "unreadable",
        }
    }

    /// Returns what else is to be said, if anything.
    pub fn details(&self) -> Option<String> {
        match self {
            Self::Running(owner) | Self::Elsewhere(owner) => Some(format!("by {owner}")),
            Self::Silent(owner, since) => {
                Some(format!("{owner} gave no sign of life for about {} s", since.as_secs()))
            }
            Self::Failed(why) | Self::Unreadable(why) => Some(why.clone()),
            Self::Finished | Self::Stopped | Self::Killed | Self::Queued => None,
        }
    }
}

/// A run in a folder.
#[derive(Debug, Clone)]
pub struct FoundRun {
    /// Its files.
    pub layout: Layout,
    /// Its folder below the root of runs, as `table1/0123abcd-s0`.
    pub name: String,
    /// How far it is.
    pub state: RunState,
    /// Its status, if there is one.
    pub status: Option<Status>,
    /// Its record, if it is finished.
    pub record: Option<RunRecord>,
    /// The dotted keys of its config, with their values as text.
    pub config: BTreeMap<String, String>,
}

/// Finds all runs below `root`, in the order of their folders. A run whose files cannot be read is among them.
///
/// # Errors
/// Returns an error that names the folder, if the system refuses to list it.
pub fn find(root: &Path) -> Result<Vec<FoundRun>, RecordError> {
    let layouts = Layout::all(root)?;
    Ok(layouts.into_iter().filter(is_run).map(|layout| FoundRun::read(root, layout)).collect())
}

/// Returns whether a folder is that of a run: its name is a hash and a seed, and it has a config, a status or a record.
pub fn is_run(layout: &Layout) -> bool {
    let name = layout.folder().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_named = name.rsplit_once("-s").is_some_and(|(hash, seed)| {
        let all =
            |text: &str, is: fn(&char) -> bool| !text.is_empty() && text.chars().all(|letter| is(&letter));
        all(hash, char::is_ascii_hexdigit) && all(seed, char::is_ascii_digit)
    });
    is_named && [layout.config(), layout.status(), layout.record()].iter().any(|file| file.is_file())
}

impl FoundRun {
    /// Reads the files of the run in `layout`.
    pub fn read(root: &Path, layout: Layout) -> Self {
        let below = layout.folder().strip_prefix(root).unwrap_or(layout.folder());
        let name =
            below.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
        let mut run = Self {
            name,
            state: RunState::Queued,
            status: None,
            record: None,
            config: BTreeMap::new(),
            layout,
        };
        run.state = run.read_files().unwrap_or_else(RunState::Unreadable);
        run
    }

    fn read_files(&mut self) -> Result<RunState, String> {
        let config = self.layout.config();
        if config.exists() {
            let said = |error: &dyn std::fmt::Display| {
                format!("failed to read {}: {error}; expected the config of a run", config.display())
            };
            let text = fs_err::read_to_string(&config).map_err(|error| said(&error))?;
            let table: toml::Table = text.parse().map_err(|error| said(&error))?;
            let value = |key: &String| lookup(&table, key).map(|value| (key.clone(), as_text(value)));
            self.config = leaves(&table).iter().filter_map(value).collect();
        }
        let told = |error: RecordError| error.to_string();
        self.status = Status::read(&self.layout).map_err(told)?;
        if self.layout.record().exists() {
            self.record = Some(RunRecord::read(&self.layout).map_err(told)?);
        }
        let state = self.status.as_ref().map(|status| status.state);
        let message = || self.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default();
        Ok(match (state, &self.record) {
            (None | Some(State::Done), Some(_)) => RunState::Finished,
            (Some(State::Interrupted), _) => RunState::Stopped,
            (Some(State::Failed), _) => RunState::Failed(message()),
            (None | Some(State::Queued), _) => RunState::Queued,
            // The status of a process that was killed stays, and so does its claim.
            (Some(_), _) => match Owner::of(&self.layout) {
                Some(owner) => match owner.has_ended() {
                    Some(true) => RunState::Killed,
                    Some(false) => RunState::Running(owner),
                    None => match Owner::last_sign(&self.layout) {
                        // Twice its time, because the clocks of two machines are compared here.
                        Some(since) if since > owner.lease() * 2 => RunState::Silent(owner, since),
                        _ => RunState::Elsewhere(owner),
                    },
                },
                None => RunState::Killed,
            },
        })
    }

    /// Returns whether a process works on it, as far as can be seen.
    pub fn is_worked_on(&self) -> bool {
        matches!(self.state, RunState::Running(_) | RunState::Elsewhere(_))
    }

    /// Returns the epochs that are done, and those of the whole run, as far as they are known.
    pub fn epochs(&self) -> [Option<u64>; 2] {
        let all = self.config.get("optim.epochs").and_then(|text| text.parse().ok());
        match &self.record {
            Some(record) => [Some(record.epochs), Some(record.epochs)],
            None => [self.status.as_ref().map(|status| status.epoch), all],
        }
    }

    /// Returns the value of `key` as text: of the run ([`FoundRun::OWN_KEYS`]), of a metric (that of the last epoch;
    /// `best_` before its name for that of the best), or of the config.
    pub fn value(&self, key: &str) -> Option<String> {
        let record = self.record.as_ref();
        let (group, id) = self.name.rsplit_once('/').unwrap_or(("", &self.name));
        let of_config = |key: &str| self.config.get(key).cloned();
        match key {
            "run" => Some(self.name.clone()),
            "suite" => Some(group.to_owned()),
            "state" => Some(self.state.name().to_owned()),
            "row" => record.map(|record| record.row.clone()),
            "profile" => record.map(|record| record.profile.clone()),
            "method" => record.map(|record| record.method.clone()).or_else(|| of_config("method.name")),
            "dataset" => record.map(|record| record.dataset.clone()).or_else(|| of_config("data.name")),
            // The name of a run ends with its seed.
            "seed" => id.rsplit_once("-s").map(|(_, seed)| seed.to_owned()),
            "epoch" => self.epochs()[0].map(|epoch| epoch.to_string()),
            "updated" => record
                .map(|record| record.finished.clone())
                .or_else(|| self.status.as_ref().map(|status| status.updated.clone())),
            "seconds" => record.map(|record| record.seconds.to_string()),
            _ => {
                let metric = |name: &str| record.and_then(|record| record.metrics.get(name));
                let best = || key.strip_prefix("best_").and_then(metric).map(|summary| summary.best);
                let shape = || record.and_then(|record| record.shape.get(key)).copied();
                let number = metric(key).map(|summary| summary.last).or_else(best).or_else(shape);
                number.map(|number| number.to_string()).or_else(|| of_config(key))
            }
        }
    }

    /// The keys of a run that are neither metrics nor settings.
    pub const OWN_KEYS: [&'static str; 11] = [
        "run", "suite", "row", "state", "method", "dataset", "profile", "seed", "epoch", "updated", "seconds",
    ];

    /// Returns the names of its metrics.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.record.iter().flat_map(|record| record.metrics.keys()).map(String::as_str)
    }

    /// Returns whether it has a value for `key`, or could have one if it were finished.
    fn knows(&self, key: &str) -> bool {
        Self::OWN_KEYS.contains(&key) || self.value(key).is_some()
    }
}

/// Returns a value as it is typed in a setting.
fn as_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
