//! Runs as a job array of a Slurm cluster (`launcher=slurm`), with a task for each run.
//!
//! **The folder.** Each launch has a folder of its own, `RUNS_ROOT/launches/TIME-SUITE`. It is named by the
//! time, not by its content, because it must never change: its tasks look up their runs by index for as long as
//! they are in the queue, and the same command, given again later, makes a shorter list. [`folder`] says what is
//! in it. The folder of runs and the working directory must be seen by all nodes; every path in it is absolute.
//!
//! **The signal.** Slurm sends SIGUSR1 to a task some time before its time limit (`--signal=B:USR1@SECONDS`).
//! `B:` sends it to the process of the batch script alone; without it, only job steps get it, and there are
//! none, since nothing is started by srun. The script ends with `exec`, so the process of the batch script is
//! this program: the signal reaches it directly and no shell has to pass it on.
//!
//! **What follows a signal.** The run writes its checkpoint and stops. A task that is not done goes on in one of
//! three ways: Slurm requeues it by itself (preemption with `PreemptMode=REQUEUE`, `scontrol requeue`, a lost
//! node), the task asks for it (`scontrol requeue`), or, where Slurm refuses that (`JobRequeue=0`, a site's
//! rules), it submits its own index again (`sbatch --array=INDEX`). A task that somebody cancelled must not go
//! on. SIGUSR1 means the time limit. SIGTERM alone may mean any of preemption, a lost node and `scancel`, so the
//! task asks Slurm about itself. What Slurm 22.05 was seen to answer while a task had SIGTERM:
//!
//! | cause | state | restarts | time of preemption |
//! |---|---|---|---|
//! | `scancel` | COMPLETING | as before | none |
//! | preemption, `PreemptMode=REQUEUE`, with or without `GraceTime` | COMPLETING | one more | none |
//! | preemption, `PreemptMode=CANCEL`, with or without `GraceTime` | COMPLETING | as before | set |
//! | `scontrol requeue` by hand, or a node that was set down | COMPLETING or PENDING | one more | none |
//!
//! So [`next`] decides by the number of restarts, the time of preemption, and, where somebody cancels a task that
//! has had SIGUSR1, by whether it ended before its time limit:
//!
//! | signal | Slurm says | then |
//! |---|---|---|
//! | any | `slurm.requeue=false` | the task ends |
//! | any | more restarts than when the task began | Slurm has requeued it: the task ends |
//! | any | a time of preemption | the task asks for its requeue |
//! | SIGUSR1, then SIGTERM | it ended before its time limit | somebody cancelled it: the task ends |
//! | SIGUSR1 | anything else, or nothing | the task asks for its requeue |
//! | SIGTERM | anything else, or nothing | somebody cancelled it: the task ends |
//!
//! Slurm 22.05 sends the batch script nothing at the beginning of a `GraceTime`, only at its end; the time for
//! the checkpoint is then Slurm's `KillWait` (30 seconds unless set).
//!
//! **No endless loops.** A task asks for its requeue only if the run has taken a step since the task began;
//! otherwise it ends with an error. A run that failed is not requeued. A task is always named by array and index
//! (`scontrol requeue 12_3`): the number of the array alone would requeue every task of it.
//!
//! **The report** of a suite is a job that depends on the array by `afterany`, so that it also runs if a run
//! failed; with `afterok` it would then wait forever. It writes what is there and says what is missing.

mod error;
pub mod folder;
mod next;
mod quote;
mod script;
mod system;

pub use error::SlurmError;
pub use folder::{Job, JobKind, Launch, Task};
pub use next::{ArrayTask, Heard, JobFacts, Next, next};
pub use quote::shell_word;
pub use script::{array_script, report_script};
pub use system::{Requeued, facts, go_on, queued_tasks, submit_array, submit_report};
