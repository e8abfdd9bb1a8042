//! Queries, the rows in which they are looked up, and the rows that a query must leave out.
//!
//! Query i may retrieve row j of the gallery, unless it leaves the row out: itself, where queries are looked up among
//! each other, and rows of its own source (a camera, a video, a product, a photographer), where sources are given.
//! There are two conventions for the latter ([`SameSource`]), and both are in use.
//!
//! Shapes: queries (n, d) with n labels, gallery (m, d) with m labels, sources (n) and (m).

use crate::{MetricError, Rows, top_k_on};
use invaspread_tensor::DeviceKind;
use std::collections::HashMap;

/// Rows and the class of each.
#[derive(Debug, Clone, Copy)]
pub struct LabeledRows<'a> {
    /// (n, d) the rows.
    pub rows: Rows<'a>,
    /// (n) their classes.
    pub labels: &'a [u32],
}

/// Queries, and the rows in which each of them is looked up.
///
/// ```
/// use invaspread_metrics::{LabeledRows, Lookup, Rows};
///
/// let values = [1.0, 0.0, 0.6, 0.8, 0.0, 1.0];
/// let rows = LabeledRows { rows: Rows::new(&values, 2), labels: &[0, 0, 1] };
/// let among_each_other = Lookup { queries: rows, gallery: None, sources: None };
/// assert!(among_each_other.allows(0, 1) && !among_each_other.allows(0, 0));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// The queries.
    pub queries: LabeledRows<'a>,
    /// The rows that are searched; `None` if each query is looked up among the others.
    pub gallery: Option<LabeledRows<'a>>,
    /// The sources of the rows, if rows of a query's own source are left out.
    pub sources: Option<Sources<'a>>,
}

/// The source of each row, and which rows of its own source a query leaves out.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// (n) the sources of the queries.
    pub queries: &'a [u32],
    /// (m) the sources of the gallery's rows; not read if there is no gallery.
    pub gallery: &'a [u32],
    /// The convention.
    pub leaves_out: SameSource,
}

/// Which rows of its own source a query leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSource {
    /// Those of its own class: the convention of person re-identification, where images of the same person by the
    /// same camera are left out, and those of other persons by that camera remain as distractors (Zheng et al.,
    /// "Scalable Person Re-identification: A Benchmark", ICCV 2015, section 5; torchreid and OML do the same).
    OfItsClass,
    /// All of them, whatever their class: nothing of the query's own source can be retrieved. This is leaving one
    /// group out, as scikit-learn's `LeaveOneGroupOut` does.
    All,
}

impl<'a> Lookup<'a> {
    /// Returns the rows in which the queries are looked up.
    pub fn among(&self) -> LabeledRows<'a> {
        self.gallery.unwrap_or(self.queries)
    }

    /// Returns whether query `query` may retrieve row `row`.
    pub fn allows(&self, query: usize, row: usize) -> bool {
        if self.gallery.is_none() && query == row {
            return false;
        }
        let Some(sources) = self.sources else { return true };
        let of_rows = if self.gallery.is_some() { sources.gallery } else { sources.queries };
        sources.queries[query] != of_rows[row]
            || (sources.leaves_out == SameSource::OfItsClass
                && self.queries.labels[query] != self.among().labels[row])
    }

    /// Returns the number of relevant rows of each query (n): those of its class that it may retrieve.
    pub fn relevant(&self) -> Vec<usize> {
        let members = self.members();
        (0..self.queries.labels.len()).map(|query| self.relevant_of(query, &members).count()).collect()
    }

    /// Checks the rows and the numbers of labels and sources.
    ///
    /// # Errors
    /// If there are no queries or nothing to search, the dimensions differ, or a row is not finite.
    ///
    /// # Panics
    /// If there are not as many labels or sources as rows.
    pub(crate) fn check(&self) -> Result<(), MetricError> {
        let Self { queries, sources, .. } = self;
        let (among, least) = (self.among(), if self.gallery.is_some() { 1 } else { 2 });
        for (what, rows, needed) in [("queries", queries.rows, least), ("gallery", among.rows, 1)] {
            if rows.len() < needed {
                let advice = "use more images";
                return Err(MetricError::TooFewRows { what, found: rows.len(), needed, advice });
            }
        }
        if queries.rows.dim != among.rows.dim {
            let (found, expected) = (queries.rows.dim, among.rows.dim);
            return Err(MetricError::Dimension { what: "queries", found, expected });
        }
        queries.rows.check_finite("queries")?;
        among.rows.check_finite("gallery")?;
        assert_eq!(queries.rows.len(), queries.labels.len(), "one label per row");
        assert_eq!(among.rows.len(), among.labels.len(), "one label per row");
        assert!(u32::try_from(among.rows.len()).is_ok(), "a gallery of {} rows", among.rows.len());
        if let Some(sources) = sources {
            assert_eq!(queries.rows.len(), sources.queries.len(), "one source per row");
            assert!(
                self.gallery.is_none() || among.rows.len() == sources.gallery.len(),
                "one source per row"
            );
        }
        Ok(())
    }

    /// Returns the rows of each class in which the queries are looked up.
    pub(crate) fn members(&self) -> Members {
        Members::of(self.among().labels)
    }

    /// Returns the relevant rows of a query, in order.
    pub(crate) fn relevant_of<'m>(
        &'m self,
        query: usize,
        members: &'m Members,
    ) -> impl Iterator<Item = u32> + 'm {
        let class = self.queries.labels[query];
        members.of_class(class).iter().copied().filter(move |&row| self.allows(query, row as usize))
    }

    /// Returns the `k` nearest rows that each query may retrieve, nearest first; fewer where it leaves more out.
    ///
    /// # Errors
    /// Returns the errors of [`top_k_on`], and those about numbers of rows.
    ///
    /// # Panics
    /// If there are not as many labels or sources as rows.
    pub fn nearest(&self, k: usize, device: DeviceKind) -> Result<Nearest, MetricError> {
        self.check()?;
        let (queries, among) = (self.queries.rows, self.among().rows);
        // A query finds the rows that it leaves out, too; so as many more neighbors are searched for.
        let left_out = self.left_out();
        let deepest = k + left_out.iter().max().copied().unwrap_or(0);
        let at_once = (MOST_HELD / (deepest.min(among.len()) + 1)).max(1);
        let mut found = Nearest { starts: vec![0], indices: Vec::new(), similarities: Vec::new() };
        for start in (0..queries.len()).step_by(at_once) {
            let rows = start..(start + at_once).min(queries.len());
            let depth = k + left_out[rows.clone()].iter().max().copied().unwrap_or(0);
            let block = Rows::new(queries.slice(rows.clone()), queries.dim);
            let neighbors = top_k_on(device, block, among, depth, false)?;
            for query in rows {
                let (indices, similarities) = neighbors.of(query - start);
                let allowed =
                    indices.iter().zip(similarities).filter(|(row, _)| self.allows(query, **row as usize));
                for (&row, &similarity) in allowed.take(k) {
                    found.indices.push(row);
                    found.similarities.push(similarity);
                }
                found.starts.push(found.indices.len());
            }
        }
        Ok(found)
    }

    /// Counts the rows that each query leaves out.
    fn left_out(&self) -> Vec<usize> {
        let n = self.queries.labels.len();
        let Some(sources) = self.sources else { return vec![usize::from(self.gallery.is_none()); n] };
        let group = |label: u32, source: u32| match sources.leaves_out {
            SameSource::OfItsClass => (label, source),
            SameSource::All => (0, source),
        };
        let of_rows = if self.gallery.is_some() { sources.gallery } else { sources.queries };
        let mut counts: HashMap<(u32, u32), usize> = HashMap::new();
        for (&label, &source) in self.among().labels.iter().zip(of_rows) {
            *counts.entry(group(label, source)).or_default() += 1;
        }
        // Without a gallery, the query itself is one of its group.
        let count = |(&label, &source)| counts.get(&group(label, source)).copied().unwrap_or(0);
        self.queries.labels.iter().zip(sources.queries).map(count).collect()
    }
}

/// The largest number of neighbors held at once: 512 MiB of them, with their similarities.
const MOST_HELD: usize = 1 << 26;

/// The nearest rows of each query, of which a query may have fewer than others.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// (n + 1) where the rows of each query begin.
    starts: Vec<usize>,
    indices: Vec<u32>,
    similarities: Vec<f32>,
}

impl Nearest {
    /// Returns the nearest rows of query `query`, nearest first, and their similarities.
    pub fn of(&self, query: usize) -> (&[u32], &[f32]) {
        let range = self.starts[query]..self.starts[query + 1];
        (&self.indices[range.clone()], &self.similarities[range])
    }

    /// Returns the number of queries.
    pub fn queries(&self) -> usize {
        self.starts.len() - 1
    }
}

/// The rows of each class.
#[derive(Debug)]
pub(crate) struct Members {
    /// Where the rows of each class begin.
    starts: Vec<usize>,
    rows: Vec<u32>,
}

impl Members {
    fn of(labels: &[u32]) -> Self {
        let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
        let mut starts = vec![0; classes + 1];
        for &label in labels {
            starts[label as usize + 1] += 1;
        }
        for class in 0..classes {
            starts[class + 1] += starts[class];
        }
        let (mut next, mut rows) = (starts.clone(), vec![0; labels.len()]);
        for (row, &label) in labels.iter().enumerate() {
            rows[next[label as usize]] = row as u32;
            next[label as usize] += 1;
        }
        Self { starts, rows }
    }

    /// Returns the rows of `class`, in order; none if the class is unknown.
    pub(crate) fn of_class(&self, class: u32) -> &[u32] {
        match self.starts.get(class as usize..class as usize + 2) {
            Some(&[start, end]) => &self.rows[start..end],
            _ => &[],
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{LabeledRows, Lookup, SameSource, Sources};
    use crate::Rows;
    use invaspread_random::{Purpose, Stream};

    /// Rows of small whole numbers, so that ties are frequent, or of normal numbers around an offset, with classes
    /// and sources.
    #[derive(Debug)]
    pub(crate) struct Drawn {
        values: [Vec<f32>; 2],
        labels: [Vec<u32>; 2],
        sources: [Vec<u32>; 2],
        dim: usize,
        has_gallery: bool,
        leaves_out: Option<SameSource>,
    }

    /// What is drawn.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Kind {
        pub(crate) n: usize,
        pub(crate) m: usize,
        pub(crate) dim: usize,
        pub(crate) classes: usize,
        /// 0 to 2: whole numbers, normal numbers of length 1, and such in a narrow cone.
        pub(crate) form: usize,
        pub(crate) has_gallery: bool,
        /// 0 to 2: no sources, or one of the conventions.
        pub(crate) sources: usize,
    }

    impl Drawn {
        pub(crate) fn new(kind: Kind, seed: u64) -> Self {
            let mut stream = Stream::new(seed, Purpose::Synthetic, 0, 0);
            let mut values = |count: usize| -> Vec<f32> {
                let mut values: Vec<f32> = (0..count * kind.dim)
                    .map(|at| match kind.form {
                        0 => stream.below(3) as f32 - 1.0,
                        1 => stream.normal() as f32,
                        _ => 1e-3 * stream.normal() as f32 + f32::from(u8::from(at % kind.dim == 0)),
                    })
                    .collect();
                if kind.form > 0 {
                    crate::l2_normalize_rows(&mut values, kind.dim);
                }
                values
            };
            let values = [values(kind.n), values(kind.m)];
            let mut below = |count: usize, end: usize| (0..count).map(|_| stream.below(end) as u32).collect();
            Self {
                values,
                labels: [below(kind.n, kind.classes), below(kind.m, kind.classes)],
                sources: [below(kind.n, 3), below(kind.m, 3)],
                dim: kind.dim,
                has_gallery: kind.has_gallery,
                leaves_out: [None, Some(SameSource::OfItsClass), Some(SameSource::All)][kind.sources],
            }
        }

        pub(crate) fn lookup(&self) -> Lookup<'_> {
            let of = |which: usize| LabeledRows {
                rows: Rows::new(&self.values[which], self.dim),
                labels: &self.labels[which],
            };
            let sources = self.leaves_out.map(|leaves_out| Sources {
                queries: &self.sources[0],
                gallery: &self.sources[1],
                leaves_out,
            });
            Lookup { queries: of(0), gallery: self.has_gallery.then(|| of(1)), sources }
        }
    }

    /// The similarities (n, m) in f64: cosines if all rows of the gallery have length 1.
    pub(crate) fn similarities(lookup: &Lookup) -> Vec<Vec<f64>> {
        let (queries, among) = (lookup.queries.rows, lookup.among().rows);
        let scale = crate::exact_order::Scale::of(among);
        let of =
            |query| (0..among.len()).map(|row| scale.exact(queries.row(query), among.row(row))).collect();
        (0..queries.len()).map(of).collect()
    }

    /// The rows that a query may retrieve, nearest first, by the definition. `similarities` (m) are its own.
    pub(crate) fn ranked(lookup: &Lookup, similarities: &[f64], query: usize) -> Vec<usize> {
        let among = lookup.among();
        let mut rows: Vec<usize> = (0..among.rows.len())
            .filter(|&row| {
                let itself = lookup.gallery.is_none() && row == query;
                let same_source = lookup.sources.is_some_and(|sources| {
                    let of_rows = if lookup.gallery.is_some() { sources.gallery } else { sources.queries };
                    let same_class = among.labels[row] == lookup.queries.labels[query];
                    of_rows[row] == sources.queries[query]
                        && (sources.leaves_out == SameSource::All || same_class)
                });
                !itself && !same_source
            })
            .collect();
        rows.sort_by(|&a, &b| similarities[b].partial_cmp(&similarities[a]).unwrap().then(a.cmp(&b)));
        rows
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::testing::{Drawn, Kind, ranked, similarities};
    use crate::MetricError;
    use crate::{LabeledRows, Lookup, Rows};
    use invaspread_tensor::DeviceKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_nearest_rows_are_those_of_the_definition(
            n in 2usize..30, m in 1usize..40, dim in 1usize..6, classes in 1usize..5, form in 0usize..3, has_gallery: bool,
            sources in 0usize..3, k in 0usize..12, seed: u64,
        ) {
            let drawn = Drawn::new(Kind { n, m, dim, classes, form, has_gallery, sources }, seed);
            let lookup = drawn.lookup();
            let found = lookup.nearest(k, DeviceKind::Cpu).unwrap();
            let (relevant, similarities) = (lookup.relevant(), similarities(&lookup));
            for query in 0..n {
                let all = ranked(&lookup, &similarities[query], query);
                let want: Vec<u32> = all.iter().take(k).map(|&row| row as u32).collect();
                prop_assert_eq!(found.of(query).0, &want[..]);
                let of_class = |row: &&usize| lookup.among().labels[**row] == lookup.queries.labels[query];
                prop_assert_eq!(relevant[query], all.iter().filter(of_class).count());
            }
        }
    }

    #[test]
    fn rows_that_cannot_be_looked_up_are_refused() {
        let of = |values, dim, labels| LabeledRows { rows: Rows::new(values, dim), labels };
        let alone = Lookup { queries: of(&[1.0], 1, &[0]), gallery: None, sources: None };
        assert!(matches!(alone.check(), Err(MetricError::TooFewRows { what: "queries", needed: 2, .. })));
        let one = of(&[1.0, 2.0], 2, &[0]);
        let of_gallery = |gallery| Lookup { queries: one, gallery: Some(gallery), sources: None }.check();
        assert!(matches!(of_gallery(of(&[], 2, &[])), Err(MetricError::TooFewRows { what: "gallery", .. })));
        assert!(matches!(
            of_gallery(of(&[1.0], 1, &[0])),
            Err(MetricError::Dimension { found: 2, expected: 1, .. })
        ));
        assert!(matches!(of_gallery(of(&[1.0, f32::NAN], 2, &[0])), Err(MetricError::NotFinite { .. })));
        assert_eq!(of_gallery(one), Ok(()));
    }
}
