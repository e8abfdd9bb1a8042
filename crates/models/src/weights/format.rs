//! The formats that weights are read from, and a function that their readers share.

use std::fmt;

/// The formats that weights are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightsFormat {
    /// The safetensors format.
    Safetensors,
    /// The format that `torch.save` writes.
    Torch,
    /// A Caffe model.
    Caffe,
    /// The HDF5 format.
    Hdf5,
}

impl fmt::Display for WeightsFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "what torch.save writes",
            Self::Caffe => "a Caffe model",
            Self::Hdf5 => "HDF5",
        })
    }
}

/// Returns the number of elements of a tensor of this shape, or `None` if candle cannot count them: it
/// multiplies the lengths of axes from the last to the first, and a later 0 does not undo an overflow.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |all, &length| all.checked_mul(length.max(1)))?;
    Some(shape.iter().product())
}

#[cfg(test)]
mod tests {
    use super::element_count;

    #[test]
    fn an_axis_of_none_does_not_hide_the_others() {
        const HUGE: usize = 1 << 40;
        assert_eq!(element_count(&[2, 3]), Some(6));
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[0, HUGE]), Some(0));
        for shape in [[0, HUGE, HUGE], [HUGE, 0, HUGE], [HUGE, HUGE, 0], [HUGE, HUGE, 1]] {
            assert_eq!(element_count(&shape), None, "{shape:?}");
        }
    }
}
