//! MoCo v2 (He et al., CVPR 2020; Chen et al., 2020): the key of an image's second view tells its first view
//! apart from a queue of older keys. A momentum encoder makes the keys; MoCo v2 adds a projector to both.
//!
//! ```text
//! x, x' two views;  q = g(f(x));  k = g_k(f_k(x'));  loss: `losses::MocoV2` of q, k and the queue
//! θ_k ← m θ_k + (1 − m) θ_q after each step;  then the queue takes up k
//! ```
//!
//! Algorithm 1 of the first paper; facebookresearch/moco, `moco/builder.py`. The projector has no batch
//! norm, and its hidden rows are as long as the pooled features of a ResNet-18. The momentum encoder has
//! batch-norm statistics of its own. It sees the images of a batch in a random order (section 3.3, shuffling
//! batch norm). So a key and its query belong to different groups of images where
//! `protocol.batch_norm_chunk` divides the batch, as several GPUs would, into groups with statistics of
//! their own.
//!
//! Deviations: without such chunks the whole batch shares its statistics, which the authors' demonstration on
//! CIFAR-10 avoids with eight parts. The projector has no batch norm, so chunks concern the network alone.
//! MoCo v2 also changes transforms (blur) and schedule (cosine); here the run's are used for all methods.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var, bail};
use invaspread_losses::op::Objective;
use invaspread_losses::{MocoV2, Queue};
use invaspread_models::{Mlp, Mode, Network, Output};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::l2_normalize;

use super::momentum_encoder::MomentumEncoder;
use super::projector::{ProjectorForm, settings_with_projector};
use super::separate_views::one_view;
use super::state::{check_queue, load_queue, nothing_left, queue_state};
use super::{
    Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step, TakenStep, load_module,
    module_state,
};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, at_least_one, share, temperature};

/// The prefix of the projector in the state.
const PROJECTOR: &str = "trained_projector/";

settings_with_projector! {
    /// Settings of MoCo v2.
    pub struct Settings {
        /// Temperature of the softmax, at least 0.01.
        temperature: f64 = 0.1,
        /// Keys in the queue, at least 1 and at least the images of a batch.
        queue: usize = 4096,
        /// Share of the momentum encoder's old weights in its new ones, from 0 to below 1.
        momentum: f64 = 0.99,
    }
    projector(2, 512, 128)
}

impl Settings {
    fn without_batch_norm(&self) -> ProjectorForm {
        ProjectorForm { batch_norm: false, ..self.projector() }
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "moco_v2";
    const LABEL: &'static str = "MoCo v2";
    const ALSO_CALLED: &'static [&'static str] = &["moco"];

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        at_least_one("queue", self.queue)?;
        share("momentum", self.momentum)?;
        self.projector().check()
    }

    fn views(&self) -> usize {
        2
    }

    fn views_in_pass(&self) -> usize {
        1
    }

    fn has_cuda_loss(&self) -> bool {
        MocoV2::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let keys = ["method.queue", "optim.batch_size"];
        let scores =
            MethodMemory::new("similarities with the queue", &keys, &[sizes.batch, self.queue as u128]);
        // The second views pass through the momentum encoder alone, without gradients.
        let mut memory = self.projector().memory(sizes, sizes.batch);
        memory.push(MomentumEncoder::memory(sizes, self.projector()));
        memory.extend([MethodMemory::of_queue(sizes, self.queue, self.projector_output), scores]);
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        check_queue(self.queue, facts)?;
        let projector = self.without_batch_norm().build(facts)?;
        Ok(Box::new(Moco {
            seed: facts.seed,
            loss: MocoV2 { temperature: self.temperature },
            momentum: self.momentum,
            encoder: MomentumEncoder::of(&projector)?,
            projector,
            queue: Queue::new(self.queue, self.projector_output, facts.seed, &facts.device.open()?)?,
            second_views: None,
            keys: None,
        }))
    }

    fn small() -> Vec<Self> {
        vec![Self { queue: 44, projector_hidden: 24, projector_output: 8, ..Self::default() }]
    }
}

struct Moco {
    seed: u64,
    loss: MocoV2,
    momentum: f64,
    projector: Mlp,
    encoder: MomentumEncoder,
    queue: Queue,
    /// The second views of the current batch, between the pass of the first ones and the loss.
    second_views: Option<Tensor>,
    /// The keys of the current batch, between the loss and the end of the step.
    keys: Option<Tensor>,
}

impl Moco {
    /// Returns the keys of `views`, which pass through the momentum encoder in a random order.
    fn keys(&self, views: &Tensor, step: &Step<'_>) -> Result<Tensor> {
        let mut stream = Stream::new(self.seed, Purpose::KeyOrder, step.epoch, step.step);
        let order = stream.permutation(views.dim(0)?);
        let mut places = vec![0; order.len()];
        for (place, &image) in (0..).zip(&order) {
            places[image as usize] = place;
        }
        let keys = self.encoder.rows(&rows_at(views, &order)?)?;
        l2_normalize(&rows_at(&keys, &places)?)
    }
}

/// Returns the rows of `tensor` at `places`. They are copied one by one, which needs no kernel on a GPU.
fn rows_at(tensor: &Tensor, places: &[u32]) -> Result<Tensor> {
    let rows: Vec<Tensor> =
        places.iter().map(|&place| tensor.narrow(0, place as usize, 1)).collect::<Result<_>>()?;
    Tensor::cat(&rows, 0)
}

impl Method for Moco {
    fn set_up(&mut self, network: &Network) -> Result<()> {
        self.encoder.set_up(network)
    }

    fn forward(&mut self, network: &Network, views: &[Tensor]) -> Result<Output> {
        self.second_views = Some(one_view(&views[0], 1, 2)?);
        network.forward(&one_view(&views[0], 0, 2)?, Mode::Train)
    }

    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        let Some(views) = self.second_views.take() else {
            bail!("moco_v2: no batch has passed through the network; call forward first")
        };
        let keys = self.keys(&views, step)?;
        let queries = output.through(&output.pooled.clone(), |tape, x| {
            let projected = self.projector.forward(tape, x, Mode::Train)?;
            tape.l2_normalize(&projected)
        })?;
        let loss = self.loss.loss(&queries, &keys, &self.queue.rows()?)?;
        self.keys = Some(keys);
        Ok(loss)
    }

    fn projected(&self, pooled: &Tensor) -> Result<Option<Tensor>> {
        self.projector.run(pooled, Mode::Evaluate).map(Some)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        self.projector.parameters()
    }

    fn after_step(&mut self, taken: &TakenStep<'_>) -> Result<()> {
        self.encoder.follow(taken.network, &self.projector, self.momentum)?;
        if let Some(keys) = self.keys.take() {
            self.queue.push(&keys)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<NamedTensors> {
        let mut state = module_state(PROJECTOR, &self.projector)?;
        state.extend(self.encoder.state()?);
        state.extend(queue_state(&self.queue)?);
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        load_module(PROJECTOR, &self.projector, &mut state)?;
        self.encoder.load_state(&mut state)?;
        load_queue(&mut self.queue, &mut state)?;
        nothing_left(&state)
    }
}
