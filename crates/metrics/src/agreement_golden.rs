//! Compares NMI and AMI at their limits with the values of scikit-learn, for partitions that are given by a
//! formula.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::Agreement;

/// Returns a 32-bit hash of an index. The tests make their labels from it.
fn hashed(index: u32, seed: u32) -> u32 {
    let mut x = index.wrapping_mul(2_654_435_761).wrapping_add(12_345 + seed * 7919);
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// Returns the first odd number from 5 on without a common factor with `n`.
fn step(n: u32) -> u32 {
    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    (2..n + 3).map(|half| 2 * half + 1).find(|&odd| gcd(odd, n) == 1).unwrap()
}

/// Returns the labels that `tests/goldens/README.md` calls `kind`, of `n` points.
fn partition(kind: &str, n: u32) -> Vec<u32> {
    let label = |k: u32| match kind {
        "one" => 0,
        "apart" => k,
        "apart_renamed" => k * step(n) % n,
        "one_pair" => k.max(1),
        "last_pair" => k.min(n.saturating_sub(2)),
        "all_but_one" => u32::from(k == n - 1),
        "first_apart" => u32::from(k == 0),
        "pairs" => k / 2,
        "pairs_shifted" => k.div_ceil(2),
        "halves" => u32::from(k < n / 2),
        "halves_renamed" => 9 - u32::from(k < n / 2),
        "tens" => hashed(k, 1) % 10,
        "tens_other" => hashed(k, 2) % 10,
        "tens_mostly" => hashed(k, if hashed(k, 4).is_multiple_of(4) { 3 } else { 1 }) % 10,
        "roots" => k.isqrt(),
        _ => panic!("no partition is called {kind}"),
    };
    (0..n).map(label).collect()
}

#[test]
fn golden_agreement_at_the_limits() {
    // The labels come from a formula, so they do not depend on a random generator.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/agreement_limits.json");
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 300, "{} cases", cases.len());
    for case in cases {
        let n = case[0].as_u64().unwrap() as u32;
        let (classes, clusters) = (case[1].as_str().unwrap(), case[2].as_str().unwrap());
        let got = Agreement::between(&partition(classes, n), &partition(clusters, n)).unwrap();
        for (place, value) in [(3, got.nmi_arithmetic), (4, got.nmi_geometric), (5, got.ami)] {
            let want = case[place].as_f64().unwrap();
            // If nearly every point is a cluster of its own in both partitions, scikit-learn divides a
            // rounding error by a number of the size of 1 / n².
            let apart = |kind: &str| kind.starts_with("apart") || kind.ends_with("_pair");
            let off =
                if place == 5 && apart(classes) && apart(clusters) { 1e-12 * f64::from(n * n) } else { 1e-9 };
            assert!((value - want).abs() < off, "{case}: value {place} is {value}");
        }
    }
}
