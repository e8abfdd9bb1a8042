//! Fuzzes CIFAR-10's binary version: six batches of records, in a folder or in a `.tar.gz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::cifar10_binary(bytes));
