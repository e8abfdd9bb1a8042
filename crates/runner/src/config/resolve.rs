//! The config that results from files and arguments, and the origin of each value.

use std::collections::BTreeSet;

use super::groups::{Files, GroupFile};
use super::layers::Layers;
use super::meanings::meaning;
use super::one_line::one_line;
use super::schema::Schema;
use super::tables::{leaves, lookup};
use super::{Config, ConfigError, Override};
use crate::methods::Registry;
use crate::settings::Kind;

/// A config, and the origin of each of its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The values.
    pub config: Config,
    /// Each key with its value as TOML and its origin, in alphabetical order; keys without a value are
    /// included.
    pub origins: Vec<Origin>,
}

/// One value's origin.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The dotted key.
    pub key: String,
    /// Its value, as TOML; [`Origin::UNSET`] if it has none.
    pub value: String,
    /// The file or argument that set or unset it; [`Origin::NOWHERE`] if none did.
    pub origin: String,
    /// What the key means.
    pub meaning: Option<String>,
}

impl Origin {
    /// The value that a person types to unset a key.
    pub const UNSET: &'static str = "null";

    /// The origin of a key that no file and no argument mentions.
    pub const NOWHERE: &'static str = "unset by default";
}

/// Returns the config that `overrides` make of the groups' files.
///
/// # Errors
/// Returns an error if a file or an argument is wrong; the error names the key, where it came from, what was
/// found and what was expected.
pub fn resolve(overrides: &[Override]) -> Result<Resolved, ConfigError> {
    resolve_over(None, overrides)
}

/// Returns the config that the groups' files, a run's own config and `overrides` make, in this order. A run's
/// config is complete: a key that it leaves out is unset, except for the folders of data and runs. A group's
/// file among `overrides` wins over the run's config, as a single value does; otherwise `dataset=cifar10` for
/// a run on another set would be ignored silently.
///
/// # Errors
/// Returns the errors of [`resolve`].
pub fn resolve_over(run: Option<GroupFile>, overrides: &[Override]) -> Result<Resolved, ConfigError> {
    let layers = Layers::new(overrides, run, Files::Own)?;
    let config = layers.extract()?;
    let origin = layers.origins();
    config.check(&origin)?;
    let table = config.table()?;
    let meaning = |key: &str| meaning(key, &config.method);
    let set = leaves(&table).into_iter().map(|key| {
        let value = lookup(&table, &key).map_or_else(String::new, one_line);
        Origin { origin: origin(&key), value, meaning: meaning(&key), key }
    });
    let unset = layers.unset_keys().map(|(key, origin)| Origin {
        key: key.to_owned(),
        value: Origin::UNSET.to_owned(),
        origin: origin.to_owned(),
        meaning: meaning(key),
    });
    let mut origins: Vec<Origin> = set.chain(unset).collect();
    let mentioned: BTreeSet<String> = origins.iter().map(|origin| origin.key.clone()).collect();
    let is_mentioned = |key: &String| mentioned.contains(key);
    let schema =
        Registry::installed().entry(config.method.name()).map_or_else(Schema::without_method, Schema::of);
    let keys = schema.keys().into_iter().filter(|(key, kind)| *kind != Kind::Table && !is_mentioned(key));
    origins.extend(keys.map(|(key, _)| Origin {
        value: Origin::UNSET.to_owned(),
        origin: Origin::NOWHERE.to_owned(),
        meaning: meaning(&key),
        key,
    }));
    origins.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Resolved { config, origins })
}
