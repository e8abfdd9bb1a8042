//! Runs the tests of the Python module by pytest, and the example that trains with it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Returns the Python that `INVASPREAD_PYTHON` names, or else python3.
fn python() -> OsString {
    env::var_os("INVASPREAD_PYTHON").unwrap_or_else(|| "python3".into())
}

/// Returns whether Python has the given modules. If not, says which test is skipped.
fn has(modules: &str, test: &str) -> bool {
    let found = Command::new(python()).args(["-c", &format!("import {modules}")]).output();
    let has = found.is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("skipped: {test}: {} has not all of {modules}", python().display());
    }
    has
}

/// Returns Python with the module in `folder`, as a wheel would install it.
fn python_with_module(folder: &Path) -> Command {
    let package = folder.join("invaspread");
    fs::create_dir(&package).unwrap();
    for file in fs::read_dir(here().join("invaspread")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|ending| ending == "py") {
            fs::copy(&file, package.join(file.file_name().unwrap())).unwrap();
        }
    }
    let built = env::current_exe().unwrap().with_file_name("lib_native.so");
    fs::copy(&built, package.join("_native.abi3.so")).unwrap();
    let paths = env::var_os("PYTHONPATH").unwrap_or_default();
    let paths = std::iter::once(folder.to_owned()).chain(env::split_paths(&paths));
    let mut python = Command::new(python());
    // Not in the package's own folder, whose `invaspread` has no built module.
    python.current_dir(folder);
    python.env("PYTHONPATH", env::join_paths(paths).unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn the_tests_of_the_module_pass() {
    if !has("numpy, pytest, PIL", "the Python module") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut pytest = python_with_module(folder.path());
    pytest.args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]).arg(here().join("tests"));
    // Built where the whole workspace is tested.
    let program = env::current_exe().unwrap().with_file_name("../invaspread");
    if program.is_file() {
        pytest.env("INVASPREAD_PROGRAM", program);
    }
    let output = pytest.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_example_trains_and_measures() {
    if !has("numpy, torch, torchvision", "python/examples/train.py") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut example = python_with_module(folder.path());
    let output = example.arg(here().join("examples/train.py")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // The colors of the classes are easy to tell apart.
    let accuracy = said.split("kNN ").nth(1).and_then(|rest| rest.split('%').next()).unwrap();
    assert!(accuracy.parse::<f64>().unwrap() > 60.0, "{said}");
}
