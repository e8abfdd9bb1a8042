//! Measures how well a clustering agrees with the classes, by normalized and adjusted mutual information.
//!
//! With n_ij points of class i in cluster j, a_i = Σ_j n_ij, b_j = Σ_i n_ij and n points in all:
//!
//! `MI = Σ_ij (n_ij/n) ln(n n_ij / (a_i b_j))`, `H(a) = -Σ_i (a_i/n) ln(a_i/n)`, `NMI = MI / m(H(a), H(b))`
//! with the arithmetic or geometric mean m, `AMI = (MI - E[MI]) / ((H(a) + H(b))/2 - E[MI])`, where E[MI] is
//! taken over all clusterings of the same sizes (Vinh, Epps and Bailey, JMLR 2010).
//!
//! These differences lose their digits near the limits, where every point is a class of its own or the
//! partitions are nearly equal. So the code sums the disagreement `D = (H(a) + H(b))/2 - MI = Σ_ij (n_ij/n)
//! ln(a_i b_j / n_ij²) / 2`, which has no negative term and is exactly 0 for equal partitions: `MI = (H(a) +
//! H(b))/2 - D` and `AMI = 1 - D / E[D]`.
//!
//! Shapes: classes (n), clusters (n). Tables 3 to 6 of the paper have a column NMI. The paper's code calls
//! scikit-learn, which took the geometric mean before version 0.22 and has taken the arithmetic mean since;
//! both are computed. Equal partitions have the value 1, whatever their sizes. If all clusterings of the
//! given sizes have the same MI (there is a single cluster, or every point is a cluster), AMI is 0 unless the
//! partitions are equal. The terms of E[D] are computed once for each pair of distinct sizes, not for each
//! pair of clusters: for 11,316 classes of a few sizes this takes seconds instead of hours.

use crate::MetricError;
use crate::resampled_units::numbered;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The agreement of a clustering with the classes: each value is 1 for equal partitions.
///
/// ```
/// use invaspread_metrics::Agreement;
///
/// // The names of clusters do not matter.
/// let same = Agreement::between(&[0, 0, 1, 1], &[5, 5, 2, 2])?;
/// assert_eq!((same.nmi_arithmetic, same.ami), (1.0, 1.0));
/// // These clusters give no information about the classes.
/// let unrelated = Agreement::between(&[0, 0, 1, 1], &[0, 1, 0, 1])?;
/// assert!(unrelated.nmi_arithmetic.abs() < 1e-12 && unrelated.ami < 0.0);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// NMI with the arithmetic mean of the entropies, as in scikit-learn since 0.22; at least 0.
    pub nmi_arithmetic: f64,
    /// NMI with the geometric mean, as in scikit-learn before 0.22 and so most likely in the paper; at least
    /// 0.
    pub nmi_geometric: f64,
    /// AMI. Its mean over random clusterings is 0, so that of a single clustering may be below 0.
    pub ami: f64,
}

impl Agreement {
    /// Compares `clusters` (n) with `classes` (n).
    ///
    /// # Errors
    /// If there is no point.
    ///
    /// # Panics
    /// If the two slices differ in length.
    pub fn between(classes: &[u32], clusters: &[u32]) -> Result<Self, MetricError> {
        assert_eq!(classes.len(), clusters.len(), "one cluster per point");
        let points = classes.len();
        if points == 0 {
            return Err(MetricError::TooFewRows {
                what: "points",
                found: 0,
                needed: 1,
                advice: "use more images",
            });
        }
        Ok(Partitions::of(classes, clusters).joint(|_| true).agreement())
    }
}

/// Points in the order of their class and then of their cluster, so that the parts of any of them are counted in one pass.
pub(crate) struct Partitions {
    /// Class, cluster and number of each point; classes and clusters are numbered from 0.
    points: Vec<[u32; 3]>,
    classes: usize,
    clusters: usize,
}

impl Partitions {
    /// Takes the classes (n) and clusters (n) of points.
    pub(crate) fn of(classes: &[u32], clusters: &[u32]) -> Self {
        let ((classes, class_of), (clusters, cluster_of)) = (numbered(classes), numbered(clusters));
        let mut points: Vec<[u32; 3]> = class_of
            .iter()
            .zip(&cluster_of)
            .zip(0..)
            .map(|((&a, &b), point)| [a as u32, b as u32, point])
            .collect();
        points.sort_unstable();
        Self { points, classes, clusters }
    }

    /// Counts the points that are `taken`.
    pub(crate) fn joint(&self, taken: impl Fn(u32) -> bool) -> Joint {
        let (mut a, mut b) = (vec![0; self.classes], vec![0; self.clusters]);
        let mut pairs: Vec<[u32; 3]> = Vec::new();
        for &[class, cluster, point] in &self.points {
            if !taken(point) {
                continue;
            }
            a[class as usize] += 1;
            b[cluster as usize] += 1;
            match pairs.last_mut() {
                Some([of, with, count]) if (*of, *with) == (class, cluster) => *count += 1,
                _ => pairs.push([class, cluster, 1]),
            }
        }
        Joint { points: a.iter().map(|&size| size as usize).sum(), a, b, pairs }
    }
}

/// The sizes of classes, clusters and their common parts.
pub(crate) struct Joint {
    points: usize,
    /// The size of each class; 0 for one without a point.
    a: Vec<u32>,
    /// The size of each cluster.
    b: Vec<u32>,
    /// Class, cluster and number of common points, where there are any, in the order of class and cluster.
    pairs: Vec<[u32; 3]>,
}

impl Joint {
    /// Returns the agreement, if there is a point.
    pub(crate) fn agreement(&self) -> Agreement {
        let [a, b] = [&self.a, &self.b].map(|sizes| distinct(sizes));
        let [classes, clusters] = [&a, &b].map(|sizes| sizes.values().map(|&times| times as usize).sum());
        if let Some(value) = self.clear_case(classes, clusters) {
            return Agreement { nmi_arithmetic: value, nmi_geometric: value, ami: value };
        }
        let entropies = [&a, &b].map(|sizes| entropy(sizes, self.points));
        let arithmetic = f64::midpoint(entropies[0], entropies[1]);
        let geometric = (entropies[0] * entropies[1]).sqrt();
        let disagreement = self.disagreement();
        let information = (arithmetic - disagreement).max(0.0);
        let ami = if [classes, clusters].contains(&self.points) {
            0.0
        } else {
            1.0 - disagreement / expected_disagreement(&a, &b, self.points)
        };
        Agreement { nmi_arithmetic: information / arithmetic, nmi_geometric: information / geometric, ami }
    }

    /// Returns the value of every measure, if the numbers of classes, clusters and pairs alone give it.
    fn clear_case(&self, classes: usize, clusters: usize) -> Option<f64> {
        // There are as many pairs as classes and as clusters, so each class is one cluster.
        if [classes, clusters] == [self.pairs.len(); 2] {
            return Some(1.0);
        }
        // A single class or a single cluster gives no information about the other partition.
        (classes == 1 || clusters == 1).then_some(0.0)
    }

    fn disagreement(&self) -> f64 {
        let term = |&[class, cluster, count]: &[u32; 3]| {
            let (a, b) = (self.a[class as usize], self.b[cluster as usize]);
            f64::from(count) / self.points as f64 * half_log_excess(a, b, count)
        };
        self.pairs.iter().map(term).sum()
    }
}

/// Returns `ln(a b / k²) / 2` for k ≤ a and k ≤ b. It is exactly 0 if all three are equal, and loses no
/// digits if they are nearly equal.
fn half_log_excess(a: u32, b: u32, k: u32) -> f64 {
    let (a, b, k) = (u64::from(a), u64::from(b), u64::from(k));
    0.5 * ((a * b - k * k) as f64 / (k * k) as f64).ln_1p()
}

fn entropy(sizes: &BTreeMap<u32, u32>, points: usize) -> f64 {
    let term = |(&size, &times): (&u32, &u32)| {
        let share = f64::from(size) / points as f64;
        -f64::from(times) * share * share.ln()
    };
    sizes.iter().map(term).sum::<f64>().max(0.0)
}

/// Counts how many classes (or clusters) have each size; those without a point do not count.
fn distinct(sizes: &[u32]) -> BTreeMap<u32, u32> {
    let mut times = BTreeMap::new();
    for &size in sizes.iter().filter(|&&size| size > 0) {
        *times.entry(size).or_default() += 1;
    }
    times
}

/// Returns E[D]; n_ij follows the hypergeometric distribution of a_i, b_j and n.
fn expected_disagreement(a: &BTreeMap<u32, u32>, b: &BTreeMap<u32, u32>, points: usize) -> f64 {
    let a: Vec<_> = a.iter().collect();
    let of_size: Vec<f64> = a
        .par_iter()
        .map(|&(&a, &times_a)| {
            b.iter()
                .map(|(&b, &times_b)| {
                    f64::from(times_a) * f64::from(times_b) * expected_of_pair(a, b, points)
                })
                .sum()
        })
        .collect();
    of_size.iter().sum()
}

/// Weights below this share of the largest weight are smaller than the rounding of the sum.
const NEGLIGIBLE: f64 = 1e-30;

/// Returns `E[(k/n) ln(a b / k²) / 2]`, where k is the number of points that a class of `a` and a cluster of
/// `b` of n `points` share.
///
/// The probabilities are computed from the most likely k upwards and downwards by their ratios, and divided
/// by their sum. Logarithms of factorials would lose as many digits as n has.
fn expected_of_pair(a: u32, b: u32, points: usize) -> f64 {
    let (class, cluster, n) = (f64::from(a), f64::from(b), points as f64);
    let least = (u64::from(a) + u64::from(b)).saturating_sub(points as u64) as u32;
    let most = a.min(b);
    // p(k + 1) / p(k)
    let ratio = |k: u32| {
        let k = f64::from(k);
        (class - k) * (cluster - k) / ((k + 1.0) * (n - class - cluster + k + 1.0))
    };
    let likeliest = (((class + 1.0) * (cluster + 1.0) / (n + 2.0)) as u32).clamp(least, most);
    let (mut total, mut sum) = (0.0, 0.0);
    let mut add = |k: u32, weight: f64| {
        total += weight;
        if k > 0 {
            sum += weight * f64::from(k) / n * half_log_excess(a, b, k);
        }
    };
    add(likeliest, 1.0);
    let (mut k, mut weight) = (likeliest, 1.0);
    while k < most && weight > NEGLIGIBLE {
        weight *= ratio(k);
        k += 1;
        add(k, weight);
    }
    (k, weight) = (likeliest, 1.0);
    while k > least && weight > NEGLIGIBLE {
        k -= 1;
        weight /= ratio(k);
        add(k, weight);
    }
    sum / total
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Agreement, Partitions, entropy, expected_disagreement};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn between(classes: &[u32], clusters: &[u32]) -> Agreement {
        Agreement::between(classes, clusters).unwrap()
    }

    /// Returns how many labels occur how often.
    fn sizes(labels: &[u32]) -> BTreeMap<u32, u32> {
        let mut times: BTreeMap<u32, u32> = BTreeMap::new();
        for &label in labels {
            *times.entry(label).or_default() += 1;
        }
        let mut of_size = BTreeMap::new();
        for size in times.into_values() {
            *of_size.entry(size).or_default() += 1;
        }
        of_size
    }

    #[test]
    fn the_same_partition_under_other_names_is_whole_agreement() {
        let got = between(&[0, 0, 1, 1, 2, 2], &[7, 7, 3, 3, 5, 5]);
        for value in [got.nmi_arithmetic, got.nmi_geometric, got.ami] {
            assert!((value - 1.0).abs() < 1e-12, "{got:?}");
        }
    }

    #[test]
    fn by_hand() {
        // There are two classes of two points, and clusters of three points and of one: MI = 1/2 ln(4/3) +
        // 1/4 ln(2/3) + 1/4 ln 2.
        let got = between(&[0, 0, 1, 1], &[0, 0, 0, 1]);
        let information = 0.5 * (4.0_f64 / 3.0).ln() + 0.25 * (2.0_f64 / 3.0).ln() + 0.25 * 2.0_f64.ln();
        let (h, g) = (2.0_f64.ln(), -(0.75 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln()));
        assert!((got.nmi_arithmetic - information / f64::midpoint(h, g)).abs() < 1e-12);
        assert!((got.nmi_geometric - information / (h * g).sqrt()).abs() < 1e-12);
        // Every clustering of these sizes has the same mutual information, so none is better than chance.
        assert!(got.ami.abs() < 1e-12, "{got:?}");
    }

    #[test]
    fn one_class_or_one_cluster() {
        let one = between(&[4, 4, 4], &[2, 2, 2]);
        assert!([one.nmi_arithmetic, one.nmi_geometric, one.ami].iter().all(|v| (v - 1.0).abs() < 1e-12));
        let apart = between(&[0, 0, 1, 1], &[0, 0, 0, 0]);
        assert!(
            [apart.nmi_arithmetic, apart.nmi_geometric, apart.ami].iter().all(|v| v.abs() < 1e-12),
            "{apart:?}"
        );
        assert!(Agreement::between(&[], &[]).is_err());
    }

    /// Returns the numbers of points at which the limits are checked: all small ones, then some up to 2,000.
    fn counts() -> impl Iterator<Item = u32> {
        (1..=64).chain((65..=2000).step_by(97)).chain([1024, 1999, 2000])
    }

    /// Returns a permutation of 0..n that leaves few numbers in place.
    fn permuted(n: u32) -> Vec<u32> {
        let step = (2..n + 3).map(|s| 2 * s + 1).find(|s| gcd(*s, n) == 1).unwrap();
        (0..n).map(|i| (u64::from(i) * u64::from(step) % u64::from(n)) as u32).collect()
    }

    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }

    fn assert_values(got: Agreement, want: [f64; 3], what: &str) {
        let got = [got.nmi_arithmetic, got.nmi_geometric, got.ami];
        assert!(
            got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12),
            "{what}: {got:?}, expected {want:?}"
        );
    }

    #[test]
    fn equal_partitions_of_any_sizes_are_exactly_one() {
        for n in counts() {
            let name = permuted(n);
            for group in [1, 2, 3, 7, n / 2 + 1, n] {
                let classes: Vec<u32> = (0..n).map(|i| i / group).collect();
                let clusters: Vec<u32> = classes.iter().map(|&c| name[c as usize] + 5).collect();
                let whole = Agreement { nmi_arithmetic: 1.0, nmi_geometric: 1.0, ami: 1.0 };
                assert_eq!(between(&classes, &clusters), whole, "{n} points in groups of {group}");
            }
        }
    }

    #[test]
    fn one_cluster_against_many_classes_is_exactly_zero() {
        for n in counts().filter(|&n| n > 1) {
            let (one, two) = (vec![7; n as usize], (0..n).map(|i| i % 2).collect::<Vec<_>>());
            let nothing = Agreement { nmi_arithmetic: 0.0, nmi_geometric: 0.0, ami: 0.0 };
            for many in [permuted(n), two] {
                assert_eq!(between(&one, &many), nothing, "{n}");
                assert_eq!(between(&many, &one), nothing, "{n}");
            }
        }
    }

    #[test]
    fn every_point_apart_has_the_information_of_the_other_partition_and_none_above_chance() {
        // MI = H(b), H(a) = ln n; b consists of two halves, or of one pair and single points.
        for n in counts().filter(|&n| n > 3) {
            let points = f64::from(n);
            let apart = permuted(n);
            let halves: Vec<u32> = (0..n).map(|i| u32::from(i < n / 2)).collect();
            let share = f64::from(n / 2) / points;
            let of_halves = -share * share.ln() - (1.0 - share) * (1.0 - share).ln();
            let pair: Vec<u32> = (0..n).map(|i| i.max(1)).collect();
            let of_pair = points.ln() - 2.0 / points * 2.0_f64.ln();
            for (other, h) in [(halves, of_halves), (pair, of_pair)] {
                let want = [h / f64::midpoint(h, points.ln()), (h / points.ln()).sqrt(), 0.0];
                assert_values(between(&apart, &other), want, &format!("{n}"));
                assert_values(between(&other, &apart), want, &format!("{n}"));
            }
        }
    }

    #[test]
    fn nearly_every_point_apart_keeps_its_digits() {
        // Both sides have one pair, but not the same one: D = (4 ln 2 / n) / 2. For E[D]: the pairs coincide
        // in one of n(n-1)/2 arrangements, and there D is zero.
        for n in counts().filter(|&n| n > 4) {
            let classes: Vec<u32> = (0..n).map(|i| i.max(1)).collect();
            let clusters: Vec<u32> = (0..n).map(|i| if i == 3 { 2 } else { i }).collect();
            let points = f64::from(n);
            let chance = 2.0 / (points * (points - 1.0));
            let want = 1.0 - 1.0 / (1.0 - chance);
            let got = between(&classes, &clusters).ami;
            assert!((got - want).abs() < 1e-12, "{n}: {got}, expected {want}");
        }
    }

    proptest! {
        /// Counts some of the points, and compares the agreement with that of these points alone.
        #[test]
        fn a_part_agrees_as_its_points_do(points in prop::collection::vec((0_u32..5, 0_u32..6, any::<bool>()), 1..40)) {
            let classes: Vec<u32> = points.iter().map(|point| 10 * point.0).collect();
            let clusters: Vec<u32> = points.iter().map(|point| point.1).collect();
            let of = |labels: &[u32]| -> Vec<u32> {
                labels.iter().zip(&points).filter(|(_, point)| point.2).map(|(&label, _)| label).collect()
            };
            prop_assume!(points.iter().any(|point| point.2));
            let part = Partitions::of(&classes, &clusters).joint(|point| points[point as usize].2).agreement();
            prop_assert_eq!(part, between(&of(&classes), &of(&clusters)));
        }

        /// Compares E[D] with the mean over all arrangements of the clusters.
        #[test]
        fn chance_is_the_mean_over_all_arrangements(classes in prop::collection::vec(0_u32..3, 2..7), clusters in prop::collection::vec(0_u32..3, 7)) {
            let n = classes.len();
            let mut clusters = clusters[..n].to_vec();
            let want = expected_disagreement(&sizes(&classes), &sizes(&clusters), n);
            let (mut sum, mut arrangements) = (0.0, 0.0);
            // Heap's algorithm.
            let mut counters = vec![0; n];
            let mut add = |clusters: &[u32]| {
                let got = between(&classes, clusters);
                let entropy = |labels: &[u32]| entropy(&sizes(labels), n);
                let mean = f64::midpoint(entropy(&classes), entropy(clusters));
                sum += mean - got.nmi_arithmetic * mean;
                arrangements += 1.0;
            };
            add(&clusters);
            let mut i = 0;
            while i < n {
                if counters[i] < i {
                    clusters.swap(if i % 2 == 0 { 0 } else { counters[i] }, i);
                    add(&clusters);
                    counters[i] += 1;
                    i = 0;
                } else {
                    counters[i] = 0;
                    i += 1;
                }
            }
            prop_assert!((want - sum / arrangements).abs() < 1e-10, "{want} {}", sum / arrangements);
        }
    }
}
