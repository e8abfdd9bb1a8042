//! From TOML groups and `key=value` arguments to a resolved [`Config`], and from there to runs.
//!
//! `experiments/config.toml` lists one file of each group (`dataset`, `model`, `method`, `augment`, `optim`,
//! `protocol`, `profile`) under `defaults`; `dataset=cifar10` on the command line picks another. Files are
//! merged in the order of that list, then single values (`optim.lr=0.01`), and the origin of each value is
//! kept. Built-in files are part of the binary; files of the same name under `./experiments` win over
//! them.
//!
//! The keys of `[method]` are those of the chosen method alone; the registry (`crate::methods`) says which
//! they are. `methods.NAME.KEY` sets a key only where the method NAME is chosen (`scoped`). Runs that were
//! stored when `[method]` and `[loss]` held the keys of all methods are still read (`first_format`).
//!
//! The kind of a key decides how the text after its equals sign is read: the text of a path is always read as
//! a path, and numbers may be written in the usual short forms (`.01`, `5e4`). `null`, or an empty text,
//! unsets an optional key; a file lists such keys under `unset`. The labels of a run in its record come from
//! the resolved values (`labels`), and the memory that it needs is computed before it begins (`size`).

mod built_in;
mod error;
mod first_format;
mod groups;
mod home;
mod identity;
mod labels;
mod launcher;
mod layers;
mod meanings;
mod number;
mod one_line;
mod overrides;
mod plan;
mod resolve;
mod runs_section;
mod schema;
mod scoped;
mod sections;
mod size;
mod suite;
mod sweep;
mod tables;
mod text;
mod toml_error;
mod value;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub(crate) use first_format::is_same as is_same_in_first_format;
pub use groups::{GROUPS, GroupFile, available};
pub use home::{HomeError, expand_home};
pub(crate) use identity::{NO_SET, manifest_in, without_manifest};
pub(crate) use launcher::limit_seconds;
pub use launcher::{Launcher, LocalSection, SlurmSection};
pub use one_line::statements;
pub use overrides::{Override, expand};
pub use resolve::{Origin, Resolved, resolve, resolve_over};
pub use runs_section::RunsSection;
pub use sections::{
    Config, EvalSection, Groups, Initial, ModelSection, OptimSection, ProfileSection, ProtocolSection,
    ScheduleName,
};
pub use size::Work;
pub use suite::{Beside, GalleryFigure, Row, Suite};
pub use sweep::{Room, Sweep, plan_runs};
pub(crate) use tables::{leaves, lookup};
