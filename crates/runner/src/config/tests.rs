//! Tests of resolved configs, of the texts of errors, and of what a suite plans. They run in the crate's
//! folder, where no `experiments/` wins over the built-in files.

#![allow(clippy::unwrap_used, reason = "tests")]

mod methods;
mod networks;
mod planning;
mod settings;

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::{Config, ConfigError, GROUPS, Override, Suite, available, resolve};
use crate::methods::{Entry, Registry};

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

/// The numbers of profiles may change, but a profile must always make the run smaller and say so.
#[test]
fn reduced_profiles_shrink_the_run_and_say_so() {
    let full = config(&["dataset=synthetic", "method=nce"]);
    assert!(!full.profile.reduced);
    for profile in available("profile").iter().filter(|name| *name != "paper") {
        let small = config(&["dataset=synthetic", "method=nce", &format!("profile={profile}")]);
        assert!(small.profile.reduced, "{profile}");
        assert!(small.model.width < full.model.width && small.optim.epochs < full.optim.epochs, "{profile}");
        // A profile makes the run smaller and never changes the method.
        assert_eq!((small.method.name(), small.optim.lr), (full.method.name(), full.optim.lr), "{profile}");
        // A typed setting wins over the profile, in any order.
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
        &["protocol.schedule=linear"],
        &["method.temperature=0.001"],
        &["method=ncee"],
        &["dataset=../../etc/passwd"],
    ];
    let mut methods: Vec<&str> = Registry::installed().entries().iter().map(Entry::name).collect();
    methods.sort_unstable();
    // A new method changes no expectation.
    let error = |case: &[&str]| error(case).replace(&methods.join(", "), "[every method]");
    let told: Vec<String> =
        cases.iter().map(|case| format!("{}\n  {}", case.join(" "), error(case))).collect();
    insta::assert_snapshot!("errors", told.join("\n"));
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_says_why() {
    use invaspread_tensor::DeviceKind;
    if let Some(why) = DeviceKind::Cuda(0).why_not() {
        let told = error(&["device=cuda"]);
        assert!(
            told.contains("argument device=cuda") && told.contains("auto or cpu") && told.contains(&why),
            "{told}"
        );
        let told = error(&["precision=tf32"]);
        assert!(
            told.contains("precision") && told.contains("f32 or bf16") && told.contains("device=cuda"),
            "{told}"
        );
        assert_ne!(hash(&["precision=bf16"]), hash(&["precision=f32"]));
        assert_eq!(config(&["device=auto"]).device.resolve(), DeviceKind::Cpu);
    } else {
        assert_eq!(config(&["device=cuda", "precision=bf16"]).device.resolve(), DeviceKind::Cuda(0));
        assert_ne!(hash(&["device=cpu"]), hash(&["device=cuda"]));
        // Every GPU has its number, which does not change the name of a run.
        for index in 0..DeviceKind::gpus() {
            let named = format!("device=cuda:{index}");
            assert_eq!(config(&[&named]).device, DeviceKind::Cuda(index));
            assert_eq!(hash(&[&named]), hash(&["device=cuda"]));
        }
        let told = error(&[&format!("device=cuda:{}", DeviceKind::gpus())]);
        assert!(told.contains("`device`") && told.contains("one that is there"), "{told}");
    }
}

#[test]
fn every_file_of_every_group_resolves_and_says_where_it_is_from() {
    for group in GROUPS {
        let names = available(group);
        assert!(!names.is_empty(), "{group}");
        for name in names {
            // Networks that need pretrained weights are tested below.
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
    assert_eq!(a, elsewhere, "the place of a file changes no run");
    assert_ne!(a, b, "its content does");
    // A run's own config can be read even if the file no longer exists.
    let path = folder.path().join("a.pth");
    let text =
        config(&["model=inception_v1", &format!("model.weights={}", path.display())]).identity().unwrap();
    assert!(text.contains("blake3:"), "{text}");
}

/// A file that is not embedded would be missing only from installed binaries.
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
fn a_device_and_a_precision_that_nobody_has_name_what_there_is() {
    let told = error(&["device=gpu"]);
    assert!(told.contains("`device`") && told.contains("\"gpu\"") && told.contains("cuda:N"), "{told}");
    let told = error(&["precision=fp16"]);
    assert!(told.contains("`precision`") && told.contains("f32, tf32 or bf16"), "{told}");
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
    // `auto` is replaced by the device of this machine.
    let best = format!("device={}", invaspread_tensor::DeviceKind::best().0.name());
    let same = [
        "seed=7",
        &best,
        "data.root=/elsewhere",
        "data.cache=/there",
        "runs.root=/else",
        "optim.lr=3e-2",
        "runs.checkpoint_seconds=7",
        "runs.lease_seconds=7",
    ];
    for same in same {
        assert_eq!(hash(&["dataset=cifar10", same]), base, "{same}");
    }
    let on_cpu = ["dataset=cifar10", "device=cpu"];
    assert_eq!(hash(&["dataset=cifar10", "launcher=local", "local.processes=3"]), base);
    let on_slurm = ["launcher=slurm", "slurm.time=1-0", "slurm.gpus=1", "slurm.setup=[module load x]"];
    assert_eq!(hash(&[&on_cpu[..], &on_slurm[..]].concat()), hash(&on_cpu));
    let others = [
        "optim.lr=0.031",
        "optim.epochs=199",
        "optim.batch_size=64",
        "model.width=32",
        "method.temperature=0.07",
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
        (1..=recipe.epochs).map(|epoch| recipe.schedule.at(epoch, 0, 1)).collect()
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
    let named: Vec<(&str, &str, Option<i64>)> = plan
        .iter()
        .map(|(run, config)| {
            let clusters = config.method.settings().get("clusters").and_then(toml::Value::as_integer);
            (run.labels.row.as_str(), config.method.name(), clusters)
        })
        .collect();
    assert_eq!(
        named,
        [
            ("random", "random", None),
            ("deepcluster_10", "deepcluster", Some(10)),
            ("deepcluster_1000", "deepcluster", Some(1000)),
            ("exemplar", "exemplar", None),
            ("npsoftmax", "npsoftmax", None),
            ("nce", "nce", None),
            ("triplet", "triplet", None),
            ("triplet_hard", "triplet_hard", None),
            ("invaspread", "invaspread", None),
        ]
    );
    let ids: BTreeSet<String> = plan.iter().map(|(run, _)| run.id()).collect();
    assert_eq!(ids.len(), 9);
    assert!(plan.iter().all(|(run, _)| run.suite.as_deref() == Some("table1") && run.labels.reduced));
}

#[test]
fn an_argument_cannot_put_one_methods_numbers_under_anothers_name() {
    let suite = Suite::open("table1").unwrap();
    for argument in ["method=nce", "method.clusters=50", "methods.deepcluster.clusters=50"] {
        let error = suite.plan(&overrides(&[argument])).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ConfigError::Value { .. }), "{text}");
        assert!(
            text.contains(argument) && text.contains("table1") && text.contains("invaspread train"),
            "{text}"
        );
    }
    // A setting that applies to all rows is allowed.
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

/// Hashes name the folders of existing runs: those of committed records, and of the paper's whole recipe.
#[test]
fn hashes_are_what_they_were() {
    for (arguments, known) in [
        (&["method=random", "profile=quick"][..], "ad8f246a46b9"),
        (&["method=invaspread", "augment.without=['resized_crop']", "profile=quick"], "52e524dea5b2"),
        (&["profile=paper"], "a11ec3f650d3"),
    ] {
        assert_eq!(hash(&[&["dataset=cifar10", "device=cpu"], arguments].concat()), known, "{arguments:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A run uses the typed values, and the written config holds them too.
    #[test]
    fn typed_values_arrive(lr in 1e-6..10.0f64, width in 1usize..512, seed in 0u64..=i64::MAX as u64, temperature in 0.01..5.0f64) {
        let settings = [format!("optim.lr={lr:?}"), format!("model.width={width}"), format!("seed={seed}"),
            format!("method.temperature={temperature:?}")];
        let one = config(&settings.each_ref().map(String::as_str));
        prop_assert_eq!((one.optim.lr.to_bits(), one.model.width, one.seed), (lr.to_bits(), width, seed));
        prop_assert_eq!(one.method.settings()["temperature"].as_float(), Some(temperature));
        let again: Config = toml::from_str(&one.to_toml().unwrap()).unwrap();
        prop_assert_eq!(again, one);
    }

    /// Any typed text gives a config or an error that names the key.
    #[test]
    fn no_key_panics(key in "[a-z]{1,8}(\\.[a-z_]{1,10}){0,2}", value in "[ -~]{1,12}") {
        if let Ok(one) = Override::parse(&format!("{key}={value}"))
            && let Err(error) = resolve(std::slice::from_ref(&one)) {
            let name = key.split('.').next().unwrap_or_default();
            prop_assert!(error.to_string().contains(name), "{}", error);
        }
    }
}
