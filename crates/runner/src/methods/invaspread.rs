//! InvaSpread, the paper's method: each of the two views of an image is recognized among all views of the
//! batch (sections 3.1 to 3.3).
//!
//! With [`Positives::NearestNeighbor`] (the paper's CUB-200 recipe, section 4.2, and the released code's
//! `demo_unseen.py`) the second view of image i shows image i itself or its nearest neighbor by unit pooled
//! features, with probability one half each, drawn anew in each epoch. This choice is the method's only
//! state.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};
use invaspread_losses::{InvaSpread, Negatives};
use invaspread_metrics::{MetricError, Rows, l2_normalize_rows, top_k_on};
use invaspread_models::Output;
use invaspread_random::{Purpose, Stream};
use serde::{Deserialize, Serialize};

use super::state::{nothing_left, take};
use super::{Features, Layer, Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step};
use crate::checkpoint::NamedTensors;
use crate::settings::{Kind, Refusal, SettingType, temperature};

const SECOND_IMAGES: &str = "second_images";

/// The image that the second view of an image shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positives {
    /// The image itself.
    #[default]
    Itself,
    /// The image itself or its nearest neighbor, with probability one half each.
    NearestNeighbor,
}

impl SettingType for Positives {
    fn kind() -> Kind {
        Kind::Word
    }
}

impl SettingType for Negatives {
    fn kind() -> Kind {
        Kind::Word
    }
}

crate::settings! {
    /// Settings of InvaSpread. Whether gradients flow through the key side is `protocol.key_side`, as paper
    /// and code disagree on it.
    pub struct Settings {
        /// Temperature of the softmax, at least 0.01.
        temperature: f64 = 0.1,
        /// Weight m of the negatives (`--batch-m` of the released code), at least 1.
        negative_weight: f64 = 1.0,
        /// Which negatives count: all, hardest_half or easiest_half (Table 8).
        negatives: Negatives = Negatives::All,
        /// The image that the second view of an image shows: itself, or nearest_neighbor (the image or its
        /// nearest neighbor, with probability one half each: the paper's recipe for CUB-200).
        positives: Positives = Positives::Itself,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "invaspread";
    const LABEL: &'static str = "InvaSpread";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        let weight = self.negative_weight;
        let is_good = weight >= 1.0 && weight.is_finite();
        Refusal::unless(is_good, "negative_weight", weight, "a number of at least 1")
    }

    fn views(&self) -> usize {
        2
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        vec![MethodMemory::of_similarities(sizes)]
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let loss = InvaSpread {
            temperature: self.temperature,
            negative_weight: self.negative_weight,
            key_side: facts.key_side,
            negatives: self.negatives,
        };
        Ok(Box::new(InvaSpreadMethod::new(facts, loss, self.positives)))
    }

    fn small() -> Vec<Self> {
        vec![Self::default(), Self { positives: Positives::NearestNeighbor, ..Self::default() }]
    }
}

/// The paper's method.
#[derive(Debug)]
struct InvaSpreadMethod {
    facts: RunFacts,
    loss: InvaSpread,
    positives: Positives,
    /// The image that each image's second view shows; empty if that is always the image itself, and before
    /// the first epoch.
    second_images: Vec<u32>,
}

impl InvaSpreadMethod {
    fn new(facts: RunFacts, loss: InvaSpread, positives: Positives) -> Self {
        Self { facts, loss, positives, second_images: Vec::new() }
    }

    fn choose(&self, epoch: u64, features: Features) -> std::result::Result<Vec<u32>, MetricError> {
        let Features { mut values, dim } = features;
        l2_normalize_rows(&mut values, dim);
        let rows = Rows::new(&values, dim);
        let nearest = top_k_on(self.facts.device, rows, rows, 1, true)?;
        let choose = |image: u32| {
            let mut stream = Stream::new(self.facts.seed, Purpose::Positive, epoch, image.into());
            // A single image has no neighbor.
            let (nearest, _) = nearest.of(image as usize);
            if stream.below(2) == 0 { image } else { nearest.first().copied().unwrap_or(image) }
        };
        Ok((0..rows.len() as u32).map(choose).collect())
    }
}

impl Method for InvaSpreadMethod {
    fn begin_epoch(&mut self, epoch: u64, features: &mut dyn FnMut(Layer) -> Result<Features>) -> Result<()> {
        if self.positives == Positives::NearestNeighbor {
            let features = features(Layer::Pooled)?;
            self.second_images = self.choose(epoch, features).map_err(candle_core::Error::wrap)?;
        }
        Ok(())
    }

    fn second_images(&self) -> Option<&[u32]> {
        (!self.second_images.is_empty()).then_some(&self.second_images)
    }

    fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        self.loss.loss(&output.embedding)
    }

    fn steps_repeat(&self) -> bool {
        true
    }

    fn state(&self) -> Result<NamedTensors> {
        let chosen = self.second_images();
        let chosen = chosen.map(|chosen| Ok((SECOND_IMAGES.to_owned(), Tensor::new(chosen, &Device::Cpu)?)));
        chosen.into_iter().collect()
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        if self.positives == Positives::NearestNeighbor && state.contains_key(SECOND_IMAGES) {
            self.second_images = take(&mut state, SECOND_IMAGES, &[self.facts.images])?.to_vec1::<u32>()?;
        }
        nothing_left(&state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{InvaSpreadMethod, Positives};
    use crate::methods::{Features, Layer, Method, RunFacts};
    use invaspread_losses::{InvaSpread, KeySide};
    use invaspread_tensor::DeviceKind;

    #[test]
    fn second_images_are_the_image_or_its_nearest_half_and_half() {
        let facts = RunFacts {
            images: 400,
            dim: 8,
            pooled: 64,
            seed: 3,
            epochs: 2,
            batch_size: 8,
            weight_decay: 0.0,
            device: DeviceKind::Cpu,
            key_side: KeySide::Detached,
        };
        let new = || InvaSpreadMethod::new(facts, InvaSpread::default(), Positives::NearestNeighbor);
        // The rows of a pair (0 with 1, 2 with 3, ...) are nearest to each other in angle; lengths differ.
        let mut features = |layer: Layer| {
            assert_eq!(layer, Layer::Pooled);
            let row = |i: u32| {
                let angle = (i / 2) as f32 * 0.01 + (i % 2) as f32 * 0.001;
                let length = 1.0 + i as f32;
                [length * angle.cos(), length * angle.sin()]
            };
            Ok(Features { values: (0..400).flat_map(row).collect(), dim: 2 })
        };
        let mut method = new();
        assert_eq!(method.second_images(), None);
        let mut chosen = Vec::new();
        for epoch in 1..=2 {
            method.begin_epoch(epoch, &mut features).unwrap();
            let second = method.second_images().unwrap().to_vec();
            let itself = (0..400).filter(|&i| second[i as usize] == i).count();
            assert!((150..250).contains(&itself), "{itself} of 400");
            assert!((0..400).all(|i| [i, i ^ 1].contains(&second[i as usize])));
            chosen.push(second);
        }
        assert_ne!(chosen[0], chosen[1]);
        let mut resumed = new();
        resumed.load_state(method.state().unwrap().into_iter().collect()).unwrap();
        assert_eq!(resumed.second_images(), Some(&chosen[1][..]));
    }
}
