//! Measures verification: are two rows of the same class? The false non-match rate (FNMR) at given false match
//! rates (FMR), over all pairs.
//!
//! With the similarities g_1 ... g_G of the pairs of one class (genuine) and v_1 >= v_2 >= ... >= v_N of the pairs of
//! two classes (impostors), a pair matches above a threshold:
//!
//! `FMR(t) = #{k: v_k > t} / N`, `FNMR(t) = #{k: g_k <= t} / G`, and FNMR at the FMR f is `FNMR(v_{a+1})` with `a =
//! floor(f N)`: the lowest threshold whose FMR is at most f.
//!
//! Shapes: see [`Lookup`]. The pairs are those of a query and a row that it may retrieve; among the queries
//! themselves, each pair of two rows counts once. Source: ISO/IEC 19795-1 and NIST's Face Recognition Vendor Test
//! (Grother, Ngan and Hanaoka, NIST IR 8238, section 3.2); OML calls it `fnmr@fmr`. Nothing is interpolated: pairs with
//! equal similarity match together or not at all, so the FMR that is reached may be below f. There is no value if
//! `f N < 1`, since then no threshold shows such a rate, or if there is no genuine pair.
//!
//! Exact. All pairs are counted, by their similarities in f64 (those of [`top_k`](crate::top_k)'s order), but they are
//! not stored: a histogram of all products in f32 says between which values the threshold lies; then the pairs near
//! it are compared in f64, in one more pass, or in several if more of them are there than are held.

use crate::all_products::{Multiplied, QUERIES};
use crate::exact_order::{ExactSimilarities, OfQuery, Scale};
use crate::{Lookup, MetricError, SameSource};
use invaspread_tensor::inner_products::positions_above;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bounds of the memory that is used.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bits of the number of a bin of a histogram.
    bits: u32,
    /// The largest number of similarities held for one rate.
    held: u64,
}

/// Histograms of 16 MiB, in which a bin holds 9 binary digits of a similarity after the first one; similarities of 32
/// MiB.
const LIMITS: Limits = Limits { bits: 21, held: 1 << 22 };

/// The false match rates at which false non-match rates are measured.
///
/// ```
/// use invaspread_metrics::{LabeledRows, Lookup, Rows, Verification};
///
/// // Four directions in two classes: of the four impostor pairs the one at 30 and 40 degrees is the most similar.
/// let angles = [0f32, 30.0, 40.0, 90.0].map(f32::to_radians);
/// let values: Vec<f32> = angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
/// let queries = LabeledRows { rows: Rows::new(&values, 2), labels: &[0, 0, 1, 1] };
/// let lookup = Lookup { queries, gallery: None, sources: None };
/// let found = Verification { false_match_rates: vec![0.25, 0.01] }.evaluate(&lookup)?;
/// // With one false match allowed, the threshold is that of 0 and 40 degrees; 40 and 90 degrees do not match.
/// assert_eq!((found.genuine, found.impostors, found.at[0].fnmr), (2, 4, Some(50.0)));
/// // A rate of 1 in 100 cannot be seen in four pairs.
/// assert_eq!(found.at[1].fnmr, None);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    /// The rates, each above 0 and below 1, in any order.
    pub false_match_rates: Vec<f64>,
}

/// What verification finds.
#[derive(Debug, Clone, PartialEq)]
pub struct VerificationScores {
    /// The number of pairs of one class.
    pub genuine: u64,
    /// The number of pairs of two classes.
    pub impostors: u64,
    /// One for each rate, in the order of [`Verification::false_match_rates`].
    pub at: Vec<FnmrAtFmr>,
    /// (n) the number of genuine pairs of each query. Among the queries themselves, a pair is one of both its rows.
    pub genuine_of: Vec<u32>,
    /// Whether the pairs are those of the queries themselves.
    pub among_themselves: bool,
}

/// The false non-match rate at one false match rate.
#[derive(Debug, Clone, PartialEq)]
pub struct FnmrAtFmr {
    /// The false match rate that was asked for, from 0 to 1.
    pub fmr: f64,
    /// The false non-match rate in percent; `None` if there are too few impostor pairs, or no genuine pair.
    pub fnmr: Option<f64>,
    /// The similarity above which a pair matches; `None` if there are too few impostor pairs.
    pub threshold: Option<f64>,
    /// (n) how many of the genuine pairs of each query do not match.
    pub missed_of: Vec<u32>,
}

impl Verification {
    /// Returns the number of impostor pairs that a false match rate needs at least.
    pub fn needed(rate: f64) -> f64 {
        (1.0 / rate).round()
    }

    /// Compares all pairs. Holds a histogram for each thread (16 MiB, and for the pairs near a threshold up to 32 MiB
    /// for each rate).
    ///
    /// # Errors
    /// If there are no queries or nothing to search, the dimensions differ, a row is not finite, or products are too
    /// large for f32.
    ///
    /// # Panics
    /// If there are not as many labels or sources as rows, or a rate is not above 0 and below 1.
    pub fn evaluate(&self, lookup: &Lookup) -> Result<VerificationScores, MetricError> {
        self.evaluate_within(LIMITS, lookup)
    }

    fn evaluate_within(&self, limits: Limits, lookup: &Lookup) -> Result<VerificationScores, MetricError> {
        assert!(self.false_match_rates.iter().all(|&rate| rate > 0.0 && rate < 1.0), "{self:?}");
        lookup.check()?;
        let among = lookup.among().rows;
        let scale = Scale::of(among);
        let exact = ExactSimilarities::new(among, &scale);
        let pairs = Pairs { lookup, exact: &exact, gallery: Multiplied::new(among, &scale) };
        let error = pairs.largest_error()?;

        let all = pairs.histogram(limits.bits);
        let impostors: u64 = all.iter().sum();
        let mut searches: Vec<Option<Search>> = self
            .false_match_rates
            .iter()
            .map(|rate| {
                // A product that should be whole may be below it by its rounding.
                let allowed = (rate * impostors as f64 * (1.0 + 1e-12)).floor() as u64;
                (allowed > 0).then(|| Search::new(&all, limits.bits, allowed, error))
            })
            .collect();
        drop(all);
        pairs.finish(searches.iter_mut().flatten().collect(), limits, error);

        let thresholds: Vec<Option<f64>> =
            searches.iter().map(|search| Some(search.as_ref()?.found.expect("finished"))).collect();
        let mut counted = pairs.genuine(&thresholds).into_iter();
        let genuine_of = counted.next().expect("the first counts all genuine pairs");
        let pairs_of = |counts: &[u32]| {
            let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
            if lookup.gallery.is_some() { sum } else { sum / 2 }
        };
        let genuine = pairs_of(&genuine_of);
        let at = self.false_match_rates.iter().zip(thresholds).zip(counted);
        let at = at.map(|((&fmr, threshold), missed_of)| {
            let share = |_| 100.0 * pairs_of(&missed_of) as f64 / genuine as f64;
            let fnmr = threshold.filter(|_| genuine > 0).map(share);
            FnmrAtFmr { fmr, fnmr, threshold, missed_of }
        });
        let among_themselves = lookup.gallery.is_none();
        Ok(VerificationScores { genuine, impostors, at: at.collect(), genuine_of, among_themselves })
    }
}

/// All pairs of a query and a row that it may retrieve.
struct Pairs<'a> {
    lookup: &'a Lookup<'a>,
    exact: &'a ExactSimilarities<'a>,
    gallery: Multiplied<'a>,
}

impl Pairs<'_> {
    fn of(&self, query: usize) -> OfQuery<'_> {
        self.exact.of(self.lookup.queries.rows.row(query)).expect("checked by `largest_error`")
    }

    /// Returns the largest error of a similarity that comes from a product in f32.
    fn largest_error(&self) -> Result<f64, MetricError> {
        let rows = self.lookup.queries.rows;
        (0..rows.len())
            .into_par_iter()
            .map(|query| match self.exact.of(rows.row(query)) {
                Some(of) => Ok(of.error()),
                None => Err(MetricError::Overflow { row: query }),
            })
            .try_reduce(|| 0.0, |a, b| Ok(f64::max(a, b)))
    }

    /// Returns whether query `query` and row `row` are a pair of two classes that counts.
    fn is_impostor(&self, query: usize, row: usize) -> bool {
        let Lookup { queries, gallery, sources } = self.lookup;
        queries.labels[query] != self.lookup.among().labels[row]
            && (gallery.is_some() || row > query)
            && sources.is_none_or(|sources| {
                sources.leaves_out == SameSource::OfItsClass || self.lookup.allows(query, row)
            })
    }

    /// Visits the products of all queries, in blocks, each with an accumulator of its thread.
    fn for_each<A: Send>(
        &self,
        new: impl Fn() -> A + Sync,
        visit: impl Fn(&mut A, &OfQuery, usize, usize, &[f32]) + Sync,
    ) -> Vec<A> {
        let rows = self.lookup.queries.rows;
        let blocks: Vec<Range<usize>> =
            (0..rows.len()).step_by(QUERIES).map(|at| at..(at + QUERIES).min(rows.len())).collect();
        let next = AtomicUsize::new(0);
        // Counts do not depend on which thread takes which block.
        (0..rayon::current_num_threads().min(blocks.len()))
            .into_par_iter()
            .map(|_| {
                let mut accumulator = new();
                while let Some(block) = blocks.get(next.fetch_add(1, Relaxed)) {
                    let of: Vec<OfQuery> = block.clone().map(|query| self.of(query)).collect();
                    let from = if self.lookup.gallery.is_some() { 0 } else { block.start };
                    self.gallery.for_each(rows, block.clone(), from, |query, first, products| {
                        visit(&mut accumulator, &of[query], block.start + query, first, products);
                    });
                }
                accumulator
            })
            .collect()
    }

    /// Counts the similarities of all impostor pairs, as products in f32 give them, in bins of all numbers.
    fn histogram(&self, bits: u32) -> Vec<u64> {
        let found = self.for_each(
            || vec![0_u64; 1 << bits],
            |bins, of, query, first, products| {
                for (at, &product) in products.iter().enumerate() {
                    if self.is_impostor(query, first + at) {
                        bins[(ordered(of.of_product(product)) >> (64 - bits)) as usize] += 1;
                    }
                }
            },
        );
        sum(found)
    }

    /// Finds the threshold of each search.
    fn finish(&self, mut searches: Vec<&mut Search>, limits: Limits, error: f64) {
        while searches.iter().any(|search| search.found.is_none()) {
            searches.retain(|search| search.found.is_none());
            let windows: Vec<Window> = searches.iter().map(|search| search.window(limits, error)).collect();
            let lowest = windows.iter().map(|window| window.from).fold(f64::INFINITY, f64::min);
            let found = self.for_each(
                || (windows.iter().map(Seen::new).collect::<Vec<_>>(), Vec::new()),
                |(seen, above), of, query, first, products| {
                    let floor = (of.as_product(lowest) - of.margin) as f32;
                    above.clear();
                    positions_above(products, floor.next_down(), above);
                    for &at in above.iter() {
                        let row = first + at as usize;
                        if !self.is_impostor(query, row) {
                            continue;
                        }
                        let near = of.of_product(products[at as usize]);
                        let mut exact = None;
                        for (window, seen) in windows.iter().zip(seen.iter_mut()) {
                            if near > window.to {
                                seen.above += 1;
                            } else if near >= window.from {
                                let exact = *exact.get_or_insert_with(|| ordered(of.similarity(row)));
                                seen.add(window, exact);
                            }
                        }
                    }
                },
            );
            let mut of_threads: Vec<_> = found.into_iter().map(|(seen, _)| seen.into_iter()).collect();
            for search in &mut searches {
                let parts = of_threads.iter_mut().map(|seen| seen.next().expect("one for each window"));
                search.narrow(parts.collect());
            }
        }
    }

    /// Returns the number of genuine pairs of each query, and then for each threshold how many of them have a
    /// similarity of at most that.
    fn genuine(&self, thresholds: &[Option<f64>]) -> Vec<Vec<u32>> {
        let members = self.lookup.members();
        let rows = self.lookup.queries.rows.len();
        let among_themselves = self.lookup.gallery.is_none();
        let none = || vec![vec![0_u32; rows]; 1 + thresholds.len()];
        (0..rows)
            .into_par_iter()
            .with_min_len(rows.div_ceil(4 * rayon::current_num_threads()))
            .fold(none, |mut found, query| {
                let of = self.of(query);
                let allowed = self.lookup.relevant_of(query, &members).map(|row| row as usize);
                // Among the queries themselves a pair is compared once, and counts for both.
                for row in allowed.filter(|&row| !among_themselves || row > query) {
                    let similarity = of.similarity(row);
                    let below = |threshold: &Option<f64>| threshold.is_some_and(|at| similarity <= at);
                    let counts = std::iter::once(true).chain(thresholds.iter().map(below));
                    for (of_rows, _) in found.iter_mut().zip(counts).filter(|(_, counts)| *counts) {
                        of_rows[query] += 1;
                        if among_themselves {
                            of_rows[row] += 1;
                        }
                    }
                }
                found
            })
            .reduce(none, |mut first, second| {
                for (first, second) in first.iter_mut().zip(second) {
                    first.iter_mut().zip(second).for_each(|(a, b)| *a += b);
                }
                first
            })
    }
}

/// The search for the similarity at one place of the order of all impostor pairs.
struct Search {
    /// The number of pairs before the one that is looked for, most similar first.
    place: u64,
    /// The smallest and the largest number that it can be, [`ordered`].
    range: (u64, u64),
    /// The most pairs that may be in this range.
    count: u64,
    found: Option<f64>,
}

impl Search {
    /// Starts with the histogram of all pairs, whose similarities are wrong by at most `error`.
    fn new(all: &[u64], bits: u32, place: u64, error: f64) -> Self {
        let (bin, _) = bin_of(all, place);
        let edge = |bin: usize| (bin as u64) << (64 - bits);
        // Similarities are finite, so the bin has finite numbers, but the last of them may be an infinity.
        let low = number(edge(bin)).max(f64::MIN) - error;
        let high = number(edge(bin) | (edge(1) - 1));
        let high = if high.is_finite() { high } else { f64::MAX } + error;
        // Pairs whose products lie up to another `error` away may be in the range.
        let number_of = |value: f64| (ordered(value) >> (64 - bits)) as usize;
        let bins = number_of(low - error)..=number_of(high + error);
        Self { place, range: (ordered(low), ordered(high)), count: all[bins].iter().sum(), found: None }
    }

    fn window(&self, limits: Limits, error: f64) -> Window {
        let (low, high) = self.range;
        let digits = 64 - (high - low).leading_zeros();
        Window {
            from: number(low) - error,
            to: number(high) + error,
            range: self.range,
            shift: digits.saturating_sub(limits.bits),
            held: self.count <= limits.held,
        }
    }

    /// Takes what the threads have seen in the window.
    fn narrow(&mut self, parts: Vec<Seen>) {
        let above: u64 = parts.iter().map(|seen| seen.above).sum();
        let place = usize::try_from(self.place - above).expect("counts of pairs fit into memory");
        let (mut held, mut bins, mut shift) = (Vec::new(), Vec::new(), 0);
        for seen in parts {
            shift = seen.shift;
            match seen.near {
                Near::Held(values) => held.extend(values),
                Near::Counted(counts) => bins.push(counts),
            }
        }
        if bins.is_empty() {
            let (_, &mut at, _) = held.select_nth_unstable_by(place, |a, b| b.cmp(a));
            self.found = Some(number(at));
            return;
        }
        let bins = sum(bins);
        let (bin, _) = bin_of(&bins, place as u64);
        let low = self.range.0 + ((bin as u64) << shift);
        self.range = (low, (low + ((1 << shift) - 1)).min(self.range.1));
        self.count = bins[bin];
        if self.range.0 == self.range.1 {
            self.found = Some(number(self.range.0));
        }
    }
}

/// Where a pass looks for a threshold.
struct Window {
    /// A pair can be in the range if its product is that of a similarity from here ...
    from: f64,
    /// ... to here.
    to: f64,
    range: (u64, u64),
    /// Bins have 2^shift numbers each.
    shift: u32,
    /// Whether the numbers in the range are few enough to be held.
    held: bool,
}

/// What one thread has seen of a window.
struct Seen {
    /// The number of pairs above the range.
    above: u64,
    near: Near,
    shift: u32,
}

/// The pairs within a range.
enum Near {
    Held(Vec<u64>),
    Counted(Vec<u64>),
}

impl Seen {
    fn new(window: &Window) -> Self {
        let near = if window.held {
            Near::Held(Vec::new())
        } else {
            Near::Counted(vec![0; ((window.range.1 - window.range.0) >> window.shift) as usize + 1])
        };
        Self { above: 0, near, shift: window.shift }
    }

    fn add(&mut self, window: &Window, exact: u64) {
        let (low, high) = window.range;
        if exact > high {
            self.above += 1;
        } else if exact >= low {
            match &mut self.near {
                Near::Held(values) => values.push(exact),
                Near::Counted(bins) => bins[((exact - low) >> window.shift) as usize] += 1,
            }
        }
    }
}

/// Returns the bin that holds the pair with `place` pairs before it, the highest bin first, and the number of pairs
/// in higher bins.
fn bin_of(bins: &[u64], place: u64) -> (usize, u64) {
    let mut above = 0;
    for (bin, &count) in bins.iter().enumerate().rev() {
        if above + count > place {
            return (bin, above);
        }
        above += count;
    }
    unreachable!("place {place} of {above} pairs")
}

/// Adds histograms of one length.
fn sum(histograms: Vec<Vec<u64>>) -> Vec<u64> {
    histograms
        .into_iter()
        .reduce(|mut all, other| {
            all.iter_mut().zip(other).for_each(|(all, other)| *all += other);
            all
        })
        .unwrap_or_default()
}

/// Returns an integer that orders as the number does; both zeros are equal.
fn ordered(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// Returns the number of an [`ordered`] integer.
fn number(ordered: u64) -> f64 {
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::{FnmrAtFmr, LIMITS, Limits, Verification, VerificationScores, number, ordered};
    use crate::lookup::testing::{Drawn, Kind, ranked, similarities};
    use crate::{LabeledRows, Lookup, Rows};
    use proptest::prelude::*;

    /// The definition: all pairs in one list.
    fn plain(lookup: &Lookup, rates: &[f64]) -> VerificationScores {
        let (mut genuine, mut impostors) = (Vec::new(), Vec::new());
        let similarities = similarities(lookup);
        for query in 0..lookup.queries.labels.len() {
            for row in ranked(lookup, &similarities[query], query) {
                if lookup.gallery.is_none() && row < query {
                    continue;
                }
                let same = lookup.queries.labels[query] == lookup.among().labels[row];
                let similarity = similarities[query][row] + 0.0;
                if same {
                    genuine.push((similarity, query, row));
                } else {
                    impostors.push(similarity);
                }
            }
        }
        // How many genuine pairs up to a similarity are of each query, or of each row.
        let of_queries = |most: f64| {
            let mut counts = vec![0; lookup.queries.labels.len()];
            for &(_, query, row) in genuine.iter().filter(|pair| pair.0 <= most) {
                counts[query] += 1;
                if lookup.gallery.is_none() {
                    counts[row] += 1;
                }
            }
            counts
        };
        impostors.sort_by(|a, b| b.total_cmp(a));
        let at = |&fmr: &f64| {
            // The lowest of the thresholds whose rate is at most `fmr`, and below which a false match is allowed.
            let n = impostors.len() as f64;
            let rate = |t: f64| impostors.partition_point(|&v| v > t) as f64 / n;
            let threshold =
                impostors.iter().copied().filter(|&t| rate(t) <= fmr + 1e-12).fold(f64::NAN, f64::min);
            let threshold = (fmr * n > 1.0 - 1e-9).then_some(threshold);
            let below = |t| genuine.iter().filter(|pair| pair.0 <= t).count() as f64;
            let fnmr =
                threshold.filter(|_| !genuine.is_empty()).map(|t| 100.0 * below(t) / genuine.len() as f64);
            let missed_of = of_queries(threshold.unwrap_or(f64::NEG_INFINITY));
            FnmrAtFmr { fmr, fnmr, threshold, missed_of }
        };
        VerificationScores {
            genuine: genuine.len() as u64,
            impostors: impostors.len() as u64,
            at: rates.iter().map(at).collect(),
            genuine_of: of_queries(f64::INFINITY),
            among_themselves: lookup.gallery.is_none(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn rates_are_those_of_the_definition(
            n in 2usize..30, m in 1usize..40, dim in 1usize..8, classes in 1usize..6, form in 0usize..3, has_gallery: bool,
            sources in 0usize..3, held in 0u64..40, seed: u64,
        ) {
            let drawn = Drawn::new(Kind { n, m, dim, classes, form, has_gallery, sources }, seed);
            let lookup = drawn.lookup();
            let rates = [0.1, 0.5, 0.01, 0.25];
            let asked = Verification { false_match_rates: rates.into() };
            let found = asked.evaluate_within(Limits { bits: 6, held }, &lookup).unwrap();
            prop_assert_eq!(found, plain(&lookup, &rates));
        }

        #[test]
        fn integers_order_as_numbers_do(a: f64, b: f64) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(ordered(a).cmp(&ordered(b)), a.partial_cmp(&b).unwrap());
            prop_assert_eq!(number(ordered(a)), a);
        }
    }

    #[test]
    fn blocks_and_threads_and_rounds_change_nothing() {
        for form in 0..3 {
            let kind = Kind { n: 900, m: 1, dim: 9, classes: 5, form, has_gallery: false, sources: 2 };
            let drawn = Drawn::new(kind, 5);
            let asked = Verification { false_match_rates: vec![0.1, 1e-3, 1e-5] };
            let want = plain(&drawn.lookup(), &asked.false_match_rates);
            let [some, none] = [10, 0].map(|held| Limits { bits: 9, held });
            for (threads, limits) in [(1, LIMITS), (3, LIMITS), (2, some), (2, none)] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let found = pool.install(|| asked.evaluate_within(limits, &drawn.lookup()).unwrap());
                assert_eq!(found, want, "{form}");
            }
        }
    }

    #[test]
    fn rates_without_pairs_have_no_value() {
        let of = |labels: &[u32], values: &[f32]| {
            let queries = LabeledRows { rows: Rows::new(values, 1), labels };
            let lookup = Lookup { queries, gallery: None, sources: None };
            Verification { false_match_rates: vec![0.5] }.evaluate(&lookup).unwrap()
        };
        let no_impostor = of(&[1, 1], &[1.0, 2.0]);
        assert_eq!((no_impostor.genuine, no_impostor.impostors), (1, 0));
        assert_eq!((no_impostor.at[0].fnmr, no_impostor.at[0].threshold), (None, None));
        let no_genuine = of(&[1, 2, 3], &[1.0, 1.0, -1.0]);
        assert_eq!((no_genuine.genuine, no_genuine.at[0].fnmr), (0, None));
        assert_eq!(no_genuine.at[0].threshold, Some(-1.0));
        // All pairs are equal: none may match falsely, so none matches.
        let equal = of(&[1, 1, 2, 2], &[1.0; 4]);
        assert_eq!((equal.at[0].fnmr, equal.at[0].threshold), (Some(100.0), Some(1.0)));
    }
}
