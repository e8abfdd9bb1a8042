//! What makes two runs the same: the part of a config that can change a result, as text, and its hash.
//!
//! Left out are the seed (it is part of a run's name), where data and runs lie, and labels. The device stays: another device rounds
//! differently.

use super::sections::{
    CONTENT, Device, EvalSection, LossSection, MethodSection, ModelSection, OptimSection, Precision,
    ProtocolSection, is_content,
};
use super::{Config, ConfigError};
use invaspread_augment::AugmentConfig;
use invaspread_data::DataConfig;
use invaspread_tensor::DeviceKind;
use serde::Serialize;

/// Hexadecimal digits of a hash in names: 48 bits, far more than the runs one folder will ever hold.
const DIGITS: usize = 12;

/// What is hashed, in this order. Written field by field and not as a table, whose order depends on how the toml crate was built.
#[derive(Serialize)]
struct Identity<'a> {
    device: Device,
    precision: Precision,
    data: DataConfig,
    model: &'a ModelSection,
    method: &'a MethodSection,
    loss: &'a LossSection,
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
        let mut model = self.model.clone();
        if let Some(path) = model.weights.as_mut().filter(|path| !is_content(path)) {
            // Where the file lies changes no result; what it holds does.
            let bytes = std::fs::read(&*path).map_err(|error| ConfigError::File {
                file: path.display().to_string(),
                reason: format!("failed to read it: {error}; model.weights names a file of weights"),
            })?;
            *path = format!("{CONTENT}{}", blake3::hash(&bytes).to_hex()).into();
        }
        text(&Identity {
            // `auto` is whatever it comes to here.
            device: match self.device.resolve() {
                DeviceKind::Cpu => Device::Cpu,
                DeviceKind::Cuda => Device::Cuda,
            },
            precision: self.precision,
            data: DataConfig { root: None, cache: None, ..self.data.clone() },
            model: &model,
            method: &self.method,
            loss: &self.loss,
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
        let hash = blake3::hash(self.identity()?.as_bytes());
        Ok(hash.to_hex()[..DIGITS].to_owned())
    }

    /// The whole config as TOML; reads back as itself.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        text(self)
    }
}

fn text(value: &impl Serialize) -> Result<String, ConfigError> {
    toml::to_string(value)
        .map_err(|error| ConfigError::File { file: "the resolved config".into(), reason: error.to_string() })
}
