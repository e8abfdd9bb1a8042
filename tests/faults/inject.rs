//! Builds the library that makes calls fail (once per test process), and sets the fault of a command.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effect {
    /// The process is killed (SIGKILL).
    Kill,
    /// The call fails with this error number.
    Fail(i32),
    /// The call and every later one fail with this error number.
    FailOn(i32),
}

/// The calls that can be chosen.
pub(crate) const CALLS: [&str; 5] = ["open", "create", "write", "fsync", "rename"];

/// Makes `command` meet `effect` at the `at`-th `call` (counted from 1) on a file below `folder`.
pub(crate) fn fault(
    command: &mut Command,
    library: &Path,
    folder: &Path,
    call: &str,
    at: u64,
    effect: Effect,
) {
    let (error, lasts) = match effect {
        Effect::Kill => (0, false),
        Effect::Fail(error) => (error, false),
        Effect::FailOn(error) => (error, true),
    };
    command.env("LD_PRELOAD", library).env("FAULT_FOLDER", folder).env("FAULT_CALL", call);
    command.env("FAULT_AT", at.to_string()).env("FAULT_ERROR", error.to_string());
    if lasts {
        command.env("FAULT_LASTS", "1");
    }
}

/// Limits `command` to `bytes` bytes of writes below `folder`, as on a full disk.
pub(crate) fn room(command: &mut Command, library: &Path, folder: &Path, bytes: u64) {
    command.env("LD_PRELOAD", library).env("FAULT_FOLDER", folder).env("FAULT_ROOM", bytes.to_string());
}

/// Makes `command` count its calls below `folder` and write the counts to `file`.
pub(crate) fn count(command: &mut Command, library: &Path, folder: &Path, file: &Path) {
    command.env("LD_PRELOAD", library).env("FAULT_FOLDER", folder).env("FAULT_COUNTS", file);
}

/// Reads the counts that [`count`] requested.
pub(crate) fn counted(file: &Path) -> HashMap<String, u64> {
    let text = std::fs::read_to_string(file).unwrap();
    let line = |line: &str| {
        let (call, number) = line.split_once(' ').unwrap();
        (call.to_owned(), number.parse().unwrap())
    };
    text.lines().map(line).collect()
}

/// Returns the library, or prints why there is none and returns `None`.
pub(crate) fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match LIBRARY.get_or_init(build) {
        Ok(path) => Some(path),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn build() -> Result<PathBuf, String> {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return Err("faults are injected on Linux with the GNU C library alone".into());
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/faults/inject.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inject.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).args([&library, &source]).arg("-ldl");
    match compiler.output() {
        Err(error) => Err(format!("no C compiler: {error}")),
        Ok(output) if !output.status.success() => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Ok(_) => Ok(library),
    }
}
