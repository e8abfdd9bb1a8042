//! The signals that ask a process to stop. In a process of its own, as its handlers stay.

#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::process::Command;

use invaspread_runner::engine::Stop;

/// A suite after another asks for the flag again; a terminal that closes sends its signal more than once.
#[test]
fn a_hangup_raises_the_one_flag_however_often_it_comes() {
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
