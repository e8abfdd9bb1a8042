//! What the program says when it finds a mistake of its own.

use crate::output::note;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// Makes a panic say that it is a bug, on one line, and what to do about it. `RUST_BACKTRACE=1` adds where it came from.
pub(crate) fn report_as_bugs() {
    std::panic::set_hook(Box::new(|panic| {
        note!("{}", report(panic));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            crate::output::note_block(&backtrace.to_string());
        }
    }));
}

fn report(panic: &PanicHookInfo) -> String {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(|place| format!(", at {place}")).unwrap_or_default();
    format!(
        "error: this is a bug in invaspread {}: {message}{place}; please report this line and the command to the project's issue tracker. \
         Checkpoints are whole: the same command resumes a run",
        env!("CARGO_PKG_VERSION")
    )
}
