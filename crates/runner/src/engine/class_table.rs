//! The metrics of each class, and the classes that it is confused with.

use std::collections::BTreeMap;

use super::measure::{Findings, QueryScored};

/// The largest number of classes that a class is said to be confused with.
const MOST_CONFUSED: usize = 3;

/// The scores of the queries of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// The class.
    pub class: u32,
    /// The number of its queries.
    pub queries: usize,
    /// Each metric that is a mean over queries or over their pairs: its name, and its mean over the queries of the class in percent, if
    /// one of them has a score.
    pub metrics: Vec<(String, Option<f64>)>,
    /// The classes of the nearest rows of its queries, other than its own: the three most frequent ones, each with
    /// the number of these queries.
    pub confused_with: Vec<(u32, usize)>,
}

impl Findings {
    /// Returns the scores of each class that has queries, in the order of the classes; `classes` are those of the
    /// queries. No class is confused with another one unless the nearest classes were asked for.
    ///
    /// # Panics
    /// Panics if there are not as many classes as queries.
    pub fn per_class(&self, classes: &[u32]) -> Vec<ClassScores> {
        let mut queries: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (query, &class) in classes.iter().enumerate() {
            queries.entry(class).or_default().push(query);
        }
        let scored = self.scored();
        assert!(scored.iter().all(|one| one.scores.len() == classes.len()), "one class for each query");
        let of_class = |(class, queries): (u32, Vec<usize>)| {
            let mean = |one: &QueryScored| Some(100.0 * one.mean_of(queries.iter().copied())?);
            let metrics = scored.iter().map(|one| (one.name.clone(), mean(one))).collect();
            let mut others: BTreeMap<u32, usize> = BTreeMap::new();
            if let Some(nearest) = &self.more.nearest_classes {
                for other in queries.iter().filter_map(|&query| nearest[query]).filter(|&o| o != class) {
                    *others.entry(other).or_default() += 1;
                }
            }
            let mut confused_with: Vec<(u32, usize)> = others.into_iter().collect();
            confused_with.sort_by_key(|&(other, count)| (std::cmp::Reverse(count), other));
            confused_with.truncate(MOST_CONFUSED);
            ClassScores { class, queries: queries.len(), metrics, confused_with }
        };
        queries.into_iter().map(of_class).collect()
    }
}
