//! Calls a library that may panic on damaged input, as the readers of Parquet do, and makes a panic an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Returns whether a panic of this thread now would become an error about a file, so that nothing needs to report it as a bug.
pub fn is_guarded() -> bool {
    DEPTH.get() > 0
}

/// Calls `read`; returns `None` if it panics. What it has changed must not be used afterwards.
pub fn guarded<T>(read: impl FnOnce() -> T) -> Option<T> {
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(read)).ok();
    DEPTH.set(DEPTH.get() - 1);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_the_guard_ends_with_the_call() {
        assert_eq!(
            guarded(|| guarded(|| assert!(!is_guarded(), "a panic")).is_none() && is_guarded()),
            Some(true)
        );
        assert!(!is_guarded());
    }
}
