//! A network as an ONNX model, for programs that run no Rust: onnxruntime, tract, and whatever else reads ONNX.
//!
//! The model has one input, `images` (N, C, H, W) in f32, normalized as in the network's training, and one output, named after
//! the layer, (N, length) in f32. N is free; C, H and W are fixed. Operators are those of opset 17, the first with layer
//! norms, in IR version 8, so that runtimes since 2022 read it. Everything is computed in f32, whatever precision the network
//! was trained in.
//!
//! The weights lie in the file under the names of the state dict, in PyTorch's layouts and bit for bit (f64 is rounded). This
//! is why batch norms are kept and not folded into the convolutions: folding would round every weight anew and lose the names,
//! and runtimes fold when they load a model (onnxruntime's `ConvBatchNormFusion`, tract's declutter), so nothing is gained.
//!
//! Each network describes its graph beside its forward pass (`describe`), by the operations of [`graph`]. `proto` is the
//! format's messages.

pub(crate) mod graph;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated, and the format has more than a network needs"
)]
mod proto;

use crate::network::Network;
use candle_core::{Result, bail};
use graph::Graph;
use prost::Message;

/// The version of the format and of the operators. A runtime refuses versions that are newer than itself.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// The program that a model names as its origin.
const PRODUCER: &str = "invaspread";

/// The largest message that every implementation of protobuf reads: 2 GiB.
const LARGEST: usize = i32::MAX as usize;

/// The output of a network that an ONNX model computes: a field of [`Output`](crate::Output).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnnxOutput {
    /// The pooled features before the linear layer, not scaled. The model then holds no embedding layer.
    Pooled,
    /// The output of the linear layer, not scaled.
    Projection,
    /// The projection divided by its length.
    Embedding,
}

impl OnnxOutput {
    /// Returns the name of the output in a model.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pooled => "pooled",
            Self::Projection => "projection",
            Self::Embedding => "embedding",
        }
    }
}

/// What a model says about itself, for its readers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxNotes {
    /// A text for people (`doc_string`).
    pub description: String,
    /// Names and values for programs (`metadata_props`).
    pub properties: Vec<(String, String)>,
}

impl Network {
    /// Returns the bytes of an ONNX model that computes `output` for images of `side` x `side` pixels; the head of this module's
    /// file says what is in it. Equal networks and notes give equal bytes.
    ///
    /// ```
    /// use invaspread_models::{Network, OnnxNotes, OnnxOutput, ResNetConfig, is_own_onnx};
    ///
    /// let network = Network::new(ResNetConfig { width: 8, ..ResNetConfig::default() }, 0)?;
    /// let model = network.to_onnx(32, OnnxOutput::Embedding, OnnxNotes::default())?;
    /// assert!(is_own_onnx(&model));
    /// // The pool makes more than one place of the last map of images of 64 pixels.
    /// assert!(network.to_onnx(64, OnnxOutput::Embedding, OnnxNotes::default()).is_err());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the network does not take images of this size, has local response norms with the window
    /// [`CrossMapLrn2d`](invaspread_tensor::LocalResponseWindow::CrossMapLrn2d), for which ONNX has no operator, or if the model
    /// would be larger than 2 GiB.
    pub fn to_onnx(&self, side: usize, output: OnnxOutput, notes: OnnxNotes) -> Result<Vec<u8>> {
        let config = self.config();
        let mut graph = Graph::default();
        let images = Graph::images();
        match self {
            Self::ResNet(network) => network.describe(&mut graph, &images, side, output),
            Self::Inception(network) => network.describe(&mut graph, &images, side, output),
            Self::Vit(network) => network.describe(&mut graph, &images, side, output),
        }?;
        let length = if output == OnnxOutput::Pooled { config.pooled() } else { config.embedding() };
        let model = proto::ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some(PRODUCER.to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            doc_string: Some(notes.description),
            graph: Some(graph.finish(config.to_string(), [config.channels(), side], (output.name(), length))),
            opset_import: vec![proto::OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(OPSET),
            }],
            metadata_props: notes
                .properties
                .into_iter()
                .map(|(key, value)| proto::StringStringEntryProto { key: Some(key), value: Some(value) })
                .collect(),
            ..proto::ModelProto::default()
        };
        let found = model.encoded_len();
        if found > LARGEST {
            bail!(
                "the ONNX model would have {found} bytes; expected at most {LARGEST}, the most that protobuf allows"
            )
        }
        Ok(model.encode_to_vec())
    }
}

/// Returns whether `bytes` begin as [`Network::to_onnx`] begins a model: with its version and this program's name. A file that does
/// not may be another program's and must not be overwritten.
pub fn is_own_onnx(bytes: &[u8]) -> bool {
    let head = proto::ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some(PRODUCER.to_owned()),
        ..proto::ModelProto::default()
    };
    bytes.starts_with(&head.encode_to_vec())
}

#[cfg(test)]
mod tests;
