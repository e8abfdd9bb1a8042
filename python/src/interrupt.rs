//! Work that does not keep Python from its signals, of which Ctrl-C is one.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The time between two looks for signals.
const BETWEEN: Duration = Duration::from_millis(100);

/// The stack of the thread that works, in bytes: that of a main thread.
const STACK: usize = 8 << 20;

/// Does `work` on a thread of its own, while this thread releases the interpreter's lock and looks for signals now and then. Work
/// cannot be stopped in its middle: after a signal that raises an error, it goes on until its end, and its result is dropped.
///
/// # Errors
/// Returns the error of the work, or what a signal raises, such as KeyboardInterrupt.
///
/// # Panics
/// If the work does.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> PyResult<T> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = sync_channel(1);
    let begun = Builder::new().name("invaspread".to_owned()).stack_size(STACK).spawn(move || {
        // Nobody receives the result after an interrupt.
        let _ = sender.send(work());
    });
    let thread = begun.map_err(|error| {
        PyRuntimeError::new_err(format!("failed to start a thread for the work: {error}; end other programs"))
    })?;
    loop {
        let held = &mut receiver;
        match py.detach(move || held.recv_timeout(BETWEEN)) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Err(PyRuntimeError::new_err("the work ended without a result")),
            },
        }
    }
}
