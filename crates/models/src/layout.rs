//! PyTorch's layouts, in which weights are on disk, and the ones in memory. A convolution is (C_out, C_in, K, K) there and
//! (K, K, C_in, C_out) here.

use candle_core::{Device, Result, Tensor};

/// How many elements a tensor of this shape has, if candle can count them: it multiplies the lengths of axes from the last on, and does not
/// look whether the first is 0.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |all, &length| all.checked_mul(length.max(1)))?;
    Some(shape.iter().product())
}

/// A parameter or gradient as PyTorch lays it out.
pub(crate) fn to_pytorch_layout(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.detach().to_device(&Device::Cpu)?;
    if tensor.rank() == 4 { tensor.permute((3, 2, 0, 1))?.contiguous() } else { tensor.copy() }
}

/// A parameter of PyTorch's as it lies in memory here.
pub(crate) fn to_our_layout(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() == 4 { tensor.permute((2, 3, 1, 0))?.contiguous() } else { Ok(tensor.clone()) }
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
