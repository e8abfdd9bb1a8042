//! Writes a run's checkpoints in a thread, while the next epoch runs. The tensors are copied before the
//! thread begins, so training may change them meanwhile. At most one write is in flight.

use std::thread::JoinHandle;

use serde_json::Value;

use super::journal::Journal;
use super::restore::weights_header;
use super::weights::WEIGHTS;
use crate::checkpoint::{CheckpointError, CheckpointFiles, NamedTensors, Snapshot};

/// Why a checkpoint was not written. The one before it is still whole.
#[derive(Debug)]
pub(super) enum NotWritten {
    /// A tensor of the state is not finite (after a NaN gradient, for instance): no run could resume from it.
    NotFinite {
        /// The tensor.
        name: String,
        /// The value.
        found: f64,
        /// The number of whole epochs trained when the state was copied.
        epoch: u64,
        /// The number of steps trained in the next.
        step: u64,
    },
    /// The file system refuses, or the device fails.
    File(CheckpointError),
}

impl From<CheckpointError> for NotWritten {
    fn from(error: CheckpointError) -> Self {
        Self::File(error)
    }
}

/// The weights of the best epoch, which have not been written to their file yet.
pub(super) enum BestWeights {
    /// The weights of the state.
    OfState,
    /// The weights of an earlier epoch, and the header of their file.
    Kept(NamedTensors, Value),
}

/// What is written to the file of the best weights.
enum BestFile {
    Unchanged,
    OfState,
    OfCopy(Value),
}

/// The copies that a checkpoint is written from. The next checkpoint uses their memory again.
#[derive(Debug, Default)]
struct Copies {
    state: Option<Snapshot>,
    best: Option<Snapshot>,
}

/// The thread that writes, and the memory that it writes from.
#[derive(Debug)]
pub(super) struct Keeper {
    files: CheckpointFiles,
    copies: Copies,
    in_flight: Option<JoinHandle<(Copies, Result<(), NotWritten>)>>,
}

impl Keeper {
    /// Returns a keeper that writes `files`.
    pub(super) fn new(files: CheckpointFiles) -> Self {
        Self { files, copies: Copies::default(), in_flight: None }
    }

    /// Waits for the write in flight, copies the state `tensors` and begins to write it with `journal`: first
    /// the best weights if they have changed, then the state (the commit), then the last weights.
    ///
    /// # Errors
    /// Returns the error of the write before, or an error if the state cannot be copied.
    pub(super) fn begin(
        &mut self,
        tensors: &NamedTensors,
        journal: &Journal,
        best: Option<BestWeights>,
    ) -> Result<(), NotWritten> {
        self.wait()?;
        let files = self.files.clone();
        let copy = |tensors: &NamedTensors, room, path| {
            Snapshot::of(tensors, room)
                .map_err(|source| CheckpointError::Tensor { path, source: Box::new(source) })
        };
        let state = copy(tensors, self.copies.state.take(), files.state())?;
        let room = self.copies.best.take();
        let (best, file) = match best {
            None => (room, BestFile::Unchanged),
            Some(BestWeights::OfState) => (room, BestFile::OfState),
            Some(BestWeights::Kept(weights, header)) => {
                (Some(copy(&weights, room, files.best())?), BestFile::OfCopy(header))
            }
        };
        let journal = journal.clone();
        let copies = Copies { state: Some(state), best };
        let write = move || {
            let written = write(&copies, &files, &journal, &file);
            (copies, written)
        };
        let begun = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
        self.in_flight = Some(begun.map_err(|source| CheckpointError::Write {
            path: self.files.state(),
            source,
            replaces: self.files.state().exists(),
        })?);
        Ok(())
    }

    /// Returns the outcome of the write in flight if it has ended.
    ///
    /// # Errors
    /// Returns the error of that write.
    pub(super) fn look(&mut self) -> Result<(), NotWritten> {
        if self.in_flight.as_ref().is_some_and(JoinHandle::is_finished) { self.wait() } else { Ok(()) }
    }

    /// Waits for the write in flight.
    ///
    /// # Errors
    /// Returns the error of that write.
    pub(super) fn wait(&mut self) -> Result<(), NotWritten> {
        let Some(thread) = self.in_flight.take() else { return Ok(()) };
        match thread.join() {
            Ok((copies, written)) => {
                self.copies = copies;
                written
            }
            // A panic of the thread is a bug of ours; this thread panics with it.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Keeper {
    /// Waits for the checkpoint that was begun: a run that ends with another error still finishes it.
    fn drop(&mut self) {
        if let Some(thread) = self.in_flight.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the header of a file of weights at the journal's position.
pub(super) fn header(journal: &Journal) -> Value {
    weights_header(&journal.run, journal.epoch, journal.step)
}

/// Writes the files in the order that [`crate::checkpoint`] explains.
fn write(
    copies: &Copies,
    files: &CheckpointFiles,
    journal: &Journal,
    best: &BestFile,
) -> Result<(), NotWritten> {
    let state = copies.state.as_ref().expect("a write begins with a copy of the state");
    let failed = |source| CheckpointError::Tensor { path: files.state(), source: Box::new(source) };
    if let Some((name, found)) = state.not_finite().map_err(failed)? {
        let Journal { epoch, step, .. } = *journal;
        return Err(NotWritten::NotFinite { name, found, epoch, step });
    }
    match best {
        BestFile::Unchanged => {}
        BestFile::OfState => state.write(&files.best(), WEIGHTS, &header(journal))?,
        BestFile::OfCopy(header) => {
            let copy = copies.best.as_ref().expect("a write begins with a copy of the best weights");
            copy.write(&files.best(), "", header)?;
        }
    }
    state.write(&files.state(), "", journal)?;
    state.write(&files.last(), WEIGHTS, &header(journal))?;
    Ok(())
}
