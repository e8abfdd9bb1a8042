//! The numbers that the scripts of the goldens make too, instead of storing weights and images.

/// Returns the hash of a flat index that the goldens' README defines, in [-0.5, 0.5).
pub(crate) fn hash(seed: u32, k: u32, i: u32) -> f64 {
    let salt = k.wrapping_mul(40_503).wrapping_add(12_345).wrapping_add(seed.wrapping_mul(7919));
    let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(salt);
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^= x >> 16;
    f64::from(x) / 4_294_967_296.0 - 0.5
}
