//! The properties of rows that their keys determine: the names that the paper gives them, and their colors.
//! `assets/rows.toml` lists them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::color::Color;

/// The properties of a known row.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KnownRow {
    /// The name that the paper gives it.
    pub(crate) label: Option<String>,
    /// The color in every figure.
    pub(crate) color: Option<Color>,
    /// Whether it is the paper's own method, which figures emphasize.
    pub(crate) ours: bool,
    /// Whether it is an untrained network, which comes before all rows that no table puts into an order.
    pub(crate) first: bool,
    /// The column of the paper's learning curves that holds its curve.
    pub(crate) curve: Option<String>,
}

/// The known rows by their keys.
static KNOWN: LazyLock<BTreeMap<String, KnownRow>> = LazyLock::new(|| {
    toml::from_str(include_str!("../assets/rows.toml")).expect("assets/rows.toml describes rows")
});

/// Returns the properties of a row; `None` if the row is not known.
pub(crate) fn known(row: &str) -> Option<&'static KnownRow> {
    KNOWN.get(row)
}

/// Returns whether figures emphasize a row.
pub(crate) fn is_ours(row: &str) -> bool {
    known(row).is_some_and(|known| known.ours)
}

/// Returns the row whose curve the paper draws under this name.
pub(crate) fn of_curve(column: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(_, known)| known.curve.as_deref() == Some(column)).map(|(row, _)| row.as_str())
}
