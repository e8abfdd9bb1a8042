//! Configs of the first format, which had no format number. `[method]` held the name and the keys of some
//! methods, and `[loss]` those of the others; every config held the keys of all methods.
//!
//! Only this file reads stored runs of that format. Typed arguments are not translated: an error says where a
//! key went.

use super::groups::METHOD;
use super::identity::FORMAT_KEY;
use super::without_manifest;
use crate::methods::{NAME, Registry};

/// The section that no longer exists.
const LOSS: &str = "loss";

/// The keys of that section. Each has the same name in `[method]` if the chosen method has it.
const KEYS: [&str; 7] =
    ["temperature", "negative_weight", "negatives", "normalize_weight", "margin", "noise", "memory_momentum"];

/// Returns whether a run's own config is of the first format.
pub(crate) fn is_first(config: &toml::Table) -> bool {
    !config.contains_key(FORMAT_KEY)
}

/// Converts a run's own config of the first format to the second, except for the format number: `[method]`
/// then holds all settings of the chosen method and no others.
pub(super) fn to_second(mut config: toml::Table) -> toml::Table {
    let loss = config.remove(LOSS);
    let Some(toml::Value::Table(method)) = config.get_mut(METHOD) else { return config };
    if let Some(toml::Value::Table(loss)) = loss {
        method.extend(loss);
    }
    if let Some(entry) = method.get(NAME).and_then(|name| Registry::installed().entry(name.as_str()?)) {
        method.retain(|key, _| key == NAME || entry.key(key).is_some());
        // A key that was left out, or that is newer than the config, had its default.
        for (key, value) in entry.default_method().settings() {
            method.entry(key).or_insert(value);
        }
    }
    config
}

/// Returns whether a stored config of the first format has the same settings as one of the second. The images
/// are not compared.
pub(crate) fn is_same(first: &str, second: &str) -> bool {
    let parse = |text: &str| without_manifest(text).parse::<toml::Table>().ok();
    let (Some(first), Some(mut second)) = (parse(first), parse(second)) else { return false };
    second.remove(FORMAT_KEY);
    is_first(&first) && to_second(first) == second
}

/// Returns whether `key` belongs to the section that no longer exists.
pub(super) fn is_gone(key: &str) -> bool {
    key.split('.').next() == Some(LOSS)
}

/// Returns what an error says about a key of the old section if the chosen method is `method`; `None` for any
/// other key.
pub(super) fn where_it_went(key: &str, method: &str) -> Option<String> {
    let rest = key.strip_prefix(LOSS)?;
    let Some(name) = rest.strip_prefix('.') else {
        return rest.is_empty().then(|| {
            "the section [loss] is gone; its keys are the chosen method's own, in [method]".to_owned()
        });
    };
    let methods = Registry::installed().entries();
    let of_chosen = methods.iter().find(|entry| entry.name() == method)?;
    if !KEYS.contains(&name) {
        let known: Vec<String> =
            of_chosen.keys().iter().map(|key| format!("{METHOD}.{}", key.name)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Some(format!(
            "the section [loss] is gone; a method's keys are in [method], and those of {method} are: {known}"
        ));
    }
    if of_chosen.key(name).is_some() {
        return Some(format!("this key is now {METHOD}.{name}"));
    }
    let owners: Vec<&str> =
        methods.iter().filter(|entry| entry.key(name).is_some()).map(crate::methods::Entry::name).collect();
    Some(format!(
        "this key is now {METHOD}.{name} of {}; the chosen method {method} has no such key",
        owners.join(", ")
    ))
}
