//! What a run survives: kills, full disks, failing calls, damaged files, hostile archives, several processes
//! at once. In every case the same command, given again, ends with the results of an undisturbed run, or with
//! an error that says why not.
//!
//! `cargo test` runs a short form. `just faults` (`INVASPREAD_FAULTS=long`) runs the long one; README.md
//! beside this file gives its figures. A library that is loaded into the program makes the faults
//! (`inject.c`), so no file system has to be mounted; this needs Linux and a C compiler. Elsewhere those
//! tests are skipped and print why.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it did"
)]

mod archives;
mod damage;
mod errors;
mod inject;
mod kills;
mod processes;
mod program;
