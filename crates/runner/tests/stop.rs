//! The signals that ask a process to stop. The test is a separate process, because its signal handlers stay.

#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::process::Command;

use invaspread_runner::engine::Stop;

/// Returns whether this process was begun with the signal ignored, as far as the system says (Linux does).
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// The flag may be asked for more than once, and a closing terminal sends its signal more than once.
#[test]
fn a_hangup_raises_the_one_flag_however_often_it_comes() {
    if ignores_hangups() {
        eprintln!("skipped: the tests were begun with `nohup`, and an ignored signal stays ignored");
        return;
    }
    let first = Stop::on_signals().unwrap();
    let second = Stop::on_signals().unwrap();
    assert!(!first.is_raised() && !second.is_raised());
    for _ in 0..3 {
        let kill = Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status().unwrap();
        assert!(kill.success());
    }
    let from = std::time::Instant::now();
    while !second.is_raised() && from.elapsed().as_secs() < 10 {
        std::thread::yield_now();
    }
    assert!(first.is_raised() && second.is_raised());
}
