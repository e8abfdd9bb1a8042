//! Image files of every format that is read.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::images(bytes));
