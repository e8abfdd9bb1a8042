//! Fuzzes STL-10's files of labels and of images.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::stl10_binary(bytes));
