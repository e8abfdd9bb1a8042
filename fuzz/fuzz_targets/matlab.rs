//! Fuzzes MAT-files of version 5, and the list of cars in one.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::matlab(bytes));
