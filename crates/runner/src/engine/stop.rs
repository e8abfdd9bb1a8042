//! Stopping a run: a flag that the engine checks before each step, and the signals that raise it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::flag;

/// A flag that is raised once and never lowered. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    /// Another flag, which counts as well.
    also: Option<Arc<AtomicBool>>,
}

impl Stop {
    /// Returns a flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the flag that Ctrl-C, SIGTERM and SIGHUP raise. Every call returns the same flag.
    ///
    /// A second Ctrl-C or SIGTERM ends the process at once, which loses only the steps since the last
    /// checkpoint. A second SIGHUP does not, because a closing terminal sends several. A signal that was
    /// ignored when the process started stays ignored, as `nohup` and shells with background jobs expect.
    ///
    /// # Errors
    /// Returns an error if the system refuses to handle a signal.
    pub fn on_signals() -> io::Result<Self> {
        static STOP: Mutex<Option<Stop>> = Mutex::new(None);
        let mut known = STOP.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = &*known {
            return Ok(stop.clone());
        }
        let stop = Self::new();
        let ignored = ignored_signals();
        for Handled { signal, ends_at_once } in HANDLED {
            if ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            if ends_at_once {
                let seen = Arc::new(AtomicBool::new(false));
                // The order matters: the first signal must find `seen` lowered.
                flag::register_conditional_shutdown(signal, ENDED_BY_REQUEST, Arc::clone(&seen))?;
                flag::register(signal, seen)?;
            }
            flag::register(signal, Arc::clone(&stop.flag))?;
        }
        Ok(known.insert(stop).clone())
    }

    /// Lets SIGUSR1 raise the flag too, by which a batch system says that the time limit is near. Returns a flag
    /// that no other signal raises. On systems without SIGUSR1 nothing raises it.
    ///
    /// # Errors
    /// Returns an error if the system refuses to handle the signal.
    pub fn on_time_limit(&self) -> io::Result<Self> {
        let near = Self::new();
        #[cfg(unix)]
        for one in [&near, self] {
            flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&one.flag))?;
        }
        Ok(near)
    }

    /// Raises the flag.
    pub fn raise(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Returns a flag that is raised when this one or `other` is.
    #[must_use]
    pub fn or(&self, other: Arc<AtomicBool>) -> Self {
        Self { flag: Arc::clone(&self.flag), also: Some(other) }
    }

    /// Returns whether the flag is raised.
    pub fn is_raised(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
            || self.also.as_ref().is_some_and(|also| also.load(Ordering::Relaxed))
    }
}

/// The exit code that shells report for a process ended by an interrupt.
const ENDED_BY_REQUEST: i32 = 130;

/// A signal that asks for a stop.
#[derive(Clone, Copy)]
struct Handled {
    signal: i32,
    /// Whether the second such signal ends the process.
    ends_at_once: bool,
}

#[cfg(unix)]
const HANDLED: [Handled; 3] = {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    [
        Handled { signal: SIGINT, ends_at_once: true },
        Handled { signal: SIGTERM, ends_at_once: true },
        Handled { signal: SIGHUP, ends_at_once: false },
    ]
};

#[cfg(not(unix))]
const HANDLED: [Handled; 2] = {
    use signal_hook::consts::{SIGINT, SIGTERM};
    [Handled { signal: SIGINT, ends_at_once: true }, Handled { signal: SIGTERM, ends_at_once: true }]
};

/// Returns the signals that this process ignores, signal n as bit n - 1; 0 if the system does not say.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
