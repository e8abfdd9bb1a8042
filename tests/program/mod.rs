//! Runs the program for the tests: from outside, in a folder, without the caller's variables.

use std::path::Path;

use assert_cmd::Command;
use tempfile::TempDir;

/// The output and the exit code of one call.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn empty() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn invaspread(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::cargo_bin("invaspread").unwrap();
    // The caller's data and log settings must not change the results of a test.
    command.env_remove("INVASPREAD_DATA").env_remove("INVASPREAD_LOG").env("RUST_BACKTRACE", "0");
    let output = command.current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!said.err.contains("panicked"), "{arguments:?}: {}", said.err);
    assert!(!said.err.contains('\x1b'), "{arguments:?}: colors in a pipe: {}", said.err);
    said
}

/// Checks that the call is refused with `code`, prints all of `words` in exactly one `error:`, and prints no
/// result.
pub(crate) fn refused(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let said = invaspread(folder, arguments);
    assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.err);
    assert_eq!(said.err.matches("error:").count(), 1, "{arguments:?}: {}", said.err);
    assert!(said.out.is_empty(), "{arguments:?}: {}", said.out);
    for word in words {
        assert!(said.err.contains(word), "{arguments:?}: expected {word:?} in: {}", said.err);
    }
}

pub(crate) fn done(folder: &Path, arguments: &[&str]) -> String {
    let said = invaspread(folder, arguments);
    assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.err);
    said.out
}
