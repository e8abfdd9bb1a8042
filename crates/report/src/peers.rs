//! The numbers that other libraries print about their own runs, embedded in the binary. Reports show them
//! only under the library's name, never as measurements.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// A library's printed numbers for one data set and metric.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The library's name.
    pub name: String,
    /// The address of the page that prints the numbers.
    pub source: String,
    /// The day on which the page was read, `YYYY-MM-DD`.
    pub read: String,
    /// The data set.
    pub dataset: String,
    /// The metric, under the paper's name (`knn`).
    pub metric: String,
    /// What the numbers are, in words: a part of a sentence.
    pub about: String,
    /// The recipes that the page gives numbers for, in words.
    pub recipes: Vec<String>,
    /// The numbers of each row in percent, one for each recipe.
    pub rows: BTreeMap<String, Vec<f64>>,
}

/// Returns all libraries.
pub fn peers() -> impl Iterator<Item = &'static Peer> {
    static PARSED: LazyLock<BTreeMap<String, Peer>> = LazyLock::new(|| {
        // The file is part of this crate, so a mistake in it is a bug; the tests below read all of it.
        toml::from_str(include_str!("../assets/peers.toml")).expect("assets/peers.toml describes libraries")
    });
    PARSED.values()
}

impl Peer {
    /// Returns the number of a row under a recipe, by its place in [`Peer::recipes`].
    pub fn value(&self, row: &str, recipe: usize) -> Option<f64> {
        self.rows.get(row)?.get(recipe).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_share_for_each_recipe() {
        assert_eq!(peers().count(), 1);
        for peer in peers() {
            assert!(peer.source.starts_with("https://") && peer.read.len() == "2026-11-29".len());
            for (row, values) in &peer.rows {
                assert_eq!(values.len(), peer.recipes.len(), "{row}");
                assert!(values.iter().all(|value| (50.0..100.0).contains(value)), "{row}");
            }
        }
    }

    #[test]
    fn numbers_are_those_of_the_page() {
        let lightly = peers().next().expect("there is one");
        assert_eq!(lightly.value("simclr", 0), Some(84.7));
        assert_eq!(lightly.value("swav", 2), Some(88.4));
        assert_eq!(lightly.value("swav_multi_crop", 0), None);
        assert_eq!(lightly.value("simclr", 3), None);
    }
}
