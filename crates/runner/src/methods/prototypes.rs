//! Prototypes: the weights of a last layer without bias (K x D), with which rows of length 1 have K scores.
//! SwAV and DINO have them behind their projectors. Initial weights are those of PyTorch's `Linear`,
//! U(±1/√D).

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, Var, bail};
use invaspread_models::Module;
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::{assign, l2_normalize, linear, with_team};

use super::{MethodMemory, Sizes};

const WEIGHT: &str = "prototypes.weight";

/// The weights, trained by the run's optimizer.
pub(super) struct Prototypes {
    weight: Var,
}

impl Prototypes {
    /// Returns `count` prototypes of `dim` numbers on `device`; each depends only on the seed and its number.
    ///
    /// # Errors
    /// Returns an error if the device cannot hold them.
    pub(super) fn new(count: usize, dim: usize, seed: u64, device: &Device) -> Result<Self> {
        let bound = 1.0 / (dim as f64).sqrt();
        let mut values = Vec::with_capacity(count * dim);
        for row in 0..count {
            let mut stream = Stream::new(seed, Purpose::ClassifierHead, 0, row as u64);
            values.extend((0..dim).map(|_| stream.between(-bound, bound) as f32));
        }
        Ok(Self { weight: Var::from_vec(values, (count, dim), device)? })
    }

    /// Returns the memory of the weights with all that is held for them, and of the scores of a batch's
    /// `rows`.
    pub(super) fn memory(sizes: &Sizes, count: usize, dim: usize, rows: u128) -> Vec<MethodMemory> {
        let keys = ["method.prototypes", "method.projector_output"];
        let weights =
            MethodMemory::new("prototypes", &keys, &[sizes.of_trained(), count as u128, dim as u128]);
        let keys = ["method.prototypes", "optim.batch_size"];
        vec![weights, MethodMemory::new("scores of a batch", &keys, &[2, count as u128, rows])]
    }

    /// Returns the number of rows of a batch, those of small views included.
    pub(super) fn rows(sizes: &Sizes, small_views: usize) -> u128 {
        sizes.rows.saturating_add(sizes.batch.saturating_mul(small_views as u128))
    }

    /// Returns the weight, through which a gradient flows, or a constant if `frozen`.
    pub(super) fn weight(&self, frozen: bool) -> Tensor {
        if frozen { self.weight.as_detached_tensor() } else { self.weight.as_tensor().clone() }
    }

    /// Scales each prototype to length 1.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    pub(super) fn normalize(&self) -> Result<()> {
        assign(&self.weight, &l2_normalize(&self.weight.as_detached_tensor())?)
    }

    /// Returns the scores of `rows` (N x D) for the prototypes, N x K, without a gradient; for the prototypes
    /// scaled to length 1 if `scaled`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not fit.
    pub(super) fn scores(&self, rows: &Tensor, scaled: bool) -> Result<Tensor> {
        let weight = self.weight.as_detached_tensor();
        let zeros = Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
        let rows = rows.detach();
        let run = || {
            let weight = if scaled { l2_normalize(&weight)? } else { weight.clone() };
            linear(&rows, &weight, &zeros)
        };
        // On a GPU there is no work for the team's workers.
        if rows.device().is_cpu() { with_team(run) } else { run() }
    }
}

impl Module for Prototypes {
    fn parameters(&self) -> Vec<(String, Var)> {
        vec![(WEIGHT.to_owned(), self.weight.clone())]
    }

    fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        let weight = self.weight.as_detached_tensor().to_device(&Device::Cpu)?.copy()?;
        Ok(vec![(WEIGHT.to_owned(), weight)])
    }

    fn load_state_dict(&self, state: &HashMap<String, Tensor>) -> Result<()> {
        if let Some(other) = state.keys().find(|name| *name != WEIGHT) {
            bail!("{other} is not an entry of the prototypes")
        }
        let Some(weight) = state.get(WEIGHT) else { bail!("{WEIGHT} is missing") };
        if weight.dims() != self.weight.dims() {
            bail!("{WEIGHT}: found {:?}, expected {:?}", weight.dims(), self.weight.dims())
        }
        assign(&self.weight, &weight.to_device(self.weight.device())?)
    }

    fn another(&self) -> Result<Self> {
        Ok(Self { weight: Var::from_tensor(&self.weight.zeros_like()?)? })
    }
}
