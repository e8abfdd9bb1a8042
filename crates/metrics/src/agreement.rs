//! How well a clustering agrees with the classes: normalised and adjusted mutual information.
//!
//! With n_ij points of class i in cluster j, a_i = Σ_j n_ij, b_j = Σ_i n_ij and n points in all:
//!
//! `MI = Σ_ij (n_ij/n) ln(n n_ij / (a_i b_j))`, `H(a) = -Σ_i (a_i/n) ln(a_i/n)`, `NMI = MI / m(H(a), H(b))` with the arithmetic or geometric
//! mean m, `AMI = (MI - E[MI]) / ((H(a) + H(b))/2 - E[MI])`, where E[MI] is taken over all clusterings of the same sizes (Vinh, Epps and
//! Bailey, JMLR 2010).
//!
//! Shapes: classes (n), clusters (n). The NMI column of the paper's Tables 3 to 6: its code calls scikit-learn, which took the geometric
//! mean until version 0.22 and the arithmetic one since; both are given. Where every entropy is zero (one class and one cluster) the two
//! agree, and the value is 1. E[MI] is summed once for each pair of distinct sizes, not of clusters: on 11,316 classes of a few sizes that is the
//! difference between seconds and hours.

use crate::MetricError;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// How well a clustering agrees with the classes, each from 0 (no better than chance, for the last) to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// NMI over the arithmetic mean of the entropies: scikit-learn's of today.
    pub nmi_arithmetic: f64,
    /// NMI over their geometric mean: scikit-learn's before 0.22, and so the paper's most likely.
    pub nmi_geometric: f64,
    /// Mutual information above chance's; may be a little below 0.
    pub ami: f64,
}

impl Agreement {
    /// Of `classes` (n) and `clusters` (n).
    ///
    /// # Errors
    /// If there is no point.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn between(classes: &[u32], clusters: &[u32]) -> Result<Self, MetricError> {
        assert_eq!(classes.len(), clusters.len(), "one cluster per point");
        let points = classes.len();
        if points == 0 {
            return Err(MetricError::TooFewRows { what: "points", found: 0, needed: 1, fewer: "filters" });
        }
        let n = points as f64;
        let (a, b) = (sizes(classes), sizes(clusters));
        let mut joint: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for pair in classes.iter().copied().zip(clusters.iter().copied()) {
            *joint.entry(pair).or_default() += 1;
        }
        let information: f64 = joint
            .iter()
            .map(|((class, cluster), &count)| {
                let count = f64::from(count);
                count / n * (n * count / (f64::from(a[class]) * f64::from(b[cluster]))).ln()
            })
            .sum::<f64>()
            .max(0.0);
        let entropies = [entropy(&a, n), entropy(&b, n)];
        let arithmetic = f64::midpoint(entropies[0], entropies[1]);
        let geometric = (entropies[0] * entropies[1]).sqrt();
        // One class and one cluster agree; one of the two alone tells nothing of the other.
        let share = |mean: f64| match mean {
            _ if arithmetic < f64::EPSILON => 1.0,
            mean if mean < f64::EPSILON => 0.0,
            mean => information / mean,
        };
        let chance = expected_information(&a, &b, points);
        let room = arithmetic - chance;
        let ami = if arithmetic < f64::EPSILON {
            1.0
        } else if room.abs() < f64::EPSILON {
            // All points apart in both, or chance explains all there is.
            f64::from(u8::from((information - arithmetic).abs() < 1e-12))
        } else {
            (information - chance) / room
        };
        Ok(Self { nmi_arithmetic: share(arithmetic), nmi_geometric: share(geometric), ami })
    }
}

fn sizes(labels: &[u32]) -> HashMap<u32, u32> {
    let mut sizes = HashMap::new();
    for &label in labels {
        *sizes.entry(label).or_default() += 1;
    }
    sizes
}

fn entropy(sizes: &HashMap<u32, u32>, n: f64) -> f64 {
    // In order of size: a sum over a hash map's order would differ from run to run in its last digit.
    distinct(sizes)
        .into_iter()
        .map(|(size, times)| {
            let share = f64::from(size) / n;
            -f64::from(times) * share * share.ln()
        })
        .sum::<f64>()
        .max(0.0)
}

/// The sizes there are, each with how many have it.
fn distinct(sizes: &HashMap<u32, u32>) -> BTreeMap<u32, u32> {
    let mut times = BTreeMap::new();
    for &size in sizes.values() {
        *times.entry(size).or_default() += 1;
    }
    times
}

/// E[MI]: n_ij is hypergeometric in a_i, b_j and n.
fn expected_information(a: &HashMap<u32, u32>, b: &HashMap<u32, u32>, points: usize) -> f64 {
    let n = points as f64;
    // ln k! for k = 0 to n.
    let mut log_factorial = vec![0.0; points + 1];
    for k in 1..=points {
        log_factorial[k] = log_factorial[k - 1] + (k as f64).ln();
    }
    let (a, b): (Vec<_>, Vec<_>) = (distinct(a).into_iter().collect(), distinct(b).into_iter().collect());
    let of_size: Vec<f64> = a
        .par_iter()
        .map(|&(a, times_a)| {
            let mut sum = 0.0;
            for &(b, times_b) in &b {
                let (i, j) = (a as usize, b as usize);
                let fixed = log_factorial[i]
                    + log_factorial[j]
                    + log_factorial[points - i]
                    + log_factorial[points - j]
                    - log_factorial[points];
                let mut inner = 0.0;
                for k in (i + j).saturating_sub(points).max(1)..=i.min(j) {
                    let log_probability = fixed
                        - log_factorial[k]
                        - log_factorial[i - k]
                        - log_factorial[j - k]
                        - log_factorial[points + k - i - j];
                    let count = k as f64;
                    let gain = count / n * (n * count / (f64::from(a) * f64::from(b))).ln();
                    inner += gain * log_probability.exp();
                }
                sum += f64::from(times_a) * f64::from(times_b) * inner;
            }
            sum
        })
        .collect();
    of_size.iter().sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Agreement, expected_information, sizes};
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
        // Two classes of two; clusters of three and one: MI = 1/2 ln(4/3) + 1/4 ln(2/3) + 1/4 ln 2.
        let got = between(&[0, 0, 1, 1], &[0, 0, 0, 1]);
        let information = 0.5 * (4.0_f64 / 3.0).ln() + 0.25 * (2.0_f64 / 3.0).ln() + 0.25 * 2.0_f64.ln();
        let (h, g) = (2.0_f64.ln(), -(0.75 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln()));
        assert!((got.nmi_arithmetic - information / f64::midpoint(h, g)).abs() < 1e-12);
        assert!((got.nmi_geometric - information / (h * g).sqrt()).abs() < 1e-12);
        // Every clustering of these sizes has the same information: nothing is above chance.
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

    proptest! {
        /// E[MI] against the mean over every arrangement of the clusters.
        #[test]
        fn chance_is_the_mean_over_all_arrangements(classes in prop::collection::vec(0_u32..3, 2..7), clusters in prop::collection::vec(0_u32..3, 7)) {
            let n = classes.len();
            let mut clusters = clusters[..n].to_vec();
            let want = expected_information(&sizes(&classes), &sizes(&clusters), n);
            let (mut sum, mut arrangements) = (0.0, 0.0);
            // Heap's algorithm.
            let mut counters = vec![0; n];
            let mut add = |clusters: &[u32]| {
                let got = between(&classes, clusters);
                let entropy = |labels: &[u32]| super::entropy(&sizes(labels), n as f64);
                let mean = f64::midpoint(entropy(&classes), entropy(clusters));
                sum += if mean < f64::EPSILON { 0.0 } else { got.nmi_arithmetic * mean };
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
