//! Fuzzes image files of every supported format.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::images(bytes));
