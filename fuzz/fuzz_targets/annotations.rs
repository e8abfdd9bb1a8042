//! Fuzzes the lists of CUB-200-2011 and of Stanford Online Products, and the names of Cars196's class
//! folders.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::annotations(bytes));
