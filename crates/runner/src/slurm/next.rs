//! What a task does after it was told to stop; the module above has the table and its reasons.

use super::SlurmError;
use crate::config::limit_seconds;

/// The signals that a task had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// SIGUSR1: the time limit is near.
    TimeLimit,
    /// Only SIGTERM, or another signal that asks for a stop.
    Termination,
}

/// What Slurm says about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// How often it was requeued.
    pub restarts: u64,
    /// Whether it was preempted since it began.
    pub preempted: bool,
    /// Whether Slurm counts it as ended, although it had not yet been running for as long as its time limit.
    pub ended_early: bool,
}

impl JobFacts {
    /// Parses the answer of `scontrol --oneliner show job`.
    ///
    /// # Errors
    /// Returns an error that shows the answer, if it does not give the number of restarts.
    pub fn parse(command: &str, answer: &str) -> Result<Self, SlurmError> {
        let value =
            |key: &str| answer.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let restarts = value("Restarts").and_then(|number| number.parse().ok());
        let seconds = |key: &str| limit_seconds(value(key)?);
        let limit_reached =
            seconds("RunTime").zip(seconds("TimeLimit")).is_some_and(|(time, limit)| time >= limit);
        Ok(Self {
            restarts: restarts.ok_or_else(|| SlurmError::Unexpected {
                command: command.to_owned(),
                said: answer.trim().to_owned(),
                expected: "the state of a job, with Restarts=NUMBER",
            })?,
            preempted: value("PreemptTime")
                .is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit())),
            ended_early: value("JobState") != Some("RUNNING") && !limit_reached,
        })
    }
}

/// What a task does after its run has written its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It asks Slurm to requeue it.
    Requeue,
    /// It ends, because Slurm requeues it.
    SlurmRequeues,
    /// It ends, because somebody cancelled it.
    Cancelled,
    /// It ends, because `slurm.requeue` is false.
    NotAsked,
}

/// Returns what a task does that had the signals `heard` and had been restarted `restarts` times when it began.
/// `facts` is what Slurm says now, if it answers. `requeue` is `slurm.requeue`.
pub fn next(heard: Heard, restarts: u64, facts: Option<&JobFacts>, requeue: bool) -> Next {
    match facts {
        _ if !requeue => Next::NotAsked,
        Some(facts) if facts.restarts > restarts => Next::SlurmRequeues,
        Some(facts) if facts.preempted => Next::Requeue,
        Some(facts) if facts.ended_early => Next::Cancelled,
        _ if heard == Heard::TimeLimit => Next::Requeue,
        _ => Next::Cancelled,
    }
}

/// A task of a job array, as Slurm's variables describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayTask {
    /// The number of the job array.
    pub array: u64,
    /// The index in it.
    pub index: usize,
    /// How often the task was requeued before it began.
    pub restarts: u64,
}

impl ArrayTask {
    /// Returns the task that `variable` describes (`std::env::var` in a job); `None` outside of a job array.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.parse::<u64>().ok();
        Some(Self {
            array: number("SLURM_ARRAY_JOB_ID")?,
            index: usize::try_from(number("SLURM_ARRAY_TASK_ID")?).ok()?,
            // Slurm sets it only for a task that was requeued.
            restarts: number("SLURM_RESTART_COUNT").unwrap_or(0),
        })
    }

    /// Returns the task's name for Slurm's programs, `ARRAY_INDEX`.
    pub fn name(&self) -> String {
        format!("{}_{}", self.array, self.index)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{ArrayTask, Heard, JobFacts, Next, next};

    /// Answers of Slurm 22.05.8, shortened.
    const SCANCEL: &str = "JobId=1 ArrayJobId=1 ArrayTaskId=0 JobName=j.sh JobState=COMPLETING Reason=None Requeue=1 Restarts=0 \
                           RunTime=00:00:31 TimeLimit=00:01:00 \
                           EndTime=2026-11-30T20:59:25 PreemptTime=None";
    const PREEMPTED_REQUEUE: &str = "JobId=2 ArrayJobId=2 ArrayTaskId=0 JobState=COMPLETING Reason=None Requeue=1 Restarts=1 EndTime=Unknown";
    const PREEMPTED_CANCEL: &str = "JobId=10 ArrayJobId=10 ArrayTaskId=0 JobState=COMPLETING Reason=None Requeue=1 Restarts=0 \
                                    EndTime=2026-11-30T21:01:16 PreemptTime=2026-11-30T21:01:16";
    const NODE_DOWN: &str = "JobId=15 ArrayTaskId=1 JobState=PENDING Reason=BeginTime Requeue=1 Restarts=1";
    const RUNNING: &str = "JobId=17 ArrayTaskId=1 JobState=RUNNING Reason=None Requeue=0 Restarts=0 RunTime=00:00:42 TimeLimit=00:01:00 \
                           PreemptTime=None";
    const TIMED_OUT: &str = "JobId=17 ArrayTaskId=1 JobState=COMPLETING Reason=None Requeue=0 Restarts=0 RunTime=00:01:12 \
                             TimeLimit=00:01:00 PreemptTime=None";

    fn facts(answer: &str) -> JobFacts {
        JobFacts::parse("scontrol show job", answer).unwrap()
    }

    #[test]
    fn the_table_of_signals() {
        use Heard::{Termination, TimeLimit};
        for (heard, answer, then) in [
            (TimeLimit, Some(RUNNING), Next::Requeue),
            (TimeLimit, None, Next::Requeue),
            (TimeLimit, Some(SCANCEL), Next::Cancelled),
            (TimeLimit, Some(TIMED_OUT), Next::Requeue),
            (TimeLimit, Some(PREEMPTED_CANCEL), Next::Requeue),
            (Termination, Some(TIMED_OUT), Next::Cancelled),
            (TimeLimit, Some(NODE_DOWN), Next::SlurmRequeues),
            (Termination, Some(SCANCEL), Next::Cancelled),
            (Termination, Some(RUNNING), Next::Cancelled),
            (Termination, None, Next::Cancelled),
            (Termination, Some(PREEMPTED_REQUEUE), Next::SlurmRequeues),
            (Termination, Some(NODE_DOWN), Next::SlurmRequeues),
            (Termination, Some(PREEMPTED_CANCEL), Next::Requeue),
        ] {
            let facts = answer.map(facts);
            assert_eq!(next(heard, 0, facts.as_ref(), true), then, "{heard:?} {answer:?}");
            assert_eq!(next(heard, 0, facts.as_ref(), false), Next::NotAsked, "{heard:?} {answer:?}");
        }
        // Only restarts since the task began count.
        assert_eq!(next(Termination, 1, Some(&facts(PREEMPTED_REQUEUE)), true), Next::Cancelled);
        let again = JobFacts { restarts: 1, ..facts(RUNNING) };
        assert_eq!(next(TimeLimit, 1, Some(&again), true), Next::Requeue);
    }

    #[test]
    fn an_answer_without_restarts_is_an_error_that_shows_it() {
        let told =
            JobFacts::parse("scontrol show job 1_0", "No jobs in the system\n").unwrap_err().to_string();
        assert!(told.contains("No jobs in the system") && told.contains("scontrol show job 1_0"), "{told}");
    }

    #[test]
    fn a_task_is_named_by_array_and_index() {
        let all = [("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_JOB_ID", "15")];
        let of = |variables: &[(&str, &str)]| {
            ArrayTask::of(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let task = of(&all).unwrap();
        assert_eq!((task.name().as_str(), task.index, task.restarts), ("12_3", 3, 0));
        let again = of(&[all[0], all[1], ("SLURM_RESTART_COUNT", "2")]).unwrap();
        assert_eq!(again.restarts, 2);
        assert_eq!(of(&all[1..]), None);
        // An array may have been submitted by hand with other indices.
        assert_eq!(of(&[all[0], ("SLURM_ARRAY_TASK_ID", "x")]), None);
    }
}
