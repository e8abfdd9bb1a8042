//! Buffers that are written before they are read, and settings of the process that make them cheap.

#![expect(unsafe_code, reason = "skipping the zeroing of large buffers, and one call into the C library")]

/// `len` values of unspecified content; every one must be written before it is read.
///
/// Zeroing costs a pass over memory for each activation of each step.
#[expect(
    clippy::uninit_vec,
    reason = "f32 has no invalid bit pattern, and all callers fill the buffer before reading it"
)]
pub(crate) fn uninitialised(len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    // SAFETY: the capacity is there; for the content see above.
    unsafe {
        values.set_len(len);
    }
    values
}

/// [`uninitialised`] values that start on a cache line: a vector load from elsewhere would touch two lines, and the innermost loops of
/// convolutions do little but load.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn uninitialised(len: usize) -> Self {
        const LINE: usize = 64;
        let values = uninitialised(len + LINE / size_of::<f32>());
        // What `align_offset` may refuse to compute costs speed, not sense.
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

/// Settings of the whole process that a training step profits from. Call once, first thing in `main`.
///
/// The C library keeps freed memory instead of returning it to the system: a step frees and asks for the same large buffers again and
/// again, and handing them back each time costs page faults. There is one arena: a thread's own would be handed back whole as soon
/// as it is empty. (Linux with glibc; nothing elsewhere.)
///
/// candle's own threads stay unused unless `CANDLE_NUM_THREADS` says otherwise: they wait for work in a busy loop and so take the
/// cores from the kernels' threads, and what candle itself computes in a step (adding up gradients) is bound by memory, not by cores. Nor does polars, whose tables are small, start a thread a core, unless `POLARS_MAX_THREADS` says otherwise.
///
/// Errors of the libraries carry no backtraces: candle would print one in the middle of a message. Panics do, as `RUST_BACKTRACE` says.
///
/// A file that would grow beyond the limit of the process (`ulimit -f`) makes the write fail, as a full disk does, instead of ending the
/// process: SIGXFSZ is ignored. SIGPIPE already is, by Rust: a reader that closes its pipe makes the write fail too.
pub fn prepare_process() {
    #[cfg(unix)]
    // SAFETY: ignores a signal, before any thread is started.
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
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets allocator parameters and takes plain integers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
