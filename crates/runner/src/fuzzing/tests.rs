//! Every input that fuzzing kept, once more.

mod replay;

#[test]
fn numpy() {
    replay::replay("numpy", super::numpy);
}

#[test]
fn config_overrides() {
    replay::replay("config_overrides", super::config_overrides);
}
