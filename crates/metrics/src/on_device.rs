//! Runs the search and the clustering on the device that the caller chooses: on the CPU, or on an NVIDIA GPU
//! by the kernels of crate `tensor`.

use crate::{MetricError, Neighbors, Rows, top_k};
use invaspread_tensor::DeviceKind;

/// Does the same as [`top_k`] on `device`. Products on the GPU and on the CPU may differ in their last
/// digits. This changes no order: neighbors whose similarities differ by less than the rounding errors are
/// ordered in f64, on the CPU. For 1,024 neighbors or more the CPU does the whole search.
///
/// # Errors
/// Returns the errors of [`top_k`], or `Device` if the device fails.
///
/// # Panics
/// Panics where [`top_k`] does.
pub fn top_k_on(
    device: DeviceKind,
    queries: Rows,
    gallery: Rows,
    k: usize,
    exclude_self: bool,
) -> Result<Neighbors, MetricError> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() && k.min(gallery.len()) < invaspread_tensor::cuda::top_k::LARGEST_K {
        return cuda::search(device, queries, gallery, k, exclude_self);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
    top_k(queries, gallery, k, exclude_self)
}

#[cfg(feature = "cuda")]
pub(crate) mod cuda {
    use crate::exact_order::{Asked, Scale, UNDERFLOW, UNIT_ERROR, key, settle};
    use crate::rows::is_mostly_offset;
    use crate::{Clustering, KnnResult, MetricError, Neighbors, Rows, WeightedKnn};
    use candle_core::{Result, Tensor};
    use invaspread_tensor::DeviceKind;
    use invaspread_tensor::cuda::knn::{MeasuredRows, Multiplied, VoteSettings, vote};
    use invaspread_tensor::cuda::{kmeans, top_k};
    use invaspread_tensor::inner_products::rounding;
    use rayon::prelude::*;

    /// The GPU searches for at least this many more neighbors than requested.
    const MORE: usize = 32;

    #[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it on")]
    fn failed(error: candle_core::Error) -> MetricError {
        MetricError::Device { reason: error.to_string() }
    }

    fn upload(rows: Rows, device: DeviceKind) -> Result<Tensor> {
        Tensor::from_slice(rows.values, (rows.len(), rows.dim), &device.open()?)
    }

    pub(super) fn search(
        device: DeviceKind,
        queries: Rows,
        gallery: Rows,
        k: usize,
        exclude_self: bool,
    ) -> std::result::Result<Neighbors, MetricError> {
        assert_eq!(queries.dim, gallery.dim, "queries and gallery differ in dimension");
        assert!(!exclude_self || queries.len() == gallery.len(), "exclude_self needs one set on both sides");
        queries.check_finite("queries")?;
        gallery.check_finite("gallery")?;
        let k = k.min(gallery.len().saturating_sub(usize::from(exclude_self)));
        if queries.is_empty() || k == 0 {
            return Ok(Neighbors { k, indices: Vec::new(), similarities: Vec::new() });
        }
        let scale = Scale::of(gallery);
        let width = scale.width();
        let (there, asking) = if scale.has_offset() {
            let mut rows = vec![0.0; gallery.len() * width];
            rows.chunks_mut(width).enumerate().for_each(|(row, to)| scale.write_row(gallery.row(row), to));
            let there = upload(Rows::new(&rows, width), device).map_err(failed)?;
            (there, upload(Rows::new(&scale.queries(queries), width), device).map_err(failed)?)
        } else {
            let there = upload(gallery, device).map_err(failed)?;
            let same = std::ptr::eq(queries.values, gallery.values);
            let asking = if same { there.clone() } else { upload(queries, device).map_err(failed)? };
            (there, asking)
        };
        // All rows that f32 cannot distinguish from the k-th must be among those found. This is so if the
        // last row found is further away than that.
        let candidates = gallery.len() - usize::from(exclude_self);
        let found_each = (k + MORE.max(k / 8)).min(top_k::LARGEST_K).min(candidates);
        let (found, products) = top_k::top_k(&asking, &there, found_each, exclude_self).map_err(failed)?;
        let mut indices = vec![0; queries.len() * k];
        let mut similarities = vec![0.0; queries.len() * k];
        indices.par_chunks_mut(k).zip(similarities.par_chunks_mut(k)).enumerate().try_for_each(
            |(row, to)| {
                let range = row * found_each..(row + 1) * found_each;
                let (found, products) = (&found[range.clone()], &products[range]);
                let margin = scale.margin(queries.row(row));
                if margin.is_infinite() {
                    return Err(MetricError::Overflow { row });
                }
                let last = products[found_each - 1];
                let seen = found_each == candidates || f64::from(products[k - 1]) - f64::from(last) > margin;
                let keys = || -> Vec<u64> {
                    found
                        .iter()
                        .zip(products)
                        .filter(|(_, p)| !p.is_nan())
                        .map(|(&i, &p)| key(p, i))
                        .collect()
                };
                let itself = exclude_self.then_some(row);
                let asked = Asked { query: queries.row(row), gallery, scale: &scale, k, itself };
                settle(&asked, (seen || margin == 0.0).then(keys).as_deref(), margin, to.0, to.1)
                    .ok_or(MetricError::Overflow { row })
            },
        )?;
        Ok(Neighbors { k, indices, similarities })
    }

    /// Does the same as [`WeightedKnn::evaluate`] for rows on the device and valid labels.
    pub(crate) fn classify(
        knn: &WeightedKnn,
        queries: &Tensor,
        query_labels: &[u32],
        gallery: &Tensor,
        gallery_labels: &[u32],
        classes: usize,
    ) -> Result<Option<KnnResult>> {
        let dim = gallery.dim(1)?;
        let k = knn.k.min(gallery.dim(0)?);
        let candidates = k + MORE.max(k / 8);
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

    /// Runs Lloyd's iterations from `start` until the sum of the centroids' squared shifts is at most
    /// `still`.
    pub(crate) fn descend(
        device: DeviceKind,
        points: Rows,
        start: &[f32],
        iterations: usize,
        still: Option<f64>,
    ) -> std::result::Result<Clustering, MetricError> {
        let there = upload(points, device).map_err(failed)?;
        let found = kmeans::descend(&there, start, iterations, still).map_err(failed)?;
        let kmeans::Descent { assignments, centroids, inertia, iterations } = found;
        Ok(Clustering { assignments, centroids, inertia, iterations })
    }
}
