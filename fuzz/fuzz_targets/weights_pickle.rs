//! Fuzzes weights saved by `torch.save`: pickles in a ZIP archive.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_models::fuzzing::weights_pickle(bytes));
