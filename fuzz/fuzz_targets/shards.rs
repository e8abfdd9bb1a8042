//! Fuzzes tar shards of images.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::shards(bytes));
