//! The config that files and arguments come to, and where each of its values came from.

use super::built_in;
use super::groups::{Files, GroupFile};
use super::layers::Layers;
use super::meanings::meaning;
use super::tables::{leaves, lookup};
use super::{Config, ConfigError, Override};
use crate::methods::ChosenMethod;

/// A config, and where each of its values came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The values.
    pub config: Config,
    /// Each key with its value as TOML and its origin, in alphabetical order; keys that a file or argument unset are among them.
    pub origins: Vec<Origin>,
}

/// One value's origin.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The dotted key.
    pub key: String,
    /// Its value, as TOML; [`Origin::UNSET`] where there is none.
    pub value: String,
    /// The file or argument that set it.
    pub origin: String,
    /// What the key means.
    pub meaning: Option<String>,
}

impl Origin {
    /// The value of a key that was unset, as it is typed.
    pub const UNSET: &'static str = "null";
}

/// The method of the built-in config: the paper's own.
pub(crate) fn built_in_method() -> ChosenMethod {
    built_in::config().method
}

/// The config that `overrides` make of the groups' files.
///
/// # Errors
/// Names the key, the file or argument it came from, what was found and what was expected.
pub fn resolve(overrides: &[Override]) -> Result<Resolved, ConfigError> {
    resolve_over(None, overrides)
}

/// As [`resolve`], with a run's own config between the groups' files and `overrides`. That config is whole: what it leaves out is unset, but
/// for where files lie. A group's file that is asked for wins over it, as a single value does; else `dataset=cifar10` for a run on
/// something else would be passed over in silence.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_over(run: Option<GroupFile>, overrides: &[Override]) -> Result<Resolved, ConfigError> {
    let layers = Layers::new(overrides, run, Files::Own)?;
    let config = layers.extract()?;
    let origin = layers.origins();
    config.check(&origin)?;
    let table = config.table()?;
    let meaning = |key: &str| meaning(key, &config.method);
    let set = leaves(&table).into_iter().map(|key| {
        let value = lookup(&table, &key).map_or_else(String::new, ToString::to_string);
        Origin { origin: origin(&key), value, meaning: meaning(&key), key }
    });
    let unset = layers.unset_keys().map(|(key, origin)| Origin {
        key: key.to_owned(),
        value: Origin::UNSET.to_owned(),
        origin: origin.to_owned(),
        meaning: meaning(key),
    });
    let mut origins: Vec<Origin> = set.chain(unset).collect();
    origins.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Resolved { config, origins })
}
