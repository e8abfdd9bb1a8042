//! Classifies rows that are on an NVIDIA GPU, of which only classes and ranks go to the host.

use super::{KnnResult, WeightedKnn};
use crate::exact_order::{UNDERFLOW, UNIT_ERROR};
use crate::on_device::cuda::looked_for;
use crate::rows::is_mostly_offset;
use candle_core::{Result, Tensor};
use invaspread_tensor::cuda::knn::{MeasuredRows, Multiplied, VoteSettings, vote};
use invaspread_tensor::cuda::top_k;
use invaspread_tensor::inner_products::rounding;

/// Does the same as [`WeightedKnn::evaluate`] for rows on the device and valid labels.
pub(super) fn classify(
    knn: &WeightedKnn,
    queries: &Tensor,
    query_labels: &[u32],
    gallery: &Tensor,
    gallery_labels: &[u32],
    classes: usize,
) -> Result<Option<KnnResult>> {
    let dim = gallery.dim(1)?;
    let k = knn.k.min(gallery.dim(0)?);
    let candidates = looked_for(k);
    if candidates > top_k::LARGEST_K {
        return Ok(None);
    }
    let rows = MeasuredRows::new(gallery)?;
    let means: Vec<f32> = rows.means.iter().map(|&mean| mean as f32).collect();
    // NaN is in no order.
    let is_finite = rows.largest_square <= f64::MAX;
    if !is_finite {
        return Ok(None);
    }
    let unit = rows.from_one <= UNIT_ERROR;
    let has_offset = is_mostly_offset(&means, rows.mean_square, rows.largest_square);
    let gallery =
        if has_offset { Multiplied::less_offset(&rows, &means, unit)? } else { Multiplied::plain(&rows) };
    // As in `Scale::margin`.
    let terms = dim + usize::from(has_offset) + 2;
    let settings = VoteSettings {
        k,
        candidates,
        temperature: knn.temperature,
        classes,
        unit,
        unit_error: UNIT_ERROR,
        rounding: 2.0 * rounding(terms),
        underflow: 2.0 * terms as f64 * UNDERFLOW,
    };
    let Some(voted) = vote(queries, &gallery, gallery_labels, query_labels, &settings)? else {
        return Ok(None);
    };
    Ok(Some(KnnResult::of(voted.iter().map(|voted| (voted.class, voted.rank as usize)))))
}
