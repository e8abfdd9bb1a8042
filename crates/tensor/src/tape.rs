//! A record of a network's forward pass, and the backward pass through it.
//!
//! candle differentiates any expression, at a cost: each gradient starts as a tensor of zeros, the first
//! contribution is added to it in a new tensor, and every activation lives until the whole graph is dropped.
//! A tape knows a few ops only. It passes a gradient on without a copy, adds two gradients of one value in
//! place, and frees each activation as soon as no later gradient needs it. Its ops are the candle ops of this
//! crate, with the same kernels and the same gradients.
//!
//! A network runs on the tape. Its outputs become variables ([`Tape::leaf`]) of a loss made of candle's ops,
//! and [`Tape::backward`] sends the loss's gradients at these variables back through the network.

use crate::add_into::AddInto;
use crate::attention::Attention;
use crate::batch_norm::{Normalized, normalize};
use crate::bias_relu::BiasRelu;
use crate::conv2d::{Conv2d, convolution};
use crate::gelu::Gelu;
use crate::l2_normalize::L2Normalize;
use crate::layer_norm::LayerNorm;
use crate::linear::Linear;
use crate::local_response_norm::LocalResponseNorm;
use crate::one::{One, OneOp};
use crate::pool::Pool;
use crate::team::with_team;
use crate::tokens::{Offsets, Tokens};
use crate::{BatchNormConfig, Conv2dConfig, LocalResponseNormConfig, PoolConfig, RunningStatistics};
use candle_core::backprop::GradStore;
use candle_core::{CustomOp1, Result, Tensor, Var, bail};

/// A tensor that a tape's ops take and return.
#[derive(Debug, Clone)]
pub struct Value {
    tensor: Tensor,
    /// Index among the tape's values; `None` if the value gets no gradient.
    id: Option<usize>,
}

impl Value {
    /// Wraps a tensor that gets no gradient.
    pub fn constant(tensor: &Tensor) -> Self {
        Self { tensor: tensor.detach(), id: None }
    }

    /// Returns the tensor itself, outside of any of candle's graphs.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }
}

/// The ops in the order in which they ran, with what their gradients need.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use invaspread_tensor::{Tape, Value};
///
/// let x = Tensor::new(&[[1f64, 2.0]], &Device::Cpu)?;
/// let weight = Var::from_tensor(&Tensor::new(&[[3f64, 4.0]], &Device::Cpu)?)?;
/// let bias = Var::from_tensor(&Tensor::new(&[5f64], &Device::Cpu)?)?;
///
/// let mut tape = Tape::default();
/// let y = tape.linear(&Value::constant(&x), &weight, &bias)?;
/// assert_eq!(y.tensor().to_vec2::<f64>()?, [[16.0]]);
///
/// // candle differentiates the loss; the tape carries its gradient on to the parameters.
/// let leaf = tape.leaf(&y)?;
/// let mut gradients = leaf.sqr()?.sum_all()?.backward()?;
/// tape.backward(&mut gradients)?;
/// assert_eq!(gradients.get(&weight).unwrap().to_vec2::<f64>()?, [[32.0, 64.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Tape {
    /// Whether nothing is recorded.
    idle: bool,
    steps: Vec<Step>,
    values: usize,
    leaves: Vec<(Var, usize)>,
    /// Tensors from outside of the tape that get a gradient, each with the index of its value.
    inputs: Vec<(Tensor, usize)>,
}

#[derive(Debug)]
struct Step {
    op: Op,
    output: usize,
}

enum Op {
    Conv2d {
        op: Conv2d,
        x: Value,
        weight: Var,
    },
    BatchNorm {
        op: Normalized,
        x: Value,
        parameters: [Var; 2],
        residual: Option<Value>,
        y: Tensor,
    },
    /// The gradient needs the index of `x`, not its values.
    BiasRelu {
        op: BiasRelu,
        x: Option<usize>,
        bias: Var,
        y: Tensor,
    },
    Linear {
        op: Linear,
        x: Value,
        parameters: [Var; 2],
    },
    /// The axis, and the index and the length along the axis of each part.
    Concatenate {
        axis: usize,
        parts: Vec<(Option<usize>, usize)>,
    },
    One {
        op: Box<dyn CustomOp1 + Send + Sync>,
        x: Value,
        y: Tensor,
    },
    /// An op with any number of inputs, and the function that gives their gradients, in the same order.
    Several {
        name: &'static str,
        inputs: Vec<Input>,
        gradients: Gradients,
    },
}

/// Something that an op's gradient goes to: the value with that index, nothing, or a parameter.
enum Input {
    Value(Option<usize>),
    Parameter(Var),
}

/// Computes the gradients of an op's inputs from that of its result.
type Gradients = Box<dyn FnOnce(&Tensor) -> Result<Vec<Tensor>> + Send + Sync>;

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Conv2d { .. } => "conv2d",
            Self::BatchNorm { .. } => "batch_norm",
            Self::BiasRelu { .. } => "bias_relu",
            Self::Linear { .. } => "linear",
            Self::Concatenate { .. } => "concatenate",
            Self::One { op, .. } => op.name(),
            Self::Several { name, .. } => name,
        })
    }
}

impl Tape {
    /// Makes a tape that records nothing, for evaluation: ops run, no activation outlives its last use, and
    /// no gradient goes back.
    pub fn idle() -> Self {
        Self { idle: true, ..Self::default() }
    }

    fn push(&mut self, op: Op, y: Tensor) -> Value {
        if self.idle {
            return Value { tensor: y, id: None };
        }
        let output = self.values;
        self.values += 1;
        self.steps.push(Step { op, output });
        Value { tensor: y, id: Some(output) }
    }

    /// Takes a tensor from outside, such as another tape's leaf, as a value. [`Tape::backward`] adds the
    /// value's gradient to the gradients under that tensor, so one pass may continue from the outputs of
    /// another.
    pub fn input(&mut self, tensor: &Tensor) -> Value {
        if self.idle {
            return Value::constant(tensor);
        }
        let id = self.values;
        self.values += 1;
        self.inputs.push((tensor.clone(), id));
        Value { tensor: tensor.detach(), id: Some(id) }
    }

    /// Runs [`crate::conv2d`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::conv2d`].
    pub fn conv2d(&mut self, x: &Value, weight: &Var, config: Conv2dConfig) -> Result<Value> {
        let op = convolution(&x.tensor, weight, config)?;
        let y = op.apply(&x.tensor, &weight.as_detached_tensor())?;
        Ok(self.push(Op::Conv2d { op, x: x.clone(), weight: weight.clone() }, y))
    }

    /// Runs [`crate::batch_norm`] and moves the running statistics towards the batch's.
    ///
    /// # Errors
    /// Returns the errors of [`crate::batch_norm`].
    pub fn batch_norm(
        &mut self,
        x: &Value,
        [gamma, beta]: [&Var; 2],
        residual: Option<&Value>,
        config: BatchNormConfig,
        running: &mut RunningStatistics,
    ) -> Result<Value> {
        let (op, y) = normalize(&x.tensor, [gamma, beta], residual.map(Value::tensor), config, running)?;
        let parameters = [gamma.clone(), beta.clone()];
        let op = Op::BatchNorm { op, x: x.clone(), parameters, residual: residual.cloned(), y: y.clone() };
        Ok(self.push(op, y))
    }

    /// Runs [`crate::bias_relu`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::bias_relu`].
    pub fn bias_relu(&mut self, x: &Value, bias: &Var) -> Result<Value> {
        let op = BiasRelu::new(&x.tensor, bias)?;
        let y = op.run(&x.tensor, &bias.as_detached_tensor())?;
        Ok(self.push(Op::BiasRelu { op, x: x.id, bias: bias.clone(), y: y.clone() }, y))
    }

    /// Runs [`crate::linear`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::linear`].
    pub fn linear(&mut self, x: &Value, weight: &Var, bias: &Var) -> Result<Value> {
        let op = Linear::new(&x.tensor, weight, bias)?;
        let y = op.run(&x.tensor, &weight.as_detached_tensor(), &bias.as_detached_tensor())?;
        Ok(self.push(Op::Linear { op, x: x.clone(), parameters: [weight.clone(), bias.clone()] }, y))
    }

    /// Returns `x Wᵀ`: a linear layer without bias, for places where a bias would have no effect, such as
    /// before a batch norm.
    ///
    /// # Errors
    /// If the shapes do not match.
    pub fn linear_without_bias(&mut self, x: &Value, weight: &Var) -> Result<Value> {
        let zeros = Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
        self.linear(x, weight, &Var::from_tensor(&zeros)?)
    }

    /// Joins maps (N, H, W, C_i) along the channels, in order: returns (N, H, W, C) with C the sum of the
    /// C_i.
    ///
    /// # Errors
    /// If there are no maps, or they differ in more than their channels.
    pub fn concatenate(&mut self, parts: &[Value]) -> Result<Value> {
        let last = parts.first().map_or(0, |x| x.tensor.rank().saturating_sub(1));
        self.join(parts, last)
    }

    /// Stacks tensors (N_i, ...) along the first axis: returns (N, ...) with N the sum of the N_i.
    ///
    /// # Errors
    /// If there are no tensors, or they differ in more than their rows.
    pub fn stack_rows(&mut self, parts: &[Value]) -> Result<Value> {
        self.join(parts, 0)
    }

    fn join(&mut self, parts: &[Value], axis: usize) -> Result<Value> {
        let tensors: Vec<&Tensor> = parts.iter().map(Value::tensor).collect();
        let y = Tensor::cat(&tensors, axis)?;
        let parts = parts.iter().map(|x| Ok((x.id, x.tensor.dim(axis)?))).collect::<Result<_>>()?;
        Ok(self.push(Op::Concatenate { axis, parts }, y))
    }

    /// Runs [`crate::max_pool2d`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::max_pool2d`].
    pub fn max_pool2d(&mut self, x: &Value, config: PoolConfig) -> Result<Value> {
        self.one(x, Pool::maximum(&x.tensor, config)?)
    }

    /// Runs [`crate::local_response_norm`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::local_response_norm`].
    pub fn local_response_norm(&mut self, x: &Value, config: LocalResponseNormConfig) -> Result<Value> {
        self.one(x, LocalResponseNorm::new(&x.tensor, config)?)
    }

    /// Runs [`crate::avg_pool2d`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::avg_pool2d`].
    pub fn avg_pool2d(&mut self, x: &Value, config: PoolConfig) -> Result<Value> {
        self.one(x, Pool::average(&x.tensor, config)?)
    }

    /// Runs [`crate::l2_normalize`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::l2_normalize`].
    pub fn l2_normalize(&mut self, x: &Value) -> Result<Value> {
        self.one(x, L2Normalize::new(&x.tensor)?)
    }

    /// Runs [`crate::gelu`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::gelu`].
    pub fn gelu(&mut self, x: &Value) -> Result<Value> {
        self.one(x, Gelu)
    }

    /// Runs [`crate::attention`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::attention`].
    pub fn attention(&mut self, x: &Value, tokens: usize, heads: usize) -> Result<Value> {
        self.one(x, Attention::new(&x.tensor, tokens, heads)?)
    }

    /// Runs [`crate::layer_norm`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::layer_norm`].
    pub fn layer_norm(&mut self, x: &Value, [gamma, beta]: [&Var; 2], epsilon: f64) -> Result<Value> {
        let op = LayerNorm::new(&x.tensor, gamma, beta, epsilon)?;
        let y = op.run(&x.tensor, gamma, beta)?;
        let inputs =
            vec![Input::Value(x.id), Input::Parameter(gamma.clone()), Input::Parameter(beta.clone())];
        let (x, gamma) = (x.tensor.clone(), gamma.as_detached_tensor());
        let gradients = move |gy: &Tensor| Ok(op.gradients(&x, &gamma, gy)?.into());
        Ok(self.push(Op::Several { name: "layer_norm", inputs, gradients: Box::new(gradients) }, y))
    }

    /// Runs [`crate::token_offsets`] and [`crate::tokens`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::token_offsets`] and [`crate::tokens`].
    pub fn tokens(&mut self, x: &Value, [bias, class, position]: [&Var; 3]) -> Result<Value> {
        let (_, height, width, _) = x.tensor.dims4()?;
        let offsets = Offsets::new(bias, class, position, [height, width])?;
        let of_tokens = offsets.run(bias, class, position)?;
        let tokens = Tokens::new(&x.tensor, &of_tokens)?;
        let y = tokens.run(&x.tensor, &of_tokens)?;
        let parameters = [bias, class, position].map(|parameter| Input::Parameter(parameter.clone()));
        let inputs = std::iter::once(Input::Value(x.id)).chain(parameters).collect();
        let gradients = move |gy: &Tensor| {
            let [gx, of_tokens] = tokens.gradients(gy)?;
            let [bias, class, position] = offsets.gradients(&of_tokens)?;
            Ok(vec![gx, bias, class, position])
        };
        Ok(self.push(Op::Several { name: "tokens", inputs, gradients: Box::new(gradients) }, y))
    }

    /// Returns the sum of two values of one shape.
    ///
    /// # Errors
    /// If their shapes or data types differ.
    pub fn add(&mut self, a: &Value, b: &Value) -> Result<Value> {
        if a.tensor.dims() != b.tensor.dims() {
            bail!("add: {:?} and {:?}, expected one shape", a.tensor.shape(), b.tensor.shape())
        }
        let y = a.tensor.copy()?;
        add_into(&y, &b.tensor)?;
        let inputs = vec![Input::Value(a.id), Input::Value(b.id)];
        // Later gradients are added to each in place, so each has memory of its own.
        let gradients = |gy: &Tensor| Ok(vec![gy.copy()?, gy.clone()]);
        Ok(self.push(Op::Several { name: "add", inputs, gradients: Box::new(gradients) }, y))
    }

    /// Returns every row of `x` (R, C) whose number is a multiple of `step`: the first of each `step` rows.
    ///
    /// # Errors
    /// If `step` does not divide the number of rows.
    pub fn every_row(&mut self, x: &Value, step: usize) -> Result<Value> {
        let (rows, columns) = x.tensor.dims2()?;
        if step == 0 || !rows.is_multiple_of(step) {
            bail!("every_row: {rows} rows, expected a multiple of {step}")
        }
        let y = x.tensor.reshape((rows / step, step, columns))?.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let gradients = move |gy: &Tensor| {
            let first = gy.reshape((rows / step, 1, columns))?;
            Ok(vec![first.pad_with_zeros(1, 0, step - 1)?.reshape((rows, columns))?])
        };
        let inputs = vec![Input::Value(x.id)];
        Ok(self.push(Op::Several { name: "every_row", inputs, gradients: Box::new(gradients) }, y))
    }

    /// Keeps the first axis and joins the others into one.
    ///
    /// # Errors
    /// If the tensor has no axis.
    pub fn flatten(&mut self, x: &Value) -> Result<Value> {
        // The gradient holds the same values in the same order; candle reshapes it where shapes are compared.
        Ok(Value { tensor: x.tensor.flatten_from(1)?, id: x.id })
    }

    fn one(&mut self, x: &Value, op: impl One) -> Result<Value> {
        let y = op.run(&x.tensor)?;
        Ok(self.push(Op::One { op: Box::new(OneOp(op)), x: x.clone(), y: y.clone() }, y))
    }

    /// Returns the value as a variable for a loss, whose gradient then goes back through the tape.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub fn leaf(&mut self, value: &Value) -> Result<Tensor> {
        let variable = Var::from_tensor(&value.tensor)?;
        let tensor = variable.as_tensor().clone();
        if let Some(id) = value.id {
            self.leaves.push((variable, id));
        }
        Ok(tensor)
    }

    /// Takes the gradients of the leaves out of `gradients`, sends them back through the tape, and adds the
    /// gradients of all parameters and inputs. The gradients of a parameter that several ops used, on this
    /// tape or on one whose backward pass ran before, are added up.
    ///
    /// # Errors
    /// If the shape of a gradient differs from that of its value.
    pub fn backward(self, gradients: &mut GradStore) -> Result<()> {
        // The GPU does the work, so a team's workers would only wait.
        if self.leaves.iter().any(|(leaf, _)| leaf.device().is_cuda()) {
            return self.go_back(gradients);
        }
        with_team(|| self.go_back(gradients))
    }

    fn go_back(mut self, gradients: &mut GradStore) -> Result<()> {
        let mut of: Vec<Option<Tensor>> = vec![None; self.values];
        for (leaf, id) in &self.leaves {
            if let Some(gradient) = gradients.remove(leaf) {
                // A copy is needed: the loss may hold the same tensor, and later additions happen in place.
                add(&mut of[*id], gradient.copy()?)?;
            }
        }
        while let Some(Step { op, output }) = self.steps.pop() {
            let Some(gy) = of[output].take() else { continue };
            let before = match &op {
                Op::Conv2d { x: Value { id: Some(id), .. }, .. } => of[*id].clone(),
                _ => None,
            };
            let mut hand_back = |id: Option<usize>, gradient: Option<Tensor>| match (id, gradient) {
                (Some(id), Some(gradient)) => add(&mut of[id], gradient),
                _ => Ok(()),
            };
            let mut parameter = |variable: &Var, gradient: Tensor| sum_into(gradients, variable, gradient);
            match op {
                Op::Conv2d { op, x, weight } => {
                    let w = weight.as_detached_tensor();
                    let (gx, gw) =
                        op.gradients(&x.tensor, &w, &gy, [x.id.is_some(), true], before.as_ref())?;
                    hand_back(x.id, gx)?;
                    if let Some(gw) = gw {
                        parameter(&weight, gw)?;
                    }
                }
                Op::BatchNorm { op, x, parameters: [gamma, beta], residual, y } => {
                    let to_residual = residual.as_ref().is_some_and(|r| r.id.is_some());
                    let back = op.gradients([&x.tensor, &y, &gy], [&gamma, &beta], to_residual)?;
                    hand_back(x.id, Some(back.x))?;
                    if let Some(residual) = &residual {
                        hand_back(residual.id, back.residual)?;
                    }
                    parameter(&gamma, back.gamma)?;
                    parameter(&beta, back.beta)?;
                }
                Op::BiasRelu { op, x, bias, y } => {
                    let (gx, gb) = op.gradients(&y, &gy)?;
                    hand_back(x, Some(gx))?;
                    parameter(&bias, gb)?;
                }
                Op::Linear { op, x, parameters: [weight, bias] } => {
                    let (gx, gw, gb) = op.gradients(&x.tensor, &weight.as_detached_tensor(), &gy)?;
                    hand_back(x.id, Some(gx))?;
                    parameter(&weight, gw)?;
                    parameter(&bias, gb)?;
                }
                Op::Concatenate { axis, parts } => {
                    let mut first = 0;
                    for (id, length) in parts {
                        let part = gy.narrow(axis, first, length)?;
                        hand_back(id, Some(part.contiguous()?))?;
                        first += length;
                    }
                }
                Op::One { op, x, y } => {
                    let gx = op.bwd(&x.tensor, &y, &gy.reshape(y.shape())?)?;
                    hand_back(x.id, gx)?;
                }
                Op::Several { inputs, gradients, .. } => {
                    for (input, gradient) in inputs.into_iter().zip(gradients(&gy)?) {
                        match input {
                            Input::Value(id) => hand_back(id, Some(gradient))?,
                            Input::Parameter(of) => parameter(&of, gradient)?,
                        }
                    }
                }
            }
        }
        for (tensor, id) in &self.inputs {
            if let Some(gradient) = of[*id].take() {
                sum_into(gradients, tensor, gradient.reshape(tensor.shape())?)?;
            }
        }
        Ok(())
    }
}

/// Adds a gradient to the one that a store holds for a tensor. The addition is not in place, because a loss
/// may hold the tensor that was there.
fn sum_into(gradients: &mut GradStore, of: &Tensor, gradient: Tensor) -> Result<()> {
    let sum = match gradients.remove(of) {
        // On CUDA, the gradient of a convolution's weight may be in the activations' precision.
        Some(before) => (before.to_dtype(of.dtype())? + gradient.to_dtype(of.dtype())?)?,
        None => gradient,
    };
    gradients.insert(of, sum);
    Ok(())
}

/// Adds a gradient to the sum of those that arrived before it.
fn add(to: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    match to {
        None => {
            *to = Some(gradient);
            Ok(())
        }
        Some(sum) => add_into(sum, &gradient),
    }
}

/// Adds a tensor to another in place.
fn add_into(to: &Tensor, from: &Tensor) -> Result<()> {
    let from = from.contiguous()?;
    #[cfg(feature = "cuda")]
    if to.device().is_cuda() {
        let device = to.device().as_cuda_device()?;
        let inputs = [crate::cuda::Input::of(to)?, crate::cuda::Input::of(&from)?];
        return crate::cuda::add_into(inputs[0], inputs[1], to.elem_count(), device);
    }
    to.inplace_op2(&from, &AddInto)
}
