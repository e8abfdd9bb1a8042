//! DINO (Caron et al., ICCV 2021): the views predict what a momentum teacher says about the two large views
//! of their image. The teacher's scores are centered and sharpened.
//!
//! ```text
//! student: x = g(f(view)) / ‖·‖ -> scores x Ŵᵀ;  teacher: the same with weights ξ;  loss: `losses::Dino`
//! ξ ← m_k ξ + (1 − m_k) θ after step k of K,  m_k = 1 − (1 − m) (cos(π k / K) + 1) / 2
//! τ_t: from its first value to its last one in `temperature_epochs` epochs, linearly from epoch to epoch
//! ```
//!
//! Section 3 and appendix of the paper; facebookresearch/dino. The head is an MLP whose rows are scaled to
//! length 1, and a last layer with weights of length 1, which keeps its initial values for `frozen_epochs`
//! epochs. Small views are blurred with probability 0.5 and not solarized, if the run's own views are blurred
//! or solarized.
//!
//! Deviations: the head has ReLU where the authors have GELU, and PyTorch's initial weights. Gradients are
//! not clipped, and the weight decay does not change during a run. The network is a ResNet, for which the
//! paper has one table; most of its runs are of vision transformers.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var, bail};
use invaspread_augment::AugmentConfig;
use invaspread_losses::{Center, Dino};
use invaspread_models::{Mlp, Mode, Module, Momentum, Network, Output};
use invaspread_tensor::l2_normalize;

use super::momentum_encoder::{MomentumEncoder, rising_momentum};
use super::multi_crop::{LARGE, SmallViews};
use super::projector::{ProjectorForm, settings_with_projector};
use super::prototypes::Prototypes;
use super::state::{nothing_left, take};
use super::{
    Method, MethodMemory, MethodSettings, MoreViews, RunFacts, Sizes, StateError, Step, TakenStep,
    load_module, module_state, pass_of_each_group,
};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, at_least_one, share, temperature};

settings_with_projector! {
    /// Settings of DINO.
    pub struct Settings {
        /// Temperature of the student's predictions, at least 0.01.
        student_temperature: f64 = 0.1,
        /// Temperature of the teacher's targets after its warm-up, at least 0.01.
        teacher_temperature: f64 = 0.07,
        /// Temperature of the teacher's targets in the first epoch, at least 0.01.
        first_teacher_temperature: f64 = 0.04,
        /// Epochs in which the teacher's temperature goes from the first value to the last one.
        temperature_epochs: u64 = 30,
        /// Share of the old center of the teacher's scores in the new one, from 0 to below 1.
        center_momentum: f64 = 0.9,
        /// Share of the teacher's old weights in its new ones at the start of the run, from 0 to below 1; it
        /// rises to 1 along half a cosine.
        base_momentum: f64 = 0.996,
        /// Number of scores, at least 1.
        prototypes: usize = 4096,
        /// Epochs at the start in which the last layer is not trained.
        frozen_epochs: u64 = 1,
        /// Whether batch norm follows the hidden layers of the projector.
        projector_batch_norm: bool = false,
        /// Small views of each image, beside two large ones.
        small_views: usize = 0,
        /// Width and height of a small view in pixels, at least 1.
        small_size: usize = 16,
        /// Least and greatest part of the image's area that a small view shows, above 0 and at most 1.
        small_scale: [f64; 2] = [0.05, 0.4],
    }
    projector(3, 2048, 256)
}

impl Settings {
    fn small_views(&self) -> SmallViews {
        SmallViews { views: self.small_views, size: self.small_size, scale: self.small_scale }
    }

    /// Returns the teacher's temperature in an epoch, from 1.
    fn temperature(&self, epoch: u64) -> f64 {
        let (first, last) = (self.first_teacher_temperature, self.teacher_temperature);
        let done = epoch.saturating_sub(1);
        if done >= self.temperature_epochs {
            return last;
        }
        first + (last - first) * done as f64 / (self.temperature_epochs - 1).max(1) as f64
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "dino";
    const LABEL: &'static str = "DINO";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("student_temperature", self.student_temperature)?;
        temperature("teacher_temperature", self.teacher_temperature)?;
        temperature("first_teacher_temperature", self.first_teacher_temperature)?;
        share("center_momentum", self.center_momentum)?;
        share("base_momentum", self.base_momentum)?;
        at_least_one("prototypes", self.prototypes)?;
        self.small_views().check()?;
        self.projector().check()
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
        memory.push(MomentumEncoder::memory(sizes, self.projector()));
        let keys = ["method.prototypes", "method.projector_output"];
        let factors = [sizes.of_kept(), self.prototypes as u128, self.projector_output as u128];
        memory.push(MethodMemory::new("the teacher's last layer", &keys, &factors));
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let device = facts.device.open()?;
        let form = ProjectorForm { batch_norm: self.projector_batch_norm, ..self.projector() };
        let projector = form.build(facts)?;
        let last = Prototypes::new(self.prototypes, self.projector_output, facts.seed, &device)?;
        Ok(Box::new(DinoMethod {
            loss: Dino { student_temperature: self.student_temperature },
            teacher: MomentumEncoder::of(&projector)?,
            teachers_last: Momentum::of(&last)?,
            projector,
            last,
            center: Center::new(self.prototypes)?,
            scores: None,
            settings: self.clone(),
            facts,
        }))
    }

    fn small() -> Vec<Self> {
        let sizes = Self { projector_hidden: 24, projector_output: 8, prototypes: 12, ..Self::default() };
        let two = Self { temperature_epochs: 2, base_momentum: 0.9, ..sizes.clone() };
        let small = Self { small_views: 2, small_size: 12, projector_batch_norm: true, ..sizes };
        vec![two, Self { frozen_epochs: 0, ..small }]
    }
}

const PROJECTOR: &str = "trained/";
const LAST: &str = "trained_last/";
const TEACHERS_LAST: &str = "momentum_last/";
const CENTER: &str = "center";

struct DinoMethod {
    settings: Settings,
    facts: RunFacts,
    loss: Dino,
    projector: Mlp,
    /// The student's last layer.
    last: Prototypes,
    teacher: MomentumEncoder,
    teachers_last: Momentum<Prototypes>,
    center: Center,
    /// The teacher's scores of the current batch.
    scores: Option<Tensor>,
}

impl DinoMethod {
    fn scores(&self) -> Result<&Tensor> {
        let Some(scores) = &self.scores else {
            bail!("dino: the teacher has no scores of this batch; call forward first")
        };
        Ok(scores)
    }
}

impl Method for DinoMethod {
    fn set_up(&mut self, network: &Network) -> Result<()> {
        self.teacher.set_up(network)
    }

    fn forward(&mut self, network: &Network, views: &[Tensor]) -> Result<Output> {
        let rows = l2_normalize(&self.teacher.rows(&views[0])?)?;
        self.scores = Some(self.teachers_last.module().scores(&rows, true)?);
        pass_of_each_group(network, views)
    }

    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        let temperature = self.settings.temperature(step.epoch);
        let targets = self.center.targets(self.scores()?, temperature)?;
        let rows = output.through(&output.pooled.clone(), |tape, x| {
            let projected = self.projector.forward(tape, x, Mode::Train)?;
            tape.l2_normalize(&projected)
        })?;
        let frozen = step.epoch <= self.settings.frozen_epochs;
        self.loss.loss(&rows, &self.last.weight(frozen), &targets, step.index.len())
    }

    fn projected(&self, pooled: &Tensor) -> Result<Option<Tensor>> {
        self.projector.run(pooled, Mode::Evaluate).map(Some)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = self.projector.parameters();
        parameters.extend(self.last.parameters());
        parameters
    }

    fn after_step(&mut self, taken: &TakenStep<'_>) -> Result<()> {
        let scores = self.scores()?.clone();
        self.center.follow(&scores, self.settings.center_momentum)?;
        self.scores = None;
        let momentum = rising_momentum(self.settings.base_momentum, self.facts.part_done(&taken.step));
        self.teacher.follow(taken.network, &self.projector, momentum)?;
        self.teachers_last.follow(&self.last, momentum)
    }

    fn state(&self) -> Result<NamedTensors> {
        let mut state = module_state(PROJECTOR, &self.projector)?;
        state.extend(module_state(LAST, &self.last)?);
        state.extend(self.teacher.state()?);
        state.extend(module_state(TEACHERS_LAST, self.teachers_last.module())?);
        state.push((CENTER.to_owned(), self.center.state()?));
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        load_module(PROJECTOR, &self.projector, &mut state)?;
        load_module(LAST, &self.last, &mut state)?;
        self.teacher.load_state(&mut state)?;
        load_module(TEACHERS_LAST, self.teachers_last.module(), &mut state)?;
        let center = take(&mut state, CENTER, &[self.settings.prototypes])?;
        self.center.load_state(&center)?;
        nothing_left(&state)
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn the_temperature_follows_its_schedule() {
        let near = |found: f64, want: f64| assert!((found - want).abs() < 1e-15, "{found} {want}");
        let settings = Settings { temperature_epochs: 4, ..Settings::default() };
        for (epoch, want) in [(1, 0.04), (2, 0.05), (3, 0.06), (4, 0.07), (5, 0.07), (200, 0.07)] {
            near(settings.temperature(epoch), want);
        }
        for temperature_epochs in [0, 1] {
            let settings = Settings { temperature_epochs, ..Settings::default() };
            near(settings.temperature(2), 0.07);
        }
    }
}
