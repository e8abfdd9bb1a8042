//! The lease on a run's folder, so that one process at a time works in it, on any number of machines that share
//! the file system. It needs no locks of the system and no common clock.
//!
//! ```text
//! lease-000003                    claim number 3: which process made it, and how often it gives a sign of life
//! lease-000003-5f0c.../           its work folder: exists as long as the claim is held
//! lease-000003-5f0c.../beat       the sign of life, a number that grows
//! lease-000003-5f0c.../...        files that are being written, before they are renamed to their places
//! ```
//!
//! **Claim.** A process makes its work folder, then the claim with the next number. A hard link to a whole file
//! is made for this, which only one of several processes can do. The claim with the highest number holds. It is
//! never removed, so that no number is used twice; its owner removes those below. A process that finds a higher
//! claim after it made its own withdraws.
//!
//! **Release.** The owner removes its work folder. A claim without a work folder is free.
//!
//! **Death.** If the owner is a process of this machine, the table of processes says whether it has ended. It is
//! then succeeded at once, and never before, even while it is suspended. Of an owner on another machine only the
//! signs of life are known: if they have not changed for the time that its claim states, by the clock of the
//! process that watches, it counts as dead. Clocks of two machines are never compared.
//!
//! **Fence.** An owner that was only suspended, or cut off from the file system, may wake after another process
//! has succeeded it. The new owner therefore removes the old work folder before it reads anything. Every file of
//! a run is written in the work folder and renamed from there ([`super::write_atomically`]), and the folder's
//! name is never used again: a rename of the old owner comes either before the new owner's first read, which
//! then sees the file of a process that died a little later, or it fails. Two files grow in place, the log and
//! the file of `TensorBoard` events. An event file is begun in the work folder, and the log is opened through a hard
//! link there. The new owner replaces both by copies, so that a file that the old owner holds open is no longer the
//! run's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::RecordError;
use super::claim::{Claim, Claims, work_folder};
use super::fence::Fence;
use super::owner::Owner;
use super::watch::{Standing, standing};

/// The time without a sign of life after which the owner on another machine counts as dead, unless it is set.
pub(crate) const LEASE: Duration = Duration::from_mins(1);

/// Signs of life in the time after which an owner counts as dead.
const BEATS: u32 = 12;

/// Tries to claim before the folder counts as busy; each failed one means that another process was faster.
const TRIES: usize = 8;

/// A lease that this process holds. Dropping it releases the run.
#[derive(Debug)]
pub(crate) struct Lease {
    work: PathBuf,
    lost: Arc<AtomicBool>,
    /// Ends the thread that gives the signs of life, when it is dropped.
    end: Option<Sender<()>>,
    beating: Option<JoinHandle<()>>,
    succeeded: Option<Owner>,
    /// Leads what this process writes below the run's folder through the work folder.
    fence: Option<Fence>,
}

impl Lease {
    /// Claims the run in `folder` and gives signs of life from then on. This process counts as dead on other
    /// machines after `lease` without one.
    ///
    /// # Errors
    /// Returns `Busy` if another process holds it, and `Io`, which names the path, if the file system refuses.
    pub(crate) fn take(folder: &Path, lease: Duration) -> Result<Self, RecordError> {
        let mut held = Self::take_silently(folder, &Owner::this_process(lease))?;
        let (end, ended) = mpsc::channel();
        let (path, lost) = (held.work.join(BEAT), Arc::clone(&held.lost));
        let beat = move || {
            let mut count = 0_u64;
            while ended.recv_timeout(lease / BEATS) == Err(RecvTimeoutError::Timeout) {
                count += 1;
                // Without its folder the lease is lost. After any other error the next sign may succeed.
                if give_sign(&path, count).is_err_and(|error| is_gone(&error)) {
                    lost.store(true, Ordering::Relaxed);
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("signs of life".to_owned()).spawn(beat);
        held.beating = Some(thread.map_err(RecordError::io("give signs of life in", folder))?);
        held.end = Some(end);
        Ok(held)
    }

    /// Does the same as [`Self::take`] for `owner`, without signs of life after the first.
    fn take_silently(folder: &Path, owner: &Owner) -> Result<Self, RecordError> {
        for _ in 0..TRIES {
            let claims = Claims::of(folder)?;
            let (number, succeeded) = match claims.highest() {
                None => (1, None),
                Some(claim) => match standing(folder, claim, owner.lease())? {
                    Standing::Free => (claim.number + 1, None),
                    Standing::Dead => (claim.number + 1, claim.owner.clone()),
                    Standing::Held => {
                        let (path, owner) = (claim.path(folder), claim.owner.clone().map(Box::new));
                        return Err(RecordError::Busy { path, owner });
                    }
                },
            };
            let is_succession = claims.highest().is_some_and(|claim| work_folder(folder, claim).exists());
            let claim = Claim::new(number, owner.clone());
            let work = work_folder(folder, &claim);
            if !claim.make(folder)? {
                continue;
            }
            // From here on, an error releases the claim.
            let lease = Self {
                fence: Some(Fence::new(folder, &work)),
                work,
                lost: Arc::default(),
                end: None,
                beating: None,
                succeeded: succeeded.filter(|_| is_succession),
            };
            // The others belong to owners that died or released the run.
            Claims::of(folder)?.dismantle_others(folder, &claim)?;
            if is_succession {
                replace_growing_files(folder)?;
            }
            return Ok(lease);
        }
        let owner = Claims::of(folder)?.highest().and_then(|claim| claim.owner.clone()).map(Box::new);
        Err(RecordError::Busy { path: folder.to_path_buf(), owner })
    }

    /// Returns the process that held the run before and died, if there was one.
    pub(crate) fn succeeded(&self) -> Option<&Owner> {
        self.succeeded.as_ref()
    }

    /// Returns whether another process has succeeded this one. It asks the file system.
    pub(crate) fn is_lost(&self) -> bool {
        if !self.work.is_dir() {
            self.lost.store(true, Ordering::Relaxed);
        }
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns the flag that is raised when another process has succeeded this one.
    pub(crate) fn lost(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lost)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.beating.take() {
            // The thread does not panic; if it did, the lease would be lost and nothing would be left to do.
            let _ = thread.join();
        }
        drop(self.fence.take());
        // If the folder cannot be removed, others see that this process has ended.
        let _ = super::claim::dismantle(&self.work);
    }
}

/// The name of the file of signs of life in a work folder.
pub(super) const BEAT: &str = "beat";

/// Writes the sign of life number `count` into the existing file at `path`. In place, because other machines
/// see new content of a file sooner than a new file under an old name.
fn give_sign(path: &Path, count: u64) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(format!("{count:020}\n").as_bytes())
}

/// Returns whether an error means that the folder of a file is not there any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle)
}

/// Replaces the log and the event files by copies of themselves, so that files which an earlier owner holds open
/// are no longer the run's.
fn replace_growing_files(folder: &Path) -> Result<(), RecordError> {
    let layout = super::Layout::of(folder);
    let events = fs::read_dir(layout.tensorboard()).into_iter().flatten().flatten();
    for path in std::iter::once(layout.log()).chain(events.map(|entry| entry.path())) {
        if path.is_file() {
            let read = || Ok((fs::read(&path)?, fs::metadata(&path)?.modified()?));
            let (bytes, modified) = read().map_err(RecordError::io("read", &path))?;
            // The newest event file is the one that counts, so its time is kept.
            let copy = |file: &mut File| file.write_all(&bytes).and_then(|()| file.set_modified(modified));
            super::write_with(&path, copy).map_err(RecordError::io("write", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
