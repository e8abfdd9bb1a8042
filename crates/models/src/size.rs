//! Computes the size of a network from its shapes alone. Nothing is built, so any size is allowed. All sums
//! saturate.

use crate::inception::{HALVE, STAGES};
use crate::network::NetworkConfig;
use crate::resnet::{ResNetConfig, Stem};
use crate::vit::{HIDDEN, VitConfig};

/// The size of a network: counts of numbers and of multiply-adds.
///
/// ```
/// use invaspread_models::{NetworkConfig, ResNetConfig};
///
/// // Nothing is built, so networks of any size can be counted.
/// let size = NetworkConfig::from(ResNetConfig::default()).size(32);
/// assert_eq!((size.map, size.pooled), (4, 512));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkSize {
    /// Trained parameters.
    pub parameters: u128,
    /// Outputs of the convolutions (of a vision transformer, inputs of the ops) for one image. A training
    /// step holds at least these, as gradients need one number for each.
    pub activations: u128,
    /// The largest of those outputs; of a vision transformer, the most that a block holds at one time while it
    /// is not trained.
    pub largest: u128,
    /// Side of the last map, before it is pooled; of a vision transformer, patches along a side.
    pub map: u128,
    /// Length of the pooled features.
    pub pooled: u128,
    /// Multiply-adds of the convolutions, the linear layers and the attentions for one image, including those
    /// with the padding.
    pub multiply_adds: u128,
}

/// A convolution from `from` to `to` channels, whose output is `side` x `side`.
struct Convolution {
    from: u128,
    to: u128,
    kernel: u128,
    side: u128,
}

impl NetworkConfig {
    /// Returns the size of the network for images of `side` x `side` pixels.
    pub fn size(&self, side: usize) -> NetworkSize {
        let mut size = NetworkSize::default();
        match self {
            Self::ResNet(config) => {
                let (convolutions, channels) = resnet(config, side as u128);
                // Batch norm has a gain and a shift for each channel.
                for layer in &convolutions {
                    size.add(layer, 2);
                }
                size.map = convolutions.last().map_or(0, |last| last.side);
                size.add_head(channels, config.embedding as u128);
            }
            Self::Inception(config) => {
                let (convolutions, channels) = inception(config.channels as u128, side);
                for layer in &convolutions {
                    size.add(layer, 1);
                }
                size.map = convolutions.last().map_or(0, |last| last.side);
                size.add_head(channels, config.embedding as u128);
            }
            Self::Vit(config) => size.add_vit(config, side),
        }
        size
    }
}

impl NetworkSize {
    /// Adds a convolution that has the given number of further parameters for each channel.
    fn add(&mut self, layer: &Convolution, further: u128) {
        let Convolution { from, to, kernel, side } = *layer;
        let weights = product(&[kernel, kernel, from, to]);
        let output = product(&[side, side, to]);
        self.parameters = self.parameters.saturating_add(weights).saturating_add(product(&[further, to]));
        self.activations = self.activations.saturating_add(output);
        self.largest = self.largest.max(output);
        self.multiply_adds = self.multiply_adds.saturating_add(product(&[side, side, weights]));
    }

    fn add_vit(&mut self, config: &VitConfig, side: usize) {
        let [width, depth, patch, channels] =
            [config.width, config.depth, config.patch, config.channels].map(|size| size as u128);
        let tokens = |side: usize| {
            let patches = side as u128 / patch.max(1);
            patches.saturating_mul(patches).saturating_add(1)
        };
        self.map = side as u128 / patch.max(1);
        let convolution = Convolution { from: channels, to: width, kernel: patch, side: self.map };
        self.add(&convolution, 1);
        let hidden = product(&[HIDDEN as u128, width]);
        // The weights of the linear layers of all blocks, and their biases and those of the norms.
        let weights =
            product(&[depth, width, width.saturating_mul(4).saturating_add(hidden.saturating_mul(2))]);
        let biases = product(&[depth, width.saturating_mul(5 + 4).saturating_add(hidden)]);
        // The class token and the positions; the last norm.
        let further = product(&[width, tokens(config.image).saturating_add(1 + 2)]);
        for parameters in [weights, biases, further] {
            self.parameters = self.parameters.saturating_add(parameters);
        }
        let tokens = tokens(side);
        // A training step holds what enters each op: the two norms, the four linear layers, attention (three
        // times the width) and GELU.
        let of_block = width.saturating_mul(2 + 3 + 3).saturating_add(hidden.saturating_mul(2));
        self.activations = self.activations.saturating_add(product(&[depth, tokens, of_block]));
        // Together: input and output of GELU, and the tokens before and after attention.
        let together = hidden.saturating_add(width).saturating_mul(2);
        self.largest = self.largest.max(product(&[tokens, together]));
        let linear = product(&[tokens, weights]);
        let attention = product(&[2, depth, tokens, tokens, width]);
        self.multiply_adds = self.multiply_adds.saturating_add(linear).saturating_add(attention);
        self.add_head(width, config.embedding as u128);
    }

    fn add_head(&mut self, channels: u128, embedding: u128) {
        let weights = product(&[channels, embedding]);
        self.pooled = channels;
        self.parameters = self.parameters.saturating_add(weights).saturating_add(embedding);
        self.multiply_adds = self.multiply_adds.saturating_add(weights);
    }
}

fn product(factors: &[u128]) -> u128 {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

/// Returns the convolutions of a ResNet and the channels of its last map.
fn resnet(config: &ResNetConfig, side: u128) -> (Vec<Convolution>, u128) {
    let (stages, bottleneck) = match config.depth {
        18 => ([2, 2, 2, 2], false),
        34 => ([3, 4, 6, 3], false),
        _ => ([3, 4, 6, 3], true),
    };
    let (width, channels) = (config.width as u128, config.channels as u128);
    let mut layers = Vec::new();
    let mut side = side;
    match config.stem {
        Stem::Cifar => layers.push(Convolution { from: channels, to: width, kernel: 3, side }),
        Stem::Imagenet => {
            side = side.div_ceil(2);
            layers.push(Convolution { from: channels, to: width, kernel: 7, side });
            // The stem's maximum pool halves the map.
            side = side.div_ceil(2);
        }
    }
    let mut from = width;
    for (stage, count) in stages.into_iter().enumerate() {
        let to = width.saturating_mul(if bottleneck { 4 } else { 1 } << stage);
        for block in 0..count {
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            let out = side.div_ceil(stride);
            if stride != 1 || from != to {
                layers.push(Convolution { from, to, kernel: 1, side: out });
            }
            if bottleneck {
                let within = to / 4;
                layers.push(Convolution { from, to: within, kernel: 1, side });
                layers.push(Convolution { from: within, to: within, kernel: 3, side: out });
                layers.push(Convolution { from: within, to, kernel: 1, side: out });
            } else {
                layers.push(Convolution { from, to, kernel: 3, side: out });
                layers.push(Convolution { from: to, to, kernel: 3, side: out });
            }
            (side, from) = (out, to);
        }
    }
    (layers, from)
}

/// Returns the convolutions of Inception-v1 and the channels of its last map.
fn inception(channels: u128, side: usize) -> (Vec<Convolution>, u128) {
    let halved = |side: usize| HALVE.out_len(side).unwrap_or_default();
    let mut side = side.div_ceil(2);
    let mut layers = vec![Convolution { from: channels, to: 64, kernel: 7, side: side as u128 }];
    side = halved(side);
    let map = side as u128;
    layers.push(Convolution { from: 64, to: 64, kernel: 1, side: map });
    layers.push(Convolution { from: 64, to: 192, kernel: 3, side: map });
    let mut from = 192;
    for stage in STAGES {
        side = halved(side);
        let side = side as u128;
        for (_, channels) in stage {
            let [one, three_reduce, three, five_reduce, five, projection] =
                channels.map(|count| count as u128);
            let within =
                [(from, one, 1), (from, three_reduce, 1), (three_reduce, three, 3), (from, five_reduce, 1)];
            let further = [(five_reduce, five, 5), (from, projection, 1)];
            let layer = |(from, to, kernel)| Convolution { from, to, kernel, side };
            layers.extend(within.into_iter().chain(further).map(layer));
            from = one + three + five + projection;
        }
    }
    (layers, from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::NetworkSize;
    use crate::{InceptionConfig, Network, NetworkConfig, ResNetConfig, VitConfig};

    /// The computed sizes equal those of networks that were built.
    #[test]
    fn sizes_are_those_of_the_built_network() {
        let resnets = [18, 34, 50].into_iter().flat_map(|depth| {
            [ResNetConfig::default(), ResNetConfig::imagenet()]
                .map(|config| ResNetConfig { depth, width: 8, channels: 4, embedding: 24, ..config }.into())
        });
        let inception =
            NetworkConfig::from(InceptionConfig { embedding: 24, channels: 2, ..InceptionConfig::default() });
        let vits = [
            VitConfig { embedding: 24, ..VitConfig::tiny() },
            VitConfig { image: 96, channels: 1, ..VitConfig::small() },
        ];
        for config in resnets.chain([inception]).chain(vits.map(Into::into)) {
            let network = Network::new(config.clone(), 0).unwrap();
            let parameters: usize = network.parameters().iter().map(|(_, one)| one.elem_count()).sum();
            for side in [32, 96, 228] {
                let size = config.size(side);
                assert_eq!(size.parameters, parameters as u128, "{config}");
                assert_eq!(size.multiply_adds, network.multiply_adds(side).into(), "{config} at {side}");
                assert!(size.largest <= size.activations, "{config}");
            }
        }
    }

    /// Counts by hand: the stem and four convolutions of 64 channels at 32x32, then five convolutions each of
    /// 128 channels at 16x16, of 256 at 8x8 and of 512 at 4x4.
    #[test]
    fn activations_of_the_papers_network() {
        let size = NetworkConfig::from(ResNetConfig::default()).size(32);
        let by_hand = 5 * 64 * 1024 + 5 * 128 * 256 + 5 * 256 * 64 + 5 * 512 * 16;
        assert_eq!((size.activations, size.largest, size.pooled, size.map), (by_hand, 64 * 1024, 512, 4));
    }

    #[test]
    fn no_size_overflows() {
        let config =
            ResNetConfig { width: usize::MAX, embedding: usize::MAX, depth: 50, ..ResNetConfig::default() };
        let NetworkSize { parameters, activations, multiply_adds, .. } =
            NetworkConfig::from(config).size(usize::MAX);
        assert_eq!((parameters, activations, multiply_adds), (u128::MAX, u128::MAX, u128::MAX));
        NetworkConfig::from(InceptionConfig { embedding: usize::MAX, ..InceptionConfig::default() })
            .size(usize::MAX / 2);
        let config =
            VitConfig { width: usize::MAX, depth: usize::MAX, embedding: usize::MAX, ..VitConfig::tiny() };
        let size = NetworkConfig::from(config).size(usize::MAX);
        assert_eq!(
            (size.parameters, size.activations, size.multiply_adds),
            (u128::MAX, u128::MAX, u128::MAX)
        );
        NetworkConfig::from(VitConfig { patch: 0, image: 0, ..VitConfig::tiny() }).size(0);
    }
}
