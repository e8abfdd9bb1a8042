//! Whether this process may use the tiles of AMX.

use std::arch::x86_64::{__cpuid_count, _xgetbv};

/// The number of the tiles' data among the parts of a thread's state that the system saves.
const TILE_DATA: u32 = 18;

/// Returns whether the processor has tiles and their products of bf16, and the system lets this process use
/// them. Linux asks each process to request the permission, since the state of its threads becomes 8 KiB
/// larger; the first use without it ends the process.
///
/// Sources: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18; Linux,
/// "Using XSTATE features in user space applications".
pub(in super::super) fn is_permitted() -> bool {
    let has = |register: u32, bit: u32| register >> bit & 1 == 1;
    let (basic, extended) = (__cpuid_count(1, 0), __cpuid_count(7, 0));
    let (saves_state, tiles, products) = (has(basic.ecx, 27), has(extended.edx, 24), has(extended.edx, 22));
    if !(saves_state && tiles && products) {
        return false;
    }
    // SAFETY: the processor has the instruction, since it saves the extended state.
    let saved = unsafe { enabled_state() };
    saved >> (TILE_DATA - 1) & 0b11 == 0b11 && request()
}

/// Returns the parts of the state that the system has enabled.
#[target_feature(enable = "xsave")]
fn enabled_state() -> u64 {
    // SAFETY: register 0 exists wherever the instruction does.
    unsafe { _xgetbv(0) }
}

/// Requests the permission for all threads of this process.
fn request() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of Linux.
    const REQUEST: libc::c_long = 0x1023;
    // SAFETY: the call takes two integers and changes nothing but this permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, libc::c_long::from(TILE_DATA)) == 0 }
}
