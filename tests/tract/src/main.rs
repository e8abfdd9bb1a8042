//! Runs exported ONNX models in tract and compares their outputs with those of invaspread's own networks.
//!
//! ```text
//! INVASPREAD_ONNX_CASES=FOLDER cargo test -p invaspread --test onnx
//! cargo run --manifest-path tests/tract/Cargo.toml -- FOLDER
//! ```
//!
//! The first command writes a folder for each case: `model.onnx`, `images.f32` (N, C, S, S), `expected.f32` and their shapes
//! in `case.json`. Each model runs on all images at once and on the first alone.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use tract_onnx::prelude::*;

/// The largest difference of a number of an embedding; of outputs with larger numbers than 1, in parts of the largest.
const TOLERANCE: f32 = 1e-4;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("expected a folder of cases as the argument")?;
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("failed to read {folder}"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    cases.retain(|case| case.join("case.json").is_file());
    cases.sort();
    ensure!(!cases.is_empty(), "found no case in {folder}, expected folders with case.json");
    for case in cases {
        let difference =
            largest_difference(&case).with_context(|| format!("failed in {}", case.display()))?;
        println!(
            "{:<32} largest difference {difference:.1e}",
            case.file_name().unwrap_or_default().display()
        );
        ensure!(difference <= TOLERANCE, "expected at most {TOLERANCE}");
    }
    Ok(())
}

fn largest_difference(case: &Path) -> Result<f32> {
    let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(case.join("case.json"))?)?;
    let shape: Vec<usize> = serde_json::from_value(facts["images"].clone())?;
    let images = floats(&case.join("images.f32"))?;
    let expected = floats(&case.join("expected.f32"))?;
    let scale = expected.iter().fold(1f32, |largest, value| largest.max(value.abs()));
    let count = shape[0];
    let mut largest = 0f32;
    for batch in [count, 1] {
        let shape = [&[batch], &shape[1..]].concat();
        let model = tract_onnx::onnx()
            .model_for_path(case.join("model.onnx"))?
            .with_input_fact(0, f32::fact(&shape).into())?
            .into_optimized()?
            .into_runnable()?;
        let input = Tensor::from_shape(&shape, &images[..images.len() / count * batch])?;
        let outputs = model.run(tvec!(input.into()))?;
        let output = outputs[0].to_plain_array_view::<f32>()?;
        let expected = &expected[..expected.len() / count * batch];
        ensure!(
            output.len() == expected.len(),
            "found {} numbers, expected {}",
            output.len(),
            expected.len()
        );
        for (found, expected) in output.iter().zip(expected) {
            let difference = (found - expected).abs() / scale;
            // A NaN is the largest difference, not none.
            largest = if difference.is_nan() { f32::INFINITY } else { largest.max(difference) };
        }
    }
    Ok(largest)
}

fn floats(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}
