//! `invaspread` with one more method, alignment and uniformity. It has every command, such as
//! `own-method train method=align_uniform`.

mod align_uniform;

use std::process::ExitCode;

use align_uniform::AlignUniformSettings;
use invaspread::Registry;

fn main() -> ExitCode {
    invaspread::run(Registry::built_in().with::<AlignUniformSettings>())
}
