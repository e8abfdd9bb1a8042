//! The packed images that a retrieval set is read from.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::pack(bytes));
