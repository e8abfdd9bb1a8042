//! Runs the inputs of a fuzz target as an ordinary test. The crates whose parsers have targets include this
//! file.

use std::path::Path;

/// Calls `parse` with each file of `corpus/<target>`, and with each of `artifacts/<target>`, where libFuzzer
/// leaves the inputs that failed.
///
/// # Panics
/// If there is no corpus, or if `parse` panics.
pub(crate) fn replay(target: &str, parse: impl Fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let inputs = |folder: &str| -> Vec<_> {
        let Ok(entries) = std::fs::read_dir(fuzz.join(folder).join(target)) else { return Vec::new() };
        entries.map(|entry| entry.expect("the folder can be listed").path()).collect()
    };
    let corpus = inputs("corpus");
    assert!(!corpus.is_empty(), "no input in fuzz/corpus/{target}");
    for path in corpus.into_iter().chain(inputs("artifacts")) {
        // This is shown only if the test fails.
        println!("{}", path.display());
        parse(&std::fs::read(&path).expect("the input can be read"));
    }
}
