//! What a network gives for a batch, and the way back from a loss of it.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, bail};
use invaspread_tensor::{Tape, Value};

/// How a network or a head runs: by which statistics batch norm normalizes, and whether gradients can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By the batch's own statistics, which move the running ones; differentiable.
    Train,
    /// As [`Mode::Train`] without gradients: how a momentum encoder runs.
    TrainWithoutGradient,
    /// By the running statistics, which stay; not differentiable.
    Evaluate,
}

impl Mode {
    /// A tape for a pass in this mode.
    pub(crate) fn tape(self) -> Tape {
        if self == Self::Train { Tape::default() } else { Tape::idle() }
    }
}

/// What a network says of a batch. In training the three are variables, for a loss to be taken of, and [`Output::backward`] carries
/// the loss's gradients on to the network's parameters.
#[derive(Debug)]
pub struct Output {
    /// (N, C): the pooled features before the linear layer.
    pub pooled: Tensor,
    /// (N, E): the linear layer's output, of any length.
    pub projection: Tensor,
    /// (N, E): the projection divided by its length.
    pub embedding: Tensor,
    /// In the order in which they ran; none without gradients, and once they have been gone back through.
    pub(crate) tapes: Vec<Tape>,
}

impl Output {
    /// Continues the forward pass, for a projector or a predictor: `run` puts ops onto a tape, beginning with `x`, one of these outputs
    /// or what an earlier call returned. Returns what `run` does, in training as a variable for the loss.
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
    ///     // The embedding layer has no part in it.
    ///     assert_eq!(gradients.get(&parameter).is_some(), !name.starts_with("linear"));
    /// }
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `run`, or if `x` was computed from an output by candle, through which a gradient could not go back.
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
                "a pass goes on from an output itself or from what an earlier call returned, not from what was made of it"
            )
        }
        let mut tape = Tape::default();
        let input = tape.input(x);
        let y = run(&mut tape, &input)?;
        let leaf = tape.leaf(&y)?;
        self.tapes.push(tape);
        Ok(leaf)
    }

    /// Takes in another pass of the same batch, such as one of views of another size, so that [`Output::backward`] goes back through both
    /// and adds up what each gives a parameter. The other's tensors stay variables.
    pub fn join(&mut self, other: &mut Self) {
        self.tapes.append(&mut other.tapes);
    }

    /// Gradients of `loss`, a scalar made from these outputs by candle's ops, with respect to every parameter it depends on.
    /// Frees the activations.
    ///
    /// # Errors
    /// If the output is one of a pass without gradients, or was gone back through before.
    pub fn backward(&mut self, loss: &Tensor) -> Result<GradStore> {
        if self.tapes.is_empty() {
            bail!(
                "this output has nothing to go back through: its pass recorded no gradients, or it was used already"
            )
        }
        let mut gradients = loss.backward()?;
        for tape in std::mem::take(&mut self.tapes).into_iter().rev() {
            tape.backward(&mut gradients)?;
        }
        Ok(gradients)
    }
}
