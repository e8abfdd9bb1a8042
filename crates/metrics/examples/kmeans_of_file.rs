//! Clusters points from a file, once for each seed. `benches/kmeans_quality.py` compares the result with
//! scikit-learn and faiss.
//!
//! `kmeans_of_file FILE DIM CLUSTERS SEEDS`: FILE holds f32 in this machine's byte order, DIM of them for
//! each point. For each seed from 0 on, the program prints a line of JSON: the inertia, the iterations, and
//! the cluster of each point. There is one start by k-means++ and a tolerance of 1e-4, as for NMI in the
//! evaluation.

use invaspread_metrics::{KMeans, Rows, Seeding};
use invaspread_tensor::DeviceKind;
use std::process::ExitCode;

fn run(arguments: &[String]) -> Result<(), String> {
    let [file, numbers @ ..] = arguments else { return Err("expected FILE DIM CLUSTERS SEEDS".to_owned()) };
    let numbers: Vec<usize> = numbers
        .iter()
        .map(|number| number.parse().map_err(|e| format!("{number}: {e}, expected a whole number")))
        .collect::<Result<_, _>>()?;
    let [dim, clusters, seeds] = numbers[..] else {
        return Err(format!("found {} numbers, expected DIM CLUSTERS SEEDS", numbers.len()));
    };
    let bytes = std::fs::read(file).map_err(|e| format!("{file}: {e}"))?;
    let (values, rest) = bytes.as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|b| f32::from_ne_bytes(*b)).collect();
    if dim == 0 || clusters == 0 || !rest.is_empty() || !values.len().is_multiple_of(dim) {
        return Err(format!("{file}: found {} bytes, expected rows of {dim} f32", bytes.len()));
    }
    for seed in 0..seeds as u64 {
        let kmeans = KMeans {
            clusters,
            iterations: 300,
            tolerance: 1e-4,
            restarts: 1,
            seeding: Seeding::PlusPlus,
            seed,
            epoch: 0,
            device: DeviceKind::Cpu,
        };
        let found = kmeans.fit(Rows::new(&values, dim)).map_err(|e| format!("{file}: {e}"))?;
        let line = serde_json::json!({
            "seed": seed, "inertia": found.inertia, "iterations": found.iterations, "assignments": found.assignments,
        });
        println!("{line}");
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
