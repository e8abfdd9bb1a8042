//! A tiny set of images and a tiny run for the tests of the engine.

#![allow(dead_code, reason = "each test file uses its part")]

mod momentum_contrast;
mod stop_after;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use invaspread_augment::{AugmentConfig, Image, ImageSource, SourceError, SourceImage};
use invaspread_losses::KeySide;
use invaspread_models::ResNetConfig;
use invaspread_random::{Purpose, Stream};
use invaspread_runner::checkpoint::CheckpointFiles;
use invaspread_runner::engine::{Images, Labeled, Recipe, RetrievalRecipe, RunPlace, Schedule, When};
use invaspread_runner::methods::{self, ChosenMethod, Layer, Registry};
use invaspread_tensor::{DeviceKind, OptimizerConfig, SgdConfig};
use momentum_contrast::MomentumContrastSettings;

#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use stop_after::StopAfter;

pub(crate) const SIDE: usize = 16;
pub(crate) const TRAIN: usize = 45;

/// Images of stripes in random colors, whose slope is the class.
pub(crate) struct Stripes {
    images: Vec<Image>,
}

impl Stripes {
    pub(crate) fn new(first: usize, count: usize) -> Self {
        let images = (first..first + count)
            .map(|i| {
                let mut stream = Stream::new(5, Purpose::Synthetic, 0, i as u64);
                let colors: Vec<u8> = (0..6).map(|_| stream.below(256) as u8).collect();
                let shift = stream.below(8);
                let pixel = |at: usize| {
                    let (x, y, channel) = (at / 3 % SIDE, at / 3 / SIDE, at % 3);
                    colors[(x + y * (i % 3) + shift) / 3 % 2 * 3 + channel]
                };
                Image::new(SIDE, SIDE, (0..SIDE * SIDE * 3).map(pixel).collect())
            })
            .collect();
        Self { images }
    }
}

impl ImageSource for Stripes {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        Ok(self.images[index].as_ref().into())
    }
}

pub(crate) fn images() -> Images {
    let labeled = |first: usize, count: usize| Labeled {
        images: Arc::new(Stripes::new(first, count)),
        labels: (first..first + count).map(|i| (i % 3) as u32).collect(),
    };
    Images {
        name: "stripes".to_owned(),
        train: Arc::new(Stripes::new(0, TRAIN)),
        gallery: Some(labeled(0, TRAIN)),
        test: labeled(TRAIN, 18),
        classes: 3,
        groupings: Arc::new([]),
    }
}

/// Returns a network of the given width for the stripes.
pub(crate) fn small(width: usize) -> ResNetConfig {
    ResNetConfig { width, embedding: 16, pool: SIDE / 8, ..ResNetConfig::default() }
}

pub(crate) fn recipe(method: ChosenMethod) -> Recipe {
    Recipe {
        seed: 3,
        device: DeviceKind::Cpu,
        method,
        key_side: KeySide::Detached,
        network: small(8).into(),
        weights: None,
        augment: AugmentConfig { size: SIDE, ..AugmentConfig::default() },
        epochs: 3,
        batch_size: 8,
        schedule: Schedule::by_factors(0.03, vec![(2, 0.1)]),
        optimizer: OptimizerConfig::Sgd(SgdConfig { momentum: 0.9, weight_decay: 5e-4 }),
        evaluate_every: 1,
        layer: Layer::Embedding,
        neighbors: 10,
        vote_temperature: 0.1,
        linear: When::Never,
        retrieval: RetrievalRecipe::default(),
        retrieval_beside_knn: false,
        checkpoint_every: Duration::ZERO,
    }
}

/// Returns every method of the registry with each of its settings for few images, and a name for each.
pub(crate) fn methods() -> Vec<(String, ChosenMethod)> {
    let named =
        |(place, method): (usize, &ChosenMethod)| (format!("{}_{place}", method.name()), method.clone());
    let all = registry().entries().iter();
    all.flat_map(|entry| entry.small().iter().enumerate().map(named)).collect()
}

/// Returns the registry of the built-in methods and the tests' own.
pub(crate) fn registry() -> &'static Registry {
    // Only the first call installs it.
    let _ = Registry::built_in().with::<MomentumContrastSettings>().install();
    Registry::installed()
}

pub(crate) fn random() -> ChosenMethod {
    ChosenMethod::new(methods::random::Settings::default())
}

pub(crate) fn invaspread() -> ChosenMethod {
    ChosenMethod::new(methods::invaspread::Settings::default())
}

pub(crate) fn nce(noise: usize) -> ChosenMethod {
    ChosenMethod::new(methods::nce::Settings { noise, ..methods::nce::Settings::default() })
}

pub(crate) fn place(folder: &Path) -> RunPlace {
    std::fs::create_dir_all(folder.join("checkpoints")).unwrap();
    RunPlace {
        id: "abc-s3".to_owned(),
        title: "test".to_owned(),
        folder: folder.to_owned(),
        checkpoints: CheckpointFiles::of(folder),
    }
}
