//! `invaspread config`: the settings of a run, and where each came from.

use super::print_json;
use crate::arguments::ConfigCommand;
use crate::failure::Failure;
use crate::output::{print_block, print_line};
use invaspread_runner::config::{GROUPS, Origin, Resolved, Suite, available, expand, resolve, statements};
use invaspread_runner::methods::Registry;
use serde_json::json;

pub(crate) fn config(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Show { settings, origin, json } => {
            let resolved = resolve(&expand(&settings.overrides()?, false)?.remove(0))?;
            match (origin, json) {
                (true, true) => print_json(&resolved.origins)?,
                (false, true) => print_json(&resolved.config)?,
                (false, false) => show(&resolved)?,
                (true, false) => show_origins(&resolved.origins),
            }
        }
        ConfigCommand::Methods { json } => methods(*json)?,
        ConfigCommand::Groups => {
            for group in GROUPS {
                print_line!("{group:<9} {}", available(group).join(", "));
            }
            print_line!("{:<9} {}", "suite", Suite::names().join(", "));
        }
    }
    Ok(())
}

/// Prints the config as TOML. A comment above each key of the chosen method gives its meaning and origin; the
/// keys without a value follow as comments.
fn show(resolved: &Resolved) -> Result<(), Failure> {
    let origin_of = |key: &str| {
        let key = format!("method.{key}");
        resolved.origins.iter().find(|origin| origin.key == key)
    };
    let mut is_of_method = false;
    for statement in statements(&resolved.config.to_toml()?) {
        if statement.starts_with('[') {
            is_of_method = statement == "[method]";
        }
        let key = statement.split(" = ").next().filter(|_| is_of_method);
        if let Some(Origin { meaning: Some(meaning), origin, .. }) = key.and_then(origin_of) {
            print_line!("# {meaning} Set by {origin}.");
        }
        print_block(&statement);
    }
    // TOML cannot express a key without a value.
    let unset = || resolved.origins.iter().filter(|origin| origin.value == Origin::UNSET);
    for origin in unset().filter(|origin| origin.origin != Origin::NOWHERE) {
        print_line!("# {} is unset by {}", origin.key, origin.origin);
    }
    for origin in unset().filter(|origin| origin.origin == Origin::NOWHERE) {
        let meaning = origin.meaning.as_ref().map(|meaning| format!(": {meaning}")).unwrap_or_default();
        print_line!("# {} is unset{meaning}", origin.key);
    }
    Ok(())
}

/// Prints each value with its origin, and the meaning of its key.
fn show_origins(origins: &[Origin]) {
    let width = origins.iter().map(|o| o.key.len() + o.value.len() + 3).max().unwrap_or(0);
    for origin in origins {
        let meaning = origin.meaning.as_ref().map(|meaning| format!("; {meaning}")).unwrap_or_default();
        print_line!("{:<width$}  # {}{meaning}", format!("{} = {}", origin.key, origin.value), origin.origin);
    }
}

/// Prints the methods of the registry, each with its keys.
fn methods(as_json: bool) -> Result<(), Failure> {
    let entries = Registry::installed().entries();
    if as_json {
        let listed: Vec<_> = entries
            .iter()
            .map(|entry| {
                let (method, defaults) = (entry.default_method(), entry.default_method().settings());
                let keys: Vec<_> = entry
                    .keys()
                    .iter()
                    .map(|key| json!({ "key": key.name, "default": defaults.get(key.name), "meaning": key.meaning }))
                    .collect();
                json!({
                    "name": entry.name(),
                    "label": method.label(),
                    "views": method.views(),
                    "trains": method.trains(),
                    "keys": keys,
                })
            })
            .collect();
        return Ok(print_json(&listed)?);
    }
    for entry in entries {
        let method = entry.default_method();
        let views = match method.views() {
            1 => "1 view of an image".to_owned(),
            views => format!("{views} views of an image"),
        };
        let how = if method.trains() { views } else { "not trained".to_owned() };
        print_line!("{}: {}, {how}", entry.name(), method.label());
        let defaults = method.settings();
        for key in entry.keys() {
            let default =
                defaults.get(key.name).map_or_else(|| Origin::UNSET.to_owned(), ToString::to_string);
            print_line!("  method.{} = {default}  # {}", key.name, key.meaning);
        }
    }
    Ok(())
}
