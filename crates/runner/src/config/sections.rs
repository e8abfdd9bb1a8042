//! The resolved config: every key that a file or an argument may set, with its type.
//! `experiments/config.toml` explains each.

use super::launcher::{Launcher, LocalSection, SlurmSection};
use super::runs_section::RunsSection;
use super::schema::OUTSIDE_IDENTITY;
use super::{ConfigError, Override};
use crate::engine::{KMeansStart, RetrievalRecipe, When};
use crate::methods::{ChosenMethod, Layer, RunLength};
use crate::settings::Refusal;
use invaspread_augment::{AugmentConfig, AugmentError, RandomBlur, RandomCrop, RandomSolarize, TRANSFORMS};
use invaspread_data::{DataConfig, RetrievalConfig, ShardsConfig, Stl10Config};
use invaspread_losses::KeySide;
use invaspread_tensor::{DeviceKind, Precision};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// All settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of every draw.
    pub seed: u64,
    /// The device that computes.
    #[serde(with = "super::text")]
    pub device: DeviceKind,
    /// The precision of convolutions.
    #[serde(with = "super::text")]
    pub precision: Precision,
    /// What does the runs.
    #[serde(default)]
    pub launcher: Launcher,
    /// The chosen file of each group. These are labels, which only reports read.
    pub groups: Groups,
    /// The images: which, how many, and where they are.
    pub data: DataConfig,
    /// The network.
    pub model: ModelSection,
    /// The objective, with its settings.
    pub method: ChosenMethod,
    /// Views of the training images.
    pub augment: AugmentConfig,
    /// The optimizer and how long it runs.
    pub optim: OptimSection,
    /// The points on which paper, code and figures disagree.
    pub protocol: ProtocolSection,
    /// How results are measured.
    pub eval: EvalSection,
    /// What kind of run this is.
    pub profile: ProfileSection,
    /// Where runs are kept.
    pub runs: RunsSection,
    /// The processes of this machine, if several do the runs.
    #[serde(default, skip_serializing_if = "LocalSection::is_unset")]
    pub local: LocalSection,
    /// What a Slurm cluster is asked for, if it does the runs.
    #[serde(default)]
    pub slurm: SlurmSection,
}

/// The chosen file of each group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// The file of `dataset/`.
    pub dataset: String,
    /// The file of `model/`.
    pub model: String,
    /// The file of `method/`.
    pub method: String,
    /// The file of `augment/`.
    pub augment: String,
    /// The file of `optim/`.
    pub optim: String,
    /// The file of `protocol/`.
    pub protocol: String,
    /// The file of `profile/`.
    pub profile: String,
}

/// The network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Layers of a ResNet: 18, 34 or 50.
    pub depth: usize,
    /// Channels of the first stage.
    pub width: usize,
    /// Length of an embedding.
    pub embedding: usize,
    /// Side of the average pool.
    pub pool: usize,
    /// Whether convolutions may use Winograd's algorithm.
    pub winograd: bool,
    /// The network; a ResNet unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// Whether the network must begin with pretrained weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<bool>,
    /// The file of those weights; in a run's own config, the BLAKE3 hash of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// The stem of a ResNet; CIFAR's unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<StemName>,
    /// Side of a vision transformer's patches; 4 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<usize>,
    /// Channels of an image: 3 unless set, or 1 for gray.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_channels: Option<usize>,
}

/// The depth, width and pool in the config of a network that is no ResNet, which mean nothing: those of the
/// built-in files.
const NO_SIZES: [usize; 3] = [18, 64, 0];
/// The channels of an image unless set: red, green, blue.
const RGB: usize = 3;
/// The side of a patch unless one is set: for images of 32 pixels.
const DEFAULT_PATCH: usize = 4;

impl ModelSection {
    /// Returns whether the network is a vision transformer.
    pub(super) fn is_vit(&self) -> bool {
        matches!(self.architecture, Some(Architecture::VitTiny | Architecture::VitSmall))
    }

    /// Returns the side of a vision transformer's patches.
    pub(super) fn patch(&self) -> usize {
        self.patch.unwrap_or(DEFAULT_PATCH)
    }

    /// Returns the channels of an image.
    pub(super) fn channels(&self) -> usize {
        self.input_channels.unwrap_or(RGB)
    }

    /// Returns the keys of a ResNet that have another value than in the file of the chosen network, which is no
    /// ResNet and does not use them.
    fn not_used(&self) -> Vec<&'static str> {
        if self.architecture.unwrap_or_default() == Architecture::Resnet {
            return Vec::new();
        }
        let [depth, width, pool] = NO_SIZES;
        let differs = [
            ("model.depth", self.depth != depth),
            ("model.width", self.width != width),
            ("model.pool", self.pool != pool),
            ("model.stem", self.stem.is_some_and(|stem| stem != StemName::default())),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Returns the section as it stands in a run's identity: without a value that says what holds without it,
    /// and, for a vision transformer, without the sizes that only residual networks have. A profile sets such a
    /// size for every network.
    pub(super) fn for_identity(&self) -> Self {
        let mut own = self.clone();
        own.input_channels = own.input_channels.filter(|&channels| channels != RGB);
        if self.is_vit() {
            let [depth, width, pool] = NO_SIZES;
            own = Self { depth, width, pool, stem: None, patch: Some(self.patch()), ..own };
        }
        own
    }
}

/// The prefix of the hash that replaces the path of a file of weights in a run's own config.
pub(super) const CONTENT: &str = "blake3:";

/// Returns whether `path` is the hash of a file's content and not a path.
pub(super) fn is_content(path: &Path) -> bool {
    path.to_string_lossy().starts_with(CONTENT)
}

/// The networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// ResNet-18, -34 or -50.
    #[default]
    Resnet,
    /// BVLC's GoogLeNet.
    InceptionV1,
    /// ViT-Tiny.
    VitTiny,
    /// ViT-Small.
    VitSmall,
}

/// The part of a ResNet before its first residual block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StemName {
    /// A 3x3 convolution.
    #[default]
    Cifar,
    /// A 7x7 convolution of stride 2 and a pool.
    Imagenet,
}

/// The optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimSection {
    /// Learning rate before warm-up and schedule change it.
    pub lr: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay, on all parameters.
    pub weight_decay: f64,
    /// Number of epochs.
    pub epochs: u64,
    /// Images in a batch; a method with two views has twice as many rows.
    pub batch_size: usize,
    /// The optimizer; SGD with momentum unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerName>,
    /// LARS: length of a layer's step divided by the length of the layer's weights, at a learning rate of 1;
    /// 0.001 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_coefficient: Option<f64>,
    /// Part of the run over which the learning rate rises linearly from step to step; none unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<f64>,
}

/// The optimizers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// SGD with momentum; weight decay on all parameters.
    #[default]
    Sgd,
    /// LARS; biases and the parameters of batch norms are neither adapted nor decayed.
    Lars,
}

/// The learning-rate schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScheduleName {
    /// The released code today: x0.1, then x0.05, then x0.01 from the end on.
    #[serde(rename = "code")]
    Code,
    /// The released code when the paper appeared: x0.1 to the end.
    #[serde(rename = "code-2019-04")]
    Code201904,
    /// The paper: x0.1, then x0.01.
    #[serde(rename = "paper")]
    Paper,
    /// No change.
    #[serde(rename = "constant")]
    Constant,
    /// Half a cosine from step to step, from the learning rate after the warm-up to 0 at the end.
    #[serde(rename = "cosine")]
    Cosine,
}

/// The release of PyTorch whose defaults the initial weights follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Initial {
    /// PyTorch 0.4's: batch-norm gain uniform in [0, 1).
    #[serde(rename = "pytorch-0.4")]
    Pytorch04,
    /// Today's: batch-norm gain 1.
    #[serde(rename = "current")]
    Current,
}

/// The switches that REPRODUCING.md explains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolSection {
    /// The learning-rate schedule.
    pub schedule: ScheduleName,
    /// Where the learning rate changes, as fractions of the run.
    pub milestones: [f64; 2],
    /// Whether gradients flow through the second factor of inner products among a batch's own embeddings.
    pub key_side: KeySide,
    /// Number of views whose batch-norm statistics are taken together; 0 for the whole batch.
    pub batch_norm_chunk: usize,
    /// The distribution of the initial weights.
    pub initialiser: Initial,
}

/// How results are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    /// Neighbors that vote.
    pub k: usize,
    /// Temperature of the votes.
    pub temperature: f64,
    /// Number of epochs between two measurements.
    pub every: u64,
    /// The output of the network that is measured: embedding, projection (the embedding before it is
    /// normalized) or pooled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
    /// When a linear classifier (SVM) is measured beside kNN: never, last, every.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear: Option<When>,
    /// Retrieval metrics (R@K, NMI and others), for test classes that training never saw. Set by the data
    /// sets that are measured in this way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<RetrievalRecipe>,
}

/// What kind of run this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileSection {
    /// Whether a run has fewer images, fewer channels or fewer epochs than the paper's.
    pub reduced: bool,
}

impl Config {
    /// Checks the ranges of the values, and that they fit together. `origin` tells where a key's value came
    /// from.
    pub(super) fn check(&self, origin: impl Fn(&str) -> String) -> Result<(), ConfigError> {
        let wrong = |key: &str, found: String, expected: &str| {
            Err(ConfigError::Value { key: key.into(), origin: origin(key), found, expected: expected.into() })
        };
        if self.launcher == Launcher::Slurm && self.device == DeviceKind::Auto {
            let expected = "cpu or cuda where launcher is slurm: a run belongs to its device, and this machine does not see the \
                            devices of the nodes";
            return wrong("device", self.device.to_string(), expected);
        }
        // A program that was built without CUDA cannot use a GPU on any machine.
        let must_be_here = self.launcher.computes_here() || !cfg!(feature = "cuda");
        if must_be_here && let Some(why) = self.device.why_not() {
            let others = if DeviceKind::gpus() > 0 { "one that is there" } else { "auto or cpu" };
            return wrong("device", self.device.to_string(), &format!("{others}: {why}"));
        }
        if self.precision == Precision::Tf32 && !self.device.is_cuda() {
            return wrong("precision", self.precision.to_string(), "f32 or bf16: tf32 is for device=cuda");
        }
        if self.model.is_vit() && self.precision != Precision::F32 {
            let expected = "f32: a vision transformer computes in f32 only";
            return wrong("precision", self.precision.to_string(), expected);
        }
        if let Some(key) =
            self.model.not_used().into_iter().find(|key| origin(key).starts_with(Override::TYPED))
        {
            let network = if self.model.is_vit() { "a vision transformer" } else { "Inception-v1" };
            let found = format!("a value, where model.architecture is {network}");
            return wrong(key, found, "no such argument: only residual networks have this setting");
        }
        if let Some(key) = self
            .data
            .not_used()
            .map(|key| format!("data.{key}"))
            .find(|key| origin(key).starts_with(Override::TYPED))
        {
            let found = format!("a value, where the data set is {}", self.data.name);
            let expected = "no such argument, or beside it dataset=NAME of the set that has this setting";
            return wrong(&key, found, expected);
        }
        if self.model.patch.is_some() && !self.model.is_vit() {
            let found = "a value, where model.architecture is no vision transformer".to_owned();
            return wrong("model.patch", found, "model=vit_tiny or model=vit_small beside it, or null");
        }
        if ![1, 3].contains(&self.model.channels()) {
            let expected = "3 (red, green, blue) or 1 (gray), the channels that images are read with";
            return wrong("model.input_channels", self.model.channels().to_string(), expected);
        }
        if ![18, 34, 50].contains(&self.model.depth) {
            return wrong("model.depth", self.model.depth.to_string(), "18, 34 or 50");
        }
        let weights = self.model.weights.as_ref().filter(|path| !is_content(path));
        if let Some(path) = weights
            && !path.is_file()
        {
            let expected = "a .safetensors, .pth, .pt, .caffemodel or .h5 file that is there";
            return wrong("model.weights", path.display().to_string(), expected);
        }
        if self.model.pretrained == Some(true) && self.model.weights.is_none() {
            return wrong(
                "model.pretrained",
                "true, but no model.weights".into(),
                "model.weights=FILE, the network's ImageNet weights (or model.pretrained=false: from scratch)",
            );
        }
        let counts = [
            ("model.width", self.model.width),
            ("model.embedding", self.model.embedding),
            ("model.patch", self.model.patch()),
            ("eval.k", self.eval.k),
            ("eval.every", self.eval.every as usize),
        ];
        for (key, value) in counts {
            if value == 0 {
                return wrong(key, "0".into(), "at least 1");
            }
        }
        if self.optim.batch_size < 2 {
            return wrong("optim.batch_size", self.optim.batch_size.to_string(), "at least 2 images");
        }
        if let Err(Refusal { key, found, expected }) = self.method.check() {
            return wrong(&format!("method.{key}"), found, &expected);
        }
        if let Some(retrieval) = &self.eval.retrieval {
            let RetrievalRecipe { recall_at, kmeans_restarts, kmeans_iterations, .. } = retrieval;
            if recall_at.is_empty() || recall_at.contains(&0) {
                return wrong("eval.retrieval.recall_at", format!("{recall_at:?}"), "numbers of at least 1");
            }
            if (1..recall_at.len()).any(|place| recall_at[..place].contains(&recall_at[place])) {
                return wrong("eval.retrieval.recall_at", format!("{recall_at:?}"), "each number once");
            }
            if *kmeans_restarts == 0 {
                return wrong("eval.retrieval.kmeans_restarts", "0".into(), "at least 1");
            }
            if *kmeans_iterations == Some(0) {
                return wrong("eval.retrieval.kmeans_iterations", "0".into(), "at least 1");
            }
        }
        let positive = [("optim.lr", self.optim.lr), ("eval.temperature", self.eval.temperature)];
        for (key, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return wrong(key, value.to_string(), "a number above 0");
            }
        }
        if !(0.0..1.0).contains(&self.optim.momentum) {
            return wrong("optim.momentum", self.optim.momentum.to_string(), "a number from 0 to below 1");
        }
        if !(0.0..=1.0).contains(&self.optim.weight_decay) {
            return wrong("optim.weight_decay", self.optim.weight_decay.to_string(), "a number from 0 to 1");
        }
        if let Some(trust) = self.optim.trust_coefficient
            && !(trust.is_finite() && trust > 0.0)
        {
            return wrong("optim.trust_coefficient", trust.to_string(), "a number above 0");
        }
        for (launcher, name, keys) in
            [(Launcher::Local, "local", "local."), (Launcher::Slurm, "slurm", "slurm.")]
        {
            let is_typed = |key: &&str| key.starts_with(keys) && origin(key).starts_with(Override::TYPED);
            if self.launcher != launcher
                && let Some(key) = OUTSIDE_IDENTITY.into_iter().find(is_typed)
            {
                let found = format!("a value, where launcher is not {name}");
                return wrong(key, found, &format!("launcher={name} beside it, or no such argument"));
            }
        }
        if let Err((key, found, expected)) =
            self.local.check().and_then(|()| self.slurm.check()).and_then(|()| self.runs.check())
        {
            return wrong(key, found, &expected);
        }
        if self.optim.trust_coefficient.is_some() && self.optim.optimizer != Some(OptimizerName::Lars) {
            let found = "a value, where optim.optimizer is sgd".to_owned();
            return wrong("optim.trust_coefficient", found, "optim.optimizer=lars beside it, or null");
        }
        if let Some(warmup) = self.optim.warmup
            && !(0.0..1.0).contains(&warmup)
        {
            return wrong("optim.warmup", warmup.to_string(), "a part of the run, from 0 to below 1");
        }
        let [first, second] = self.protocol.milestones;
        if !(0.0 < first && first <= second && second <= 1.0) {
            return wrong(
                "protocol.milestones",
                format!("{first}, {second}"),
                "two rising parts of the run, from 0 to 1",
            );
        }
        if let Err((key, found, expected)) = self.check_steps() {
            return wrong(key, found, &expected);
        }
        let more_views = self.method.more_views(&self.augment);
        let chunk = self.protocol.batch_norm_chunk;
        // Each group of views is a pass of its own.
        let in_pass = self.method.views_in_pass();
        for views in std::iter::once(in_pass).chain(more_views.iter().map(|group| group.views)) {
            let rows = self.optim.batch_size as u128 * views as u128;
            if chunk == 1 || (chunk > 1 && !rows.is_multiple_of(chunk as u128)) {
                return wrong(
                    "protocol.batch_norm_chunk",
                    chunk.to_string(),
                    &format!("0, or a divisor above 1 of the {rows} views of a pass"),
                );
            }
        }
        let of_method = more_views.iter().map(|group| &group.augment);
        for (own, augment) in
            std::iter::once((true, &self.augment)).chain(of_method.map(|other| (false, other)))
        {
            let key = |name: &str| if own { format!("augment{name}") } else { "method".to_owned() };
            match augment.check() {
                Ok(()) => {}
                Err(AugmentError::UnknownTransform { found }) => {
                    let expected = format!("names of transforms: {}", TRANSFORMS.join(", "));
                    return wrong(&key(".without"), format!("{found:?}"), &expected);
                }
                Err(AugmentError::OutOfRange { key: name, found, expected }) if own => {
                    return wrong(&key(&format!(".{name}")), found, expected);
                }
                Err(other) => return wrong(&key(""), other.to_string(), "settings that fit together"),
            }
            let (channels, means) = (self.model.channels(), augment.normalize.mean.len());
            if channels != means {
                let expected = format!(
                    "{channels}, and as many in augment.normalize.std: one for each channel that the network takes \
                    (model.input_channels={channels})"
                );
                let found = format!("{means} in {:?}", augment.normalize.mean);
                return wrong("augment.normalize.mean", found, &expected);
            }
        }
        Ok(())
    }

    /// Checks that all settings of a run that is to be trained have an effect. The weights of a run whose
    /// settings had none are still measured and exported.
    pub(super) fn has_effect(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, found: String, expected: &str| {
            Err(ConfigError::Value {
                key: key.to_owned(),
                origin: "the config".to_owned(),
                found,
                expected: expected.to_owned(),
            })
        };
        let length = RunLength { epochs: self.optim.epochs, batch_size: self.optim.batch_size, images: None };
        if let Err(Refusal { key, found, expected }) = self.method.check_length(&length) {
            return wrong(&format!("method.{key}"), found, &expected);
        }
        // The method's views of their own part of the image take it by the resized crop.
        let more_views = self.method.more_views(&self.augment);
        let is_ignored = |other: &AugmentConfig| {
            other.resized_crop != self.augment.resized_crop && !other.uses("resized_crop")
        };
        if more_views.iter().any(|group| is_ignored(&group.augment)) {
            let (key, found) = if self.augment.none {
                ("augment.none", "true".to_owned())
            } else {
                ("augment.without", format!("{:?}", self.augment.without))
            };
            let expected = "transforms with resized_crop, by which the method's small views take their part of the \
                            image, or no small views";
            return wrong(key, found, expected);
        }
        Ok(())
    }

    /// Returns this config with every optional value set, so that all keys are in it.
    pub(super) fn with_every_key(mut self) -> Self {
        self.data.root = Some(PathBuf::new());
        self.data.subset = Some(0);
        self.data.test_subset = Some(0);
        self.data.held_out = Some(true);
        self.data.cache = Some(PathBuf::new());
        self.data.skip_broken = Some(false);
        self.data.partial = Some(false);
        self.data.manifest = Some(String::new());
        self.data.stl10 = Some(Stl10Config::default());
        self.data.retrieval = Some(RetrievalConfig::default());
        self.data.folder.path = Some(PathBuf::new());
        let shards = || {
            let path = Some(PathBuf::new());
            Some(ShardsConfig {
                path: path.clone(),
                train: path.clone(),
                test: path,
                ..ShardsConfig::default()
            })
        };
        (self.data.webdataset, self.data.parquet) = (shards(), shards());
        self.model.architecture = Some(Architecture::default());
        self.model.pretrained = Some(false);
        self.model.weights = Some(PathBuf::new());
        self.model.stem = Some(StemName::default());
        self.model.patch = Some(0);
        self.model.input_channels = Some(0);
        self.optim.optimizer = Some(OptimizerName::default());
        self.optim.trust_coefficient = Some(0.0);
        self.optim.warmup = Some(0.0);
        self.eval.layer = Some(Layer::default());
        self.eval.linear = Some(When::Never);
        self.eval.retrieval = Some(RetrievalRecipe {
            kmeans_iterations: Some(0),
            kmeans_start: Some(KMeansStart::default()),
            ..RetrievalRecipe::default()
        });
        self.runs.checkpoint_seconds = Some(0.0);
        self.runs.lease_seconds = Some(0.0);
        self.local = LocalSection::with_every_key();
        self.slurm = SlurmSection::with_every_key();
        self.augment.squash = Some(0);
        self.augment.crop = Some(RandomCrop::default());
        self.augment.blur = Some(RandomBlur::default());
        self.augment.solarize = Some(RandomSolarize::default());
        // The kind of a list is that of its first value.
        self.augment.without = vec![String::new()];
        self
    }
}
