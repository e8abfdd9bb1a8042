//! Makes views of an image, ready for the network: draws the parameters, then runs the fast transforms.
//! Nothing is allocated once the buffers have grown.

use invaspread_random::Stream;
use pulp::Arch;

use crate::blur::Blur;
use crate::color::luma;
use crate::config::{AugmentConfig, AugmentError, ChannelOrder, of_view};
use crate::draw::{Adjust, jitter, resized_crop_window};
use crate::geometry::{Window, centered, crop_padding, shorter_side_to};
use crate::image::ImageRef;
use crate::planar::{Planes, Resizer};
use crate::resize::Filter;

/// The transforms of training or of evaluation, ready to run.
///
/// ```
/// use invaspread_augment::{AugmentConfig, Image, Pipeline, Scratch};
/// use invaspread_random::{Purpose, Stream};
///
/// let pipeline = Pipeline::evaluate(&AugmentConfig { size: 8, ..AugmentConfig::default() })?;
/// let mut view = vec![0.0; pipeline.view_len()];
/// let mut stream = Stream::new(0, Purpose::Augment, 0, 0);
/// pipeline.apply(Image::black(10, 12).as_ref(), &mut stream, &mut Scratch::default(), &mut view);
/// // A black pixel is normalized to minus the mean, divided by the standard deviation.
/// assert_eq!(view[..3], [-0.4914 / 0.2023, -0.4822 / 0.1994, -0.4465 / 0.2010]);
/// # Ok::<(), invaspread_augment::AugmentError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub(crate) config: AugmentConfig,
    mode: Mode,
    arch: Arch,
    /// The number that each byte becomes, for the channels R, G, B, or for gray.
    pub(crate) normalized: Vec<[f32; 256]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Train,
    Evaluate,
}

/// Buffers that a thread reuses from view to view. Their content has no influence on a view.
#[derive(Debug, Default)]
pub struct Scratch {
    resizer: Resizer,
    planes: Planes,
    /// An image before its middle part is cut out, or a squashed image before its pixels are interleaved.
    before: Planes,
    squashed: Vec<u8>,
    /// The gray image, with three equal channels.
    gray: Vec<u8>,
    blur: Blur,
}

/// All parameters that were drawn for one view.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ViewParameters {
    pub(crate) placing: Placing,
    pub(crate) jitter: [Option<Adjust>; 4],
    pub(crate) grayscale: bool,
    /// The standard deviation of the blur.
    pub(crate) blur: Option<f64>,
    pub(crate) solarize: bool,
    pub(crate) flip: bool,
}

/// The way in which the pixels of the view are taken from the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Placing {
    /// A window resized to the view.
    ResizedCrop(Window),
    /// A window of the image with black borders added; `before` are the borders at the left and at the top.
    Padded { window: Window, before: (usize, usize) },
    /// The middle of the image after a resize to this width and height.
    ShorterSide(usize, usize),
}

impl Pipeline {
    /// Makes the pipeline of training, which draws random views.
    ///
    /// # Errors
    /// If a setting of `config` is unknown or out of range; the error names the first one.
    pub fn train(config: &AugmentConfig) -> Result<Self, AugmentError> {
        Self::new(config, if config.none { Mode::Evaluate } else { Mode::Train })
    }

    /// Makes the pipeline of evaluation, which draws nothing, so all views of an image are the same.
    ///
    /// # Errors
    /// If a setting of `config` is unknown or out of range; the error names the first one.
    pub fn evaluate(config: &AugmentConfig) -> Result<Self, AugmentError> {
        Self::new(config, Mode::Evaluate)
    }

    fn new(config: &AugmentConfig, mode: Mode) -> Result<Self, AugmentError> {
        config.check()?;
        let normalize = &config.normalize;
        let mut normalized = vec![[0.0; 256]; normalize.mean.len()];
        for (channel, table) in normalized.iter_mut().enumerate() {
            for (byte, value) in table.iter_mut().enumerate() {
                *value = (byte as f32 / 255.0 * normalize.scale - normalize.mean[channel])
                    / normalize.std[channel];
            }
        }
        Ok(Self { config: config.clone(), mode, arch: Arch::new(), normalized })
    }

    /// Returns the width and height of a view, in pixels.
    pub fn size(&self) -> usize {
        self.config.size
    }

    /// Returns how many channels a view has: 3, or 1 if it is gray.
    pub fn channels(&self) -> usize {
        self.normalized.len()
    }

    /// Returns how many numbers a view has: `size * size * channels`.
    pub fn view_len(&self) -> usize {
        self.config.size * self.config.size * self.channels()
    }

    /// Makes the first view of `image` with the random numbers of `stream` and writes it to `out` (size x
    /// size x channels, row after row, normalized).
    ///
    /// A gray view is made of the gray image (Pillow's `convert("L")`), and each transform does what it does
    /// to such an image in torchvision: saturation, hue and grayscale leave it as it is.
    ///
    /// # Panics
    /// If `out` is not [`Self::view_len`] long or the image has no pixels.
    pub fn apply(&self, image: ImageRef<'_>, stream: &mut Stream, scratch: &mut Scratch, out: &mut [f32]) {
        self.apply_as(0, image, stream, scratch, out);
    }

    /// Makes view number `view` of `image` (from 0): the probabilities of some transforms depend on it
    /// ([`crate::RandomBlur::probability`]). Otherwise this is [`Self::apply`].
    ///
    /// # Panics
    /// If `out` is not [`Self::view_len`] long or the image has no pixels.
    pub fn apply_as(
        &self,
        view: usize,
        image: ImageRef<'_>,
        stream: &mut Stream,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        assert!(image.width * image.height > 0, "an image of {} x {} has no view", image.width, image.height);
        assert_eq!(
            out.len(),
            self.view_len(),
            "a view of size {} holds {} numbers",
            self.size(),
            self.view_len()
        );
        // These buffers are taken out of the scratch, since the other buffers are borrowed at the same time.
        let mut gray = std::mem::take(&mut scratch.gray);
        let image = if self.channels() == 1 {
            gray.clear();
            // Three equal channels: what the transforms then do to each is what they do to a gray image.
            gray.extend(
                image.pixels.chunks_exact(3).flat_map(|pixel| [luma([pixel[0], pixel[1], pixel[2]]); 3]),
            );
            ImageRef::new(image.width, image.height, &gray)
        } else {
            image
        };
        let mut squashed = std::mem::take(&mut scratch.squashed);
        let image = match self.config.squash {
            Some(side) if (image.width, image.height) != (side, side) => {
                self.arch.dispatch(|| squash(image, side, scratch, &mut squashed));
                ImageRef::new(side, side, &squashed)
            }
            _ => image,
        };
        let parameters = self.draw(image.width, image.height, view, stream);
        self.arch.dispatch(|| self.render(image, &parameters, scratch, out));
        scratch.squashed = squashed;
        scratch.gray = gray;
    }

    /// Draws the parameters of view number `view` of a (squashed) image of `width` x `height`, in the order
    /// of torchvision.
    pub(crate) fn draw(
        &self,
        width: usize,
        height: usize,
        view: usize,
        stream: &mut Stream,
    ) -> ViewParameters {
        let (config, size) = (&self.config, self.config.size);
        let random = |name: &str| self.mode == Mode::Train && config.uses(name);
        let placing = if let Some(crop) = &config.crop {
            let padding = if random("crop") { crop.padding } else { 0 };
            let (wide, high) = (crop_padding(width, size, padding), crop_padding(height, size, padding));
            let padded = (width + wide.0 + wide.1, height + high.0 + high.1);
            let window = if random("crop") {
                let top = stream.below(padded.1 - size + 1);
                let left = stream.below(padded.0 - size + 1);
                Window { top, left, height: size, width: size }
            } else {
                centered(padded.0, padded.1, size)
            };
            Placing::Padded { window, before: (wide.0, high.0) }
        } else if random("resized_crop") {
            Placing::ResizedCrop(resized_crop_window(
                &config.resized_crop,
                config.parameters,
                width,
                height,
                stream,
            ))
        } else {
            let (wide, high) = shorter_side_to(size, width, height);
            Placing::ShorterSide(wide, high)
        };
        let jittered = random("color_jitter") && happens(config.color_jitter.probability, stream);
        let jitter = if jittered {
            jitter(&config.color_jitter, config.parameters, stream)
        } else {
            Default::default()
        };
        let grayscale = random("grayscale") && happens(config.grayscale.probability, stream);
        let blur = config.blur.as_ref().filter(|_| random("blur"));
        let blur = blur.and_then(|blur| {
            let blurred = happens(of_view(&blur.probability, view), stream);
            blurred.then(|| stream.between(blur.sigma[0], blur.sigma[1]))
        });
        let solarize = config.solarize.as_ref().filter(|_| random("solarize"));
        let solarize = solarize.is_some_and(|it| happens(of_view(&it.probability, view), stream));
        let flip = random("flip") && happens(config.flip.probability, stream);
        ViewParameters { placing, jitter, grayscale, blur, solarize, flip }
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "compiled inside the dispatch, with its instruction set")]
    fn render(&self, image: ImageRef<'_>, view: &ViewParameters, scratch: &mut Scratch, out: &mut [f32]) {
        let Scratch { resizer, planes, before, blur, .. } = scratch;
        let size = self.config.size;
        match view.placing {
            Placing::ResizedCrop(window) => {
                resizer.resize(image, window, (size, size), Filter::Bilinear, planes);
            }
            Placing::Padded { window, before } => planes.copy_padded(image, window, before),
            Placing::ShorterSide(width, height) => {
                let whole = Window { top: 0, left: 0, height: image.height, width: image.width };
                if (width, height) == (size, size) {
                    resizer.resize(image, whole, (size, size), Filter::Bilinear, planes);
                } else {
                    resizer.resize(image, whole, (width, height), Filter::Bilinear, before);
                    planes.copy_middle(before, centered(width, height, size));
                }
            }
        }
        for change in view.jitter.into_iter().flatten() {
            planes.adjust(change);
        }
        if view.grayscale {
            planes.grayscale();
        }
        if let (Some(sigma), Some(config)) = (view.blur, &self.config.blur) {
            blur.apply(planes, config.kernel, sigma);
        }
        if let (true, Some(config)) = (view.solarize, &self.config.solarize) {
            planes.solarize(config.threshold);
        }
        let channels = planes.channels();
        if let [table] = &self.normalized[..] {
            for (row, line) in out.chunks_exact_mut(size).zip(channels[0].chunks_exact(size)) {
                let look_up = |(to, &from): (&mut f32, &u8)| *to = table[usize::from(from)];
                if view.flip {
                    row.iter_mut().rev().zip(line).for_each(look_up);
                } else {
                    row.iter_mut().zip(line).for_each(look_up);
                }
            }
            return;
        }
        let order = match self.config.normalize.channels {
            ChannelOrder::Rgb => [0, 1, 2],
            ChannelOrder::Bgr => [2, 1, 0],
        };
        let [first, second, third] =
            order.map(|channel: usize| (channels[channel], &self.normalized[channel]));
        for (y, row) in out.chunks_exact_mut(size * 3).enumerate() {
            let line = y * size..(y + 1) * size;
            let pixels = first.0[line.clone()].iter().zip(&second.0[line.clone()]).zip(&third.0[line]);
            let look_up = |to: &mut [f32], ((&a, &b), &c): ((&u8, &u8), &u8)| {
                to[0] = first.1[usize::from(a)];
                to[1] = second.1[usize::from(b)];
                to[2] = third.1[usize::from(c)];
            };
            if view.flip {
                row.chunks_exact_mut(3).rev().zip(pixels).for_each(|(to, pixel)| look_up(to, pixel));
            } else {
                row.chunks_exact_mut(3).zip(pixels).for_each(|(to, pixel)| look_up(to, pixel));
            }
        }
    }
}

/// Returns true with this probability. Like torchvision, it draws nothing if the probability is 1.
fn happens(probability: f64, stream: &mut Stream) -> bool {
    probability >= 1.0 || stream.chance(probability)
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled inside the dispatch, with its instruction set")]
fn squash(image: ImageRef<'_>, side: usize, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let whole = Window { top: 0, left: 0, height: image.height, width: image.width };
    scratch.resizer.resize(image, whole, (side, side), Filter::Lanczos, &mut scratch.before);
    out.resize(side * side * 3, 0);
    let [r, g, b] = scratch.before.channels();
    for (((pixel, &r), &g), &b) in out.chunks_exact_mut(3).zip(r).zip(g).zip(b) {
        pixel.copy_from_slice(&[r, g, b]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::image::Image;
    use crate::{ParameterDraw, RandomBlur, RandomCrop, RandomSolarize};
    use crate::{
        brightness, center_crop, contrast, gaussian_blur, grayscale, hflip, hue, random_crop, resize,
        resized_crop, saturation, solarize,
    };
    use invaspread_random::Purpose;
    use proptest::prelude::*;

    /// Does the work of the pipeline with the plain transforms.
    fn plain(pipeline: &Pipeline, number: usize, image: &Image, stream: &mut Stream) -> Vec<f32> {
        let config = &pipeline.config;
        let mut image =
            if config.normalize.mean.len() == 1 { grayscale(image.as_ref()) } else { image.clone() };
        if let Some(side) = config.squash {
            image = resize(image.as_ref(), side, side, Filter::Lanczos);
        }
        let view = pipeline.draw(image.width, image.height, number, stream);
        image = match view.placing {
            Placing::ResizedCrop(window) => resized_crop(image.as_ref(), window, config.size),
            Placing::Padded { window, .. } if pipeline.mode == Mode::Train && config.uses("crop") => {
                let padding = config.crop.as_ref().unwrap().padding;
                random_crop(image.as_ref(), config.size, padding, window.top, window.left)
            }
            Placing::Padded { .. } => center_crop(image.as_ref(), config.size),
            Placing::ShorterSide(width, height) => {
                let resized = resize(image.as_ref(), width, height, Filter::Bilinear);
                center_crop(resized.as_ref(), config.size)
            }
        };
        for change in view.jitter.into_iter().flatten() {
            image = match change {
                Adjust::Brightness(factor) => brightness(image.as_ref(), factor),
                Adjust::Contrast(factor) => contrast(image.as_ref(), factor),
                Adjust::Saturation(factor) => saturation(image.as_ref(), factor),
                Adjust::Hue(factor) => hue(image.as_ref(), factor),
            };
        }
        if view.grayscale {
            image = grayscale(image.as_ref());
        }
        if let Some(sigma) = view.blur {
            image = gaussian_blur(image.as_ref(), config.blur.as_ref().unwrap().kernel, sigma);
        }
        if view.solarize {
            image = solarize(image.as_ref(), config.solarize.as_ref().unwrap().threshold);
        }
        if view.flip {
            image = hflip(image.as_ref());
        }
        let normalize = &config.normalize;
        let mut out = Vec::new();
        for pixel in image.pixels.chunks_exact(3) {
            if let ([mean], [std]) = (&normalize.mean[..], &normalize.std[..]) {
                out.push((f32::from(pixel[0]) / 255.0 * normalize.scale - mean) / std);
                continue;
            }
            let value = |c: usize| {
                (f32::from(pixel[c]) / 255.0 * normalize.scale - normalize.mean[c]) / normalize.std[c]
            };
            match normalize.channels {
                ChannelOrder::Rgb => out.extend([value(0), value(1), value(2)]),
                ChannelOrder::Bgr => out.extend([value(2), value(1), value(0)]),
            }
        }
        out
    }

    prop_compose! {
        fn config()(
            size in 1usize..40,
            current: bool,
            left_out in prop::collection::vec(prop::sample::select(&crate::TRANSFORMS[..]), 0..3),
            squash in prop::option::of(1usize..50),
            padding in prop::option::of(0usize..5),
            radius in prop::option::of(0usize..5),
            threshold in prop::option::of(any::<u8>()),
            caffe: bool,
            gray: bool,
        ) -> AugmentConfig {
            let mut config = AugmentConfig { size, squash, ..AugmentConfig::default() };
            config.parameters = if current { ParameterDraw::Current } else { ParameterDraw::Torchvision02 };
            config.without = left_out.into_iter().map(str::to_owned).collect();
            config.crop = padding.map(|padding| RandomCrop { padding });
            config.color_jitter.probability = 0.8;
            config.blur = radius.map(|radius| RandomBlur {
                kernel: 2 * radius.min(size - 1) + 1,
                probability: vec![0.8, 0.3, 1.0],
                ..RandomBlur::default()
            });
            config.solarize =
                threshold.map(|threshold| RandomSolarize { threshold, probability: vec![0.0, 0.7] });
            if caffe {
                config.normalize.scale = 255.0;
                config.normalize.channels = ChannelOrder::Bgr;
            }
            if gray {
                config.normalize.mean = vec![0.48];
                config.normalize.std = vec![0.24];
            }
            config
        }
    }

    proptest! {
        #[test]
        fn the_fast_path_equals_the_plain_one(
            config in config(), w in 1usize..60, h in 1usize..60, seed: u64, train: bool,
        ) {
            let pipeline = if train { Pipeline::train(&config) } else { Pipeline::evaluate(&config) }.unwrap();
            let mut scratch = Scratch::default();
            let mut out = vec![0.0; pipeline.view_len()];
            for index in 0..4 {
                let mut pixels = Stream::new(seed, Purpose::Synthetic, 0, index);
                let image = Image::new(w, h, (0..w * h * 3).map(|_| pixels.next_u32() as u8).collect());
                let stream = Stream::new(seed, Purpose::Augment, 0, index);
                let number = index as usize;
                pipeline.apply_as(number, image.as_ref(), &mut stream.clone(), &mut scratch, &mut out);
                let expected = plain(&pipeline, number, &image, &mut stream.clone());
                let differing = out.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                prop_assert_eq!(differing, 0);
            }
        }
    }

    #[test]
    fn evaluation_of_an_image_of_the_right_size_only_normalizes() {
        let pipeline = Pipeline::evaluate(&AugmentConfig { size: 2, ..AugmentConfig::default() }).unwrap();
        let image = Image::new(2, 2, vec![0, 128, 255, 3, 2, 1, 9, 8, 7, 255, 255, 255]);
        let mut out = vec![0.0; 12];
        let mut stream = Stream::new(0, Purpose::Augment, 0, 0);
        pipeline.apply(image.as_ref(), &mut stream, &mut Scratch::default(), &mut out);
        assert_eq!(out[0].to_bits(), ((0.0f32 - 0.4914) / 0.2023).to_bits());
        assert_eq!(out[1].to_bits(), ((128.0f32 / 255.0 - 0.4822) / 0.1994).to_bits());
        assert_eq!(out[11].to_bits(), ((1.0f32 - 0.4465) / 0.2010).to_bits());
    }

    /// Counts the views that are blurred and solarized, at the probabilities of BYOL.
    #[test]
    fn each_view_has_its_own_probabilities() {
        let config = AugmentConfig {
            blur: Some(RandomBlur { probability: vec![1.0, 0.1], ..RandomBlur::default() }),
            solarize: Some(RandomSolarize::default()),
            ..AugmentConfig::default()
        };
        let pipeline = Pipeline::train(&config).unwrap();
        let n = 4000;
        let mut found = [[0; 2]; 3];
        for (view, [blurred, solarized]) in found.iter_mut().enumerate() {
            for index in 0..n {
                let mut stream = Stream::new(view as u64, Purpose::Augment, 0, index);
                let drawn = pipeline.draw(32, 32, view, &mut stream);
                *blurred += u64::from(drawn.blur.is_some_and(|sigma| (0.1..2.0).contains(&sigma)));
                *solarized += u64::from(drawn.solarize);
            }
        }
        assert_eq!(found[0], [n, 0]);
        for [blurred, solarized] in &found[1..] {
            assert!(blurred.abs_diff(n / 10) < 90 && solarized.abs_diff(n / 5) < 120, "{found:?}");
        }
        // Without these transforms nothing is drawn for them, so older views stay as they were.
        let without = Pipeline::train(&AugmentConfig::default()).unwrap();
        let left_out = AugmentConfig { without: vec!["blur".into(), "solarize".into()], ..config };
        let left_out = Pipeline::train(&left_out).unwrap();
        let draw =
            |pipeline: &Pipeline| pipeline.draw(32, 32, 1, &mut Stream::new(0, Purpose::Augment, 0, 7));
        assert_eq!(draw(&without), draw(&left_out));
        assert!(without.view_settings().is_some() && left_out.view_settings().is_none());
    }

    #[test]
    fn no_augmentation_makes_training_views_as_evaluation_does() {
        let config = AugmentConfig { none: true, ..AugmentConfig::default() };
        let image = Image::new(32, 32, (0..3072).map(|i| (i * 31 % 251) as u8).collect());
        let view = |pipeline: &Pipeline, index| {
            let mut out = vec![0.0; pipeline.view_len()];
            let mut stream = Stream::new(0, Purpose::Augment, 1, index);
            pipeline.apply(image.as_ref(), &mut stream, &mut Scratch::default(), &mut out);
            out
        };
        let train = Pipeline::train(&config).unwrap();
        assert_eq!(view(&train, 0), view(&train, 1));
        assert_eq!(view(&train, 0), view(&Pipeline::evaluate(&config).unwrap(), 0));
        let usual = Pipeline::train(&AugmentConfig::default()).unwrap();
        assert_ne!(view(&usual, 0), view(&usual, 1));
    }
}
