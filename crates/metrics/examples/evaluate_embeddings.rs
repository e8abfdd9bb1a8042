//! Prints a table of the quality of embeddings: weighted kNN, R@K, MAP@R, and how well clusters agree with
//! the classes (NMI, AMI).
//!
//!     cargo run --release -p invaspread-metrics --example evaluate_embeddings
//!     cargo run --release -p invaspread-metrics --example evaluate_embeddings -- EMBEDDINGS.npy LABELS.npy
//!
//! The first form measures generated rows. EMBEDDINGS.npy holds f32 of shape (n, d), LABELS.npy n labels of
//! i64; `numpy.save` writes both. For other types and forms use `invaspread measure`. kNN takes every second
//! row as a query among the others; R@K and the clusters take all rows.

use invaspread_metrics::{
    Agreement, KMeans, RetrievalMetrics, Rows, Seeding, WeightedKnn, l2_normalize_rows,
};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::DeviceKind;
use std::error::Error;
use std::process::ExitCode;

/// Rows, each with a label.
struct Embeddings {
    values: Vec<f32>,
    dim: usize,
    labels: Vec<u32>,
}

/// Draws 600 rows of 32 numbers, around one direction for each of 6 classes.
fn generated() -> Embeddings {
    let mut stream = Stream::new(0, Purpose::Bootstrap, 0, 0);
    let (classes, dim) = (6, 32);
    let centers: Vec<f64> = (0..classes * dim).map(|_| stream.normal()).collect();
    let labels: Vec<u32> = (0..600).map(|_| stream.below(classes) as u32).collect();
    let mut values = Vec::new();
    for &label in &labels {
        values.extend((0..dim).map(|i| (centers[label as usize * dim + i] + 2.0 * stream.normal()) as f32));
    }
    Embeddings { values, dim, labels }
}

/// Reads a file of `numpy.save`: the shape and the bytes of an array of type `dtype` ("<f4").
fn read_npy(file: &str, dtype: &str) -> Result<(Vec<usize>, Vec<u8>), Box<dyn Error>> {
    let bytes = std::fs::read(file).map_err(|e| format!("{file}: {e}"))?;
    let wrong =
        |found: &str| format!("{file}: found {found}, expected an array of {dtype} that numpy.save wrote");
    let header = (bytes.starts_with(b"\x93NUMPY\x01\x00")).then(|| bytes.get(8..10)).flatten();
    let length = header
        .map(|h| usize::from(u16::from_le_bytes([h[0], h[1]])))
        .ok_or_else(|| wrong("another kind of file"))?;
    let text = bytes.get(10..10 + length).ok_or_else(|| wrong("a file that ends early"))?;
    let text = String::from_utf8_lossy(text).into_owned();
    if !text.contains(&format!("'descr': '{dtype}'")) || !text.contains("'fortran_order': False") {
        return Err(wrong(text.trim()).into());
    }
    let shape = text
        .split_once("'shape': (")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map_or("", |(shape, _)| shape);
    let shape = shape
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>();
    Ok((shape.map_err(|_| wrong(text.trim()))?, bytes[10 + length..].to_vec()))
}

fn read(embeddings: &str, labels: &str) -> Result<Embeddings, Box<dyn Error>> {
    let (shape, bytes) = read_npy(embeddings, "<f4")?;
    let &[rows, dim] = &shape[..] else {
        return Err(format!("{embeddings}: found the shape {shape:?}, expected (rows, numbers)").into());
    };
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let (_, bytes) = read_npy(labels, "<i8")?;
    let classes = bytes.as_chunks::<8>().0.iter().map(|b| u32::try_from(i64::from_le_bytes(*b)));
    let classes: Vec<u32> =
        classes.collect::<Result<_, _>>().map_err(|_| format!("{labels}: a label below 0"))?;
    if dim == 0 || values.len() != rows * dim || classes.len() != rows || rows < 4 {
        let found = format!("{} numbers and {} labels", values.len(), classes.len());
        return Err(format!(
            "{embeddings}: found {found}, expected {rows} rows of {dim}, at least 4, and as many labels"
        )
        .into());
    }
    Ok(Embeddings { values, dim, labels: classes })
}

/// Returns the measurements by name, in percent.
fn evaluate(embeddings: &mut Embeddings) -> Result<Vec<(String, f64)>, Box<dyn Error>> {
    let Embeddings { values, dim, labels } = embeddings;
    l2_normalize_rows(values, *dim);
    let rows = Rows::new(values, *dim);
    let classes = 1 + labels.iter().max().map_or(0, |&label| label as usize);

    let half = |wanted: usize| -> (Vec<f32>, Vec<u32>) {
        let chosen = (0..rows.len()).filter(|row| row % 2 == wanted);
        (
            chosen.clone().flat_map(|row| rows.row(row)).copied().collect(),
            chosen.map(|row| labels[row]).collect(),
        )
    };
    let ((queries, query_labels), (gallery, gallery_labels)) = (half(0), half(1));
    let knn = WeightedKnn { k: 20, ..WeightedKnn::default() };
    let (queries, gallery) = (Rows::new(&queries, *dim), Rows::new(&gallery, *dim));
    let found = knn.evaluate(queries, &query_labels, gallery, &gallery_labels, classes)?;
    let mut table = vec![("kNN top 1".to_owned(), found.top1), ("kNN top 5".to_owned(), found.top5)];

    let retrieval = RetrievalMetrics { recall_at: vec![1, 2, 4, 8], device: DeviceKind::Cpu };
    let scores = retrieval.evaluate(rows, labels)?;
    table.extend(scores.recall_at.iter().map(|(k, value)| (format!("R@{k}"), *value)));
    table.push(("MAP@R".to_owned(), scores.map_at_r));

    let mut distinct = labels.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let kmeans = KMeans {
        clusters: distinct.len(),
        iterations: 300,
        tolerance: 1e-4,
        restarts: 10,
        seeding: Seeding::PlusPlus,
        seed: 0,
        epoch: 0,
        device: DeviceKind::Cpu,
    };
    let agreement = Agreement::between(labels, &kmeans.fit(rows)?.assignments)?;
    table.push(("NMI".to_owned(), 100.0 * agreement.nmi_arithmetic));
    table.push(("AMI".to_owned(), 100.0 * agreement.ami));
    Ok(table)
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let mut embeddings = match arguments {
        [] => generated(),
        [embeddings, labels] => read(embeddings, labels)?,
        _ => return Err("expected nothing, or EMBEDDINGS.npy LABELS.npy".into()),
    };
    println!("{} embeddings of {} numbers", embeddings.labels.len(), embeddings.dim);
    for (name, value) in evaluate(&mut embeddings)? {
        println!("{name:<10} {value:6.2} %");
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

#[cfg(test)]
mod tests {
    #[test]
    fn generated_rows_are_told_apart_but_not_all_of_them() {
        let table = super::evaluate(&mut super::generated()).expect("generated rows can be measured");
        let value = |name: &str| table.iter().find(|row| row.0 == name).expect("it is measured").1;
        for name in ["kNN top 1", "R@1", "MAP@R", "NMI", "AMI"] {
            assert!(25.0 < value(name) && value(name) < 99.9, "{table:?}");
        }
        assert!(value("R@1") <= value("R@8") && value("AMI") <= value("NMI"), "{table:?}");
    }
}
