//! Passes of the views of a batch through the network, each on its own: batch norm takes the statistics of
//! one view, and moves the running statistics once for each view, as the code of BYOL, `SimSiam` and MoCo
//! does.

use candle_core::{Result, Tensor};
use invaspread_models::{Mode, Network, Output};

/// Returns view number `number` of `count` views of each image, (B, S, S, 3); `views` holds all of them, the
/// first views of all images before the second ones.
///
/// # Errors
/// Returns an error if candle fails or there is no such view.
pub(super) fn one_view(views: &Tensor, number: usize, count: usize) -> Result<Tensor> {
    let images = views.dim(0)? / count;
    views.narrow(0, number * images, images)?.contiguous()
}

/// Runs the network on each of the two views of a batch. Returns the output of the first pass, whose backward
/// pass goes through both, and the pooled features of each view, from which heads continue.
///
/// # Errors
/// Returns an error if candle fails or the views do not fit the network.
pub(super) fn each_view(network: &Network, views: &Tensor) -> Result<(Output, [Tensor; 2])> {
    let mut output = network.forward(&one_view(views, 0, 2)?, Mode::Train)?;
    let mut second = network.forward(&one_view(views, 1, 2)?, Mode::Train)?;
    output.join(&mut second);
    let pooled = [output.pooled.clone(), second.pooled];
    Ok((output, pooled))
}
