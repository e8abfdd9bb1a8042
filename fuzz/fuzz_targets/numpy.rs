//! Fuzzes arrays in numpy's file formats.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_runner::fuzzing::numpy(bytes));
