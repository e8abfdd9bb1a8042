//! What makes two runs the same: the part of a config that can change a result, as text, and its hash.
//!
//! Left out are the seed (it is part of a run's name), where data and runs lie, and labels. The device stays: another device rounds
//! differently. Where the data set's name does not say what it holds (a folder of images, a copy that is not the published one), the hash
//! of its manifest does.

use super::sections::{CONTENT, EvalSection, ModelSection, OptimSection, ProtocolSection, is_content};
use super::{Config, ConfigError};
use crate::methods::ChosenMethod;
use invaspread_augment::AugmentConfig;
use invaspread_data::DataConfig;
use invaspread_files::open_regular;
use serde::Serialize;

/// Key of a run's config that says in which format it is written.
pub(super) const FORMAT_KEY: &str = "format";

/// The format that is written now. It is part of the identity, so that a change of format renames runs once and never mixes two. The first
/// format, which did not say so, held the settings of every method; see `first_format`.
pub(super) const FORMAT: u32 = 2;

/// In place of a manifest's hash where the set cannot be looked through. No run begins with it.
pub(crate) const NO_SET: &str = "none: the set cannot be read";

/// Hexadecimal digits of a hash in names: 48 bits, far more than the runs one folder will ever hold.
const DIGITS: usize = 12;

/// What is hashed, in this order. Written field by field and not as a table, whose order depends on how the toml crate was built.
#[derive(Serialize)]
struct Identity<'a> {
    format: u32,
    device: &'static str,
    precision: &'static str,
    data: DataConfig,
    model: &'a ModelSection,
    method: &'a ChosenMethod,
    augment: &'a AugmentConfig,
    optim: &'a OptimSection,
    protocol: &'a ProtocolSection,
    eval: &'a EvalSection,
}

impl Config {
    /// The config as TOML without what cannot change a result; what a run's hash is taken of.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn identity(&self) -> Result<String, ConfigError> {
        self.identity_of(self.manifest()?)
    }

    /// The hash of the manifest of the data set as it is now; `None` where the set's name says what it holds, and for a published set
    /// that is not there.
    ///
    /// # Errors
    /// If `data.manifest` names another one.
    pub(super) fn manifest(&self) -> Result<Option<String>, ConfigError> {
        // Why the set cannot be looked through is said when it is opened.
        let found = invaspread_data::recent_hash(&self.data).unwrap_or_else(|_| Some(NO_SET.to_owned()));
        match &self.data.manifest {
            Some(asked) if found.as_ref().is_none_or(|found| found != asked && found != NO_SET) => {
                Err(ConfigError::Value {
                    key: "data.manifest".to_owned(),
                    origin: "the config".to_owned(),
                    found: asked.clone(),
                    expected: match found {
                        Some(found) => format!(
                            "{found}, which the images have now; without this key they are taken as they are"
                        ),
                        None => "no such key: the set is the published one, or is not there".to_owned(),
                    },
                })
            }
            _ => Ok(found),
        }
    }

    /// [`Config::identity`] where the data set has the given manifest.
    pub(super) fn identity_of(&self, manifest: Option<String>) -> Result<String, ConfigError> {
        let mut model = self.model.clone();
        if let Some(path) = model.weights.as_mut().filter(|path| !is_content(path)) {
            // Where the file lies changes no result; what it holds does.
            let mut hash = blake3::Hasher::new();
            let read = open_regular(path).and_then(|file| hash.update_reader(file).map(drop));
            read.map_err(|error| ConfigError::File {
                file: path.display().to_string(),
                reason: format!("{error}; model.weights names a file of weights"),
            })?;
            *path = format!("{CONTENT}{}", hash.finalize().to_hex()).into();
        }
        text(&Identity {
            format: FORMAT,
            // `auto` is whatever it comes to here; which of the GPUs computes a run does not change it.
            device: self.device.name(),
            precision: self.precision.name(),
            data: DataConfig { root: None, cache: None, manifest, ..self.data.clone() },
            model: &model,
            method: &self.method,
            augment: &self.augment,
            optim: &self.optim,
            protocol: &self.protocol,
            eval: &self.eval,
        })
    }

    /// The first digits of the BLAKE3 hash of [`Config::identity`].
    ///
    /// # Errors
    /// As [`Config::identity`].
    pub fn hash(&self) -> Result<String, ConfigError> {
        Ok(hash_of(&self.identity()?))
    }

    /// The whole config as a table.
    pub(super) fn table(&self) -> Result<toml::Table, ConfigError> {
        toml::Table::try_from(self).map_err(|error| ConfigError::File {
            file: "the resolved config".into(),
            reason: error.to_string(),
        })
    }

    /// The whole config as TOML; reads back as itself.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        text(self)
    }
}

/// The hash of an identity.
pub(super) fn hash_of(identity: &str) -> String {
    blake3::hash(identity.as_bytes()).to_hex()[..DIGITS].to_owned()
}

/// An identity without the line that says which images it is of: two runs of the same settings differ in that line alone.
pub(crate) fn without_manifest(identity: &str) -> String {
    identity.split_inclusive('\n').filter(|line| !line.starts_with(MANIFEST_LINE)).collect()
}

/// The manifest's hash that an identity has, if it has one.
pub(crate) fn manifest_in(identity: &str) -> Option<&str> {
    identity.lines().find_map(|line| line.strip_prefix(MANIFEST_LINE)?.strip_suffix('"'))
}

/// How the line begins that [`DataConfig::manifest`] is written as.
const MANIFEST_LINE: &str = "manifest = \"";

fn text(value: &impl Serialize) -> Result<String, ConfigError> {
    toml::to_string(value)
        .map_err(|error| ConfigError::File { file: "the resolved config".into(), reason: error.to_string() })
}
