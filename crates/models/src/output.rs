//! The outputs of a network for a batch, and the backward pass from a loss that is computed from them.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, bail};
use invaspread_tensor::{Tape, Value};

/// The way in which a network or a head runs: which statistics batch norm uses, and whether gradients are
/// recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch norm uses the statistics of the batch and moves the running ones; differentiable.
    Train,
    /// Like [`Mode::Train`], but without gradients; for a momentum encoder.
    TrainWithoutGradient,
    /// Batch norm uses the running statistics and does not change them; not differentiable.
    Evaluate,
}

impl Mode {
    /// Returns a tape for a pass in this mode.
    pub(crate) fn tape(self) -> Tape {
        if self == Self::Train { Tape::default() } else { Tape::idle() }
    }
}

/// The outputs of a network for a batch. In training the three are variables. A loss is computed from them,
/// and [`Output::backward`] carries its gradients on to the network's parameters.
#[derive(Debug)]
pub struct Output {
    /// (N, C): the pooled features before the linear layer.
    pub pooled: Tensor,
    /// (N, E): the output of the linear layer, not normalized.
    pub projection: Tensor,
    /// (N, E): the projection divided by its length.
    pub embedding: Tensor,
    /// The tapes in the order in which they ran. Empty without gradients and after [`Output::backward`].
    pub(crate) tapes: Vec<Tape>,
}

impl Output {
    /// Continues the forward pass, for a projector or a predictor: `run` puts ops onto a tape, beginning with
    /// `x`, which is one of these outputs or the result of an earlier call. Returns the result of `run`, in
    /// training as a variable for the loss.
    ///
    /// ```
    /// # use candle_core::{Device, Result, Tensor};
    /// # use invaspread_models::{Mlp, MlpConfig, Mode, Network, ResNetConfig};
    /// let network = Network::new(ResNetConfig { width: 8, pool: 0, ..Default::default() }, 0)?;
    /// let projector = Mlp::new("projector", &MlpConfig::new(64, 32, 16), 0, 0)?;
    /// let images = Tensor::rand(0f32, 1.0, (4, 8, 8, 3), &Device::Cpu)?;
    /// let mut output = network.forward(&images, Mode::Train)?;
    /// let rows = output.through(&output.pooled.clone(), |tape, x| {
    ///     let projected = projector.forward(tape, x, Mode::Train)?;
    ///     tape.l2_normalize(&projected)
    /// })?;
    /// let gradients = output.backward(&rows.narrow(1, 0, 3)?.sum_all()?)?;
    /// for (name, parameter) in network.parameters() {
    ///     // The loss does not depend on the embedding layer.
    ///     assert_eq!(gradients.get(&parameter).is_some(), !name.starts_with("linear"));
    /// }
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of `run`, and one if candle's ops computed `x` from an output: a gradient could not
    /// flow back through them.
    pub fn through(
        &mut self,
        x: &Tensor,
        run: impl FnOnce(&mut Tape, &Value) -> Result<Value>,
    ) -> Result<Tensor> {
        if self.tapes.is_empty() {
            let y = run(&mut Tape::idle(), &Value::constant(x))?;
            return Ok(y.tensor().clone());
        }
        if !x.is_variable() {
            bail!(
                "expected an output of this pass or the result of an earlier call, found a tensor that was computed from one"
            )
        }
        let mut tape = Tape::default();
        let input = tape.input(x);
        let y = run(&mut tape, &input)?;
        let leaf = tape.leaf(&y)?;
        self.tapes.push(tape);
        Ok(leaf)
    }

    /// Adds another pass of the same batch, for example of views of another size. [`Output::backward`] then
    /// goes back through both and adds up their gradients. The tensors of `other` stay variables.
    pub fn join(&mut self, other: &mut Self) {
        self.tapes.append(&mut other.tapes);
    }

    /// Stacks passes of the same batch, such as those of views of several sizes: the rows of the first pass,
    /// then those of the second, and so on. A head can continue from all rows at once ([`Output::through`]);
    /// its batch norms then take the statistics of all rows.
    ///
    /// ```
    /// # use candle_core::{Device, Result, Tensor};
    /// # use invaspread_models::{Mode, Network, Output, ResNetConfig};
    /// let network = Network::new(ResNetConfig { width: 8, pool: 0, ..Default::default() }, 0)?;
    /// let large = Tensor::rand(0f32, 1.0, (4, 16, 16, 3), &Device::Cpu)?;
    /// let small = Tensor::rand(0f32, 1.0, (6, 8, 8, 3), &Device::Cpu)?;
    /// let passes = vec![network.forward(&large, Mode::Train)?, network.forward(&small, Mode::Train)?];
    /// let output = Output::stacked(passes)?;
    /// assert_eq!(output.embedding.dims(), [10, 128]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no pass, or the passes differ in the lengths of their rows.
    pub fn stacked(passes: Vec<Self>) -> Result<Self> {
        let mut passes = passes;
        if passes.len() == 1 {
            return Ok(passes.swap_remove(0));
        }
        let differentiable = passes.iter().all(|pass| !pass.tapes.is_empty());
        let mut tape = if differentiable { Tape::default() } else { Tape::idle() };
        let mut stack = |of: fn(&Self) -> &Tensor| -> Result<Tensor> {
            let rows: Vec<Value> = passes.iter().map(|pass| tape.input(of(pass))).collect();
            let all = tape.stack_rows(&rows)?;
            if differentiable { tape.leaf(&all) } else { Ok(all.tensor().clone()) }
        };
        let pooled = stack(|pass| &pass.pooled)?;
        let projection = stack(|pass| &pass.projection)?;
        let embedding = stack(|pass| &pass.embedding)?;
        let mut tapes = Vec::new();
        if differentiable {
            tapes.extend(passes.into_iter().flat_map(|pass| pass.tapes));
            tapes.push(tape);
        }
        Ok(Self { pooled, projection, embedding, tapes })
    }

    /// Returns the gradients of `loss`, a scalar made from these outputs by candle's ops, with respect to
    /// every parameter it depends on. Frees the activations.
    ///
    /// # Errors
    /// If the pass recorded no gradients, or if `backward` was called before.
    pub fn backward(&mut self, loss: &Tensor) -> Result<GradStore> {
        if self.tapes.is_empty() {
            bail!(
                "no backward pass is possible: the pass recorded no gradients, or `backward` was called before"
            )
        }
        let mut gradients = loss.backward()?;
        for tape in std::mem::take(&mut self.tapes).into_iter().rev() {
            tape.backward(&mut gradients)?;
        }
        Ok(gradients)
    }
}
