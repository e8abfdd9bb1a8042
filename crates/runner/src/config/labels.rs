//! What a record calls a run: names of what ran, taken from the resolved values. A group's file may be called anything, and single keys may
//! change what it says.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::groups::{Files, GROUPS, built_in};
use super::layers::Layers;
use super::schema::{METHOD, leaves, lookup, of_method};
use super::scoped::of_chosen_method;
use super::sections::{Architecture, ModelSection, StemName};
use super::{Config, ConfigError, Override};
use crate::launch::Labels;
use crate::methods::NAME;

/// Changed keys that a label names; it counts the others.
const MOST_NAMED: usize = 3;

/// Sizes that make a run a reduced one where they are smaller than its groups say.
const SIZES: [&str; 6] = [
    "optim.epochs",
    "model.width",
    "data.subset",
    "data.test_subset",
    "data.synthetic.train",
    "data.synthetic.test",
];

/// Keys that a choice of `protocol` is about.
static PROTOCOL: LazyLock<BTreeSet<String>> = LazyLock::new(|| keys_of("protocol"));

/// Keys that a choice of `profile` is about: how large a run is.
static PROFILE: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    keys_of("profile").into_iter().filter(|key| !PROTOCOL.contains(key) && key != "profile.reduced").collect()
});

fn keys_of(group: &str) -> BTreeSet<String> {
    let table = |text: &str| text.parse::<toml::Table>().expect("a built-in file is TOML");
    built_in(group).flat_map(|text| leaves(&table(text))).map(|key| of_chosen_method(&key)).collect()
}

/// One run that is asked for.
pub(super) struct Asked<'a> {
    /// The suite under whose name it is kept.
    pub(super) suite: Option<&'a str>,
    /// The suite's row.
    pub(super) row: Option<&'a str>,
    /// What tables call the row, where the suite says it.
    pub(super) label: Option<&'a str>,
    /// The suite's and the row's own settings.
    pub(super) own: &'a [Override],
    /// What was typed beside them.
    pub(super) typed: &'a [Override],
    /// That of it in which the runs of the sweep differ.
    pub(super) varied: &'a [String],
}

/// What the choices of groups come to without the single keys that somebody typed: what the groups' names promise.
pub(super) struct Promised(toml::Table);

impl Promised {
    /// By the groups of `config` and the single keys in `own`, which are a suite's.
    ///
    /// # Errors
    /// If a group's file cannot be read.
    pub(super) fn new(config: &Config, own: &[Override]) -> Result<Self, ConfigError> {
        let groups = &config.groups;
        let names = [
            &groups.dataset,
            &groups.model,
            &groups.method,
            &groups.augment,
            &groups.optim,
            &groups.protocol,
            &groups.profile,
        ];
        let mut overrides = Vec::new();
        for (group, name) in GROUPS.iter().zip(names) {
            overrides.push(Override::parse(&format!("{group}={name}"))?);
        }
        overrides.extend(own.iter().filter(|one| !GROUPS.contains(&one.key.as_str())).cloned());
        // A file under ./experiments may say something else than the built-in one whose name it bears.
        Ok(Self(Layers::new(&overrides, None, Files::BuiltIn)?.extract()?.table()?))
    }

    fn word(&self, key: &str) -> Option<&str> {
        lookup(&self.0, key)?.as_str()
    }
}

impl Config {
    /// Returns the names of what this config runs, as it was asked for.
    ///
    /// # Errors
    /// If the config cannot be written as TOML.
    pub(super) fn labels(&self, promised: &Promised, asked: &Asked<'_>) -> Result<Labels, ConfigError> {
        let Asked { row, label, typed, varied, .. } = *asked;
        let values = self.table()?;
        let method = self.method.name().to_owned();
        let name = format!("{METHOD}.{NAME}");
        let row = match row {
            Some(row) => row.to_owned(),
            // A method's file of one's own has a name that its owner chose, as long as it is what ran.
            None if promised.word(&name) == Some(&method) => self.groups.method.clone(),
            None => method.clone(),
        };
        // Of another method than promised, the keys are others too.
        let is_comparable =
            |key: &str| of_method(key).is_none() || promised.word(&name) == Some(self.method.name());
        let changed = |key: &&String| is_comparable(key) && lookup(&values, key) != lookup(&promised.0, key);
        let with = |group: &str, keys: &BTreeSet<String>| {
            let all: Vec<&String> = keys.iter().filter(changed).collect();
            let named = all.iter().take(MOST_NAMED).map(|key| match lookup(&values, key) {
                Some(value) => format!("{key}={value}"),
                None => format!("{key}=null"),
            });
            let named: Vec<String> = named.collect();
            match all.len() {
                0 => group.to_owned(),
                1..=MOST_NAMED => format!("{group} with {}", named.join(", ")),
                more => format!("{group} with {} and {} more", named.join(", "), more - MOST_NAMED),
            }
        };
        let of_method = (row == method).then(|| self.method.label());
        Ok(Labels {
            row,
            label: label.or(of_method).map(str::to_owned),
            method,
            dataset: self.dataset_label(promised),
            profile: with(&self.groups.profile, &PROFILE),
            device: self.device.name().into(),
            model: model_label(&self.model),
            protocol: with(&self.groups.protocol, &PROTOCOL),
            arguments: typed
                .iter()
                .filter(|one| !is_said_elsewhere(&one.key))
                .map(Override::argument)
                .collect(),
            varied: varied.to_vec(),
            reduced: self.profile.reduced || SIZES.iter().any(|key| is_smaller(&values, &promised.0, key)),
        })
    }

    /// The data set's name; behind it that of its file, where someone chose a file of their own.
    fn dataset_label(&self, promised: &Promised) -> String {
        let (name, file) = (&self.data.name, &self.groups.dataset);
        let folder = self.data.folder.path.as_deref().and_then(|path| path.to_str());
        let as_promised =
            promised.word("data.name") == Some(name) && promised.word("data.folder.path") == folder;
        if as_promised && name != file { format!("{name} ({file})") } else { name.clone() }
    }
}

/// The network as the built-in files call it.
fn model_label(model: &ModelSection) -> String {
    match model.architecture.unwrap_or_default() {
        Architecture::InceptionV1 => "inception_v1".to_owned(),
        Architecture::Resnet => {
            let stem = match model.stem.unwrap_or_default() {
                StemName::Cifar => "",
                StemName::Imagenet => "_imagenet",
            };
            format!("resnet{}{stem}", model.depth)
        }
    }
}

/// Whether a size is smaller than promised; none at all is everything there is.
fn is_smaller(values: &toml::Table, promised: &toml::Table, key: &str) -> bool {
    let size = |table| lookup(table, key).and_then(toml::Value::as_integer).unwrap_or(i64::MAX);
    size(values) < size(promised)
}

/// Whether a record says under another name what an argument of this key sets, or it is where files lie on this machine.
fn is_said_elsewhere(key: &str) -> bool {
    matches!(
        key,
        "seed" | "profile" | "device" | "data.root" | "data.cache" | "runs.root" | "runs.checkpoint_seconds"
    )
}
