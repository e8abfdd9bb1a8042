//! Exemplar: each training image is a class of its own, with a learned weight vector (Eq. 1 of the paper).
//!
//! The run's optimizer trains the weights (n x D), whose initial values are those of PyTorch's `Linear`,
//! U(±1/√D). No code for this method was released.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, Var};
use invaspread_losses::Exemplar;
use invaspread_models::Output;
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;

use super::state::{nothing_left, take};
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, temperature};

const WEIGHT: &str = "instances.weight";

crate::settings! {
    /// Settings of Exemplar.
    pub struct Settings {
        /// Temperature of the softmax, at least 0.01; 1 leaves the logits unchanged.
        temperature: f64 = 1.0,
        /// Whether the weights of the instances are scaled to length 1.
        normalize_weight: bool = false,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "exemplar";
    const LABEL: &'static str = "Exemplar";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        // Weights, gradients and momentum.
        vec![MethodMemory::of_all_images(sizes, 3)]
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let loss = Exemplar { temperature: self.temperature, normalize_weight: self.normalize_weight };
        Ok(Box::new(ExemplarMethod::new(facts, loss)?))
    }
}

/// The instance classifier.
#[derive(Debug)]
struct ExemplarMethod {
    facts: RunFacts,
    loss: Exemplar,
    weight: Var,
}

impl ExemplarMethod {
    fn new(facts: RunFacts, loss: Exemplar) -> Result<Self> {
        let bound = 1.0 / (facts.dim as f64).sqrt();
        let mut weight = vec![0.0_f32; facts.images * facts.dim];
        weight.par_chunks_mut(facts.dim).enumerate().for_each(|(row, values)| {
            let mut stream = Stream::new(facts.seed, Purpose::ClassifierHead, 0, row as u64);
            values.fill_with(|| stream.between(-bound, bound) as f32);
        });
        let weight = Var::from_vec(weight, (facts.images, facts.dim), &facts.device.open()?)?;
        Ok(Self { facts, loss, weight })
    }
}

impl Method for ExemplarMethod {
    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        self.loss.loss(&output.embedding, self.weight.as_tensor(), step.index)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        vec![(WEIGHT.to_owned(), self.weight.clone())]
    }

    fn state(&self) -> Result<NamedTensors> {
        Ok(vec![(WEIGHT.to_owned(), self.weight.as_detached_tensor().to_device(&Device::Cpu)?)])
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        let weight = take(&mut state, WEIGHT, &[self.facts.images, self.facts.dim])?;
        invaspread_tensor::assign(&self.weight, &weight.to_device(self.weight.device())?)?;
        nothing_left(&state)
    }
}
