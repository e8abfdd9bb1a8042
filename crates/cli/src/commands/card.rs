//! The protocol card of a result: what a reader must know to compare the numbers with others.
//!
//! `measure` and `evaluate` have the same entries. One that does not apply, or that nobody can know from the input,
//! such as the layer of embeddings in a file, is null.

use crate::commands::measure::notes;
use invaspread_runner::engine::{KMeansStart, RetrievalRecipe, Selection};
use serde_json::{Map, Value, json};

/// The order of neighbors and of classes where their scores are equal.
const TIES: &str = "of rows with equal similarity the one with the lower index comes first; of classes with equal votes the lower one";
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
    /// How queries count for which there is nothing to find, by [`without_match`].
    pub(super) without_match: Option<String>,
    /// How rows are clustered for NMI and AMI, by [`clusters`].
    pub(super) clusters: Option<String>,
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
            ("without_match", json!(self.without_match)),
            ("clusters", json!(self.clusters)),
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
                Value::Object(parts) => {
                    let parts = parts.iter().map(|(name, value)| match value {
                        Value::String(text) => format!("{name}: {text}"),
                        other => format!("{name}: {other}"),
                    });
                    parts.collect::<Vec<_>>().join("; ")
                }
                other => other.to_string(),
            };
            format!("  {:<23} {value}", format!("{}:", name.replace('_', " ")))
        };
        std::iter::once("protocol".to_owned()).chain(self.entries().into_iter().map(line)).collect()
    }
}

/// Returns how queries count for which there is nothing to find, in the metrics that are measured.
pub(super) fn without_match(selection: &Selection, has_gallery: bool) -> Option<String> {
    let [missed, left_out] = notes::of_nothing_to_find(selection, has_gallery);
    let parts = [
        missed.map(|names| format!("missed in {names}")),
        left_out.map(|names| format!("left out of {names}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns how rows are clustered for NMI and AMI.
pub(super) fn clusters(recipe: &RetrievalRecipe) -> String {
    let starts = match recipe.kmeans_restarts {
        1 => "k-means from one start".to_owned(),
        starts => format!("the best k-means of {starts} starts"),
    };
    let start = match recipe.kmeans_start.unwrap_or_default() {
        KMeansStart::PlusPlus => "by k-means++",
        KMeansStart::Random => "at random rows",
    };
    format!("{starts} {start}, at most {} iterations", recipe.iterations())
}

#[cfg(test)]
mod tests {
    use super::{Card, Gallery, clusters, without_match};
    use invaspread_runner::engine::{KMeansStart, Metric, RetrievalRecipe, Selection};
    use serde_json::{Value, json};

    #[test]
    fn a_card_says_what_is_known_and_what_is_not() {
        let gallery = Gallery { name: "train.npz".to_owned(), rows: 7, votes: Some((5, 0.1)) };
        let intervals = Some(json!({ "level": 0.95, "units": "queries" }));
        let card =
            Card { test_rows: 3, gallery: Some(gallery), is_normalized: true, intervals, ..Card::default() };
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
        assert!(
            lines.contains(&"  intervals:              level: 0.95; units: queries".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn the_words_of_a_card_are_those_of_what_is_measured() {
        let of = |metrics: &[Metric], has_gallery| {
            without_match(&Selection { metrics: metrics.to_vec(), ..Selection::default() }, has_gallery)
        };
        assert_eq!(of(&[Metric::Knn], true).as_deref(), Some("missed in kNN"));
        assert_eq!(of(&[Metric::Knn, Metric::Shape], false), None);
        let both = of(&[Metric::Retrieval, Metric::Mrr], false);
        assert_eq!(both.as_deref(), Some("missed in R@K; left out of MAP@R, R-precision and MRR"));
        let usual = clusters(&RetrievalRecipe::default());
        assert_eq!(usual, "the best k-means of 10 starts by k-means++, at most 300 iterations");
        let (kmeans_iterations, kmeans_start) = (Some(25), Some(KMeansStart::Random));
        let faiss = RetrievalRecipe {
            kmeans_restarts: 1,
            kmeans_iterations,
            kmeans_start,
            ..RetrievalRecipe::default()
        };
        assert_eq!(clusters(&faiss), "k-means from one start at random rows, at most 25 iterations");
    }
}
