//! The config of the built-in files alone. The list of keys and their kinds is taken from it.

use super::Config;
use super::groups::{Files, GROUPS, METHOD, choose, default_choices, parse, read};
use super::scoped::METHODS;
use super::tables::{lookup, merge, nested};
use crate::methods::{NAME, Registry};

/// Returns the config that the built-in files make with their default choice of each group. Its values are
/// not checked.
///
/// # Panics
/// Panics if the built-in files do not make a config; tests check that they do.
pub(super) fn config() -> Config {
    let base = read("config.toml", Files::BuiltIn).ok().flatten().expect("there is a base file");
    let mut table = parse(&base).expect("the base file is TOML");
    let defaults = table.remove("defaults");
    let mut choices = default_choices(&base.origin, defaults).expect("the base file chooses groups");
    for group in GROUPS {
        let Some((name, _)) = choices.remove(group) else { continue };
        let file = choose(group, &name, Files::BuiltIn).expect("the file that is chosen is built in");
        table = merge(table, &parse(&file).expect("a built-in file is TOML"));
        table = merge(table, &nested(&format!("groups.{group}"), name.into()));
    }
    table.remove(METHODS);
    let name = lookup(&table, &format!("{METHOD}.{NAME}")).and_then(toml::Value::as_str);
    let entry = name.and_then(|name| Registry::installed().entry(name)).expect("the files name a method");
    let defaults = nested(METHOD, entry.default_method().settings().into());
    merge(defaults, &table).try_into().expect("the built-in files make a config")
}
