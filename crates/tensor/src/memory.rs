//! Buffers that are written before they are read, and an allocator that keeps them.

#![expect(unsafe_code, reason = "skipping the zeroing of large buffers, and one call into the C library")]

/// `len` values of unspecified content; every one must be written before it is read.
///
/// Zeroing costs a pass over memory, about as much as a batch norm, for each activation of each step.
#[expect(clippy::uninit_vec, reason = "f32 has no invalid bit pattern, and all callers fill the buffer before reading it")]
pub(crate) fn uninitialised(len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    // SAFETY: the capacity is there; for the content see above.
    unsafe {
        values.set_len(len);
    }
    values
}

/// Tells the C library to keep freed memory instead of returning it to the system.
///
/// A training step frees and asks for the same large buffers again and again; handing them back each time costs about a fifth of
/// the step in page faults. Call once, early. Elsewhere than on Linux with glibc this does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets allocator parameters and takes plain integers.
    unsafe {
        // At most i32::MAX; blocks up to there come from the heap, whose top is never trimmed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
