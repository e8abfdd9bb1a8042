//! Compares the inputs that fuzzing starts from with the output of the code that makes them. The crates whose
//! tests can write what their parsers read include this file.

use std::path::Path;

/// The variable with which the seeds are written instead of compared.
const WRITE_SEEDS: &str = "INVASPREAD_WRITE_SEEDS";

/// Checks that `corpus/<target>/<name>`, an input that fuzzing starts from, is what the tests' own writers
/// make.
///
/// # Panics
/// If the file does not exist, cannot be written, or holds other bytes.
pub(crate) fn seed(target: &str, name: &str, bytes: &[u8]) {
    packed_seed(target, name, bytes, <[u8]>::to_vec);
}

/// Does the same as [`seed`] for a compressed file: only the results of `unpack` must be equal, because the
/// compression of a packer differs between machines.
///
/// # Panics
/// For the same reasons as [`seed`].
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
