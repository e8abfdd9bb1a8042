//! The places in which the processes of a queue of runs work: GPUs, or parts of the processor's cores.

use crate::arguments::Gpus;
use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_runner::config::{Launcher, LocalSection};
use invaspread_runner::launch::Planned;
use invaspread_tensor::DeviceKind;
use std::fmt;

/// A place for one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The number of its GPU; `None` for the processor.
    gpu: Option<usize>,
    /// Its number among the places on the same device, from 1; `None` if it is the only one.
    number: Option<usize>,
}

impl Place {
    pub(crate) fn device(self) -> DeviceKind {
        self.gpu.map_or(DeviceKind::Cpu, DeviceKind::Cuda)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gpu {
            Some(gpu) => write!(f, "cuda:{gpu}")?,
            None => f.write_str("cpu")?,
        }
        self.number.map_or(Ok(()), |number| write!(f, " #{number}"))
    }
}

/// All places of a queue. Without any, this process does the runs itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Places {
    all: Vec<Place>,
    /// The threads of each process; `None` for an equal share of the cores.
    threads: Option<usize>,
}

impl Places {
    /// Returns the places of `launcher`, which does `planned`; `gpus` are those that the runs are spread over.
    pub(crate) fn of(launcher: Launcher, local: LocalSection, planned: &[Planned], gpus: &[usize]) -> Self {
        // A GPU that the settings name is the only one.
        let named = match planned.first().map(|run| run.recipe.device) {
            Some(DeviceKind::Cuda(gpu)) if gpus.is_empty() => vec![gpu],
            _ => gpus.to_vec(),
        };
        match launcher {
            Launcher::Local => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let unset = if named.is_empty() { cores } else { 1 };
                let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
                Self::new(&named, local.processes.map_or(unset, number), local.threads.map(number))
            }
            Launcher::Here | Launcher::Slurm if gpus.is_empty() => Self::default(),
            Launcher::Here | Launcher::Slurm => Self::new(gpus, 1, None),
        }
    }

    /// Returns `processes` places on each of `gpus`, or on the processor if there are none.
    pub(crate) fn new(gpus: &[usize], processes: usize, threads: Option<usize>) -> Self {
        let devices: Vec<Option<usize>> =
            if gpus.is_empty() { vec![None] } else { gpus.iter().copied().map(Some).collect() };
        let number = |number| (processes > 1).then_some(number);
        // First one on each GPU, then a second one on each, so that a few runs get a GPU each.
        let all = (1..=processes)
            .flat_map(|of_device| devices.iter().map(move |&gpu| Place { gpu, number: number(of_device) }))
            .collect();
        Self { all, threads }
    }

    pub(crate) fn all(&self) -> &[Place] {
        &self.all
    }

    /// Returns the first `most` places.
    pub(crate) fn at_most(&self, most: usize) -> Self {
        Self { all: self.all.iter().take(most).copied().collect(), ..self.clone() }
    }

    /// Returns whether all processes share the cores of the processor.
    pub(crate) fn are_on_the_processor(&self) -> bool {
        self.all.iter().all(|place| place.gpu.is_none())
    }

    /// Returns whether the number of threads was set.
    pub(crate) fn have_threads(&self) -> bool {
        self.threads.is_some()
    }

    /// Returns whether no other process is needed: one with the threads of this one would be this one again.
    pub(crate) fn are_this_process(&self) -> bool {
        self.all.len() < 2 && (self.all.is_empty() || self.threads.is_none())
    }

    /// Returns the number of threads with which each process computes.
    pub(crate) fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or(cores / self.all.len().max(1)).max(1)
    }

    /// Returns a line that says where the processes work.
    pub(crate) fn said(&self) -> String {
        let threads = match self.threads() {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        };
        if self.are_on_the_processor() {
            return format!("{} processes with {threads} each", self.all.len());
        }
        let named: Vec<String> = self.all.iter().map(ToString::to_string).collect();
        format!("a process on each of {}, with {threads}", named.join(", "))
    }
}

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

#[cfg(test)]
mod tests {
    use super::Places;

    fn names(places: &Places) -> Vec<String> {
        places.all().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn gpus_are_filled_one_after_the_other() {
        let places = Places::new(&[0, 2], 2, Some(3));
        assert_eq!(names(&places), ["cuda:0 #1", "cuda:2 #1", "cuda:0 #2", "cuda:2 #2"]);
        assert_eq!(names(&places.at_most(3)), ["cuda:0 #1", "cuda:2 #1", "cuda:0 #2"]);
        assert_eq!(places.threads(), 3);
        assert_eq!(places.at_most(2).said(), "a process on each of cuda:0 #1, cuda:2 #1, with 3 threads");
    }

    #[test]
    fn processes_on_the_processor_share_its_cores() {
        let places = Places::new(&[], 3, None);
        assert_eq!(names(&places), ["cpu #1", "cpu #2", "cpu #3"]);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(places.threads(), (cores / 3).max(1));
        assert_eq!(Places::new(&[], 3, Some(1)).said(), "3 processes with 1 thread each");
        assert!(Places::default().all().is_empty());
    }
}
