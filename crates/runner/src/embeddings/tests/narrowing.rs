//! Rows before and after they are narrowed to single precision.

use proptest::prelude::*;
use zip::CompressionMethod;

use super::{Folder, array, doubles, npy, npz};
use crate::embeddings::Scaling;

/// Rows far outside of single precision's range, scaled in double precision, equal the rows that they are
/// multiples of.
#[test]
fn rows_out_of_single_precision_are_scaled_before_they_are_narrowed() {
    let folder = Folder::new();
    let base = [3.0_f64, 4.0, -1.0, 0.5, 1e-3, 2.0, 0.0, -7.0];
    let put = |name: &str, values: &[f64]| {
        let (rows, labels) =
            (npy("<f8", false, "(4, 2)", &doubles(values)), npy("|u1", false, "(4,)", &[1, 1, 2, 2]));
        folder.put(
            name,
            &npz(&[("embeddings.npy", &rows), ("labels.npy", &labels)], CompressionMethod::Stored),
        );
    };
    let expected: Vec<f32> = base
        .chunks_exact(2)
        .flat_map(|row| [row[0] / row[0].hypot(row[1]), row[1] / row[0].hypot(row[1])])
        .map(|value| value as f32)
        .collect();
    for factor in [1.0, 1e-50, 1e39, 1e-300, 1e307, 1e-320] {
        put("f.npz", &base.map(|value| value * factor));
        let found = folder.read("f.npz", Scaling::UnitLength).unwrap();
        // With the last factor, numbers lose most of their digits.
        let tolerance = if factor == 1e-320 { 1e-3 } else { 1e-7 };
        for (value, expected) in found.features.values.iter().zip(&expected) {
            assert!((value - expected).abs() <= tolerance, "{factor}: {value} for {expected}");
        }
    }
    put("tiny.npz", &base.map(|value| value * 1e-50));
    assert!(folder.told("tiny.npz").contains("found 4e-50 as the largest number of row 0 (column 1"));
    put("huge.npz", &base.map(|value| value * 1e39));
    let error = folder.told("huge.npz");
    assert!(error.contains("4e39") && error.contains("at most 3.4028235e38"), "{error}");
}

#[test]
fn numbers_that_are_not_finite_are_called_what_they_are_and_where() {
    let folder = Folder::new();
    for (value, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "infinity"), (f64::NEG_INFINITY, "-infinity")] {
        let rows = npy("<f8", false, "(3, 2)", &doubles(&[1.0, 2.0, 3.0, value, f64::NAN, 1.0]));
        let labels = npy("|u1", false, "(3,)", &[1, 1, 2]);
        folder.put(
            "x.npz",
            &npz(&[("embeddings.npy", &rows), ("labels.npy", &labels)], CompressionMethod::Stored),
        );
        for scaling in [Scaling::UnitLength, Scaling::Unscaled] {
            let error = folder.read("x.npz", scaling).unwrap_err().to_string();
            let expected = format!(
                "x.npz: found {word} in row 1, column 1 of the embeddings, both counted from 0 (2 of 3 rows"
            );
            assert!(error.contains(&expected), "{error}");
        }
    }
}

/// The spread is the root mean square distance from the mean, divided by the length of the rows.
#[test]
fn the_spread_of_rows_is_measured_without_cancellation() {
    let folder = Folder::new();
    let spread = |rows: &[f64]| {
        let rows = npy("<f8", false, "(4, 2)", &doubles(rows));
        folder.put("s.npy", &rows);
        folder.put("l.txt", b"a\na\nb\nb\n");
        folder.with_labels("s.npy", "l.txt").unwrap().facts.spread
    };
    assert_eq!(spread(&[1.0; 8]), 0.0);
    assert!((spread(&[1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0]) - 1.0).abs() < 1e-12);
    // Offsets of 1e-6 each way about (1e3, 1e3), whose length is 1e3 √2.
    let near = [1e3 + 1e-6, 1e3, 1e3 - 1e-6, 1e3, 1e3, 1e3 + 1e-6, 1e3, 1e3 - 1e-6];
    let expected = 1e-6 / (1e3 * 2.0_f64.sqrt());
    assert!((spread(&near) / expected - 1.0).abs() < 1e-3);
}

proptest! {
    /// Rows of any size get length 1, and a power of two as a factor changes no bit of the result.
    #[test]
    fn rows_of_any_size_have_length_one(
        row in prop::collection::vec(-1e3..1e3_f64, 1..20), exponent in -900..900_i32,
    ) {
        prop_assume!(row.iter().any(|value| value.abs() > 1e-3));
        let scaled = |factor: f64| {
            let row: Vec<f64> = row.iter().map(|value| value * factor).collect();
            let shape = format!("(1, {})", row.len());
            let array = array(&npy("<f8", false, &shape, &doubles(&row))).unwrap();
            crate::embeddings::rows::rows(&array, Scaling::UnitLength).unwrap().0.values
        };
        let values = scaled(1.0);
        let length: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        prop_assert!((length - 1.0).abs() < 1e-6);
        prop_assert_eq!(&scaled(2.0_f64.powi(exponent)), &values);
        // The plain formula gives the same bits.
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        prop_assert_eq!(values, row.iter().map(|value| (value / norm) as f32).collect::<Vec<_>>());
    }
}
