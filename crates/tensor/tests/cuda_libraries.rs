//! Tests from which files NVIDIA's libraries are loaded: each from one file of the right version, whatever is
//! on the loader's path. The tests use the emulator's libraries in separate processes, and are skipped on a
//! real device.

#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use invaspread_tensor::DeviceKind;
use invaspread_tensor::cuda::testing::{Counts, device_or_skip};

const CHILD: &str = "INVASPREAD_TEST_LIBRARIES";

/// Runs in the processes that the tests below start: prints why there is no device, or what was loaded.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // A program calls this first. The thread of the test harness, which waits for this one, does not read the
    // environment.
    invaspread_tensor::prepare_process();
    if let Some(why) = DeviceKind::Cuda(0).why_not() {
        println!("WHY {why}");
        return;
    }
    DeviceKind::Cuda(0).open().unwrap();
    println!("CACHE {}", std::env::var("CUDA_CACHE_PATH").unwrap());
    for line in
        std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("r-xp"))
    {
        if let Some(path) = line.split_whitespace().last().filter(|path| path.contains("/libcublas.so")) {
            println!("LOADED {path}");
        }
    }
}

fn run(path: &[&Path], libraries: Option<&Path>, home: &Path) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD, "1").env("HOME", home);
    command.env("LD_LIBRARY_PATH", std::env::join_paths(path).unwrap());
    command.env_remove("CUDA_CACHE_PATH").env_remove("XDG_CACHE_HOME");
    match libraries {
        Some(folder) => command.env("INVASPREAD_CUDA_LIBRARIES", folder),
        None => command.env_remove("INVASPREAD_CUDA_LIBRARIES"),
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Returns the emulator's folder, if this process runs on the emulator.
fn emulator() -> Option<PathBuf> {
    device_or_skip()?;
    Counts::now()?;
    let path = std::env::var_os("LD_LIBRARY_PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join("libcublas.so.13").is_file())
}

fn copy(from: &Path, to: &Path, version: &str) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.join("libcublas.so.13"), to.join(format!("libcublas.so.{version}"))).unwrap();
}

#[test]
fn each_library_is_loaded_from_one_file() {
    let Some(emulator) = emulator() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (toolkit, wheels) = (scratch.path().join("toolkit"), scratch.path().join("wheels"));
    copy(&emulator, &toolkit, "13.1.0");
    symlink("libcublas.so.13.1.0", toolkit.join("libcublas.so")).unwrap();
    copy(&emulator, &wheels, "13");
    let loaded = |lines: &[String]| -> Vec<String> {
        lines.iter().filter_map(|line| line.strip_prefix("LOADED ").map(str::to_owned)).collect()
    };
    // Without a toolkit on the path, the folder that the environment names comes before the rest of the path.
    let lines = run(&[&emulator], Some(&wheels), scratch.path());
    assert_eq!(loaded(&lines), [wheels.join("libcublas.so.13").display().to_string()], "{lines:?}");
    // The unversioned name, which cudarc asks for first, is on the path, so that file is the only one loaded.
    let lines = run(&[&toolkit, &emulator], Some(&wheels), scratch.path());
    assert_eq!(loaded(&lines), [toolkit.join("libcublas.so.13.1.0").display().to_string()], "{lines:?}");
    // The driver keeps what it compiles below the home folder.
    let cache = scratch.path().join(".cache/invaspread/cuda");
    assert!(cache.is_dir() && lines.contains(&format!("CACHE {}", cache.display())), "{lines:?}");
}

#[test]
fn a_library_of_another_version_that_would_be_loaded_first_is_an_error_that_says_where_it_is() {
    let Some(emulator) = emulator() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let old = scratch.path().join("cuda-12");
    copy(&emulator, &old, "12.4.5");
    symlink("libcublas.so.12.4.5", old.join("libcublas.so")).unwrap();
    let lines = run(&[&old, &emulator], None, scratch.path());
    let why = lines.iter().find_map(|line| line.strip_prefix("WHY ")).unwrap_or_else(|| panic!("{lines:?}"));
    assert!(why.contains("12.4.5") && why.contains("expected 13") && why.contains("cuda-12"), "{why}");
}
