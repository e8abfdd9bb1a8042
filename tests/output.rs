//! Tests of the program when it cannot print, and of names with control characters. If standard output is on
//! a full disk or exceeds a size limit, every command that prints ends with an error. If the reader has
//! ended, the command ends quietly. Standard error is for people, and a run never ends because nobody reads
//! it.

#![cfg(target_os = "linux")] // /dev/full, limits of processes
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use invaspread_data::sample::cifar10::write_cifar10;
use tempfile::TempDir;

/// A name that forges an error on a line of its own, turns the terminal red, clears it with a C1 control,
/// returns to the start of the line, and reverses the direction of writing.
const HOSTILE: &str = "x\nerror: forged\x1b[31m\u{9b}2J\rover\u{202e}txt";

/// [`HOSTILE`] as it may be shown.
const SHOWN: &str = "x\\nerror: forged\\u001b[31m\\u009b2J\\rover\\u202etxt";

fn empty() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin!("invaspread").to_path_buf()
}

/// Returns the program in `folder`, without the caller's settings that could change the results of a test.
fn invaspread(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    for variable in
        ["INVASPREAD_DATA", "INVASPREAD_LOG", "RUST_BACKTRACE", "RUST_MIN_STACK", "RAYON_NUM_THREADS"]
    {
        command.env_remove(variable);
    }
    command
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Returns a pipe without a reader.
fn unread() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// Returns exit code, standard output and standard error; fails on a panic and on any control character in
/// either stream.
fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    for text in [&out, &err] {
        let obeyed = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
        assert!(!text.contains(obeyed), "{command:?}: {text:?}");
        assert!(!text.contains("panicked") && !text.contains("a bug in invaspread"), "{command:?}: {text}");
        assert!(!text.contains("error: forged\n") && !text.lines().any(|line| line == "error: forged"));
    }
    (output.status.code(), out, err)
}

/// Returns an array in numpy's format, version 1.
fn npy(descr: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), numbers].concat()
}

/// Writes `rows.npy`, embeddings of ten rows for which `measure` prints no note, and `labels.npy`.
fn embeddings(folder: &Path) {
    let rows: Vec<u8> = (0..20_u8).flat_map(|n| f32::from(n * 5 % 7).to_le_bytes()).collect();
    fs::write(folder.join("rows.npy"), npy("<f4", "(10, 2)", &rows)).unwrap();
    let labels: Vec<u8> = (0..10_i64).flat_map(|n| (n / 5).to_le_bytes()).collect();
    fs::write(folder.join("labels.npy"), npy("<i8", "(10,)", &labels)).unwrap();
}

/// Writes a safetensors file with one tensor of four numbers.
fn weights(path: &Path, tensor: &str) {
    let head =
        serde_json::json!({ tensor: { "dtype": "F32", "shape": [4], "data_offsets": [0, 16] } }).to_string();
    let length = (head.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], head.as_bytes(), &[0; 16]].concat()).unwrap();
}

/// The arguments of a run that takes a second or two.
const TRAIN: [&str; 10] = [
    "train",
    "method=nce",
    "--profile",
    "smoke",
    "optim.epochs=1",
    "model.width=4",
    "data.subset=64",
    "eval.k=5",
    "--runs",
    "r",
];

/// Returns every command that prints on standard output, as small as possible.
fn printing(folder: &Path) -> Vec<Vec<&'static str>> {
    embeddings(folder);
    weights(&folder.join("one.safetensors"), "conv1.weight");
    let measure = ["measure", "rows.npy", "--labels", "labels.npy"];
    let knn =
        ["bench", "knn", "--train", "50", "--test", "3", "--k", "5", "--repeats", "1", "--threads", "1"];
    let with = |command: &[&'static str], more: &[&'static str]| [command, more].concat();
    vec![
        vec!["--help"],
        vec!["--version"],
        vec!["train", "--help"],
        vec!["data", "list"],
        vec!["data", "list", "--json"],
        vec!["config", "show"],
        vec!["config", "show", "--json"],
        vec!["config", "show", "--origin"],
        vec!["config", "groups"],
        vec!["weights", "inspect", "one.safetensors"],
        vec!["weights", "inspect", "one.safetensors", "--json"],
        vec!["completions", "bash"],
        with(&measure, &[]),
        with(&measure, &["--json"]),
        with(&knn, &[]),
        with(&knn, &["--json"]),
        vec!["doctor"],
    ]
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error_of_every_command() {
    let folder = empty();
    for arguments in printing(folder.path()) {
        let (code, _, err) = said(invaspread(folder.path(), &arguments).stdout(full()));
        assert_eq!(code, Some(1), "{arguments:?}: {err}");
        let line = "error: failed to write to standard output: No space left on device";
        assert!(err.lines().last().is_some_and(|last| last.starts_with(line)), "{arguments:?}: {err}");
        assert_eq!(err.matches("error:").count(), 1, "{arguments:?}: {err}");
    }
}

#[test]
fn a_reader_that_is_gone_ends_every_command_quietly() {
    let folder = empty();
    for arguments in printing(folder.path()) {
        let (code, _, err) = said(invaspread(folder.path(), &arguments).stdout(unread()));
        // The code that a shell reports for a program that SIGPIPE ended.
        assert_eq!((code, err.as_str()), (Some(141), ""), "{arguments:?}");
    }
}

/// The standard library's own writer ignores that a descriptor is not open for writing.
#[test]
fn a_descriptor_that_is_not_for_writing_is_an_error() {
    let folder = empty();
    let (code, _, err) =
        said(invaspread(folder.path(), &["data", "list"]).stdout(File::open("/dev/null").unwrap()));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("failed to write to standard output: Bad file descriptor"), "{err}");
}

/// Runs a shell script, in which `$0` is the program.
fn shell(folder: &Path, script: &str) -> (Option<i32>, String, String) {
    said(
        Command::new("sh")
            .current_dir(folder)
            .args(["-c", script])
            .arg(program())
            .env_remove("RUST_BACKTRACE"),
    )
}

/// A closed descriptor may be given to the next file that is opened; that file must not receive the printed
/// text.
#[test]
fn closed_descriptors_swallow_what_is_printed() {
    let folder = empty();
    embeddings(folder.path());
    for closed in ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let script = format!("\"$0\" measure rows.npy --labels labels.npy {closed}");
        let before = fs::read(folder.path().join("rows.npy")).unwrap();
        let (code, _, err) = shell(folder.path(), &script);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{closed}");
        assert_eq!(fs::read(folder.path().join("rows.npy")).unwrap(), before, "{closed}");
    }
    let (code, ..) = shell(folder.path(), "\"$0\" measure none.npz 2>&-");
    assert_eq!(code, Some(1));
}

/// The program ignores the signal SIGXFSZ, which would end the process, so the write fails instead.
#[test]
fn a_limit_on_the_size_of_files_is_an_error_that_says_what_to_do() {
    let folder = empty();
    let (code, _, err) = shell(folder.path(), "ulimit -f 1; \"$0\" completions bash > script");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("failed to write to standard output: File too large"), "{err}");

    let train = TRAIN.join(" ");
    let (code, _, err) = shell(folder.path(), &format!("ulimit -f 8; \"$0\" {train}"));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("File too large") && err.contains("ulimit -f"), "{err}");
    // Without the limit the same command finishes; no half-written file prevents it.
    let (code, out, err) = shell(folder.path(), &format!("\"$0\" {train}"));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("after the last epoch"), "{out}");
}

/// Progress that nobody reads is dropped; the run ends as usual, with the same record as if it were read.
#[test]
fn a_run_goes_on_when_nobody_reads_standard_error() {
    let record = |stderr: Option<Stdio>| {
        let folder = empty();
        let arguments = [&TRAIN[..], &["--json"]].concat();
        let mut command = invaspread(folder.path(), &arguments);
        // The child is spawned, because `output` would replace the pipe.
        let child =
            command.stdout(Stdio::piped()).stderr(stderr.unwrap_or_else(Stdio::null)).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let records: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        records[0]["metrics"].clone()
    };
    let read = record(None);
    assert!(read["knn_top1"]["last"].is_number(), "{read}");
    assert_eq!(record(Some(unread())), read);
    assert_eq!(record(Some(full())), read);
}

/// `train` trains, and then reports that its records could not be printed.
#[test]
fn records_that_cannot_be_printed_are_an_error_and_the_run_is_done() {
    let folder = empty();
    let arguments = [&TRAIN[..], &["--json"]].concat();
    let (code, _, err) = said(invaspread(folder.path(), &arguments).stdout(full()));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("done, ") && err.contains("failed to write to standard output"), "{err}");
    let (code, out, err) = said(&mut invaspread(folder.path(), &arguments));
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("1 finished, 0 to do"), "{err}");
    assert!(serde_json::from_str::<serde_json::Value>(&out).unwrap()[0]["id"].is_string());
}

/// A command that cannot print even an error still reports its outcome by its exit code.
#[test]
fn errors_that_cannot_be_printed_keep_their_exit_code() {
    let folder = empty();
    for (arguments, expected) in
        [(&["measure", "none.npz"][..], 1), (&["train", "optim.lrr=1"], 2), (&["tarin"], 2), (&[], 2)]
    {
        for stderr in [full(), unread()] {
            let mut command = invaspread(folder.path(), arguments);
            let status = command.stdout(Stdio::null()).stderr(stderr).status().unwrap();
            assert_eq!(status.code(), Some(expected), "{arguments:?}");
        }
    }
}

/// Names may come from many places; wherever one is shown, its control characters are shown as escapes.
#[test]
fn names_from_elsewhere_cannot_command_the_terminal() {
    let folder = empty();
    let path = folder.path();
    embeddings(path);
    let at = |name: &str| path.join(name);

    // The name of a tensor in results; as JSON it is unchanged.
    weights(&at("named.safetensors"), HOSTILE);
    let (code, out, err) = said(&mut invaspread(path, &["weights", "inspect", "named.safetensors"]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(SHOWN), "{out}");
    let (_, out, _) = said(&mut invaspread(path, &["weights", "inspect", "named.safetensors", "--json"]));
    let entries: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(entries[0]["name"], HOSTILE);

    // In errors: the name of a file, a key and a value of a config, an argument.
    let file = format!("{HOSTILE}.npz");
    let (code, _, err) = said(&mut invaspread(path, &["measure", &file]));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(SHOWN), "{err}");
    fs::create_dir_all(at("experiments/method")).unwrap();
    let quoted = serde_json::to_string(HOSTILE).unwrap();
    fs::write(at("experiments/method/key.toml"), format!("[method]\nname = \"nce\"\n{quoted} = 1\n"))
        .unwrap();
    fs::write(at("experiments/method/value.toml"), format!("[method]\nname = {quoted}\n")).unwrap();
    fs::write(at("experiments/method/broken.toml"), "[method]\nname = \"\x1b[31m\u{202e}\"\n").unwrap();
    fs::write(at("experiments/method").join(format!("{HOSTILE}.toml")), "[method\n").unwrap();
    let named = format!("method={HOSTILE}");
    for (setting, shown) in [
        ("method=key", SHOWN),
        ("method=value", "forged"),
        ("method=broken", "broken.toml: line 2"),
        (named.as_str(), SHOWN),
        ("method.name=\x1b[31m", "\\u001b[31m"),
        ("\x1b[31m=1", "[31m=1"),
    ] {
        let (code, out, err) = said(&mut invaspread(path, &["config", "show", setting]));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{setting:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(shown), "{setting:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{setting:?}: {err}");
    }
    let (code, _, err) = said(&mut invaspread(path, &[HOSTILE]));
    assert_eq!(code, Some(2));
    assert!(err.contains(SHOWN), "{err}");

    // In the progress and the results of a run: its folder.
    let runs = format!("runs.root=\"r{}\"", "\\u001b[31m\\u202e");
    let (code, out, err) =
        said(&mut invaspread(path, &["train", "method=random", "--profile", "smoke", &runs]));
    assert_eq!(code, Some(0), "{err}");
    assert!(at("r\x1b[31m\u{202e}").is_dir(), "the folder has the name that was asked for");
    assert!(out.contains("r\\u001b[31m\\u202e/train/"), "{out}");
    assert!(err.contains("r\\u001b[31m\\u202e"), "{err}");

    // In an error: an image.
    for class in ["a", "b"] {
        fs::create_dir_all(at("pictures").join(class)).unwrap();
        for number in 0..5 {
            fs::write(at("pictures").join(class).join(format!("{HOSTILE}{number}.png")), b"no picture")
                .unwrap();
        }
    }
    let data = ["dataset=folder", "data.folder.path=pictures", "data.subset=1", "data.test_subset=1"];
    let data = [&data[..], &["--profile", "smoke", "--dry-run"]].concat();
    let (code, _, err) = said(&mut invaspread(path, &[&["train"], &data[..]].concat()));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(SHOWN), "{err}");
}

/// Tests the folder of a data set, in results and in a warning of the log, and the title of a suite.
#[test]
fn names_of_data_and_suites_cannot_command_the_terminal() {
    let folder = empty();
    let path = folder.path();
    let root = "d\x1b[31m\u{202e}";
    let shown = "d\\u001b[31m\\u202e/";
    write_cifar10(&path.join(root));
    let (code, out, err) = said(&mut invaspread(path, &["data", "verify", "cifar10", "--root", root]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(shown), "{out}");
    let train =
        ["train", "method=random", "dataset=cifar10", "--data-root", root, "--profile", "smoke", "--dry-run"];
    let (code, _, err) = said(&mut invaspread(path, &train));
    assert_eq!(code, Some(0), "{err}");
    assert!(err.lines().any(|line| line.starts_with(" WARN ") && line.contains(shown)), "{err}");

    fs::create_dir_all(path.join("experiments/suite")).unwrap();
    let title = serde_json::to_string(HOSTILE).unwrap();
    let suite =
        format!("title = {title}\nseeds = [0]\n[[row]]\nkey = \"random\"\noverrides = [\"method=random\"]\n");
    fs::write(path.join("experiments/suite/mine.toml"), suite).unwrap();
    let (code, _, err) =
        said(&mut invaspread(path, &["reproduce", "mine", "--profile", "smoke", "--dry-run"]));
    assert_eq!(code, Some(0), "{err}");
    assert!(err.lines().any(|line| line == SHOWN), "{err}");
}

/// A printed config is valid TOML: parsed again, it holds the same name.
#[test]
fn a_config_with_such_names_is_still_that_config() {
    let folder = empty();
    let setting = "data.root=\"a\\u001b[31m\\u202e\"";
    let (code, out, err) = said(&mut invaspread(folder.path(), &["config", "show", setting]));
    assert_eq!(code, Some(0), "{err}");
    let table: toml::Table = out.parse().unwrap();
    assert_eq!(table["data"]["root"].as_str(), Some("a\x1b[31m\u{202e}"));
}

/// A value that no file of this program could hold is described in words, without the syntax of Rust or of a
/// library.
#[test]
fn no_message_shows_the_inside_of_a_library() {
    let folder = empty();
    let path = folder.path();
    embeddings(path);
    weights(&path.join("one.safetensors"), "conv1.weight");
    fs::write(path.join("bad.safetensors"), [0xff; 64]).unwrap();
    fs::write(path.join("bad.pth"), b"PK\x03\x04 and nothing else").unwrap();
    fs::write(path.join("bad.npz"), b"PK\x03\x04 and nothing else").unwrap();
    fs::write(path.join("config.toml"), b"").unwrap();
    let cases: [&[&str]; 11] = [
        &["evaluate", "one.safetensors", "dataset=synthetic", "--profile", "smoke"],
        &["evaluate", "bad.safetensors", "dataset=synthetic", "--profile", "smoke"],
        &["evaluate", "bad.pth", "dataset=synthetic", "--profile", "smoke"],
        &["weights", "import", "one.safetensors", "out.safetensors"],
        &["weights", "export", "bad.safetensors", "out.safetensors"],
        &["weights", "inspect", "bad.pth"],
        &["measure", "bad.npz"],
        &["measure", "rows.npy", "--labels", "rows.npy"],
        &["train", "dataset=cifar10", "data.root=config.toml", "--profile", "smoke"],
        &["train", "model.weights=bad.safetensors", "--profile", "smoke", "model.pretrained=true"],
        &["report", "table1", "--runs", "config.toml"],
    ];
    for arguments in cases {
        let calm = said(&mut invaspread(path, arguments));
        assert!(matches!(calm.0, Some(1 | 2)), "{arguments:?}: {calm:?}");
        for (name, value) in [("RUST_BACKTRACE", "full"), ("RUST_LIB_BACKTRACE", "1")] {
            let traced = said(invaspread(path, arguments).env(name, value));
            // Measured and estimated times differ between two calls, but errors do not.
            let error = |err: &str| {
                err.lines().filter(|l| l.starts_with("error:")).map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(error(&traced.2), error(&calm.2), "{arguments:?} with {name}");
            for inside in
                ["candle_core", "anyhow", "core::", "std::", "Os {", "Error {", "Error(", "Some(", "Msg("]
            {
                assert!(!traced.2.contains(inside), "{arguments:?} shows {inside}: {}", traced.2);
            }
        }
    }
}

/// If stacks are larger than any machine's memory, the system starts no thread, as at a limit on processes.
#[test]
fn without_threads_the_first_one_computes_or_an_error_says_why() {
    let folder = empty();
    embeddings(folder.path());
    let without = |arguments: &[&str]| {
        said(invaspread(folder.path(), arguments).env("RUST_MIN_STACK", (1_u64 << 60).to_string()))
    };
    let measure = ["measure", "rows.npy", "--labels", "labels.npy", "--json"];
    let (code, alone, err) = without(&measure);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("the system did not give") && err.contains("ulimit -u"), "{err}");
    let (_, together, err) = said(&mut invaspread(folder.path(), &measure));
    assert_eq!((alone, err.as_str()), (together, ""), "the same numbers on any number of threads");
    let (code, out, err) = without(&["config", "groups"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "nothing is computed here");
    assert!(out.contains("dataset"));
    let (code, _, err) = without(&TRAIN);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("error: ") && err.contains("thread"), "{err}");
    // A report is made on a thread of its own.
    fs::create_dir_all(folder.path().join("r/table1")).unwrap();
    let (code, _, err) = without(&["report", "table1", "--runs", "r"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("failed to start a thread"), "{err}");
}

/// In an unusual environment the program does not fail, or else it says what is wrong.
#[test]
fn odd_surroundings_are_borne() {
    let folder = empty();
    let path = folder.path();
    embeddings(path);
    let measure = ["measure", "rows.npy", "--labels", "labels.npy"];
    for (name, value) in [
        ("TERM", "dumb"),
        ("COLUMNS", "0"),
        ("COLUMNS", "1"),
        ("LANG", "C"),
        ("TMPDIR", "/nowhere"),
        ("INVASPREAD_LOG", ""),
    ] {
        for arguments in [&measure[..], &["--help"], &["data", "list"]] {
            let (code, _, err) = said(invaspread(path, arguments).env(name, value));
            assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?} with {name}={value}");
        }
    }
    let (code, _, err) =
        said(invaspread(path, &["data", "list"]).env_remove("HOME").env_remove("XDG_CACHE_HOME"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let (code, _, err) = said(invaspread(path, &measure).env("INVASPREAD_LOG", "garbage"));
    assert_eq!(code, Some(0));
    assert!(err.contains("INVASPREAD_LOG") && err.contains("\"garbage\"") && err.contains("debug"), "{err}");

    let (code, _, err) =
        shell(path, "mkdir gone && cd gone && rmdir ../gone && \"$0\" train --profile smoke");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("failed to create the folder") || err.contains("it does not exist"), "{err}");

    let mut command = invaspread(path, &["train"]);
    let (code, _, err) = said(command.arg(OsStr::from_bytes(b"data.name=\xff")));
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("data.name=\\xFF") && err.contains("UTF-8"), "{err}");
}
