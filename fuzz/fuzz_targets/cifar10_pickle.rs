//! Fuzzes a batch of CIFAR-10's Python version: a pickle that is read and never executed.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_data::fuzzing::cifar10_pickle(bytes));
