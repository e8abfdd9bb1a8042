//! A batch norm with its parameters and running statistics, under PyTorch's names.

use crate::initial::Source;
use crate::onnx::graph::{Edge, Graph};
use crate::output::Mode;
use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_tensor::{BatchNormConfig, RunningStatistics, Tape, Value};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A batch norm of (..., C) that uses the statistics of the batch or the running ones.
pub(crate) struct BatchNorm {
    /// PyTorch's name of the layer.
    name: String,
    gamma: Var,
    beta: Var,
    /// Whether gain and shift are trained. If not, they stay 1 and 0 and are not part of the state dict.
    affine: bool,
    running: Mutex<RunningStatistics>,
}

impl BatchNorm {
    /// Returns a batch norm of `channels` whose gain and shift are trained.
    pub(crate) fn new(name: &str, channels: usize, source: &mut Source<'_>) -> Result<Self> {
        let (gamma, beta) = (source.batch_norm_gain(channels)?, source.zeros(channels)?);
        Self::with([gamma, beta], name, channels, true, source)
    }

    /// Returns a batch norm of `channels` without gain and shift.
    pub(crate) fn without_affine(name: &str, channels: usize, source: &mut Source<'_>) -> Result<Self> {
        let (gamma, beta) = (source.ones(channels)?, source.zeros(channels)?);
        Self::with([gamma, beta], name, channels, false, source)
    }

    fn with(
        [gamma, beta]: [Var; 2],
        name: &str,
        channels: usize,
        affine: bool,
        source: &Source<'_>,
    ) -> Result<Self> {
        let running = RunningStatistics::new(channels, gamma.dtype(), source.device())?;
        Ok(Self { name: name.to_owned(), gamma, beta, affine, running: Mutex::new(running) })
    }

    /// Runs on `tape` and moves the running statistics or, in evaluation, runs without the tape.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape,
        x: &Value,
        residual: Option<&Value>,
        config: BatchNormConfig,
        mode: Mode,
    ) -> Result<Value> {
        let parameters = [&self.gamma, &self.beta];
        if mode == Mode::Evaluate {
            let parameters = parameters.map(Var::as_detached_tensor);
            let residual = residual.map(Value::tensor);
            let y = self.running().normalize(x.tensor(), parameters.each_ref(), residual, config)?;
            return Ok(Value::constant(&y));
        }
        tape.batch_norm(x, parameters, residual, config, &mut self.running())
    }

    fn running(&self) -> MutexGuard<'_, RunningStatistics> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the trained parameters under PyTorch's names.
    pub(crate) fn parameters(&self) -> Vec<(String, Var)> {
        if !self.affine {
            return Vec::new();
        }
        let name = &self.name;
        vec![(format!("{name}.weight"), self.gamma.clone()), (format!("{name}.bias"), self.beta.clone())]
    }

    /// Returns the running mean, the running variance and the number of batches that updated them, under
    /// PyTorch's names.
    pub(crate) fn buffers(&self) -> Result<[(String, Tensor); 3]> {
        let name = &self.name;
        let running = self.running();
        let [mean, variance] = running.tensors()?;
        Ok([
            (format!("{name}.running_mean"), mean),
            (format!("{name}.running_var"), variance),
            (format!("{name}.num_batches_tracked"), Tensor::new(running.batches(), &Device::Cpu)?),
        ])
    }

    /// Adds the batch norm by running statistics to a graph.
    pub(crate) fn describe(&self, graph: &mut Graph, x: &Edge, epsilon: f64) -> Result<Edge> {
        let name = &self.name;
        let [(mean_name, mean), (variance_name, variance), _] = self.buffers()?;
        let weights = [
            graph.weight(&format!("{name}.weight"), self.gamma.as_tensor())?,
            graph.weight(&format!("{name}.bias"), self.beta.as_tensor())?,
            graph.weight(&mean_name, &mean)?,
            graph.weight(&variance_name, &variance)?,
        ];
        Ok(graph.batch_norm(name, x, &weights, epsilon))
    }

    /// Sets the running statistics that `find` returns for the names of [`BatchNorm::buffers`].
    pub(crate) fn load_buffers(&self, find: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        let name = &self.name;
        let mut running = self.running();
        let [mean, variance] = running.tensors()?;
        let mean = find(&format!("{name}.running_mean")).unwrap_or(mean);
        let variance = find(&format!("{name}.running_var")).unwrap_or(variance);
        let batches = match find(&format!("{name}.num_batches_tracked")) {
            // The number of batches may have any type; some files hold it as a float.
            Some(batches) => batches.to_dtype(DType::I64)?.reshape(())?.to_scalar()?,
            None => running.batches(),
        };
        running.set([&mean, &variance], batches)
    }
}
