//! The protocols of other libraries that `--as` sets.
//!
//! | name | kNN | rows | metrics | source |
//! |---|---|---|---|---|
//! | `paper` | k = 200, temperature 0.1 | of length 1 | the default ones | the paper, section 4.1, and the released `utils.py` |
//! | `lightly` | k = 200, temperature 0.1 | of length 1 | kNN | lightly 1.6, `utils/benchmarking/knn.py` and `knn_classifier.py` |
//! | `solo-learn` | k = 20, temperature 0.07 | as they are | kNN | solo-learn, `solo/utils/knn.py` and `main_knn.py`, `distance_fx = "cosine"` |
//! | `dino` | k = 20, temperature 0.07 | of length 1 | kNN | facebookresearch/dino, `eval_knn.py`, whose help says that 20 usually works best (it also prints 10, 100 and 200) |
//! | `pytorch-metric-learning` | none | of length 1 | R@1, precision@1, MAP@R, R-precision; among themselves NMI and AMI | pytorch-metric-learning 2.9, `AccuracyCalculator` |
//!
//! All votes are exp(similarity / temperature), relative to that of the nearest row, so that long rows, with which solo-learn's
//! exp overflows in f32, have votes too. Where these libraries leave ties to `torch.topk` and `torch.sort`, ours
//! are decided by the index and the class. solo-learn's cosine does not scale the rows, and while it trains it votes by
//! Euclidean distance, which `measure` does not. pytorch-metric-learning ranks by the Euclidean distance of the rows as they
//! are, which is the order here for rows of length 1; its precision_at_1 leaves out queries without a row to find, as
//! precision@1 does here, while R@1 counts them as missed. Its NMI and AMI cluster by faiss: one start at random rows, 25
//! iterations. So do ours here, with other random rows; they end sooner if the centroids stand still, and use all rows where
//! faiss draws at most 256 for each cluster.

use super::names::Names;
use crate::arguments::Peer;
use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_runner::config::Override;
use invaspread_runner::engine::Metric;

/// What a protocol sets, for `measure` and `evaluate`.
pub(in crate::commands) struct Protocol {
    pub(in crate::commands) name: &'static str,
    /// What sets them, in messages to the program's user and to Python's.
    set_by: [&'static str; 2],
    /// Keys and values of settings.
    settings: &'static [(&'static str, &'static str)],
    pub(in crate::commands) metrics: &'static [Metric],
    pub(in crate::commands) unscaled: bool,
    /// Whether it has no meaning without a gallery.
    pub(in crate::commands) needs_gallery: bool,
}

macro_rules! set_by {
    ($name:literal) => {
        [concat!("--as ", $name, ", which sets it to"), concat!("as_=\"", $name, "\", which sets it to")]
    };
}

/// Returns the protocol of a library.
pub(in crate::commands) fn of(peer: Peer) -> Protocol {
    const KNN: &[Metric] = &[Metric::Knn];
    match peer {
        Peer::Paper => Protocol {
            name: "paper",
            set_by: set_by!("paper"),
            settings: &[("eval.k", "200"), ("eval.temperature", "0.1")],
            metrics: &Metric::DEFAULT,
            unscaled: false,
            needs_gallery: false,
        },
        Peer::Lightly => Protocol {
            name: "lightly",
            set_by: set_by!("lightly"),
            settings: &[("eval.k", "200"), ("eval.temperature", "0.1")],
            metrics: KNN,
            unscaled: false,
            needs_gallery: true,
        },
        Peer::SoloLearn => Protocol {
            name: "solo-learn",
            set_by: set_by!("solo-learn"),
            settings: &[("eval.k", "20"), ("eval.temperature", "0.07")],
            metrics: KNN,
            unscaled: true,
            needs_gallery: true,
        },
        Peer::Dino => Protocol {
            name: "dino",
            set_by: set_by!("dino"),
            settings: &[("eval.k", "20"), ("eval.temperature", "0.07")],
            metrics: KNN,
            unscaled: false,
            needs_gallery: true,
        },
        Peer::PytorchMetricLearning => Protocol {
            name: "pytorch-metric-learning",
            set_by: set_by!("pytorch-metric-learning"),
            settings: &[
                ("eval.retrieval.recall_at", "[1]"),
                ("eval.retrieval.kmeans_restarts", "1"),
                ("eval.retrieval.kmeans_iterations", "25"),
                ("eval.retrieval.kmeans_start", "random"),
            ],
            metrics: &[Metric::Retrieval, Metric::Clusters, Metric::Precision],
            unscaled: false,
            needs_gallery: false,
        },
    }
}

impl Protocol {
    /// Returns its settings and then those that were typed, which may not set the same keys.
    ///
    /// # Errors
    /// Returns an error of usage that names the key, or says that a gallery is missing.
    pub(in crate::commands) fn over(
        &self,
        names: Names,
        typed: Vec<Override>,
        has_gallery: bool,
    ) -> Result<Vec<Override>, Failure> {
        let asked = names.with("as", self.name);
        if self.needs_gallery && !has_gallery {
            return Err(Failure::Usage(anyhow!(
                "`{asked}` classifies by the votes of a gallery: expected {} beside it",
                names.of_rows("gallery")
            )));
        }
        // Votes need a gallery, and rows are clustered only without one.
        let is_vote = |key: &str| ["eval.k", "eval.temperature"].contains(&key);
        let is_idle =
            |key: &str| if has_gallery { key.starts_with("eval.retrieval.kmeans") } else { is_vote(key) };
        let settings = self.settings.iter().filter(|(key, _)| !is_idle(key));
        let [flag, argument] = self.set_by;
        let set_by = if names == Names::Flags { flag } else { argument };
        let mut all: Vec<Override> = settings.map(|(key, text)| Override::flag(set_by, key, text)).collect();
        if let Some(twice) = typed.iter().find(|one| all.iter().any(|own| own.key == one.key)) {
            return Err(Failure::Usage(anyhow!(
                "`{}` is set by `{asked}`: leave one of them out",
                twice.key
            )));
        }
        all.extend(typed);
        Ok(all)
    }
}
