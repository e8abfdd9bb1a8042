//! The two parts of `DeepCluster` that are plain functions: the loss of its classifier and the order in which
//! an epoch visits the images.
//!
//! ```text
//! logits z in R^{B x K}, y_i the cluster of image i:   loss = −(1/B) Σ_i log softmax(z_i)_{y_i}
//! order of an epoch over N images in k non-empty clusters: ⌊N/k⌋ + 1 images are drawn from each cluster
//! (without replacement, or with it if the cluster has no more images than that), all are shuffled, and the
//! first N are kept
//! ```
//!
//! Paper: section 4.1, rows `DeepCluster (10)` and `(1000)`; the sampling is that of
//! facebookresearch/deepcluster's `UnifLabelSampler`. Whitening and k-means are in crate `metrics`; the
//! classifier, which is new in each epoch, is in crate `models`. No deviation.

use candle_core::{Result, Tensor};
use invaspread_random::{Purpose, Stream};

use crate::cases::{Case, Input};
use crate::check::{check_index, matrix};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};
use crate::softmax::cross_entropy;

const NAME: &str = "deepcluster";

/// Returns the softmax cross-entropy of `logits` (B x K) with `clusters` (B numbers below K), averaged over
/// the rows: a scalar.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use invaspread_losses::cluster_cross_entropy;
///
/// let logits = Tensor::zeros((2, 4), DType::F64, &Device::Cpu)?;
/// let loss = cluster_cross_entropy(&logits, &[3, 0])?.to_scalar::<f64>()?;
/// assert!((loss - 4f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the shapes do not fit or a cluster is out of range.
pub fn cluster_cross_entropy(logits: &Tensor, clusters: &[u32]) -> Result<Tensor> {
    let (rows, columns) = matrix(NAME, "logits", logits)?;
    check_index(NAME, "cluster", clusters, rows, columns)?;
    apply(&Clusters(clusters), [logits])
}

/// The objective, with the cluster of each row.
struct Clusters<'a>(&'a [u32]);

impl Objective<1> for Clusters<'_> {
    const NAME: &'static str = NAME;
    const HAS_CUDA_KERNEL: bool = true;

    fn evaluate<T: Float>(&self, [logits]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
        let mut scores = logits.values.to_vec();
        let value = cross_entropy(&mut scores, logits.columns, self.0, |_| T::ONE);
        Ok((value, [scores]))
    }

    #[cfg(feature = "cuda")]
    fn evaluate_on_device(&self, [logits]: [&Tensor; 1]) -> Result<(Tensor, [Tensor; 1])> {
        use invaspread_tensor::cuda::losses::{Settled, indices, softmax};
        let Settled { value, gradient } = softmax(logits, &indices(self.0, &[self.0.len()], logits)?)?;
        Ok((value, [gradient]))
    }
}

/// Returns the images of one epoch, in order: as many as there are `assignments`. Every non-empty cluster is
/// expected to appear equally often.
///
/// `assignments` gives each image's cluster (numbers below `clusters`). An image may appear several times or
/// not at all.
///
/// ```
/// // Six images in clusters of five and of one. Four images are drawn from each cluster, and six are kept.
/// let clusters = [0, 0, 0, 0, 0, 1];
/// let order = invaspread_losses::balanced_order(&clusters, 2, 0, 1)?;
/// assert_eq!(order.len(), 6);
/// let of_one = order.iter().filter(|&&image| clusters[image as usize] == 1).count();
/// assert!((2..=4).contains(&of_one));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If a cluster is out of range.
pub fn balanced_order(assignments: &[u32], clusters: usize, seed: u64, epoch: u64) -> Result<Vec<u32>> {
    check_index(NAME, "cluster", assignments, assignments.len(), clusters)?;
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); clusters];
    for (image, &cluster) in assignments.iter().enumerate() {
        members[cluster as usize].push(image as u32);
    }
    let occupied = members.iter().filter(|members| !members.is_empty()).count();
    if occupied == 0 {
        return Ok(Vec::new());
    }
    let quota = assignments.len() / occupied + 1;
    let mut order = Vec::with_capacity(quota * occupied);
    for (cluster, images) in members.iter_mut().enumerate().filter(|(_, images)| !images.is_empty()) {
        let mut stream = Stream::new(seed, Purpose::ClusterSampling, epoch, cluster as u64);
        if images.len() <= quota {
            order.extend((0..quota).map(|_| images[stream.below(images.len())]));
        } else {
            stream.shuffle(images);
            order.extend(&images[..quota]);
        }
    }
    Stream::new(seed, Purpose::ClusterSampling, epoch, clusters as u64).shuffle(&mut order);
    order.truncate(assignments.len());
    Ok(order)
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<1, Clusters<'_>>("softmax of clusters", [Input::Scores], |x, context| {
        cluster_cross_entropy(&x[0], context.index)
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{balanced_order, cluster_cross_entropy};
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, random_index,
        random_rows,
    };
    use proptest::prelude::*;

    fn plain(z: &[f64], clusters: &[u32], columns: usize) -> f64 {
        let rows = z.chunks(columns).zip(clusters);
        let total: f64 =
            rows.map(|(z, &y)| z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[y as usize]).sum();
        total / clusters.len() as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn loss_agrees_with_the_definition_and_its_differences(
            rows in 1usize..8, columns in 1usize..12, seed: u64, spread in 0.1f64..8.0,
        ) {
            let z: Vec<f64> = random_rows(rows, columns, seed).iter().map(|z| spread * z).collect();
            let clusters = random_index(rows, columns, seed);
            let (value, gradient) =
                gradient_of(&matrix_f64(&z, columns), |z| cluster_cross_entropy(z, &clusters)).unwrap();
            let want = plain(&z, &clusters, columns);
            prop_assert!((value - want).abs() <= 1e-11 * want.max(1.0));
            let differences = central_differences(&z, 1e-5, |z| plain(z, &clusters, columns));
            assert_close(&gradient, &differences, 1e-6, 1e-8);
            let (single, in_single) =
                gradient_of(&matrix_f32(&z, columns), |z| cluster_cross_entropy(z, &clusters)).unwrap();
            prop_assert!((single - want).abs() <= 1e-5 * want.max(0.1));
            assert_close(&in_single, &gradient, 1e-5, 1e-6);
        }

        #[test]
        fn order_fills_the_epoch_with_each_cluster_equally_often(
            sizes in prop::collection::vec(0usize..30, 1..8), seed: u64, epoch in 0u64..50,
        ) {
            let assignments: Vec<u32> =
                sizes.iter().enumerate().flat_map(|(c, &size)| vec![c as u32; size]).collect();
            let order = balanced_order(&assignments, sizes.len(), seed, epoch).unwrap();
            prop_assert_eq!(order.len(), assignments.len());
            let occupied = sizes.iter().filter(|&&size| size > 0).count();
            if let Some(share) = assignments.len().checked_div(occupied) {
                let quota = share + 1;
                let mut dropped = 0;
                for (cluster, &size) in sizes.iter().enumerate().filter(|&(_, &size)| size > 0) {
                    let mut drawn: Vec<u32> =
                        order.iter().copied().filter(|&i| assignments[i as usize] == cluster as u32).collect();
                    prop_assert!(drawn.len() <= quota);
                    dropped += quota - drawn.len();
                    if size > quota {
                        drawn.sort_unstable();
                        drawn.dedup();
                        // Drawn without replacement, so the images are distinct.
                        let times = order.iter().filter(|&&i| assignments[i as usize] == cluster as u32).count();
                        prop_assert_eq!(drawn.len(), times);
                    }
                }
                prop_assert_eq!(dropped, quota * occupied - assignments.len());
            }
        }
    }

    #[test]
    fn order_is_shuffled_and_named_by_seed_and_epoch() {
        let assignments: Vec<u32> = (0..200).map(|i| i / 50).collect();
        let order = |seed, epoch| balanced_order(&assignments, 4, seed, epoch).unwrap();
        assert_eq!(order(1, 2), order(1, 2));
        assert_ne!(order(1, 2), order(1, 3));
        assert_ne!(order(1, 2), order(2, 2));
        let first: std::collections::HashSet<u32> =
            order(1, 2)[..40].iter().map(|&i| assignments[i as usize]).collect();
        assert_eq!(first.len(), 4);
        assert!(balanced_order(&[], 3, 0, 0).unwrap().is_empty());
    }

    #[test]
    fn large_logits_are_safe() {
        for z in [[1e30, -1e30], [-1e30, 1e30], [500.0, 500.0]] {
            let (value, gradient) =
                gradient_of(&matrix_f32(&z, 2), |z| cluster_cross_entropy(z, &[0])).unwrap();
            assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (z, clusters) = (matrix_f32(&random_rows(64, 100, 0), 100), random_index(64, 100, 1));
        let [one, three] =
            in_pools(|| bits(gradient_of(&z, |z| cluster_cross_entropy(z, &clusters)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let z = matrix_f32(&[0.0; 6], 3);
        let error = |clusters: &[u32]| cluster_cross_entropy(&z, clusters).unwrap_err().to_string();
        assert!(error(&[0, 3]).contains("cluster 3 (row 1) is out of range, there are 3"));
        assert!(error(&[0]).contains("1 cluster for 2 rows"));
        assert!(balanced_order(&[0, 4], 4, 0, 0).unwrap_err().to_string().contains("cluster 4 (row 1)"));
    }
}
