//! Checks of ranges that the settings of several methods have.

use super::Refusal;

/// Checks that `value` is a temperature: below 0.01, exponentials in f32 overflow.
///
/// # Errors
/// Returns a refusal unless it is a finite number of at least 0.01.
pub fn temperature(key: &str, value: f64) -> Result<(), Refusal> {
    Refusal::unless(value >= 0.01 && value.is_finite(), key, value, "a number of at least 0.01")
}

/// Checks that `value` is at least 1.
///
/// # Errors
/// Returns a refusal if it is 0.
pub fn at_least_one(key: &str, value: usize) -> Result<(), Refusal> {
    Refusal::unless(value > 0, key, value, "at least 1")
}

/// Checks that `value` is a positive number.
///
/// # Errors
/// Returns a refusal unless it is finite and above 0.
pub fn above_zero(key: &str, value: f64) -> Result<(), Refusal> {
    Refusal::unless(value > 0.0 && value.is_finite(), key, value, "a number above 0")
}

/// Checks that `value` is a share of an old value, such as a momentum.
///
/// # Errors
/// Returns a refusal unless it is from 0 to below 1.
pub fn share(key: &str, value: f64) -> Result<(), Refusal> {
    Refusal::unless((0.0..1.0).contains(&value), key, value, "a number from 0 to below 1")
}
