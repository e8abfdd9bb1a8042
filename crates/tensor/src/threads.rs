//! Starts the computing threads before anything needs them. Rayon would start them at the first loop, and
//! would panic if the system refused one.

use rayon::{ThreadBuilder, ThreadPoolBuildError, ThreadPoolBuilder};
use std::io;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Threads that a run needs beside those that compute: one listens for signals, one prepares batches, one
/// makes views.
const BESIDE: usize = 3;

/// The threads that [`start_threads`] could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Number of threads that compute; 0 means that the caller's own thread computes alone.
    pub threads: usize,
    /// Number of threads that were wanted.
    pub wanted: usize,
}

/// Starts the threads that rayon's loops run on: `wanted` of them, or the number in `RAYON_NUM_THREADS`, or
/// one for each core. If the system allows fewer (because of a limit on processes, or too little address
/// space), those that it allows compute, except for some that are left for other purposes. If it allows none,
/// the calling thread computes alone. Call this once, from the main thread.
///
/// # Errors
/// If rayon's threads were started before.
pub fn start_threads(wanted: Option<usize>) -> Result<Started, ThreadPoolBuildError> {
    let wanted = wanted.unwrap_or_else(usual);
    let seats = seats(wanted, |seat| std::thread::Builder::new().spawn(move || sit(&seat)));
    let threads = seats.len();
    let pool = ThreadPoolBuilder::new();
    if threads == 0 {
        pool.num_threads(1).use_current_thread().build_global()?;
    } else {
        let mut seats = seats.into_iter();
        pool.num_threads(threads)
            .spawn_handler(|work| {
                let taken = seats.next().is_some_and(|seat| seat.send(work).is_ok());
                if taken { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            })
            .build_global()?;
    }
    Ok(Started { threads, wanted })
}

/// Returns the number of threads that rayon itself would start.
fn usual() -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    asked
        .filter(|&threads| threads > 0)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}

/// Runs in a thread: waits for the work that rayon gives it, and ends if rayon gives none.
fn sit(seat: &Receiver<ThreadBuilder>) {
    if let Ok(work) = seat.recv() {
        work.run();
    }
}

/// Starts threads that wait for work: `wanted` of them if `spawn` can start those and [`BESIDE`] more, else
/// as many as leave room for [`BESIDE`]. They are started before rayon's pool is built, since the pool cannot
/// be built a second time.
fn seats<T: Send + 'static>(
    wanted: usize,
    mut spawn: impl FnMut(Receiver<T>) -> io::Result<JoinHandle<()>>,
) -> Vec<Sender<T>> {
    let mut seats = Vec::new();
    let mut threads = Vec::new();
    while seats.len() < wanted.saturating_add(BESIDE) {
        let (seat, taken) = channel();
        match spawn(taken) {
            Ok(thread) => {
                seats.push(seat);
                threads.push(thread);
            }
            Err(_) => break,
        }
    }
    seats.truncate(seats.len().saturating_sub(BESIDE));
    // Threads without a channel end. When they have ended, other threads can start in their place.
    for thread in threads.drain(seats.len()..) {
        // A thread that ends because its channel is empty has no result.
        let _ = thread.join();
    }
    seats
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{BESIDE, seats};
    use std::io;
    use std::sync::mpsc::{Receiver, Sender};
    use std::thread::JoinHandle;

    /// Starts threads that add the numbers sent to them to a total, up to a limit of threads.
    fn limited(limit: usize) -> impl FnMut(Receiver<Sender<()>>) -> io::Result<JoinHandle<()>> {
        let mut started = 0;
        move |seat| {
            if started == limit {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            started += 1;
            std::thread::Builder::new().spawn(move || {
                if let Ok(reply) = seat.recv() {
                    reply.send(()).unwrap();
                }
            })
        }
    }

    #[test]
    fn as_many_compute_as_the_system_gives_less_those_that_others_need() {
        for (wanted, limit, expected) in [
            (4, 100, 4),
            (4, 4 + BESIDE, 4),
            (4, 6, 3),
            (4, 4, 1),
            (4, BESIDE, 0),
            (4, 1, 0),
            (4, 0, 0),
            (1, 2, 0),
        ] {
            let seats = seats(wanted, limited(limit));
            assert_eq!(seats.len(), expected, "{wanted} wanted, {limit} given");
            let (reply, replies) = std::sync::mpsc::channel();
            for seat in &seats {
                seat.send(reply.clone()).unwrap();
            }
            drop(reply);
            assert_eq!(replies.iter().count(), expected, "each seat is a thread that works");
        }
    }
}
