//! Fuzzes the packed images of a retrieval set.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::pack(bytes));
