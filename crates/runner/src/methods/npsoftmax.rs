//! NPSoftmax: each training image is a class of its own, whose weight vector is its stored embedding (the
//! non-parametric softmax; released code with `--nce-k 0`).

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use invaspread_losses::{MemoryBank, NpSoftmax};
use invaspread_models::Output;

use super::state::{nothing_left, take};
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step, TakenStep};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, share, temperature};

const MEMORY: &str = "memory";

crate::settings! {
    /// Settings of NPSoftmax.
    pub struct Settings {
        /// Temperature of the softmax, at least 0.01.
        temperature: f64 = 0.1,
        /// Share of the old entry in the new entry of the memory bank, from 0 to below 1.
        memory_momentum: f64 = 0.5,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "npsoftmax";
    const LABEL: &'static str = "NPSoftmax";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        share("memory_momentum", self.memory_momentum)
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        vec![MethodMemory::of_all_images(sizes, 1)]
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let loss = NpSoftmax { temperature: self.temperature };
        Ok(Box::new(NpSoftmaxMethod::new(facts, loss, self.memory_momentum)?))
    }
}

/// The softmax over the whole memory bank.
#[derive(Debug)]
struct NpSoftmaxMethod {
    facts: RunFacts,
    loss: NpSoftmax,
    momentum: f64,
    bank: MemoryBank,
}

impl NpSoftmaxMethod {
    fn new(facts: RunFacts, loss: NpSoftmax, momentum: f64) -> Result<Self> {
        let bank = MemoryBank::new(facts.images, facts.dim, facts.seed)?;
        let bank = bank.to_device(&facts.device.open()?)?;
        Ok(Self { facts, loss, momentum, bank })
    }
}

impl Method for NpSoftmaxMethod {
    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        self.loss.loss(&output.embedding, &self.bank, step.index)
    }

    fn after_step(&mut self, taken: &TakenStep<'_>) -> Result<()> {
        self.bank.update(taken.step.index, &taken.output.embedding, self.momentum)
    }

    fn state(&self) -> Result<NamedTensors> {
        Ok(vec![(MEMORY.to_owned(), self.bank.tensor()?)])
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        let memory = take(&mut state, MEMORY, &[self.facts.images, self.facts.dim])?;
        self.bank = MemoryBank::from_tensor(&memory)?.to_device(&self.facts.device.open()?)?;
        nothing_left(&state)
    }
}
