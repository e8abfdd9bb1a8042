//! The identity of a run: the part of a config that can change a result, as text, and its hash.
//!
//! The seed (it is part of a run's name), the folders of data and runs, and labels are left out. The device
//! is kept, because another device rounds differently. If the data set's name does not determine its images
//! (a folder of images, a copy that is not the published one), the identity contains the hash of its
//! manifest.

use super::sections::{CONTENT, EvalSection, ModelSection, OptimSection, ProtocolSection, is_content};
use super::{Config, ConfigError};
use crate::methods::ChosenMethod;
use invaspread_augment::AugmentConfig;
use invaspread_data::DataConfig;
use invaspread_files::open_regular;
use serde::Serialize;

/// Key of a run's config that says in which format it is written.
pub(super) const FORMAT_KEY: &str = "format";

/// The format that is written now. It is part of the identity, so that a change of format renames runs once
/// and runs of two formats are never mixed. The first format had no number and held the settings of every
/// method; see `first_format`.
pub(super) const FORMAT: u32 = 2;

/// The manifest's hash if the images of the set cannot be listed. No run begins with it.
pub(crate) const NO_SET: &str = "none: the set cannot be read";

/// Hexadecimal digits of a hash in names. Their 48 bits are enough for all runs that one folder will ever
/// hold.
const DIGITS: usize = 12;

/// The hashed fields, in this order. They are written field by field and not as a table, whose order depends
/// on how the toml crate was built.
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
    /// Returns the config as TOML, without what cannot change a result. A run's hash is the hash of this
    /// text.
    ///
    /// # Errors
    /// Returns an error if a value cannot be written as TOML.
    pub fn identity(&self) -> Result<String, ConfigError> {
        self.identity_of(self.manifest()?)
    }

    /// Returns the hash of the manifest of the data set as it is now; `None` if the set's name determines its
    /// images, or if the set is a published one that is absent.
    ///
    /// # Errors
    /// Returns an error if `data.manifest` names another manifest.
    pub(super) fn manifest(&self) -> Result<Option<String>, ConfigError> {
        // Opening the set later gives the error that says why it cannot be listed.
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

    /// Returns [`Config::identity`] for a data set with the given manifest.
    pub(super) fn identity_of(&self, manifest: Option<String>) -> Result<String, ConfigError> {
        let mut model = self.model.for_identity();
        if let Some(path) = model.weights.as_mut().filter(|path| !is_content(path)) {
            // The place of the file changes no result; its content does.
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
            // `auto` is replaced by the device that is chosen on this machine. Which of its GPUs computes a
            // run does not change it.
            device: self.device.name(),
            precision: self.precision.name(),
            data: DataConfig {
                root: None,
                cache: None,
                manifest,
                // `false` is what holds without the key.
                held_out: self.data.held_out.filter(|held_out| *held_out),
                ..self.data.clone()
            },
            model: &model,
            method: &self.method,
            augment: &self.augment,
            optim: &self.optim,
            protocol: &self.protocol,
            eval: &self.eval,
        })
    }

    /// Returns the first digits of the BLAKE3 hash of [`Config::identity`].
    ///
    /// # Errors
    /// Returns the errors of [`Config::identity`].
    pub fn hash(&self) -> Result<String, ConfigError> {
        Ok(hash_of(&self.identity()?))
    }

    /// Returns the whole config as a table.
    pub(super) fn table(&self) -> Result<toml::Table, ConfigError> {
        toml::Table::try_from(self).map_err(|error| ConfigError::File {
            file: "the resolved config".into(),
            reason: error.to_string(),
        })
    }

    /// Returns the whole config as TOML, from which the same config can be read.
    ///
    /// # Errors
    /// Returns an error if a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        text(self)
    }
}

/// Returns the hash of an identity.
pub(super) fn hash_of(identity: &str) -> String {
    blake3::hash(identity.as_bytes()).to_hex()[..DIGITS].to_owned()
}

/// Returns an identity without the line that says which images it is for. Two runs with the same settings
/// differ only in that line.
pub(crate) fn without_manifest(identity: &str) -> String {
    identity.split_inclusive('\n').filter(|line| !line.starts_with(MANIFEST_LINE)).collect()
}

/// Returns the manifest's hash that an identity has, if it has one.
pub(crate) fn manifest_in(identity: &str) -> Option<&str> {
    identity.lines().find_map(|line| line.strip_prefix(MANIFEST_LINE)?.strip_suffix('"'))
}

/// The start of the line that holds [`DataConfig::manifest`].
const MANIFEST_LINE: &str = "manifest = \"";

fn text(value: &impl Serialize) -> Result<String, ConfigError> {
    toml::to_string(value)
        .map_err(|error| ConfigError::File { file: "the resolved config".into(), reason: error.to_string() })
}
