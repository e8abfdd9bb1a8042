//! The sizes of one convolution, and the input pixel that each kernel tap reads.

/// The sizes of a convolution: batch `n`, map `h x w`, channels `ci` to `co`, kernel `kh x kw`, one stride
/// and one padding for both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Returns the height of the output map.
    pub(crate) fn out_h(&self) -> usize {
        (self.h + 2 * self.padding - self.kh) / self.stride + 1
    }

    /// Returns the width of the output map.
    pub(crate) fn out_w(&self) -> usize {
        (self.w + 2 * self.padding - self.kw) / self.stride + 1
    }

    /// Returns the number of output pixels of the whole batch.
    pub(crate) fn out_rows(&self) -> usize {
        self.n * self.out_h() * self.out_w()
    }

    /// Returns the number of kernel positions.
    pub(crate) fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// Returns the number of input values.
    pub(crate) fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.ci
    }

    /// Returns the number of output values.
    pub(crate) fn output_len(&self) -> usize {
        self.out_rows() * self.co
    }

    /// Returns the number of weights.
    pub(crate) fn weight_len(&self) -> usize {
        self.taps() * self.ci * self.co
    }

    /// Iterates over the windows of the output pixels from `first` (counted over the batch) on, without a
    /// division for each.
    pub(crate) fn windows(&self, first: usize) -> impl Iterator<Item = Window> {
        let (height, width, stride) = (self.out_h(), self.out_w(), self.stride);
        let (rows, image_len) = (self.n, self.h * self.w);
        let (mut image, mut y, mut x) = (first / (height * width), first / width % height, first % width);
        let padding = self.padding as isize;
        std::iter::from_fn(move || {
            if image == rows {
                return None;
            }
            let corner = |at: usize| (at * stride) as isize - padding;
            let window = Window { image: image * image_len, y: corner(y), x: corner(x) };
            x += 1;
            if x == width {
                (x, y) = (0, y + 1);
            }
            if y == height {
                (y, image) = (0, image + 1);
            }
            Some(window)
        })
    }

    /// Returns the offset of the input pixel that `window` reads through the kernel's row `ky` and column
    /// `kx`, or `None` in the padding.
    pub(crate) fn source(&self, window: Window, ky: usize, kx: usize) -> Option<usize> {
        // A negative coordinate wraps to a huge one, so one comparison checks both ends.
        let (y, x) =
            (window.y.wrapping_add_unsigned(ky) as usize, window.x.wrapping_add_unsigned(kx) as usize);
        (y < self.h && x < self.w).then(|| (window.image + y * self.w + x) * self.ci)
    }

    /// Returns the offset of the first input pixel that `window` reads if all of its pixels are in the map.
    pub(crate) fn whole(&self, window: Window) -> Option<usize> {
        let inside =
            |corner: isize, kernel: usize, side: usize| corner >= 0 && corner as usize + kernel <= side;
        (inside(window.y, self.kh, self.h) && inside(window.x, self.kw, self.w))
            .then(|| (window.image + window.y as usize * self.w + window.x as usize) * self.ci)
    }

    /// Lists the row and the column of each tap, in the order of the weights.
    pub(crate) fn tap_positions(&self) -> Vec<(usize, usize)> {
        (0..self.kh).flat_map(|ky| (0..self.kw).map(move |kx| (ky, kx))).collect()
    }
}

/// The window of one output pixel: the first pixel of its image, and the window's corner, which may lie in
/// the padding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    image: usize,
    y: isize,
    x: isize,
}
