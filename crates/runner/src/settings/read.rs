//! Reads a struct of settings from a table of values, and describes values that do not fit.

use figment::error::Kind as Fault;
use figment::value::Value;
use serde::de::DeserializeOwned;

/// The error for a value that a key does not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: found {found}, expected {expected}")]
pub struct Refusal {
    /// The key, without the name of its section.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

impl Refusal {
    /// Checks that `is_good`, which says whether the key accepts the value.
    ///
    /// # Errors
    /// Returns a refusal with the key, the value and what was expected, unless `is_good`.
    #[allow(clippy::needless_pass_by_value, reason = "a number is given as it is")]
    pub fn unless(is_good: bool, key: &str, found: impl ToString, expected: &str) -> Result<(), Self> {
        if is_good {
            return Ok(());
        }
        Err(Self { key: key.to_owned(), found: found.to_string(), expected: expected.to_owned() })
    }
}

/// Reads settings from the values of their keys.
///
/// # Errors
/// Returns an error if a value is missing, of another type, or unknown.
#[allow(clippy::result_large_err, reason = "figment's own error, kept for a moment")]
pub(crate) fn read<S: DeserializeOwned>(table: &toml::Table) -> Result<S, Refusal> {
    let read = Value::serialize(table).and_then(|value| value.deserialize::<S>());
    read.map_err(|error| {
        let (found, expected) = found_and_expected(&error.kind);
        Refusal { key: error.path.join("."), found, expected }
    })
}

/// Returns what figment found and what it expected, in words that need no knowledge of Rust.
pub(crate) fn found_and_expected(fault: &Fault) -> (String, String) {
    match fault {
        Fault::InvalidType(found, expected) | Fault::InvalidValue(found, expected) => {
            (found.to_string(), type_in_words(expected).to_owned())
        }
        Fault::InvalidLength(found, expected) => (format!("{found} values"), expected.clone()),
        Fault::UnknownVariant(found, expected) => {
            (format!("`{found}`"), format!("one of {}", expected.join(", ")))
        }
        Fault::MissingField(field) => ("nothing".into(), format!("a value for `{field}`")),
        Fault::UnknownField(field, expected) => {
            (format!("the key `{field}`"), format!("one of {}", expected.join(", ")))
        }
        other => (other.to_string(), "another value".into()),
    }
}

/// Returns serde's name of a type in words that need no knowledge of Rust.
fn type_in_words(expected: &str) -> &str {
    match expected {
        "u64" | "usize" => "a whole number, 0 or more",
        "f64" | "f32" => "a number",
        "a boolean" | "bool" => "true or false",
        "path string" => "a path",
        other => other,
    }
}
