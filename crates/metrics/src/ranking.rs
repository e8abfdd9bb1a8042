//! Ranks every row of a gallery for each query: mean average precision, mean reciprocal rank, precision at k and
//! CMC, and the metrics of [`RetrievalMetrics`](crate::RetrievalMetrics) from the same ranking.
//!
//! For query i let j_1, j_2, ... be the rows that it may retrieve, in the order of descending inner product, rel_i(k)
//! = 1 if y_{j_k} = y_i and 0 otherwise, R_i = Σ_k rel_i(k), f_i the first k with rel_i(k) = 1, and P_i(k) = (1/k)
//! Σ_{l <= k} rel_i(l):
//!
//! `mAP = mean_i (1/R_i) Σ_k rel_i(k) P_i(k)` over the whole ranking, `MRR = mean_i 1/f_i`, `precision@K = mean_i
//! P_i(K)`, `CMC(K) = mean_i [f_i <= K]`.
//!
//! Shapes: see [`Lookup`]. Sources: mAP and precision@K, Manning, Raghavan and Schütze, "Introduction to Information
//! Retrieval", 2008, section 8.4 (average precision at each relevant row, without interpolation, as scikit-learn's
//! `average_precision_score` and pytorch-metric-learning's `mean_average_precision`); MRR, Voorhees, "The TREC-8
//! Question Answering Track Report", 1999; CMC, the identification rate of a closed set (Phillips, Grother and
//! Micheals, "Evaluation Methods in Face Recognition", 2005), with all images of a person in the gallery.
//!
//! Conventions. All means are over the queries with R_i > 0. So CMC(K) is R@K, except that R@K counts a query without
//! a relevant row as missed, while CMC leaves it out, as the tools of re-identification do (torchreid). This is not
//! the CMC of CUHK03's old protocol, which draws one image of each person for the gallery. TREC's MRR counts a query
//! without a relevant row as 0. Precision@K divides by K even if fewer rows can be retrieved. Of rows with equal
//! similarity the one with the lower index comes first; scikit-learn's average precision has one threshold for them.
//!
//! Only the ranks of the relevant rows are needed: the k-th of them, best first, has the rank k + (the number of
//! irrelevant rows before it). So a similarity is compared with those of the relevant rows, and nothing is sorted
//! but them. Products in f32 decide where they differ by more than their rounding errors, f64 elsewhere
//! (`crate::exact_order`): the order is that of [`top_k`](crate::top_k).

use crate::all_products::{Multiplied, QUERIES};
use crate::exact_order::{ExactSimilarities, OfQuery, Scale};
use crate::lookup::Members;
use crate::{Lookup, MetricError, QueryScores, RetrievalScores};
use invaspread_tensor::inner_products::positions_above;
use rayon::prelude::*;
use std::ops::Range;

/// The largest number of relevant rows that a block of queries holds.
const MOST_RELEVANT: usize = 1 << 20;

/// The metrics of a full ranking.
///
/// ```
/// use invaspread_metrics::{LabeledRows, Lookup, RankingMetrics, Rows};
///
/// // Directions at 0, 10, 30 and 90 degrees, in two classes.
/// let angles = [0f32, 10.0, 30.0, 90.0].map(f32::to_radians);
/// let values: Vec<f32> = angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
/// let queries = LabeledRows { rows: Rows::new(&values, 2), labels: &[0, 0, 1, 1] };
/// let metrics = RankingMetrics { precision_at: vec![1] };
/// let scores = metrics.evaluate(&Lookup { queries, gallery: None, sources: None })?;
/// // The row at 30 degrees finds its class only in third place.
/// let mrr = 100.0 * (1.0 + 1.0 + 1.0 / 3.0 + 1.0) / 4.0;
/// assert!((scores.mrr.unwrap() - mrr).abs() < 1e-9);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RankingMetrics {
    /// The K of each precision@K and CMC(K), in any order.
    pub precision_at: Vec<usize>,
}

/// The scores of a set of queries, in percent. A mean is `None` if no query has a relevant row.
#[derive(Debug, Clone, PartialEq)]
pub struct RankingScores {
    /// Mean average precision over the whole ranking.
    pub map: Option<f64>,
    /// Mean reciprocal rank.
    pub mrr: Option<f64>,
    /// K and precision@K, in the order of [`RankingMetrics::precision_at`].
    pub precision_at: Vec<(usize, Option<f64>)>,
    /// K and CMC(K), in the same order.
    pub cmc: Vec<(usize, Option<f64>)>,
    /// The scores of each query (n); `None` if it has no relevant row.
    pub queries: Vec<Option<RankedQuery>>,
}

/// The scores of a query with relevant rows, from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct RankedQuery {
    /// The place of the first relevant row, counted from 0.
    pub first: usize,
    /// Average precision over the whole ranking.
    pub average_precision: f64,
    /// Average precision at R and precision at R.
    pub at_r: [f64; 2],
    /// Precision at each K.
    pub precision_at: Vec<f64>,
}

impl RankingMetrics {
    /// Ranks the gallery for each query. Holds, for each thread, a block of products and the relevant rows of a few
    /// queries.
    ///
    /// # Errors
    /// If there are no queries or nothing to search, the dimensions differ, a row is not finite, or products are too
    /// large for f32.
    ///
    /// # Panics
    /// If there are not as many labels or sources as rows, or a K is zero.
    pub fn evaluate(&self, lookup: &Lookup) -> Result<RankingScores, MetricError> {
        assert!(self.precision_at.iter().all(|&k| k > 0), "{self:?}");
        lookup.check()?;
        let (queries, among, members) = (lookup.queries, lookup.among(), lookup.members());
        let scale = Scale::of(among.rows);
        let exact = ExactSimilarities::new(among.rows, &scale);
        let gallery = Multiplied::new(among.rows, &scale);
        let n = queries.rows.len();
        let relevant = queries.labels.iter().map(|&class| members.of_class(class).len()).max().unwrap_or(0);
        let at_once = (MOST_RELEVANT / (relevant + 1)).clamp(1, QUERIES);
        let ranked: Vec<Vec<Option<RankedQuery>>> = (0..n)
            .step_by(at_once)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|start| {
                let numbers = start..(start + at_once).min(n);
                self.ranked(lookup, &members, (&exact, &gallery), numbers)
            })
            .collect::<Result<_, _>>()?;
        Ok(self.mean(ranked.into_iter().flatten().collect()))
    }

    fn ranked(
        &self,
        lookup: &Lookup,
        members: &Members,
        (exact, gallery): (&ExactSimilarities, &Multiplied),
        numbers: Range<usize>,
    ) -> Result<Vec<Option<RankedQuery>>, MetricError> {
        let rows = lookup.queries.rows;
        let mut places = Vec::with_capacity(numbers.len());
        for query in numbers.clone() {
            let of = exact.of(rows.row(query)).ok_or(MetricError::Overflow { row: query })?;
            places.push(RelevantPlaces::new(of, lookup.relevant_of(query, members)));
        }
        let (labels, of_rows) = (lookup.queries.labels, lookup.among().labels);
        let first = numbers.start;
        let mut above = Vec::new();
        gallery.for_each(rows, numbers, 0, |query, start, products| {
            let (places, number) = (&mut places[query], first + query);
            above.clear();
            positions_above(products, places.floor, &mut above);
            for &at in &above {
                let row = start + at as usize;
                if of_rows[row] != labels[number] && lookup.allows(number, row) {
                    places.irrelevant(products[at as usize], row);
                }
            }
        });
        Ok(places.iter().map(|places| self.scores(places)).collect())
    }

    fn scores(&self, places: &RelevantPlaces) -> Option<RankedQuery> {
        let relevant = places.relevant.len();
        let mut first = None;
        let (mut all, mut at_r, mut within_r) = (0.0, 0.0, 0);
        let mut within = vec![0_usize; self.precision_at.len()];
        for (found, place) in places.in_order().enumerate() {
            first = first.or(Some(place));
            let precision = (found + 1) as f64 / (place + 1) as f64;
            all += precision;
            if place < relevant {
                at_r += precision;
                within_r += 1;
            }
            for (within, &k) in within.iter_mut().zip(&self.precision_at) {
                *within += usize::from(place < k);
            }
        }
        let r = relevant as f64;
        let precision = |(within, &k): (usize, &usize)| within as f64 / k as f64;
        Some(RankedQuery {
            first: first?,
            average_precision: all / r,
            at_r: [at_r / r, f64::from(within_r) / r],
            precision_at: within.into_iter().zip(&self.precision_at).map(precision).collect(),
        })
    }

    fn mean(&self, queries: Vec<Option<RankedQuery>>) -> RankingScores {
        let counted = queries.iter().flatten().count();
        let mean = |score: &dyn Fn(&RankedQuery) -> f64| {
            (counted > 0).then(|| 100.0 * queries.iter().flatten().map(score).sum::<f64>() / counted as f64)
        };
        let each = |score: &dyn Fn(&RankedQuery, usize, usize) -> f64| {
            let ks = self.precision_at.iter().enumerate();
            ks.map(|(at, &k)| (k, mean(&|query| score(query, at, k)))).collect()
        };
        RankingScores {
            map: mean(&|query| query.average_precision),
            mrr: mean(&RankedQuery::reciprocal_rank),
            precision_at: each(&|query, at, _| query.precision_at[at]),
            cmc: each(&|query, _, k| f64::from(u8::from(query.first < k))),
            queries,
        }
    }
}

impl RankedQuery {
    /// Returns 1 divided by the rank of the first relevant row.
    pub fn reciprocal_rank(&self) -> f64 {
        1.0 / (self.first + 1) as f64
    }
}

impl RankingScores {
    /// Returns R@K for each of `recall_at`, MAP@R and R-precision of this ranking: what
    /// [`RetrievalMetrics`](crate::RetrievalMetrics) finds, but for the rows that the [`Lookup`] leaves out.
    pub fn retrieval(&self, recall_at: &[usize]) -> RetrievalScores {
        let queries = self.queries.iter().map(|query| QueryScores {
            first: query.as_ref().map(|query| query.first),
            at_r: query.as_ref().map(|query| query.at_r),
        });
        RetrievalScores::of(recall_at, queries.collect())
    }
}

/// The relevant rows of one query, and how many irrelevant rows come before each.
struct RelevantPlaces<'a> {
    of: OfQuery<'a>,
    /// Similarity and index of each relevant row, the last in the ranking first.
    relevant: Vec<(f64, u32)>,
    /// The products that they would have without rounding, in the same order.
    products: Vec<f64>,
    /// Where to look among `products` for a number.
    buckets: Buckets,
    /// Entry p counts the irrelevant rows that come before exactly the first p of `relevant`.
    before: Vec<u32>,
    /// No product at or below this comes before a relevant row.
    floor: f32,
}

impl<'a> RelevantPlaces<'a> {
    fn new(of: OfQuery<'a>, rows: impl Iterator<Item = u32>) -> Self {
        // -0.0 + 0.0 is 0.0: both zeros are equal.
        let mut relevant: Vec<(f64, u32)> =
            rows.map(|row| (of.similarity(row as usize) + 0.0, row)).collect();
        relevant.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let products: Vec<f64> = relevant.iter().map(|&(similarity, _)| of.as_product(similarity)).collect();
        let floor = match products.first() {
            Some(&lowest) => ((lowest - of.margin) as f32).next_down(),
            None => f32::INFINITY,
        };
        let (buckets, before) = (Buckets::new(&products), vec![0; relevant.len() + 1]);
        Self { of, relevant, products, buckets, before, floor }
    }

    /// Counts the irrelevant row `row`.
    fn irrelevant(&mut self, product: f32, row: usize) {
        let (product, margin) = (f64::from(product), self.of.margin);
        let mut after = self.buckets.count_below(&self.products, product - margin);
        let near = |other: &f64| *other <= product + margin;
        if self.products.get(after).is_some_and(near) {
            // Few relevant rows are near, unless many are equal.
            let few = (after + 8).min(self.products.len());
            let end = match self.products[after..few].iter().position(|other| !near(other)) {
                Some(count) => after + count,
                None => few + self.products[few..].partition_point(near),
            };
            let similarity = self.of.similarity(row) + 0.0;
            after += self.relevant[after..end].partition_point(|&(other, index)| {
                other < similarity || (other.total_cmp(&similarity).is_eq() && index as usize > row)
            });
        }
        self.before[after] += 1;
    }

    /// Returns the places of the relevant rows, counted from 0, in order.
    fn in_order(&self) -> impl Iterator<Item = usize> {
        let mut irrelevant = 0;
        self.before.iter().skip(1).rev().enumerate().map(move |(relevant, &more)| {
            irrelevant += more as usize;
            relevant + irrelevant
        })
    }
}

/// A table that says where a number lies among sorted numbers: a binary search of thousands of them would wait for
/// memory at each step.
struct Buckets {
    lowest: f64,
    /// Buckets in a difference of 1.
    per_unit: f64,
    /// Entry b counts the numbers in lower buckets than b; the last entry counts all of them.
    starts: Vec<u32>,
}

impl Buckets {
    /// Makes twice as many buckets as there are `numbers`, which ascend.
    fn new(numbers: &[f64]) -> Self {
        let count = 2 * numbers.len();
        let (lowest, highest) = numbers.first().zip(numbers.last()).map_or((0.0, 0.0), |(&a, &b)| (a, b));
        let per_unit = count as f64 / (highest - lowest);
        // Where all numbers are equal there is one bucket.
        let per_unit = if per_unit.is_finite() { per_unit } else { 0.0 };
        let mut buckets = Self { lowest, per_unit, starts: vec![0; count + 2] };
        for &number in numbers {
            let bucket = buckets.bucket(number);
            buckets.starts[bucket + 1] += 1;
        }
        for bucket in 0..=count {
            buckets.starts[bucket + 1] += buckets.starts[bucket];
        }
        buckets
    }

    /// Returns the bucket of a number: of a larger number no lower one.
    fn bucket(&self, number: f64) -> usize {
        // A number below the lowest becomes 0.
        (((number - self.lowest) * self.per_unit) as usize).min(self.starts.len() - 2)
    }

    /// Counts the `numbers`, of which the table was made, below `number`.
    fn count_below(&self, numbers: &[f64], number: f64) -> usize {
        let bucket = self.bucket(number);
        let (start, end) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        start + numbers[start..end].partition_point(|&other| other < number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Buckets, RankedQuery, RankingMetrics};
    use crate::lookup::testing::{Drawn, Kind, ranked, similarities};
    use crate::{LabeledRows, Lookup, MetricError, RetrievalMetrics, Rows};
    use invaspread_tensor::DeviceKind;
    use proptest::prelude::*;

    /// The definition, for one query.
    fn plain(lookup: &Lookup, similarities: &[f64], query: usize, ks: &[usize]) -> Option<RankedQuery> {
        let hits: Vec<bool> = ranked(lookup, similarities, query)
            .into_iter()
            .map(|row| lookup.among().labels[row] == lookup.queries.labels[query])
            .collect();
        let r = hits.iter().filter(|&&hit| hit).count();
        let precision = |k: usize| hits.iter().take(k).filter(|&&hit| hit).count() as f64 / k as f64;
        let average = |last: usize| {
            let places = (1..=last).filter(|&k| hits[k - 1]);
            places.map(precision).sum::<f64>() / r as f64
        };
        (r > 0).then(|| RankedQuery {
            first: hits.iter().position(|&hit| hit).unwrap(),
            average_precision: average(hits.len()),
            at_r: [average(r), precision(r)],
            precision_at: ks.iter().map(|&k| precision(k)).collect(),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn scores_are_those_of_the_definition(
            n in 2usize..40, m in 1usize..60, dim in 1usize..8, classes in 1usize..6, form in 0usize..3, has_gallery: bool,
            sources in 0usize..3, seed: u64,
        ) {
            let drawn = Drawn::new(Kind { n, m, dim, classes, form, has_gallery, sources }, seed);
            let lookup = drawn.lookup();
            let ks = vec![3, 1, 50];
            let found = RankingMetrics { precision_at: ks.clone() }.evaluate(&lookup).unwrap();
            let similarities = similarities(&lookup);
            let want: Vec<_> = (0..n).map(|query| plain(&lookup, &similarities[query], query, &ks)).collect();
            for (found, want) in found.queries.iter().zip(&want) {
                let flat = |q: &RankedQuery| {
                    [&[q.first as f64, q.average_precision, q.at_r[0], q.at_r[1]], &q.precision_at[..]].concat()
                };
                prop_assert_eq!(found.is_some(), want.is_some());
                let (Some(found), Some(want)) = (found, want) else { continue };
                for (a, b) in flat(found).into_iter().zip(flat(want)) {
                    prop_assert!((a - b).abs() < 1e-12, "{:?} {:?}", found, want);
                }
            }
            let counted: Vec<&RankedQuery> = want.iter().flatten().collect();
            let mean = |score: &dyn Fn(&RankedQuery) -> f64| {
                (!counted.is_empty()).then(|| 100.0 * counted.iter().map(|q| score(q)).sum::<f64>() / counted.len() as f64)
            };
            let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-9,
                (a, b) => a == b,
            };
            prop_assert!(near(found.map, mean(&|q| q.average_precision)));
            prop_assert!(near(found.mrr, mean(&|q| 1.0 / (q.first + 1) as f64)));
            prop_assert!(near(found.precision_at[2].1, mean(&|q| q.precision_at[2])));
            prop_assert!(near(found.cmc[0].1, mean(&|q| f64::from(u8::from(q.first < 3)))));
            // The neighbors search finds the same.
            if sources == 0 {
                let asked = RetrievalMetrics { recall_at: ks.clone(), device: DeviceKind::Cpu };
                let (queries, among) = (lookup.queries, lookup.among());
                let want = match lookup.gallery {
                    Some(_) => asked.evaluate_in_gallery(queries.rows, queries.labels, among.rows, among.labels),
                    None => asked.evaluate(queries.rows, queries.labels),
                }.unwrap();
                let found = found.retrieval(&ks);
                prop_assert_eq!(&found.recall_at, &want.recall_at);
                prop_assert!((found.map_at_r - want.map_at_r).abs() < 1e-9);
                prop_assert!((found.r_precision - want.r_precision).abs() < 1e-9);
            }
        }
    }

    proptest! {
        #[test]
        fn a_table_counts_as_a_search_does(
            mut numbers in prop::collection::vec(prop_oneof![-2.0..2.0, Just(0.5), -1e-300..1e-300], 0..40),
            asked in prop::collection::vec(-3.0..3.0, 1..20),
        ) {
            numbers.sort_by(f64::total_cmp);
            let buckets = Buckets::new(&numbers);
            for number in asked.into_iter().chain(numbers.clone()) {
                let want = numbers.iter().filter(|&&other| other < number).count();
                prop_assert_eq!(buckets.count_below(&numbers, number), want);
            }
        }
    }

    #[test]
    fn threads_and_blocks_change_no_bit() {
        for form in 0..3 {
            let kind = Kind { n: 1300, m: 1, dim: 19, classes: 7, form, has_gallery: false, sources: 0 };
            let drawn = Drawn::new(kind, 3);
            let asked = RankingMetrics { precision_at: vec![10] };
            let [one, three] = [1, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| asked.evaluate(&drawn.lookup()).unwrap())
            });
            assert_eq!(one, three);
            let similarities = similarities(&drawn.lookup());
            for query in [0, 700, 1299] {
                let want = plain(&drawn.lookup(), &similarities[query], query, &[10]);
                let (found, want) = (one.queries[query].as_ref().unwrap(), want.unwrap());
                assert_eq!(found.first, want.first);
                assert!((found.average_precision - want.average_precision).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_query_without_a_relevant_row_is_left_out_and_overflow_is_an_error() {
        let values = [1.0, 0.0, 0.9, 0.1, 0.0, 1.0];
        let of = |labels| LabeledRows { rows: Rows::new(&values, 2), labels };
        let evaluate = |labels| {
            let lookup = Lookup { queries: of(labels), gallery: None, sources: None };
            RankingMetrics { precision_at: vec![1] }.evaluate(&lookup).unwrap()
        };
        let found = evaluate(&[4, 4, 9]);
        assert_eq!((found.map, found.mrr, found.cmc[0].1), (Some(100.0), Some(100.0), Some(100.0)));
        assert!(found.queries[2].is_none());
        // R@1 counts it as missed.
        assert!((found.retrieval(&[1]).recall_at[0].1 - 200.0 / 3.0).abs() < 1e-9);
        let none = evaluate(&[1, 2, 3]);
        assert_eq!((none.map, none.mrr, none.precision_at[0].1), (None, None, None));

        let huge = [3e38, 3e38, 1.0, 1.0];
        let queries = LabeledRows { rows: Rows::new(&huge, 2), labels: &[0, 0] };
        let error = RankingMetrics::default()
            .evaluate(&Lookup { queries, gallery: None, sources: None })
            .unwrap_err();
        assert_eq!(error, MetricError::Overflow { row: 0 });
    }
}
