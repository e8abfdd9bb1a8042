//! Merging files and arguments into a config, and telling where each value came from.

use super::groups::{GROUPS, GroupFile, choose, nearest, read};
use super::{Config, ConfigError, Override};
use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use std::collections::BTreeMap;

/// A config, and where each of its values came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The values.
    pub config: Config,
    /// Each key with its value as TOML and its origin, in alphabetical order.
    pub origins: Vec<Origin>,
}

/// One value's origin.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The dotted key.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// The file or argument that set it.
    pub origin: String,
}

/// One file or argument.
struct Source {
    origin: String,
    table: toml::Table,
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = Value::serialize(&self.table)?.into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// The config that `overrides` make of the groups' files.
///
/// # Errors
/// Names the key, the file or argument it came from, what was found and what was expected.
pub fn resolve(overrides: &[Override]) -> Result<Resolved, ConfigError> {
    resolve_over(None, overrides)
}

/// As [`resolve`], with a run's own config between the groups' files and `overrides`. A group's file that is asked for wins over the
/// run's config, as a single value does; else `dataset=cifar10` for a run on something else would be passed over in silence.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_over(run: Option<GroupFile>, overrides: &[Override]) -> Result<Resolved, ConfigError> {
    let sources = sources(run, overrides)?;
    let known = known_keys()?;
    for source in &sources {
        for key in leaves(&source.table) {
            if !known.iter().any(|k| k.key == key || (k.table && key.starts_with(&format!("{}.", k.key)))) {
                let nearest = nearest_key(&key, &known);
                return Err(ConfigError::UnknownKey { key, origin: source.origin.clone(), nearest });
            }
        }
    }
    let figment = sources.into_iter().fold(Figment::new(), Figment::merge);
    let config: Config = figment.extract().map_err(|error| type_error(&figment, error))?;
    let origin = |key: &str| {
        figment.find_metadata(key).map_or_else(|| "the built-in default".to_owned(), |m| m.name.to_string())
    };
    config.check(origin)?;
    let table = toml::Table::try_from(&config).map_err(|error| ConfigError::File {
        file: "the resolved config".into(),
        reason: error.to_string(),
    })?;
    let origins = leaves(&table)
        .into_iter()
        .map(|key| {
            let value = lookup(&table, &key).map_or_else(String::new, ToString::to_string);
            Origin { origin: origin(&key), value, key }
        })
        .collect();
    Ok(Resolved { config, origins })
}

/// The base file, the chosen file of each group, then the single values.
fn sources(run: Option<GroupFile>, overrides: &[Override]) -> Result<Vec<Source>, ConfigError> {
    let base = read("config.toml")?.ok_or_else(|| ConfigError::File {
        file: "experiments/config.toml".into(),
        reason: "it is missing".into(),
    })?;
    let mut table = parse(&base.origin, &base.text)?;
    let defaults = table.remove("defaults");
    let mut chosen = default_choices(&base.origin, defaults)?;
    let mut sources = vec![Source { origin: base.origin, table }];
    let (choices, values): (Vec<_>, Vec<_>) =
        overrides.iter().partition(|o| GROUPS.contains(&o.key.as_str()));
    for choice in choices {
        chosen.insert(choice.key.clone(), (choice.text.clone(), format!("argument {}", choice.argument())));
    }
    let asked: Vec<&str> = overrides.iter().map(|o| &o.key[..]).filter(|key| GROUPS.contains(key)).collect();
    let mut over_run = Vec::new();
    for group in GROUPS {
        let Some((name, origin)) = chosen.get(group) else { continue };
        let file = choose(group, name)?;
        let into = if run.is_some() && asked.contains(&group) { &mut over_run } else { &mut sources };
        into.push(Source { table: parse(&file.origin, &file.text)?, origin: file.origin });
        let label = toml::Table::from_iter([(group.to_owned(), name.clone().into())]);
        into.push(Source {
            origin: origin.clone(),
            table: toml::Table::from_iter([("groups".to_owned(), label.into())]),
        });
    }
    if let Some(run) = run {
        sources.push(Source { table: parse(&run.origin, &run.text)?, origin: run.origin });
    }
    sources.append(&mut over_run);
    for value in values {
        let nested = value.key.rsplit('.').fold(value.value(), |inner, part| {
            toml::Value::Table(toml::Table::from_iter([(part.to_owned(), inner)]))
        });
        if let toml::Value::Table(table) = nested {
            sources.push(Source { origin: format!("argument {}", value.argument()), table });
        }
    }
    Ok(sources)
}

fn parse(origin: &str, text: &str) -> Result<toml::Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| ConfigError::File {
        file: origin.into(),
        reason: super::toml_error::reason(&error, text),
    })
}

/// The choice of each group, and who made it, from a list like `["dataset/cifar10", ...]`.
fn default_choices(
    origin: &str,
    defaults: Option<toml::Value>,
) -> Result<BTreeMap<String, (String, String)>, ConfigError> {
    let wrong = |found: String| ConfigError::Value {
        key: "defaults".into(),
        origin: origin.into(),
        found,
        expected: format!("a list of group/name, with the groups {}", GROUPS.join(", ")),
    };
    let list = match defaults {
        Some(toml::Value::Array(list)) => list,
        other => return Err(wrong(other.map_or_else(|| "nothing".into(), |v| v.to_string()))),
    };
    list.iter()
        .map(|item| {
            let choice = item.as_str().and_then(|text| text.split_once('/'));
            match choice {
                Some((group, name)) if GROUPS.contains(&group) => {
                    Ok((group.to_owned(), (name.to_owned(), origin.to_owned())))
                }
                _ => Err(wrong(item.to_string())),
            }
        })
        .collect()
}

/// Dotted keys of every value that is not a table.
fn leaves(table: &toml::Table) -> Vec<String> {
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

fn lookup<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (table.get(first)?, rest) {
        (value, None) => Some(value),
        (toml::Value::Table(inner), Some(rest)) => lookup(inner, rest),
        _ => None,
    }
}

/// A key that something reads; `table` if it may itself be a table.
struct Known {
    key: String,
    table: bool,
}

/// Every key there is, read off a config in which all optional values are given.
fn known_keys() -> Result<Vec<Known>, ConfigError> {
    let bad = |error: String| ConfigError::File { file: "the built-in config".into(), reason: error };
    let sources = sources(None, &[])?;
    let figment = sources.into_iter().fold(Figment::new(), Figment::merge);
    // Files of one's own may be broken: the built-in files alone would do, but their keys are the same.
    let config: Config = figment.extract().map_err(|error| type_error(&figment, error))?;
    let table = toml::Table::try_from(config.with_every_key()).map_err(|error| bad(error.to_string()))?;
    let mut known: Vec<Known> = leaves(&table).into_iter().map(|key| Known { key, table: false }).collect();
    let tables: Vec<String> = known
        .iter()
        .flat_map(|k| k.key.match_indices('.').map(|(at, _)| k.key[..at].to_owned()).collect::<Vec<_>>())
        .collect();
    for key in tables {
        if !known.iter().any(|k| k.key == key) {
            known.push(Known { key, table: false });
        }
    }
    Ok(known)
}

/// The known key most like `key`, by its whole or by its last part.
fn nearest_key(key: &str, known: &[Known]) -> Option<String> {
    let last = key.rsplit('.').next().unwrap_or(key);
    known
        .iter()
        .find(|k| k.key.rsplit('.').next() == Some(last))
        .map(|k| k.key.clone())
        .or_else(|| nearest(key, known.iter().map(|k| k.key.as_str())))
}

/// figment's word on a value of the wrong type, as ours.
fn type_error(figment: &Figment, error: figment::Error) -> ConfigError {
    let key = error.path.join(".");
    let origin = error
        .metadata
        .as_ref()
        .map(|m| m.name.to_string())
        .or_else(|| figment.find_metadata(&key).map(|m| m.name.to_string()))
        .unwrap_or_else(|| "the merged config".into());
    let (found, expected) = match error.kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            (found.to_string(), in_words(&expected).to_owned())
        }
        Kind::InvalidLength(found, expected) => (format!("{found} values"), expected),
        Kind::UnknownVariant(found, expected) => {
            (format!("`{found}`"), format!("one of {}", expected.join(", ")))
        }
        Kind::MissingField(field) => ("nothing".into(), format!("a value for `{field}`")),
        Kind::UnknownField(field, expected) => {
            let nearest = nearest(&field, expected.iter().copied());
            let key = if key.is_empty() { field } else { format!("{key}.{field}") };
            return ConfigError::UnknownKey { key, origin, nearest };
        }
        other => (other.to_string(), "another value".into()),
    };
    ConfigError::Value { key, origin, found, expected }
}

/// serde's names of types, for people who write no Rust.
fn in_words(expected: &str) -> &str {
    match expected {
        "u64" | "usize" => "a whole number, 0 or more",
        "f64" | "f32" => "a number",
        "a boolean" | "bool" => "true or false",
        "path string" => "a path",
        other => other,
    }
}
