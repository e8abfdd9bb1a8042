//! All keys: the kind of their values, and whether they may be left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::built_in;
use super::groups::{GROUPS, METHOD, nearest};
use super::tables::{leaves, lookup};
use crate::methods::{Entry, NAME};
use crate::settings::{Key, Kind};

/// Keys whose values are paths. A test compares the list with the types.
pub(super) const PATHS: [&str; 11] = [
    "data.root",
    "data.cache",
    "data.folder.path",
    "data.webdataset.path",
    "data.webdataset.train",
    "data.webdataset.test",
    "data.parquet.path",
    "data.parquet.train",
    "data.parquet.test",
    "model.weights",
    "runs.root",
];

/// The keys of shards, several of which a range in braces names.
pub(super) const SHARDS: [&str; 4] =
    ["data.webdataset.train", "data.webdataset.test", "data.parquet.train", "data.parquet.test"];

/// Keys that change no result: settings that differ only in them describe the same run. The labels of the
/// groups are not keys.
pub(super) const OUTSIDE_IDENTITY: [&str; 22] = [
    "data.root",
    "data.cache",
    "runs.root",
    "runs.checkpoint_seconds",
    "runs.lease_seconds",
    "profile.reduced",
    "launcher",
    "local.processes",
    "local.threads",
    "slurm.partition",
    "slurm.account",
    "slurm.qos",
    "slurm.time",
    "slurm.cpus",
    "slurm.gpus",
    "slurm.memory",
    "slurm.constraint",
    "slurm.at_once",
    "slurm.signal_seconds",
    "slurm.requeue",
    "slurm.setup",
    "slurm.options",
];

/// The table of the labels that the choice of a group sets.
const LABELS: &str = "groups";

/// All keys for one chosen method.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    base: &'static Base,
    method: Option<&'static Entry>,
}

/// The keys that do not depend on the method.
#[derive(Debug)]
struct Base {
    keys: BTreeMap<String, Kind>,
    optional: BTreeSet<String>,
}

static BASE: LazyLock<Base> = LazyLock::new(Base::built_in);

impl Base {
    /// Takes the keys from the built-in files; the files of users have the same keys.
    fn built_in() -> Self {
        let config = built_in::config();
        let required = config.table().expect("a config can be written as TOML");
        let every = config.with_every_key().table().expect("a config can be written as TOML");
        let tables = |table: &toml::Table| -> BTreeSet<String> {
            let prefixes =
                |key: &str| key.match_indices('.').map(|(at, _)| key[..at].to_owned()).collect::<Vec<_>>();
            leaves(table).iter().flat_map(|key| prefixes(key)).collect()
        };
        let required_tables = tables(&required);
        let mut keys: BTreeMap<String, Kind> =
            tables(&every).into_iter().map(|key| (key, Kind::Table)).collect();
        for key in leaves(&every) {
            let kind = lookup(&every, &key).map_or(Kind::Table, |value| kind_of(&key, value));
            keys.insert(key, kind);
        }
        let is_of_a_method = |key: &str| of_method(key).is_some_and(|name| name != NAME);
        keys.retain(|key, _| key != LABELS && !key.starts_with("groups.") && !is_of_a_method(key));
        let parent = |key: &str| key.rsplit_once('.').map_or("", |(parent, _)| parent).to_owned();
        let optional = keys.keys().filter(|key| {
            let known = lookup(&required, key).is_some();
            !known && (required_tables.contains(&parent(key)) || parent(key).is_empty())
        });
        Self { optional: optional.cloned().collect(), keys }
    }
}

/// Returns the name of a key within the section of the method, or `None` if the key is in another section.
pub(super) fn of_method(key: &str) -> Option<&str> {
    key.strip_prefix(METHOD)?.strip_prefix('.')
}

impl Schema {
    /// Returns the keys for the chosen method `entry`.
    pub(super) fn of(entry: &'static Entry) -> Self {
        Self { base: &BASE, method: Some(entry) }
    }

    /// Returns the keys that do not depend on the method.
    pub(super) fn without_method() -> Self {
        Self { base: &BASE, method: None }
    }

    /// Returns the kind of `key`, or `None` if there is no such key.
    pub(super) fn kind(&self, key: &str) -> Option<&'static Kind> {
        // A group's name is set by its file's name, which is a word; its section's keys are set one by one.
        if GROUPS.contains(&key) { Some(&Kind::Word) } else { self.kind_in_file(key) }
    }

    /// Returns the kind of `key` in a file, where the name of a group is a section.
    pub(super) fn kind_in_file(&self, key: &str) -> Option<&'static Kind> {
        self.base.keys.get(key).or_else(|| Some(&self.method_key(key)?.kind))
    }

    /// Returns the key of the chosen method with the full name `key`.
    fn method_key(&self, key: &str) -> Option<&'static Key> {
        self.method?.key(of_method(key)?)
    }

    /// Returns the chosen method.
    pub(super) fn method(&self) -> Option<&'static Entry> {
        self.method
    }

    /// Returns whether `key` may be left out.
    pub(super) fn is_optional(&self, key: &str) -> bool {
        self.base.optional.contains(key) || self.method_key(key).is_some_and(|key| key.optional)
    }

    /// Returns the keys that may be left out, including whole tables.
    pub(super) fn optional(&self) -> Vec<String> {
        let of_method = self.method_keys().filter(|key| self.is_optional(key));
        self.base.optional.iter().cloned().chain(of_method).collect()
    }

    /// Returns all keys with their kinds.
    pub(super) fn keys(&self) -> Vec<(String, Kind)> {
        let base = self.base.keys.iter().map(|(key, kind)| (key.clone(), kind.clone()));
        let of_method =
            self.method_keys().filter_map(|key| Some((key.clone(), self.kind_in_file(&key)?.clone())));
        base.chain(of_method).collect()
    }

    /// Returns the full names of the keys of the chosen method.
    pub(super) fn method_keys(&self) -> impl Iterator<Item = String> {
        let keys = self.method.map_or(&[][..], Entry::keys);
        keys.iter().map(|key| format!("{METHOD}.{}", key.name))
    }

    /// Returns the known key that is most similar to `key`, as a whole or in its last part.
    pub(super) fn nearest(&self, key: &str) -> Option<String> {
        if let Some(group) = key.strip_prefix("groups.").filter(|group| GROUPS.contains(group)) {
            return Some(group.to_owned());
        }
        let last = key.rsplit('.').next().unwrap_or(key);
        let all: Vec<String> = self.method_keys().chain(self.base.keys.keys().cloned()).collect();
        all.iter()
            .find(|known| known.rsplit('.').next() == Some(last))
            .cloned()
            .or_else(|| nearest(key, all.iter().map(String::as_str)))
    }
}

fn kind_of(key: &str, value: &toml::Value) -> Kind {
    match value {
        toml::Value::Integer(_) => Kind::Whole,
        toml::Value::Float(_) => Kind::Number,
        toml::Value::Boolean(_) => Kind::Switch,
        toml::Value::Array(list) => {
            Kind::List(Box::new(list.first().map_or(Kind::Word, |first| kind_of(key, first))))
        }
        toml::Value::Table(_) => Kind::Table,
        toml::Value::String(_) | toml::Value::Datetime(_) => {
            if PATHS.contains(&key) {
                Kind::Path
            } else {
                Kind::Word
            }
        }
    }
}
