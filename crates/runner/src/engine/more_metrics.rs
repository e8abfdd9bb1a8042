//! Metrics of embeddings beyond those of the paper's tables: of full rankings, of all pairs, and of the set of rows.

use invaspread_metrics::{
    EmbeddingShape, Hubness, Lookup, MetricError, RankedQuery, RankingMetrics, RankingScores, Rows,
    ShapeInfluence, Verification, VerificationScores, class_alignment, class_alignment_influence,
    l2_normalize_rows,
};

use super::measure::QueryScored;
use super::{Metric, Recipe, Selection};

/// The k of hubness: that of most experiments in its source.
const HUBNESS_K: usize = 10;
/// The most rows whose shape is measured. The cost grows with their square.
const MOST_SHAPED: usize = 10_000;

/// What was found; nothing where it was not asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MoreFindings {
    /// The scores of the full rankings, and which of them were asked for.
    ranking: Option<(RankingScores, Vec<Metric>)>,
    /// FNMR at FMR.
    pub verification: Option<VerificationScores>,
    /// How often rows are retrieved.
    pub hubness: Option<Hubness>,
    /// The shape of the rows that are measured.
    pub shape: Option<ShapeOfRows>,
    /// (n) the class of the nearest row that each query may retrieve, if there is one.
    pub nearest_classes: Option<Vec<Option<u32>>>,
}

/// The shape of a set of rows, scaled to length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct ShapeOfRows {
    /// The rows whose shape is measured: of a set with more than 10,000, as many as that, spread evenly over it.
    pub rows: Vec<usize>,
    /// Their shape.
    pub of: EmbeddingShape,
    /// The influence of each of them on the shape.
    pub influence: ShapeInfluence,
    /// The alignment of rows of one class, over all rows of the set, and the influence of each of these; `None` if each
    /// row is alone in its class.
    pub class_alignment: Option<(f64, Vec<f64>)>,
}

impl MoreFindings {
    /// Measures what `selection` asks for.
    ///
    /// # Errors
    /// Returns an error if an embedding is not finite or there are too few rows.
    pub(super) fn of(recipe: &Recipe, selection: &Selection, lookup: &Lookup) -> Result<Self, MetricError> {
        let mut found = Self::default();
        if selection.ranks() {
            let metrics = RankingMetrics { precision_at: recipe.retrieval.recall_at.clone() };
            let asked = Metric::OF_RANKING.into_iter().filter(|&metric| selection.has(metric));
            found.ranking = Some((metrics.evaluate(lookup)?, asked.collect()));
        }
        if selection.has(Metric::Fnmr) {
            let verification = Verification { false_match_rates: selection.false_match_rates.clone() };
            found.verification = Some(verification.evaluate(lookup)?);
        }
        if selection.has(Metric::Hubness) {
            found.hubness = Some(Hubness::of(lookup, HUBNESS_K, recipe.device)?);
        }
        if selection.has(Metric::Shape) {
            found.shape = Some(shape(lookup)?);
        }
        if selection.nearest_classes {
            let nearest = lookup.nearest(1, recipe.device)?;
            let class = |query| nearest.of(query).0.first().map(|&row| lookup.among().labels[row as usize]);
            found.nearest_classes = Some((0..nearest.queries()).map(class).collect());
        }
        Ok(found)
    }

    /// Returns the metrics in percent that have a value.
    pub(super) fn measured(&self) -> Vec<(String, f64)> {
        let mut measured = Vec::new();
        if let Some((scores, asked)) = &self.ranking {
            for metric in asked {
                match metric {
                    Metric::Precision => {
                        measured.extend(scores.precision_at.iter().map(|&(k, value)| (precision(k), value)));
                    }
                    Metric::Mrr => measured.push((MRR.to_owned(), scores.mrr)),
                    Metric::Map => measured.push((MAP.to_owned(), scores.map)),
                    _ => measured.extend(scores.cmc.iter().map(|&(k, value)| (cmc(k), value))),
                }
            }
        }
        if let Some(verification) = &self.verification {
            measured.extend(verification.at.iter().map(|at| (fnmr(at.fmr), at.fnmr)));
        }
        measured.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Returns the metrics that are means over queries or over their pairs.
    pub(super) fn scored(&self) -> Vec<QueryScored> {
        let mut scored = self.scored_by_ranking();
        let found = self.verification.iter();
        scored.extend(found.flat_map(|found| found.at.iter().map(move |at| (found, at))).filter_map(
            |(found, at)| {
                at.fnmr?;
                let share = |(&missed, &pairs): (&u32, &u32)| {
                    (pairs > 0).then(|| f64::from(missed) / f64::from(pairs))
                };
                Some(QueryScored {
                    name: fnmr(at.fmr),
                    scores: at.missed_of.iter().zip(&found.genuine_of).map(share).collect(),
                    weights: Some(found.genuine_of.clone()),
                    of_both: found.among_themselves,
                })
            },
        ));
        scored
    }

    fn scored_by_ranking(&self) -> Vec<QueryScored> {
        let Some((scores, asked)) = &self.ranking else { return Vec::new() };
        let mut scored = Vec::new();
        let mut add = |name: String, score: &dyn Fn(&RankedQuery) -> f64| {
            let scores = scores.queries.iter().map(|query| query.as_ref().map(score)).collect();
            scored.push(QueryScored { name, scores, weights: None, of_both: false });
        };
        for metric in asked {
            match metric {
                Metric::Precision => {
                    for (at, &(k, _)) in scores.precision_at.iter().enumerate() {
                        add(precision(k), &|query| query.precision_at[at]);
                    }
                }
                Metric::Mrr => add(MRR.to_owned(), &RankedQuery::reciprocal_rank),
                Metric::Map => add(MAP.to_owned(), &|query| query.average_precision),
                _ => {
                    for &(k, _) in &scores.cmc {
                        add(cmc(k), &|query| f64::from(u8::from(query.first < k)));
                    }
                }
            }
        }
        scored
    }
}

const MAP: &str = "map";
const MRR: &str = "mrr";

fn precision(k: usize) -> String {
    format!("precision_at_{k}")
}

fn cmc(k: usize) -> String {
    format!("cmc_{k}")
}

fn fnmr(rate: f64) -> String {
    format!("fnmr_at_fmr_{rate:e}")
}

fn shape(lookup: &Lookup) -> Result<ShapeOfRows, MetricError> {
    let all = lookup.queries.rows;
    let mut values = all.values.to_vec();
    l2_normalize_rows(&mut values, all.dim);
    let all = Rows::new(&values, all.dim);
    let labels = lookup.queries.labels;
    let class_alignment = class_alignment(all, labels)?.zip(class_alignment_influence(all, labels)?);
    let count = all.len().min(MOST_SHAPED);
    let rows: Vec<usize> = (0..count).map(|row| row * all.len() / count).collect();
    let sample: Vec<f32> = rows.iter().flat_map(|&row| all.row(row)).copied().collect();
    let (of, influence) = ShapeInfluence::measure(Rows::new(&sample, all.dim))?;
    Ok(ShapeOfRows { rows, of, influence, class_alignment })
}
