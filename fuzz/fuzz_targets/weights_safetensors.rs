//! Fuzzes weights in a safetensors file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_models::fuzzing::weights_safetensors(bytes));
