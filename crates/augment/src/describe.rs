//! What the transform of evaluation does to an image, in words and as names with values: for a person who embeds images with
//! other programs.

use crate::config::{AugmentConfig, ChannelOrder};

impl AugmentConfig {
    /// Returns the steps of the transform of evaluation, in one sentence.
    ///
    /// ```
    /// use invaspread_augment::AugmentConfig;
    ///
    /// let text = AugmentConfig::default().evaluation_in_words();
    /// assert!(text.starts_with("resize the shorter side to 32 pixels"), "{text}");
    /// ```
    pub fn evaluation_in_words(&self) -> String {
        let size = self.size;
        let mut steps = Vec::new();
        if let Some(side) = self.squash {
            steps.push(format!(
                "resize to {side} x {side} pixels, whatever the aspect ratio (Pillow's Lanczos filter)"
            ));
        }
        if self.crop.is_none() {
            steps.push(format!(
                "resize the shorter side to {size} pixels (Pillow's bilinear filter; the longer side is rounded down)"
            ));
        }
        let black = if self.crop.is_some() { ", with black borders where the image is smaller" } else { "" };
        steps.push(format!("take the middle {size} x {size} pixels{black}"));
        let order = match (self.normalize.mean.len(), self.normalize.channels) {
            (1, _) => "gray (Pillow's convert(\"L\"), before all else)",
            (_, ChannelOrder::Rgb) => "red, green, blue",
            (_, ChannelOrder::Bgr) => "blue, green, red",
        };
        let [mean, std] = self.in_channel_order().map(|numbers| format!("{numbers:?}"));
        let scale = self.normalize.scale;
        steps.push(format!(
            "channels: {order}; each value is (byte / 255 * {scale:?} - mean) / std with mean {mean} and std {std}"
        ));
        steps.join("; ")
    }

    /// Returns the transform of evaluation as names with values, each in JSON: `image_size` (pixels), `squash` (pixels, or null),
    /// `fit` ("shorter_side", or "center_crop": no resize), `channel_order` ("RGB", "BGR" or "gray"), `scale`, `mean` and `std`
    /// (the latter two in the order of the channels).
    pub fn evaluation_properties(&self) -> Vec<(String, String)> {
        let [mean, std] = self.in_channel_order().map(|numbers| format!("{numbers:?}"));
        let order = match (self.normalize.mean.len(), self.normalize.channels) {
            (1, _) => "gray",
            (_, ChannelOrder::Rgb) => "RGB",
            (_, ChannelOrder::Bgr) => "BGR",
        };
        [
            ("image_size", self.size.to_string()),
            ("squash", self.squash.map_or_else(|| "null".to_owned(), |side| side.to_string())),
            ("fit", format!("{:?}", if self.crop.is_some() { "center_crop" } else { "shorter_side" })),
            ("channel_order", format!("{order:?}")),
            ("scale", format!("{:?}", self.normalize.scale)),
            ("mean", mean),
            ("std", std),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Returns means and standard deviations in the order of a view's channels. The config has them for R, G, B.
    fn in_channel_order(&self) -> [Vec<f32>; 2] {
        [&self.normalize.mean, &self.normalize.std].map(|numbers| match self.normalize.channels {
            ChannelOrder::Rgb => numbers.clone(),
            ChannelOrder::Bgr => numbers.iter().rev().copied().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{AugmentConfig, ChannelOrder, Normalize, RandomCrop};

    fn property(config: &AugmentConfig, name: &str) -> String {
        let found = config.evaluation_properties().into_iter().find(|(key, _)| key == name);
        found.expect("a property of this name").1
    }

    #[test]
    fn caffes_images_have_their_numbers_in_the_order_of_the_channels() {
        let normalize = Normalize {
            mean: vec![123.0, 117.0, 104.0],
            std: vec![1.0, 2.0, 3.0],
            scale: 255.0,
            channels: ChannelOrder::Bgr,
        };
        let config = AugmentConfig { size: 227, squash: Some(256), normalize, ..AugmentConfig::default() };
        let expected = [
            ("image_size", "227"),
            ("squash", "256"),
            ("fit", "\"shorter_side\""),
            ("channel_order", "\"BGR\""),
            ("scale", "255.0"),
            ("mean", "[104.0, 117.0, 123.0]"),
            ("std", "[3.0, 2.0, 1.0]"),
        ];
        for (name, value) in expected {
            assert_eq!(property(&config, name), value, "{name}");
        }
        let text = config.evaluation_in_words();
        for part in [
            "resize to 256 x 256",
            "shorter side to 227",
            "middle 227 x 227 pixels;",
            "blue, green, red",
            "/ 255 * 255.0 - mean",
            "mean [104.0, 117.0, 123.0] and std [3.0, 2.0, 1.0]",
        ] {
            assert!(text.contains(part), "expected {part:?} in {text}");
        }
    }

    #[test]
    fn a_crop_resizes_nothing_and_one_mean_is_gray() {
        let normalize = Normalize { mean: vec![0.5], std: vec![0.25], ..Normalize::default() };
        let config =
            AugmentConfig { crop: Some(RandomCrop { padding: 4 }), normalize, ..AugmentConfig::default() };
        let text = config.evaluation_in_words();
        assert!(text.starts_with("take the middle 32 x 32 pixels, with black borders"), "{text}");
        assert!(text.contains("channels: gray"), "{text}");
        assert_eq!(property(&config, "fit"), "\"center_crop\"");
        assert_eq!(property(&config, "channel_order"), "\"gray\"");
        assert_eq!((property(&config, "squash"), property(&config, "mean")), ("null".into(), "[0.5]".into()));
    }
}
