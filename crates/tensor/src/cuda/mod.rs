//! The CUDA side of the ops: the device, its memory, and the calls of our kernels and of NVIDIA's libraries.
//!
//! Nothing here is linked against CUDA. Every library is opened when a device is opened, so that one binary
//! runs on machines with and without a GPU. All work goes to one stream, in order, and only copies to the
//! host wait for it.
//!
//! A value on the device is a [`candle_core::Tensor`]; kernels read from its address ([`Input`]) and write
//! into fresh memory ([`Output`]).

mod algorithms;
pub mod augment;
mod batch_norm;
mod bias_relu;
mod blas;
mod by_channels;
mod conv2d;
mod graph;
mod host_copy;
mod input;
mod kept_weights;
mod kernel;
pub mod kmeans;
pub mod knn;
mod libraries;
pub mod losses;
mod memory;
mod peak;
mod pool;
mod rows;
mod sgd;
mod step_counter;
mod switches;
pub mod testing;
pub mod top_k;
pub(crate) mod transformer;

pub use algorithms::{algorithms, notes, take_algorithms};
pub(crate) use batch_norm::{Saved, normalize, normalize_by, normalize_gradients};
pub(crate) use bias_relu::{bias_relu, bias_relu_gradients};
pub use blas::{Product, product};
pub(crate) use conv2d::{forward as convolve, gradients as convolution_gradients};
pub use graph::StepGraph;
pub(crate) use graph::count_run;
pub use host_copy::HostCopy;
pub(crate) use input::Input;
pub(crate) use kept_weights::{Kept, forget as forget_kept_weight};
pub(crate) use libraries::keep_compiled_kernels;
pub use libraries::{Facts, device, device_count, facts, why_not};
pub use memory::HostLog;
pub(crate) use memory::{add_into, cast_channels};
pub use peak::{PeakMemory, peak_gflops, peak_memory};
pub(crate) use pool::{
    Window, average, average_gradient, local_response, local_response_gradient, maximum, maximum_gradient,
};
pub use rows::scale_by;
pub(crate) use rows::{add_bias, l2_normalize, l2_normalize_gradient, sum_rows};
pub(crate) use sgd::step as sgd_step;
pub use step_counter::StepCounter;
pub use switches::{ConvolutionApi, Switches};

use candle_core::{CudaDevice, Error, Result, Tensor};

/// Returns the device that a tensor is on.
pub(crate) fn device_of(tensor: &Tensor) -> Result<&CudaDevice> {
    tensor.device().as_cuda_device()
}

/// Makes an error of the driver or of one of NVIDIA's libraries; `what` says what was being done.
pub(crate) fn failed(what: impl std::fmt::Display, error: impl std::fmt::Debug) -> Error {
    Error::Msg(format!("cuda: {what}: {}", crate::driver_error::message(&format!("{error:?}"))))
}
