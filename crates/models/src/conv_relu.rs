//! A convolution with bias and ReLU: the unit that Inception-v1 is made of.

use crate::initial::{ConvSize, Source};
use crate::layout::to_pytorch_layout;
use crate::onnx::graph::{Edge, Graph};
use candle_core::{Result, Var};
use invaspread_tensor::{Algorithm, Conv2dConfig, Precision, Tape, Value};

pub(crate) struct ConvRelu {
    /// PyTorch's name of the convolution.
    name: String,
    size: ConvSize,
    /// The weight, (K, K, C_in, C_out).
    weight: Var,
    bias: Var,
}

impl ConvRelu {
    pub(crate) fn new(name: String, size: ConvSize, source: &mut Source<'_>) -> Result<Self> {
        let weight = source.convolution(size)?;
        let bias = source.uniform_fan_in(size.to, size.kernel * size.kernel * size.from)?;
        Ok(Self { name, size, weight, bias })
    }

    pub(crate) fn forward(
        &self,
        tape: &mut Tape,
        x: &Value,
        algorithm: Algorithm,
        precision: Precision,
    ) -> Result<Value> {
        let config = Conv2dConfig {
            stride: self.size.stride,
            padding: self.size.kernel / 2,
            algorithm,
            tf32: precision != Precision::F32,
        };
        let y = tape.conv2d(x, &self.weight, config)?;
        tape.bias_relu(&y, &self.bias)
    }

    /// Adds what [`ConvRelu::forward`] does to a graph.
    pub(crate) fn describe(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let weights = [
            graph.weight(&format!("{}.weight", self.name), &to_pytorch_layout(&self.weight)?)?,
            graph.weight(&format!("{}.bias", self.name), self.bias.as_tensor())?,
        ];
        let ConvSize { kernel, stride, .. } = self.size;
        let y = graph.convolution(&self.name, x, &weights, [kernel, stride, kernel / 2]);
        Ok(graph.relu(format!("{}.relu", self.name), &y))
    }

    /// Returns the number of output channels.
    pub(crate) fn channels(&self) -> usize {
        self.size.to
    }

    /// Returns the number of multiply-adds for each output pixel.
    pub(crate) fn weights(&self) -> usize {
        self.weight.elem_count()
    }

    /// Returns the trained parameters under PyTorch's names.
    pub(crate) fn parameters(&self) -> [(String, Var); 2] {
        [
            (format!("{}.weight", self.name), self.weight.clone()),
            (format!("{}.bias", self.name), self.bias.clone()),
        ]
    }
}
