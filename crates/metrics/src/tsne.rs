//! A map of embeddings in two dimensions by Barnes-Hut t-SNE, which crate `bhtsne` computes.
//!
//! Shapes: points (n, d) of length 1, start (n, 2), map (n, 2). Neighbors come from this crate's exact search, and
//! distances are those of unit rows, `sqrt(2 - 2 s)`. The map begins at the given places (PCA), scaled to a deviation of
//! 1e-4 along the first axis, and not at random ones, so it keeps their global order (Kobak & Berens 2019) and holds no
//! chance. It is computed on one thread, because bhtsne's sums depend on how threads share them; then the same points
//! always give the same bits on one machine. Machines whose `exp` differs in a last digit may draw another map.
//!
//! Sources: van der Maaten, "Accelerating t-SNE using Tree-Based Algorithms", JMLR 2014.

use crate::{MetricError, Rows, top_k};
use bhtsne::{Neighbor, tSNE};

/// The settings of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tsne {
    /// The number of neighbors that a point effectively has, above zero. Fewer points than three times as many have a
    /// lower one.
    pub perplexity: f32,
    /// The number of steps; exaggeration ends at 250.
    pub steps: usize,
}

impl Default for Tsne {
    /// Returns perplexity 30 and 750 steps: 20 seconds for 10,000 points.
    fn default() -> Self {
        Self { perplexity: 30.0, steps: 750 }
    }
}

/// The accuracy of the tree: 0 is exact, 0.5 is the usual choice.
const THETA: f32 = 0.5;
/// The fewest points that have a map.
const FEWEST: usize = 10;

impl Tsne {
    /// Returns the map of `points` (n, d), which have length 1, from `start` (n, 2); `None` if all places of `start` are equal,
    /// so that nothing moves, or if the map is not finite.
    ///
    /// # Errors
    /// Returns `TooFewRows` for fewer than ten points, `Threads` if the system gives no thread, and the errors of
    /// [`top_k`].
    ///
    /// # Panics
    /// If there are not two numbers of `start` for each point.
    pub fn map(&self, points: Rows, start: &[f32]) -> Result<Option<Vec<f32>>, MetricError> {
        let n = points.len();
        assert_eq!(start.len(), 2 * n, "two numbers for each point");
        if n < FEWEST {
            return Err(MetricError::TooFewRows {
                what: "points of a map",
                found: n,
                needed: FEWEST,
                advice: "use more images",
            });
        }
        if start.chunks(2).all(|place| place == &start[..2]) {
            return Ok(None);
        }
        let perplexity = self.perplexity.min((n - 1) as f32 / 3.0);
        let found = top_k(points, points, (3.0 * perplexity) as usize, true)?;
        let neighbors: Vec<Vec<Neighbor<f32>>> = (0..n)
            .map(|row| {
                let (indices, similarities) = found.of(row);
                let near = |(&index, &similarity): (&u32, &f32)| Neighbor {
                    index: index as usize,
                    distance: (2.0 - 2.0 * similarity).max(0.0).sqrt(),
                };
                indices.iter().zip(similarities).map(near).collect()
            })
            .collect();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .map_err(|error| MetricError::Threads { reason: error.to_string() })?;
        let places = pool.install(|| {
            let units = vec![(); n];
            let mut map: tSNE<'_, f32, (), 2> = tSNE::new(&units);
            map.perplexity(perplexity).epochs(self.steps).initial_embedding(scaled(start));
            map.barnes_hut_with_neighbors(THETA, &neighbors).embedding()
        });
        Ok(places.iter().all(|place| place.is_finite()).then_some(places))
    }
}

/// Returns `start` with a deviation of 1e-4 along the first axis.
fn scaled(start: &[f32]) -> Vec<f32> {
    let squares: f64 = start.iter().step_by(2).map(|&x| f64::from(x).powi(2)).sum();
    let deviation = (squares / (start.len() / 2) as f64).sqrt();
    let factor = if deviation > 0.0 { 1e-4 / deviation } else { 0.0 };
    start.iter().map(|&x| (f64::from(x) * factor) as f32).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Tsne;
    use crate::{MetricError, Rows, Whitening, l2_normalize_rows};
    use invaspread_random::{Purpose, Stream};

    /// Returns `n` unit rows around three directions in turn.
    fn clusters(n: usize) -> Vec<f32> {
        let mut stream = Stream::new(3, Purpose::Bootstrap, 0, 0);
        let mut values: Vec<f32> = (0..n * 8)
            .map(|i| 0.1 * stream.normal() as f32 + if i % 8 == (i / 8) % 3 { 1.0 } else { 0.0 })
            .collect();
        l2_normalize_rows(&mut values, 8);
        values
    }

    fn map(values: &[f32], tsne: Tsne) -> Option<Vec<f32>> {
        let points = Rows::new(values, 8);
        let start = Whitening::fit(points, 2).unwrap().unscaled(points);
        tsne.map(points, &start).unwrap()
    }

    #[test]
    fn clusters_stay_apart_and_the_bits_repeat() {
        let values = clusters(150);
        let tsne = Tsne { perplexity: 15.0, steps: 400 };
        let places = map(&values, tsne).unwrap();
        assert_eq!(map(&values, tsne).unwrap(), places);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| map(&values, tsne)).unwrap(), places, "threads change nothing");
        let square = |i: usize, j: usize| {
            (0..2).map(|axis| f64::from(places[2 * i + axis] - places[2 * j + axis]).powi(2)).sum::<f64>()
        };
        // The nearest place of a point belongs to a point of its own cluster.
        for i in 0..150 {
            let nearest =
                (0..150).filter(|&j| j != i).min_by(|&a, &b| square(i, a).total_cmp(&square(i, b))).unwrap();
            assert_eq!(i % 3, nearest % 3, "{i} {nearest}");
        }
    }

    #[test]
    fn few_and_equal_points_are_told() {
        let values = clusters(9);
        let error = Tsne::default().map(Rows::new(&values, 8), &[0.0; 18]).unwrap_err();
        assert!(matches!(error, MetricError::TooFewRows { found: 9, needed: 10, .. }), "{error}");
        // Few points lower the perplexity; equal ones have no map.
        assert!(map(&clusters(10), Tsne { steps: 50, ..Tsne::default() }).is_some());
        let equal: Vec<f32> = clusters(1).repeat(20);
        assert_eq!(map(&equal, Tsne { steps: 50, ..Tsne::default() }), None);
        // Many copies of two points are not equal, and their map is finite.
        let two: Vec<f32> = clusters(2).repeat(20);
        let places = map(&two, Tsne { steps: 50, ..Tsne::default() }).unwrap();
        assert!(places.iter().all(|place| place.is_finite()));
    }
}
