//! From a config to a run that the launcher can start.

use super::identity::hash_of;
use super::sections::{Architecture, OptimSection, OptimizerName, StemName};
use super::{Config, ConfigError, Initial, ScheduleName};
use crate::engine::{Fall, Recipe, Schedule, When};
use crate::launch::{Labels, Planned};
use crate::record::RunDirectory;
use invaspread_data::DataConfig;
use invaspread_models::{InceptionConfig, NetworkConfig, ResNetConfig, Stem, VitConfig};
use invaspread_tensor::initialize::Defaults;
use invaspread_tensor::{Algorithm, LarsConfig, OptimizerConfig, SgdConfig};
use std::time::Duration;

/// The trust coefficient of LARS unless one is set.
const DEFAULT_TRUST: f64 = 1e-3;

/// Seconds between the checkpoints of a run on a GPU, unless they are set.
const CHECKPOINT_SECONDS_ON_GPU: f64 = 60.0;

impl Config {
    /// Returns the run that this config describes, as a part of `suite` or as a single run, with the names in
    /// `labels`.
    ///
    /// # Errors
    /// Returns an error if the config cannot be written as TOML.
    pub(super) fn plan(&self, suite: Option<&str>, labels: Labels) -> Result<Planned, ConfigError> {
        let manifest = self.manifest()?;
        let config = self.identity_of(manifest.clone())?;
        Ok(Planned {
            suite: suite.map(str::to_owned),
            recipe: self.recipe(),
            data: DataConfig { manifest, ..self.data.clone() },
            hash: hash_of(&config),
            config: config.into(),
            labels,
            lease: self.runs.lease_seconds.map_or(RunDirectory::LEASE, Duration::from_secs_f64),
            request: None,
        })
    }

    /// Returns the recipe that the engine needs.
    pub fn recipe(&self) -> Recipe {
        Recipe {
            seed: self.seed,
            device: self.device.resolve(),
            method: self.method.clone(),
            key_side: self.protocol.key_side,
            network: self.network(),
            weights: self.model.weights.clone(),
            augment: self.augment.clone(),
            epochs: self.optim.epochs,
            batch_size: self.optim.batch_size,
            schedule: self.schedule(),
            optimizer: self.optimizer(),
            evaluate_every: self.eval.every,
            layer: self.eval.layer.unwrap_or_default(),
            neighbors: self.eval.k,
            vote_temperature: self.eval.temperature,
            linear: self.eval.linear.unwrap_or(When::Never),
            retrieval: self.eval.retrieval.clone().unwrap_or_default(),
            retrieval_beside_knn: self.eval.retrieval.is_some(),
            checkpoint_every: self.checkpoint_every(),
        }
    }

    /// Returns the time between checkpoints. The default depends on the device: on the CPU an epoch takes far
    /// longer than its checkpoint, but on a GPU it may take less time.
    fn checkpoint_every(&self) -> Duration {
        let unset = if self.device.is_cuda() { CHECKPOINT_SECONDS_ON_GPU } else { 0.0 };
        let seconds = self.runs.checkpoint_seconds.unwrap_or(unset);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn network(&self) -> NetworkConfig {
        let model = &self.model;
        let embedding = model.embedding;
        let algorithm = if model.winograd { Algorithm::Fastest } else { Algorithm::Direct };
        let precision = self.precision;
        let channels = model.channels();
        let of_image = |size: VitConfig| {
            let (image, patch) = (self.augment.size, model.patch());
            VitConfig { image, patch, channels, embedding, ..size }.into()
        };
        match model.architecture.unwrap_or_default() {
            Architecture::Resnet => ResNetConfig {
                depth: model.depth,
                stem: match model.stem.unwrap_or_default() {
                    StemName::Cifar => Stem::Cifar,
                    StemName::Imagenet => Stem::Imagenet,
                },
                width: model.width,
                channels,
                embedding,
                pool: model.pool,
                batch_norm_chunk: self.protocol.batch_norm_chunk,
                initial: match self.protocol.initialiser {
                    Initial::Pytorch04 => Defaults::Pytorch04,
                    Initial::Current => Defaults::Current,
                },
                algorithm,
                precision,
                ..ResNetConfig::default()
            }
            .into(),
            Architecture::InceptionV1 => {
                InceptionConfig { channels, embedding, algorithm, precision, ..InceptionConfig::default() }
                    .into()
            }
            Architecture::VitTiny => of_image(VitConfig::tiny()),
            Architecture::VitSmall => of_image(VitConfig::small()),
        }
    }

    /// Returns the learning-rate schedule. The milestones are fractions of the run, so that a reduced run
    /// keeps the shape of the schedule.
    fn schedule(&self) -> Schedule {
        let epochs = self.optim.epochs;
        let warmup = self.optim.warmup.unwrap_or_default() * epochs as f64;
        let [first, second] = self.protocol.milestones.map(|part| (part * epochs as f64).round() as u64);
        let factors = match self.protocol.schedule {
            ScheduleName::Code => vec![(first, 0.1), (second, 0.05), (epochs, 0.01)],
            ScheduleName::Code201904 => vec![(first, 0.1)],
            ScheduleName::Paper => vec![(first, 0.1), (second, 0.01)],
            ScheduleName::Constant => Vec::new(),
            ScheduleName::Cosine => {
                return Schedule { base: self.optim.lr, warmup, fall: Fall::Cosine { epochs } };
            }
        };
        Schedule { warmup, ..Schedule::by_factors(self.optim.lr, factors) }
    }

    fn optimizer(&self) -> OptimizerConfig {
        let OptimSection { momentum, weight_decay, .. } = self.optim;
        match self.optim.optimizer.unwrap_or_default() {
            OptimizerName::Sgd => OptimizerConfig::Sgd(SgdConfig { momentum, weight_decay }),
            OptimizerName::Lars => OptimizerConfig::Lars(LarsConfig {
                momentum,
                weight_decay,
                trust_coefficient: self.optim.trust_coefficient.unwrap_or(DEFAULT_TRUST),
            }),
        }
    }
}
