//! Classifies rows that are on an NVIDIA GPU, of which only classes and ranks go to the host.

use super::{KnnResult, WeightedKnn};
use crate::on_device::cuda::search_on_device;
use candle_core::{Result, Tensor};
use invaspread_tensor::cuda::knn::vote;

/// Does the same as [`WeightedKnn::evaluate`] for rows on the device and valid labels.
pub(super) fn classify(
    knn: &WeightedKnn,
    queries: &Tensor,
    query_labels: &[u32],
    gallery: &Tensor,
    gallery_labels: &[u32],
    classes: usize,
) -> Result<Option<KnnResult>> {
    let k = knn.k.min(gallery.dim(0)?);
    let voted = search_on_device(gallery, k, |gallery, settings| {
        vote(queries, gallery, gallery_labels, query_labels, settings, (knn.temperature, classes))
    })?;
    Ok(voted.map(|voted| KnnResult::of(voted.iter().map(|voted| (voted.class, voted.rank as usize)))))
}
