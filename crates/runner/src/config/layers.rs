//! The files and arguments that make a config, one over the other, each with its name.

use std::collections::BTreeMap;

use figment::error::Kind as Fault;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::groups::{Files, GROUPS, GroupFile, choose, nearest, read};
use super::schema::{Kind, OUTSIDE_IDENTITY, Schema, leaves, lookup};
use super::value::{Reading, Unfit};
use super::{Config, ConfigError, Override};

/// Key of a file under which it lists what it unsets: TOML has no word for nothing.
const UNSET: &str = "unset";

/// One file or argument.
#[derive(Debug, Clone)]
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

/// Files and arguments, in the order in which they win.
pub(super) struct Layers {
    sources: Vec<Source>,
    /// Keys that were unset, and by what.
    unset: BTreeMap<String, String>,
}

impl Layers {
    /// The base file, the chosen file of each group, a run's own config, then the single values. Keys and values are checked against
    /// `schema`, if there is one yet.
    ///
    /// # Errors
    /// Names the key, the file or argument, what was found and what was expected.
    pub(super) fn new(
        overrides: &[Override],
        run: Option<GroupFile>,
        schema: Option<&Schema>,
        files: Files,
    ) -> Result<Self, ConfigError> {
        let base = read("config.toml", files)?.ok_or_else(|| ConfigError::File {
            file: "experiments/config.toml".into(),
            reason: "it is missing".into(),
        })?;
        let mut table = parse(&base)?;
        let mut chosen = default_choices(&base.origin, table.remove("defaults"))?;
        let mut layers = Self { sources: Vec::new(), unset: BTreeMap::new() };
        layers.push_file(base.origin, table, schema)?;
        let (choices, values): (Vec<_>, Vec<_>) =
            overrides.iter().partition(|one| GROUPS.contains(&one.key.as_str()));
        for choice in choices {
            chosen.insert(choice.key.clone(), (choice.word(), choice.origin()));
        }
        // A group's file that is asked for wins over a run's config, as a single value does.
        let over_run = |group: &str| run.is_some() && overrides.iter().any(|one| one.key == group);
        let (late, early): (Vec<&str>, Vec<&str>) = GROUPS.into_iter().partition(|group| over_run(group));
        for group in early {
            layers.push_group(group, chosen.remove(group), schema, files)?;
        }
        if let Some(run) = run {
            let table = parse(&run)?;
            // A run's own config is whole: what it does not set was unset.
            let absent = schema
                .into_iter()
                .flat_map(Schema::optional)
                .filter(|key| lookup(&table, key).is_none() && !OUTSIDE_IDENTITY.contains(key));
            let absent: Vec<String> = absent.map(str::to_owned).collect();
            for key in absent {
                layers.unset(&key, &run.origin);
            }
            layers.push_file(run.origin, table, schema)?;
        }
        for group in late {
            layers.push_group(group, chosen.remove(group), schema, files)?;
        }
        for value in values {
            layers.push_argument(value, schema)?;
        }
        Ok(layers)
    }

    /// Adds the chosen file of a group, and the label that says which it is.
    fn push_group(
        &mut self,
        group: &str,
        chosen: Option<(String, String)>,
        schema: Option<&Schema>,
        files: Files,
    ) -> Result<(), ConfigError> {
        let Some((name, origin)) = chosen else { return Ok(()) };
        let file = choose(group, &name, files)?;
        let table = parse(&file)?;
        self.push_file(file.origin, table, schema)?;
        self.sources.push(Source { origin, table: nested(&format!("groups.{group}"), name.into()) });
        Ok(())
    }

    fn push_file(
        &mut self,
        origin: String,
        mut table: toml::Table,
        schema: Option<&Schema>,
    ) -> Result<(), ConfigError> {
        let Some(schema) = schema else {
            self.sources.push(Source { origin, table });
            return Ok(());
        };
        if let Some(list) = table.remove(UNSET) {
            let wrong = || ConfigError::Value {
                key: UNSET.into(),
                origin: origin.clone(),
                found: list.to_string(),
                expected: "a list of keys, as [\"data.subset\"]".into(),
            };
            let keys: Option<Vec<String>> = list
                .as_array()
                .and_then(|list| list.iter().map(|key| key.as_str().map(str::to_owned)).collect());
            for key in keys.ok_or_else(wrong)? {
                let kind = schema.kind_in_file(&key);
                check_optional(schema, &key, kind.is_some(), &origin)?;
                self.unset(&key, &origin);
            }
        }
        let table = conform(table, "", schema, &origin)?;
        self.sources.push(Source { origin, table });
        Ok(())
    }

    fn push_argument(&mut self, argument: &Override, schema: Option<&Schema>) -> Result<(), ConfigError> {
        let Some(schema) = schema else { return Ok(()) };
        let (key, origin) = (&argument.key, argument.origin());
        match Self::argument(argument, schema)? {
            Some(value) => {
                let table = conform(nested(key, value), "", schema, &origin)?;
                self.sources.push(Source { origin, table });
            }
            None => self.unset(key, &origin),
        }
        Ok(())
    }

    /// The value that an argument gives its key; `None` if it unsets the key.
    ///
    /// # Errors
    /// If there is no such key, the text is no value of it, or it is required.
    pub(super) fn argument(argument: &Override, schema: &Schema) -> Result<Option<toml::Value>, ConfigError> {
        let (key, origin) = (&argument.key, argument.origin());
        let wrong = |found: String, expected: String| ConfigError::Value {
            key: key.clone(),
            origin: origin.clone(),
            found,
            expected,
        };
        let Some(kind) = schema.kind(key) else {
            return Err(ConfigError::UnknownKey { key: key.clone(), nearest: schema.nearest(key), origin });
        };
        if key == "profile.reduced" {
            let expected = "no such argument: a profile's file and the sizes say whether a run is reduced";
            return Err(wrong(argument.text.clone(), expected.into()));
        }
        match argument.read(kind).map_err(|Unfit { found, expected }| wrong(found, expected))? {
            Reading::Value(value) => Ok(Some(value)),
            Reading::Unset => check_optional(schema, key, true, &origin).map(|()| None),
        }
    }

    /// Takes `key` out of everything so far.
    fn unset(&mut self, key: &str, origin: &str) {
        for source in &mut self.sources {
            remove(&mut source.table, key);
        }
        self.unset.insert(key.to_owned(), origin.to_owned());
    }

    /// All of it merged, as a table.
    pub(super) fn merged(&self) -> toml::Table {
        self.sources.iter().fold(toml::Table::new(), |merged, source| merge(merged, &source.table))
    }

    /// All of it merged, as a config that is not checked yet.
    ///
    /// # Errors
    /// If a value is missing or of the wrong type.
    pub(super) fn extract(&self) -> Result<Config, ConfigError> {
        let figment = self.figment();
        figment.extract().map_err(|error| type_error(&figment, error))
    }

    /// The file or argument that set a key.
    pub(super) fn origins(&self) -> impl Fn(&str) -> String {
        let figment = self.figment();
        move |key| {
            figment
                .find_metadata(key)
                .map_or_else(|| "the built-in default".to_owned(), |m| m.name.to_string())
        }
    }

    /// Keys that were unset and have no value now, with what unset them.
    pub(super) fn unset_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let merged = self.merged();
        self.unset
            .iter()
            .filter(move |(key, _)| lookup(&merged, key).is_none())
            .map(|(key, origin)| (key.as_str(), origin.as_str()))
    }

    fn figment(&self) -> Figment {
        self.sources.iter().cloned().fold(Figment::new(), Figment::merge)
    }
}

/// An error unless `key` is one that may be left out.
fn check_optional(schema: &Schema, key: &str, known: bool, origin: &str) -> Result<(), ConfigError> {
    if !known {
        return Err(ConfigError::UnknownKey {
            key: key.into(),
            origin: origin.into(),
            nearest: schema.nearest(key),
        });
    }
    if schema.is_optional(key) {
        return Ok(());
    }
    let within = key.rsplit_once('.').map(|(table, _)| table).filter(|table| schema.is_optional(table));
    let kind = schema.kind_in_file(key).map_or_else(|| "a value".to_owned(), Kind::in_words);
    let expected = match within {
        Some(table) => {
            format!("{kind}: the key is required where {table} is set; {table}=null unsets all of that")
        }
        None => format!("{kind}: the key is required and cannot be unset"),
    };
    Err(ConfigError::Value { key: key.into(), origin: origin.into(), found: "nothing".into(), expected })
}

/// The table with each value as its key's kind has it.
fn conform(
    table: toml::Table,
    prefix: &str,
    schema: &Schema,
    origin: &str,
) -> Result<toml::Table, ConfigError> {
    let mut conformed = toml::Table::new();
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        let kind = schema.kind_in_file(&key);
        let value = match (kind, value) {
            (Some(Kind::Table), toml::Value::Table(inner)) => {
                conform(inner, &format!("{key}."), schema, origin)?.into()
            }
            (Some(kind), value) => kind.conform(value).map_err(|Unfit { found, expected }| {
                ConfigError::Value { key: key.clone(), origin: origin.to_owned(), found, expected }
            })?,
            (None, value) => {
                // The key that is wrong is the innermost one that the file names.
                let key = match &value {
                    toml::Value::Table(inner) if !inner.is_empty() => {
                        format!("{key}.{}", leaves(inner).first().map_or("", String::as_str))
                    }
                    _ => key,
                };
                let nearest = schema.nearest(&key);
                return Err(ConfigError::UnknownKey { key, origin: origin.to_owned(), nearest });
            }
        };
        conformed.insert(name, value);
    }
    Ok(conformed)
}

fn merge(mut into: toml::Table, from: &toml::Table) -> toml::Table {
    for (key, value) in from {
        let merged = match (into.remove(key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new).into(),
            (_, value) => value.clone(),
        };
        into.insert(key.clone(), merged);
    }
    into
}

fn remove(table: &mut toml::Table, key: &str) {
    match key.split_once('.') {
        None => drop(table.remove(key)),
        Some((first, rest)) => {
            if let Some(toml::Value::Table(inner)) = table.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

/// The table in which the dotted `key` is `value` and nothing else is.
fn nested(key: &str, value: toml::Value) -> toml::Table {
    let (outer, last) = key.rsplit_once('.').map_or((None, key), |(outer, last)| (Some(outer), last));
    let table = toml::Table::from_iter([(last.to_owned(), value)]);
    outer.map_or(table.clone(), |outer| nested(outer, table.into()))
}

fn parse(file: &GroupFile) -> Result<toml::Table, ConfigError> {
    file.text.parse().map_err(|error: toml::de::Error| ConfigError::File {
        file: file.origin.clone(),
        reason: super::toml_error::reason(&error, &file.text),
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
        Fault::InvalidType(found, expected) | Fault::InvalidValue(found, expected) => {
            (found.to_string(), in_words(&expected).to_owned())
        }
        Fault::InvalidLength(found, expected) => (format!("{found} values"), expected),
        Fault::UnknownVariant(found, expected) => {
            (format!("`{found}`"), format!("one of {}", expected.join(", ")))
        }
        Fault::MissingField(field) => ("nothing".into(), format!("a value for `{field}`")),
        Fault::UnknownField(field, expected) => {
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
