//! A projector behind the pooled features, for methods whose loss compares the projected rows of the two
//! views of each image.
//!
//! Two views of each image pass through the network; the projector, an MLP with batch norm, maps their pooled
//! features to the rows of the loss, which are scaled to length 1. The run's optimizer trains the projector,
//! which is not needed after training. The loss does not depend on the embedding's linear layer, which keeps
//! its initial weights. Therefore the pooled features are measured: the file of such a method sets
//! `eval.layer=pooled`.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var};
use invaspread_models::{Mlp, MlpConfig, Mode, Output};

use super::state::nothing_left;
use super::{Method, MethodMemory, RunFacts, Sizes, StateError, Step, load_module, module_state};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, at_least_one};

/// The prefix of the projector's names.
const PROJECTOR: &str = "projector";

/// Declares the settings of a method with a projector, as [`crate::settings!`] does: the given keys, those of
/// the projector, and the function `projector` that returns its sizes.
macro_rules! settings_with_projector {
    ($(#[doc = $about:literal])+ pub struct Settings { $($keys:tt)* }) => {
        $crate::settings! {
            $(#[doc = $about])+
            pub struct Settings {
                $($keys)*
                /// Linear layers of the projector, at least 1; batch norm and a ReLU lie between them.
                projector_layers: usize = 2,
                /// Length of the projector's hidden rows, at least 1.
                projector_hidden: usize = 512,
                /// Length of the rows that the loss compares, at least 1.
                projector_output: usize = 128,
            }
        }

        impl Settings {
            fn projector(&self) -> $crate::methods::projector::ProjectorSizes {
                $crate::methods::projector::ProjectorSizes {
                    layers: self.projector_layers,
                    hidden: self.projector_hidden,
                    output: self.projector_output,
                }
            }
        }
    };
}
pub(super) use settings_with_projector;

/// The sizes of a projector: a method's keys `projector_layers`, `projector_hidden` and `projector_output`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProjectorSizes {
    /// Linear layers.
    pub(super) layers: usize,
    /// Length of the hidden rows.
    pub(super) hidden: usize,
    /// Length of the rows that the loss compares.
    pub(super) output: usize,
}

impl ProjectorSizes {
    /// Checks that each size is at least 1.
    ///
    /// # Errors
    /// Returns a refusal that names the key that is 0.
    pub(super) fn check(self) -> std::result::Result<(), Refusal> {
        at_least_one("projector_layers", self.layers)?;
        at_least_one("projector_hidden", self.hidden)?;
        at_least_one("projector_output", self.output)
    }

    /// Returns the memory of the projector and of a loss that compares all rows of a batch.
    pub(super) fn memory(self, sizes: &Sizes) -> Vec<MethodMemory> {
        let keys = ["method.projector_layers", "method.projector_hidden", "method.projector_output"];
        let [layers, hidden, output] = [self.layers, self.hidden, self.output].map(|size| size as u128);
        // Weights, gradients and momentum of all layers but the first, whose size depends on the network.
        let inner = MethodMemory::new("a projector", &keys, &[3, layers, hidden, hidden.max(output)]);
        let similarities = MethodMemory::new(
            "similarities within a batch",
            &["optim.batch_size"],
            &[sizes.rows, sizes.rows],
        );
        vec![inner, similarities]
    }

    /// Returns the method that minimizes `loss` of the projected rows: 2B rows of unit length, first view 1
    /// of all images, then view 2.
    /// `on_device` says whether a GPU computes the loss of rows on it.
    ///
    /// # Errors
    /// Returns an error if candle fails to make the projector.
    pub(super) fn method(
        self,
        facts: RunFacts,
        on_device: bool,
        loss: impl Fn(&Tensor) -> Result<Tensor> + Send + 'static,
    ) -> Result<Box<dyn Method>> {
        let mut config = MlpConfig::new(facts.pooled, self.hidden, self.output);
        config.layers = self.layers;
        let projector = Mlp::on(&facts.device.open()?, PROJECTOR, &config, facts.seed, 0)?;
        Ok(Box::new(Projected { loss, on_device, projector }))
    }
}

/// A loss and the projector before it.
struct Projected<L> {
    loss: L,
    /// Whether the loss is computed on the device of the rows.
    on_device: bool,
    projector: Mlp,
}

impl<L: Fn(&Tensor) -> Result<Tensor> + Send> Method for Projected<L> {
    fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        let rows = output.through(&output.pooled.clone(), |tape, x| {
            let projected = self.projector.forward(tape, x, Mode::Train)?;
            tape.l2_normalize(&projected)
        })?;
        (self.loss)(&rows)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        self.projector.parameters()
    }

    fn steps_repeat(&self) -> bool {
        self.on_device
    }

    fn state(&self) -> Result<NamedTensors> {
        module_state("", &self.projector)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        load_module("", &self.projector, &mut state)?;
        nothing_left(&state)
    }
}
