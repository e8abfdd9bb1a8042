//! Fuzzes `key.sub=value` arguments, their TOML values and their lists.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invaspread_runner::fuzzing::config_overrides(bytes));
