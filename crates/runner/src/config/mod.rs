//! From TOML groups and `key=value` arguments to a resolved [`Config`], and from there to runs.
//!
//! `experiments/config.toml` lists one file of each group (`dataset`, `model`, `method`, `augment`, `optim`, `protocol`, `profile`) under
//! `defaults`; `dataset=cifar10` on the command line picks another. Files are merged in the order of that list, then single values
//! (`optim.lr=0.01`), each remembering where it came from. Built-in files are part of the binary; files of the same name under
//! `./experiments` win over them.

mod error;
mod groups;
mod identity;
mod overrides;
mod plan;
mod resolve;
mod sections;
mod suite;
mod toml_error;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub use groups::{GROUPS, GroupFile, available};
pub(crate) use identity::{NO_SET, manifest_in, without_manifest};
pub use overrides::{Override, expand};
pub use resolve::{Origin, Resolved, resolve, resolve_over};
pub use sections::{
    Config, Device, EvalSection, Groups, Initial, LossSection, MethodName, MethodSection, ModelSection,
    OptimSection, Precision, ProfileSection, ProtocolSection, RunsSection, ScheduleName,
};
pub use suite::{GalleryFigure, Row, Suite};
