//! A method before it is built: its name, its settings, its number of views, the memory that it needs.

use std::fmt;
use std::sync::Arc;

use candle_core::Result;
use invaspread_augment::AugmentConfig;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Method, RunFacts};
use crate::settings::{Key, Refusal, Settings, read};

/// The key that names the method; all others are the method's own.
pub(crate) const NAME: &str = "name";

/// A method's settings, and all that the program must know about the method: its entry in the registry.
pub trait MethodSettings: Settings {
    /// The value of `method.name`: letters, digits, `_` and `-`.
    const NAME: &'static str;

    /// The method's name in tables and figures.
    const LABEL: &'static str;

    /// Other names of the method, such as that of the program that it is known from, in small letters. An
    /// error about such a name leads to [`MethodSettings::NAME`].
    const ALSO_CALLED: &'static [&'static str] = &[];

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns a refusal that names the key, what was found and what was expected.
    fn check(&self) -> std::result::Result<(), Refusal> {
        Ok(())
    }

    /// Checks that the settings have an effect in a run of this length. This is called before a run begins:
    /// first without the number of its images, then with it.
    ///
    /// # Errors
    /// Returns a refusal that names the key that would do nothing, what was found and what was expected.
    fn check_length(&self, _length: &RunLength) -> std::result::Result<(), Refusal> {
        Ok(())
    }

    /// Returns the number of views of each image in a batch, at least 1. Rows i, i + B, i + 2 B, ... of the
    /// output are views of one image.
    fn views(&self) -> usize {
        1
    }

    /// Returns the number of those views that pass through the network together, so that a batch norm takes
    /// the statistics of all of them.
    fn views_in_pass(&self) -> usize {
        self.views()
    }

    /// Returns the groups of further views of each image in a batch, such as the small views of multi-crop
    /// ([`AugmentConfig::small_crops`]). `augment` holds the run's own transforms. [`Method::forward`] gets
    /// the views of each group after the first ones, and their rows of the output follow.
    fn more_views(&self, _augment: &AugmentConfig) -> Vec<MoreViews> {
        Vec::new()
    }

    /// Returns whether the loss can run on a GPU, with kernels of its own or as candle's ops. If not, it runs
    /// on the host, from features that each step copies there: see [`invaspread_losses::op`].
    fn has_cuda_loss(&self) -> bool {
        true
    }

    /// Returns whether an epoch begins with the features of all images.
    fn needs_features(&self) -> bool {
        false
    }

    /// Returns whether there is anything to train. If not, the run is one evaluation.
    fn trains(&self) -> bool {
        true
    }

    /// Returns a lower bound of what the method holds in memory at one time beside the network.
    fn memory(&self, _sizes: &Sizes) -> Vec<MethodMemory> {
        Vec::new()
    }

    /// Builds the method in its initial state.
    ///
    /// # Errors
    /// Returns an error if candle fails to make its tensors, or the run is too small for it (more clusters
    /// than images).
    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>>;

    /// Returns settings for a run on a few dozen images. The tests that go over all methods use each of them,
    /// so there should be one for each kind of state that the method can have; `invaspread doctor` uses the
    /// first.
    fn small() -> Vec<Self> {
        vec![Self::default()]
    }
}

/// A group of further views: how many of each image, and how they are made.
#[derive(Debug, Clone, PartialEq)]
pub struct MoreViews {
    /// Views of each image, at least 1.
    pub views: usize,
    /// Their transforms and size.
    pub augment: AugmentConfig,
}

/// The length of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunLength {
    /// Epochs.
    pub epochs: u64,
    /// Images of a batch.
    pub batch_size: usize,
    /// Training images; `None` if they are not known yet.
    pub images: Option<usize>,
}

impl RunLength {
    /// Returns the number of images that the run passes before its last step; `None` if its images are not
    /// known.
    pub fn images_before_last_step(&self) -> Option<u64> {
        let steps = self.epochs.saturating_mul((self.images? / self.batch_size.max(1)) as u64);
        Some(steps.saturating_sub(1).saturating_mul(self.batch_size as u64))
    }
}

/// The sizes of a run on which a method's memory depends.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Rows of a batch: its images times the views of each.
    pub rows: u128,
    /// Images of a batch.
    pub batch: u128,
    /// Lower bound of the number of training images.
    pub images: u128,
    /// Length of an embedding.
    pub dim: u128,
    /// Length of the pooled features.
    pub pooled: u128,
    /// Trained parameters of the network.
    pub parameters: u128,
    /// Copies of the state that a checkpoint is written from, in the memory that is counted: 1 on the CPU; 0
    /// on a GPU, whose state is copied to the host.
    pub copies: u128,
}

impl Sizes {
    /// Returns the numbers that are held for each parameter that the optimizer trains: the parameter, its
    /// gradient and its momentum, and the copies of the parameter and of its momentum.
    pub fn of_trained(&self) -> u128 {
        3 + 2 * self.copies
    }

    /// Returns the numbers that are held for each number of the state that no optimizer trains.
    pub fn of_kept(&self) -> u128 {
        1 + self.copies
    }
}

/// Memory that a method needs for one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodMemory {
    /// Its purpose, such as "noise of a batch".
    pub what: &'static str,
    /// The keys that make it large, in full: `method.noise`, `optim.batch_size`.
    pub keys: Vec<&'static str>,
    /// Numbers in f32.
    pub numbers: u128,
}

impl MethodMemory {
    /// Returns the memory of as many f32 numbers as the product of `factors` says. The product saturates.
    pub fn new(what: &'static str, keys: &[&'static str], factors: &[u128]) -> Self {
        let numbers = factors.iter().fold(1, |numbers: u128, factor| numbers.saturating_mul(*factor));
        Self { what, keys: keys.to_vec(), numbers }
    }

    /// Returns the memory of `copies` vectors for each training image.
    pub fn of_all_images(sizes: &Sizes, copies: u128) -> Self {
        let keys = ["model.embedding", "data.synthetic.train"];
        Self::new("a memory of all training images", &keys, &[copies, sizes.images, sizes.dim])
    }

    /// Returns the memory of a queue of `rows` rows of `dim` numbers, the method's keys `queue` and
    /// `projector_output`, and of the copy that a loss reads.
    pub fn of_queue(sizes: &Sizes, rows: usize, dim: usize) -> Self {
        let keys = ["method.queue", "method.projector_output"];
        Self::new("a queue", &keys, &[sizes.of_kept() + 1, rows as u128, dim as u128])
    }

    /// Returns the memory of the similarities between a batch's images and all of its rows.
    pub fn of_similarities(sizes: &Sizes) -> Self {
        let factors = [sizes.batch, sizes.rows.max(sizes.batch)];
        Self::new("similarities within a batch", &["optim.batch_size"], &factors)
    }
}

/// A method with its settings. Cloning is cheap; two are equal if their names and settings are.
#[derive(Clone)]
pub struct ChosenMethod(Arc<dyn Chosen>);

/// [`MethodSettings`] without its type.
trait Chosen: Send + Sync {
    fn name(&self) -> &'static str;
    fn label(&self) -> &'static str;
    fn keys(&self) -> Vec<Key>;
    fn table(&self) -> toml::Table;
    fn check(&self) -> std::result::Result<(), Refusal>;
    fn check_length(&self, length: &RunLength) -> std::result::Result<(), Refusal>;
    fn views(&self) -> usize;
    fn views_in_pass(&self) -> usize;
    fn more_views(&self, augment: &AugmentConfig) -> Vec<MoreViews>;
    fn has_cuda_loss(&self) -> bool;
    fn needs_features(&self) -> bool;
    fn trains(&self) -> bool;
    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory>;
    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>>;
}

impl<S: MethodSettings> Chosen for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn label(&self) -> &'static str {
        S::LABEL
    }

    fn keys(&self) -> Vec<Key> {
        S::keys()
    }

    fn table(&self) -> toml::Table {
        toml::Table::try_from(self).expect("settings can be written as TOML")
    }

    fn check(&self) -> std::result::Result<(), Refusal> {
        MethodSettings::check(self)
    }

    fn check_length(&self, length: &RunLength) -> std::result::Result<(), Refusal> {
        MethodSettings::check_length(self, length)
    }

    fn views(&self) -> usize {
        MethodSettings::views(self)
    }

    fn views_in_pass(&self) -> usize {
        MethodSettings::views_in_pass(self)
    }

    fn more_views(&self, augment: &AugmentConfig) -> Vec<MoreViews> {
        MethodSettings::more_views(self, augment)
    }

    fn has_cuda_loss(&self) -> bool {
        MethodSettings::has_cuda_loss(self)
    }

    fn needs_features(&self) -> bool {
        MethodSettings::needs_features(self)
    }

    fn trains(&self) -> bool {
        MethodSettings::trains(self)
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        MethodSettings::memory(self, sizes)
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        MethodSettings::build(self, facts)
    }
}

impl ChosenMethod {
    /// Returns the method with these settings.
    pub fn new(settings: impl MethodSettings) -> Self {
        Self(Arc::new(settings))
    }

    /// Reads the method's settings from the values of all its keys.
    pub(super) fn read<S: MethodSettings>(table: &toml::Table) -> std::result::Result<Self, Refusal> {
        read::<S>(table).map(Self::new)
    }

    /// Returns the method's name, the value of `method.name`.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Returns the method's name in tables and figures.
    pub fn label(&self) -> &'static str {
        self.0.label()
    }

    /// Returns the values of its keys that are set.
    pub fn settings(&self) -> toml::Table {
        self.0.table()
    }

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns a refusal that names the key, what was found and what was expected.
    pub fn check(&self) -> std::result::Result<(), Refusal> {
        self.0.check()
    }

    /// Checks that the settings have an effect in a run of this length.
    ///
    /// # Errors
    /// Returns a refusal that names the key that would do nothing, what was found and what was expected.
    pub fn check_length(&self, length: &RunLength) -> std::result::Result<(), Refusal> {
        self.0.check_length(length)
    }

    /// Returns the number of views of each image in a batch that are made by the run's own transforms.
    pub fn views(&self) -> usize {
        self.0.views()
    }

    /// Returns the number of those views that pass through the network together.
    pub fn views_in_pass(&self) -> usize {
        self.0.views_in_pass()
    }

    /// Returns the groups of further views of each image, where `augment` holds the run's own transforms.
    pub fn more_views(&self, augment: &AugmentConfig) -> Vec<MoreViews> {
        self.0.more_views(augment)
    }

    /// Returns whether the loss can run on a GPU; if not, it runs on the host.
    pub fn has_cuda_loss(&self) -> bool {
        self.0.has_cuda_loss()
    }

    /// Returns whether an epoch begins with the features of all images.
    pub fn needs_features(&self) -> bool {
        self.0.needs_features()
    }

    /// Returns whether there is anything to train.
    pub fn trains(&self) -> bool {
        self.0.trains()
    }

    /// Returns a lower bound of what the method holds in memory at one time beside the network.
    pub fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        self.0.memory(sizes)
    }

    /// Builds the method in its initial state.
    ///
    /// # Errors
    /// Returns an error if candle fails to make its tensors, or the run is too small for it (more clusters
    /// than images).
    pub fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        self.0.build(facts)
    }
}

impl PartialEq for ChosenMethod {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.settings() == other.settings()
    }
}

impl fmt::Debug for ChosenMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.settings().to_string().trim_end().replace('\n', ", "))
    }
}

impl Serialize for ChosenMethod {
    /// Writes a table: the name, then the keys that are set, in the order of the settings' fields. A
    /// [`toml::Table`] is not used, because its order depends on how the toml crate was built, and a run's
    /// name is the hash of the written text.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let settings = self.settings();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(NAME, self.name())?;
        for key in self.0.keys() {
            if let Some(value) = settings.get(key.name) {
                map.serialize_entry(key.name, value)?;
            }
        }
        map.end()
    }
}
