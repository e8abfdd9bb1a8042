//! The operations that candle lacks or runs slowly, as candle custom ops: convolution, batch norm, bias with
//! ReLU, local response norm, pooling, linear layers, L2 normalization, and layer norm, GELU, attention and
//! tokens of vision transformers, with exact gradients. The crate also holds a tape that runs networks made
//! of these ops, SGD with momentum and LARS, seeded initializers, and the matrix products that losses and
//! metrics use.
//!
//! Activations are (N, H, W, C) and convolution weights (K_h, K_w, C_in, C_out). Every op takes f32, with
//! kernels for the widest vectors of the machine, and f64, with plain code for gradient checks; maps may also
//! be bf16, with parameters in f32. `unsafe` code lives in this crate alone.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod add_into;
mod assign;
mod attention;
mod batch_norm;
mod bias_relu;
mod conv2d;
#[cfg(feature = "cuda")]
#[allow(
    unsafe_code,
    reason = "kernels and NVIDIA's libraries are called by address; each block says why it holds"
)]
pub mod cuda;
mod device;
#[cfg(any(test, feature = "cuda"))]
mod driver_error;
mod gelu;
pub mod gemm;
pub mod gradient_check;
pub mod initialize;
pub mod inner_products;
mod known;
mod l2_normalize;
mod lars;
mod layer_norm;
mod linear;
mod local_response_norm;
mod memory;
mod one;
mod optimizer;
mod peak;
mod pool;
pub mod self_check;
mod sgd;
mod simd;
mod storage;
mod tape;
mod team;
mod threads;
mod tokens;

pub use assign::assign;
pub use attention::attention;
pub use batch_norm::{BatchNormConfig, RunningStatistics, Statistics, batch_norm, batch_norm_with};
pub use bias_relu::bias_relu;
pub use conv2d::{Algorithm, Conv2dConfig, conv2d};
pub use device::{DeviceKind, Precision, activations};
pub use gelu::gelu;
pub use known::differentiable;
pub use l2_normalize::l2_normalize;
pub use lars::{Lars, LarsConfig};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use local_response_norm::{LocalResponseNormConfig, LocalResponseWindow, local_response_norm};
pub use memory::prepare_process;
pub use optimizer::{Optimizer, OptimizerConfig};
pub use peak::peak_gflops;
pub use pool::{PoolConfig, avg_pool2d, max_pool2d};
pub use sgd::{Sgd, SgdConfig};
pub use simd::{InstructionSet, instruction_set};
pub use storage::with_f32;
pub use tape::{Tape, Value};
pub use team::with_team;
pub use threads::{Started, start_threads};
pub use tokens::{token_offsets, tokens};
