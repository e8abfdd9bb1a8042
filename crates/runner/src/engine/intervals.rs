//! The 95 % intervals of what was measured, and of the differences between two embeddings of the same queries.

use std::collections::BTreeMap;

use invaspread_metrics::{Bootstrap, Interval, MetricError, Subsampling};

use super::measure::{Findings, NMI, QueryScored};

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

/// How intervals are computed: by the bootstrap for a mean over queries, by subsampling for NMI.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    /// What is drawn again.
    pub units: Units,
    /// The bootstrap of means over queries.
    pub bootstrap: Bootstrap,
    /// The subsampling of NMI.
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

    /// Returns the interval of each metric, in percent; `classes` are those of the queries. AMI has none, and no
    /// metric has one if there are too few units.
    ///
    /// # Errors
    /// Returns an error if a score is not finite.
    pub fn of(&self, found: &Findings, classes: &[u32]) -> Result<BTreeMap<String, Interval>, MetricError> {
        let mut all = self.of_means(found.scored(), classes)?;
        if let Some(clusters) = found.clusters() {
            let intervals = self.subsampling.of_nmi(classes, clusters, &self.units_of(classes));
            all.extend(of_nmi(intervals));
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
        let mut all = self.of_means(paired(first, second), classes)?;
        if let (Some(one), Some(other)) = (first.clusters(), second.clusters()) {
            let units = self.units_of(classes);
            all.extend(of_nmi(self.subsampling.of_nmi_difference(classes, [one, other], &units)));
        }
        Ok(all)
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
        scored: Vec<QueryScored>,
        classes: &[u32],
    ) -> Result<BTreeMap<String, Interval>, MetricError> {
        let (names, scores): (Vec<_>, Vec<_>) = scored.into_iter().map(|one| (one.name, one.scores)).unzip();
        let intervals = self.bootstrap.of_classes(&scores, &self.units_of(classes))?;
        let named = names.into_iter().zip(intervals);
        Ok(named.filter_map(|(name, interval)| Some((name, in_percent(interval?)))).collect())
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
        Some(QueryScored { name: one.name, scores })
    };
    first.scored().into_iter().filter_map(difference).collect()
}

fn in_percent(Interval { low, high }: Interval) -> Interval {
    Interval { low: 100.0 * low, high: 100.0 * high }
}

fn of_nmi(intervals: Option<[Interval; 2]>) -> impl Iterator<Item = (String, Interval)> {
    let [geometric, arithmetic] = NMI;
    let named = intervals
        .map(|[of_arithmetic, of_geometric]| [(arithmetic, of_arithmetic), (geometric, of_geometric)]);
    named.into_iter().flatten().map(|(name, interval)| (name.to_owned(), in_percent(interval)))
}
