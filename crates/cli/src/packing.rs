//! The packing of a data set, which takes minutes for a large one: shows how far it is, and ends it on a signal.

use crate::output::{draws, note};
use crate::progress::{bar, readable};
use anyhow::Context;
use indicatif::ProgressBar;
use invaspread_data::{Packing, watch_packing};
use invaspread_runner::engine::Stop;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Returns the flag that signals raise. From now on it also ends the packing of a data set, whose progress is shown.
///
/// # Errors
/// Returns an error if the system refuses to handle a signal.
pub(crate) fn stops_packing() -> anyhow::Result<Stop> {
    let stop = Stop::on_signals().context("failed to listen for signals")?;
    let (raised, shown) = (stop.clone(), Mutex::new(ShownPacking::new()));
    watch_packing(move |packing| {
        let goes_on = !raised.is_raised();
        shown.lock().unwrap_or_else(PoisonError::into_inner).show(packing, goes_on);
        goes_on
    });
    Ok(stop)
}

/// The time between two lines of progress where no bar can be drawn.
const BETWEEN: Duration = Duration::from_secs(30);

/// The progress of a packing: a bar on a terminal, otherwise a line now and then.
struct ShownPacking {
    bar: ProgressBar,
    began: Instant,
    told: Instant,
}

impl ShownPacking {
    fn new() -> Self {
        Self { bar: ProgressBar::hidden(), began: Instant::now(), told: Instant::now() }
    }

    fn show(&mut self, packing: &Packing<'_>, goes_on: bool) {
        let Packing { set, path, done, all } = *packing;
        if done == 0 {
            *self = Self { bar: bar("{bar:24} {percent:>3}%  {msg}"), ..Self::new() };
            self.bar.set_length(all.max(1) as u64);
        }
        if done == all || !goes_on {
            self.bar.finish_and_clear();
            return;
        }
        let left = self.began.elapsed().mul_f64((all - done) as f64 / done.max(1) as f64);
        let left = if done == 0 { String::new() } else { format!(", {} left", readable(left)) };
        let message = format!("packing {set}: {done} of {all} images{left}");
        self.bar.set_position(done as u64);
        if !draws() && self.told.elapsed() >= BETWEEN {
            self.told = Instant::now();
            note!("{message}; into {}, once: after a stop the same command packs them again", path.display());
        }
        self.bar.set_message(message);
    }
}
