//! The 95 % intervals of what was measured, and of the differences between two embeddings of the same queries.

use std::collections::BTreeMap;

use invaspread_metrics::{Bootstrap, Hubness, Interval, MetricError, Scored, Subsampling};

use super::measure::{AGREEMENTS, Findings, QueryScored};
use super::{MoreFindings, ShapeOfRows};

/// What is drawn again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// The queries: how would a metric vary with other queries of the same classes?
    Queries,
    /// The classes, each with its queries: how would it vary with other classes?
    Classes,
}

impl Units {
    /// Returns the name of the units in texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Classes => "classes",
        }
    }
}

/// Intervals by the names of measures.
type Named = BTreeMap<&'static str, Interval>;

/// The intervals of measures that are no percentages of queries or pairs; of none that has no value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MoreIntervals {
    /// `effective_rank`, `rank_share`, `rankme`, `uniformity`, `class_alignment` and `spread`.
    pub shape: BTreeMap<&'static str, Interval>,
    /// `skewness`, and `never_retrieved` in percent.
    pub hubness: BTreeMap<&'static str, Interval>,
}

/// How intervals are computed: by the bootstrap for a mean over queries or pairs, by subsampling for NMI and AMI, and by
/// the bootstrap of influences for the shape of the rows.
///
/// FNMR is the share of the missed pairs of the queries that are drawn, at the threshold that all impostor pairs give. Where both
/// rows of a pair are queries, a draw of rows changes the pair by either of them: to first order, the share varies twice as much as
/// the mean of its rows' shares. An interval ends where the possible values end.
/// For hubness the rows that can be retrieved are drawn, each with the number of times that all queries retrieve it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    /// What is drawn again.
    pub units: Units,
    /// The bootstrap of means over queries.
    pub bootstrap: Bootstrap,
    /// The subsampling of NMI and AMI.
    pub subsampling: Subsampling,
}

impl Intervals {
    /// Returns the usual numbers of draws at a level of 95 %, with the given units and seed.
    pub fn new(units: Units, seed: u64) -> Self {
        Self {
            units,
            bootstrap: Bootstrap { seed, ..Bootstrap::default() },
            subsampling: Subsampling { seed, ..Subsampling::default() },
        }
    }

    /// Returns the interval of each metric, in percent; `classes` are those of the queries. No metric has one if there
    /// are too few units.
    ///
    /// # Errors
    /// Returns an error if a score is not finite.
    pub fn of(&self, found: &Findings, classes: &[u32]) -> Result<BTreeMap<String, Interval>, MetricError> {
        let mut all = self.of_means(&found.scored(), classes, 0.0)?;
        if let Some(clusters) = found.clusters() {
            let intervals = self.subsampling.of_agreement(classes, clusters, &self.units_of(classes));
            let within = intervals.map(|intervals| {
                // NMI is never below 0; AMI may be, but is never below -1.
                let lowest = [0.0, 0.0, -1.0];
                [0, 1, 2].map(|which| cut(intervals[which], lowest[which], 1.0))
            });
            all.extend(of_agreement(within));
        }
        Ok(all)
    }

    /// Returns the interval of the difference of each metric that both have, in percentage points: that of `first`
    /// less that of `second`, which have the same queries in the same order. A query counts if it has a score in both.
    ///
    /// # Errors
    /// Returns an error if a score is not finite.
    ///
    /// # Panics
    /// Panics if the numbers of queries differ.
    pub fn of_difference(
        &self,
        first: &Findings,
        second: &Findings,
        classes: &[u32],
    ) -> Result<BTreeMap<String, Interval>, MetricError> {
        let mut all = self.of_means(&paired(first, second), classes, -1.0)?;
        if let (Some(one), Some(other)) = (first.clusters(), second.clusters()) {
            let units = self.units_of(classes);
            all.extend(of_agreement(self.subsampling.of_agreement_difference(classes, [one, other], &units)));
        }
        Ok(all)
    }

    /// Returns the intervals of the shape of rows and of hubness. `classes` are those of the rows that are measured, and
    /// `searched` those of the rows that can be retrieved: the same without a gallery.
    ///
    /// # Errors
    /// Returns an error if an influence is not finite.
    pub fn of_more(
        &self,
        found: &MoreFindings,
        classes: &[u32],
        searched: &[u32],
    ) -> Result<MoreIntervals, MetricError> {
        let shape = found.shape.as_ref().map(|shape| self.of_shape(shape, classes)).transpose()?;
        let hubness = found.hubness.as_ref().map(|hubness| self.of_hubness(hubness, searched)).transpose()?;
        Ok(MoreIntervals { shape: shape.unwrap_or_default(), hubness: hubness.unwrap_or_default() })
    }

    fn of_shape(&self, shape: &ShapeOfRows, classes: &[u32]) -> Result<Named, MetricError> {
        let of_sample: Vec<u32> = shape.rows.iter().map(|&row| classes[row]).collect();
        let (of, influence) = (&shape.of, &shape.influence);
        let share = if of.effective_rank > 0.0 { of.rank_share / of.effective_rank } else { 0.0 };
        let of_share: Vec<f64> = influence.effective_rank.iter().map(|one| share * one).collect();
        // A pair of a class is drawn with its class, once; a pair of rows is drawn with either of them.
        let pairs = if self.units == Units::Classes { 0.5 } else { 1.0 };
        let of_classes = shape.class_alignment.as_ref().map(|(value, influence)| {
            (*value, influence.iter().map(|one| pairs * one).collect::<Vec<f64>>())
        });
        // The largest possible effective rank, min(n - 1, d); RankMe, without subtraction of the mean, may be one larger.
        let most = if share > 0.0 { (1.0 / share).round() } else { f64::INFINITY };
        let measures = [
            ("effective_rank", of.effective_rank, &influence.effective_rank, [0.0, most]),
            ("rank_share", of.rank_share, &of_share, [0.0, 1.0]),
            ("rankme", of.rankme, &influence.rankme, [0.0, most + 1.0]),
            ("uniformity", of.uniformity, &influence.uniformity, [-8.0, 0.0]),
            ("spread", of.spread, &influence.spread, [0.0, 1.0]),
        ];
        let units = self.units_of(&of_sample);
        let mut all = BTreeMap::new();
        for (name, value, influence, [lowest, highest]) in measures {
            let interval = self.bootstrap.of_influence(value, influence, &units)?;
            all.extend(interval.map(|interval| (name, cut(interval, lowest, highest))));
        }
        if let Some((value, influence)) = of_classes {
            let interval = self.bootstrap.of_influence(value, &influence, &self.units_of(classes))?;
            all.extend(interval.map(|interval| ("class_alignment", cut(interval, 0.0, 4.0))));
        }
        Ok(all)
    }

    fn of_hubness(&self, hubness: &Hubness, classes: &[u32]) -> Result<Named, MetricError> {
        let units = self.units_of(classes);
        let never: Vec<Option<f64>> =
            hubness.counts.iter().map(|&count| Some(f64::from(u8::from(count == 0)))).collect();
        let column = Scored { scores: &never, weights: None };
        let never = self.bootstrap.of_weighted(&[column], &units)?.pop().flatten();
        let skewness = hubness.skewness.and_then(|_| self.bootstrap.of_skewness(&hubness.counts, &units));
        let named = [("skewness", skewness), ("never_retrieved", never.map(in_percent))];
        Ok(named.into_iter().filter_map(|(name, interval)| Some((name, interval?))).collect())
    }

    /// Returns the number of units of queries with these classes.
    pub fn count(&self, classes: &[u32]) -> usize {
        let mut units = self.units_of(classes);
        units.sort_unstable();
        units.dedup();
        units.len()
    }

    fn of_means(
        &self,
        scored: &[QueryScored],
        classes: &[u32],
        lowest: f64,
    ) -> Result<BTreeMap<String, Interval>, MetricError> {
        let columns: Vec<Scored> = scored
            .iter()
            .map(|one| Scored { scores: &one.scores, weights: one.weights.as_deref() })
            .collect();
        let intervals = self.bootstrap.of_weighted(&columns, &self.units_of(classes))?;
        let named = scored.iter().zip(intervals).filter_map(|(one, interval)| {
            let mut interval = interval?;
            if one.of_both && self.units == Units::Queries {
                let mean = one.mean()?;
                interval = Interval {
                    low: mean + 2.0 * (interval.low - mean),
                    high: mean + 2.0 * (interval.high - mean),
                };
            }
            Some((one.name.clone(), in_percent(cut(interval, lowest, 1.0))))
        });
        Ok(named.collect())
    }

    fn units_of(&self, classes: &[u32]) -> Vec<u32> {
        match self.units {
            Units::Queries => (0..classes.len() as u32).collect(),
            Units::Classes => classes.to_vec(),
        }
    }
}

/// Returns the differences of the scores that both have, query by query.
///
/// # Panics
/// Panics if the numbers of queries differ.
fn paired(first: &Findings, second: &Findings) -> Vec<QueryScored> {
    let others = second.scored();
    let difference = |one: QueryScored| {
        let other = others.iter().find(|other| other.name == one.name)?;
        assert_eq!(one.scores.len(), other.scores.len(), "the same queries");
        let pairs = one.scores.iter().zip(&other.scores);
        let scores = pairs.map(|(one, other)| Some(one.as_ref()? - other.as_ref()?)).collect();
        assert_eq!(one.weights, other.weights, "the same pairs");
        Some(QueryScored { name: one.name, scores, weights: one.weights, of_both: one.of_both })
    };
    first.scored().into_iter().filter_map(difference).collect()
}

/// Returns the part of an interval within the possible values.
fn cut(Interval { low, high }: Interval, lowest: f64, highest: f64) -> Interval {
    Interval { low: low.clamp(lowest, highest), high: high.clamp(lowest, highest) }
}

fn in_percent(Interval { low, high }: Interval) -> Interval {
    Interval { low: 100.0 * low, high: 100.0 * high }
}

fn of_agreement(intervals: Option<[Interval; 3]>) -> impl Iterator<Item = (String, Interval)> {
    let [geometric, arithmetic, ami] = AGREEMENTS;
    let named = intervals.map(|[of_arithmetic, of_geometric, of_ami]| {
        [(arithmetic, of_arithmetic), (geometric, of_geometric), (ami, of_ami)]
    });
    named.into_iter().flatten().map(|(name, interval)| (name.to_owned(), in_percent(interval)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Findings, Intervals, Units};
    use crate::config::resolve_over;
    use crate::engine::{Metric, MoreFindings, Selection};
    use invaspread_metrics::{LabeledRows, Lookup, Rows};
    use invaspread_random::{Purpose, Stream};

    /// Measures rows about the centers of ten classes, which are the same for all sets, at `distance` times their length.
    fn measured(set: u64, labels: &[u32], distance: f64) -> MoreFindings {
        let dim = 8;
        let center = |class: u32| {
            let mut stream = Stream::new(1000 + u64::from(class), Purpose::Synthetic, 0, 0);
            (0..dim).map(|_| stream.normal()).collect::<Vec<f64>>()
        };
        let centers: Vec<Vec<f64>> = (0..10).map(center).collect();
        let mut stream = Stream::new(set, Purpose::Synthetic, 0, 1);
        let values: Vec<f32> = labels
            .iter()
            .flat_map(|&class| {
                let row: Vec<f64> =
                    centers[class as usize].iter().map(|c| distance * c + 0.9 * stream.normal()).collect();
                let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
                row.into_iter().map(move |v| (v / length) as f32)
            })
            .collect();
        let queries = LabeledRows { rows: Rows::new(&values, dim), labels };
        let lookup = Lookup { queries, gallery: None, sources: None };
        let metrics = vec![Metric::Fnmr, Metric::Shape];
        let selection = Selection { metrics, false_match_rates: vec![0.1], ..Selection::default() };
        let recipe = resolve_over(None, &[]).unwrap().config.recipe();
        MoreFindings::of(&recipe, &selection, &lookup).unwrap()
    }

    /// Both rows of a pair vary, and so does the threshold; only the rows are in the interval.
    #[test]
    fn the_interval_of_fnmr_is_as_wide_as_fnmr_varies() {
        // Other images are of other classes, too, in another proportion.
        let labels = |set| -> Vec<u32> {
            let mut stream = Stream::new(set, Purpose::Synthetic, 0, 2);
            (0..300).map(|_| stream.below(10) as u32).collect()
        };
        let mut of_sets: Vec<f64> =
            (1..201).map(|set| measured(set, &labels(set), 1.0).measured()[0].1).collect();
        of_sets.sort_unstable_by(f64::total_cmp);
        let varies = of_sets[194] - of_sets[5];
        let mut found = Findings::default();
        let labels = labels(0);
        found.more = measured(0, &labels, 1.0);
        let all = Intervals::new(Units::Queries, 0).of(&found, &labels).unwrap();
        let interval = all["fnmr_at_fmr_1e-1"];
        assert!(interval.contains(found.measured().0[0].1));
        let width = interval.high - interval.low;
        assert!((0.65..1.3).contains(&(width / varies)), "{width} {varies}");
    }

    #[test]
    fn intervals_end_where_the_possible_values_end() {
        let labels: Vec<u32> = (0..40).map(|row| row % 10).collect();
        let intervals = Intervals::new(Units::Queries, 0);
        let mut reached = 0;
        for set in 0..20 {
            // Rows in all directions have nearly the largest possible rank and spread.
            let more = intervals.of_more(&measured(set, &labels, 0.0), &labels, &labels).unwrap();
            let high = |name: &str| more.shape[name].high;
            assert!(high("effective_rank") <= 8.0 && high("rank_share") <= 1.0 && high("spread") <= 1.0);
            assert!(high("uniformity") <= 0.0 && more.shape["class_alignment"].low >= 0.0);
            reached += usize::from(high("spread") >= 1.0);
        }
        assert!(reached > 0, "no interval would have gone further");
    }
}
