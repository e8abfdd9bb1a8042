//! Fuzzes weights in a caffemodel file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_models::fuzzing::weights_caffemodel(bytes));
