//! Searches for neighbors on the device that the caller chooses: on the CPU, or on an NVIDIA GPU by the kernels
//! of crate `tensor`.

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
    use crate::{MetricError, Neighbors, Rows};
    use candle_core::{Result, Tensor};
    use invaspread_tensor::DeviceKind;
    use invaspread_tensor::cuda::knn::{MeasuredRows, Multiplied, SearchSettings};
    use invaspread_tensor::cuda::top_k;
    use invaspread_tensor::inner_products::rounding;
    use rayon::prelude::*;

    /// Returns how many rows the GPU looks for where `k` are requested, so that all rows that f32 cannot
    /// distinguish from the k-th are usually among them.
    fn looked_for(k: usize) -> usize {
        const MORE: usize = 32;
        k + MORE.max(k / 8)
    }

    #[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it on")]
    pub(crate) fn failed(error: candle_core::Error) -> MetricError {
        MetricError::Device { reason: error.to_string() }
    }

    /// Copies `rows` to `device`.
    pub(crate) fn upload(rows: Rows, device: DeviceKind) -> Result<Tensor> {
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
        let found_each = looked_for(k).min(top_k::LARGEST_K).min(candidates);
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

    /// Prepares the rows of `gallery`, which are on the device, for a search of `k` neighbors that is exact in
    /// f64, and calls `search` with them. Returns `None` where the host must search: a value is not finite, or
    /// `k` is too large.
    pub(crate) fn search_on_device<T>(
        gallery: &Tensor,
        k: usize,
        search: impl FnOnce(&Multiplied<'_>, &SearchSettings) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        if k >= top_k::LARGEST_K {
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
        let terms = means.len() + usize::from(has_offset) + 2;
        let settings = SearchSettings {
            k,
            candidates: looked_for(k).min(top_k::LARGEST_K),
            unit,
            unit_error: UNIT_ERROR,
            rounding: 2.0 * rounding(terms),
            underflow: 2.0 * terms as f64 * UNDERFLOW,
        };
        search(&gallery, &settings)
    }
}
