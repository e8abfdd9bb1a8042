//! Heads that are used only while a network is trained: projectors and predictors.

mod mlp;

pub use mlp::{LastNorm, Mlp, MlpConfig};
