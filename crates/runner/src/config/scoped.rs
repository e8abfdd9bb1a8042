//! Settings that apply only to one method: `methods.NAME.KEY`, as an argument or in the tables
//! `[methods.NAME]` of a file.
//!
//! A profile or a suite is for runs of several methods, which have different keys. Its table `[methods.nce]`
//! sets keys of `[method]` if nce is chosen, and has no effect otherwise.

use super::ConfigError;
use super::groups::{METHOD, nearest};
use crate::methods::{Entry, Registry};

/// The section of such settings.
pub(super) const METHODS: &str = "methods";

/// Returns the method of `methods.NAME.KEY`, and the key of the chosen method that it sets, `method.KEY`.
pub(super) fn scoped(key: &str) -> Option<(&str, String)> {
    let (name, key) = key.strip_prefix(METHODS)?.strip_prefix('.')?.split_once('.')?;
    Some((name, format!("{METHOD}.{key}")))
}

/// Returns the name of the key in `[method]`: `method.KEY` for `methods.NAME.KEY`, and any other key
/// unchanged.
pub(super) fn of_chosen_method(key: &str) -> String {
    scoped(key).map_or_else(|| key.to_owned(), |(_, key)| key)
}

/// Returns the method called `name`, which is the value of `key`.
///
/// # Errors
/// Returns an error if there is no such method; the error lists the methods.
pub(super) fn entry(name: &str, key: &str, origin: &str) -> Result<&'static Entry, ConfigError> {
    Registry::installed().entry(name).ok_or_else(|| {
        let known = || Registry::installed().entries().iter().map(Entry::name);
        let meant = Registry::installed().name_of(name).map(str::to_owned);
        let meant = meant.or_else(|| nearest(name, known()));
        let meant = meant.map(|name| format!("; did you mean `{name}`?"));
        ConfigError::Value {
            key: key.to_owned(),
            origin: origin.to_owned(),
            found: format!("{name:?}"),
            expected: format!(
                "a method, one of {}{}",
                known().collect::<Vec<_>>().join(", "),
                meant.unwrap_or_default()
            ),
        }
    })
}

/// Removes the settings of single methods from the table of a file, and returns each method with its
/// settings.
///
/// # Errors
/// Returns an error if there is no such method, or its settings are not a table.
pub(super) fn take(
    table: &mut toml::Table,
    origin: &str,
) -> Result<Vec<(&'static Entry, toml::Table)>, ConfigError> {
    let tables = |key: String, value: toml::Value| match value {
        toml::Value::Table(table) => Ok(table),
        other => Err(ConfigError::Value {
            key,
            origin: origin.to_owned(),
            found: other.to_string(),
            expected: "a table for each method, as [methods.NAME]".to_owned(),
        }),
    };
    let Some(methods) = table.remove(METHODS) else { return Ok(Vec::new()) };
    let methods = tables(METHODS.to_owned(), methods)?;
    let each = methods.into_iter().map(|(name, settings)| {
        let key = format!("{METHODS}.{name}");
        Ok((entry(&name, &key, origin)?, tables(key, settings)?))
    });
    each.collect()
}
