//! Heads that train a network's features and are thrown away afterwards: projectors and predictors.

mod mlp;

pub use mlp::{LastNorm, Mlp, MlpConfig};
