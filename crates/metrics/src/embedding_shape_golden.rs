//! Compares the shape of embeddings with numpy's values.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::golden::{f32s, file_or_own};
use crate::{EmbeddingShape, Rows, alignment};
use safetensors::SafeTensors;

#[test]
fn golden_embedding_shape() {
    let bytes = file_or_own("embedding_shape.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = 0;
    while let Ok(rows) = file.tensor(&format!("{cases}.rows")) {
        let dim = rows.shape()[1];
        let (rows, second) =
            (f32s(rows.data()), f32s(file.tensor(&format!("{cases}.second")).unwrap().data()));
        let rows = Rows::new(&rows, dim);
        let got = EmbeddingShape::of(rows).unwrap();
        let got = [
            got.effective_rank,
            got.rankme,
            got.uniformity,
            got.spread,
            alignment(rows, Rows::new(&second, dim)).unwrap(),
        ];
        let want = file.tensor(&format!("{cases}.values")).unwrap();
        let (want, _) = want.data().as_chunks::<8>();
        for (got, want) in got.iter().zip(want) {
            let want = f64::from_le_bytes(*want);
            assert!((got - want).abs() < 1e-6 * (1.0 + want.abs()), "case {cases}: {got}, numpy {want}");
        }
        cases += 1;
    }
    assert!(cases > 0, "no case");
}
