//! A copy of a network or a head that follows it: the momentum encoder of MoCo and BYOL.
//!
//! ```text
//! θ_k ← m θ_k + (1 − m) θ_q
//! ```
//!
//! He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR
//! 2020, section 3.2, equation 2. Only the parameters follow the network. The copy has its own running
//! statistics of batch norm, which its own passes move
//! ([`Mode::TrainWithoutGradient`](crate::Mode::TrainWithoutGradient)), as in the authors' code. The copy
//! gets no gradient.

use crate::{Mlp, Network};
use candle_core::{Result, Tensor, Var, bail};
use std::collections::HashMap;

/// A network or a head: it has named parameters and a state, and a copy can follow it.
pub trait Module: Sized {
    /// Returns the trained parameters by name.
    fn parameters(&self) -> Vec<(String, Var)>;

    /// Returns parameters and running statistics by name.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    fn state_dict(&self) -> Result<Vec<(String, Tensor)>>;

    /// Restores what [`Module::state_dict`] returned.
    ///
    /// # Errors
    /// If an entry is missing or has another shape; the error names it.
    fn load_state_dict(&self, state: &HashMap<String, Tensor>) -> Result<()>;

    /// Returns a module of the same sizes on the same device, with arbitrary weights.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    fn another(&self) -> Result<Self>;
}

impl Module for Network {
    fn parameters(&self) -> Vec<(String, Var)> {
        Self::parameters(self)
    }

    fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        Self::state_dict(self)
    }

    fn load_state_dict(&self, state: &HashMap<String, Tensor>) -> Result<()> {
        let report = Self::load_state_dict(self, state).map_err(candle_core::Error::wrap)?;
        if let [other, ..] = &report.left_over[..] {
            bail!("{other} is not an entry of the network")
        }
        Ok(())
    }

    fn another(&self) -> Result<Self> {
        Self::on(self.device(), self.config(), 0)
    }
}

impl Module for Mlp {
    fn parameters(&self) -> Vec<(String, Var)> {
        Self::parameters(self)
    }

    fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        Self::state_dict(self)
    }

    fn load_state_dict(&self, state: &HashMap<String, Tensor>) -> Result<()> {
        Self::load_state_dict(self, state)
    }

    fn another(&self) -> Result<Self> {
        Self::another(self)
    }
}

/// A copy of a module that follows the module.
///
/// ```
/// use invaspread_models::{Mlp, MlpConfig, Momentum};
///
/// let head = Mlp::new("head", &MlpConfig::new(2, 2, 1), 0, 0)?;
/// let copy = Momentum::of(&head)?;
/// let (_, weight) = &head.parameters()[0];
/// invaspread_tensor::assign(weight, &weight.zeros_like()?)?;
/// // With a momentum of 0, the copy takes the new values.
/// copy.follow(&head, 0.0)?;
/// let (_, followed) = &copy.module().parameters()[0];
/// assert_eq!(followed.to_vec2::<f32>()?, weight.to_vec2::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Momentum<M> {
    copy: M,
}

impl<M: Module> Momentum<M> {
    /// Returns a copy of `module` in its current state, running statistics included.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn of(module: &M) -> Result<Self> {
        let copy = module.another()?;
        copy.load_state_dict(&module.state_dict()?.into_iter().collect())?;
        Ok(Self { copy })
    }

    /// Returns the copy, for running and saving it.
    pub fn module(&self) -> &M {
        &self.copy
    }

    /// Moves the copy's parameters towards those of `module`. `momentum`, from 0 to 1, is the share of the
    /// old value.
    ///
    /// # Errors
    /// If the momentum is out of its range, or `module` has other sizes.
    pub fn follow(&self, module: &M, momentum: f64) -> Result<()> {
        if !(0.0..=1.0).contains(&momentum) {
            bail!("momentum must lie between 0 and 1, it is {momentum}")
        }
        for ((name, mine), (theirs_name, theirs)) in self.copy.parameters().iter().zip(module.parameters()) {
            if *name != theirs_name || mine.shape() != theirs.shape() {
                bail!("{name} of {:?} cannot follow {theirs_name} of {:?}", mine.shape(), theirs.shape())
            }
            let kept = mine.as_detached_tensor().affine(momentum, 0.0)?;
            let moved = (kept + theirs.as_detached_tensor().affine(1.0 - momentum, 0.0)?)?;
            invaspread_tensor::assign(mine, &moved)?;
        }
        Ok(())
    }
}
