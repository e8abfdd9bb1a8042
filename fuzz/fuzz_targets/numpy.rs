//! Arrays in numpy's files.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_runner::fuzzing::numpy(bytes));
