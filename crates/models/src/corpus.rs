//! Reads the inputs that fuzzing starts from, which are also samples for tests.

/// Reads `fuzz/corpus/<name>` of the repository.
///
/// # Panics
/// If the file cannot be read.
pub(crate) fn corpus(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
