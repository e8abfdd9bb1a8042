//! Where the runs of `train` and `reproduce` are done (`launcher`), and what a Slurm cluster is asked for
//! (`[slurm]`). No key of this file is part of a run's identity, and none is in a run's own config.

use serde::{Deserialize, Serialize};

/// What does the runs of a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launcher {
    /// The process that was started.
    #[default]
    Here,
    /// Several processes of this machine, each with a part of its cores, or several on each GPU.
    Local,
    /// A job array of a Slurm cluster, with a task for each run.
    Slurm,
}

impl Launcher {
    /// Returns whether this machine computes the runs, so that its devices and its memory matter.
    pub fn computes_here(self) -> bool {
        match self {
            Self::Here | Self::Local => true,
            Self::Slurm => false,
        }
    }
}

/// The keys that only `launcher` decides about: the name of its key, and the beginning of those of its tables.
pub(super) fn is_of_launcher(key: &str) -> bool {
    key == "launcher" || key.starts_with("slurm.") || key.starts_with("local.")
}

/// The processes of `launcher=local`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSection {
    /// Processes at once: in all on the processor, where unset means one for each core, and on each GPU, where unset
    /// means one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Threads of each process; unset, an equal share of the cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
}

/// The most processes, and the most threads of each, that `launcher=local` starts.
const MOST_LOCAL: u64 = 1024;

impl LocalSection {
    /// Returns whether no value is set.
    pub(super) fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// Returns this section with every optional value set.
    pub(super) fn with_every_key() -> Self {
        Self { processes: Some(0), threads: Some(0) }
    }

    /// Checks the values.
    pub(super) fn check(&self) -> Result<(), Refused> {
        for (key, value) in [("local.processes", self.processes), ("local.threads", self.threads)] {
            if let Some(value) = value.filter(|value| !(1..=MOST_LOCAL).contains(value)) {
                return Err((key, value.to_string(), format!("a whole number from 1 to {MOST_LOCAL}")));
            }
        }
        Ok(())
    }
}

/// What each task of the job array asks Slurm for. Values that are not set are left to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlurmSection {
    /// The partition (`--partition`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The account that is charged (`--account`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The quality of service (`--qos`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<String>,
    /// The time limit of a task, in one of Slurm's formats (`--time`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Processors of a task (`--cpus-per-task`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// GPUs of a task, as a number or with a type: `a100:1` (`--gpus`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<String>,
    /// Memory of a task: a number of megabytes, or with K, M, G or T (`--mem`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Features that the node must have (`--constraint`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    /// The most tasks that run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u64>,
    /// Seconds before its time limit at which a task is told to stop.
    pub signal_seconds: u64,
    /// Whether a task that was stopped at its time limit, was preempted, or lost its node goes on by itself.
    pub requeue: bool,
    /// Lines of bash before the program.
    pub setup: Vec<String>,
    /// Further options of sbatch.
    pub options: Vec<String>,
}

impl Default for SlurmSection {
    fn default() -> Self {
        Self {
            partition: None,
            account: None,
            qos: None,
            time: None,
            cpus: None,
            gpus: None,
            memory: None,
            constraint: None,
            at_once: None,
            signal_seconds: 120,
            requeue: true,
            setup: Vec::new(),
            options: Vec::new(),
        }
    }
}

/// Options of sbatch that the launcher sets itself, or that would make another kind of job.
const OWN_OPTIONS: [&str; 20] = [
    "--array",
    "-a",
    "--signal",
    "--requeue",
    "--no-requeue",
    "--open-mode",
    "--output",
    "-o",
    "--error",
    "-e",
    "--chdir",
    "-D",
    "--dependency",
    "-d",
    "--parsable",
    "--wrap",
    "--wait",
    "-W",
    "--test-only",
    "--job-name",
];

/// The largest number of seconds that `--signal` takes.
const MOST_SIGNAL_SECONDS: u64 = 65_535;

/// The seconds of no time limit.
const UNLIMITED: u64 = u64::MAX;

/// A value that was refused: its key, what was found and what was expected.
pub(super) type Refused = (&'static str, String, String);

impl SlurmSection {
    /// Returns this section with every optional value set.
    pub(super) fn with_every_key() -> Self {
        let word = || Some(String::new());
        Self {
            partition: word(),
            account: word(),
            qos: word(),
            time: word(),
            cpus: Some(0),
            gpus: word(),
            memory: word(),
            constraint: word(),
            at_once: Some(0),
            // The kind of a list is that of its first value.
            setup: vec![String::new()],
            options: vec![String::new()],
            ..Self::default()
        }
    }

    /// Checks the values, in the forms that Slurm reads.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let wrong =
            |key, found: &dyn ToString, expected: &str| Err((key, found.to_string(), expected.to_owned()));
        let names = [
            ("slurm.partition", &self.partition),
            ("slurm.account", &self.account),
            ("slurm.qos", &self.qos),
            ("slurm.constraint", &self.constraint),
        ];
        for (key, value) in names {
            if value.as_ref().is_some_and(|name| name.is_empty() || name.contains(char::is_control)) {
                return wrong(key, &format!("{value:?}"), "a name on one line");
            }
        }
        for (key, value) in [("slurm.cpus", self.cpus), ("slurm.at_once", self.at_once)] {
            if value == Some(0) {
                return wrong(key, &0, "at least 1");
            }
        }
        if let Some(gpus) = self.gpus.as_ref().filter(|gpus| !is_number_of_gpus(gpus)) {
            return wrong("slurm.gpus", gpus, "a number of at least 1, or a type and a number, as a100:1");
        }
        if let Some(memory) = self.memory.as_ref().filter(|memory| !is_memory(memory)) {
            return wrong(
                "slurm.memory",
                memory,
                "a number of megabytes above 0, or with K, M, G or T, as 16G",
            );
        }
        if !(1..=MOST_SIGNAL_SECONDS).contains(&self.signal_seconds) {
            return wrong(
                "slurm.signal_seconds",
                &self.signal_seconds,
                "a number of seconds from 1 to 65535",
            );
        }
        if let Some(time) = &self.time {
            let Some(limit) = limit_seconds(time) else {
                let expected = "one of Slurm's times: minutes, minutes:seconds, hours:minutes:seconds, days-hours, \
                                days-hours:minutes, days-hours:minutes:seconds, or unlimited";
                return wrong("slurm.time", time, expected);
            };
            if limit <= self.signal_seconds {
                let expected = format!(
                    "more than the {} seconds of slurm.signal_seconds, which is how long before its limit a task is told to stop",
                    self.signal_seconds
                );
                return wrong("slurm.time", time, &expected);
            }
        }
        for option in &self.options {
            let name = option.split('=').next().unwrap_or_default();
            // sbatch takes the beginning of a long option for the whole.
            let own = |known: &&&str| {
                let is_begun = name.len() > 2 && name.starts_with("--") && known.starts_with(name);
                is_begun || name == **known || is_short_with_value(option, known)
            };
            if !option.starts_with('-') || option.contains(char::is_control) {
                return wrong(
                    "slurm.options",
                    &format!("{option:?}"),
                    "options of sbatch, as [\"--exclude=node7\"]",
                );
            }
            if let Some(own) = OWN_OPTIONS.iter().find(own) {
                return wrong(
                    "slurm.options",
                    option,
                    &format!("no {own}, which launcher=slurm sets itself"),
                );
            }
        }
        if let Some(line) = self.setup.iter().find(|line| line.contains('\0')) {
            return wrong("slurm.setup", &format!("{line:?}"), "lines of bash, without a NUL");
        }
        Ok(())
    }
}

/// Returns whether `option` is the short option `known` with its value directly behind it, as in `-o/x`.
fn is_short_with_value(option: &str, known: &str) -> bool {
    known.len() == 2 && !option.starts_with("--") && option.starts_with(known)
}

/// Returns whether `text` is a number of GPUs, with or without their type: `2`, `a100:2`.
fn is_number_of_gpus(text: &str) -> bool {
    let (kind, number) = text.rsplit_once(':').unwrap_or(("any", text));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !kind.is_empty() && kind.chars().all(is_name) && whole(number).is_some_and(|number| number > 0)
}

/// Returns whether `text` is an amount of memory that is not 0: for Slurm, 0 is the whole memory of a node.
fn is_memory(text: &str) -> bool {
    let number = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
    whole(number).is_some_and(|number| number > 0)
}

/// Returns the seconds of a time in one of Slurm's formats, [`UNLIMITED`] for no limit, and `None` if it is in none
/// of the formats.
pub(crate) fn limit_seconds(text: &str) -> Option<u64> {
    if ["unlimited", "infinite"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Some(UNLIMITED);
    }
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(whole(days)?), rest),
        None => (None, text),
    };
    let parts: Vec<u64> = rest.split(':').map(whole).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = match (days, parts.as_slice()) {
        (Some(_), &[hours]) => [hours, 0, 0],
        (Some(_), &[hours, minutes]) => [hours, minutes, 0],
        (_, &[hours, minutes, seconds]) => [hours, minutes, seconds],
        (None, &[minutes]) => [0, minutes, 0],
        (None, &[minutes, seconds]) => [0, minutes, seconds],
        _ => return None,
    };
    let all = [(days.unwrap_or(0), 86_400), (hours, 3600), (minutes, 60), (seconds, 1)];
    all.into_iter().try_fold(0_u64, |sum, (number, unit)| sum.checked_add(number.checked_mul(unit)?))
}

/// Returns the number that `text` is, if it consists of digits alone.
fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{SlurmSection, UNLIMITED, limit_seconds};

    #[test]
    fn the_times_of_slurm_are_read() {
        for (text, seconds) in [
            ("90", 5400),
            ("90:30", 5430),
            ("1:30:00", 5400),
            ("2-12", 216_000),
            ("2-12:30", 217_800),
            ("2-12:30:05", 217_805),
            ("0-0:0:1", 1),
        ] {
            assert_eq!(limit_seconds(text), Some(seconds), "{text}");
        }
        assert_eq!(limit_seconds("UNLIMITED"), Some(UNLIMITED));
        for text in [
            "",
            "1h",
            "-1",
            "1:",
            ":1",
            "1:2:3:4",
            "1-",
            "-5",
            "2-1:2:3:4",
            "1.5",
            "+1",
            "1 0",
            "99999999999999999-0",
        ] {
            assert_eq!(limit_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_by_its_key() {
        let none = SlurmSection::default();
        none.check().unwrap();
        let whole = SlurmSection {
            partition: Some("gpu".into()),
            time: Some("1-0".into()),
            cpus: Some(8),
            gpus: Some("a100:2".into()),
            memory: Some("16G".into()),
            constraint: Some("[rack1|rack2]&ib".into()),
            at_once: Some(4),
            setup: vec!["module load cuda".into()],
            options: vec!["--exclude=node7".into(), "-x".into(), "--exclusive".into()],
            ..SlurmSection::default()
        };
        whole.check().unwrap();
        let text = |text: &str| Some(text.to_owned());
        for (key, section) in [
            ("slurm.partition", SlurmSection { partition: text("a\n#SBATCH --wrap"), ..none.clone() }),
            ("slurm.account", SlurmSection { account: text(""), ..none.clone() }),
            ("slurm.time", SlurmSection { time: text("2 hours"), ..none.clone() }),
            ("slurm.time", SlurmSection { time: text("2"), ..none.clone() }),
            ("slurm.cpus", SlurmSection { cpus: Some(0), ..none.clone() }),
            ("slurm.gpus", SlurmSection { gpus: text("a100"), ..none.clone() }),
            ("slurm.gpus", SlurmSection { gpus: text("0"), ..none.clone() }),
            ("slurm.memory", SlurmSection { memory: text("16GB"), ..none.clone() }),
            ("slurm.memory", SlurmSection { memory: text("0"), ..none.clone() }),
            ("slurm.at_once", SlurmSection { at_once: Some(0), ..none.clone() }),
            ("slurm.signal_seconds", SlurmSection { signal_seconds: 0, ..none.clone() }),
            ("slurm.signal_seconds", SlurmSection { signal_seconds: 65_536, ..none.clone() }),
            ("slurm.options", SlurmSection { options: vec!["exclude=n".into()], ..none.clone() }),
            ("slurm.options", SlurmSection { options: vec!["--array=0-9".into()], ..none.clone() }),
            ("slurm.options", SlurmSection { options: vec!["-o/tmp/x".into()], ..none.clone() }),
            ("slurm.options", SlurmSection { options: vec!["--x\n--y".into()], ..none.clone() }),
        ] {
            let (refused, found, expected) = section.check().unwrap_err();
            assert_eq!(refused, key, "{found}: {expected}");
        }
    }
}
