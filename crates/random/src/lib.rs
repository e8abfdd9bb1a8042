//! Random streams that depend on what is drawn, never on when, in which order or on which thread it is drawn.
//!
//! A stream is identified by `(seed, purpose, epoch, index)`. It is a Philox4x32-10 counter generator (Salmon
//! et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011). The augmentation of image 17 in epoch 3
//! therefore gets the same numbers on one thread and on sixteen, after a resume, and in another order of
//! batches.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod philox;
mod stream;

pub use philox::philox4x32_10;
pub use stream::{Purpose, Stream};
