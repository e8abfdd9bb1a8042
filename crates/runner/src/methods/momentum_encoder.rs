//! A momentum encoder: a copy of the network and of its projector that follows them, has batch-norm
//! statistics of its own, and gets no gradient (He et al., CVPR 2020, section 3.2; the target network of
//! BYOL).

use std::collections::HashMap;

use candle_core::{Result, Tensor, bail};
use invaspread_models::{Mlp, Mode, Momentum, Network};

use super::projector::{PROJECTOR_KEYS, ProjectorForm};
use super::{MethodMemory, Sizes, StateError, load_module, module_state};
use crate::checkpoint::NamedTensors;

const ENCODER: &str = "momentum_encoder/";
const PROJECTOR: &str = "momentum_projector/";

/// Returns the share of the old weights where a part `done` of the run is done, from 0 to 1: it rises from
/// `base` to 1 along half a cosine (BYOL, section 3.2; DINO takes it over).
pub(super) fn rising_momentum(base: f64, done: f64) -> f64 {
    1.0 - (1.0 - base) * ((std::f64::consts::PI * done).cos() + 1.0) / 2.0
}

/// The copy of the network and that of the projector.
pub(super) struct MomentumEncoder {
    /// `None` before [`MomentumEncoder::set_up`].
    encoder: Option<Momentum<Network>>,
    projector: Momentum<Mlp>,
}

impl MomentumEncoder {
    /// Returns a momentum encoder that ends with a copy of `projector`.
    ///
    /// # Errors
    /// Returns an error if candle fails to copy it.
    pub(super) fn of(projector: &Mlp) -> Result<Self> {
        Ok(Self { encoder: None, projector: Momentum::of(projector)? })
    }

    /// Returns the memory of the copies of the network and of its projector. No gradient is held for them.
    pub(super) fn memory(sizes: &Sizes, projector: ProjectorForm) -> MethodMemory {
        let keys = ["model.width", "model.embedding", "model.depth"];
        let keys = [&keys[..], &PROJECTOR_KEYS].concat();
        let weights = sizes.parameters.saturating_add(projector.weights(sizes.pooled));
        MethodMemory::new("a momentum encoder", &keys, &[sizes.of_kept(), weights])
    }

    /// Copies the network in its initial state.
    ///
    /// # Errors
    /// Returns an error if candle fails to copy it.
    pub(super) fn set_up(&mut self, network: &Network) -> Result<()> {
        self.encoder = Some(Momentum::of(network)?);
        Ok(())
    }

    /// Returns the projected rows of `views`, not scaled. Batch norm takes the statistics of these views.
    ///
    /// # Errors
    /// Returns an error if candle fails or the views do not fit the network.
    pub(super) fn rows(&self, views: &Tensor) -> Result<Tensor> {
        let mode = Mode::TrainWithoutGradient;
        let output = self.encoder()?.module().forward(views, mode)?;
        self.projector.module().run(&output.pooled, mode)
    }

    /// Moves the copies towards the network and its projector; `momentum` is the share of their old values.
    ///
    /// # Errors
    /// Returns an error if the momentum is not between 0 and 1, or candle fails.
    pub(super) fn follow(&self, network: &Network, projector: &Mlp, momentum: f64) -> Result<()> {
        self.encoder()?.follow(network, momentum)?;
        self.projector.follow(projector, momentum)
    }

    /// Returns weights and running statistics of both copies.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    pub(super) fn state(&self) -> Result<NamedTensors> {
        let mut state = module_state(ENCODER, self.encoder()?.module())?;
        state.extend(module_state(PROJECTOR, self.projector.module())?);
        Ok(state)
    }

    /// Takes from `state` what [`MomentumEncoder::state`] returned.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has another shape; the error names it.
    pub(super) fn load_state(
        &self,
        state: &mut HashMap<String, Tensor>,
    ) -> std::result::Result<(), StateError> {
        load_module(ENCODER, self.encoder()?.module(), state)?;
        load_module(PROJECTOR, self.projector.module(), state)
    }

    fn encoder(&self) -> Result<&Momentum<Network>> {
        let Some(encoder) = &self.encoder else {
            bail!("the momentum encoder has no copy of the network; call set_up first")
        };
        Ok(encoder)
    }
}
