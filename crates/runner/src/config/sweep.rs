//! The runs that arguments with lists of values make, each once.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use invaspread_tensor::DeviceKind;

use super::labels::{Asked, Promised};
use super::launcher::is_of_launcher;
use super::layers::Layers;
use super::overrides::Combinations;
use super::schema::Schema;
use super::{Config, ConfigError, Launcher, LocalSection, Override, Resolved, SlurmSection, resolve};
use crate::launch::Planned;
use crate::memory::Memory;

/// Returns the memory of a device, if it is known.
pub type Room<'a> = &'a dyn Fn(DeviceKind) -> Option<Memory>;

/// The runs that a command asks for.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Each run, in order.
    pub planned: Vec<Planned>,
    /// The folder that the runs are kept in (`runs.root`).
    pub root: PathBuf,
    /// The runs that were asked for more than once, one a line; each is planned once.
    pub repeated: Vec<String>,
    /// What does the runs.
    pub launcher: Launcher,
    /// The processes of this machine, if several do the runs.
    pub local: LocalSection,
    /// What a Slurm cluster is asked for, if it does the runs.
    pub slurm: SlurmSection,
    /// If this process does not do the runs itself, the arguments that plan each run alone, in the order of
    /// `planned` (in a suite, each run and the other rows); otherwise empty. The folder of the runs is not among
    /// them.
    pub alone: Vec<Vec<String>>,
}

/// Returns the runs that `arguments` make outside of a suite.
///
/// # Errors
/// Returns an error if an argument is wrong or has several values without `multirun`, or if a run needs more
/// memory than `room` says.
pub fn plan_runs(arguments: &[Override], multirun: bool, room: Room<'_>) -> Result<Sweep, ConfigError> {
    let combinations = Combinations::of_runs(arguments, multirun)?;
    let mut planner = Planner::new(Some(room));
    let mut gathering = Gathering::with_capacity(combinations.runs.len());
    for typed in &combinations.runs {
        let varied = varied(typed, &combinations.varied);
        let asked = Asked { suite: None, row: None, label: None, own: &[], typed, varied: &varied };
        let (run, config) = planner.plan(&asked)?;
        gathering.take(run, config, typed);
    }
    Ok(gathering.into_sweep())
}

/// Returns the settings of `typed` in which the runs of a sweep differ, without seed and method, which the
/// names of runs contain anyway.
pub(super) fn varied(typed: &[Override], keys: &[String]) -> Vec<String> {
    let told = |one: &&Override| keys.contains(&one.key) && one.key != "seed" && one.key != "method";
    typed.iter().filter(told).map(Override::argument).collect()
}

/// A suite's row, and the settings without the seed.
type SettingsKey = (Option<String>, Vec<Override>);

/// Plans runs. Settings that differ only in the seed are resolved once.
pub(super) struct Planner<'a> {
    room: Option<Room<'a>>,
    known: HashMap<SettingsKey, (Planned, Config)>,
    /// The key of the run that was planned last: a sweep over seeds asks for the same settings many times in
    /// a row, and to compare with this key is cheaper than to copy the settings into a new one.
    latest: Option<SettingsKey>,
}

impl<'a> Planner<'a> {
    /// Returns a planner. If `room` is set, the planner refuses runs that need more memory.
    pub(super) fn new(room: Option<Room<'a>>) -> Self {
        Self { room, known: HashMap::new(), latest: None }
    }

    /// Returns the number of configs that were resolved.
    #[cfg(test)]
    pub(super) fn resolved(&self) -> usize {
        self.known.len()
    }

    /// Returns the run, and its config except for the seed.
    ///
    /// # Errors
    /// Returns an error if a setting is wrong or the run is too large.
    pub(super) fn plan(&mut self, asked: &Asked<'_>) -> Result<(Planned, &Config), ConfigError> {
        let all = || asked.own.iter().chain(asked.typed);
        let settings = || all().filter(|one| one.key != "seed");
        let is_asked =
            |(row, known): &SettingsKey| row.as_deref() == asked.row && known.iter().eq(settings());
        let key = match self.latest.take().filter(is_asked) {
            Some(key) => key,
            None => (asked.row.map(str::to_owned), settings().cloned().collect()),
        };
        if !self.known.contains_key(&key) {
            let planned = self.resolve(asked, &key.1)?;
            self.known.insert(key.clone(), planned);
        }
        let (known, config) = &self.known[self.latest.insert(key)];
        let mut run = known.clone();
        if let Some(seed) = all().rfind(|one| one.key == "seed") {
            run.recipe.seed = seed.seed()?;
        }
        Ok((run, config))
    }

    fn resolve(&self, asked: &Asked<'_>, settings: &[Override]) -> Result<(Planned, Config), ConfigError> {
        let Resolved { config, .. } = resolve(settings)?;
        if let Some(room) = self.room.filter(|_| config.launcher.computes_here()) {
            config.fits(room)?;
        }
        let promised = Promised::new(&config, asked.own)?;
        let labels = config.labels(&promised, asked)?;
        Ok((config.plan(asked.suite, labels)?, config))
    }
}

impl Override {
    /// Returns the seed that this setting sets.
    fn seed(&self) -> Result<u64, ConfigError> {
        // It is read like any other value, but without the files around it.
        let value = Layers::argument(self, Schema::without_method())?;
        Ok(value.and_then(|value| value.as_integer()).unwrap_or_default().unsigned_abs())
    }
}

/// A list of planned runs, each once.
#[derive(Default)]
pub(super) struct Gathering {
    planned: Vec<Planned>,
    seen: HashSet<(String, String)>,
    root: PathBuf,
    repeated: Vec<String>,
    launcher: Launcher,
    local: LocalSection,
    slurm: SlurmSection,
    alone: Vec<Vec<String>>,
}

impl Gathering {
    /// Returns an empty list with room for `runs` runs.
    fn with_capacity(runs: usize) -> Self {
        Self { planned: Vec::with_capacity(runs), seen: HashSet::with_capacity(runs), ..Self::default() }
    }

    /// Adds a run unless it is in the list. Two rows of a suite may be the same run under two names; both are
    /// shown. `typed` are the arguments that asked for it.
    pub(super) fn take(&mut self, run: Planned, config: &Config, typed: &[Override]) {
        if self.planned.is_empty() {
            self.root.clone_from(&config.runs.root);
            (self.launcher, self.local, self.slurm) = (config.launcher, config.local, config.slurm.clone());
        }
        if self.seen.insert((run.id(), run.labels.row.clone())) {
            if !self.launcher.computes_here() {
                self.alone.push(alone(typed, run.recipe.seed));
            }
            self.planned.push(run);
        } else {
            self.repeated.push(format!("{} is asked for more than once, and is run once", run.title()));
        }
    }

    pub(super) fn into_sweep(self) -> Sweep {
        let Self { planned, root, repeated, launcher, local, slurm, alone, .. } = self;
        Sweep { planned, root, repeated, launcher, local, slurm, alone }
    }
}

/// Returns the arguments that plan the run with `seed` of those that `typed` asks for, on any machine.
fn alone(typed: &[Override], seed: u64) -> Vec<String> {
    let is_kept = |one: &&Override| !is_of_launcher(&one.key) && one.key != "runs.root" && one.key != "seed";
    let kept = typed.iter().filter(is_kept).map(Override::on_command_line);
    kept.chain([format!("seed={seed}")]).collect()
}
