//! A convolution with the batch norm that follows it: the unit that a residual network is made of.

use crate::batch_norm::BatchNorm;
use crate::initial::{ConvSize, Source};
use crate::layout::to_pytorch_layout;
use crate::onnx::graph::{Edge, Graph};
use crate::output::Mode;
use candle_core::{Result, Var};
use invaspread_tensor::{Algorithm, BatchNormConfig, Conv2dConfig, Precision, Tape, Value};

/// The way in which a layer runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) mode: Mode,
    pub(crate) batch_norm_chunk: usize,
    pub(crate) algorithm: Algorithm,
    pub(crate) precision: Precision,
}

/// A convolution without bias, its batch norm, and the residual and the ReLU that may follow.
pub(crate) struct ConvNorm {
    /// PyTorch's name of the convolution.
    name: String,
    size: ConvSize,
    /// The weight, (K, K, C_in, C_out).
    weight: Var,
    norm: BatchNorm,
}

impl ConvNorm {
    pub(crate) fn new(conv: &str, norm: &str, size: ConvSize, source: &mut Source<'_>) -> Result<Self> {
        let weight = source.convolution(size)?;
        Ok(Self { name: conv.to_owned(), size, weight, norm: BatchNorm::new(norm, size.to, source)? })
    }

    /// Runs on `tape` in training, and without it in evaluation.
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
        let x = if pass.mode == Mode::Evaluate {
            // An idle tape keeps the op out of candle's graph, which would copy the result.
            Tape::idle().conv2d(x, &self.weight, config)?
        } else {
            tape.conv2d(x, &self.weight, config)?
        };
        let config = BatchNormConfig { relu, chunk: pass.batch_norm_chunk, ..Default::default() };
        self.norm.forward(tape, &x, residual, config, pass.mode)
    }

    /// Adds what [`ConvNorm::forward`] does in evaluation to a graph.
    pub(crate) fn describe(
        &self,
        graph: &mut Graph,
        x: &Edge,
        residual: Option<&Edge>,
        relu: bool,
    ) -> Result<Edge> {
        let weight = graph.weight(&format!("{}.weight", self.name), &to_pytorch_layout(&self.weight)?)?;
        let ConvSize { kernel, stride, .. } = self.size;
        let mut y = graph.convolution(&self.name, x, &[weight], [kernel, stride, kernel / 2]);
        y = self.norm.describe(graph, &y, BatchNormConfig::default().eps)?;
        if let Some(residual) = residual {
            y = graph.add(format!("{}.sum", self.name), &y, residual);
        }
        Ok(if relu { graph.relu(format!("{}.relu", self.name), &y) } else { y })
    }

    /// Returns the step between output pixels.
    pub(crate) fn stride(&self) -> usize {
        self.size.stride
    }

    /// Returns the number of weights of the convolution.
    pub(crate) fn weights(&self) -> usize {
        self.weight.elem_count()
    }

    /// Returns the trained parameters under PyTorch's names.
    pub(crate) fn parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = vec![(format!("{}.weight", self.name), self.weight.clone())];
        parameters.extend(self.norm.parameters());
        parameters
    }

    /// Returns the batch norm, for its running statistics.
    pub(crate) fn norm(&self) -> &BatchNorm {
        &self.norm
    }
}
