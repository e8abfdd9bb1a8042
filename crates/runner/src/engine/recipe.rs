//! The recipe of a run: all settings that the engine needs, resolved, without where they came from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use invaspread_augment::{AugmentConfig, AugmentError, Pipeline, ViewGroup};
use invaspread_losses::KeySide;
use invaspread_models::NetworkConfig;
use invaspread_tensor::{DeviceKind, LarsConfig, OptimizerConfig, SgdConfig};

use super::{RetrievalRecipe, When};
use crate::methods::{ChosenMethod, Layer, MoreViews};

/// A run, as the engine needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Seed of every draw.
    pub seed: u64,
    /// The device that computes the run.
    pub device: DeviceKind,
    /// The objective, with its settings.
    pub method: ChosenMethod,
    /// Whether gradients flow through the second factor of inner products among a batch's own embeddings.
    pub key_side: KeySide,
    /// The network.
    pub network: NetworkConfig,
    /// The file of weights to begin with; `None` for randomly drawn weights.
    pub weights: Option<PathBuf>,
    /// The transforms of views and of test images.
    pub augment: AugmentConfig,
    /// Epochs to train.
    pub epochs: u64,
    /// Images in a batch (with two views each, twice as many rows).
    pub batch_size: usize,
    /// Learning rates.
    pub schedule: Schedule,
    /// The optimizer, for the network and the heads.
    pub optimizer: OptimizerConfig,
    /// The number of epochs from one evaluation to the next. The run is also evaluated before training and
    /// after the last epoch.
    pub evaluate_every: u64,
    /// The output that is measured, as unit rows.
    pub layer: Layer,
    /// Neighbors that vote.
    pub neighbors: usize,
    /// Temperature of their votes.
    pub vote_temperature: f64,
    /// When a linear classifier is learned on the gallery's embeddings, if there is a gallery.
    pub linear: When,
    /// What is measured if the test classes were never trained on.
    pub retrieval: RetrievalRecipe,
    /// Whether R@K, MAP@R and R-precision of the test images among the gallery are also measured beside kNN,
    /// after the last epoch.
    pub retrieval_beside_knn: bool,
    /// The time between checkpoints. When it is over, a checkpoint is written at the end of the epoch, while
    /// the next epoch runs. If it is zero, one is written after each epoch, and the next epoch waits for it.
    /// It changes no result.
    pub checkpoint_every: Duration,
}

/// A learning-rate schedule: a warm-up, then a decay.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The rate without warm-up and factors.
    pub base: f64,
    /// The number of epochs, whole or not, of the warm-up. If they have N steps, step n of them (from 0) has
    /// the rate `base` (n + 1) / N, so that the first rate is not 0.
    pub warmup: f64,
    /// The decay.
    pub fall: Fall,
}

/// How a learning rate decays.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fall {
    /// `(epochs done, factor)` in rising order: after so many epochs the rate is `base * factor`. It is the
    /// same for all steps of an epoch.
    Factors(Vec<(u64, f64)>),
    /// At each step the rate falls along half a cosine, from `base` after the warm-up to 0 at the end of the
    /// run: `base (1 + cos(π t)) / 2`, where t is the part of the steps after the warm-up that is done
    /// (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts).
    Cosine {
        /// Epochs of the run.
        epochs: u64,
    },
}

impl Schedule {
    /// Returns a schedule without warm-up that changes from epoch to epoch.
    pub fn by_factors(base: f64, factors: Vec<(u64, f64)>) -> Self {
        Self { base, warmup: 0.0, fall: Fall::Factors(factors) }
    }

    /// Returns the learning rate of step `step` (from 0) of epoch `epoch` (from 1), where an epoch has
    /// `steps`.
    pub fn at(&self, epoch: u64, step: u64, steps: u64) -> f64 {
        let done = (epoch.saturating_sub(1) * steps + step) as f64;
        let warmup = (self.warmup * steps as f64).round();
        if done < warmup {
            return self.base * (done + 1.0) / warmup;
        }
        match &self.fall {
            Fall::Factors(factors) => {
                let passed = factors.iter().rev().find(|(from, _)| epoch > *from);
                self.base * passed.map_or(1.0, |&(_, factor)| factor)
            }
            Fall::Cosine { epochs } => {
                let left = ((epochs * steps) as f64 - warmup).max(1.0);
                let part = ((done - warmup) / left).min(1.0);
                0.5 * self.base * (1.0 + (std::f64::consts::PI * part).cos())
            }
        }
    }
}

impl Recipe {
    /// Returns the weight decay of the optimizer.
    pub fn weight_decay(&self) -> f64 {
        match self.optimizer {
            OptimizerConfig::Sgd(SgdConfig { weight_decay, .. })
            | OptimizerConfig::Lars(LarsConfig { weight_decay, .. }) => weight_decay,
            _ => 0.0,
        }
    }

    /// Returns the views of a batch: those that the run's own transforms make, then the method's further
    /// groups.
    ///
    /// # Errors
    /// Returns the first setting of the transforms that is unknown or out of range.
    pub(crate) fn view_groups(&self) -> Result<Vec<ViewGroup>, AugmentError> {
        let own = MoreViews { views: self.method.views(), augment: self.augment.clone() };
        std::iter::once(own)
            .chain(self.method.more_views(&self.augment))
            .map(|MoreViews { views, augment }| {
                Ok(ViewGroup { pipeline: Arc::new(Pipeline::train(&augment)?), views })
            })
            .collect()
    }

    /// Returns the number of epochs to train: 0 if the method does not train the network.
    pub fn epochs_trained(&self) -> u64 {
        if self.method.trains() { self.epochs } else { 0 }
    }

    /// Returns whether epoch `epoch` ends with an evaluation.
    pub(crate) fn evaluates(&self, epoch: u64) -> bool {
        epoch == 0 || epoch >= self.epochs || epoch.is_multiple_of(self.evaluate_every.max(1))
    }

    /// Returns the number of evaluations of the run, including the one before training.
    pub(crate) fn evaluations(&self) -> u64 {
        let every = self.evaluate_every.max(1);
        1 + self.epochs / every + u64::from(!self.epochs.is_multiple_of(every))
    }
}

#[cfg(test)]
mod tests {
    use super::{Fall, Schedule};
    use crate::config::resolve;

    #[test]
    fn evaluations_are_counted_without_going_through_the_epochs() {
        let mut recipe = resolve(&[]).expect("the built-in config").config.recipe();
        for epochs in 0..20 {
            for every in 1..8 {
                (recipe.epochs, recipe.evaluate_every) = (epochs, every);
                let counted = (0..=epochs).filter(|&epoch| recipe.evaluates(epoch)).count();
                assert_eq!(recipe.evaluations(), counted as u64, "{epochs} epochs, every {every}");
            }
        }
        (recipe.epochs, recipe.evaluate_every) = (1 << 53, 1);
        assert_eq!(recipe.evaluations(), (1 << 53) + 1);
    }

    #[test]
    fn rates_change_after_the_named_number_of_epochs() {
        // The released code counts epochs from 0: its epoch 119 is the last at the full rate; it is our 120.
        let schedule = Schedule::by_factors(0.03, vec![(120, 0.1), (160, 0.05), (200, 0.01)]);
        let rates = [1, 120, 121, 160, 161, 200, 201].map(|epoch| schedule.at(epoch, epoch % 7, 7) / 0.03);
        for (rate, want) in rates.into_iter().zip([1.0, 1.0, 0.1, 0.1, 0.05, 0.05, 0.01]) {
            assert!((rate - want).abs() < 1e-12, "{rates:?}");
        }
    }

    #[test]
    fn a_cosine_falls_from_step_to_step_after_a_linear_rise() {
        let schedule = Schedule { base: 2.0, warmup: 2.0, fall: Fall::Cosine { epochs: 6 } };
        let at = |epoch, step| schedule.at(epoch, step, 10);
        let near = |found: f64, want: f64| assert!((found - want).abs() < 1e-12, "{found} {want}");
        // The warm-up: 1/20, 2/20, ..., 20/20 of the base.
        near(at(1, 0), 0.1);
        near(at(1, 9), 1.0);
        near(at(2, 9), 2.0);
        // The decay: the base, half of it in the middle of the 40 steps left, nearly 0 in the last step.
        near(at(3, 0), 2.0);
        near(at(5, 0), 1.0);
        near(at(6, 9), 1.0 + (std::f64::consts::PI * 39.0 / 40.0).cos());
        let all: Vec<f64> =
            (3..=6).flat_map(|epoch| (0..10).map(move |step| (epoch, step))).map(|(e, s)| at(e, s)).collect();
        assert!(all.windows(2).all(|pair| pair[1] < pair[0]) && all.iter().all(|rate| *rate > 0.0));
        // A warm-up that leaves no epochs for the decay, and a warm-up before factors.
        near(Schedule { warmup: 6.0, ..schedule.clone() }.at(6, 9, 10), 2.0);
        let factors = Schedule { warmup: 1.0, ..Schedule::by_factors(1.0, vec![(2, 0.1)]) };
        near(factors.at(1, 4, 10), 0.5);
        near(factors.at(2, 4, 10), 1.0);
        near(factors.at(3, 4, 10), 0.1);
    }
}
