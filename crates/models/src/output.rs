//! What a network gives for a batch, and the way back from a loss of it.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, bail};
use invaspread_tensor::Tape;

/// Whether batch norm uses the batch's own statistics (and updates the running ones), or the running ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Differentiable; batch statistics.
    Train,
    /// Not differentiable; running statistics.
    Evaluate,
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
    /// `None` in evaluation, and once it has been gone back through.
    pub(crate) tape: Option<Tape>,
}

impl Output {
    /// Gradients of `loss`, a scalar made from these outputs by candle's ops, with respect to every parameter it depends on.
    /// Frees the activations.
    ///
    /// # Errors
    /// If the output is one of evaluation, or was gone back through before.
    pub fn backward(&mut self, loss: &Tensor) -> Result<GradStore> {
        let Some(tape) = self.tape.take() else {
            bail!("this output has nothing to go back through: it is one of evaluation, or was used already")
        };
        let mut gradients = loss.backward()?;
        tape.backward(&mut gradients)?;
        Ok(gradients)
    }
}
