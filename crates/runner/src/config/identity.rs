//! What makes two runs the same: the part of a config that can change a result, as text, and its hash.
//!
//! Left out are the seed (it is part of a run's name), where data and runs lie, and labels. The device stays: another device rounds
//! differently.

use super::{Config, ConfigError};

/// Hexadecimal digits of a hash in names: 48 bits, far more than the runs one folder will ever hold.
const DIGITS: usize = 12;

impl Config {
    /// The config as TOML without what cannot change a result; what a run's hash is taken of.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn identity(&self) -> Result<String, ConfigError> {
        let mut table = self.table()?;
        for key in ["seed", "groups", "profile", "runs"] {
            table.remove(key);
        }
        if let Some(toml::Value::Table(data)) = table.get_mut("data") {
            data.remove("root");
        }
        Ok(table.to_string())
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
        Ok(self.table()?.to_string())
    }

    fn table(&self) -> Result<toml::Table, ConfigError> {
        toml::Table::try_from(self).map_err(|error| ConfigError::File {
            file: "the resolved config".into(),
            reason: error.to_string(),
        })
    }
}
