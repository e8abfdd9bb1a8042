//! SIGKILL at any moment, and at any rename, flush, write or creation of a file: the same command ends with
//! the same bytes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use invaspread_runner::methods::ChosenMethod;

use crate::inject::{self, Effect};
use crate::program::{Outcome, folder, methods, run, spread, succeeds, times, train};

/// The number of kills of a run before it may end.
const KILLS_A_RUN: usize = 3;

#[test]
fn a_killed_run_ends_as_one_that_was_left_alone() {
    let Some(library) = inject::library() else { return };
    let (mut killed, mut runs) = (0, 0);
    let methods: Vec<&str> = methods().into_iter().map(ChosenMethod::name).collect();
    for &method in &methods {
        let whole = folder();
        let (root, counts) = (whole.path().join("runs"), whole.path().join("counts"));
        let mut command = train(&root, method);
        inject::count(&mut command, library, &root, &counts);
        let from = Instant::now();
        succeeds(command);
        let (took, counts) = (from.elapsed(), inject::counted(&counts));
        let expected = Outcome::of(&root);
        for round in 0..times(1, 14) {
            let broken = folder();
            let root = broken.path().join("runs");
            let mut what = Vec::new();
            for kill in 0..KILLS_A_RUN {
                let i = round * KILLS_A_RUN + kill;
                let mut command = train(&root, method);
                let mut child = if kill == 1 {
                    let moment = took.mul_f64(spread(i));
                    what.push(format!("a kill after {moment:?}"));
                    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                    std::thread::sleep(moment.max(Duration::from_millis(1)));
                    let _ = child.kill();
                    child
                } else {
                    let call = inject::CALLS[i % inject::CALLS.len()];
                    // A resumed run makes fewer calls than a run from the start, so a later kill comes
                    // earlier.
                    let at = 1 + (spread(i) * counts[call] as f64) as u64 / (kill as u64 + 1);
                    what.push(format!("a kill at {call} {at}"));
                    inject::fault(&mut command, library, &root, call, at, Effect::Kill);
                    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
                };
                let ended = child.wait().unwrap();
                killed += usize::from(ended.code().is_none());
            }
            succeeds(train(&root, method));
            runs += 1;
            Outcome::of(&root).must_equal(&expected, &format!("{method}: {}", what.join(", ")));
            let left = std::fs::read_dir(run(&root).folder()).unwrap();
            let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
            let unfinished = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(".unfinished");
            assert!(!names.iter().any(unfinished), "{names:?}");
        }
    }
    eprintln!("{killed} kills in {runs} runs of {} methods: 0 bytes differ", methods.len());
    // The first kill of each run is at a call that the run certainly makes; the others may come too late.
    assert!(killed >= runs, "{killed} kills in {runs} runs");
}
