//! The labels of a run in its record. They are taken from the resolved values, because a group's file may
//! have any name and single keys may change its values.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::groups::METHOD;
use super::groups::{Files, GROUPS, built_in};
use super::launcher::is_of_launcher;
use super::layers::Layers;
use super::schema::of_method;
use super::scoped::of_chosen_method;
use super::sections::{Architecture, ModelSection, StemName};
use super::tables::{leaves, lookup};
use super::{Config, ConfigError, Override};
use crate::launch::Labels;
use crate::methods::NAME;

/// Number of changed keys that a label names; further ones are counted.
const MOST_NAMED: usize = 3;

/// The key of a size that a vision transformer does not have.
const WIDTH: &str = "model.width";
/// The keys of sizes. A run is a reduced one if one of them is smaller than in the files of its groups.
const SIZES: [&str; 6] =
    ["optim.epochs", WIDTH, "data.subset", "data.test_subset", "data.synthetic.train", "data.synthetic.test"];

/// The keys that say which data set is read, and from where.
const SOURCES: [&str; 8] = [
    "data.name",
    "data.folder.path",
    "data.webdataset.path",
    "data.webdataset.train",
    "data.webdataset.test",
    "data.parquet.path",
    "data.parquet.train",
    "data.parquet.test",
];

/// The keys that a `protocol` sets.
static PROTOCOL: LazyLock<BTreeSet<String>> = LazyLock::new(|| keys_of("protocol"));

/// The keys that a `profile` sets, without those of a `protocol`: the size of a run.
static PROFILE: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    keys_of("profile").into_iter().filter(|key| !PROTOCOL.contains(key) && key != "profile.reduced").collect()
});

fn keys_of(group: &str) -> BTreeSet<String> {
    let table = |text: &str| text.parse::<toml::Table>().expect("a built-in file is TOML");
    built_in(group).flat_map(|text| leaves(&table(text))).map(|key| of_chosen_method(&key)).collect()
}

/// A run that was asked for.
pub(super) struct Asked<'a> {
    /// The suite whose folder holds it.
    pub(super) suite: Option<&'a str>,
    /// The suite's row.
    pub(super) row: Option<&'a str>,
    /// The name of the row in tables, if the suite sets one.
    pub(super) label: Option<&'a str>,
    /// The settings of the suite and of the row.
    pub(super) own: &'a [Override],
    /// The settings that were typed.
    pub(super) typed: &'a [Override],
    /// Those typed settings in which the runs of the sweep differ.
    pub(super) varied: &'a [String],
}

/// The values that the chosen files of the groups set, without the single keys that were typed. A reader who
/// sees only the names of the groups expects these values.
pub(super) struct Promised(toml::Table);

impl Promised {
    /// Resolves the groups of `config` and the single keys in `own`, which a suite sets.
    ///
    /// # Errors
    /// Returns an error if a group's file cannot be read.
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
        // A file under ./experiments may have other values than the built-in one of the same name.
        Ok(Self(Layers::new(&overrides, None, Files::BuiltIn)?.extract()?.table()?))
    }

    fn word(&self, key: &str) -> Option<&str> {
        lookup(&self.0, key)?.as_str()
    }
}

impl Config {
    /// Returns the labels of the run that this config describes.
    ///
    /// # Errors
    /// Returns an error if the config cannot be written as TOML.
    pub(super) fn labels(&self, promised: &Promised, asked: &Asked<'_>) -> Result<Labels, ConfigError> {
        let Asked { row, label, typed, varied, .. } = *asked;
        let values = self.table()?;
        let method = self.method.name().to_owned();
        let name = format!("{METHOD}.{NAME}");
        let row = match row {
            Some(row) => row.to_owned(),
            // A user's own file of a method gives the row its name, if the file's method is the one that ran.
            None if promised.word(&name) == Some(&method) => self.groups.method.clone(),
            None => method.clone(),
        };
        // If the method is not the promised one, its keys are not comparable either.
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
            dataset: self.dataset_label(&values, promised),
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
            reduced: self.profile.reduced
                || SIZES
                    .iter()
                    .filter(|&&key| key != WIDTH || !self.model.is_vit())
                    .any(|key| is_smaller(&values, &promised.0, key)),
            held_out: self.data.held_out == Some(true),
        })
    }

    /// Returns the name of the data set, followed by the name of its file if the two differ.
    fn dataset_label(&self, values: &toml::Table, promised: &Promised) -> String {
        let (name, file) = (&self.data.name, &self.groups.dataset);
        let as_promised = SOURCES.iter().all(|key| lookup(values, key) == lookup(&promised.0, key));
        if as_promised && name != file { format!("{name} ({file})") } else { name.clone() }
    }
}

/// Returns the network's name in the built-in files.
fn model_label(model: &ModelSection) -> String {
    match model.architecture.unwrap_or_default() {
        Architecture::InceptionV1 => "inception_v1".to_owned(),
        Architecture::VitTiny => "vit_tiny".to_owned(),
        Architecture::VitSmall => "vit_small".to_owned(),
        Architecture::Resnet => {
            let stem = match model.stem.unwrap_or_default() {
                StemName::Cifar => "",
                StemName::Imagenet => "_imagenet",
            };
            format!("resnet{}{stem}", model.depth)
        }
    }
}

/// Returns whether a size is smaller than promised. A size that is not set means all images or epochs.
fn is_smaller(values: &toml::Table, promised: &toml::Table, key: &str) -> bool {
    let size = |table| lookup(table, key).and_then(toml::Value::as_integer).unwrap_or(i64::MAX);
    size(values) < size(promised)
}

/// Returns whether a record holds the value of this key under another name, or whether the key is a folder on
/// this machine, or says where the run is done.
fn is_said_elsewhere(key: &str) -> bool {
    matches!(
        key,
        "seed"
            | "profile"
            | "device"
            | "data.root"
            | "data.cache"
            | "runs.root"
            | "runs.checkpoint_seconds"
            | "runs.lease_seconds"
    ) || is_of_launcher(key)
}
