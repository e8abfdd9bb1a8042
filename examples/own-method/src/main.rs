//! `invaspread` with one method more: alignment and uniformity. Every command is there:
//! `own-method train method=align_uniform`.

mod align_uniform;

use std::process::ExitCode;

use align_uniform::AlignUniformSettings;
use invaspread::Registry;

fn main() -> ExitCode {
    invaspread::run(Registry::built_in().with::<AlignUniformSettings>())
}
