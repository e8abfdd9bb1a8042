//! Configs as they resolve, what errors say, and what a suite plans. Run from the crate's folder, where no `experiments/` wins over
//! the built-in files.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::schema::{Kind, OUTSIDE_IDENTITY, PATHS, leaves, schema};
use super::sweep::{Asked, Planner};
use super::{
    Config, ConfigError, GROUPS, GroupFile, MethodName, Origin, Override, Suite, available, plan_runs,
    resolve, resolve_over,
};
use crate::launch::{Labels, Planned};
use crate::memory::Memory;
use crate::methods::MethodRecipe;
use invaspread_tensor::DeviceKind;

fn overrides(arguments: &[&str]) -> Vec<Override> {
    arguments.iter().map(|argument| Override::parse(argument).unwrap()).collect()
}

fn config(arguments: &[&str]) -> Config {
    resolve(&overrides(arguments)).unwrap().config
}

fn error(arguments: &[&str]) -> String {
    resolve(&overrides(arguments)).unwrap_err().to_string()
}

fn hash(arguments: &[&str]) -> String {
    config(arguments).hash().unwrap()
}

#[test]
fn the_papers_recipe() {
    insta::assert_snapshot!("paper", config(&["dataset=cifar10"]).to_toml().unwrap());
}

/// Profiles are tuned now and then: what they must do is shrink the run and say so, whatever their numbers.
#[test]
fn reduced_profiles_shrink_the_run_and_say_so() {
    let full = config(&["dataset=synthetic", "method=nce"]);
    assert!(!full.profile.reduced);
    for profile in available("profile").iter().filter(|name| *name != "paper") {
        let small = config(&["dataset=synthetic", "method=nce", &format!("profile={profile}")]);
        assert!(small.profile.reduced, "{profile}");
        assert!(small.model.width < full.model.width && small.optim.epochs < full.optim.epochs, "{profile}");
        // A profile makes the run smaller, never another method.
        assert_eq!((small.method.name, small.optim.lr), (full.method.name, full.optim.lr), "{profile}");
        // What is typed wins over the profile, wherever it stands.
        let typed = config(&["model.width=48", &format!("profile={profile}")]);
        assert_eq!(typed.model.width, 48, "{profile}");
    }
}

#[test]
fn where_values_came_from() {
    let resolved =
        resolve(&overrides(&["method=nce", "profile=quick", "optim.lr=0.01", "data.root=/d"])).unwrap();
    let of = |key: &str| {
        let found = resolved.origins.iter().find(|one| one.key == key).unwrap();
        (found.value.as_str(), found.origin.as_str())
    };
    assert_eq!(of("optim.lr"), ("0.01", "argument optim.lr=0.01"));
    assert_eq!(of("data.root"), ("\"/d\"", "argument data.root=/d"));
    assert_eq!(of("groups.method"), ("\"nce\"", "argument method=nce"));
    assert_eq!(of("groups.model"), ("\"resnet18\"", "experiments/config.toml (built in)"));
    assert_eq!(of("method.name"), ("\"nce\"", "experiments/method/nce.toml (built in)"));
    assert_eq!(of("model.width").1, "experiments/profile/quick.toml (built in)");
    assert_eq!(of("protocol.schedule"), ("\"code\"", "experiments/protocol/code.toml (built in)"));
}

#[test]
fn errors_name_key_origin_found_and_expected() {
    let cases: [&[&str]; 13] = [
        &["optim.learning_rate=1"],
        &["optm.lr=1"],
        &["nonsense.of.mine=1"],
        &["lr=1"],
        &["model.width=wide"],
        &["model.width=-4"],
        &["model.width=1.5"],
        &["optim.lr=fast"],
        &["augment.none=maybe"],
        &["protocol.schedule=cosine"],
        &["loss.temperature=0.001"],
        &["method=ncee"],
        &["dataset=../../etc/passwd"],
    ];
    let told: Vec<String> =
        cases.iter().map(|case| format!("{}\n  {}", case.join(" "), error(case))).collect();
    insta::assert_snapshot!("errors", told.join("\n"));
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_says_why() {
    use invaspread_tensor::DeviceKind;
    if let Some(why) = DeviceKind::Cuda.why_not() {
        let told = error(&["device=cuda"]);
        assert!(
            told.contains("argument device=cuda") && told.contains("auto or cpu") && told.contains(&why),
            "{told}"
        );
        let told = error(&["precision=bf16"]);
        assert!(
            told.contains("precision") && told.contains("bf16") && told.contains("device=cuda"),
            "{told}"
        );
        assert_eq!(config(&["device=auto"]).device.resolve(), DeviceKind::Cpu);
    } else {
        assert_eq!(config(&["device=cuda", "precision=bf16"]).device.resolve(), DeviceKind::Cuda);
        assert_ne!(hash(&["device=cpu"]), hash(&["device=cuda"]));
    }
}

#[test]
fn every_file_of_every_group_resolves_and_says_where_it_is_from() {
    for group in GROUPS {
        let names = available(group);
        assert!(!names.is_empty(), "{group}");
        for name in names {
            // Networks that want weights from elsewhere say so; see below.
            let chosen = format!("{group}={name}");
            let found = resolve(&overrides(&[&chosen, "model.pretrained=false"])).unwrap();
            let key = format!("groups.{group}");
            let label = found.origins.iter().find(|one| one.key == key).unwrap();
            assert_eq!(label.value, format!("\"{name}\""));
        }
    }
}

#[test]
fn weights_to_begin_with_are_named_by_what_they_hold() {
    let asked = error(&["model=inception_v1"]);
    assert!(asked.contains("model.weights=FILE") && asked.contains("inception_v1.toml"), "{asked}");
    let gone = error(&["model=inception_v1", "model.weights=/no/such.caffemodel"]);
    assert!(gone.contains("/no/such.caffemodel") && gone.contains("argument model.weights="), "{gone}");

    let folder = tempfile::tempdir().unwrap();
    let hash_of = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        hash(&["model=inception_v1", &format!("model.weights={}", path.display())])
    };
    let [a, elsewhere, b] =
        [("a.pth", "one"), ("b.pth", "one"), ("a.pth", "two")].map(|(n, c)| hash_of(n, c));
    assert_eq!(a, elsewhere, "where a file lies changes no run");
    assert_ne!(a, b, "what it holds does");
    // What a run keeps of it reads back, though the file may be gone.
    let path = folder.path().join("a.pth");
    let text =
        config(&["model=inception_v1", &format!("model.weights={}", path.display())]).identity().unwrap();
    assert!(text.contains("blake3:"), "{text}");
}

/// The files are listed by hand where they are embedded: a forgotten one would be missing from installed binaries alone.
#[test]
fn every_file_under_experiments_is_built_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    for group in GROUPS.iter().chain(&["suite"]) {
        let entries = std::fs::read_dir(root.join(group)).unwrap().map(|entry| entry.unwrap().file_name());
        let files: BTreeSet<String> =
            entries.filter_map(|name| Some(name.to_str()?.strip_suffix(".toml")?.to_owned())).collect();
        assert_eq!(files, available(group).into_iter().collect(), "{group}");
    }
}

#[test]
fn a_config_written_out_reads_back_as_itself() {
    for method in available("method") {
        let one =
            config(&[&format!("method={method}"), "profile=quick", "data.root=/a b/c", "augment.squash=40"]);
        let again: Config = toml::from_str(&one.to_toml().unwrap()).unwrap();
        assert_eq!(again, one);
    }
}

#[test]
fn the_hash_is_of_what_can_change_a_result() {
    let base = hash(&["dataset=cifar10"]);
    assert!(base.len() == 12 && base.bytes().all(|b| b.is_ascii_hexdigit()), "{base}");
    // `auto` is what it comes to here.
    let best = format!("device={}", invaspread_tensor::DeviceKind::best().0.name());
    let same =
        ["seed=7", &best, "data.root=/elsewhere", "data.cache=/there", "runs.root=/else", "optim.lr=3e-2"];
    for same in same {
        assert_eq!(hash(&["dataset=cifar10", same]), base, "{same}");
    }
    let others = [
        "optim.lr=0.031",
        "optim.epochs=199",
        "optim.batch_size=64",
        "model.width=32",
        "loss.temperature=0.07",
        "method=nce",
        "data.subset=100",
        "data.seed=1",
        "protocol=paper",
        "protocol.initialiser=current",
        "augment.without=[\"flip\"]",
        "eval.k=100",
    ];
    let hashes: BTreeSet<String> = others.iter().map(|other| hash(&["dataset=cifar10", other])).collect();
    assert!(hashes.len() == others.len() && !hashes.contains(&base), "{hashes:?}");
}

#[test]
fn the_schedules_keep_their_shape_in_a_short_run() {
    let rates = |schedule: &str, epochs: &str| -> Vec<f64> {
        let settings =
            [format!("protocol.schedule={schedule}"), format!("optim.epochs={epochs}"), "optim.lr=1".into()];
        let recipe = config(&settings.each_ref().map(String::as_str)).recipe();
        (1..=recipe.epochs).map(|epoch| recipe.schedule.at(epoch)).collect()
    };
    let want = |second: f64| [vec![1.0; 6], vec![0.1; 2], vec![second; 2]].concat();
    let near =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(near(&rates("code", "10"), &want(0.05)));
    assert!(near(&rates("code-2019-04", "10"), &want(0.1)));
    assert!(near(&rates("paper", "10"), &want(0.01)));
    assert!(near(&rates("constant", "10"), &[1.0; 10]));
    // The paper's own epochs: 120 and 160 of 200.
    let full = rates("paper", "200");
    let first = |rate: f64| full.iter().position(|found| (found - rate).abs() < 1e-12);
    assert_eq!((first(0.1), first(0.01)), (Some(120), Some(160)));
}

#[test]
fn table1_is_nine_methods_each_under_its_own_name() {
    let suite = Suite::open("table1").unwrap();
    let plan = suite.plan(&overrides(&["profile=quick"])).unwrap();
    let named: Vec<(&str, MethodName, usize)> = plan
        .iter()
        .map(|(run, config)| (run.labels.row.as_str(), config.method.name, config.method.clusters))
        .collect();
    let clusters = 1000;
    assert_eq!(
        named,
        [
            ("random", MethodName::Random, clusters),
            ("deepcluster_10", MethodName::Deepcluster, 10),
            ("deepcluster_1000", MethodName::Deepcluster, 1000),
            ("exemplar", MethodName::Exemplar, clusters),
            ("npsoftmax", MethodName::Npsoftmax, clusters),
            ("nce", MethodName::Nce, clusters),
            ("triplet", MethodName::Triplet, clusters),
            ("triplet_hard", MethodName::TripletHard, clusters),
            ("invaspread", MethodName::Invaspread, clusters),
        ]
    );
    let ids: BTreeSet<String> = plan.iter().map(|(run, _)| run.id()).collect();
    assert_eq!(ids.len(), 9);
    assert!(plan.iter().all(|(run, _)| run.suite.as_deref() == Some("table1") && run.labels.reduced));
    assert!(matches!(plan[8].0.recipe.method, MethodRecipe::InvaSpread { .. }));
}

#[test]
fn an_argument_cannot_put_one_methods_numbers_under_anothers_name() {
    let suite = Suite::open("table1").unwrap();
    for argument in ["method=nce", "method.clusters=50"] {
        let error = suite.plan(&overrides(&[argument])).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ConfigError::Value { .. }), "{text}");
        assert!(
            text.contains(argument) && text.contains("table1") && text.contains("invaspread train"),
            "{text}"
        );
    }
    // What holds for all rows alike is no trouble.
    assert_eq!(suite.plan(&overrides(&["model.width=16", "dataset=synthetic"])).unwrap().len(), 9);
}

#[test]
fn figure3_shares_the_runs_of_table1() {
    let plan = |name: &str| Suite::open(name).unwrap().plan(&overrides(&["profile=quick"])).unwrap();
    let table: BTreeSet<String> = plan("table1").iter().map(|(run, _)| run.id()).collect();
    let figure = plan("figure3");
    assert_eq!(figure.len(), 4);
    for (run, _) in &figure {
        assert!(table.contains(&run.id()) && run.suite.as_deref() == Some("table1"), "{}", run.labels.row);
    }
}

#[test]
fn a_seed_replaces_the_suites_own() {
    let plan = Suite::open("demo").unwrap().plan(&overrides(&["seed=5"])).unwrap();
    assert_eq!(plan.iter().map(|(run, _)| run.recipe.seed).collect::<Vec<_>>(), [5; 3]);
}

#[test]
fn an_unknown_suite_is_answered_with_the_known_ones() {
    let text = Suite::open("tabel1").unwrap_err().to_string();
    assert!(
        text.contains("demo, figure3, figure4, figure5") && text.contains("did you mean `table1`"),
        "{text}"
    );
}

/// Hashes name the folders of runs that are there: those of committed records, and the paper's whole recipe.
#[test]
fn hashes_are_what_they_were() {
    for (arguments, known) in [
        (&["method=random", "profile=quick"][..], "0ac4613a25a9"),
        (&["method=invaspread", "augment.without=['resized_crop']", "profile=quick"], "0c4c095ddb10"),
        (&["profile=paper"], "08cf1f988ee1"),
    ] {
        assert_eq!(hash(&[&["dataset=cifar10", "device=cpu"], arguments].concat()), known, "{arguments:?}");
    }
}

#[test]
fn the_lists_of_keys_are_what_the_types_say() {
    // A path is what the config's own types say is one when it is given something else.
    for (key, kind) in schema().keys().filter(|(_, kind)| matches!(kind, Kind::Word | Kind::Path)) {
        let file = GroupFile { origin: "a file".into(), text: format!("{key} = 1") };
        let told = resolve_over(Some(file), &[]).unwrap_err().to_string();
        assert_eq!(told.contains("expected a path"), *kind == Kind::Path, "{told}");
    }
    assert!(PATHS.iter().all(|key| schema().kind(key) == Some(&Kind::Path)));
    let optional: Vec<&str> = schema().optional().collect();
    assert_eq!(
        optional,
        [
            "augment.crop",
            "augment.squash",
            "data.cache",
            "data.folder.path",
            "data.partial",
            "data.retrieval",
            "data.root",
            "data.skip_broken",
            "data.stl10",
            "data.subset",
            "data.test_subset",
            "eval.layer",
            "eval.linear",
            "eval.retrieval",
            "method.positives",
            "model.architecture",
            "model.pretrained",
            "model.stem",
            "model.weights",
        ]
    );
    assert!(schema().keys().all(|(_, kind)| *kind != Kind::List(Box::new(Kind::Table))));

    // What is hashed holds every key but those outside, the seed and the groups' labels.
    let mut every = config(&["dataset=cifar10"]).with_every_key();
    every.model.weights = Some(PathBuf::from("blake3:0"));
    let hashed: toml::Table = every.identity().unwrap().parse().unwrap();
    let hashed: BTreeSet<String> = leaves(&hashed).into_iter().collect();
    let left_out: BTreeSet<&str> = schema()
        .keys()
        .filter(|(key, kind)| **kind != Kind::Table && !hashed.contains(*key))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(left_out, OUTSIDE_IDENTITY.into_iter().chain(["seed"]).collect());
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
    // A folder of that name is in quotes.
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

/// What a run's config does not say was not so: no file or profile of another moment may fill it in.
#[test]
fn a_runs_own_config_is_whole() {
    let run = config(&["dataset=cifar10", "method=nce"]);
    let file = GroupFile { origin: "run/config.toml".into(), text: run.identity().unwrap() };
    let found = resolve_over(Some(file.clone()), &overrides(&["data.root=/d"])).unwrap();
    assert_eq!(found.config.identity().unwrap(), run.identity().unwrap());
    assert_eq!(found.config.data.root, Some("/d".into()));
    let told = found.origins.iter().find(|one| one.key == "data.subset").unwrap();
    assert_eq!((told.value.as_str(), told.origin.as_str()), (Origin::UNSET, "run/config.toml"));
    // What is asked for wins over it.
    let found = resolve_over(Some(file), &overrides(&["dataset=stl10", "profile=quick"])).unwrap().config;
    assert_eq!(
        (found.data.name.as_str(), found.data.subset, found.method.name),
        ("stl10", Some(10_000), MethodName::Nce)
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
        let one = config(&[&format!("data.root={text}"), &format!("data.folder.path={text}")]);
        assert_eq!((one.data.root, one.data.folder.path), (Some(text.into()), Some(text.into())));
        let flags = [Override::path("--runs", "runs.root", Path::new(text)).unwrap()];
        assert_eq!(resolve(&flags).unwrap().config.runs.root, Path::new(text));
    }
    let home = std::env::home_dir().unwrap();
    let one = config(&["runs.root=~/x", "data.cache=~", "data.folder.path=./~"]);
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
        "loss.margin=1.",
        "loss.temperature=+0.1",
        "protocol.milestones=[.5,1]",
        "seed=9223372036854775807",
    ]);
    assert_eq!((one.optim.lr, one.optim.epochs, one.data.subset), (0.01, 200, Some(1000)));
    assert_eq!(one.augment.without, ["flip", "grayscale"]);
    assert_eq!(
        (one.augment.none, one.model.winograd, one.loss.margin, one.loss.temperature),
        (true, false, 1.0, 0.1)
    );
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

/// As much memory as anything takes.
fn plenty(_: DeviceKind) -> Option<Memory> {
    Some(Memory { bytes: u64::MAX, of: "a large machine" })
}

fn labels(arguments: &[&str]) -> Labels {
    let mut sweep = plan_runs(&overrides(arguments), false, &plenty).unwrap();
    assert_eq!(sweep.planned.len(), 1);
    sweep.planned.remove(0).labels
}

#[test]
fn a_record_says_what_ran() {
    let told = labels(&["method.name=nce", "model.depth=34", "data.name=folder", "data.folder.path=/p"]);
    assert_eq!(
        (told.row.as_str(), told.method.as_str(), told.model.as_str(), told.dataset.as_str()),
        ("nce", "nce", "resnet34", "folder")
    );
    assert_eq!((told.profile.as_str(), told.protocol.as_str(), told.reduced), ("paper", "code", false));
    assert_eq!(
        told.arguments,
        ["method.name=nce", "model.depth=34", "data.name=folder", "data.folder.path=/p"]
    );

    let told = labels(&["optim.epochs=3", "model.width=64", "protocol.schedule=paper"]);
    assert_eq!(told.profile, "paper with optim.epochs=3", "a value as it was is no change");
    assert_eq!((told.protocol.as_str(), told.reduced), ("code with protocol.schedule=\"paper\"", true));
    let told =
        labels(&["profile=quick", "data.subset=null", "eval.k=9", "optim.epochs=11", "model.width=17"]);
    assert_eq!(told.profile, "quick with data.subset=null, eval.k=9, model.width=17 and 1 more");
    assert!(!labels(&["optim.epochs=300", "optim.lr=0.1"]).reduced);

    // Every built-in network and method is called as its file is.
    for model in available("model") {
        assert_eq!(labels(&[&format!("model={model}"), "model.pretrained=false"]).model, model);
    }
    for method in available("method") {
        let told = labels(&[&format!("method={method}")]);
        assert_eq!((&told.row, &told.method), (&method, &method));
    }
    for dataset in available("dataset") {
        assert_eq!(labels(&[&format!("dataset={dataset}")]).dataset, dataset);
    }
}

#[test]
fn rows_of_suites_are_called_as_ever() {
    for (suite, profile) in
        [("table1", "quick"), ("protocol", "quick"), ("figure4", "paper"), ("pooling", "quick")]
    {
        let typed = [format!("profile={profile}"), "model=resnet18".into()];
        let typed = if suite == "figure4" { &typed[..] } else { &typed[..1] };
        let plan = Suite::open(suite)
            .unwrap()
            .plan(&overrides(&typed.iter().map(String::as_str).collect::<Vec<_>>()))
            .unwrap();
        for (Planned { labels, .. }, _) in plan {
            assert_eq!(
                (labels.profile.as_str(), labels.protocol.as_str()),
                (profile, "code"),
                "{suite}: {}",
                labels.row
            );
            assert_eq!(labels.reduced, profile == "quick", "{suite}: {}", labels.row);
        }
    }
    let plan = Suite::open("table1").unwrap().plan(&overrides(&["profile=paper", "optim.epochs=3"])).unwrap();
    assert!(
        plan.iter().all(|(run, _)| run.labels.profile == "paper with optim.epochs=3" && run.labels.reduced)
    );
}

#[test]
fn runs_of_a_sweep_are_told_apart_and_planned_once() {
    let titles = |arguments: &[&str]| {
        let sweep = plan_runs(&overrides(arguments), true, &plenty).unwrap();
        (sweep.planned.iter().map(Planned::title).collect::<Vec<_>>(), sweep.repeated)
    };
    let (told, repeated) = titles(&["method=nce,invaspread", "loss.temperature=0.1,0.2"]);
    assert_eq!(
        told,
        [
            "nce loss.temperature=0.1 (seed 0)",
            "nce loss.temperature=0.2 (seed 0)",
            "invaspread loss.temperature=0.1 (seed 0)",
            "invaspread loss.temperature=0.2 (seed 0)"
        ]
    );
    assert!(repeated.is_empty());
    for (arguments, runs) in
        [(&["seed=0,1,0"][..], 2), (&["optim.lr=0.1,.1,1e-1"], 1), (&["seed=0,0", "optim.lr=0.1,0.2"], 2)]
    {
        let (told, repeated) = titles(arguments);
        assert_eq!(told.len(), runs, "{told:?}");
        assert!(!repeated.is_empty() && repeated.iter().all(|line| line.contains("once")), "{repeated:?}");
    }
    let sweep = Suite::open("table1").unwrap().plan_all(&overrides(&["seed=3,3"]), &plenty).unwrap();
    assert_eq!((sweep.planned.len(), sweep.repeated.len()), (9, 9));
    assert!(matches!(
        plan_runs(&overrides(&["runs.root=a,b"]), true, &plenty),
        Err(ConfigError::NoAxis { .. })
    ));
}

/// The seed is no part of a config: twenty thousand of them are one config, resolved once.
#[test]
fn seeds_are_resolved_once() {
    let mut planner = Planner::new(None);
    let mut ids = BTreeSet::new();
    for seed in 0..20_000 {
        let typed = overrides(&["method=nce", &format!("seed={seed}")]);
        let asked = Asked { suite: None, row: None, own: &[], typed: &typed, varied: &[] };
        ids.insert(planner.plan(&asked).unwrap().0.id());
    }
    assert_eq!((planner.resolved(), ids.len()), (1, 20_000));
}

#[test]
fn what_no_memory_holds_is_refused_by_its_keys() {
    let room = |_| Some(Memory { bytes: 64 << 30, of: "this machine" });
    for (arguments, key) in [
        (&["model.width=100000"][..], "model.width"),
        (&["model.width=1e12"], "model.width"),
        (&["model.embedding=1e9"], "model.embedding"),
        (&["method=nce", "loss.noise=1e12"], "loss.noise"),
        (&["method=deepcluster", "method.clusters=1e9"], "method.clusters"),
        (&["optim.batch_size=1e9"], "optim.batch_size"),
        (&["data.synthetic.train=1e12"], "data.synthetic.train"),
        (&["data.synthetic.image_size=1e9"], "data.synthetic.image_size"),
        (&["model=inception_v1", "model.pretrained=false", "model.embedding=1e12"], "model.embedding"),
    ] {
        let told = plan_runs(&overrides(arguments), false, &room).unwrap_err().to_string();
        assert!(told.contains(&format!("{key}=")) && told.contains("64.0 GiB of this machine"), "{told}");
    }
    for (arguments, key) in [
        (&["optim.epochs=1e18"][..], "optim.epochs"),
        (&["optim.epochs=9e15"], "optim.epochs"),
        (&["eval.retrieval.kmeans_restarts=1e18"], "eval.retrieval.kmeans_restarts"),
        (&["method.kmeans_iterations=1e18"], "method.kmeans_iterations"),
    ] {
        let told = error(arguments);
        assert!(told.contains(key) && told.contains("9007199254740992"), "{told}");
    }
    // What runs is refused nowhere: the paper's recipes fit into far less than a GPU has.
    for suite in Suite::names() {
        let typed = overrides(&["profile=paper", "model.pretrained=false", "device=cpu"]);
        let room = |_| Some(Memory { bytes: 40 << 30, of: "a GPU" });
        if let Err(error) = Suite::open(&suite).unwrap().plan_all(&typed, &room) {
            assert!(!matches!(error, ConfigError::Memory(_)), "{suite}: {error}");
        }
    }
}

/// Every number of every key: a plan or an error, at once.
#[test]
fn no_number_of_any_key_panics() {
    let numbers = [
        "0",
        "1",
        "2147483648",
        "4294967296",
        "9007199254740992",
        "9223372036854775807",
        "1e18",
        "-1",
        "1e308",
    ];
    let room = |_| Some(Memory { bytes: 16 << 30, of: "this machine" });
    for (key, kind) in schema().keys() {
        let list = match kind {
            Kind::Whole | Kind::Number => false,
            Kind::List(of) if matches!(**of, Kind::Whole | Kind::Number) => true,
            _ => continue,
        };
        for number in numbers {
            let value = if list { format!("[{number}]") } else { number.to_owned() };
            let methods = ["invaspread", "nce", "deepcluster"];
            let own = key.starts_with("loss") || key.starts_with("method") || key.starts_with("model");
            for method in if own { &methods[..] } else { &methods[..1] } {
                let typed = overrides(&[&format!("method={method}"), &format!("{key}={value}")]);
                if let Err(error) = plan_runs(&typed, false, &room) {
                    let section = key.split('.').next().unwrap();
                    assert!(error.to_string().contains(section), "{key}={value}: {error}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is typed is what runs, and the written config says the same.
    #[test]
    fn typed_values_arrive(lr in 1e-6..10.0f64, width in 1usize..512, seed in 0u64..=i64::MAX as u64, temperature in 0.01..5.0f64) {
        let settings = [format!("optim.lr={lr:?}"), format!("model.width={width}"), format!("seed={seed}"),
            format!("loss.temperature={temperature:?}")];
        let one = config(&settings.each_ref().map(String::as_str));
        prop_assert_eq!((one.optim.lr.to_bits(), one.model.width, one.seed), (lr.to_bits(), width, seed));
        prop_assert_eq!(one.loss.temperature.to_bits(), temperature.to_bits());
        let again: Config = toml::from_str(&one.to_toml().unwrap()).unwrap();
        prop_assert_eq!(again, one);
    }

    /// Whatever is typed is a config or an error that names the key.
    #[test]
    fn no_key_panics(key in "[a-z]{1,8}(\\.[a-z_]{1,10}){0,2}", value in "[ -~]{1,12}") {
        if let Ok(one) = Override::parse(&format!("{key}={value}"))
            && let Err(error) = resolve(std::slice::from_ref(&one)) {
            let name = key.split('.').next().unwrap_or_default();
            prop_assert!(error.to_string().contains(name), "{}", error);
        }
    }
}
