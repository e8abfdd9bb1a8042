//! Parallel loops that start within a microsecond.
//!
//! A training step is some hundred short loops, one after the other. If rayon starts each of them, it wakes
//! the other workers and lets them fall asleep again, which on two cores costs a small network a fifth of its
//! step. A team borrows rayon's workers for a whole forward or backward pass: they wait in a busy loop, yield
//! to other threads, and take indices of each loop that the leader opens. Without a team (in a loss, a
//! metric, a test) the same loops run through rayon.
//!
//! The assignment of indices to threads is random; no computed value may depend on it, and no loop's result
//! is a sum over threads.

#![expect(unsafe_code, reason = "a loop's body is lent to other threads until the loop ends")]

use rayon::prelude::*;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

thread_local! {
    /// The team that this thread leads.
    static LEADS: Cell<Option<*const Team>> = const { Cell::new(None) };
    /// Whether this thread is in the body of a team's loop. Loops inside it run on the thread itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` while all of rayon's workers wait for its loops. Inside a team this only runs `work`.
pub fn with_team<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if LEADS.get().is_some() || INSIDE.get() {
        return work();
    }
    rayon::scope(|scope| {
        // The team is shared, since a member may join after the work is done.
        let team = Arc::new(Team::default());
        for _ in 1..rayon::current_num_threads() {
            let team = Arc::clone(&team);
            scope.spawn(move |_| team.stand_by());
        }
        let _leading = Leading::new(&team);
        work()
    })
}

/// Calls `body` with each index below `count`, on as many threads as there are.
pub(crate) fn for_each(count: usize, body: impl Fn(usize) + Sync) {
    if count <= 1 || INSIDE.get() {
        (0..count).for_each(body);
        return;
    }
    match LEADS.get() {
        // SAFETY: a thread leads a team only while `with_team`, which owns it, is on its stack.
        Some(team) => unsafe { &*team }.run(count, &body),
        None => (0..count).into_par_iter().for_each(&body),
    }
}

/// Calls `body` with the number and the values of each chunk of `len` values; the last chunk may be shorter.
pub(crate) fn for_each_chunk<T: Send>(values: &mut [T], len: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let (total, start) = (values.len(), Shared(values.as_mut_ptr()));
    for_each(total.div_ceil(len), |i| {
        let first = i * len;
        // SAFETY: the chunks do not overlap, each index is taken once, and `values` is borrowed until the
        // loop ends.
        body(i, unsafe { std::slice::from_raw_parts_mut(start.at(first), len.min(total - first)) });
    });
}

/// A part of a matrix that one task has: its rows begin as far apart as those of the whole matrix.
pub(crate) struct Block<T> {
    /// The first element.
    pub(crate) start: *mut T,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Cuts a matrix with rows of `width` values into blocks of `[rows, columns]`, and calls `body` with the row
/// and column at which each block begins, and the block. The last block of some columns takes what is left,
/// which may be nearly twice as much; of some rows there may be fewer.
pub(crate) fn for_each_block<T: Send>(
    values: &mut [T],
    width: usize,
    [rows, columns]: [usize; 2],
    body: impl Fn([usize; 2], Block<T>) + Sync,
) {
    let (height, across) = (values.len() / width, (width / columns).max(1));
    let start = Shared(values.as_mut_ptr());
    for_each(height.div_ceil(rows) * across, |task| {
        let (row, place) = (task / across * rows, task % across);
        let column = place * columns;
        let end = if place + 1 == across { width } else { column + columns };
        // SAFETY: the block begins within the values.
        let start = unsafe { start.at(row * width + column) };
        body([row, column], Block { start, rows: rows.min(height - row), columns: end - column });
    });
}

/// Does the same as [`for_each_chunk`] for two slices of equal length together.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn for_each_chunk_pair<T: Send>(
    first: &mut [T],
    second: &mut [T],
    len: usize,
    body: impl Fn(usize, &mut [T], &mut [T]) + Sync,
) {
    assert_eq!(first.len(), second.len(), "two slices in step");
    let (total, second) = (second.len(), Shared(second.as_mut_ptr()));
    for_each_chunk(first, len, |i, first| {
        let start = i * len;
        // SAFETY: as in `for_each_chunk`; the lengths are the same.
        body(i, first, unsafe { std::slice::from_raw_parts_mut(second.at(start), len.min(total - start)) });
    });
}

/// Returns the results of `body` for each index below `count`, in order.
pub(crate) fn map<T: Send + Default>(count: usize, body: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let mut results: Vec<T> = (0..count).map(|_| T::default()).collect();
    for_each_chunk(&mut results, 1, |i, result| result[0] = body(i));
    results
}

/// A pointer into values that tasks share; each task uses its own part.
struct Shared<T>(*mut T);

// SAFETY: the only user hands out parts that do not overlap.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `offset` must lie within the values.
    unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller guarantees it.
        unsafe { self.0.add(offset) }
    }
}

/// A loop's body and its length. The leader lends them while the loop is open or has members in it.
#[derive(Clone, Copy)]
struct Loop {
    /// Calls the body, whose type is erased, with an index.
    call: unsafe fn(*const (), usize),
    body: *const (),
    count: usize,
}

/// # Safety
/// `body` must point to an `F`.
unsafe fn call<F: Fn(usize)>(body: *const (), index: usize) {
    // SAFETY: the caller guarantees it.
    unsafe { (*body.cast::<F>())(index) }
}

/// Layout of `state`: bit 0 says whether a loop is open, bits 1 to 15 count the members in it, and the bits
/// above hold the loop's number.
const OPEN: u64 = 1;
const MEMBER: u64 = 1 << 1;
const NUMBER: u64 = 1 << 16;
const MEMBERS: u64 = NUMBER - MEMBER;

#[derive(Default)]
struct Team {
    state: AtomicU64,
    next: AtomicUsize,
    dismissed: AtomicBool,
    /// The leader writes this while no loop is open and no member is in one.
    current: Cell<Option<Loop>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `current` is written only when `state` shows neither an open loop nor a member, and read only by
// members that `state` counts; the atomic operations on `state` order the two. Everything else is atomic or
// locked.
unsafe impl Sync for Team {}
// SAFETY: as above; the pointer in `current` is followed only while its loop has members, and the leader
// waits for those.
unsafe impl Send for Team {}

/// Makes this thread the leader until the value is dropped.
struct Leading<'a>(&'a Team);

impl<'a> Leading<'a> {
    fn new(team: &'a Team) -> Self {
        LEADS.set(Some(std::ptr::from_ref(team)));
        Self(team)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        LEADS.set(None);
        self.0.dismissed.store(true, Ordering::Release);
    }
}

impl Team {
    /// Runs one loop to its end: on the leader, and on every member that joins while it is open.
    fn run<F: Fn(usize) + Sync>(&self, count: usize, body: &F) {
        let job = Loop { call: call::<F>, body: std::ptr::from_ref(body).cast(), count };
        self.current.set(Some(job));
        self.next.store(0, Ordering::Relaxed);
        // The state of the next loop: its number, open, with no members.
        let number = self.state.load(Ordering::Relaxed) / NUMBER + 1;
        self.state.store((number * NUMBER) | OPEN, Ordering::Release);
        self.take_part(job);
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) & MEMBERS != 0 {
            pause(&mut spins);
        }
        let panicked = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }

    /// Takes indices until none are left. A panic is kept for the leader, and the remaining indices are
    /// skipped.
    fn take_part(&self, Loop { call, body, count }: Loop) {
        INSIDE.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                // SAFETY: the leader lent the body to `run` and does not leave `run` before the loop is
                // closed and empty.
                unsafe { call(body, index) };
            }
        }));
        INSIDE.set(false);
        if let Err(panic) = result {
            self.next.store(count, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    /// Joins every loop that opens, until the team is dismissed or no loop has opened for [`PATIENCE`].
    fn stand_by(&self) {
        // Rayon may give this task to a leader that waits for rayon inside its work: it cannot wait for
        // itself.
        if LEADS.get().is_some() {
            return;
        }
        let (mut last, mut spins) = (0, 0);
        let mut idle_since = Instant::now();
        while !self.dismissed.load(Ordering::Acquire) {
            let state = self.state.load(Ordering::Relaxed);
            let number = state / NUMBER;
            if state & OPEN == 0 || number == last {
                if pause(&mut spins) && idle_since.elapsed() > PATIENCE {
                    return;
                }
                continue;
            }
            let entered =
                self.state.compare_exchange(state, state + MEMBER, Ordering::AcqRel, Ordering::Relaxed);
            if entered.is_err() {
                continue;
            }
            (last, spins) = (number, 0);
            if let Some(job) = self.current.get() {
                self.take_part(job);
            }
            self.state.fetch_sub(MEMBER, Ordering::AcqRel);
            idle_since = Instant::now();
        }
    }
}

/// The longest time that a member waits for a loop. Rayon may give this task to a worker in the middle of a
/// job that the leader waits for; then no loop would ever open. The loops of a pass follow each other within
/// a millisecond or two.
const PATIENCE: Duration = Duration::from_millis(50);

/// Waits a moment. The wait is busy at first; then it yields the core to other threads and returns true.
fn pause(spins: &mut u32) -> bool {
    *spins += 1;
    if *spins < 2000 {
        std::hint::spin_loop();
        return false;
    }
    std::thread::yield_now();
    true
}

#[cfg(test)]
mod tests {
    use super::{for_each, for_each_chunk, map, with_team};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(work)
    }

    /// Every index is taken once, with and without a team, on any number of threads, loop after loop.
    #[test]
    fn every_index_is_taken_once() {
        for threads in [1, 2, 5] {
            on_threads(threads, || {
                let check = || {
                    for count in (0..300).chain([5000]) {
                        let seen: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                        for_each(count, |i| {
                            seen[i].fetch_add(1, Ordering::Relaxed);
                        });
                        assert!(
                            seen.iter().all(|s| s.load(Ordering::Relaxed) == 1),
                            "{threads} threads, {count}"
                        );
                    }
                };
                check();
                with_team(check);
            });
        }
    }

    #[test]
    fn chunks_and_maps_are_whole_and_in_order() {
        on_threads(3, || {
            with_team(|| {
                let mut values = vec![0; 1000];
                for_each_chunk(&mut values, 7, |i, chunk| chunk.iter_mut().for_each(|v| *v = i));
                assert!(values.iter().enumerate().all(|(at, v)| *v == at / 7));
                assert_eq!(map(100, |i| i * i), (0..100).map(|i| i * i).collect::<Vec<_>>());
            });
        });
    }

    /// Loops inside loops, teams inside teams, and rayon inside a team neither hang nor lose an index.
    #[test]
    fn nesting_is_harmless() {
        let total = AtomicUsize::new(0);
        let add = |i: usize| {
            total.fetch_add(i, Ordering::Relaxed);
        };
        on_threads(2, || {
            with_team(|| {
                for_each(10, |_| for_each(10, add));
                with_team(|| for_each(10, add));
                for _ in 0..20 {
                    rayon::join(|| for_each(10, add), || for_each(10, add));
                }
                for_each(10, |_| with_team(|| for_each(10, add)));
            });
        });
        assert_eq!(total.into_inner(), 45 * 61);
    }

    #[test]
    fn a_panic_reaches_the_leader_and_the_team_goes_on() {
        on_threads(2, || {
            with_team(|| {
                for _ in 0..50 {
                    let caught = std::panic::catch_unwind(|| {
                        for_each(64, |i| assert!(i != 33, "index 33"));
                    });
                    assert!(caught.is_err());
                    assert_eq!(map(8, |i| i), [0, 1, 2, 3, 4, 5, 6, 7]);
                }
            });
        });
    }
}
