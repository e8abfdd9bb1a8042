//! A convolution with the batch norm that follows it: the unit that a residual network is made of.

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_tensor::initialise::Initialiser;
use invaspread_tensor::{
    Algorithm, BatchNormConfig, Conv2dConfig, Statistics, Tape, Value, batch_norm_with, conv2d,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Share of a batch's statistics that goes into the running ones.
const RUNNING_SHARE: f64 = 0.1;

/// Sizes of one convolution.
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
    running: Mutex<Running>,
}

struct Running {
    statistics: Statistics,
    batches: i64,
}

impl ConvNorm {
    pub(crate) fn new(conv: &str, norm: &str, size: ConvSize, initialiser: &mut Initialiser) -> Result<Self> {
        let ConvSize { from, to, kernel, .. } = size;
        let weight = initialiser.uniform_fan_in((kernel, kernel, from, to), kernel * kernel * from)?;
        Ok(Self {
            names: [conv.to_owned(), norm.to_owned()],
            size,
            weight: Var::from_tensor(&weight)?,
            gamma: Var::from_tensor(&initialiser.batch_norm_gain(to)?)?,
            beta: Var::from_tensor(&initialiser.zeros(to)?)?,
            running: Mutex::new(Running {
                statistics: Statistics { mean: vec![0.0; to], variance: vec![1.0; to] },
                batches: 0,
            }),
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
        };
        let config_norm = BatchNormConfig { relu, chunk: pass.batch_norm_chunk, ..Default::default() };
        if !pass.train {
            let x = conv2d(x.tensor(), &self.weight.as_detached_tensor(), config)?;
            let (running, residual) = (self.running(), residual.map(Value::tensor));
            let y = batch_norm_with(&x, &self.gamma, &self.beta, residual, &running.statistics, config_norm)?;
            return Ok(Value::constant(&y));
        }
        let x = tape.conv2d(x, &self.weight, config)?;
        let images = x.tensor().dim(0)?;
        let together = if pass.batch_norm_chunk == 0 { images } else { pass.batch_norm_chunk };
        let rows = x.tensor().elem_count() / images / self.size.to * together;
        let (y, statistics) = tape.batch_norm(&x, [&self.gamma, &self.beta], residual, config_norm)?;
        self.track(&statistics, rows);
        Ok(y)
    }

    /// Moves the running statistics towards `batch`, taken over `rows` values; the running variance is the unbiased one.
    fn track(&self, batch: &Statistics, rows: usize) {
        let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
        // Kept in the precision that a checkpoint stores, or a resumed run would differ from one that never stopped.
        let single = self.weight.dtype() == DType::F32;
        let round = |x: f64| if single { f64::from(x as f32) } else { x };
        let mut running = self.running();
        let Running { statistics, batches } = &mut *running;
        for (old, new) in statistics.mean.iter_mut().zip(&batch.mean) {
            *old = round((1.0 - RUNNING_SHARE) * *old + RUNNING_SHARE * new);
        }
        for (old, new) in statistics.variance.iter_mut().zip(&batch.variance) {
            *old = round((1.0 - RUNNING_SHARE) * *old + RUNNING_SHARE * new * unbiased);
        }
        *batches += 1;
    }

    fn running(&self) -> MutexGuard<'_, Running> {
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
        let tensor = |values: &[f64]| Tensor::new(values, &Device::Cpu)?.to_dtype(self.weight.dtype());
        Ok([
            (format!("{norm}.running_mean"), tensor(&running.statistics.mean)?),
            (format!("{norm}.running_var"), tensor(&running.statistics.variance)?),
            (format!("{norm}.num_batches_tracked"), Tensor::new(running.batches, &Device::Cpu)?),
        ])
    }

    /// Takes up the running statistics that `find` knows, by the names of [`ConvNorm::buffers`].
    pub(crate) fn load_buffers(&self, find: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        let norm = &self.names[1];
        let values = |name: &str| -> Result<Option<Vec<f64>>> {
            find(&format!("{norm}.{name}")).map(|t| t.to_dtype(DType::F64)?.to_vec1()).transpose()
        };
        let (mean, variance) = (values("running_mean")?, values("running_var")?);
        let batches = find(&format!("{norm}.num_batches_tracked"));
        let mut running = self.running();
        if let Some(mean) = mean {
            running.statistics.mean = mean;
        }
        if let Some(variance) = variance {
            running.statistics.variance = variance;
        }
        if let Some(batches) = batches {
            running.batches = batches.flatten_all()?.to_vec1::<i64>()?[0];
        }
        Ok(())
    }
}
