//! Alignment and uniformity (Wang and Isola, ICML 2020, section 4), with a queue of embeddings as in its
//! experiments on MoCo.
//!
//! ```text
//! x, y in R^{B x D}  unit rows, two views of B images
//! q    in R^{K x D}  the last K embeddings, without gradient
//! align   = (1/B) Σ_i ‖x_i − y_i‖²
//! uniform = log mean_{i,j} exp(−t ‖x_i − z_j‖²)      over the other rows z_j of x and all rows of q
//! loss    = align + λ uniform
//! ```
//!
//! Deviation: the sources average the uniformities of x and of y; here only that of x is used.

use std::collections::HashMap;

use invaspread::candle::{D, Device, Result, Tensor};
use invaspread::settings::{Refusal, above_zero};
use invaspread::{Method, MethodSettings, NamedTensors, Output, RunFacts, StateError, Step, TakenStep};

invaspread::settings! {
    /// Settings of the method.
    pub struct AlignUniformSettings {
        /// Weight λ of the uniformity, above 0.
        uniformity: f64 = 1.0,
        /// Sharpness t of the uniformity's kernel, above 0.
        sharpness: f64 = 2.0,
        /// Number of embeddings of earlier batches over which uniformity is also taken; 0 for none.
        queue: usize = 256,
    }
}

impl MethodSettings for AlignUniformSettings {
    const NAME: &'static str = "align_uniform";
    const LABEL: &'static str = "Align + uniform";

    fn check(&self) -> std::result::Result<(), Refusal> {
        above_zero("uniformity", self.uniformity)?;
        above_zero("sharpness", self.sharpness)
    }

    fn views(&self) -> usize {
        2
    }

    fn build(&self, _facts: RunFacts) -> Result<Box<dyn Method>> {
        Ok(Box::new(AlignUniform { settings: self.clone(), queue: None }))
    }
}

/// The method. Its state is the queue, which is empty before the first step.
struct AlignUniform {
    settings: AlignUniformSettings,
    queue: Option<Tensor>,
}

impl Method for AlignUniform {
    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        let batch = step.index.len();
        let [x, y] = [0, batch].map(|first| output.embedding.narrow(0, first, batch));
        let queue = self.queue.as_ref().map(|queue| queue.to_device(output.embedding.device()));
        align_uniform(&x?, &y?, queue.transpose()?.as_ref(), &self.settings)
    }

    fn after_step(&mut self, taken: &TakenStep<'_>) -> Result<()> {
        let fresh = taken.output.embedding.detach().to_device(&Device::Cpu)?;
        let all = self.queue.as_ref().map_or(Ok(fresh.clone()), |queue| Tensor::cat(&[queue, &fresh], 0))?;
        let kept = self.settings.queue.min(all.dim(0)?);
        let first = all.dim(0)? - kept;
        self.queue = if kept == 0 { None } else { Some(all.narrow(0, first, kept)?.contiguous()?) };
        Ok(())
    }

    fn state(&self) -> Result<NamedTensors> {
        Ok(self.queue.iter().map(|queue| ("queue".to_owned(), queue.clone())).collect())
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        self.queue = state.remove("queue");
        invaspread::nothing_left(&state)
    }
}

/// Returns the loss, a scalar, of two views (each B x D, unit rows) and a queue (K x D).
fn align_uniform(
    x: &Tensor,
    y: &Tensor,
    queue: Option<&Tensor>,
    settings: &AlignUniformSettings,
) -> Result<Tensor> {
    let batch = x.dim(0)?;
    let align = (x - y)?.sqr()?.sum(D::Minus1)?.mean_all()?;
    // For unit rows, ‖x_i − z_j‖² = 2 − 2 x_i · z_j. A row is not compared with itself.
    let kernel = |z: &Tensor| ((x.matmul(&z.t()?)? - 1.0)? * (2.0 * settings.sharpness))?.exp();
    let others = (1.0 - Tensor::eye(batch, x.dtype(), x.device())?)?;
    let within = (kernel(x)? * others)?.sum_all()?;
    let beside = queue.map(|queue| kernel(queue)?.sum_all()).transpose()?;
    let pairs = batch * (batch - 1 + queue.map_or(Ok(0), |queue| queue.dim(0))?);
    let uniform = (beside.map_or(Ok(within.clone()), |beside| within + beside)? / pairs as f64)?.log()?;
    align + (uniform * settings.uniformity)?
}

#[cfg(test)]
mod tests;
