//! A convolution with the batch norm that follows it: the unit that a residual network is made of.

use crate::initial::Source;
use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_tensor::{
    Algorithm, BatchNormConfig, Conv2dConfig, Precision, RunningStatistics, Tape, Value, conv2d,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sizes of one convolution; its padding is half the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvSize {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

/// How a layer runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) train: bool,
    pub(crate) batch_norm_chunk: usize,
    pub(crate) algorithm: Algorithm,
    pub(crate) precision: Precision,
}

/// Convolution without bias, batch norm, and what follows (residual, ReLU).
pub(crate) struct ConvNorm {
    /// PyTorch's names of the convolution and of the batch norm.
    names: [String; 2],
    size: ConvSize,
    /// (K, K, C_in, C_out)
    weight: Var,
    gamma: Var,
    beta: Var,
    running: Mutex<RunningStatistics>,
}

impl ConvNorm {
    pub(crate) fn new(conv: &str, norm: &str, size: ConvSize, source: &mut Source<'_>) -> Result<Self> {
        let weight = source.convolution(size)?;
        Ok(Self {
            names: [conv.to_owned(), norm.to_owned()],
            size,
            gamma: source.batch_norm_gain(size.to)?,
            beta: source.zeros(size.to)?,
            running: Mutex::new(RunningStatistics::new(size.to, weight.dtype(), source.device())?),
            weight,
        })
    }

    /// Runs on `tape` in training, beside it otherwise.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape,
        x: &Value,
        residual: Option<&Value>,
        relu: bool,
        pass: Pass,
    ) -> Result<Value> {
        let config = Conv2dConfig {
            stride: self.size.stride,
            padding: self.size.kernel / 2,
            algorithm: pass.algorithm,
            tf32: pass.precision != Precision::F32,
        };
        let config_norm = BatchNormConfig { relu, chunk: pass.batch_norm_chunk, ..Default::default() };
        let parameters = [&self.gamma, &self.beta];
        if !pass.train {
            let x = conv2d(x.tensor(), &self.weight.as_detached_tensor(), config)?;
            let parameters = parameters.map(Var::as_detached_tensor);
            let residual = residual.map(Value::tensor);
            let y = self.running().normalize(&x.detach(), parameters.each_ref(), residual, config_norm)?;
            return Ok(Value::constant(&y));
        }
        let x = tape.conv2d(x, &self.weight, config)?;
        tape.batch_norm(&x, parameters, residual, config_norm, &mut self.running())
    }

    fn running(&self) -> MutexGuard<'_, RunningStatistics> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Step between output pixels.
    pub(crate) fn stride(&self) -> usize {
        self.size.stride
    }

    /// Weights of the convolution.
    pub(crate) fn weights(&self) -> usize {
        self.weight.elem_count()
    }

    /// The trained parameters under PyTorch's names.
    pub(crate) fn parameters(&self) -> [(String, Var); 3] {
        let [conv, norm] = &self.names;
        [
            (format!("{conv}.weight"), self.weight.clone()),
            (format!("{norm}.weight"), self.gamma.clone()),
            (format!("{norm}.bias"), self.beta.clone()),
        ]
    }

    /// Running mean, running variance and the number of batches they come from, under PyTorch's names.
    pub(crate) fn buffers(&self) -> Result<[(String, Tensor); 3]> {
        let norm = &self.names[1];
        let running = self.running();
        let [mean, variance] = running.tensors()?;
        Ok([
            (format!("{norm}.running_mean"), mean),
            (format!("{norm}.running_var"), variance),
            (format!("{norm}.num_batches_tracked"), Tensor::new(running.batches(), &Device::Cpu)?),
        ])
    }

    /// Takes up the running statistics that `find` knows, by the names of [`ConvNorm::buffers`].
    pub(crate) fn load_buffers(&self, find: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        let norm = &self.names[1];
        let mut running = self.running();
        let [mean, variance] = running.tensors()?;
        let mean = find(&format!("{norm}.running_mean")).unwrap_or(mean);
        let variance = find(&format!("{norm}.running_var")).unwrap_or(variance);
        let batches = match find(&format!("{norm}.num_batches_tracked")) {
            // Of any type: some files hold it as a float.
            Some(batches) => batches.to_dtype(DType::I64)?.reshape(())?.to_scalar()?,
            None => running.batches(),
        };
        running.set([&mean, &variance], batches)
    }
}
