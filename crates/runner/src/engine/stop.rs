//! Asking a run to stop: a flag that the engine looks at before each step, and the signals that raise it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Raised once, never lowered; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A flag that nothing has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that Ctrl-C, SIGTERM and SIGHUP raise. The second such signal ends the process at once, which loses no more
    /// than the steps since the last checkpoint.
    ///
    /// # Errors
    /// If the process already handles these signals some other way.
    pub fn on_signals() -> Result<Self, ctrlc::Error> {
        let stop = Self::new();
        let raised = stop.clone();
        ctrlc::set_handler(move || {
            if raised.0.swap(true, Ordering::Relaxed) {
                // What a shell reports of a process that an interrupt ended.
                std::process::exit(130);
            }
        })?;
        Ok(stop)
    }

    /// Asks for a stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
