//! A projector behind the pooled features: its settings, its form, and the methods whose loss compares the
//! projected rows of the two views of each image.
//!
//! A projector is an MLP that maps the pooled features to the rows of a loss. The run's optimizer trains it;
//! it is not needed after training. Such a loss does not depend on the embedding's linear layer, which keeps
//! its initial weights. Therefore the pooled features are measured: the file of such a method sets
//! `eval.layer=pooled`.
//!
//! [`ProjectorForm::method`] serves losses of the projected rows alone: both views pass through the network
//! and the projector together, and batch norm takes the statistics of both.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var};
use invaspread_models::{LastNorm, Mlp, MlpConfig, Mode, Output};

use super::state::nothing_left;
use super::{Method, MethodMemory, RunFacts, Sizes, StateError, Step, load_module, module_state};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, at_least_one};

/// The prefix of the projector's names.
const PROJECTOR: &str = "projector";

/// The keys that make a projector large.
pub(super) const PROJECTOR_KEYS: [&str; 3] =
    ["method.projector_layers", "method.projector_hidden", "method.projector_output"];

/// Declares the settings of a method with a projector, as [`crate::settings!`] does: the given keys, those of
/// the projector, and the function `projector` that returns its form. The projector's sizes may follow, as
/// `projector(LAYERS, HIDDEN, OUTPUT)`; otherwise they are those of `SimCLR` on CIFAR-10.
macro_rules! settings_with_projector {
    ($(#[doc = $about:literal])+ pub struct Settings { $($keys:tt)* }) => {
        $crate::methods::projector::settings_with_projector! {
            $(#[doc = $about])+
            pub struct Settings { $($keys)* }
            projector(2, 512, 128)
        }
    };
    (
        $(#[doc = $about:literal])+
        pub struct Settings { $($keys:tt)* }
        projector($layers:literal, $hidden:literal, $output:literal)
    ) => {
        $crate::settings! {
            $(#[doc = $about])+
            pub struct Settings {
                $($keys)*
                /// Linear layers of the projector, at least 1; a ReLU lies between them.
                projector_layers: usize = $layers,
                /// Length of the projector's hidden rows, at least 1.
                projector_hidden: usize = $hidden,
                /// Length of the projected rows, at least 1.
                projector_output: usize = $output,
            }
        }

        impl Settings {
            fn projector(&self) -> $crate::methods::projector::ProjectorForm {
                $crate::methods::projector::ProjectorForm {
                    layers: self.projector_layers,
                    hidden: self.projector_hidden,
                    output: self.projector_output,
                    batch_norm: true,
                    last: ::invaspread_models::LastNorm::None,
                    scaled: true,
                }
            }
        }
    };
}
pub(super) use settings_with_projector;

/// The form of a projector: a method's keys `projector_layers`, `projector_hidden` and `projector_output`,
/// and what its paper fixes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProjectorForm {
    /// Linear layers.
    pub(super) layers: usize,
    /// Length of the hidden rows.
    pub(super) hidden: usize,
    /// Length of the projected rows.
    pub(super) output: usize,
    /// Whether batch norm follows the hidden linear layers.
    pub(super) batch_norm: bool,
    /// The normalization that follows the last linear layer.
    pub(super) last: LastNorm,
    /// Whether [`ProjectorForm::method`] scales the projected rows to length 1.
    pub(super) scaled: bool,
}

impl ProjectorForm {
    /// Checks that each size is at least 1.
    ///
    /// # Errors
    /// Returns a refusal that names the key that is 0.
    pub(super) fn check(self) -> std::result::Result<(), Refusal> {
        at_least_one("projector_layers", self.layers)?;
        at_least_one("projector_hidden", self.hidden)?;
        at_least_one("projector_output", self.output)
    }

    /// Returns the memory of the projector: its weights with all that is held for them, and the outputs of
    /// its layers for `rows` rows of a batch.
    pub(super) fn memory(self, sizes: &Sizes, rows: u128) -> Vec<MethodMemory> {
        let weights = [sizes.of_trained(), self.weights(sizes.pooled)];
        let keys = ["method.projector_hidden", "method.projector_output", "optim.batch_size"];
        let [hidden, output] = [self.hidden, self.output].map(|size| size as u128);
        let of_row = hidden.saturating_mul(self.layers.saturating_sub(1) as u128).saturating_add(output);
        vec![
            MethodMemory::new("a projector", &PROJECTOR_KEYS, &weights),
            MethodMemory::new("rows of the projector", &keys, &[rows, of_row]),
        ]
    }

    /// Returns the number of weights of the linear layers, the first of which takes rows of `pooled` numbers.
    pub(super) fn weights(self, pooled: u128) -> u128 {
        let [layers, hidden, output] = [self.layers, self.hidden, self.output].map(|size| size as u128);
        if layers < 2 {
            return pooled.saturating_mul(output);
        }
        let between = (layers - 2).saturating_mul(hidden).saturating_mul(hidden);
        let ends = pooled.saturating_add(output).saturating_mul(hidden);
        between.saturating_add(ends)
    }

    /// Returns the memory of the products of all columns of the projected rows with one another.
    pub(super) fn between_columns(self) -> MethodMemory {
        let output = self.output as u128;
        MethodMemory::new("products of columns", &["method.projector_output"], &[output, output])
    }

    /// Returns a projector of this form in its initial state, head number 0 of the run.
    ///
    /// # Errors
    /// Returns an error if candle fails to make it.
    pub(super) fn build(self, facts: RunFacts) -> Result<Mlp> {
        let mut config = MlpConfig::new(facts.pooled, self.hidden, self.output);
        config.layers = self.layers;
        config.batch_norm = self.batch_norm;
        config.last = self.last;
        Mlp::on(&facts.device.open()?, PROJECTOR, &config, facts.seed, 0)
    }

    /// Returns the method that minimizes `loss` of the projected rows: 2B rows, first view 1 of all images,
    /// then view 2. `on_device` says whether a GPU computes the loss of rows on it.
    ///
    /// # Errors
    /// Returns an error if candle fails to make the projector.
    pub(super) fn method(
        self,
        facts: RunFacts,
        on_device: bool,
        loss: impl Fn(&Tensor) -> Result<Tensor> + Send + 'static,
    ) -> Result<Box<dyn Method>> {
        Ok(Box::new(Projected { loss, on_device, projector: self.build(facts)?, scaled: self.scaled }))
    }
}

/// Returns the memory of the similarities of all rows of a batch with one another.
pub(super) fn similarities(sizes: &Sizes) -> MethodMemory {
    let keys = ["optim.batch_size"];
    MethodMemory::new("similarities within a batch", &keys, &[sizes.rows, sizes.rows])
}

/// A loss and the projector before it.
struct Projected<L> {
    loss: L,
    /// Whether the loss is computed on the device of the rows.
    on_device: bool,
    projector: Mlp,
    /// Whether the rows are scaled to length 1.
    scaled: bool,
}

impl<L: Fn(&Tensor) -> Result<Tensor> + Send> Method for Projected<L> {
    fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        let rows = output.through(&output.pooled.clone(), |tape, x| {
            let projected = self.projector.forward(tape, x, Mode::Train)?;
            if self.scaled { tape.l2_normalize(&projected) } else { Ok(projected) }
        })?;
        (self.loss)(&rows)
    }

    fn projected(&self, pooled: &Tensor) -> Result<Option<Tensor>> {
        self.projector.run(pooled, Mode::Evaluate).map(Some)
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
