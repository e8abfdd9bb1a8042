//! Exemplar: each training image is a class of its own, with a learned weight vector (Eq. 1 of the paper).
//!
//! The weight (n x D) is trained by the run's own optimiser and starts as PyTorch's `Linear` does, U(±1/√D); no code for this row
//! was released.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, Var};
use invaspread_losses::Exemplar;
use invaspread_models::Output;
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;

use super::state::{nothing_left, take};
use super::{Method, Setting, StateError, Step, shuffled};
use crate::checkpoint::NamedTensors;

const WEIGHT: &str = "instances.weight";

/// The instance classifier.
#[derive(Debug)]
pub(super) struct ExemplarMethod {
    setting: Setting,
    loss: Exemplar,
    weight: Var,
}

impl ExemplarMethod {
    pub(super) fn new(setting: Setting, loss: Exemplar) -> Result<Self> {
        let bound = 1.0 / (setting.dim as f64).sqrt();
        let mut weight = vec![0.0_f32; setting.images * setting.dim];
        weight.par_chunks_mut(setting.dim).enumerate().for_each(|(row, values)| {
            let mut stream = Stream::new(setting.seed, Purpose::ClassifierHead, 0, row as u64);
            values.fill_with(|| stream.between(-bound, bound) as f32);
        });
        let weight = Var::from_vec(weight, (setting.images, setting.dim), &setting.device.open()?)?;
        Ok(Self { setting, loss, weight })
    }
}

impl Method for ExemplarMethod {
    fn order(&self, epoch: u64) -> Result<Vec<u32>> {
        Ok(shuffled(&self.setting, epoch))
    }

    fn loss(&mut self, output: &Output, step: &Step<'_>) -> Result<Tensor> {
        self.loss.loss(&output.embedding, self.weight.as_tensor(), step.index)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        vec![(WEIGHT.to_owned(), self.weight.clone())]
    }

    fn state(&self) -> Result<NamedTensors> {
        Ok(vec![(WEIGHT.to_owned(), self.weight.as_detached_tensor().to_device(&Device::Cpu)?)])
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        let weight = take(&mut state, WEIGHT, &[self.setting.images, self.setting.dim])?;
        self.weight.set(&weight.to_device(self.weight.device())?)?;
        nothing_left(&state)
    }
}
