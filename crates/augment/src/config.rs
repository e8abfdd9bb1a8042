//! The settings of the transforms.

use serde::{Deserialize, Serialize};

/// The transforms of training and evaluation. The default is the recipe of the paper's released code for
/// CIFAR-10.
///
/// Training: `squash`, then the resized crop or `crop`, color jitter, grayscale, blur, solarize, flip,
/// normalize. Evaluation: `squash`, then a resize of the shorter side to `size` if the image's size differs
/// (not with `crop`), the middle `size` x `size`, normalize.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Width and height of a view, in pixels.
    pub size: usize,
    /// The release of torchvision whose random draws are followed.
    pub parameters: ParameterDraw,
    /// Whether to leave out all augmentation ("No DA" in Table 7): training views are then made as in
    /// evaluation.
    pub none: bool,
    /// Transforms to leave out: any of [`TRANSFORMS`].
    pub without: Vec<String>,
    /// Width and height that an image is first resized to, by a Lanczos filter and without keeping its aspect
    /// ratio (256 for CUB-200 and the like).
    pub squash: Option<usize>,
    /// The random part of the image that is resized to the view, bilinearly. Not used if `crop` is set.
    pub resized_crop: ResizedCrop,
    /// A random window of `size` x `size` instead of the resized crop.
    pub crop: Option<RandomCrop>,
    /// Random brightness, contrast, saturation and hue, in random order.
    pub color_jitter: ColorJitter,
    /// The probability with which a view is made gray.
    pub grayscale: RandomGrayscale,
    /// Random Gaussian blur; none unless set.
    pub blur: Option<RandomBlur>,
    /// Random inversion of bright values; none unless set.
    pub solarize: Option<RandomSolarize>,
    /// The probability with which a view is mirrored.
    pub flip: RandomFlip,
    /// The conversion of bytes to the numbers that the network gets.
    pub normalize: Normalize,
}

/// The release of torchvision whose random draws are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ParameterDraw {
    /// torchvision 0.2, with which the results of the paper were made.
    #[default]
    #[serde(rename = "torchvision-0.2")]
    Torchvision02,
    /// torchvision since 0.8.
    #[serde(rename = "current")]
    Current,
}

/// The names that [`AugmentConfig::without`] accepts.
pub const TRANSFORMS: [&str; 7] =
    ["resized_crop", "crop", "color_jitter", "grayscale", "blur", "solarize", "flip"];

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            size: 32,
            parameters: ParameterDraw::default(),
            none: false,
            without: Vec::new(),
            squash: None,
            resized_crop: ResizedCrop::default(),
            crop: None,
            color_jitter: ColorJitter::default(),
            grayscale: RandomGrayscale::default(),
            blur: None,
            solarize: None,
            flip: RandomFlip::default(),
            normalize: Normalize::default(),
        }
    }
}

/// Ranges of the random resized crop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResizedCrop {
    /// Smallest and largest share of the area of the image.
    pub scale: [f64; 2],
    /// Smallest and largest ratio of width to height.
    pub ratio: [f64; 2],
}

impl Default for ResizedCrop {
    fn default() -> Self {
        Self { scale: [0.2, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

/// A random window of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomCrop {
    /// Black pixels that are first added on every side.
    pub padding: usize,
}

/// Strengths of the color jitter; a strength of zero leaves a change out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColorJitter {
    /// The factor is uniform in `1 ± brightness`, and at least zero.
    pub brightness: f64,
    /// The factor is uniform in `1 ± contrast`, and at least zero.
    pub contrast: f64,
    /// The factor is uniform in `1 ± saturation`, and at least zero.
    pub saturation: f64,
    /// The shift is uniform in `± hue`, in parts of the color circle; at most 0.5.
    pub hue: f64,
    /// The probability that the jitter is applied, from 0 to 1.
    pub probability: f64,
}

impl Default for ColorJitter {
    fn default() -> Self {
        Self { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.4, probability: 1.0 }
    }
}

/// The probability with which a view is made gray.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomGrayscale {
    /// The probability, from 0 to 1.
    pub probability: f64,
}

impl Default for RandomGrayscale {
    fn default() -> Self {
        Self { probability: 0.2 }
    }
}

/// A Gaussian blur of some views ([`crate::gaussian_blur`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomBlur {
    /// Length of the kernel in pixels, an odd number.
    pub kernel: usize,
    /// Least and greatest standard deviation, between which each view's is uniform, in pixels.
    pub sigma: [f64; 2],
    /// The probability for each view, from 0 to 1: the first number is that of an image's first view, and so
    /// on; the last number is that of all further views too. BYOL has 1 and 0.1 (Grill et al., NeurIPS 2020,
    /// appendix B).
    pub probability: Vec<f64>,
}

impl Default for RandomBlur {
    /// The kernel for views of 224 pixels and the deviations of `SimCLR` (Chen et al., ICML 2020, appendix
    /// A).
    fn default() -> Self {
        Self { kernel: 23, sigma: [0.1, 2.0], probability: vec![0.5] }
    }
}

/// An inversion of the bright values of some views ([`crate::solarize`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomSolarize {
    /// The least value that is inverted.
    pub threshold: u8,
    /// The probability for each view, as in [`RandomBlur::probability`].
    pub probability: Vec<f64>,
}

impl Default for RandomSolarize {
    /// BYOL's: only second views, with probability 0.2.
    fn default() -> Self {
        Self { threshold: 128, probability: vec![0.0, 0.2] }
    }
}

/// Returns the probability for the view of the given number.
pub(crate) fn of_view(probability: &[f64], view: usize) -> f64 {
    probability.get(view).or(probability.last()).copied().unwrap_or(0.0)
}

/// The probability with which a view is mirrored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomFlip {
    /// The probability, from 0 to 1.
    pub probability: f64,
}

impl Default for RandomFlip {
    fn default() -> Self {
        Self { probability: 0.5 }
    }
}

/// The normalization `(byte / 255 * scale - mean) / std` of each channel, in f32 as in torchvision. The
/// number of means is the number of channels of a view: three, or one for gray views.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Normalize {
    /// The numbers that are subtracted from R, G, B, or the one that is subtracted from gray.
    pub mean: Vec<f32>,
    /// The numbers by which R, G, B are then divided, or the one by which gray is.
    pub std: Vec<f32>,
    /// The value of a white pixel before the mean is subtracted: 1, or 255 for networks from Caffe.
    pub scale: f32,
    /// The order of the channels of a view; without effect on gray views.
    pub channels: ChannelOrder,
}

impl Default for Normalize {
    fn default() -> Self {
        Self {
            mean: vec![0.4914, 0.4822, 0.4465],
            std: vec![0.2023, 0.1994, 0.2010],
            scale: 1.0,
            channels: ChannelOrder::Rgb,
        }
    }
}

/// The order of the channels that a network expects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first, as usual.
    #[default]
    Rgb,
    /// Blue first, as in Caffe.
    Bgr,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentError {
    /// `without` names a transform that does not exist.
    #[error("augment.without: no transform is called \"{found}\"; the known names are {}", TRANSFORMS.join(", "))]
    UnknownTransform {
        /// The name found.
        found: String,
    },
    /// A value is outside its range.
    #[error("augment.{key}: found {found}, expected {expected}")]
    OutOfRange {
        /// The name of the setting.
        key: &'static str,
        /// The value.
        found: String,
        /// The allowed values.
        expected: &'static str,
    },
}

impl AugmentConfig {
    /// Returns whether `name` (one of [`TRANSFORMS`]) is applied in training.
    pub fn uses(&self, name: &str) -> bool {
        !self.none && !self.without.iter().any(|left_out| left_out == name)
    }

    /// Returns the same transforms for the small views of multi-crop: `size` x `size` pixels of a window with
    /// a share of the image's area within `scale` (Caron et al., "Unsupervised Learning of Visual Features by
    /// Contrasting Cluster Assignments", NeurIPS 2020, section 3.2: 96 pixels, a share from 0.05 to 0.14).
    #[must_use]
    pub fn small_crops(&self, size: usize, scale: [f64; 2]) -> Self {
        let resized_crop = ResizedCrop { scale, ..self.resized_crop.clone() };
        // `crop` takes a window of the size of the view, which would show a fixed share of the image.
        Self { size, resized_crop, crop: None, ..self.clone() }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// If the value of a setting is unknown or out of range; the error names the first such setting.
    pub fn check(&self) -> Result<(), AugmentError> {
        if let Some(found) = self.without.iter().find(|name| !TRANSFORMS.contains(&name.as_str())) {
            return Err(AugmentError::UnknownTransform { found: found.clone() });
        }
        range("size", (1..=8192).contains(&self.size), &self.size, "between 1 and 8192 pixels")?;
        if let Some(squash) = self.squash {
            range("squash", (1..=8192).contains(&squash), &squash, "between 1 and 8192 pixels")?;
        }
        let padding = self.crop.as_ref().map_or(0, |crop| crop.padding);
        range("crop.padding", padding <= 8192, &padding, "at most 8192 pixels")?;
        let ResizedCrop { scale, ratio } = self.resized_crop;
        range(
            "resized_crop.scale",
            0.0 < scale[0] && scale[0] <= scale[1] && scale[1] <= 1.0,
            &scale,
            "two parts of the area, the smaller first, above 0 and at most 1",
        )?;
        range(
            "resized_crop.ratio",
            0.0 < ratio[0] && ratio[0] <= ratio[1] && ratio[1].is_finite(),
            &ratio,
            "two ratios of width to height, the smaller first, above 0",
        )?;
        let strengths = [
            ("color_jitter.brightness", self.color_jitter.brightness),
            ("color_jitter.contrast", self.color_jitter.contrast),
            ("color_jitter.saturation", self.color_jitter.saturation),
        ];
        for (key, strength) in strengths {
            range(key, strength.is_finite() && strength >= 0.0, &strength, "a strength of 0 or more")?;
        }
        let hue = self.color_jitter.hue;
        range(
            "color_jitter.hue",
            (0.0..=0.5).contains(&hue),
            &hue,
            "a part of the circle between 0 and 0.5",
        )?;
        let chances = [
            ("color_jitter.probability", self.color_jitter.probability),
            ("grayscale.probability", self.grayscale.probability),
            ("flip.probability", self.flip.probability),
        ];
        for (key, chance) in chances {
            range(key, (0.0..=1.0).contains(&chance), &chance, "a probability between 0 and 1")?;
        }
        self.check_blur_and_solarize()?;
        let Normalize { mean, std, scale, .. } = &self.normalize;
        let ok = matches!(mean.len(), 1 | 3) && mean.iter().all(|m| m.is_finite());
        range("normalize.mean", ok, mean, "three finite numbers, or one for gray views")?;
        let ok = std.len() == mean.len() && std.iter().all(|s| s.is_finite() && *s > 0.0);
        range("normalize.std", ok, std, "numbers above 0, as many as normalize.mean has")?;
        range(
            "normalize.scale",
            scale.is_finite() && *scale > 0.0,
            scale,
            "a number above 0, such as 1 or 255",
        )
    }
}

impl AugmentConfig {
    fn check_blur_and_solarize(&self) -> Result<(), AugmentError> {
        let chances = |key, list: &[f64]| {
            let ok = !list.is_empty() && list.iter().all(|chance| (0.0..=1.0).contains(chance));
            range(key, ok, &list, "a probability between 0 and 1 for the first view, the second and so on")
        };
        if let Some(RandomBlur { kernel, sigma, probability }) = &self.blur {
            range("blur.kernel", kernel % 2 == 1 && *kernel < 1024, kernel, "an odd number below 1024")?;
            // The borders are reflected, so that a view must be longer than half of the kernel.
            let fits = kernel / 2 < self.size;
            range(
                "blur.kernel",
                fits,
                kernel,
                "a kernel of which half is shorter than a view (augment.size)",
            )?;
            let ok = 0.0 < sigma[0] && sigma[0] <= sigma[1] && sigma[1].is_finite();
            range("blur.sigma", ok, sigma, "two standard deviations, the smaller first, above 0")?;
            chances("blur.probability", probability)?;
        }
        self.solarize
            .as_ref()
            .map_or(Ok(()), |solarize| chances("solarize.probability", &solarize.probability))
    }
}

/// Returns an error for the setting `key` unless `ok`.
fn range(
    key: &'static str,
    ok: bool,
    found: &dyn std::fmt::Debug,
    expected: &'static str,
) -> Result<(), AugmentError> {
    if ok { Ok(()) } else { Err(AugmentError::OutOfRange { key, found: format!("{found:?}"), expected }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_name_that_no_transform_has_is_an_error_that_lists_them() {
        let config = AugmentConfig { without: vec!["flop".to_owned()], ..AugmentConfig::default() };
        let message = config.check().unwrap_err().to_string();
        assert!(
            message.contains("\"flop\"") && TRANSFORMS.iter().all(|name| message.contains(name)),
            "{message}"
        );
    }

    #[test]
    fn values_out_of_range_name_their_key() {
        let mut config = AugmentConfig::default();
        config.color_jitter.hue = 0.6;
        assert!(config.check().unwrap_err().to_string().starts_with("augment.color_jitter.hue: found 0.6"));
        let mut config = AugmentConfig::default();
        config.resized_crop.scale = [0.5, 0.2];
        assert!(config.check().unwrap_err().to_string().starts_with("augment.resized_crop.scale"));
        let mut config = AugmentConfig::default();
        config.normalize.mean = vec![0.5, 0.5];
        assert!(
            config.check().unwrap_err().to_string().starts_with("augment.normalize.mean: found [0.5, 0.5]")
        );
        config.normalize.mean = vec![0.5];
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("augment.normalize.std") && error.contains("as many as"), "{error}");
        config.normalize.std = vec![0.25];
        config.check().unwrap();
        let mut config = AugmentConfig::default();
        config.flip.probability = f64::NAN;
        assert!(config.check().unwrap_err().to_string().starts_with("augment.flip.probability"));
        AugmentConfig::default().check().unwrap();
    }

    #[test]
    fn a_blur_must_fit_its_views_and_name_a_probability() {
        let with = |blur: RandomBlur| AugmentConfig { blur: Some(blur), ..AugmentConfig::default() };
        let says = |config: AugmentConfig, what: &str| {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        };
        with(RandomBlur::default()).check().unwrap();
        says(with(RandomBlur { kernel: 4, ..RandomBlur::default() }), "augment.blur.kernel: found 4");
        // Half of 23 pixels is 11, and a reflected view of 11 pixels has only ten further ones.
        says(AugmentConfig { size: 11, ..with(RandomBlur::default()) }, "augment.blur.kernel: found 23");
        AugmentConfig { size: 12, ..with(RandomBlur::default()) }.check().unwrap();
        says(with(RandomBlur { sigma: [0.0, 1.0], ..RandomBlur::default() }), "augment.blur.sigma");
        says(
            with(RandomBlur { probability: Vec::new(), ..RandomBlur::default() }),
            "augment.blur.probability",
        );
        let solarize = RandomSolarize { probability: vec![0.5, 1.5], ..RandomSolarize::default() };
        let config = AugmentConfig { solarize: Some(solarize), ..AugmentConfig::default() };
        says(config, "augment.solarize.probability");
    }

    #[test]
    fn the_last_probability_is_that_of_all_further_views() {
        let found = [0, 1, 2, 7].map(|view| of_view(&[1.0, 0.1], view));
        assert_eq!(found.map(f64::to_bits), [1.0, 0.1, 0.1, 0.1].map(f64::to_bits));
    }

    #[test]
    fn a_part_of_a_table_keeps_the_other_defaults_and_unknown_keys_are_errors() {
        let text =
            r#"{ "color_jitter": { "hue": 0.1 }, "parameters": "current", "crop": {}, "without": ["flip"] }"#;
        let config: AugmentConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.color_jitter, ColorJitter { hue: 0.1, ..ColorJitter::default() });
        assert_eq!((config.parameters, config.grayscale.probability), (ParameterDraw::Current, 0.2));
        assert!(
            config.crop == Some(RandomCrop { padding: 0 }) && !config.uses("flip") && config.uses("crop")
        );
        let round: AugmentConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(round, config);
        for text in [r#"{ "flipp": {} }"#, r#"{ "flip": { "p": 1 } }"#, r#"{ "parameters": "torchvision" }"#]
        {
            assert!(serde_json::from_str::<AugmentConfig>(text).is_err(), "{text}");
        }
    }
}
