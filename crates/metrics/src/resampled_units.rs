//! Sums over units that are drawn with replacement, for the bootstrap: a unit is a query, or the queries of a class.
//!
//! For each draw b of U of the U units, and for each column: `Σ_i x_{u_i}`. A draw is counted (how often is each kind of unit
//! drawn?), and the sums of all columns are the product of the counts and the columns.

use crate::Scored;
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;
use std::collections::HashMap;

/// Draws that are worked on together, so that the scores are read once for all of them.
const TOGETHER: usize = 8;
/// Kinds of units that are worked on together: their scores and numbers of draws fit into the first-level cache.
const BLOCK: usize = 256;
/// A sum of fixed-point numbers stays below 2^52, within which f64 is exact.
const BITS: u32 = 52;

/// The units. Many have the same sums, and are of one kind: a draw counts kinds.
pub(crate) struct Units {
    /// The kind of each unit.
    kinds: Vec<u32>,
    /// The sums of a unit of each kind, column by column. Columns that are equal are stored once.
    columns: Vec<Vec<f64>>,
    /// Where each column is stored.
    pub(crate) stored: Vec<usize>,
}

impl Units {
    /// Makes the units of queries with these classes; `add` adds a query to the `width` sums of its unit.
    pub(crate) fn new(width: usize, classes: &[u32], add: impl Fn(usize, &mut [f64])) -> Self {
        let (known, unit_of) = numbered(classes);
        let mut rows = vec![0.0; known * width];
        for (query, unit) in unit_of.into_iter().enumerate() {
            add(query, &mut rows[unit * width..][..width]);
        }
        let (mut numbers, mut distinct) = (HashMap::new(), Vec::new());
        let kinds = rows
            .chunks_exact(width)
            .map(|row| {
                let bits: Vec<u64> = row.iter().map(|x| x.to_bits()).collect();
                let next = numbers.len() as u32;
                *numbers.entry(bits).or_insert_with(|| {
                    distinct.push(row);
                    next
                })
            })
            .collect();
        let (mut columns, mut stored) = (Vec::<Vec<f64>>::new(), Vec::new());
        for column in 0..width {
            let values: Vec<f64> = distinct.iter().map(|row| row[column]).collect();
            let known = columns.iter().position(|other| *other == values);
            stored.push(known.unwrap_or(columns.len()));
            if known.is_none() {
                columns.push(values);
            }
        }
        Self { kinds, columns, stored }
    }

    /// Returns the number of kinds.
    fn count(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// Returns the number of columns that are stored.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Makes units with the sums of each column in fixed point, then the sums of their weights. Returns also what the
    /// sums of each column are divided by to be sums of scores.
    pub(crate) fn of_scores(columns: &[Scored<'_>], classes: &[u32]) -> (Self, Vec<f64>) {
        let (known, unit_of) = numbered(classes);
        let scales: Vec<f64> = columns
            .iter()
            .map(|column| {
                let mut of_unit = vec![0_u64; known];
                for (query, &unit) in unit_of.iter().enumerate() {
                    of_unit[unit] += column.weights.map_or(1, |weights| u64::from(weights[query]));
                }
                // A draw takes the largest unit as often as there are units at most.
                let most = of_unit.iter().max().copied().unwrap_or(1) * known as u64;
                f64::from(BITS.saturating_sub(most.max(1).ilog2() + 1)).exp2()
            })
            .collect();
        let count = columns.len();
        let units = Self::new(2 * count, classes, |query, sums| {
            for (column, scored) in columns.iter().enumerate() {
                if let Some((score, weight)) = scored.of(query) {
                    sums[column] += (score * f64::from(weight) * scales[column]).round();
                    sums[count + column] += f64::from(weight);
                }
            }
        });
        (units, scales)
    }

    /// Returns the number of units whose sum `column` is above 0.
    pub(crate) fn with(&self, column: usize) -> usize {
        let column = &self.columns[self.stored[column]];
        self.kinds.iter().filter(|&&kind| column[kind as usize] > 0.0).count()
    }

    /// Returns the sums of the units of each draw, which has as many units as there are: (resamples, the columns that are
    /// stored).
    pub(crate) fn sums(&self, resamples: usize, seed: u64) -> Vec<f64> {
        // No kind is drawn more often than there are units. Small counts stay in the first-level cache.
        if u16::try_from(self.kinds.len()).is_ok() {
            self.sums_by::<u16>(resamples, seed)
        } else {
            self.sums_by::<u32>(resamples, seed)
        }
    }

    fn sums_by<Count: Counter>(&self, resamples: usize, seed: u64) -> Vec<f64> {
        let (width, kinds) = (self.width(), self.count());
        let mut all = vec![0.0; resamples * width];
        all.par_chunks_mut(TOGETHER * width).enumerate().for_each(|(task, sums)| {
            let draws = sums.len() / width;
            let mut times = vec![Count::default(); draws * kinds];
            for (draw, times) in times.chunks_exact_mut(kinds).enumerate() {
                let index = (task * TOGETHER + draw) as u64;
                let stream = &mut Stream::new(seed, Purpose::Bootstrap, 0, index);
                draw_units(stream, self, times);
            }
            let mut block = [0.0; BLOCK];
            for begin in (0..kinds).step_by(BLOCK) {
                let end = kinds.min(begin + BLOCK);
                for (times, sums) in times.chunks_exact(kinds).zip(sums.chunks_exact_mut(width)) {
                    let block = &mut block[..end - begin];
                    block.iter_mut().zip(&times[begin..end]).for_each(|(to, &from)| *to = from.into());
                    for (sum, column) in sums.iter_mut().zip(&self.columns) {
                        *sum += product(block, &column[begin..end]);
                    }
                }
            }
        });
        all
    }
}

/// Returns the number of distinct classes and, for each query, the number of its class in their order.
pub(crate) fn numbered(classes: &[u32]) -> (usize, Vec<usize>) {
    let mut known = classes.to_vec();
    known.sort_unstable();
    known.dedup();
    let unit_of = classes.iter().map(|&class| known.partition_point(|&other| other < class)).collect();
    (known.len(), unit_of)
}

/// How often something is drawn.
trait Counter: Copy + Default + Into<f64> + From<u8> + std::ops::AddAssign + Send {}
impl Counter for u16 {}
impl Counter for u32 {}

/// Returns the inner product of two lists of one length. Its sums have a fixed order, which a vector unit can follow.
fn product(one: &[f64], other: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0; LANES];
    let (ones, others) = (one.chunks_exact(LANES), other.chunks_exact(LANES));
    let rest = ones.remainder().iter().zip(others.remainder()).map(|(a, b)| a * b).sum::<f64>();
    for (one, other) in ones.zip(others) {
        for (lane, (a, b)) in lanes.iter_mut().zip(one.iter().zip(other)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// Draws as many units as there are, and adds to `times` how often each kind is drawn.
fn draw_units<Count: Counter>(stream: &mut Stream, units: &Units, times: &mut [Count]) {
    let kinds = &units.kinds[..];
    // Kinds are numbered in the order of the units: where no two units are of one kind, unit and kind have one number.
    if units.count() == kinds.len() {
        draw_numbers(stream, kinds.len(), |unit| times[unit] += 1.into());
    } else {
        draw_numbers(stream, kinds.len(), |unit| times[kinds[unit] as usize] += 1.into());
    }
}

/// Draws `count` of the numbers below `count`, with replacement.
fn draw_numbers(stream: &mut Stream, count: usize, mut take: impl FnMut(usize)) {
    // As in `Stream::below`: these low words would make some numbers more likely than others.
    let reject_under = (1_u64 << 32) % count as u64;
    let mut words = [0_u32; 1024];
    let mut left = count;
    while left > 0 {
        let words = &mut words[..left.min(1024)];
        stream.fill(words);
        for &mut word in words {
            let product = u64::from(word) * count as u64;
            if product & 0xffff_ffff >= reject_under {
                take((product >> 32) as usize);
                left -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Units, draw_units};
    use invaspread_random::{Purpose, Stream};

    #[test]
    fn as_many_units_are_drawn_as_there_are() {
        for count in [1_usize, 2, 3, 1000, 5001] {
            // Units of one class each; two neighbors have equal sums, or none has.
            for alike in [1, 2] {
                let classes: Vec<u32> = (0..count as u32).collect();
                let units = Units::new(1, &classes, |query, sums| sums[0] = (query / alike) as f64);
                assert_eq!(units.count(), count.div_ceil(alike));
                let mut times = vec![0_u16; units.count()];
                draw_units(&mut Stream::new(3, Purpose::Bootstrap, 0, 1), &units, &mut times);
                assert_eq!(times.iter().map(|&times| usize::from(times)).sum::<usize>(), count);
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_units_drawn() {
        // More units than 16 bits count, and fewer; the third column is the first again, and is stored once.
        for count in [70_000_u32, 900] {
            let classes: Vec<u32> = (0..count).collect();
            let units = Units::new(3, &classes, |query, sums| {
                sums.copy_from_slice(&[query as f64, 1.0, query as f64]);
            });
            assert_eq!((units.width(), &units.stored[..]), (2, &[0, 1, 0][..]));
            let sums = units.sums(3, 8);
            for (resample, sums) in sums.chunks_exact(2).enumerate() {
                let mut stream = Stream::new(8, Purpose::Bootstrap, 0, resample as u64);
                let drawn = (0..count).map(|_| stream.below(count as usize) as f64).sum::<f64>();
                assert_eq!(sums, [drawn, f64::from(count)]);
            }
        }
    }
}
