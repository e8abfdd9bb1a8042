//! Buffers that are written before they are read, and process settings that make allocation cheap.

#![expect(unsafe_code, reason = "skipping the zeroing of large buffers, and one call into the C library")]

use crate::simd::Number;
use std::cell::RefCell;

/// Returns `len` values of unspecified content; every one must be written before it is read.
///
/// Setting them to zero would cost one pass over memory for each activation of each step.
#[expect(
    clippy::uninit_vec,
    reason = "these numbers have no invalid bit pattern, and all callers fill the buffer before reading it"
)]
pub(crate) fn uninitialized<T: Number>(len: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    // SAFETY: the capacity was reserved; for the content see above.
    unsafe {
        values.set_len(len);
    }
    values
}

/// [`uninitialized`] values that start on a cache line. A vector load that crosses a line reads two lines,
/// and the innermost loops of convolutions consist mostly of loads.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn uninitialized(len: usize) -> Self {
        const LINE: usize = 64;
        let values: Vec<f32> = uninitialized(len + LINE / size_of::<f32>());
        // If `align_offset` cannot compute an offset, the code is slower but still correct.
        let start = values.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        Self { values, start, len }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..][..self.len]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..][..self.len]
    }
}

thread_local! {
    /// What a thread computes with. The buffer is kept from task to task.
    static SCRATCH: RefCell<Aligned> = RefCell::default();
}

/// Calls `work` with `len` values of unspecified content that this thread keeps for such calls.
pub(crate) fn with_scratch(len: usize, work: impl FnOnce(&mut [f32])) {
    SCRATCH.with(|scratch| {
        // The buffer is taken out while in use: a task that waits for rayon may run another task on this
        // thread.
        let mut values = std::mem::take(&mut *scratch.borrow_mut());
        if values.len() < len {
            values = Aligned::uninitialized(len);
        }
        work(&mut values[..len]);
        *scratch.borrow_mut() = values;
    });
}

/// Makes settings of the whole process that make training faster or its errors clearer. Call this once, at
/// the beginning of `main`.
///
/// The C library keeps freed memory instead of returning it to the system: each step frees and allocates the
/// same large buffers, and returning them each time costs page faults. All threads share one arena, because
/// the arena of a single thread would be returned as soon as it is empty. (This holds on Linux with glibc;
/// elsewhere nothing is set.)
///
/// candle's own threads stay unused unless `CANDLE_NUM_THREADS` says otherwise. They wait for work in a busy
/// loop and so take cores from the kernels' threads, and the work that candle itself does in a step (adding
/// gradients) is bound by memory, not by cores. polars, whose tables are small, starts no thread for each
/// core either, unless `POLARS_MAX_THREADS` says otherwise.
///
/// Errors of the libraries carry no backtraces: candle would print one in the middle of a message. Panics
/// carry them if `RUST_BACKTRACE` says so.
///
/// When a file would grow beyond the limit of the process (`ulimit -f`), the write fails, as it does on a
/// full disk, instead of ending the process: SIGXFSZ is ignored. Rust ignores SIGPIPE already: when a reader
/// closes its pipe, the write fails too.
///
/// With the feature `cuda`, the driver keeps the kernels that it compiles in the user's cache folder, unless
/// `CUDA_CACHE_PATH` says otherwise.
pub fn prepare_process() {
    #[cfg(unix)]
    // SAFETY: this ignores a signal, before any thread is started.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    // SAFETY: the caller has started no thread yet, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    for threads in ["CANDLE_NUM_THREADS", "POLARS_MAX_THREADS"] {
        if std::env::var_os(threads).is_none() {
            // SAFETY: the caller has started no thread yet, so nobody reads the environment meanwhile.
            unsafe { std::env::set_var(threads, "1") };
        }
    }
    #[cfg(feature = "cuda")]
    crate::cuda::keep_compiled_kernels();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` only sets parameters of the allocator and takes plain integers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
