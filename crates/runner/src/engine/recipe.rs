//! What the engine does in a run, every switch resolved: the numbers of the config and nothing about where
//! they came from.

use std::path::PathBuf;

use invaspread_augment::AugmentConfig;
use invaspread_losses::KeySide;
use invaspread_models::NetworkConfig;
use invaspread_tensor::DeviceKind;

use super::{RetrievalRecipe, When};
use crate::methods::{ChosenMethod, Layer};

/// A run, as the engine needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Seed of every draw.
    pub seed: u64,
    /// Where it is computed.
    pub device: DeviceKind,
    /// The objective, with its settings.
    pub method: ChosenMethod,
    /// Whether gradients flow through the second factor of inner products among a batch's own embeddings.
    pub key_side: KeySide,
    /// The network.
    pub network: NetworkConfig,
    /// Weights to begin with; `None` for a network as drawn.
    pub weights: Option<PathBuf>,
    /// Views and test images.
    pub augment: AugmentConfig,
    /// Epochs to train.
    pub epochs: u64,
    /// Images in a batch (with two views each, twice as many rows).
    pub batch_size: usize,
    /// Learning rates.
    pub schedule: Schedule,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Weight decay of SGD.
    pub weight_decay: f64,
    /// Evaluate every so many epochs (and before training, and after the last).
    pub evaluate_every: u64,
    /// The output that is measured, as unit rows.
    pub layer: Layer,
    /// Neighbours that vote.
    pub neighbors: usize,
    /// Temperature of their votes.
    pub vote_temperature: f64,
    /// When a linear classifier is learned on the gallery's embeddings, where they vote.
    pub linear: When,
    /// Where test classes were never trained on: what is measured.
    pub retrieval: RetrievalRecipe,
    /// Whether R@K, MAP@R and R-precision are measured beside kNN too, of the test images among the gallery,
    /// after the last epoch.
    pub retrieval_beside_knn: bool,
}

/// A learning rate and the factors it is multiplied by from given epochs on.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The rate of the first epoch.
    pub base: f64,
    /// `(epochs done, factor)` in rising order: from then on the rate is `base * factor`.
    pub factors: Vec<(u64, f64)>,
}

impl Schedule {
    /// The learning rate of epoch `epoch`, from 1.
    pub fn at(&self, epoch: u64) -> f64 {
        let passed = self.factors.iter().rev().find(|(from, _)| epoch > *from);
        self.base * passed.map_or(1.0, |&(_, factor)| factor)
    }
}

impl Recipe {
    /// Epochs that its method trains: none where the network stays as drawn.
    pub fn epochs_trained(&self) -> u64 {
        if self.method.trains() { self.epochs } else { 0 }
    }

    /// Whether epoch `epoch` ends with an evaluation.
    pub(crate) fn evaluates(&self, epoch: u64) -> bool {
        epoch == 0 || epoch >= self.epochs || epoch.is_multiple_of(self.evaluate_every.max(1))
    }

    /// How many of its epochs end with one, the start before the first among them.
    pub(crate) fn evaluations(&self) -> u64 {
        let every = self.evaluate_every.max(1);
        1 + self.epochs / every + u64::from(!self.epochs.is_multiple_of(every))
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
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
        // The official code counts epochs from 0: 119 is the last at the full rate, our 120.
        let schedule = Schedule { base: 0.03, factors: vec![(120, 0.1), (160, 0.05), (200, 0.01)] };
        let rates = [1, 120, 121, 160, 161, 200, 201].map(|epoch| schedule.at(epoch) / 0.03);
        for (rate, want) in rates.into_iter().zip([1.0, 1.0, 0.1, 0.1, 0.05, 0.05, 0.01]) {
            assert!((rate - want).abs() < 1e-12, "{rates:?}");
        }
    }
}
