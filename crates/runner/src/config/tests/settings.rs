//! Settings as people write them: what is unset, what is a path, how numbers are read, and what the lists of
//! keys say.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{config, error, overrides};
use crate::config::schema::{OUTSIDE_IDENTITY, PATHS, Schema};
use crate::config::tables::leaves;
use crate::config::{GroupFile, Origin, Override, resolve, resolve_over};
use crate::methods::Registry;
use crate::settings::Kind;

#[test]
fn the_lists_of_keys_are_what_the_types_say() {
    // A key is a path if the config's types name a path when they refuse another value.
    let schema = Schema::of(Registry::installed().entry("invaspread").unwrap());
    let keys = schema.keys();
    for (key, kind) in keys.iter().filter(|(_, kind)| matches!(kind, Kind::Word | Kind::Path)) {
        let text = format!("format = 2\n{key} = 1");
        let file = GroupFile { origin: "a file".into(), text };
        let told = resolve_over(Some(file), &[]).unwrap_err().to_string();
        assert_eq!(told.contains("expected a path"), *kind == Kind::Path, "{told}");
    }
    assert!(PATHS.iter().all(|key| schema.kind(key) == Some(&Kind::Path)));
    let optional = schema.optional();
    assert_eq!(
        optional,
        [
            "augment.blur",
            "augment.crop",
            "augment.solarize",
            "augment.squash",
            "data.cache",
            "data.folder.path",
            "data.held_out",
            "data.manifest",
            "data.parquet",
            "data.partial",
            "data.retrieval",
            "data.root",
            "data.skip_broken",
            "data.stl10",
            "data.subset",
            "data.test_subset",
            "data.webdataset",
            "eval.layer",
            "eval.linear",
            "eval.retrieval",
            "local",
            "model.architecture",
            "model.input_channels",
            "model.patch",
            "model.pretrained",
            "model.stem",
            "model.weights",
            "optim.optimizer",
            "optim.trust_coefficient",
            "optim.warmup",
            "runs.checkpoint_seconds",
            "runs.lease_seconds",
            "slurm.account",
            "slurm.at_once",
            "slurm.constraint",
            "slurm.cpus",
            "slurm.gpus",
            "slurm.memory",
            "slurm.partition",
            "slurm.qos",
            "slurm.time",
        ]
    );
    assert!(keys.iter().all(|(_, kind)| *kind != Kind::List(Box::new(Kind::Table))));

    // The hashed text holds every key except those in `OUTSIDE_IDENTITY`, the seed and the labels of the
    // groups.
    let mut every = config(&["dataset=cifar10"]).with_every_key();
    every.model.weights = Some(PathBuf::from("blake3:0"));
    let hashed: toml::Table = every.identity_of(Some("blake3:0".into())).unwrap().parse().unwrap();
    let hashed: BTreeSet<String> = leaves(&hashed).into_iter().collect();
    let left_out: BTreeSet<&str> = keys
        .iter()
        .filter(|(key, kind)| *kind != Kind::Table && !hashed.contains(key))
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(left_out, OUTSIDE_IDENTITY.into_iter().chain(["seed"]).collect());
}

#[test]
fn a_range_of_shards_that_the_shell_expanded_is_told() {
    let key = "data.webdataset.train";
    let told = error(&["dataset=webdataset", &format!("{key}=s-00.tar"), &format!("{key}=s-01.tar")]);
    assert!(
        told.contains("a range of shards stands in quotes") && told.contains("s-00.tar before"),
        "{told}"
    );
    let whole = config(&["dataset=webdataset", &format!("{key}=a.tar"), &format!("{key}=s-{{00..01}}.tar")]);
    assert_eq!(whole.data.webdataset.unwrap().train, Some("s-{00..01}.tar".into()));
}

#[test]
fn a_setting_of_another_data_set_is_refused() {
    for (set, setting) in [
        ("cifar10", "data.folder.path=/images"),
        ("folder", "data.webdataset.train=a.tar"),
        ("webdataset", "data.synthetic.train=7"),
    ] {
        let told = error(&[&format!("dataset={set}"), setting]);
        let (key, _) = setting.split_once('=').unwrap();
        assert!(
            told.contains(&format!("`{key}`")) && told.contains(&format!("the data set is {set}")),
            "{told}"
        );
        assert!(told.contains("dataset=NAME"), "{told}");
    }
    assert_eq!(
        config(&["dataset=folder", "data.folder.path=/images"]).data.folder.path,
        Some("/images".into())
    );
}

#[test]
fn keys_are_unset_by_null_or_nothing() {
    for argument in ["data.subset=null", "data.subset=", "data.subset= null "] {
        let resolved = resolve(&overrides(&["profile=quick", argument])).unwrap();
        assert_eq!(resolved.config.data.subset, None, "{argument}");
        assert!(resolved.config.data.test_subset.is_some());
        let told = resolved.origins.iter().find(|one| one.key == "data.subset").unwrap();
        assert_eq!((told.value.as_str(), &told.origin), (Origin::UNSET, &format!("argument {argument}")));
    }
    assert_eq!(config(&["profile=quick", "data.subset=null", "data.subset=7"]).data.subset, Some(7));
    assert_eq!(config(&["dataset=cars196", "eval.retrieval=null", "data.retrieval="]).eval.retrieval, None);
    assert_eq!(config(&["model.stem=imagenet", "model.stem=null"]).model.stem, None);
    // In quotes, `null` is the name of a folder.
    assert_eq!(config(&["data.root='null'"]).data.root, Some("null".into()));

    for (argument, expected) in [
        ("optim.lr=null", "a number: the key is required"),
        ("seed=", "a whole number, 0 or more: the key is required"),
        ("augment=null", "found no such augment"),
        ("augment.size=null", "the key is required"),
        ("eval.retrieval.recall_at=null", "eval.retrieval=null unsets all of that"),
    ] {
        let told = error(&["dataset=cars196", argument]);
        assert!(told.contains(expected) && told.contains(argument), "{told}");
    }
}

#[test]
fn every_key_is_told_also_if_nothing_sets_it() {
    let method = "dcl";
    let told = resolve(&overrides(&[&format!("method={method}")])).unwrap().origins;
    let keys: BTreeSet<&str> = told.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys.len(), told.len(), "each once");
    for (key, kind) in Schema::of(Registry::installed().entry(method).unwrap()).keys() {
        assert!(kind == Kind::Table || keys.contains(key.as_str()), "{key}");
    }
    let sigma = told.iter().find(|one| one.key == "method.sigma").unwrap();
    assert_eq!((sigma.value.as_str(), sigma.origin.as_str()), (Origin::UNSET, Origin::NOWHERE));
    assert!(sigma.meaning.as_ref().is_some_and(|meaning| meaning.len() > 10), "{sigma:?}");
}

#[test]
fn a_file_unsets_keys_by_a_list() {
    let run = |text: &str| GroupFile { origin: "mine.toml".into(), text: text.into() };
    let over = |text: &str| resolve_over(Some(run(text)), &overrides(&["profile=quick"]));
    let text = config(&["profile=quick"]).identity().unwrap();
    let resolved = over(&format!("unset = [\"data.test_subset\"]\n{text}")).unwrap();
    assert_eq!(
        (resolved.config.data.test_subset, resolved.config.data.subset),
        (Some(2000), Some(10_000)),
        "set again"
    );
    for (text, words) in [
        ("unset = [\"optim.lr\"]", ["optim.lr", "cannot be unset"]),
        ("unset = [\"data.subsett\"]", ["data.subsett", "did you mean `data.subset`"]),
        ("unset = \"data.subset\"", ["unset", "a list of keys"]),
    ] {
        let told = over(text).unwrap_err().to_string();
        assert!(words.iter().all(|word| told.contains(word)) && told.contains("mine.toml"), "{told}");
    }
}

/// A key that a run's config does not set was not set: no file or profile of today may set it.
#[test]
fn a_runs_own_config_is_whole() {
    let run = config(&["dataset=cifar10", "method=nce"]);
    let file = GroupFile { origin: "run/config.toml".into(), text: run.identity().unwrap() };
    let found = resolve_over(Some(file.clone()), &overrides(&["data.root=/d"])).unwrap();
    assert_eq!(found.config.identity().unwrap(), run.identity().unwrap());
    assert_eq!(found.config.data.root, Some("/d".into()));
    let told = found.origins.iter().find(|one| one.key == "data.subset").unwrap();
    assert_eq!((told.value.as_str(), told.origin.as_str()), (Origin::UNSET, "run/config.toml"));
    // Arguments win over the run's config.
    let found = resolve_over(Some(file), &overrides(&["dataset=stl10", "profile=quick"])).unwrap().config;
    assert_eq!(
        (found.data.name.as_str(), found.data.subset, found.method.name()),
        ("stl10", Some(10_000), "nce")
    );
}

#[test]
fn paths_are_paths_whatever_they_look_like() {
    for text in [
        "/x, y",
        "20240105",
        "2024-01-05",
        "true",
        "1e5",
        "a=b",
        "#x",
        "it's",
        "[a]",
        "{b}",
        "a\nb",
        "-x",
        "nan",
    ] {
        let one =
            config(&["dataset=folder", &format!("data.root={text}"), &format!("data.folder.path={text}")]);
        assert_eq!((one.data.root, one.data.folder.path), (Some(text.into()), Some(text.into())));
        let flags = [Override::path("--runs", "runs.root", Path::new(text)).unwrap()];
        assert_eq!(resolve(&flags).unwrap().config.runs.root, Path::new(text));
    }
    let home = std::env::home_dir().unwrap();
    let one = config(&["dataset=folder", "runs.root=~/x", "data.cache=~", "data.folder.path=./~"]);
    assert_eq!((one.runs.root, one.data.cache), (home.join("x"), Some(home.clone())));
    assert_eq!(one.data.folder.path, Some("./~".into()));
    let told = error(&["data.root=~you/x"]);
    assert!(told.contains("data.root") && told.contains("found ~you") && told.contains("./~you"), "{told}");
    let file = GroupFile { origin: "mine.toml".into(), text: "runs.root = \"~/y\"".into() };
    assert_eq!(resolve_over(Some(file), &[]).unwrap().config.runs.root, home.join("y"));
}

#[test]
fn numbers_and_switches_are_read_as_people_write_them() {
    let one = config(&[
        "optim.lr=.01",
        "optim.epochs=2e2",
        "data.subset=1_000",
        "augment.without=[flip,grayscale]",
        "augment.none=Yes",
        "model.winograd=off",
        "method.negative_weight=1.",
        "method.temperature=+0.1",
        "protocol.milestones=[.5,1]",
        "seed=9223372036854775807",
    ]);
    assert_eq!((one.optim.lr, one.optim.epochs, one.data.subset), (0.01, 200, Some(1000)));
    assert_eq!(one.augment.without, ["flip", "grayscale"]);
    let method = one.method.settings();
    assert_eq!((one.augment.none, one.model.winograd), (true, false));
    assert_eq!(["negative_weight", "temperature"].map(|key| method[key].as_float()), [Some(1.0), Some(0.1)]);
    assert_eq!((one.protocol.milestones, one.seed), ([0.5, 1.0], i64::MAX as u64));
    let told = error(&["seed=9223372036854775808"]);
    assert!(told.contains("a whole number from 0 to 9223372036854775807"), "{told}");
    for argument in [
        "optim.lr=nan",
        "optim.lr=inf",
        "optim.lr=1e999",
        "model.width=10k",
        "optim.epochs=1.5",
        "augment.none=2",
    ] {
        let told = error(&[argument]);
        assert!(told.contains(argument) && told.contains("expected"), "{told}");
    }
    let file =
        |text: &str| resolve_over(Some(GroupFile { origin: "mine.toml".into(), text: text.into() }), &[]);
    assert_eq!(file("optim.epochs = 1e3\noptim.lr = 1").unwrap().config.optim.epochs, 1000);
    let told = file("optim.lr = nan").unwrap_err().to_string();
    assert!(told.contains("optim.lr") && told.contains("mine.toml") && told.contains("NaN"), "{told}");
    assert!(error(&["groups.method=nce"]).contains("did you mean `method`"));
    assert!(error(&["profile.reduced=false"]).contains("profile.reduced"));
}

#[test]
fn names_of_transforms_and_numbers_of_recall_are_checked_one_by_one() {
    let told = error(&["augment.without=[flip,nope]"]);
    let expected = "`augment.without` in argument augment.without=[flip,nope]: found \"nope\", expected names of \
                    transforms: resized_crop, crop, color_jitter, grayscale, blur, solarize, flip";
    assert_eq!(told, expected);
    assert!(error(&["augment.size=0"]).contains("`augment.size` in argument augment.size=0: found 0"));
    let told = error(&["eval.retrieval.recall_at=[1,2,1]"]);
    assert!(told.contains("found [1, 2, 1], expected each number once"), "{told}");
}

#[test]
fn keys_of_a_launcher_need_it() {
    let told = error(&["slurm.time=1-0"]);
    assert!(told.contains("`slurm.time`") && told.contains("launcher=slurm beside it"), "{told}");
    // A file may hold them for later.
    let file = |text: &str| GroupFile { origin: "mine.toml".into(), text: text.into() };
    let found = resolve_over(Some(file("[slurm]\npartition = \"gpu\"")), &[]).unwrap().config;
    assert_eq!(found.slurm.partition.as_deref(), Some("gpu"));
    let told = error(&["launcher=slurm"]);
    assert!(told.contains("`device`") && told.contains("found auto, expected cpu or cuda"), "{told}");
    let told = error(&["launcher=slurm", "device=cpu", "slurm.memory=16GB"]);
    assert!(told.contains("`slurm.memory` in argument slurm.memory=16GB: found 16GB"), "{told}");
    let told = error(&["local.processes=2"]);
    assert!(told.contains("`local.processes`") && told.contains("launcher=local beside it"), "{told}");
    let told = error(&["launcher=local", "local.threads=0"]);
    assert!(told.contains("found 0, expected a whole number from 1 to 1024"), "{told}");
    let told = error(&["launcher=ssh"]);
    assert!(told.contains("launcher") && told.contains("slurm"), "{told}");
    let found = config(&[
        "launcher=slurm",
        "device=cpu",
        "slurm.options=[--exclude=node7,--exclusive]",
        "slurm.requeue=no",
    ]);
    assert_eq!(
        (found.slurm.options, found.slurm.requeue),
        (vec!["--exclude=node7".into(), "--exclusive".into()], false)
    );
}
