//! The keys of `[method]`: only those of the chosen method exist, wherever it is chosen, and errors say what
//! happened to all others.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use super::{config, error, hash, overrides};
use crate::config::identity::hash_of;
use crate::config::{ConfigError, GroupFile, available, plan_runs, resolve, resolve_over};
use crate::methods::{ChosenMethod, Registry};

fn keys(method: &ChosenMethod) -> Vec<String> {
    method.settings().into_iter().map(|(key, _)| key).collect()
}

fn names() -> Vec<&'static str> {
    Registry::installed().entries().iter().map(crate::methods::Entry::name).collect()
}

#[test]
fn the_chosen_method_has_its_own_keys_alone() {
    for entry in Registry::installed().entries() {
        // A key that may be left out, and by default is, has no value.
        let default = entry.default_method().settings();
        let with_value = entry.keys().iter().filter(|key| !key.optional || default.contains_key(key.name));
        let want: Vec<String> = with_value.map(|key| key.name.to_owned()).collect();
        // It makes no difference how the method is chosen, and which one was chosen before.
        for before in names() {
            let choice = [format!("method={before}"), format!("method.name={}", entry.name())];
            let one = config(&choice.each_ref().map(String::as_str));
            assert_eq!((one.method.name(), keys(&one.method)), (entry.name(), want.clone()), "{choice:?}");
            assert_eq!(
                &one.method,
                entry.default_method(),
                "experiments/method/{}.toml (left) and the defaults of `Settings` (right) must be equal, whatever the \
                 method was before ({before})",
                entry.name()
            );
            let run = config(&[&format!("method={before}")]).identity().unwrap();
            let file = GroupFile { origin: "run/config.toml".into(), text: run };
            let found = resolve_over(Some(file), &overrides(&[&format!("method={}", entry.name())])).unwrap();
            assert_eq!(
                (found.config.method.name(), keys(&found.config.method)),
                (entry.name(), want.clone())
            );
        }
        // Only its keys are written and hashed.
        let written: toml::Table =
            config(&[&format!("method={}", entry.name())]).identity().unwrap().parse().unwrap();
        assert_eq!(written["format"].as_integer(), Some(2));
        assert!(!written.contains_key("loss"));
        let mut written: Vec<&String> = written["method"].as_table().unwrap().keys().collect();
        written.retain(|key| *key != "name");
        assert_eq!(written, want.iter().collect::<Vec<_>>());
    }
}

/// Every method has a file, and every file a method.
#[test]
fn every_method_has_its_file() {
    let mut names = names();
    names.sort_unstable();
    assert_eq!(available("method"), names);
}

#[test]
fn an_unknown_key_is_answered_with_the_methods_own() {
    let told = error(&["method=nce", "method.nosie=64"]);
    assert!(
        told.contains("method.nosie=64")
            && told.contains("the chosen method nce has method.temperature, method.noise"),
        "{told}"
    );
    assert!(told.contains("did you mean `method.noise`?") && !told.contains("clusters"), "{told}");
    let told = error(&["method=nce", "method.clusters=5"]);
    assert!(told.contains("it is a key of deepcluster") && told.contains("method.memory_momentum"), "{told}");
    let told = error(&["method=random", "method.temperature=1"]);
    assert!(told.contains("the chosen method random has no keys"), "{told}");
    let told = error(&["method.name=ncee"]);
    assert!(told.contains("argument method.name=ncee") && told.contains("did you mean `nce`?"), "{told}");
    for (other, name) in [("simclr", "ntxent"), ("SimCLR", "ntxent"), ("moco", "moco_v2")] {
        for argument in [format!("method={other}"), format!("method.name={other}")] {
            let told = error(&[argument.as_str()]);
            assert!(told.contains(&format!("did you mean `{name}`?")), "{told}");
        }
    }
    let told = error(&["method=nce", "method.noise=null"]);
    assert!(told.contains("the key is required"), "{told}");
    let told = error(&["method.negatives=hardest"]);
    assert!(
        told.contains("`method.negatives` in argument method.negatives=hardest")
            && told.contains("one of all, hardest_half"),
        "{told}"
    );
    let told = error(&["method=nce", "method.noise=0"]);
    assert!(
        told.contains("`method.noise` in argument method.noise=0: found 0, expected at least 1"),
        "{told}"
    );
}

#[test]
fn keys_that_moved_say_where_they_went() {
    for (arguments, words) in [
        (
            &["loss.temperature=0.07"][..],
            &["argument loss.temperature=0.07", "this key is now method.temperature"][..],
        ),
        (&["method=nce", "loss.noise=64"], &["this key is now method.noise"]),
        (
            &["method=triplet", "loss.noise=64"],
            &["method.noise of nce", "the chosen method triplet has no such key"],
        ),
        (&["loss.tau=1"], &["[loss] is gone", "method.negative_weight"]),
        (&["loss={temperature=1}"], &["[loss] is gone"]),
    ] {
        let told = error(arguments);
        assert!(words.iter().all(|word| told.contains(word)), "{arguments:?}: {told}");
    }
    // The same holds for lists of a sweep.
    let told = plan_runs(&overrides(&["loss.temperature=0.05,0.1"]), true, &|_| None).unwrap_err();
    assert!(matches!(told, ConfigError::Moved { .. }), "{told}");
}

#[test]
fn settings_of_one_method_hold_where_it_is_chosen() {
    let typed = "methods.nce.noise=64";
    let noise = |arguments: &[&str]| {
        config(arguments).method.settings().get("noise").and_then(toml::Value::as_integer)
    };
    assert_eq!(noise(&["method=nce", typed]), Some(64));
    assert_eq!(noise(&["method=nce", typed, "method.noise=65"]), Some(65), "the last wins");
    assert_eq!(hash(&["method=exemplar", typed]), hash(&["method=exemplar"]));
    assert_eq!(noise(&["method=nce", "profile=smoke"]), Some(64), "a profile's");
    for (arguments, words) in [
        (&["methods.nce.clusters=5"][..], &["methods.nce.clusters=5", "it is a key of deepcluster"][..]),
        (&["methods.ncee.noise=5"], &["methods.ncee.noise", "did you mean `nce`?"]),
        (&["methods.nce.noise=many"], &["methods.nce.noise=many", "a whole number"]),
    ] {
        let told = error(arguments);
        assert!(words.iter().all(|word| told.contains(word)), "{arguments:?}: {told}");
    }
    let sweep =
        plan_runs(&overrides(&["method=nce,exemplar", "methods.nce.noise=64,65"]), true, &|_| None).unwrap();
    assert_eq!((sweep.planned.len(), sweep.repeated.len()), (3, 1));
}

#[test]
fn only_the_chosen_methods_settings_name_a_run() {
    assert_ne!(hash(&["method=nce"]), hash(&["method=nce", "method.noise=64"]));
    let origins = resolve(&overrides(&["method=nce"])).unwrap().origins;
    let of = |key: &str| origins.iter().find(|one| one.key == key);
    assert!(of("method.clusters").is_none() && of("method.negatives").is_none());
    assert_eq!(of("method.noise").unwrap().origin, "experiments/method/nce.toml (built in)");
    let origins = resolve(&overrides(&["method.name=nce"])).unwrap().origins;
    let noise = origins.iter().find(|one| one.key == "method.noise").unwrap();
    assert_eq!((noise.value.as_str(), noise.origin.as_str()), ("4096", "the default of the method nce"));
}

fn committed() -> Vec<PathBuf> {
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/runs");
    let folders = |path: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect()
    };
    folders(&runs).iter().flat_map(|suite| folders(suite)).map(|run| run.join("config.toml")).collect()
}

/// Every committed config of the first format resolves to the method and the settings that it holds.
#[test]
fn configs_of_the_first_format_are_read() {
    let mut read = 0;
    for path in committed() {
        let text = std::fs::read_to_string(&path).unwrap();
        let stored: toml::Table = text.parse().unwrap();
        if stored.contains_key("format") {
            continue;
        }
        read += 1;
        // The text whose hash names the run has not changed.
        let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert!(folder.starts_with(&hash_of(&text)), "{folder}");
        let file = GroupFile { origin: path.display().to_string(), text: text.clone() };
        let one = resolve_over(Some(file), &[]).unwrap().config;
        assert_eq!(Some(one.method.name()), stored["method"]["name"].as_str(), "{}", path.display());
        for (key, value) in one.method.settings() {
            let before = stored["method"].get(&key).or_else(|| stored["loss"].get(&key));
            // The first format left out `positives` where the second view showed the image itself.
            assert_eq!(
                value,
                before.cloned().unwrap_or_else(|| "itself".into()),
                "{}: {key}",
                path.display()
            );
        }
        // Everything else is unchanged.
        let mut others: toml::Table = one.identity_of(one.data.manifest.clone()).unwrap().parse().unwrap();
        let mut before = stored.clone();
        for section in ["format", "method", "loss"] {
            others.remove(section);
            before.remove(section);
        }
        assert_eq!(others, before, "{}", path.display());
        let second = one.identity_of(one.data.manifest.clone()).unwrap();
        assert!(crate::config::is_same_in_first_format(&text, &second), "{}", path.display());
        let other = config(&["method.temperature=0.5"]).identity().unwrap();
        assert!(!crate::config::is_same_in_first_format(&text, &other));
    }
    assert!(read >= 60, "{read} committed configs of the first format");
}

#[test]
fn a_config_of_a_later_format_is_refused() {
    let text = config(&[]).identity().unwrap().replace("format = 2", "format = 3");
    let told = resolve_over(Some(GroupFile { origin: "run/config.toml".into(), text }), &[])
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("run/config.toml") && told.contains("found 3") && told.contains("later version"),
        "{told}"
    );
}
