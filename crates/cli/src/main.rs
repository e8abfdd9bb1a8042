//! The `invaspread` program with the methods that are built in.

use std::process::ExitCode;

fn main() -> ExitCode {
    invaspread::run(invaspread::Registry::built_in())
}
