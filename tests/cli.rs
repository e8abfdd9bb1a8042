//! Tests of the program from outside: what it prints, on which stream, and with which exit code. The code is
//! 2 for invalid arguments and settings and 1 for a failure. Every test runs in an empty folder of its own,
//! so that the program finds only what is built into the binary.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use program::{done, empty, invaspread, refused};

#[test]
fn help_names_every_command() {
    let folder = empty();
    let help = done(folder.path(), &["--help"]);
    for command in [
        "demo",
        "train",
        "reproduce",
        "report",
        "evaluate",
        "measure",
        "data",
        "config",
        "doctor",
        "bench",
        "completions",
    ] {
        assert!(help.contains(command), "{command}: {help}");
        assert!(done(folder.path(), &[command, "--help"]).contains("Usage:"), "{command}");
    }
    assert!(done(folder.path(), &["--version"]).starts_with("invaspread "));
}

#[test]
fn what_makes_no_sense_ends_with_2() {
    let folder = empty();
    let cases: [(&[&str], &[&str]); 14] = [
        (&["tarin"], &["tarin"]),
        (&["reproduce"], &["SUITE"]),
        (&["train", "--bogus"], &["--bogus"]),
        (&["completions", "tcsh"], &["tcsh", "bash"]),
        (&["train", "cifar10"], &["cifar10", "key=value"]),
        (&["train", "optim.learning_rate=1"], &["optim.learning_rate", "did you mean `optim.lr`"]),
        (
            &["train", "model.width=wide"],
            &["model.width", "argument model.width=wide", "\"wide\"", "a whole number"],
        ),
        (&["train", "--profile", "huge"], &["profile=huge", "paper", "quick", "smoke"]),
        (&["train", "method=ncee"], &["method=ncee", "did you mean `nce`"]),
        (&["train", "device=cuda"], &["device", "cuda", "auto or cpu"]),
        (&["train", "seed=0,1"], &["seed", "0, 1", "--multirun"]),
        (&["reproduce", "tabel1"], &["tabel1", "figure3", "did you mean `table1`"]),
        (&["reproduce", "table1", "method=nce"], &["method=nce", "table1", "invaspread train"]),
        (&["data", "fetch", "cifar"], &["cifar", "cifar10"]),
    ];
    for (arguments, words) in cases {
        refused(folder.path(), arguments, 2, words);
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is written by a request that makes no sense"
    );
}

#[test]
fn a_key_in_a_file_of_ones_own_is_traced_to_that_file() {
    let folder = empty();
    let path = folder.path().join("experiments/method");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("mine.toml"), "[method]\nname = \"nce\"\ntemprature = 0.1\n").unwrap();
    refused(
        folder.path(),
        &["train", "method=mine"],
        2,
        &["method.temprature", "mine.toml", "did you mean `method.temperature`"],
    );
    // An older file, which sets a key of the former section [loss].
    fs::write(path.join("mine.toml"), "[method]\nname = \"nce\"\n[loss]\ntemperature = 0.1\n").unwrap();
    refused(
        folder.path(),
        &["train", "method=mine"],
        2,
        &["loss.temperature", "mine.toml", "this key is now method.temperature"],
    );
    fs::write(path.join("mine.toml"), "[method]\nname = \"nce\"\ntemperature = \"hot\"\n").unwrap();
    refused(
        folder.path(),
        &["train", "method=mine"],
        2,
        &["method.temperature", "mine.toml", "\"hot\"", "a number"],
    );
    fs::write(path.join("mine.toml"), "[method\n").unwrap();
    refused(folder.path(), &["train", "method=mine"], 2, &["mine.toml", "line 1"]);
    fs::write(path.join("mine.toml"), "[method]\nname = \"nce\"\ntemperature = 0.2\n").unwrap();
    let shown = done(folder.path(), &["config", "show", "--origin", "method=mine"]);
    let line = shown.lines().find(|line| line.starts_with("method.temperature")).unwrap();
    assert!(
        line.contains("0.2") && line.contains("experiments/method/mine.toml") && !line.contains("built in"),
        "{line}"
    );
}

#[test]
fn what_cannot_be_done_ends_with_1() {
    let folder = empty();
    let path = folder.path();
    refused(
        path,
        &["train", "dataset=cifar10", "data.root=nowhere", "--profile", "smoke"],
        1,
        &["cifar10", "nowhere", "chosen by data.root", "cifar-10-batches-bin", "data fetch cifar10"],
    );
    refused(
        path,
        &["train", "dataset=folder", "data.folder.path=nowhere", "--profile", "smoke"],
        1,
        &["nowhere"],
    );
    refused(path, &["report", "table1"], 1, &["table1", "invaspread reproduce table1"]);
    refused(path, &["evaluate", "none.safetensors", "--profile", "smoke"], 1, &["none.safetensors"]);
    fs::write(path.join("bad.safetensors"), b"not weights at all").unwrap();
    refused(path, &["evaluate", "bad.safetensors", "--profile", "smoke"], 1, &["bad.safetensors"]);
}

#[test]
fn a_truncated_archive_is_named_with_its_length() {
    let folder = empty();
    fs::write(folder.path().join("cifar-10-binary.tar.gz"), [0x1f, 0x8b, 8, 0, 0, 0]).unwrap();
    let arguments = ["train", "dataset=cifar10", "data.root=.", "--profile", "smoke"];
    refused(folder.path(), &arguments, 1, &["cifar-10-binary.tar.gz", "data fetch cifar10"]);
}

/// A file in the place of a folder is an error even for a user who may write anywhere.
#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = empty();
    fs::write(folder.path().join("taken"), b"").unwrap();
    refused(
        folder.path(),
        &["train", "method=random", "--profile", "smoke", "--runs", "taken"],
        1,
        &["taken", "runs.root"],
    );
}

#[test]
fn a_config_is_shown_as_it_resolves_and_loads_back() {
    let folder = empty();
    let shown = done(
        folder.path(),
        &["config", "show", "method=nce", "--profile", "quick", "optim.lr=0.5", "model.width=24"],
    );
    assert!(
        shown.contains("lr = 0.5") && shown.contains("name = \"nce\"") && shown.contains("width = 24"),
        "{shown}"
    );
    let table: toml::Table = shown.parse().unwrap();
    assert_eq!(table["groups"]["profile"].as_str(), Some("quick"));
    let json: serde_json::Value =
        serde_json::from_str(&done(folder.path(), &["config", "show", "--json", "model.width=24"])).unwrap();
    assert_eq!(json["model"]["width"], 24);
}

#[test]
fn scripts_get_json() {
    let folder = empty();
    let listed: serde_json::Value =
        serde_json::from_str(&done(folder.path(), &["data", "list", "--json"])).unwrap();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"cifar10") && names.contains(&"synthetic"), "{names:?}");
    let found: serde_json::Value = serde_json::from_str(&done(folder.path(), &["doctor", "--json"])).unwrap();
    let checks = found["checks"].as_array().unwrap();
    assert!(!checks.is_empty() && checks.iter().all(|check| check["good"] == true), "{found}");
    assert!(found["environment"]["threads"].as_u64().unwrap() > 0);
}

#[test]
fn completions_are_of_this_program() {
    let folder = empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = done(folder.path(), &["completions", shell]);
        assert!(script.contains("invaspread") && script.contains("reproduce"), "{shell}");
    }
}

/// Wrong settings are refused at once, and settings in unusual forms are accepted.
#[test]
fn settings_that_make_no_sense_are_told_from_those_that_look_odd() {
    let folder = empty();
    let path = folder.path();
    let cases: [(&[&str], &[&str]); 21] = [
        // Settings that would do nothing.
        (
            &["train", "--profile", "smoke", "method=swav", "method.queue=160"],
            &["method.queue_from", "found 16", "at most 1, the value of optim.epochs", "method.queue=0"],
        ),
        // 1,024 images are 32 steps of 32.
        (
            &["train", "--profile", "smoke", "method=swav", "method.queue=993", "method.queue_from=1"],
            &["method.queue", "found 993", "at most 992", "never be full"],
        ),
        (
            &["train", "method=dino", "method.small_views=2", "augment.without=[resized_crop]"],
            &["augment.without", "resized_crop", "no small views"],
        ),
        (
            &["train", "method=swav", "method.small_views=2", "augment=none"],
            &["augment.none", "found true", "resized_crop", "no small views"],
        ),
        (&["train", "--multirun", "runs.root=a,b", "method=random"], &["runs.root", "a, b", "same runs"]),
        (&["reproduce", "table1", "data.root='a','b'"], &["data.root", "same runs"]),
        (&["config", "show", "optim.lr=null"], &["optim.lr", "required"]),
        (&["config", "show", "--seeds", "0,1"], &["seed", "0, 1", "train --multirun"]),
        (&["config", "show", "seed=9223372036854775808"], &["from 0 to 9223372036854775807"]),
        (&["train", "--runs", "~nobody-of-that-name/x"], &["--runs", "~nobody-of-that-name", "./~"]),
        (&["train", "model.width=100000", "--dry-run"], &["model.width=100000", "TiB", "of memory"]),
        (&["train", "model.width=1e12"], &["model.width=1000000000000", "of memory"]),
        (&["train", "model.embedding=1e9"], &["model.embedding=1000000000", "of memory"]),
        (&["train", "method=nce", "method.noise=1e12"], &["method.noise=1000000000000", "of memory"]),
        (&["train", "optim.epochs=1e18", "--dry-run"], &["optim.epochs", "9007199254740992"]),
        (
            &["train", "model.pool=1e10"],
            &["model.pool", "found 10000000000", "4, which is the side of the last map"],
        ),
        (&["train", "model.pool=2"], &["model.pool", "found 2", "4, which is the side of the last map"]),
        (
            &["train", "dataset=folder", "data.folder.path=.", "data.folder.image_size=1e7"],
            &["data.folder.image_size", "10000000", "between 4 and 1024"],
        ),
        (
            &["train", "dataset=synthetic", "data.synthetic.image_size=2", "--dry-run"],
            &["data.synthetic.image_size", "found 2"],
        ),
        (&["bench", "knn", "--train", "4000000000000000"], &["--train 4000000000000000", "of memory"]),
        (&["bench", "train", "--width", "1000000000"], &["--width 1000000000", "of memory"]),
    ];
    for (arguments, words) in cases {
        refused(path, arguments, 2, words);
    }
    refused(path, &["bench", "train", "--threads", "1000000000"], 2, &["--threads", "4096"]);
    assert_eq!(fs::read_dir(path).unwrap().count(), 0, "nothing was written");

    let home = std::env::home_dir().unwrap();
    let shown =
        |arguments: &[&str]| done(path, &[&["config", "show", "--profile", "quick"], arguments].concat());
    for (arguments, line) in [
        (&["--data-root", "/x, y"][..], "root = \"/x, y\"".to_owned()),
        (&["--runs", "20240105"], "root = \"20240105\"".to_owned()),
        (&["--runs=-x"], "root = \"-x\"".to_owned()),
        (&["dataset=folder", "data.folder.path=true"], "path = \"true\"".to_owned()),
        (&["--runs=~/x"], format!("root = {:?}", home.join("x"))),
        (&["runs.root=~/x"], format!("root = {:?}", home.join("x"))),
        (&["optim.lr=.01"], "lr = 0.01".to_owned()),
        (&["augment.without=[flip]"], "without = [\"flip\"]".to_owned()),
        (&["data.subset=null"], "# data.subset is unset by argument data.subset=null".to_owned()),
    ] {
        let shown = shown(arguments);
        assert!(shown.lines().any(|found| found == line), "{line} in {shown}");
        toml::from_str::<toml::Table>(&shown).unwrap();
    }
    // A text of several lines is printed on one line, so that every line is a setting.
    let lines = shown(&["data.root=a\n[method]\nname = x\u{200b}"]);
    let text = "root = \"a\\n[method]\\nname = x\\U0000200B\"";
    assert!(lines.lines().any(|line| line == text), "{lines}");
    let read: toml::Table = toml::from_str(&lines).unwrap();
    assert_eq!(read["data"]["root"].as_str(), Some("a\n[method]\nname = x\u{200b}"));
    let origins = shown(&["--origin", "data.subset="]);
    assert!(origins.lines().any(|line| line.starts_with("data.subset = null")), "{origins}");
    // Keys that nothing sets are there too, with their meaning.
    let kernel = origins.lines().find(|line| line.starts_with("augment.blur.kernel = null")).unwrap();
    assert!(kernel.contains("unset by default; "), "{kernel}");
    let lines = shown(&["method=dcl"]);
    for (key, meaning) in [("data.cache", "Folder of packed images"), ("method.sigma", "")] {
        let expected = format!("# {key} is unset: {meaning}");
        assert!(lines.lines().any(|line| line.starts_with(&expected)), "{expected} in {lines}");
    }
    assert!(!lines.contains("# optim.lr is unset"), "{lines}");
}

#[test]
fn records_and_progress_say_what_ran() {
    let folder = empty();
    let arguments =
        ["train", "method.name=random", "--profile", "smoke", "data.subset=40", "--seeds", "0,0", "--json"];
    let said = invaspread(folder.path(), &arguments);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let records: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(records.as_array().unwrap().len(), 1, "{records}");
    let record = &records[0];
    assert_eq!((&record["row"], &record["method"]), (&"random".into(), &"random".into()));
    assert_eq!(record["profile"], "smoke with data.subset=40");
    assert!(said.err.contains("random (seed 0) is asked for more than once"), "{}", said.err);
    assert!(!said.err.contains("invaspread"), "{}", said.err);
}

/// A run, the same command again, and the evaluation of its checkpoint give the same numbers.
#[test]
fn a_run_is_kept_not_repeated_and_measures_the_same_again() {
    let folder = empty();
    let settings = ["method=nce", "--profile", "smoke", "optim.epochs=1", "--runs", "r"];
    let train = |extra: &[&str]| invaspread(folder.path(), &[&["train"], &settings[..], extra].concat());
    let first = train(&["--json"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    let records: serde_json::Value = serde_json::from_str(&first.out).unwrap();
    let (id, top1) = (records[0]["id"].as_str().unwrap(), &records[0]["metrics"]["knn_top1"]["last"]);
    let run = folder.path().join("r/train").join(id);
    for file in ["config.toml", "env.json", "status.json", "log.jsonl", "metrics.parquet", "record.json"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let again = train(&["--json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&again.out).unwrap(),
        records,
        "finished runs are not repeated"
    );

    let weights = run.join("checkpoints/last.safetensors");
    let measured =
        done(folder.path(), &["evaluate", weights.to_str().unwrap(), "--profile", "smoke", "--json"]);
    let measured: serde_json::Value = serde_json::from_str(&measured).unwrap();
    assert_eq!(&measured["metrics"]["knn_top1"], top1);
    let protocol = &measured["protocol"];
    assert_eq!((&protocol["epoch"], &protocol["layer"]), (&"last".into(), &"embedding".into()));
    assert_eq!((&protocol["k"], &protocol["test_rows"]), (&measured["k"], &measured["test_images"]));
    let card = done(folder.path(), &["evaluate", weights.to_str().unwrap(), "--profile", "smoke", "--card"]);
    assert!(card.contains("  resize:                 resize the shorter side to 32 pixels"), "{card}");
    assert!(card.contains("95% intervals for other queries: 10000 bootstrap draws"), "{card}");

    // By the protocol of a library, `evaluate` finds what `measure` finds of the embeddings that it saves.
    let weights = weights.to_str().unwrap();
    for library in ["paper", "lightly", "solo-learn", "dino", "pytorch-metric-learning"] {
        let json = |arguments: &[&str]| -> serde_json::Value {
            serde_json::from_str(&done(folder.path(), &[arguments, &["--as", library, "--json"]].concat()))
                .unwrap()
        };
        let settings = ["eval.layer=pooled", "--profile", "smoke"];
        let evaluated = json(&[&["evaluate", weights, "--embeddings", library], &settings[..]].concat());
        let [test, train] = ["test", "train"].map(|split| format!("{library}/{split}.safetensors"));
        let again = json(&["measure", &test, "--gallery", &train]);
        assert!(!again["metrics"].as_object().unwrap().is_empty(), "{again}");
        for (name, value) in again["metrics"].as_object().unwrap() {
            // The paper's protocol in `evaluate` is that of a run, without retrieval beside kNN.
            if library != "paper" || name.starts_with("knn") {
                assert_eq!(&evaluated["metrics"][name], value, "{library}: {name}");
                let of = |result: &serde_json::Value| result["intervals"]["metrics"][name].clone();
                assert!(of(&again)["low"].is_f64(), "{again}");
                assert_eq!(of(&evaluated), of(&again), "{library}: {name}");
            }
        }
        let card = &evaluated["protocol"];
        assert_eq!(card["as"], library);
        for key in ["normalized", "ranking", "k", "temperature", "recall_at", "intervals"] {
            assert_eq!(card[key], again["protocol"][key], "{library}: {key}");
        }
        assert_eq!(card["normalized"], library != "solo-learn");
    }
    let twice = ["evaluate", weights, "--as", "dino", "eval.k=7", "--profile", "smoke"];
    refused(folder.path(), &twice, 2, &["`eval.k` is set by `--as dino`"]);
    let none = ["evaluate", weights, "--profile", "smoke", "--intervals", "none", "--json"];
    let none: serde_json::Value = serde_json::from_str(&done(folder.path(), &none)).unwrap();
    assert!(none["intervals"].is_null() && none["protocol"]["intervals"].is_null(), "{none}");
}

/// Writes a folder of gray images, four of each of two classes; `broken` images of the first class are
/// truncated.
fn pictures(folder: &Path, broken: usize) {
    for split in ["train", "test"] {
        for (class, gray) in [("a", 60_u8), ("b", 190)] {
            let class = folder.join("images").join(split).join(class);
            fs::create_dir_all(&class).unwrap();
            for number in 0..4_u8 {
                let whole = [&b"P5 8 8 255\n"[..], &[gray + number; 64]].concat();
                let cut = class.ends_with("train/a") && usize::from(number) < broken;
                let bytes = if cut { &whole[..40] } else { &whole };
                fs::write(class.join(format!("{number}.pgm")), bytes).unwrap();
            }
        }
    }
}

#[test]
fn fewer_images_than_a_batch_is_a_wrong_setting() {
    let folder = empty();
    pictures(folder.path(), 0);
    let arguments = ["train", "dataset=folder", "data.folder.path=images", "--profile", "smoke"];
    let words = ["optim.batch_size is 16", "only 8 training images", "to at most 8", "train on more images"];
    let small = ["model.width=4", "optim.batch_size=16"];
    let all = [&arguments[..], &small].concat();
    refused(folder.path(), &all, 2, &words);
    assert!(!folder.path().join("runs/train").exists(), "nothing was begun");
    let said = invaspread(folder.path(), &all).err;
    assert!(!said.contains("timing"), "the images are counted before any step is timed: {said}");
}

#[test]
fn an_image_that_is_left_out_is_named_once() {
    let folder = empty();
    pictures(folder.path(), 1);
    let arguments = ["train", "method=random", "dataset=folder", "data.folder.path=images"];
    let small = ["--profile", "smoke", "model.width=4", "data.skip_broken=true", "optim.batch_size=4"];
    let said = invaspread(folder.path(), &[&arguments[..], &small].concat());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.err.matches("left out an image").count(), 1, "{}", said.err);
    assert!(!said.err.contains("skip_broken=true to leave"), "{}", said.err);
}

#[test]
fn a_report_of_reduced_runs_replaces_none_of_full_ones() {
    let folder = empty();
    let suite =
        "title = \"Mine\"\nseeds = [0]\n\n[[row]]\nkey = \"random\"\noverrides = [\"method=random\"]\n";
    fs::create_dir_all(folder.path().join("experiments/suite")).unwrap();
    fs::write(folder.path().join("experiments/suite/mine.toml"), suite).unwrap();
    let small = ["data.subset=40", "model.width=4"];
    done(folder.path(), &[&["reproduce", "mine", "--profile", "smoke"], &small[..]].concat());
    let aside = folder.path().join("runs/mine-report/report.md");
    assert!(aside.is_file());
    fs::remove_file(&aside).unwrap();
    let said = invaspread(folder.path(), &["report", "mine", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("runs/mine-report") && said.err.contains("results/mine"), "{}", said.err);
    assert!(aside.is_file() && !folder.path().join("results").exists());

    // The report of reduced runs that are not of profile smoke has its usual place, unless a report of full
    // runs is there.
    let quick = ["data.subset=40", "data.test_subset=40", "model.width=4", "--runs", "quick"];
    let mine = folder.path().join("results/mine/report.md");
    let reproduce =
        || done(folder.path(), &[&["reproduce", "mine", "--profile", "quick"], &quick[..]].concat());
    reproduce();
    assert!(mine.is_file() && !folder.path().join("quick/mine-report").exists());
    fs::write(&mine, "# Mine\n").unwrap();
    reproduce();
    assert_eq!(fs::read_to_string(&mine).unwrap(), "# Mine\n");
    assert!(folder.path().join("quick/mine-report/report.md").is_file());
}

#[test]
fn a_suite_can_be_trained_by_name() {
    let folder = empty();
    refused(folder.path(), &["train", "suite=tabel1"], 2, &["tabel1", "table1"]);
    let arguments = ["train", "suite=table1", "--profile", "smoke", "dataset=synthetic", "--dry-run"];
    let said = invaspread(folder.path(), &arguments);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("9 runs") && said.err.contains("triplet_hard"), "{}", said.err);
}

/// A dry run of many seeds prints each row once: a line for each seed would repeat the same text.
#[test]
fn a_dry_run_of_many_seeds_has_a_line_for_all_of_them() {
    let folder = empty();
    let seeds = (0..300).map(|seed| seed.to_string()).collect::<Vec<_>>().join(",");
    let seeds = format!("seed={seeds}");
    let arguments =
        ["train", "--multirun", "method=random,invaspread", "--profile", "smoke", &seeds, "--dry-run"];
    let said = invaspread(folder.path(), &arguments);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for part in ["600 runs", "random (300 seeds) ", "invaspread (300 seeds) "] {
        assert!(said.err.contains(part), "no {part:?} in {}", said.err);
    }
    assert!(said.err.lines().count() < 20, "{}", said.err);
}

/// Runs each workload, as small as possible. The figures are printed as JSON, with their units in their
/// names.
#[test]
fn bench_measures_each_workload() {
    let folder = empty();
    let small: [(&[&str], &str); 6] = [
        (&["train", "--batch", "2", "--width", "4", "--steps", "1", "--warmup", "0"], "views_per_s"),
        (&["evaluate", "--images", "3", "--width", "4", "--repeats", "1"], "images_per_s"),
        (&["augment", "--images", "3", "--repeats", "1"], "views_per_s_per_core"),
        (&["knn", "--train", "50", "--test", "3", "--k", "5", "--repeats", "1"], "seconds"),
        (&["kmeans", "--points", "50", "--clusters", "4", "--iterations", "1"], "seconds_per_iteration"),
        (&["epoch", "--images", "5", "--batch", "2", "--width", "4"], "views_per_s"),
    ];
    for (arguments, figure) in small {
        let all: Vec<&str> =
            ["bench"].iter().chain(arguments).copied().chain(["--json", "--threads", "1"]).collect();
        let report: serde_json::Value = serde_json::from_str(&done(folder.path(), &all)).unwrap();
        assert_eq!(report["what"], arguments[0]);
        assert_eq!(report["threads"], 1);
        for name in [figure, "peak_mib"] {
            assert!(report[name].as_f64().unwrap() > 0.0, "{name}: {report}");
        }
    }
    refused(
        folder.path(),
        &["bench", "knn", "--k", "51", "--train", "50"],
        2,
        &["--k", "51", "--train", "50"],
    );
    refused(folder.path(), &["bench", "train", "--width", "0"], 2, &["--width", "0"]);
    refused(
        folder.path(),
        &["bench", "train", "--peak-side", "16385"],
        2,
        &["--peak-side", "16385", "16384"],
    );
    refused(folder.path(), &["bench", "augment", "--size", "8193"], 2, &["--size", "8193", "8192"]);

    // With as many clusters as points the iterations stop at once, and only those that were done are counted.
    let few = ["bench", "kmeans", "--points", "4", "--clusters", "4", "--iterations", "9", "--json"];
    let report: serde_json::Value = serde_json::from_str(&done(folder.path(), &few)).unwrap();
    assert_eq!(report["iterations_done"], 1);
    assert_eq!(report["seconds_per_iteration"], report["seconds"]);
    refused(folder.path(), &["bench", "train", "--depth", "19"], 2, &["--depth", "19", "18, 34 or 50"]);
}

/// Kernels for narrower vectors than this machine's also give correct results.
#[test]
fn every_instruction_set_passes_the_doctor() {
    let folder = empty();
    for set in ["avx512bf16", "avx512", "avx2", "baseline"] {
        let mut command = Command::cargo_bin("invaspread").unwrap();
        let output = command
            .current_dir(folder.path())
            .env("INVASPREAD_SIMD", set)
            .args(["doctor", "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        // A set that the processor lacks is never chosen; the best set is not chosen where another is named.
        assert_ne!(found["instruction_set"], "Amx", "{set}");
        assert!(
            found["checks"].as_array().unwrap().iter().all(|check| check["good"] == true),
            "{set}: {found}"
        );
    }
}

#[test]
fn weights_of_hdf5_are_inspected_and_must_be_of_the_network() {
    let folder = empty();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/weights_hdf5/hickle2.h5");
    fs::copy(file, folder.path().join("googlenet.h5")).unwrap();
    let said = done(folder.path(), &["weights", "inspect", "googlenet.h5"]);
    assert!(said.contains("conv1.7x7_s2.weight") && said.contains("2 entries, 10 numbers"), "{said}");
    // This command gives the network its weights, so the config need not name any.
    let import = ["weights", "import", "googlenet.h5", "out.safetensors", "model=inception_v1"];
    refused(
        folder.path(),
        &import,
        1,
        &["googlenet.h5 into Inception-v1", "base_model.conv2.3x3_reduce.weight"],
    );
    assert!(!folder.path().join("out.safetensors").exists());
}
