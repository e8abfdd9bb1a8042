//! NNCLR (Dwibedi et al., ICCV 2021): the positive of a view is not the other view itself but the nearest
//! neighbor of its projection in a support set of older projections.
//!
//! ```text
//! x, x' two views;  z = g(f(x));  p = h(z);  n = the row of the support set that is the nearest to z;
//! loss: `losses::Nnclr` of n and p', both ways;  then the support set takes up z of the first views
//! ```
//!
//! Section 3.2 of the paper and its pseudo-code. A batch norm with gain and shift follows each layer of the
//! projector, also the last one; the predictor is an MLP of two layers. Each view is a pass of its own with
//! its own batch-norm statistics, as in the pseudo-code. The support set is a queue that begins full of
//! random unit rows. The search of neighbors is exact (`metrics::top_k`).
//!
//! Deviations: the paper's batch is 4,096 images and its optimizer LARS; here the run's are used for all
//! methods.

use std::collections::HashMap;

use candle_core::{Device, Error, Result, Tensor, Var, bail};
use invaspread_losses::op::Objective;
use invaspread_losses::{Nnclr, Queue};
use invaspread_metrics::{Rows, top_k_on};
use invaspread_models::{LastNorm, Network, Output};
use invaspread_tensor::l2_normalize;

use super::predictor::PredictingHeads;
use super::projector::{ProjectorForm, settings_with_projector};
use super::separate_views::each_view;
use super::state::{check_queue, load_queue, nothing_left, queue_state};
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step, TakenStep};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, at_least_one, temperature};

settings_with_projector! {
    /// Settings of NNCLR.
    pub struct Settings {
        /// Temperature of the softmax, at least 0.01.
        temperature: f64 = 0.1,
        /// Rows of the support set, at least 1 and at least the images of a batch.
        queue: usize = 4096,
        /// Length of the predictor's hidden rows, at least 1.
        predictor_hidden: usize = 4096,
    }
    projector(3, 2048, 256)
}

impl Settings {
    fn with_batch_norm_at_the_end(&self) -> ProjectorForm {
        ProjectorForm { last: LastNorm::Affine, ..self.projector() }
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "nnclr";
    const LABEL: &'static str = "NNCLR";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        at_least_one("queue", self.queue)?;
        at_least_one("predictor_hidden", self.predictor_hidden)?;
        self.projector().check()
    }

    fn views(&self) -> usize {
        2
    }

    fn views_in_pass(&self) -> usize {
        1
    }

    fn has_cuda_loss(&self) -> bool {
        Nnclr::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let mut memory = PredictingHeads::memory(sizes, self.projector(), self.predictor_hidden);
        memory.push(MethodMemory::of_queue(sizes, self.queue, self.projector_output));
        memory.push(MethodMemory::of_similarities(sizes));
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        check_queue(self.queue, facts)?;
        let heads = PredictingHeads::new(facts, self.with_batch_norm_at_the_end(), self.predictor_hidden)?;
        let support = Queue::new(self.queue, self.projector_output, facts.seed, &facts.device.open()?)?;
        let loss = Nnclr { temperature: self.temperature };
        Ok(Box::new(NnclrMethod { facts, loss, heads, support, pooled: None, projected: None }))
    }

    fn small() -> Vec<Self> {
        let three = Self {
            queue: 44,
            projector_hidden: 24,
            projector_output: 8,
            predictor_hidden: 12,
            ..Self::default()
        };
        vec![three]
    }
}

struct NnclrMethod {
    facts: RunFacts,
    loss: Nnclr,
    heads: PredictingHeads,
    support: Queue,
    /// The pooled features of each view of the current batch, between its pass and its loss.
    pooled: Option<[Tensor; 2]>,
    /// The projected rows of the first views, between the loss and the end of the step.
    projected: Option<Tensor>,
}

impl NnclrMethod {
    /// Returns the row of the support set that is the nearest to each of `rows`.
    fn neighbors(&self, rows: &Tensor) -> Result<Tensor> {
        let support = self.support.rows()?;
        let flat = |x: &Tensor| x.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>();
        let (dim, queries, gallery) = (rows.dim(1)?, flat(rows)?, flat(&support)?);
        if !queries.iter().chain(&gallery).all(|x| x.is_finite()) {
            // The run ends because its loss is not finite, which the engine explains.
            return Tensor::from_vec(vec![f32::NAN; queries.len()], rows.shape(), rows.device());
        }
        let (queries, gallery) = (Rows::new(&queries, dim), Rows::new(&gallery, dim));
        let found = top_k_on(self.facts.device, queries, gallery, 1, false).map_err(Error::wrap)?;
        let nearest = (0..rows.dim(0)?).flat_map(|row| gallery.row(found.of(row).0[0] as usize));
        Tensor::from_vec(nearest.copied().collect(), rows.shape(), rows.device())
    }
}

impl Method for NnclrMethod {
    fn forward(&mut self, network: &Network, views: &[Tensor]) -> Result<Output> {
        let (output, pooled) = each_view(network, &views[0])?;
        self.pooled = Some(pooled);
        Ok(output)
    }

    fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        let Some(pooled) = self.pooled.take() else {
            bail!("nnclr: no batch has passed through the network; call forward first")
        };
        let rows = self.heads.run(output, &pooled)?;
        let projected = l2_normalize(&rows.projected.detach())?;
        let images = projected.dim(0)? / 2;
        self.projected = Some(projected.narrow(0, 0, images)?);
        self.loss.loss(&rows.predicted, &self.neighbors(&projected)?)
    }

    fn projected(&self, pooled: &Tensor) -> Result<Option<Tensor>> {
        self.heads.projected(pooled)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        self.heads.parameters()
    }

    fn after_step(&mut self, _taken: &TakenStep<'_>) -> Result<()> {
        if let Some(projected) = self.projected.take() {
            self.support.push(&projected)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<NamedTensors> {
        let mut state = self.heads.state()?;
        state.extend(queue_state(&self.support)?);
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        self.heads.load_state(&mut state)?;
        load_queue(&mut self.support, &mut state)?;
        nothing_left(&state)
    }
}
