//! The protocol card of a result: what a reader must know to compare the numbers with others.
//!
//! `measure` and `evaluate` have the same entries. One that does not apply, or that nobody can know from the input,
//! such as the layer of embeddings in a file, is null.

use serde_json::{Map, Value, json};

/// The order of neighbors and of classes where their scores are equal.
const TIES: &str = "of rows with equal similarity the one with the lower index comes first; of classes with equal votes the lower one";
/// How queries count for which there is nothing to find.
const WITHOUT_MATCH: &str = "missed in kNN and R@K; left out of the other metrics";

/// What is stated beside the numbers.
#[derive(Debug, Default)]
pub(super) struct Card {
    /// The library whose protocol was asked for.
    pub(super) of_library: Option<&'static str>,
    /// The number of rows or images that are measured.
    pub(super) test_rows: usize,
    /// The rows that are searched; `None` if each test row is looked up among the others.
    pub(super) gallery: Option<Gallery>,
    /// Whether rows are scaled to length 1; similarity is then the cosine.
    pub(super) is_normalized: bool,
    /// The output of the network that is measured.
    pub(super) layer: Option<String>,
    /// The K of R@K, precision@K and CMC; empty if none of them is measured.
    pub(super) ks: Vec<usize>,
    /// The rows of its own source that a query leaves out.
    pub(super) same_source: Option<String>,
    /// How images become inputs.
    pub(super) resize: Option<String>,
    /// Which weights of a run these are: last or best.
    pub(super) epoch: Option<String>,
    /// How the intervals were computed.
    pub(super) intervals: Option<Value>,
}

/// The rows that are searched.
#[derive(Debug)]
pub(super) struct Gallery {
    /// The file or the part of the data set.
    pub(super) name: String,
    pub(super) rows: usize,
    /// k and the temperature of kNN, if it is measured.
    pub(super) votes: Option<(usize, f64)>,
}

impl Card {
    /// Returns the entries, in the order of a text.
    fn entries(&self) -> Vec<(&'static str, Value)> {
        let gallery = self.gallery.as_ref();
        let votes = gallery.and_then(|gallery| gallery.votes);
        let ranked = if self.is_normalized { "cosine similarity" } else { "inner product" };
        vec![
            ("as", json!(self.of_library)),
            ("test_rows", json!(self.test_rows)),
            (
                "gallery",
                json!(gallery.map_or("each test row among the others", |gallery| gallery.name.as_str())),
            ),
            ("gallery_rows", json!(gallery.map(|gallery| gallery.rows))),
            ("same_source_leaves_out", json!(self.same_source)),
            ("layer", json!(self.layer)),
            ("normalized", json!(self.is_normalized)),
            ("ranking", json!(ranked)),
            ("k", json!(votes.map(|(k, _)| k))),
            ("temperature", json!(votes.map(|(_, temperature)| temperature))),
            ("votes", json!(votes.map(|_| "exp(similarity / temperature) of each of the k nearest"))),
            ("recall_at", json!((!self.ks.is_empty()).then_some(&self.ks))),
            ("ties", json!(TIES)),
            ("without_match", json!(WITHOUT_MATCH)),
            ("resize", json!(self.resize)),
            ("epoch", json!(self.epoch)),
            ("intervals", json!(self.intervals)),
            ("program", json!(concat!("invaspread ", env!("CARGO_PKG_VERSION")))),
        ]
    }

    pub(super) fn as_json(&self) -> Value {
        Value::Object(
            self.entries().into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
        )
    }

    /// Returns the card as lines of text.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |(name, value): (&str, Value)| {
            let value = match value {
                Value::String(text) => text,
                Value::Null => "-".to_owned(),
                other => other.to_string(),
            };
            format!("  {:<23} {value}", format!("{}:", name.replace('_', " ")))
        };
        std::iter::once("protocol".to_owned()).chain(self.entries().into_iter().map(line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Card, Gallery};
    use serde_json::{Value, json};

    #[test]
    fn a_card_says_what_is_known_and_what_is_not() {
        let gallery = Gallery { name: "train.npz".to_owned(), rows: 7, votes: Some((5, 0.1)) };
        let card = Card { test_rows: 3, gallery: Some(gallery), is_normalized: true, ..Card::default() };
        let json = card.as_json();
        assert_eq!(
            (&json["k"], &json["temperature"], &json["gallery_rows"]),
            (&json!(5), &json!(0.1), &json!(7))
        );
        assert_eq!((&json["layer"], &json["recall_at"]), (&Value::Null, &Value::Null));
        let lines = card.lines();
        assert_eq!(lines.len(), 1 + json.as_object().map_or(0, serde_json::Map::len));
        assert!(lines.contains(&"  gallery:                train.npz".to_owned()), "{lines:?}");
        assert!(lines.contains(&"  layer:                  -".to_owned()), "{lines:?}");
    }
}
