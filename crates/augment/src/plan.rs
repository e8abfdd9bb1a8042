//! Writes all parameters that were drawn for a view as words, for a GPU that holds the images and makes the
//! views itself (`kernels/augment.cu` of crate `tensor`). The GPU uses the streams of the CPU's loader and
//! gives the same bytes.

use std::ops::Range;

use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;

use crate::color::hue_shift;
use crate::config::ChannelOrder;
use crate::draw::Adjust;
use crate::geometry::centered;
use crate::pipeline::{Pipeline, Placing, ViewParameters};
use crate::resize::down_first;

/// The parameters of a view, in the order in which the kernel reads them.
///
/// | word | content |
/// |---|---|
/// | 0 | 1 for a window with black borders, 0 for a resized window |
/// | 1 to 4 | left and top of the window (signed, from the corner of the image), its width and height |
/// | 5, 6 | width and height that it is resized to |
/// | 7, 8 | left and top of the part of the result that is kept |
/// | 9 | 1 if the vertical pass of the resize comes first |
/// | 10 | four changes of color, a byte each: 0 none, 1 brightness, 2 contrast, 3 saturation, 4 hue |
/// | 11 to 14 | their factors, as bits of an f32; for hue, the number that is added to the byte |
/// | 15 | the sum of 1 if the view is gray and 2 if it is mirrored |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewPlan(pub [u32; 16]);

/// The settings that all views of a pipeline share.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewSettings {
    /// Width and height of a view, in pixels.
    pub size: usize,
    /// The number that each byte becomes, for the channels R, G, B: 3 x 256 numbers.
    pub normalized: Vec<f32>,
    /// Whether blue comes first.
    pub bgr: bool,
}

impl Pipeline {
    /// Returns the settings that a GPU needs besides the plans; `None` if the pipeline squashes, blurs or
    /// solarizes images or makes gray views, which only the CPU does.
    pub fn view_settings(&self) -> Option<ViewSettings> {
        let config = &self.config;
        let plain = config.squash.is_none() && config.blur.is_none() && config.solarize.is_none();
        let on_gpu = plain && self.channels() == 3;
        on_gpu.then(|| ViewSettings {
            size: self.size(),
            normalized: self.normalized.concat(),
            bgr: self.config.normalize.channels == ChannelOrder::Bgr,
        })
    }

    /// Draws the plan of a view of an image of `width` x `height` from `stream`, as [`Pipeline::apply`] does
    /// for a pipeline that has [`Pipeline::view_settings`].
    pub fn plan(&self, width: usize, height: usize, stream: &mut Stream) -> ViewPlan {
        let ViewParameters { placing, jitter, grayscale, flip, .. } = self.draw(width, height, 0, stream);
        let size = self.size();
        let mut words = [0; 16];
        let mut place = |place: [usize; 9]| {
            for (word, value) in words[1..10].iter_mut().zip(place) {
                *word = value as u32;
            }
        };
        match placing {
            Placing::ResizedCrop(window) => place([
                window.left,
                window.top,
                window.width,
                window.height,
                size,
                size,
                0,
                0,
                usize::from(down_first((window.width, window.height), (size, size))),
            ]),
            Placing::ShorterSide(wide, high) => {
                let middle = centered(wide, high, size);
                let first = usize::from(down_first((width, height), (wide, high)));
                place([0, 0, width, height, wide, high, middle.left, middle.top, first]);
            }
            Placing::Padded { window, before } => {
                let (left, top) = (window.left.wrapping_sub(before.0), window.top.wrapping_sub(before.1));
                place([left, top, size, size, size, size, 0, 0, 0]);
                words[0] = 1;
            }
        }
        for (i, change) in jitter.into_iter().enumerate() {
            let (kind, factor) = match change {
                None => (0, 0),
                Some(Adjust::Brightness(factor)) => (1, (factor as f32).to_bits()),
                Some(Adjust::Contrast(factor)) => (2, (factor as f32).to_bits()),
                Some(Adjust::Saturation(factor)) => (3, (factor as f32).to_bits()),
                Some(Adjust::Hue(factor)) => (4, u32::from(hue_shift(factor))),
            };
            words[10] |= kind << (8 * i);
            words[11 + i] = factor;
        }
        words[15] = u32::from(grayscale) + 2 * u32::from(flip);
        ViewPlan(words)
    }

    /// Returns the plans of the views `views` (their numbers) of each image of `batches`, whose images are
    /// `width` x `height`. For each batch, the first of these views of all its images comes first, then the
    /// second view, and so on. The draws are those of the loader in `epoch` with `seed`.
    pub fn plans(
        &self,
        [width, height]: [usize; 2],
        batches: &[Vec<u32>],
        views: Range<usize>,
        seed: u64,
        epoch: u64,
    ) -> Vec<ViewPlan> {
        let plan =
            |image: u32, view: usize| self.plan(width, height, &mut view_stream(seed, epoch, image, view));
        batches
            .par_iter()
            .flat_map_iter(|batch| {
                views.clone().flat_map(move |view| batch.iter().map(move |&image| plan(image, view)))
            })
            .collect()
    }
}

/// Returns the stream of a view of an image; views are numbered from 0. The streams of the first two views of
/// all images come first. Further pairs of views follow, for all images, in ranges of their own.
pub fn view_stream(seed: u64, epoch: u64, image: u32, view: usize) -> Stream {
    let (pair, of_pair) = (view as u64 / 2, view as u64 % 2);
    Stream::new(seed, Purpose::Augment, epoch, pair << 33 | (2 * u64::from(image) + of_pair))
}
