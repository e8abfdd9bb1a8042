//! Runs the parsers on every input that fuzzing kept.

mod replay;

#[test]
fn numpy() {
    replay::replay("numpy", super::numpy);
}

#[test]
fn config_overrides() {
    replay::replay("config_overrides", super::config_overrides);
}
