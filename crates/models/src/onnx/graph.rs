//! The graph of an ONNX model, built operation by operation in the order in which it runs.

use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_proto::DataType;
use super::proto::tensor_shape_proto::{Dimension, dimension::Value as Length};
use super::proto::type_proto::{Tensor as TensorType, Value as Kind};
use super::proto::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use candle_core::{DType, Device, Result, Tensor};
use invaspread_tensor::{LocalResponseNormConfig, PoolConfig, with_f32};

/// A value of a graph: the model's input, a weight, or the result of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Edge(String);

/// A graph that is being built.
///
/// An operation has a name, which is that of its layer where it has one; its result has the same name. Weights have their own
/// names, which end in `.weight` and the like, so no two values share one.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

/// The name of the model's input.
const IMAGES: &str = "images";

/// An operator, its attributes and the name of its result.
struct Operation {
    operator: &'static str,
    name: String,
    attributes: Vec<AttributeProto>,
}

impl Operation {
    fn new(operator: &'static str, name: impl Into<String>) -> Self {
        Self { operator, name: name.into(), attributes: Vec::new() }
    }

    fn int(mut self, name: &str, value: i64) -> Self {
        self.attributes.push(AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) });
        self
    }

    fn ints(mut self, name: &str, values: impl IntoIterator<Item = usize>) -> Self {
        let ints = values.into_iter().map(|value| value as i64).collect();
        self.attributes.push(AttributeProto { ints, ..attribute(name, AttributeType::Ints) });
        self
    }

    fn float(mut self, name: &str, value: f64) -> Self {
        self.attributes
            .push(AttributeProto { f: Some(value as f32), ..attribute(name, AttributeType::Float) });
        self
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

impl Graph {
    /// Returns the model's input.
    pub(crate) fn images() -> Edge {
        Edge(IMAGES.to_owned())
    }

    /// Adds a weight (f32) under its name in the state dict, in PyTorch's layout.
    pub(crate) fn weight(&mut self, name: &str, weight: &Tensor) -> Result<Edge> {
        let values = weight.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        let raw = with_f32(&values, |values| values.iter().flat_map(|x| x.to_le_bytes()).collect())?;
        Ok(self.constant(name, weight.dims(), DataType::Float, raw))
    }

    /// Adds whole numbers: a shape or an index.
    fn whole(&mut self, name: &str, values: &[i64], shape: &[usize]) -> Edge {
        self.constant(name, shape, DataType::Int64, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// Adds a single number.
    fn number(&mut self, name: &str, value: f64) -> Edge {
        self.constant(name, &[], DataType::Float, (value as f32).to_le_bytes().to_vec())
    }

    fn constant(&mut self, name: &str, shape: &[usize], dtype: DataType, raw: Vec<u8>) -> Edge {
        self.weights.push(TensorProto {
            name: Some(name.to_owned()),
            dims: shape.iter().map(|&len| len as i64).collect(),
            data_type: Some(dtype as i32),
            raw_data: Some(raw),
            ..TensorProto::default()
        });
        Edge(name.to_owned())
    }

    fn run<'a>(&mut self, operation: Operation, inputs: impl IntoIterator<Item = &'a Edge>) -> Edge {
        self.nodes.push(NodeProto {
            name: Some(operation.name.clone()),
            op_type: Some(operation.operator.to_owned()),
            input: inputs.into_iter().map(|edge| edge.0.clone()).collect(),
            output: vec![operation.name.clone()],
            attribute: operation.attributes,
            ..NodeProto::default()
        });
        Edge(operation.name)
    }

    /// Adds a convolution of square kernels with `weights`: the weight (C_out, C_in, K, K) and, if there is one, the bias.
    pub(crate) fn convolution<'a>(
        &mut self,
        name: &str,
        x: &'a Edge,
        weights: &'a [Edge],
        [kernel, stride, padding]: [usize; 3],
    ) -> Edge {
        let operation = Operation::new("Conv", name)
            .ints("kernel_shape", [kernel; 2])
            .ints("strides", [stride; 2])
            .ints("pads", [padding; 4]);
        self.run(operation, std::iter::once(x).chain(weights))
    }

    /// Adds a batch norm by running statistics. `weights` are gain, shift, mean and variance.
    pub(crate) fn batch_norm(&mut self, name: &str, x: &Edge, weights: &[Edge; 4], epsilon: f64) -> Edge {
        let operation = Operation::new("BatchNormalization", name).float("epsilon", epsilon);
        self.run(operation, std::iter::once(x).chain(weights))
    }

    pub(crate) fn relu(&mut self, name: String, x: &Edge) -> Edge {
        self.run(Operation::new("Relu", name), [x])
    }

    pub(crate) fn add(&mut self, name: String, x: &Edge, y: &Edge) -> Edge {
        self.run(Operation::new("Add", name), [x, y])
    }

    /// Adds a maximum pool of a map with sides of length `len`. The output size of ceil mode is had by padding at the end, which
    /// does not change a maximum and which every runtime understands in the same way. The window must fit.
    pub(crate) fn max_pool(&mut self, name: &str, x: &Edge, config: PoolConfig, len: usize) -> Edge {
        let PoolConfig { kernel, stride, padding, .. } = config;
        let out = config.out_len(len).unwrap_or(1);
        let end = ((out - 1) * stride + kernel).saturating_sub(len + padding);
        let operation = Operation::new("MaxPool", name)
            .ints("kernel_shape", [kernel; 2])
            .ints("strides", [stride; 2])
            .ints("pads", [padding, padding, end, end]);
        self.run(operation, [x])
    }

    /// Adds the mean of the top left `side` x `side` pixels of a map, of which no second window fits: (N, C).
    pub(crate) fn average(&mut self, name: &str, x: &Edge, side: usize) -> Edge {
        let operation = Operation::new("AveragePool", format!("{name}.map"))
            .ints("kernel_shape", [side; 2])
            .ints("strides", [side; 2]);
        let map = self.run(operation, [x]);
        self.run(Operation::new("Flatten", name).int("axis", 1), [&map])
    }

    /// Adds a local response norm with the centered window.
    pub(crate) fn local_response_norm(
        &mut self,
        name: &str,
        x: &Edge,
        config: LocalResponseNormConfig,
    ) -> Edge {
        let operation = Operation::new("LRN", name)
            .int("size", config.size as i64)
            .float("alpha", config.alpha)
            .float("beta", config.beta)
            .float("bias", config.k);
        self.run(operation, [x])
    }

    /// Concatenates maps along the channels.
    pub(crate) fn concatenate(&mut self, name: String, maps: &[Edge]) -> Edge {
        self.run(Operation::new("Concat", name).int("axis", 1), maps)
    }

    /// Adds a linear layer of rows with the weight (out, in) and the bias (out).
    pub(crate) fn linear(&mut self, name: &str, x: &Edge, [weight, bias]: &[Edge; 2]) -> Edge {
        self.run(Operation::new("Gemm", name).int("transB", 1), [x, weight, bias])
    }

    /// Divides rows by their length. A row of zeros stays zero, as in [`invaspread_tensor::l2_normalize`].
    pub(crate) fn unit_rows(&mut self, name: &str, x: &Edge) -> Edge {
        let length =
            Operation::new("ReduceL2", format!("{name}.length")).ints("axes", [1]).int("keepdims", 1);
        let length = self.run(length, [x]);
        let [zero, one] =
            [("zero", 0.0), ("one", 1.0)].map(|(n, value)| self.number(&format!("{name}.{n}"), value));
        let is_zero = self.run(Operation::new("Equal", format!("{name}.is_zero")), [&length, &zero]);
        let divisor = self.run(Operation::new("Where", format!("{name}.divisor")), [&is_zero, &one, &length]);
        self.run(Operation::new("Div", name), [x, &divisor])
    }

    /// Adds a layer norm of rows. `weights` are gain and shift.
    pub(crate) fn layer_norm(&mut self, name: &str, x: &Edge, weights: &[Edge; 2], epsilon: f64) -> Edge {
        let operation = Operation::new("LayerNormalization", name).int("axis", -1).float("epsilon", epsilon);
        self.run(operation, std::iter::once(x).chain(weights))
    }

    /// Adds `x Φ(x)`, in the form that onnxruntime recognizes and fuses: `x (1 + erf(x / √2)) / 2`.
    pub(crate) fn gelu(&mut self, name: &str, x: &Edge) -> Edge {
        let [root, one, half] = [("root", std::f64::consts::SQRT_2), ("one", 1.0), ("half", 0.5)]
            .map(|(n, value)| self.number(&format!("{name}.{n}"), value));
        let scaled = self.run(Operation::new("Div", format!("{name}.scaled")), [x, &root]);
        let error = self.run(Operation::new("Erf", format!("{name}.erf")), [&scaled]);
        let sum = self.run(Operation::new("Add", format!("{name}.sum")), [&error, &one]);
        let product = self.run(Operation::new("Mul", format!("{name}.product")), [x, &sum]);
        self.run(Operation::new("Mul", name), [&product, &half])
    }

    /// Adds the attention among the `tokens` rows of each image: (N·tokens, 3·D) to (N·tokens, D), as
    /// [`invaspread_tensor::attention`].
    pub(crate) fn attention(&mut self, name: &str, x: &Edge, [tokens, heads, dim]: [usize; 3]) -> Edge {
        let [t, h, d] = [tokens, heads, dim].map(|len| len as i64);
        let named = |part: &str| format!("{name}.{part}");
        let split = self.reshape(&named("split"), x, &[-1, t, 3, h, d]);
        let apart = self.transpose(named("apart"), &split, [2, 0, 3, 1, 4]);
        let [q, k, v] = [("q", 0), ("k", 1), ("v", 2)].map(|(part, i)| self.pick(&named(part), &apart, 0, i));
        let keys = self.transpose(named("keys"), &k, [0, 1, 3, 2]);
        let products = self.run(Operation::new("MatMul", named("products")), [&q, &keys]);
        let scale = self.number(&named("scale"), (dim as f64).sqrt().recip());
        let scaled = self.run(Operation::new("Mul", named("scaled")), [&products, &scale]);
        let shares = self.run(Operation::new("Softmax", named("shares")).int("axis", -1), [&scaled]);
        let mixed = self.run(Operation::new("MatMul", named("mixed")), [&shares, &v]);
        let rows = self.transpose(named("rows"), &mixed, [0, 2, 1, 3]);
        self.reshape(name, &rows, &[-1, h * d])
    }

    /// Gives `x` another shape, in which one length may be -1: what is left.
    pub(crate) fn reshape(&mut self, name: &str, x: &Edge, shape: &[i64]) -> Edge {
        let shape = self.whole(&format!("{name}.shape"), shape, &[shape.len()]);
        self.run(Operation::new("Reshape", name), [x, &shape])
    }

    pub(crate) fn transpose<const R: usize>(&mut self, name: String, x: &Edge, axes: [usize; R]) -> Edge {
        self.run(Operation::new("Transpose", name).ints("perm", axes), [x])
    }

    /// Takes number `index` along `axis`, which is then gone.
    pub(crate) fn pick(&mut self, name: &str, x: &Edge, axis: i64, index: i64) -> Edge {
        let index = self.whole(&format!("{name}.index"), &[index], &[]);
        self.run(Operation::new("Gather", name).int("axis", axis), [x, &index])
    }

    /// Puts rows of zeros before and after those of `x` (N, rows, D).
    pub(crate) fn pad_rows(&mut self, name: &str, x: &Edge, [before, after]: [usize; 2]) -> Edge {
        let pads = [0, before as i64, 0, 0, after as i64, 0];
        let pads = self.whole(&format!("{name}.pads"), &pads, &[pads.len()]);
        self.run(Operation::new("Pad", name), [x, &pads])
    }

    /// Returns the graph under `name`, for images of `[channels, side]`. The result of its last operation is the model's output,
    /// with the given name and length.
    pub(super) fn finish(
        mut self,
        name: String,
        [channels, side]: [usize; 2],
        output: (&str, usize),
    ) -> GraphProto {
        let last = self.nodes.last_mut().expect("every network has operations");
        last.output = vec![output.0.to_owned()];
        GraphProto {
            name: Some(name),
            node: self.nodes,
            initializer: self.weights,
            input: vec![value(IMAGES, &[channels, side, side])],
            output: vec![value(output.0, &[output.1])],
            ..GraphProto::default()
        }
    }
}

/// Describes a value of f32 with N rows of the given shape.
fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let length = |value| Dimension { value: Some(value), ..Dimension::default() };
    let free = std::iter::once(length(Length::DimParam("N".to_owned())));
    let dim = free.chain(shape.iter().map(|&len| length(Length::DimValue(len as i64)))).collect();
    let tensor =
        TensorType { elem_type: Some(DataType::Float as i32), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(Kind::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
