//! The objectives of the paper's Table 1, NT-Xent and DCL, one file each: functions of embeddings and, for
//! some, of a memory bank.
//!
//! Every loss takes candle tensors (f32 or f64 on the CPU, f32 on CUDA) and returns a scalar tensor that
//! `backward` goes through. Value and gradient are computed together in one pass over slices; candle only
//! carries them. Nothing here reads a file, knows a data set or picks a device. The number of threads never
//! changes a bit: rows are computed in parallel, each is reduced in a fixed order, and the rows are added up
//! one after another.
//!
//! Every softmax subtracts the largest score first and keeps the row's own class apart from all the others.
//! So neither `log p` near p = 1 nor `log(1 - p)` loses its digits, and no temperature down to 0.01 overflows
//! in f32.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod check;
mod dcl;
mod deepcluster;
mod exemplar;
mod float;
mod invaspread;
mod memory_bank;
mod nce;
mod npsoftmax;
mod ntxent;
pub mod op;
mod queue;
#[cfg(feature = "cuda")]
mod self_check;
mod similarities;
mod softmax;
#[cfg(test)]
mod testing;
mod triplet;

pub use dcl::Dcl;
pub use deepcluster::{balanced_order, cluster_cross_entropy};
pub use exemplar::Exemplar;
pub use invaspread::{InvaSpread, KeySide, Negatives};
pub use memory_bank::MemoryBank;
pub use nce::{Nce, draw_noise};
pub use npsoftmax::NpSoftmax;
pub use ntxent::NtXent;
pub use queue::Queue;
#[cfg(feature = "cuda")]
pub use self_check::self_check_on;
pub use triplet::{Mining, Triplet, draw_negatives};
