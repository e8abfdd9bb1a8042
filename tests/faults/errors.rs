//! Full disks and failing calls: the run ends with an error and exit code 1, nothing is corrupt, and once the
//! fault is gone the result is equal.

use std::path::Path;
use std::process::Command;

use crate::inject::{self, Effect};
use crate::program::{Outcome, folder, said, spread, succeeds, times, train};

/// Linux error numbers.
const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

const METHOD: &str = "nce";

/// The outcome of an undisturbed run, the number of calls it makes and of bytes it leaves.
struct Reference {
    outcome: Outcome,
    counts: std::collections::HashMap<String, u64>,
    bytes: u64,
}

fn reference(library: &Path) -> Reference {
    let whole = folder();
    let (root, counts) = (whole.path().join("runs"), whole.path().join("counts"));
    let mut command = train(&root, METHOD);
    inject::count(&mut command, library, &root, &counts);
    succeeds(command);
    Reference { outcome: Outcome::of(&root), counts: inject::counted(&counts), bytes: length(&root) }
}

fn length(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { length(&entry.path()) } else { entry.metadata().unwrap().len() }
            },
        )
        .sum()
}

/// Runs the command that `disturb` has changed and returns whether it failed. Either way the run must then
/// end as `expected`.
fn survives(expected: &Outcome, what: &str, disturb: impl FnOnce(&mut Command, &Path)) -> bool {
    let broken = folder();
    let root = broken.path().join("runs");
    let mut command = train(&root, METHOD);
    disturb(&mut command, &root);
    let output = command.output().unwrap();
    let text = said(&output);
    let failed = match output.status.code() {
        Some(0) => false,
        Some(1) => {
            assert!(
                text.contains("error:") && text.contains(broken.path().to_str().unwrap()),
                "{what}: {text}"
            );
            true
        }
        other => panic!("{what}: {other:?}: {text}"),
    };
    if !failed {
        Outcome::of(&root).must_equal(expected, &format!("{what}, which it passed over"));
    }
    succeeds(train(&root, METHOD));
    Outcome::of(&root).must_equal(expected, what);
    failed
}

#[test]
fn a_full_disk_ends_a_run_that_then_resumes() {
    let Some(library) = inject::library() else { return };
    let Reference { outcome, bytes, .. } = reference(library);
    // Checkpoints are written several times, so the bytes written are twice those left at the end.
    let sizes = times(4, 42);
    let mut failed = 0;
    for i in 0..sizes {
        let room = (bytes * 2) * i as u64 / sizes as u64;
        let what = format!("a disk with room for {room} bytes");
        failed += usize::from(survives(&outcome, &what, |command, root| {
            inject::room(command, library, root, room);
        }));
    }
    eprintln!("a disk full at {sizes} sizes: {failed} runs failed, all resumed to equal results");
    assert!(failed > sizes / 3, "{failed} of {sizes} failed");
}

#[test]
fn a_failing_call_ends_a_run_that_then_resumes() {
    let Some(library) = inject::library() else { return };
    let Reference { outcome, counts, .. } = reference(library);
    let cases = [
        ("create", ENOSPC),
        ("write", EIO),
        ("fsync", EIO),
        ("rename", ENOSPC),
        ("open", EMFILE),
        ("write", EDQUOT),
        ("create", EDQUOT),
        ("rename", EIO),
    ];
    let (mut tried, mut failed) = (0, 0);
    for (number, (call, error)) in cases.into_iter().enumerate() {
        for i in 0..times(1, 12) {
            let at = 1 + (spread(number + 7 * i) * counts[call] as f64) as u64;
            let effect =
                if (number + i).is_multiple_of(2) { Effect::Fail(error) } else { Effect::FailOn(error) };
            let what = format!("{call} {at}: {effect:?}");
            tried += 1;
            let disturb =
                |command: &mut Command, root: &Path| inject::fault(command, library, root, call, at, effect);
            failed += usize::from(survives(&outcome, &what, disturb));
        }
    }
    eprintln!("{tried} failing calls: {failed} runs failed, all resumed to equal results");
    assert!(failed > tried / 2, "{failed} of {tried} failed");
}
