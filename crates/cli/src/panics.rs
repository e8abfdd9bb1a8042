//! The message of the program when it finds a bug in itself.

use crate::output::{note, note_block};
use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;

/// Makes a panic print one line that says that it is a bug and what to do about it. `RUST_BACKTRACE=1` adds a
/// backtrace. A panic of a library on a damaged file is no bug of ours, and becomes an error.
pub(crate) fn report_as_bugs() {
    std::panic::set_hook(Box::new(|panic| {
        if invaspread_data::is_guarded() {
            return;
        }
        note!("{}", report(panic));
        // `capture` reads another variable too; errors of libraries never contain a backtrace.
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|wanted| wanted != "0") {
            note_block(&Backtrace::force_capture().to_string());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::process::Command;

    /// The variable that is set in the process that must panic.
    const CHILD: &str = "INVASPREAD_TEST_PANICS";

    /// Runs this test in a process of its own, whose panics are reported like those of the program.
    #[test]
    fn a_panic_is_a_bug_on_one_line() {
        if std::env::var_os(CHILD).is_some() {
            super::report_as_bugs();
            panic!("index 7 of\nerror: forged");
        }
        let panicking = |backtrace: &str| {
            let mut program = Command::new(std::env::current_exe().unwrap());
            program.args(["--exact", "panics::tests::a_panic_is_a_bug_on_one_line", "--nocapture"]);
            let output = program.env(CHILD, "1").env("RUST_BACKTRACE", backtrace).output().unwrap();
            assert_eq!(output.status.code(), Some(101));
            String::from_utf8(output.stderr).unwrap()
        };
        let said = panicking("0");
        let line = said.lines().find(|line| line.starts_with("error: ")).unwrap();
        for words in [
            concat!("this is a bug in invaspread ", env!("CARGO_PKG_VERSION"), ": "),
            "index 7 of\\nerror: forged, at ",
            "panics.rs:",
            "please report",
            "resumes",
        ] {
            assert!(line.contains(words), "expected {words:?} in: {said}");
        }
        assert_eq!(said.lines().filter(|line| line.starts_with("error:")).count(), 1, "{said}");
        assert!(!said.contains("panics::"), "no backtrace that nobody asked for: {said}");
        // A program without symbols has frames without names.
        assert!(panicking("1").lines().count() > said.lines().count() + 5, "a backtrace for who asks");
    }
}
