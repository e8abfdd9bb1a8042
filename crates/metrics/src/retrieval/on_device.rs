//! Looks up rows that are on an NVIDIA GPU among each other; only the scores of each query go to the host.

use super::{QueryScores, RetrievalMetrics, RetrievalScores, relevant_of};
use crate::on_device::cuda::search_on_device;
use candle_core::{Error, Result, Tensor};
use invaspread_tensor::cuda::knn::retrieve;

/// Does the same as [`RetrievalMetrics::evaluate`] for at least two rows on the device.
pub(super) fn look_up(
    metrics: &RetrievalMetrics,
    embeddings: &Tensor,
    labels: &[u32],
) -> Result<Option<RetrievalScores>> {
    let relevant = relevant_of(labels, labels, true);
    let k = metrics.neighbors(&relevant).min(labels.len() - 1);
    let counts =
        relevant.iter().map(|&count| u32::try_from(count)).collect::<std::result::Result<Vec<_>, _>>();
    let counts = counts.map_err(Error::wrap)?;
    let found =
        search_on_device(embeddings, k, |gallery, settings| retrieve(gallery, labels, &counts, settings))?;
    Ok(found.map(|found| {
        let scores: Vec<QueryScores> = found
            .iter()
            .zip(&relevant)
            .map(|(query, &r)| QueryScores::of_sums(query.first, query.found, query.precisions, r))
            .collect();
        RetrievalScores::of(&metrics.recall_at, scores)
    }))
}
