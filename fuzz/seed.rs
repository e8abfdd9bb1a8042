//! The inputs that fuzzing starts from, held to what makes them: included by the crates whose tests can write
//! what their parsers read.

use std::path::Path;

/// Set, the seeds are written and not compared.
const WRITE_SEEDS: &str = "INVASPREAD_WRITE_SEEDS";

/// Holds `corpus/<target>/<name>`, an input that fuzzing starts from, to what the tests' own writers make of
/// it.
///
/// # Panics
/// If the file is not there, cannot be written, or holds other bytes.
pub(crate) fn seed(target: &str, name: &str, bytes: &[u8]) {
    packed_seed(target, name, bytes, <[u8]>::to_vec);
}

/// As [`seed`], of what a packer made: `unpack` must give the same of both, for how tightly packers pack
/// differs between machines.
///
/// # Panics
/// As [`seed`].
pub(crate) fn packed_seed(target: &str, name: &str, bytes: &[u8], unpack: impl Fn(&[u8]) -> Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target).join(name);
    if std::env::var_os(WRITE_SEEDS).is_some() {
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder"))
            .expect("the folder can be made");
        std::fs::write(&path, bytes).expect("the seed can be written");
        return;
    }
    let kept = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; {WRITE_SEEDS}=1 writes it", path.display()));
    let same = unpack(&kept) == unpack(bytes);
    assert!(same, "{} is not what its writer makes; {WRITE_SEEDS}=1 writes it anew", path.display());
}
