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
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

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
        let joint = Joint::of(classes, clusters);
        let [nmi_arithmetic, nmi_geometric] = joint.normalized_information();
        let Joint { a, b, .. } = &joint;
        let ami = match joint.clear_case() {
            Some(value) => value,
            None if a.len() == points || b.len() == points => 0.0,
            None => 1.0 - joint.disagreement() / expected_disagreement(a, b, points),
        };
        Ok(Self { nmi_arithmetic, nmi_geometric, ami })
    }
}

/// The sizes of classes, clusters and their common parts.
struct Joint {
    points: f64,
    a: HashMap<u32, u32>,
    b: HashMap<u32, u32>,
    pairs: BTreeMap<(u32, u32), u32>,
}

impl Joint {
    fn of(classes: &[u32], clusters: &[u32]) -> Self {
        let mut pairs: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for pair in classes.iter().copied().zip(clusters.iter().copied()) {
            *pairs.entry(pair).or_default() += 1;
        }
        Self { points: classes.len() as f64, a: sizes(classes), b: sizes(clusters), pairs }
    }

    /// Returns the value of every measure, if the sizes alone give it.
    fn clear_case(&self) -> Option<f64> {
        let Self { a, b, pairs, .. } = self;
        // There are as many pairs as classes and as clusters, so each class is one cluster.
        if pairs.len() == a.len() && pairs.len() == b.len() {
            return Some(1.0);
        }
        // A single class or a single cluster gives no information about the other partition.
        (a.len() == 1 || b.len() == 1).then_some(0.0)
    }

    fn disagreement(&self) -> f64 {
        self.pairs
            .iter()
            .map(|((class, cluster), &count)| {
                f64::from(count) / self.points * half_log_excess(self.a[class], self.b[cluster], count)
            })
            .sum()
    }

    fn normalized_information(&self) -> [f64; 2] {
        if let Some(value) = self.clear_case() {
            return [value; 2];
        }
        let entropies = [entropy(&self.a, self.points), entropy(&self.b, self.points)];
        let arithmetic = f64::midpoint(entropies[0], entropies[1]);
        let geometric = (entropies[0] * entropies[1]).sqrt();
        let information = (arithmetic - self.disagreement()).max(0.0);
        [information / arithmetic, information / geometric]
    }
}

/// Returns `ln(a b / k²) / 2` for k ≤ a and k ≤ b. It is exactly 0 if all three are equal, and loses no
/// digits if they are nearly equal.
fn half_log_excess(a: u32, b: u32, k: u32) -> f64 {
    let (a, b, k) = (u64::from(a), u64::from(b), u64::from(k));
    0.5 * ((a * b - k * k) as f64 / (k * k) as f64).ln_1p()
}

fn sizes(labels: &[u32]) -> HashMap<u32, u32> {
    let mut sizes = HashMap::new();
    for &label in labels {
        *sizes.entry(label).or_default() += 1;
    }
    sizes
}

fn entropy(sizes: &HashMap<u32, u32>, n: f64) -> f64 {
    // The sum is in the order of sizes. In the order of a hash map, its last digit would differ from run to
    // run.
    distinct(sizes)
        .into_iter()
        .map(|(size, times)| {
            let share = f64::from(size) / n;
            -f64::from(times) * share * share.ln()
        })
        .sum::<f64>()
        .max(0.0)
}

/// Counts how many classes (or clusters) have each size.
fn distinct(sizes: &HashMap<u32, u32>) -> BTreeMap<u32, u32> {
    let mut times = BTreeMap::new();
    for &size in sizes.values() {
        *times.entry(size).or_default() += 1;
    }
    times
}

/// Returns E[D]; n_ij follows the hypergeometric distribution of a_i, b_j and n.
fn expected_disagreement(a: &HashMap<u32, u32>, b: &HashMap<u32, u32>, points: usize) -> f64 {
    let (a, b): (Vec<_>, Vec<_>) = (distinct(a).into_iter().collect(), distinct(b).into_iter().collect());
    let of_size: Vec<f64> = a
        .par_iter()
        .map(|&(a, times_a)| {
            b.iter()
                .map(|&(b, times_b)| f64::from(times_a) * f64::from(times_b) * expected_of_pair(a, b, points))
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

    use super::{Agreement, entropy, expected_disagreement, sizes};
    use proptest::prelude::*;

    fn between(classes: &[u32], clusters: &[u32]) -> Agreement {
        Agreement::between(classes, clusters).unwrap()
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
                let entropy = |labels: &[u32]| entropy(&sizes(labels), n as f64);
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
