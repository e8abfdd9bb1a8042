//! From settings to runs: the names of runs in records, each run is planned once, and a run that the machine
//! cannot hold is refused.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use invaspread_tensor::DeviceKind;

use super::{error, overrides};
use crate::config::labels::Asked;
use crate::config::schema::Schema;
use crate::config::sweep::Planner;
use crate::config::{ConfigError, Suite, available, plan_runs};
use crate::launch::{Labels, Planned};
use crate::memory::Memory;
use crate::methods::Registry;
use crate::settings::Kind;

/// Returns enough memory for any run.
#[allow(clippy::unnecessary_wraps, reason = "the form of `Room`")]
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
    assert_eq!(told.profile, "paper with optim.epochs=3", "an unchanged value is not named");
    assert_eq!((told.protocol.as_str(), told.reduced), ("code with protocol.schedule=\"paper\"", true));
    let told =
        labels(&["profile=quick", "data.subset=null", "eval.k=9", "optim.epochs=11", "model.width=17"]);
    assert_eq!(told.profile, "quick with data.subset=null, eval.k=9, model.width=17 and 1 more");
    assert!(!labels(&["optim.epochs=300", "optim.lr=0.1"]).reduced);

    // Every built-in network and method has the name of its file.
    for model in available("model") {
        assert_eq!(labels(&[&format!("model={model}"), "model.pretrained=false"]).model, model);
    }
    for method in available("method") {
        let told = labels(&[&format!("method={method}")]);
        assert_eq!((&told.row, &told.method), (&method, &method));
        let entry = Registry::installed().entry(&method).unwrap();
        assert_eq!(told.label.as_deref(), Some(entry.default_method().label()));
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
    let (told, repeated) = titles(&["method=nce,invaspread", "method.temperature=0.1,0.2"]);
    assert_eq!(
        told,
        [
            "nce method.temperature=0.1 (seed 0)",
            "nce method.temperature=0.2 (seed 0)",
            "invaspread method.temperature=0.1 (seed 0)",
            "invaspread method.temperature=0.2 (seed 0)"
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

/// The seed is not part of a config: twenty thousand seeds share one config, which is resolved once.
#[test]
fn seeds_are_resolved_once() {
    let mut planner = Planner::new(None);
    let mut ids = BTreeSet::new();
    for seed in 0..20_000 {
        let typed = overrides(&["method=nce", &format!("seed={seed}")]);
        let asked = Asked { suite: None, row: None, label: None, own: &[], typed: &typed, varied: &[] };
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
        (&["method=nce", "method.noise=1e12"], "method.noise"),
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
        (&["eval.retrieval.kmeans_iterations=1e18"], "eval.retrieval.kmeans_iterations"),
        (&["method=deepcluster", "method.kmeans_iterations=1e18"], "method.kmeans_iterations"),
    ] {
        let told = error(arguments);
        assert!(told.contains(key) && told.contains("9007199254740992"), "{told}");
    }
    // A run that fits is never refused: the paper's recipes need far less memory than a GPU has.
    for suite in Suite::names() {
        let typed = overrides(&["profile=paper", "model.pretrained=false", "device=cpu"]);
        let room = |_| Some(Memory { bytes: 40 << 30, of: "a GPU" });
        if let Err(error) = Suite::open(&suite).unwrap().plan_all(&typed, &room) {
            assert!(!matches!(error, ConfigError::Memory(_)), "{suite}: {error}");
        }
    }
}

/// Every number for every key gives a plan or an error, at once.
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
    let mut schemas = Registry::installed().entries().iter().map(|entry| (entry.name(), Schema::of(entry)));
    let first = schemas.next().unwrap();
    let own = |key: &str| key.starts_with("method") || key.starts_with("model");
    let of_others = schemas.map(|(name, schema)| {
        (name, schema.keys().into_iter().filter(|(key, _)| own(key)).collect::<Vec<_>>())
    });
    let all = std::iter::once((first.0, first.1.keys())).chain(of_others);
    for (method, keys) in all {
        for (key, kind) in keys {
            let list = match kind {
                Kind::Whole | Kind::Number => false,
                Kind::List(of) if matches!(*of, Kind::Whole | Kind::Number) => true,
                _ => continue,
            };
            for number in numbers {
                let value = if list { format!("[{number}]") } else { number.to_owned() };
                let typed = overrides(&[&format!("method={method}"), &format!("{key}={value}")]);
                if let Err(error) = plan_runs(&typed, false, &room) {
                    let section = key.split('.').next().unwrap();
                    assert!(error.to_string().contains(section), "{key}={value}: {error}");
                }
            }
        }
    }
}
