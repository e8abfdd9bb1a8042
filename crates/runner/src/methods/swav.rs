//! SwAV (Caron et al., `NeurIPS` 2020): each view predicts the codes of the other large views, which assign
//! the rows of a batch to prototypes in equal shares.
//!
//! Pooled features -> projector -> rows of length 1 -> scores for prototypes of length 1; the loss and the
//! codes are in `losses::Swav`. As in the authors' code, the prototypes are scaled to length 1 before each
//! step, and keep their initial values for `frozen_epochs` epochs. For small batches a queue holds the rows
//! of the latest images, a row of each large view: from epoch `queue_from` on, the codes are those of the
//! batch and the queue together.
//!
//! Deviations: the queue is filled from the first step on and not from `queue_from` on; it is used when it is
//! full, as in that code. The authors blur half of all views; here the run's transforms decide whether and
//! how the large views are blurred, and half of the small ones are blurred if there is a blur. Their
//! transforms do not solarize, so small views are not solarized.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var, bail};
use invaspread_augment::AugmentConfig;
use invaspread_losses::{Queue, Swav};
use invaspread_models::{Mlp, Mode, Module, Output};

use super::multi_crop::{LARGE, SmallViews};
use super::projector::settings_with_projector;
use super::prototypes::Prototypes;
use super::state::{check_queue, load_queue, nothing_left, queue_state};
use super::{
    Method, MethodMemory, MethodSettings, MoreViews, RunFacts, RunLength, Sizes, StateError, Step, TakenStep,
    load_module, module_state,
};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, above_zero, at_least_one, temperature};

settings_with_projector! {
    /// Settings of SwAV.
    pub struct Settings {
        /// Temperature of the predictions, at least 0.01.
        temperature: f64 = 0.1,
        /// Smoothness ε of the codes, above 0.
        epsilon: f64 = 0.05,
        /// Normalizations of the codes, at least 1.
        iterations: usize = 3,
        /// Number of prototypes, at least 1.
        prototypes: usize = 3000,
        /// Epochs at the start in which the prototypes are not trained.
        frozen_epochs: u64 = 1,
        /// Rows of the queue, 0 for none, otherwise at least the images of a batch and at most those that the
        /// run passes before its last step.
        queue: usize = 0,
        /// The first epoch, from 1, in which codes depend on the queue, if there is one; at most the last
        /// epoch.
        queue_from: u64 = 16,
        /// Small views of each image, beside two large ones.
        small_views: usize = 0,
        /// Width and height of a small view in pixels, at least 1.
        small_size: usize = 16,
        /// Least and greatest part of the image's area that a small view shows, above 0 and at most 1.
        small_scale: [f64; 2] = [0.05, 0.14],
    }
    projector(2, 2048, 128)
}

impl Settings {
    fn small_views(&self) -> SmallViews {
        SmallViews { views: self.small_views, size: self.small_size, scale: self.small_scale }
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "swav";
    const LABEL: &'static str = "SwAV";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        above_zero("epsilon", self.epsilon)?;
        at_least_one("iterations", self.iterations)?;
        at_least_one("prototypes", self.prototypes)?;
        self.small_views().check()?;
        self.projector().check()
    }

    fn check_length(&self, length: &RunLength) -> std::result::Result<(), Refusal> {
        if self.queue == 0 {
            return Ok(());
        }
        let RunLength { epochs, .. } = *length;
        let expected = format!(
            "at most {epochs}, the value of optim.epochs: no epoch would use the queue (method.queue=0 leaves it out)"
        );
        Refusal::unless(self.queue_from <= epochs, "queue_from", self.queue_from, &expected)?;
        // A step uses the queue if it is full when the step begins.
        let Some(passed) = length.images_before_last_step() else { return Ok(()) };
        let expected = format!(
            "at most {passed}, the images that the run passes before its last step: the queue would never be full, and only \
             a full one is used (method.queue=0 leaves it out)"
        );
        Refusal::unless(self.queue as u64 <= passed, "queue", self.queue, &expected)
    }

    fn views(&self) -> usize {
        LARGE
    }

    fn more_views(&self, augment: &AugmentConfig) -> Vec<MoreViews> {
        self.small_views().more_views(augment)
    }

    fn has_cuda_loss(&self) -> bool {
        false
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let rows = Prototypes::rows(sizes, self.small_views);
        let mut memory = Prototypes::memory(sizes, self.prototypes, self.projector_output, rows);
        memory.extend(self.projector().memory(sizes, rows));
        if self.queue > 0 {
            memory.push(MethodMemory::of_queue(sizes, self.queue, LARGE * self.projector_output));
        }
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let device = facts.device.open()?;
        let queue = if self.queue == 0 {
            None
        } else {
            check_queue(self.queue, facts)?;
            Some(Queue::new(self.queue, LARGE * self.projector_output, facts.seed, &device)?)
        };
        Ok(Box::new(SwavMethod {
            loss: Swav { temperature: self.temperature, epsilon: self.epsilon, iterations: self.iterations },
            projector: self.projector().build(facts)?,
            prototypes: Prototypes::new(self.prototypes, self.projector_output, facts.seed, &device)?,
            queue,
            pushed: None,
            settings: self.clone(),
            facts,
        }))
    }

    fn small() -> Vec<Self> {
        let two = Self { projector_hidden: 24, projector_output: 8, prototypes: 6, ..Self::default() };
        let small = Self { small_views: 3, small_size: 12, small_scale: [0.1, 0.3], ..two.clone() };
        vec![two, Self { queue: 40, queue_from: 2, frozen_epochs: 2, ..small }]
    }
}

const PROJECTOR: &str = "trained/";
const PROTOTYPES: &str = "trained_prototypes/";

struct SwavMethod {
    settings: Settings,
    facts: RunFacts,
    loss: Swav,
    projector: Mlp,
    prototypes: Prototypes,
    /// The rows of the latest images: for each image, the row of its first view and then that of its second.
    queue: Option<Queue>,
    /// The current batch's entries of the queue.
    pushed: Option<Tensor>,
}

impl SwavMethod {
    /// Returns the queue if codes depend on it in this step: from its epoch on, when it holds no initial
    /// entry.
    fn queue_in_use(&self, step: &Step<'_>) -> Option<&Queue> {
        let batch = self.facts.batch_size;
        let taken = step.epoch.saturating_sub(1) * (self.facts.images / batch.max(1)) as u64 + step.step;
        let full = taken.saturating_mul(batch as u64) >= self.settings.queue as u64;
        self.queue.as_ref().filter(|_| full && step.epoch >= self.settings.queue_from)
    }

    /// Returns the codes of the rows of the large views (2B x D), one view after the other.
    fn codes(&self, rows: &Tensor, step: &Step<'_>) -> Result<Tensor> {
        let images = rows.dim(0)? / LARGE;
        let queued = self.queue_in_use(step).map(Queue::rows).transpose()?;
        let of_view = |view: usize| -> Result<Tensor> {
            let mut all = vec![rows.narrow(0, view * images, images)?];
            if let Some(queued) = &queued {
                let dim = rows.dim(1)?;
                all.push(queued.narrow(1, view * dim, dim)?);
            }
            let scores = self.prototypes.scores(&Tensor::cat(&all, 0)?, false)?;
            self.loss.codes(&scores)?.narrow(0, 0, images)
        };
        Tensor::cat(&[of_view(0)?, of_view(1)?], 0)
    }
}

impl Method for SwavMethod {
    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        self.prototypes.normalize()?;
        let rows = output.through(&output.pooled.clone(), |tape, x| {
            let projected = self.projector.forward(tape, x, Mode::Train)?;
            tape.l2_normalize(&projected)
        })?;
        let images = step.index.len();
        if rows.dim(0)? != images * (LARGE + self.settings.small_views) {
            bail!("swav: {} rows for {images} images; forward gives one for each view", rows.dim(0)?)
        }
        let large = rows.detach().narrow(0, 0, LARGE * images)?;
        let codes = self.codes(&large, step)?;
        if self.queue.is_some() {
            let views = [large.narrow(0, 0, images)?, large.narrow(0, images, images)?];
            self.pushed = Some(Tensor::cat(&views, 1)?);
        }
        let frozen = step.epoch <= self.settings.frozen_epochs;
        self.loss.loss(&rows, &self.prototypes.weight(frozen), &codes, images)
    }

    fn projected(&self, pooled: &Tensor) -> Result<Option<Tensor>> {
        self.projector.run(pooled, Mode::Evaluate).map(Some)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = self.projector.parameters();
        parameters.extend(self.prototypes.parameters());
        parameters
    }

    fn after_step(&mut self, _taken: &TakenStep<'_>) -> Result<()> {
        if let (Some(queue), Some(rows)) = (&mut self.queue, self.pushed.take()) {
            queue.push(&rows)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<NamedTensors> {
        let mut state = module_state(PROJECTOR, &self.projector)?;
        state.extend(module_state(PROTOTYPES, &self.prototypes)?);
        if let Some(queue) = &self.queue {
            state.extend(queue_state(queue)?);
        }
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        load_module(PROJECTOR, &self.projector, &mut state)?;
        load_module(PROTOTYPES, &self.prototypes, &mut state)?;
        if let Some(queue) = &mut self.queue {
            load_queue(queue, &mut state)?;
        }
        nothing_left(&state)
    }
}

#[cfg(test)]
mod tests {
    use super::{MethodSettings, RunLength, Settings};

    #[test]
    fn a_queue_that_no_step_uses_is_refused() {
        let settings = Settings { queue: 160, queue_from: 3, ..Settings::default() };
        let refused = |settings: &Settings, epochs, images| {
            settings
                .check_length(&RunLength { epochs, batch_size: 16, images })
                .err()
                .map(|refusal| refusal.key)
        };
        assert_eq!(refused(&settings, 2, None), Some("queue_from".into()));
        assert_eq!(refused(&settings, 3, None), None, "the images are not known");
        // Of 64 images, three epochs are 12 steps; before the last one 176 images have passed.
        assert_eq!(refused(&settings, 3, Some(64)), None);
        assert_eq!(refused(&Settings { queue: 177, ..settings.clone() }, 3, Some(64)), Some("queue".into()));
        assert_eq!(refused(&Settings { queue: 176, ..settings.clone() }, 3, Some(64 + 15)), None);
        let none = Settings { queue: 0, ..settings };
        assert_eq!(refused(&none, 1, Some(64)), None, "there is no queue");
    }
}
