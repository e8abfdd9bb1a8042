//! Every key there is: of what kind its values are, and whether it may be left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::groups::{Files, GROUPS, nearest};
use super::layers::Layers;

/// What a key's values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number, 0 or more.
    Whole,
    /// A number.
    Number,
    /// True or false.
    Switch,
    /// A word, often one of a few.
    Word,
    /// A path.
    Path,
    /// A list of such values.
    List(Box<Kind>),
    /// Keys of their own.
    Table,
}

/// Keys whose values are paths; a test holds the list to the types.
pub(super) const PATHS: [&str; 5] =
    ["data.root", "data.cache", "data.folder.path", "model.weights", "runs.root"];

/// Keys that change no result, so that runs which differ in them alone are one run. The groups' own labels are no keys at all.
pub(super) const OUTSIDE_IDENTITY: [&str; 4] = ["data.root", "data.cache", "runs.root", "profile.reduced"];

/// The table of labels that choices of groups set.
const LABELS: &str = "groups";

/// All keys.
#[derive(Debug)]
pub(super) struct Schema {
    keys: BTreeMap<String, Kind>,
    optional: BTreeSet<String>,
}

/// The one schema. Files of one's own hold the same keys as those that are built in, from which it is made.
pub(super) fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::built_in);
    &SCHEMA
}

impl Schema {
    fn built_in() -> Self {
        let config = Layers::new(&[], None, None, Files::BuiltIn)
            .and_then(|layers| layers.extract())
            .expect("the built-in files make a config");
        let table = |config| toml::Table::try_from(config).expect("a config can be written as TOML");
        let required = table(config.clone());
        let every = table(config.with_every_key());
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
        keys.retain(|key, _| key != LABELS && !key.starts_with("groups."));
        let parent = |key: &str| key.rsplit_once('.').map_or("", |(parent, _)| parent).to_owned();
        let optional = keys.keys().filter(|key| {
            let known = lookup(&required, key).is_some();
            !known && (required_tables.contains(&parent(key)) || parent(key).is_empty())
        });
        Self { optional: optional.cloned().collect(), keys }
    }

    /// The kind of `key`; `None` if nothing reads it.
    pub(super) fn kind(&self, key: &str) -> Option<&Kind> {
        // A group's name is set by its file's name, which is a word; its section's keys are set one by one.
        if GROUPS.contains(&key) { Some(&Kind::Word) } else { self.keys.get(key) }
    }

    /// The kind of `key` where it stands in a file, in which a group's name is its section.
    pub(super) fn kind_in_file(&self, key: &str) -> Option<&Kind> {
        self.keys.get(key)
    }

    /// Whether `key` may be left out.
    pub(super) fn is_optional(&self, key: &str) -> bool {
        self.optional.contains(key)
    }

    /// The keys that may be left out, whole tables among them, in alphabetical order.
    pub(super) fn optional(&self) -> impl Iterator<Item = &str> {
        self.optional.iter().map(String::as_str)
    }

    /// All keys with their kinds, in alphabetical order.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &Kind)> {
        self.keys.iter().map(|(key, kind)| (key.as_str(), kind))
    }

    /// The known key most like `key`, by its whole or by its last part.
    pub(super) fn nearest(&self, key: &str) -> Option<String> {
        if let Some(group) = key.strip_prefix("groups.").filter(|group| GROUPS.contains(group)) {
            return Some(group.to_owned());
        }
        let last = key.rsplit('.').next().unwrap_or(key);
        self.keys
            .keys()
            .find(|known| known.rsplit('.').next() == Some(last))
            .cloned()
            .or_else(|| nearest(key, self.keys.keys().map(String::as_str)))
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

/// Dotted keys of every value that is not a table of others, in alphabetical order.
pub(super) fn leaves(table: &toml::Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => {
                keys.extend(leaves(inner).into_iter().map(|rest| format!("{key}.{rest}")));
            }
            _ => keys.push(key.clone()),
        }
    }
    keys.sort();
    keys
}

/// The value of a dotted key.
pub(super) fn lookup<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (table.get(first)?, rest) {
        (value, None) => Some(value),
        (toml::Value::Table(inner), Some(rest)) => lookup(inner, rest),
        _ => None,
    }
}
