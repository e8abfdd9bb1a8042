//! Tests of weight files, from outside: the run and the config with which they are evaluated, damage and NaN,
//! PyTorch's formats under any name, and which files may be overwritten.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use invaspread_models::{Network, ResNetConfig, WeightsFile, write_weights};
use serde_json::Value;
use tempfile::TempDir;

const SMALL: [&str; 2] = ["model.width=8", "model.embedding=16"];
const ON_SYNTHETIC: [&str; 4] = ["dataset=synthetic", "--profile", "smoke", "data.subset=64"];

fn invaspread(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("invaspread").unwrap();
    command.env_remove("INVASPREAD_DATA").env_remove("INVASPREAD_LOG").env("RUST_BACKTRACE", "0");
    let output = command.current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = invaspread(folder, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    out
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(folder, &[arguments, &["--json"]].concat())).unwrap()
}

fn refused(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let (found, out, err) = invaspread(folder, arguments);
    assert_eq!(found, Some(code), "{arguments:?}: {err}");
    assert!(out.is_empty(), "{arguments:?}: {out}");
    for word in words {
        assert!(err.contains(word), "{arguments:?}: expected {word:?} in: {err}");
    }
}

fn empty() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/weights_pickle").join(name)
}

/// Writes a file of a small network's weights as another program would write it, with the entries that are
/// `wanted`.
fn stranger(path: &Path, wanted: impl Fn(&str) -> bool) {
    let network = Network::new(ResNetConfig { width: 8, embedding: 16, ..Default::default() }, 5).unwrap();
    let mut state = network.state_dict().unwrap();
    state.retain(|(name, _)| wanted(name));
    write_weights(path, &state).unwrap();
}

/// Sets one value of an entry in a safetensors file.
fn set(path: &Path, entry: &str, index: usize, value: f32) {
    let mut bytes = fs::read(path).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let entries: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let start = entries[entry]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[header + start + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// Trains a run with other data and another seed than the defaults, and returns its folder.
fn run(folder: &Path) -> PathBuf {
    let settings = ["train", "method=random", "seed=3", "data.test_subset=30", "--runs", "r"];
    let records = json(folder, &[&settings[..], &ON_SYNTHETIC, &SMALL].concat());
    folder.join("r/train").join(records[0]["id"].as_str().unwrap())
}

#[test]
fn a_checkpoint_finds_its_run_through_links_and_from_any_folder() {
    let folder = empty();
    let run = run(folder.path());
    let config = fs::canonicalize(run.join("config.toml")).unwrap();
    let last = run.join("checkpoints/last.safetensors");
    let whole = json(folder.path(), &["evaluate", last.to_str().unwrap()]);
    assert_eq!(whole["test_images"], 30);
    assert_eq!(whole["config"], config.to_str().unwrap());
    assert_eq!((&whole["layer"], &whole["dataset"]), (&"embedding".into(), &"synthetic".into()));
    assert_eq!(whole["run"], run.file_name().unwrap().to_str().unwrap());

    let measured = |folder: &Path, file: &str| {
        let found = json(folder, &["evaluate", file]);
        assert_eq!((&found["config"], &found["metrics"]), (&whole["config"], &whole["metrics"]), "{file}");
    };
    measured(&run.join("checkpoints"), "last.safetensors");
    measured(&run.join("checkpoints"), "last.state.safetensors");
    measured(&run, "checkpoints/last.safetensors");
    // A copy in another folder holds the name of its run, and so does a file exported from it.
    fs::copy(&last, folder.path().join("copy")).unwrap();
    let export = ["weights", "export", "copy", "plain.safetensors", "--runs", "r"];
    assert!(done(folder.path(), &export).contains("config.toml"), "the config is told");
    for file in ["copy", "plain.safetensors"] {
        let found = json(folder.path(), &["evaluate", file, "--runs", "r"]);
        assert_eq!(found["metrics"], whole["metrics"], "{file}");
        // If the run is not found, no config is assumed.
        refused(
            folder.path(),
            &["evaluate", file],
            2,
            &[file, "dataset=NAME", whole["run"].as_str().unwrap()],
        );
    }
    let asked = [&["evaluate", "plain.safetensors", "--json"], &ON_SYNTHETIC[..], &SMALL].concat();
    let found: Value = serde_json::from_str(&done(folder.path(), &asked)).unwrap();
    assert_eq!((&found["config"], &found["arguments"][0]), (&Value::Null, &"profile=smoke".into()));
    // The arguments override the run's config.
    let other = ["evaluate", last.to_str().unwrap(), "dataset=cifar10", "--data-root", "nowhere"];
    refused(folder.path(), &other, 1, &["data set"]);
    let said = done(folder.path(), &["evaluate", last.to_str().unwrap(), "eval.k=100000"]);
    assert!(said.contains("kNN with k = 100000 (all ") && said.contains(" there are)"), "{said}");
    let said = done(folder.path(), &["evaluate", last.to_str().unwrap(), "eval.k=7"]);
    for part in [
        "config.toml, with eval.k=7",
        "synthetic, 30 test images",
        "k = 7, temperature 0.1, of the embedding",
    ] {
        assert!(said.contains(part), "expected {part:?} in {said}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&last, folder.path().join("link.pth")).unwrap();
        measured(folder.path(), "link.pth");
    }
    // A config that belongs to another run is refused.
    fs::create_dir_all(folder.path().join("x/checkpoints")).unwrap();
    fs::copy(&last, folder.path().join("x/checkpoints/last.safetensors")).unwrap();
    fs::write(folder.path().join("x/config.toml"), "device = \"cpu\"\n").unwrap();
    refused(folder.path(), &["evaluate", "x/checkpoints/last.safetensors"], 1, &["the config of another"]);
    // The error for a damaged config says how to make it again.
    fs::write(&config, "x = [").unwrap();
    let words = ["config.toml: line 1", "the config of the run is damaged", "ask for the run again"];
    refused(folder.path(), &["evaluate", last.to_str().unwrap()], 1, &words);
}

#[test]
fn weights_of_nobody_known_are_measured_on_named_data_alone() {
    let folder = empty();
    stranger(&folder.path().join("w"), |_| true);
    refused(folder.path(), &[&["evaluate", "w"], &SMALL[..]].concat(), 2, &["w on", "dataset=NAME"]);
    done(folder.path(), &[&["evaluate", "w"], &ON_SYNTHETIC[..], &SMALL].concat());
}

#[test]
fn damage_anywhere_is_told_by_every_command() {
    let folder = empty();
    let run = run(folder.path());
    let whole = fs::read(run.join("checkpoints/last.safetensors")).unwrap();
    let file = run.join("checkpoints/damaged.safetensors");
    for part in 1..8 {
        let mut damaged = whole.clone();
        damaged[whole.len() * part / 8] ^= 4;
        fs::write(&file, damaged).unwrap();
        let file = file.to_str().unwrap();
        let words = ["damaged.safetensors", "is damaged", "fetch or save it again"];
        refused(folder.path(), &["evaluate", file], 1, &words);
        refused(folder.path(), &["weights", "export", file, "out.safetensors"], 1, &words);
        refused(folder.path(), &["weights", "import", file, "out.safetensors"], 1, &words);
        refused(folder.path(), &["weights", "inspect", file], 1, &words);
    }
    let begin = format!("model.weights={}", file.display());
    let train = [&["train", &begin], &ON_SYNTHETIC[..], &SMALL].concat();
    refused(folder.path(), &train, 1, &["model.weights", "damaged.safetensors", "is damaged"]);
    assert!(!folder.path().join("out.safetensors").exists());
}

#[test]
fn what_is_no_number_is_loaded_nowhere() {
    let folder = empty();
    let file = folder.path().join("w.safetensors");
    stranger(&file, |_| true);
    set(&file, "layer2.0.bn1.running_mean", 3, f32::NAN);
    let words = ["w.safetensors", "layer2.0.bn1.running_mean holds NaN at [3], one of 16 values"];
    let with = |arguments: &[&str]| refused(folder.path(), &[arguments, &SMALL].concat(), 1, &words);
    with(&[&["evaluate", "w.safetensors"], &ON_SYNTHETIC[..]].concat());
    with(&["weights", "import", "w.safetensors", "out.safetensors"]);
    with(&["weights", "export", "w.safetensors", "out.safetensors"]);
    with(&[&["train", "model.weights=w.safetensors"], &ON_SYNTHETIC[..]].concat());
    assert!(!folder.path().join("out.safetensors").exists());
    // `inspect` reports it too.
    let said = done(folder.path(), &["weights", "inspect", "w.safetensors"]);
    assert!(said.contains("NOT FINITE: NaN at [3], one of 16 values"), "{said}");
    assert!(said.contains("NOT FINITE: entries: 1, values: 1;"), "{said}");
}

/// Reads the file that the released code saves, NAME_best.t, as PyTorch 1.0 wrote it. A formula in samples.py
/// gives its values.
#[test]
fn files_of_the_released_code_load_as_they_are() {
    let folder = empty();
    let settings = ["model.width=1", "model.embedding=2"];
    for name in ["cifar10_best.t", "best.pth.tar", "best.PTH", "best"] {
        fs::copy(sample("torch1.0_released_best.t"), folder.path().join(name)).unwrap();
        let found = json(folder.path(), &[&["evaluate", name], &ON_SYNTHETIC[..], &settings].concat());
        assert_eq!((&found["state_dict"], &found["left_over"]), (&"net".into(), &serde_json::json!([])));
        let out = format!("{name}.safetensors");
        let said = done(folder.path(), &[&["weights", "import", name, &out], &settings[..]].concat());
        assert!(said.contains("the state dict is `net` in the file"), "{said}");
        let file = WeightsFile::open(&folder.path().join(out)).unwrap();
        let tensor = &file.state_dicts[0].tensors["conv1.weight"];
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let formula: Vec<f32> = (0..27).map(|j| ((7 * j) % 101 - 50) as f32 / 64.0).collect();
        assert_eq!((tensor.dims(), values), (&[1, 3, 3, 3][..], formula));
    }
}

#[test]
fn pooled_features_need_no_embedding_layer() {
    let folder = empty();
    stranger(&folder.path().join("backbone"), |name| !name.starts_with("linear."));
    let arguments = [&["evaluate", "backbone"], &ON_SYNTHETIC[..], &SMALL].concat();
    refused(folder.path(), &arguments, 1, &["missing: linear.weight, linear.bias", "eval.layer=pooled"]);
    let found = json(folder.path(), &[&arguments[..], &["eval.layer=pooled"]].concat());
    assert_eq!(found["layer"], "pooled");
    assert_eq!(found["not_loaded"], serde_json::json!(["linear.weight", "linear.bias"]));
}

#[test]
fn a_run_of_pooled_features_is_measured_so_wherever_its_weights_go() {
    let folder = empty();
    let settings = ["train", "method=ntxent", "optim.epochs=1", "--runs", "r"];
    let records = json(folder.path(), &[&settings[..], &ON_SYNTHETIC, &SMALL].concat());
    let run = format!("r/train/{}", records[0]["id"].as_str().unwrap());
    let measured = json(folder.path(), &["evaluate", &run]);
    assert_eq!(measured["layer"], "pooled");
    let (_, _, said) = invaspread(folder.path(), &["evaluate", &run]);
    assert!(
        said.contains("is the folder of a run") && said.contains("checkpoints/last.safetensors"),
        "{said}"
    );

    // A file written from the run keeps the layer, also if its run is no longer found.
    for command in ["import", "export"] {
        let out = format!("{command}.safetensors");
        assert!(done(folder.path(), &["weights", command, &run, &out]).contains("config.toml"), "{command}");
        let asked = [&["evaluate", &out], &ON_SYNTHETIC[..], &SMALL].concat();
        let found = json(folder.path(), &asked);
        assert_eq!(
            (&found["layer"], &found["metrics"]),
            (&"pooled".into(), &measured["metrics"]),
            "{command}"
        );
        let typed = json(folder.path(), &[&asked[..], &["eval.layer=embedding"]].concat());
        assert_eq!(typed["layer"], "embedding");
    }
    // Without its run, neither command guesses the network.
    fs::rename(folder.path().join("r"), folder.path().join("gone")).unwrap();
    for command in ["import", "export"] {
        let again = ["weights", command, "export.safetensors", "again.safetensors"];
        refused(folder.path(), &again, 2, &["export.safetensors", "model=NAME", "to the run"]);
        done(folder.path(), &[&again, &SMALL[..]].concat());
    }
    refused(folder.path(), &["evaluate", "gone"], 2, &["gone", "checkpoints/last.safetensors"]);
}

#[test]
fn nothing_is_overwritten_that_the_command_did_not_write() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    stranger(&at("a.safetensors"), |_| true);
    let before = fs::read(at("a.safetensors")).unwrap();
    fs::copy(at("a.safetensors"), at("b.safetensors")).unwrap();
    fs::create_dir(at("folder.safetensors")).unwrap();
    fs::write(at("notes.safetensors"), "my notes").unwrap();
    let run = run(folder.path());
    let checkpoint = run.join("checkpoints/last.safetensors");
    let mut outs = vec![
        ("a.safetensors", "it is the file that is read"),
        ("./folder.safetensors/../a.safetensors", "it is the file that is read"),
        ("x.pth", "expected .safetensors"),
        ("x", "expected .safetensors"),
        ("folder.safetensors", "it is a folder"),
        ("b.safetensors", "did not write"),
        ("notes.safetensors", "did not write"),
        (checkpoint.to_str().unwrap(), "did not write"),
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("a.safetensors"), at("symbolic.safetensors")).unwrap();
        fs::hard_link(at("a.safetensors"), at("hard.safetensors")).unwrap();
        outs.extend([
            ("symbolic.safetensors", "it is the file that is read"),
            ("hard.safetensors", "it is the file that is read"),
        ]);
    }
    for command in ["import", "export"] {
        for (out, word) in &outs {
            refused(
                folder.path(),
                &[&["weights", command, "a.safetensors", out], &SMALL[..]].concat(),
                2,
                &[word],
            );
        }
        let write = ["weights", command, "a.safetensors", "new.SAFETENSORS"];
        done(folder.path(), &[&write, &SMALL[..]].concat());
        done(folder.path(), &[&write, &SMALL[..]].concat());
    }
    assert_eq!(fs::read(at("a.safetensors")).unwrap(), before);
    assert_eq!(fs::read(at("b.safetensors")).unwrap(), before);
    assert_eq!(fs::read(at("notes.safetensors")).unwrap(), b"my notes");

    // Embeddings must not overwrite the weights, a run's own embeddings or anything else.
    fs::create_dir(at("e")).unwrap();
    fs::copy(at("a.safetensors"), at("e/test.safetensors")).unwrap();
    let save = |weights: &str, into: &str| {
        [&["evaluate", weights, "--embeddings", into], &ON_SYNTHETIC[..], &SMALL].concat().join("\n")
    };
    let call = |weights: &str, into: &str, word: &str| {
        let arguments = save(weights, into);
        refused(folder.path(), &arguments.lines().collect::<Vec<_>>(), 2, &[word]);
    };
    call("e/test.safetensors", "e", "it is the file that is read");
    call("a.safetensors", "e", "did not write");
    call("a.safetensors", run.join("embeddings").to_str().unwrap(), "did not write");
    for _ in 0..2 {
        let arguments = save("a.safetensors", "fresh");
        done(folder.path(), &arguments.lines().collect::<Vec<_>>());
    }
    assert_eq!(fs::read(at("e/test.safetensors")).unwrap(), before);
}

/// The commands of the README that take the weights of a run: `evaluate`, `embed` and `weights`.
#[test]
fn the_commands_of_the_readme_on_weights_run() {
    let folder = empty();
    let at = folder.path();
    let train = ["train", "method=random", "seed=1", "data.test_subset=30"];
    let records = json(at, &[&train[..], &ON_SYNTHETIC, &SMALL].concat());
    let id = records[0]["id"].as_str().unwrap();
    fs::create_dir(at.join("IMAGES")).unwrap();
    for number in 0..3_u8 {
        let gray = [&b"P5 32 32 255\n"[..], &[80 * number; 32 * 32]].concat();
        fs::write(at.join(format!("IMAGES/{number}.pgm")), gray).unwrap();
    }
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let mut run = Vec::new();
    for line in fs::read_to_string(readme).unwrap().lines() {
        let command = line.strip_prefix("    invaspread ").unwrap_or_default();
        let command = command.split('#').next().unwrap().replace("HASH-s1", id);
        // A file that an earlier one of these commands wrote.
        let command = command.replace("inspect FILE", "inspect weights.safetensors");
        let arguments: Vec<&str> = command.split_whitespace().collect();
        if ["evaluate", "embed", "weights"].contains(&arguments.first().copied().unwrap_or_default()) {
            done(at, &arguments);
            run.push(arguments[..2].join(" "));
        }
    }
    run.dedup();
    assert!(run.len() >= 4, "{run:?}");
    for file in ["weights.safetensors", "model.onnx", "embeddings.npz"] {
        assert!(at.join(file).is_file(), "{file}");
    }
    let embedded = json(at, &["evaluate", &format!("runs/train/{id}"), "--embeddings", "e"]);
    assert!(embedded["intervals"]["metrics"]["knn_top1"]["low"].is_f64(), "{embedded}");
}
