//! Fuzzes weights in an HDF5 file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_models::fuzzing::weights_hdf5(bytes));
