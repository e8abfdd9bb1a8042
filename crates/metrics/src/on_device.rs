//! Search and clustering where the caller says: on the CPU, or on the GPU by the kernels of crate `tensor`.

use crate::{MetricError, Neighbors, Rows, top_k};
use invaspread_tensor::DeviceKind;

/// As [`top_k`], on `device`. On the GPU products may differ from the CPU's in their last digits; more than 1,024 neighbours are looked for
/// on the CPU.
///
/// # Errors
/// As [`top_k`], or if the device fails.
///
/// # Panics
/// As [`top_k`].
pub fn top_k_on(
    device: DeviceKind,
    queries: Rows,
    gallery: Rows,
    k: usize,
    exclude_self: bool,
) -> Result<Neighbors, MetricError> {
    match device {
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda if k.min(gallery.len()) <= invaspread_tensor::cuda::top_k::LARGEST_K => {
            cuda::search(queries, gallery, k, exclude_self)
        }
        DeviceKind::Cpu | DeviceKind::Cuda => top_k(queries, gallery, k, exclude_self),
    }
}

#[cfg(feature = "cuda")]
pub(crate) mod cuda {
    use crate::{Clustering, MetricError, Neighbors, Rows};
    use candle_core::{Result, Tensor};
    use invaspread_tensor::DeviceKind;
    use invaspread_tensor::cuda::{kmeans, top_k};

    #[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it on")]
    fn failed(error: candle_core::Error) -> MetricError {
        MetricError::Device { reason: error.to_string() }
    }

    fn upload(rows: Rows) -> Result<Tensor> {
        Tensor::from_slice(rows.values, (rows.len(), rows.dim), &DeviceKind::Cuda.open()?)
    }

    pub(super) fn search(
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
        let there = upload(gallery).map_err(failed)?;
        let asking = if std::ptr::eq(queries.values, gallery.values) {
            there.clone()
        } else {
            upload(queries).map_err(failed)?
        };
        let (indices, similarities) = top_k::top_k(&asking, &there, k, exclude_self).map_err(failed)?;
        // A product that left the range of f32 comes first as infinity, or leaves its place empty.
        let left = similarities.chunks(k).position(|row| row[0] == f32::INFINITY || row[k - 1].is_nan());
        match left {
            Some(row) => Err(MetricError::Overflow { row }),
            None => Ok(Neighbors { k, indices, similarities }),
        }
    }

    /// Lloyd's iterations from `start`.
    pub(crate) fn descend(
        points: Rows,
        start: &[f32],
        iterations: usize,
        tolerance: f64,
    ) -> std::result::Result<Clustering, MetricError> {
        let there = upload(points).map_err(failed)?;
        let found = kmeans::descend(&there, start, iterations, tolerance).map_err(failed)?;
        let kmeans::Descent { assignments, centroids, inertia, iterations } = found;
        Ok(Clustering { assignments, centroids, inertia, iterations })
    }
}
