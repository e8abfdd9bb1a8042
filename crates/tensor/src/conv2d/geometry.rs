//! The sizes of one convolution and which input pixel each kernel tap reads.

/// Sizes of a convolution: batch `n`, map `h x w`, channels `ci` to `co`, kernel `kh x kw`, one stride and padding for both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) ci: usize,
    pub(crate) co: usize,
    pub(crate) kh: usize,
    pub(crate) kw: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Geometry {
    /// Height of the output map.
    pub(crate) fn out_h(&self) -> usize {
        (self.h + 2 * self.padding - self.kh) / self.stride + 1
    }

    /// Width of the output map.
    pub(crate) fn out_w(&self) -> usize {
        (self.w + 2 * self.padding - self.kw) / self.stride + 1
    }

    /// Output pixels of the whole batch.
    pub(crate) fn out_rows(&self) -> usize {
        self.n * self.out_h() * self.out_w()
    }

    /// Kernel positions.
    pub(crate) fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// Number of input values.
    pub(crate) fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.ci
    }

    /// Number of output values.
    pub(crate) fn output_len(&self) -> usize {
        self.out_rows() * self.co
    }

    /// Number of weights.
    pub(crate) fn weight_len(&self) -> usize {
        self.taps() * self.ci * self.co
    }

    /// Offset of the input pixel that output pixel `row` (of the batch) reads through `tap`, or `None` in the padding.
    pub(crate) fn source(&self, row: usize, tap: usize) -> Option<usize> {
        let (oh, ow) = (self.out_h(), self.out_w());
        let (image, y, x) = (row / (oh * ow), row / ow % oh, row % ow);
        let iy = (y * self.stride + tap / self.kw).checked_sub(self.padding)?;
        let ix = (x * self.stride + tap % self.kw).checked_sub(self.padding)?;
        (iy < self.h && ix < self.w).then(|| ((image * self.h + iy) * self.w + ix) * self.ci)
    }
}
