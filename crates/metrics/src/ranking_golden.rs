//! Compares full rankings, verification and hubness with the values of scikit-learn, pytorch-metric-learning, scipy and
//! numpy in `ranking.safetensors`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::golden::{f32s, file_or_own};
use crate::{Hubness, LabeledRows, Lookup, RankingMetrics, Rows, Verification};
use invaspread_tensor::DeviceKind;
use safetensors::SafeTensors;

#[test]
fn golden_ranking() {
    let bytes = file_or_own("ranking.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| {
        let tensor = file.tensor(name).unwrap();
        tensor.data().chunks_exact(8).map(|b| <[u8; 8]>::try_from(b).unwrap()).collect::<Vec<_>>()
    };
    let labels =
        |name: &str| numbers(name).into_iter().map(|b| i64::from_le_bytes(b) as u32).collect::<Vec<_>>();
    let mut cases = 0;
    while let Ok(rows) = file.tensor(&format!("{cases}.rows")) {
        let (dim, rows, of_rows) = (rows.shape()[1], f32s(rows.data()), labels(&format!("{cases}.labels")));
        let gallery = file.tensor(&format!("{cases}.gallery")).ok().map(|gallery| f32s(gallery.data()));
        let of_gallery = gallery.as_ref().map(|_| labels(&format!("{cases}.gallery_labels")));
        let lookup = Lookup {
            queries: LabeledRows { rows: Rows::new(&rows, dim), labels: &of_rows },
            gallery: gallery
                .as_ref()
                .zip(of_gallery.as_ref())
                .map(|(rows, labels)| LabeledRows { rows: Rows::new(rows, dim), labels }),
            sources: None,
        };
        let found = RankingMetrics { precision_at: vec![1, 5, 20] }.evaluate(&lookup).unwrap();
        let verified = Verification { false_match_rates: vec![0.1, 0.01, 0.001] }.evaluate(&lookup).unwrap();
        let hubness = Hubness::of(&lookup, 10, DeviceKind::Cpu).unwrap();
        let shares = [found.map, found.mrr]
            .into_iter()
            .chain(found.precision_at.into_iter().map(|(_, value)| value))
            .chain(verified.at.into_iter().map(|at| at.fnmr))
            .map(|percent| percent.map_or(f64::NAN, |percent| percent / 100.0));
        let got: Vec<f64> = shares.chain(hubness.skewness).collect();
        let want = numbers(&format!("{cases}.values"));
        assert_eq!(got.len(), want.len());
        for (place, (got, want)) in got.iter().zip(want).enumerate() {
            let want = f64::from_le_bytes(want);
            let close = (got - want).abs() < 1e-9 || (got.is_nan() && want.is_nan());
            assert!(close, "value {place} of case {cases}: {got}, expected {want}");
        }
        cases += 1;
    }
    assert!(cases > 0, "no case");
}
