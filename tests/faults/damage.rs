//! Damaged files are never used silently. A damaged state ends the run with an error that names it; damaged
//! weights and embeddings are refused by every command that reads them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::inject::{self, Effect};
use crate::program::{Outcome, SMALL, folder, invaspread, run, said, spread, succeeds, times, train};

/// Returns the damaged bytes and a description of the damage; `way` chooses the kind of damage.
fn damage(bytes: &[u8], way: usize) -> (String, Vec<u8>) {
    let at = (spread(way) * bytes.len() as f64) as usize;
    let mut damaged = bytes.to_vec();
    let what = match way % 4 {
        0 => {
            damaged.truncate(at);
            format!("cut to {at} bytes")
        }
        1 => {
            damaged[at..].fill(0);
            format!("zeros from byte {at} on")
        }
        2 => {
            damaged.splice(at..at, [0]);
            format!("a byte too many at {at}")
        }
        _ => {
            damaged[at] ^= 1 << (way % 8);
            format!("bit {} of byte {at} flipped", way % 8)
        }
    };
    (what, damaged)
}

#[test]
fn a_damaged_state_is_named_and_never_resumed_from() {
    let Some(library) = inject::library() else { return };
    let whole = folder();
    let root = whole.path().join("runs");
    succeeds(train(&root, "nce"));
    let expected = Outcome::of(&root);
    // The run is killed half-way, at a late flush, so that a checkpoint exists.
    let half = folder();
    let root = half.path().join("runs");
    let mut command = train(&root, "nce");
    inject::fault(&mut command, library, &root, "fsync", 24, Effect::Kill);
    assert!(!command.output().unwrap().status.success());
    let state = run(&root).checkpoints().join("last.state.safetensors");
    let bytes = std::fs::read(&state).unwrap();
    let copy = snapshot(half.path());
    let (mut refused, ways) = (0, times(8, 104));
    for way in 0..ways {
        restore(&copy, half.path());
        let (what, damaged) = damage(&bytes, way);
        std::fs::write(&state, damaged).unwrap();
        let output = train(&root, "nce").output().unwrap();
        let text = said(&output);
        if output.status.success() {
            Outcome::of(&root).must_equal(&expected, &what);
        } else {
            assert_eq!(output.status.code(), Some(1), "{what}: {text}");
            assert!(text.contains("last.state.safetensors"), "{what}: {text}");
            refused += 1;
        }
    }
    eprintln!("{ways} damaged states: {refused} named, the others passed over with equal results");
    assert_eq!(refused, ways);
}

/// A file, and the command that reads it.
type Reader<'a> = (&'a Path, &'a dyn Fn(&Path) -> Command);

#[test]
fn damaged_weights_and_embeddings_are_refused_wherever_they_are_read() {
    let whole = folder();
    let root = whole.path().join("runs");
    succeeds(train(&root, "nce"));
    let layout = run(&root);
    let weights = layout.checkpoints().join("last.safetensors");
    let embeddings = layout.embeddings().join("test.safetensors");
    let out = whole.path().join("out.safetensors");
    let beside = |arguments: &[&str], file: &Path| {
        let mut command = invaspread(whole.path());
        command.args(arguments).arg(file);
        command
    };
    let evaluate = |file: &Path| beside(&["evaluate"], file);
    let export = |file: &Path| {
        let mut command = beside(&["weights", "export"], file);
        command.arg(&out);
        command
    };
    let begin = |file: &Path| {
        let mut command = invaspread(whole.path());
        command.arg("train").args(SMALL).arg(format!("model.weights={}", file.display()));
        command.args(["--runs", "other"]);
        command
    };
    let measure = |file: &Path| beside(&["measure"], file);
    let readers: [Reader<'_>; 4] =
        [(&weights, &evaluate), (&weights, &export), (&weights, &begin), (&embeddings, &measure)];
    let mut tried = 0;
    for (file, reader) in readers {
        let bytes = std::fs::read(file).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for i in 0..times(4, 30) {
            let mut damaged = bytes.clone();
            let at = header + (spread(i) * (bytes.len() - header) as f64) as usize;
            damaged[at] ^= 1 << (i % 8);
            std::fs::write(file, &damaged).unwrap();
            let output = reader(file).output().unwrap();
            let text = said(&output);
            assert!(!output.status.success(), "byte {at} of {}: {text}", file.display());
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(text.contains(name), "{text}");
            assert!(!out.exists(), "{text}");
            tried += 1;
        }
        std::fs::write(file, &bytes).unwrap();
    }
    eprintln!("{tried} flipped bits in weights and embeddings: all refused");
}

/// Returns the files below `folder` with their contents.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    files
}

/// Restores `folder` to the state that [`snapshot`] recorded.
fn restore(files: &[(PathBuf, Vec<u8>)], folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    for (path, bytes) in files {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
