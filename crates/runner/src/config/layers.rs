//! The files and arguments that make up a config, each with its name. A later one wins over an earlier one.

use std::collections::BTreeMap;

use figment::error::Kind as Fault;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::groups::{Files, GROUPS, GroupFile, METHOD, choose, default_choices, nearest, parse, read};
use super::identity::{FORMAT, FORMAT_KEY};
use super::overrides::check_ranges;
use super::schema::{OUTSIDE_IDENTITY, Schema, of_method};
use super::tables::{leaves, lookup, merge, nested, remove};
use super::value::{Reading, Unfit};
use super::{Config, ConfigError, Override, first_format, scoped};
use crate::methods::{Entry, NAME, Registry};
use crate::settings::{Kind, Refusal, found_and_expected};

/// The key under which a file lists the keys that it unsets: TOML has no null.
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

/// A file or an argument, before the chosen method is known.
enum Given<'a> {
    /// A file.
    File(Source),
    /// A run's own config.
    Run(Source),
    /// The label of the chosen file of a group.
    Label(Source),
    /// A single value.
    Argument(&'a Override),
}

impl Given<'_> {
    /// Returns the name of the method that the file or argument chooses, and the name of the file or
    /// argument.
    fn method(&self) -> Option<(String, String)> {
        match self {
            Self::File(source) | Self::Run(source) => {
                let name = lookup(&source.table, &name_key())?.as_str()?;
                Some((name.to_owned(), source.origin.clone()))
            }
            Self::Argument(argument) if argument.key == name_key() => {
                Some((argument.word(), argument.origin()))
            }
            Self::Label(_) | Self::Argument(_) => None,
        }
    }
}

/// Returns the key that names the method.
fn name_key() -> String {
    format!("{METHOD}.{NAME}")
}

/// The method that applies to each file and argument.
struct Chosen {
    at: Vec<&'static Entry>,
    /// The index from which on the method is the one that runs. Earlier files and arguments do not set its
    /// keys.
    since: usize,
}

impl Chosen {
    fn of(given: &[Given<'_>]) -> Result<Self, ConfigError> {
        let mut at: Vec<Option<&'static Entry>> = Vec::new();
        for one in given {
            let entry = match one.method() {
                Some((name, origin)) => Some(scoped::entry(&name, &name_key(), &origin)?),
                None => at.last().copied().flatten(),
            };
            at.push(entry);
        }
        // Files and arguments before the first that names a method belong to that method.
        let first = at.iter().copied().flatten().next().ok_or_else(|| ConfigError::Value {
            key: name_key(),
            origin: "experiments/config.toml".to_owned(),
            found: "nothing".to_owned(),
            expected: "the name of a method".to_owned(),
        })?;
        let at: Vec<&'static Entry> = at.into_iter().map(|entry| entry.unwrap_or(first)).collect();
        let last = at.last().copied().unwrap_or(first);
        let since = at.iter().rposition(|entry| entry.name() != last.name()).map_or(0, |place| place + 1);
        Ok(Self { at, since })
    }

    /// Returns the method that runs.
    fn entry(&self) -> &'static Entry {
        self.at[self.at.len() - 1]
    }
}

/// Files and arguments; a later one wins over an earlier one.
pub(super) struct Layers {
    sources: Vec<Source>,
    /// The keys that were unset, each with the file or argument that did so.
    unset: BTreeMap<String, String>,
}

impl Layers {
    /// Collects the chosen method's defaults, the base file, the chosen file of each group, a run's own
    /// config and the single values, in this order. Checks keys and values.
    ///
    /// # Errors
    /// Returns an error that names the key, the file or argument, what was found and what was expected.
    pub(super) fn new(
        overrides: &[Override],
        run: Option<GroupFile>,
        files: Files,
    ) -> Result<Self, ConfigError> {
        let given = given(overrides, run, files)?;
        let chosen = Chosen::of(&given)?;
        let mut layers = Self::of_defaults(chosen.entry());
        for (place, one) in given.into_iter().enumerate() {
            // Keys of a method that a later file or argument replaces are checked, but not used.
            let is_left = place < chosen.since;
            let schema = Schema::of(chosen.at[place]);
            match one {
                Given::Label(source) => layers.sources.push(source),
                Given::File(source) => layers.push_file(source, schema, chosen.entry(), is_left)?,
                Given::Run(source) => layers.push_run(source, schema, chosen.entry(), is_left)?,
                Given::Argument(argument) => layers.push_argument(argument, chosen.entry())?,
            }
        }
        Ok(layers)
    }

    fn of_defaults(entry: &Entry) -> Self {
        let origin = format!("the default of the method {}", entry.name());
        let table = nested(METHOD, entry.default_method().settings().into());
        Self { sources: vec![Source { origin, table }], unset: BTreeMap::new() }
    }

    fn push_file(
        &mut self,
        Source { origin, mut table }: Source,
        schema: Schema,
        chosen: &Entry,
        is_left: bool,
    ) -> Result<(), ConfigError> {
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
                if !(is_left && of_method(&key).is_some()) {
                    self.unset(&key, &origin);
                }
            }
        }
        let single = scoped::take(&mut table, &origin)?;
        let mut table = conform(table, "", schema, &origin)?;
        if is_left {
            table.remove(METHOD);
        }
        for (entry, settings) in single {
            let settings = conform(nested(METHOD, settings.into()), "", Schema::of(entry), &origin)?;
            if entry.name() == chosen.name() {
                table = merge(table, &settings);
            }
        }
        self.sources.push(Source { origin, table });
        Ok(())
    }

    /// Adds a run's own config, of either format. It is complete: a key that it does not set was unset.
    fn push_run(
        &mut self,
        Source { origin, mut table }: Source,
        schema: Schema,
        chosen: &Entry,
        is_left: bool,
    ) -> Result<(), ConfigError> {
        if let Some(format) =
            table.remove(FORMAT_KEY).filter(|format| format.as_integer() != Some(FORMAT.into()))
        {
            return Err(ConfigError::Value {
                key: FORMAT_KEY.into(),
                origin,
                found: format.to_string(),
                expected: format!("{FORMAT}, or none: a later version of this program wrote it"),
            });
        }
        let is_absent =
            |key: &String| lookup(&table, key).is_none() && !OUTSIDE_IDENTITY.contains(&key.as_str());
        let mut absent: Vec<String> = schema.optional().into_iter().filter(is_absent).collect();
        absent.retain(|key| !(is_left && of_method(key).is_some()));
        for key in absent {
            self.unset(&key, &origin);
        }
        self.push_file(Source { origin, table }, schema, chosen, is_left)
    }

    fn push_argument(&mut self, argument: &Override, chosen: &'static Entry) -> Result<(), ConfigError> {
        let origin = argument.origin();
        let (argument, entry) = match scoped::scoped(&argument.key) {
            Some((method, key)) => {
                let entry = scoped::entry(method, &argument.key, &origin)?;
                (argument.renamed(key), entry)
            }
            None => (argument.clone(), chosen),
        };
        let (key, schema) = (&argument.key, Schema::of(entry));
        match Self::value(&argument, schema, &origin)? {
            _ if entry.name() != chosen.name() => {}
            Some(value) => {
                let table = conform(nested(key, value), "", schema, &origin)?;
                self.sources.push(Source { origin, table });
            }
            None => self.unset(key, &origin),
        }
        Ok(())
    }

    /// Returns the value that an argument gives its key, or `None` if it unsets the key.
    ///
    /// # Errors
    /// Returns an error if there is no such key, the text is not a value of its kind, or a required key would
    /// be unset.
    pub(super) fn argument(argument: &Override, schema: Schema) -> Result<Option<toml::Value>, ConfigError> {
        Self::value(argument, schema, &argument.origin())
    }

    fn value(argument: &Override, schema: Schema, origin: &str) -> Result<Option<toml::Value>, ConfigError> {
        let key = &argument.key;
        let wrong = |found: String, expected: String| ConfigError::Value {
            key: key.clone(),
            origin: origin.to_owned(),
            found,
            expected,
        };
        let Some(kind) = schema.kind(key) else { return Err(unknown(schema, key, origin)) };
        if key == "profile.reduced" {
            let expected = "no such argument: a profile's file and the sizes say whether a run is reduced";
            return Err(wrong(argument.text.clone(), expected.into()));
        }
        match argument.read(kind).map_err(|Unfit { found, expected }| wrong(found, expected))? {
            Reading::Value(value) => Ok(Some(value)),
            Reading::Unset => check_optional(schema, key, true, origin).map(|()| None),
        }
    }

    /// Removes `key` from all files and arguments so far.
    fn unset(&mut self, key: &str, origin: &str) {
        for source in &mut self.sources {
            remove(&mut source.table, key);
        }
        self.unset.insert(key.to_owned(), origin.to_owned());
    }

    /// Returns all files and arguments merged into one table.
    pub(super) fn merged(&self) -> toml::Table {
        self.sources.iter().fold(toml::Table::new(), |merged, source| merge(merged, &source.table))
    }

    /// Returns all files and arguments merged into a config, which is not checked yet.
    ///
    /// # Errors
    /// Returns an error if a value is missing or of the wrong type.
    pub(super) fn extract(&self) -> Result<Config, ConfigError> {
        let figment = self.figment();
        // The method's settings are read on their own first: for a value that the method does not accept, its
        // own error says more than figment's error for the whole config.
        if let Err(Refusal { key, found, expected }) = self.method() {
            let key = format!("{METHOD}.{key}");
            return Err(ConfigError::Value { origin: self.origins()(&key), key, found, expected });
        }
        figment.extract().map_err(|error| type_error(&figment, error))
    }

    fn method(&self) -> Result<(), Refusal> {
        let mut merged = self.merged();
        let Some(toml::Value::Table(method)) = merged.get_mut(METHOD) else { return Ok(()) };
        let name = method.remove(NAME);
        let name = name.as_ref().and_then(toml::Value::as_str).unwrap_or_default();
        Registry::installed().entry(name).map_or(Ok(()), |entry| entry.read(method).map(drop))
    }

    /// Returns a function that names the file or argument that set a key.
    pub(super) fn origins(&self) -> impl Fn(&str) -> String {
        let figment = self.figment();
        move |key| {
            figment
                .find_metadata(key)
                .map_or_else(|| "the built-in default".to_owned(), |m| m.name.to_string())
        }
    }

    /// Returns the keys that were unset and have no value now, each with the file or argument that unset it.
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

/// Collects the base file, the chosen file of each group, a run's own config and the single values.
fn given(
    overrides: &[Override],
    run: Option<GroupFile>,
    files: Files,
) -> Result<Vec<Given<'_>>, ConfigError> {
    check_ranges(overrides)?;
    let base = read("config.toml", files)?.ok_or_else(|| ConfigError::File {
        file: "experiments/config.toml".into(),
        reason: "it is missing".into(),
    })?;
    let mut table = parse(&base)?;
    let mut chosen = default_choices(&base.origin, table.remove("defaults"))?;
    let mut given = vec![Given::File(Source { origin: base.origin, table })];
    let (choices, mut values): (Vec<_>, Vec<_>) =
        overrides.iter().partition(|one| GROUPS.contains(&one.key.as_str()));
    for choice in choices {
        chosen.insert(choice.key.clone(), (choice.word(), choice.origin()));
    }
    // A group's file that an argument chooses wins over a run's config, as a single value does.
    let over_run = |group: &str| run.is_some() && overrides.iter().any(|one| one.key == group);
    let (late, early): (Vec<&str>, Vec<&str>) = GROUPS.into_iter().partition(|group| over_run(group));
    let mut group = |group: &str| -> Result<Vec<Given<'_>>, ConfigError> {
        let Some((name, origin)) = chosen.remove(group) else { return Ok(Vec::new()) };
        let file = choose(group, &name, files)?;
        let table = parse(&file)?;
        let label = nested(&format!("groups.{group}"), name.into());
        Ok(vec![
            Given::File(Source { origin: file.origin, table }),
            Given::Label(Source { origin, table: label }),
        ])
    };
    for name in early {
        given.extend(group(name)?);
    }
    if let Some(run) = run {
        let table = parse(&run)?;
        let table = if first_format::is_first(&table) { first_format::to_second(table) } else { table };
        given.push(Given::Run(Source { origin: run.origin, table }));
    }
    for name in late {
        given.extend(group(name)?);
    }
    // `method.name` is put first, wherever it was typed: the other keys of `[method]` belong to the method
    // that it names.
    values.sort_by_key(|value| value.key != name_key());
    given.extend(values.into_iter().map(Given::Argument));
    Ok(given)
}

/// Returns the error for a key that does not exist.
fn unknown(schema: Schema, key: &str, origin: &str) -> ConfigError {
    let (key, origin) = (key.to_owned(), origin.to_owned());
    let Some(method) = schema.method() else {
        return ConfigError::UnknownKey { nearest: schema.nearest(&key), key, origin };
    };
    if let Some(went) = first_format::where_it_went(&key, method.name()) {
        return ConfigError::Moved { key, origin, went };
    }
    let Some(name) = of_method(&key) else {
        return ConfigError::UnknownKey { nearest: schema.nearest(&key), key, origin };
    };
    let owns = |entry: &&Entry| entry.key(name).is_some();
    let owners: Vec<&str> = Registry::installed().entries().iter().filter(owns).map(Entry::name).collect();
    let keys: Vec<String> = schema.method_keys().collect();
    let method = method.name();
    let mut known = match keys.as_slice() {
        [] => format!("the chosen method {method} has no keys"),
        keys => format!("the chosen method {method} has {}", keys.join(", ")),
    };
    if let Some(meant) = nearest(&key, keys.iter().map(String::as_str)) {
        known.extend(["; did you mean `", &meant, "`?"]);
    }
    if !owners.is_empty() {
        known.extend(["; it is a key of ", &owners.join(", ")]);
    }
    ConfigError::MethodKey { key, origin, known }
}

/// Checks that `key` may be left out.
fn check_optional(schema: Schema, key: &str, known: bool, origin: &str) -> Result<(), ConfigError> {
    if !known {
        return Err(unknown(schema, key, origin));
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

/// Returns the table with each value converted to the kind of its key.
fn conform(
    table: toml::Table,
    prefix: &str,
    schema: Schema,
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
                return Err(unknown(schema, &key, origin));
            }
        };
        conformed.insert(name, value);
    }
    Ok(conformed)
}

/// Returns our error for figment's error on a value of the wrong type.
fn type_error(figment: &Figment, error: figment::Error) -> ConfigError {
    let key = error.path.join(".");
    let origin = error
        .metadata
        .as_ref()
        .map(|m| m.name.to_string())
        .or_else(|| figment.find_metadata(&key).map(|m| m.name.to_string()))
        .unwrap_or_else(|| "the merged config".into());
    if let Fault::UnknownField(field, expected) = error.kind {
        let nearest = nearest(&field, expected.iter().copied());
        let key = if key.is_empty() { field } else { format!("{key}.{field}") };
        return ConfigError::UnknownKey { key, origin, nearest };
    }
    let (found, expected) = found_and_expected(&error.kind);
    ConfigError::Value { key, origin, found, expected }
}
