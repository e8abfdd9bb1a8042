//! The paper's own numbers: all its tables and the four curves of its Figure 3, embedded in the binary.
//!
//! Ye, Zhang, Yuen, Chang, "Unsupervised Embedding Learning via Invariant and Spreading Instance Feature",
//! CVPR 2019. The tables hold the printed values. The curves were read from the vector paths of the PDF, one
//! point for each epoch. Reports show these numbers only as the paper's, never as measurements.

use std::sync::LazyLock;

use crate::rows;

const TABLES: &str = include_str!("../assets/paper_tables.toml");
const CURVES: &str = include_str!("../assets/fig3_curves.csv");

/// One printed table, or the numbers in the text about a figure, with rows in the paper's order.
#[derive(Debug, Clone, PartialEq)]
pub struct PaperTable {
    /// The key: `table1` to `table8`, `figure3` to `figure6`.
    pub key: String,
    /// The title.
    pub title: String,
    /// The metrics of the columns, such as `knn`, `r1`, `nmi`.
    pub metrics: Vec<String>,
    /// The rows; empty for figures without numbers.
    pub rows: Vec<PaperRow>,
}

/// One row of a [`PaperTable`].
#[derive(Debug, Clone, PartialEq)]
pub struct PaperRow {
    /// The row's key, such as `invaspread` or `triplet_hard`.
    pub key: String,
    /// Each metric and its value: percent, except `epochs_to_60` (epochs). A metric that the paper prints as
    /// a dash is left out.
    pub values: Vec<(String, f64)>,
    /// Whether the paper quotes these numbers from another publication.
    pub quoted: bool,
}

impl PaperTable {
    /// Returns the printed value of `row` under `metric`.
    pub fn value(&self, row: &str, metric: &str) -> Option<f64> {
        let row = self.rows.iter().find(|candidate| candidate.key == row)?;
        row.values.iter().find(|(name, _)| name == metric).map(|&(_, value)| value)
    }
}

/// One curve of Figure 3: kNN accuracy on CIFAR-10, percent; `accuracy[e - 1]` is epoch e of 200.
#[derive(Debug, Clone, PartialEq)]
pub struct PaperCurve {
    /// The row of Table 1 that the curve belongs to.
    pub row: &'static str,
    /// The accuracy in percent, one value for each epoch from epoch 1 on.
    pub accuracy: Vec<f64>,
}

/// Returns all tables, in the paper's order.
pub fn tables() -> &'static [PaperTable] {
    static PARSED: LazyLock<Vec<PaperTable>> = LazyLock::new(|| parse_tables(TABLES));
    &PARSED
}

/// Returns the table with this key.
pub fn table(key: &str) -> Option<&'static PaperTable> {
    tables().iter().find(|table| table.key == key)
}

/// Returns the paper's table that a suite reproduces. Figure 3 is drawn from the runs of Table 1, so both
/// suites have Table 1; the epochs to 60% of Figure 3 are found by [`value`].
pub fn table_of_suite(suite: &str) -> Option<&'static PaperTable> {
    table(if suite == "figure3" { "table1" } else { suite })
}

/// Returns the paper's value for a row and metric of a suite, including the epochs to 60% of Figure 3.
pub fn value(suite: &str, row: &str, metric: &str) -> Option<f64> {
    let printed = table_of_suite(suite)?;
    printed.value(row, metric).or_else(|| match printed.key.as_str() {
        "table1" => table("figure3")?.value(row, metric),
        _ => None,
    })
}

/// Returns the four curves of Figure 3.
pub fn curves() -> &'static [PaperCurve] {
    static PARSED: LazyLock<Vec<PaperCurve>> = LazyLock::new(|| parse_curves(CURVES));
    &PARSED
}

/// Returns the curve of Figure 3 for a row of Table 1.
pub fn curve(row: &str) -> Option<&'static PaperCurve> {
    curves().iter().find(|curve| curve.row == row)
}

/// Returns the first epoch at which the printed curve of Figure 3 is at or above `threshold` percent. For 60%
/// the paper's text gives an earlier epoch, which [`value`] returns.
pub fn curve_epochs_to(row: &str, threshold: f64) -> Option<usize> {
    curve(row)?.accuracy.iter().position(|&accuracy| accuracy >= threshold).map(|index| index + 1)
}

fn parse_tables(text: &str) -> Vec<PaperTable> {
    // The file is part of this crate, so a mistake in it is a bug; the tests below read all of it.
    let document: toml::Table = toml::from_str(text).expect("assets/paper_tables.toml is TOML");
    document
        .into_iter()
        .map(|(key, table)| {
            let mut table = match table {
                toml::Value::Table(table) => table,
                other => panic!("assets/paper_tables.toml: `{key}` is {}, not a table", other.type_str()),
            };
            let title = table.remove("title").and_then(|title| title.as_str().map(str::to_owned));
            let metrics: Vec<String> = match table.remove("metric") {
                Some(toml::Value::Array(names)) => {
                    names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
                }
                _ => Vec::new(),
            };
            table.remove("panels");
            let rows = table.into_iter().map(|(row, value)| parse_row(row, &metrics, &value)).collect();
            PaperTable { title: title.unwrap_or_else(|| key.clone()), key, metrics, rows }
        })
        .collect()
}

fn parse_row(key: String, metrics: &[String], value: &toml::Value) -> PaperRow {
    let number = |value: &toml::Value| match value {
        toml::Value::Float(number) => Some(*number),
        toml::Value::Integer(number) => Some(*number as f64),
        _ => None,
    };
    let values = match value {
        toml::Value::Array(values) => metrics
            .iter()
            .zip(values)
            .filter_map(|(metric, value)| Some((metric.clone(), number(value)?)))
            .collect(),
        toml::Value::Table(values) => {
            values.iter().filter_map(|(metric, value)| Some((metric.clone(), number(value)?))).collect()
        }
        other => panic!("assets/paper_tables.toml: row `{key}` is {}", other.type_str()),
    };
    let quoted = value.get("quoted").and_then(toml::Value::as_bool).unwrap_or(false);
    PaperRow { key, values, quoted }
}

fn parse_curves(text: &str) -> Vec<PaperCurve> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let mut curves: Vec<PaperCurve> = header[1..]
        .iter()
        .map(|&column| PaperCurve {
            row: rows::of_curve(column)
                .unwrap_or_else(|| panic!("assets/fig3_curves.csv: unknown column `{column}`")),
            accuracy: Vec::new(),
        })
        .collect();
    for line in lines {
        for (curve, field) in curves.iter_mut().zip(line.split(',').skip(1)) {
            curve.accuracy.push(field.parse().expect("assets/fig3_curves.csv holds numbers"));
        }
    }
    curves
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn table1_reads_as_printed_and_in_order() {
        let table = table("table1").unwrap();
        let rows: Vec<(&str, f64)> =
            table.rows.iter().map(|row| (row.key.as_str(), row.values[0].1)).collect();
        assert_eq!(
            rows,
            [
                ("random", 32.1),
                ("deepcluster_10", 44.4),
                ("deepcluster_1000", 67.6),
                ("exemplar", 74.5),
                ("npsoftmax", 80.8),
                ("nce", 80.4),
                ("triplet", 57.5),
                ("triplet_hard", 78.4),
                ("invaspread", 83.6),
            ]
        );
        assert!(table.rows.iter().all(|row| row.values[0].0 == "knn" && !row.quoted));
    }

    #[test]
    fn rows_given_as_tables_keep_their_gaps_and_quotations() {
        let table = table("table2").unwrap();
        assert_eq!(table.value("random", "linear"), None);
        assert_eq!(table.value("random", "knn"), Some(22.4));
        assert_eq!(table.value("stack_105k", "linear"), Some(74.3));
        assert!(table.rows.iter().find(|row| row.key == "stack_105k").unwrap().quoted);
        assert_eq!(super::table("table3").unwrap().value("initial", "nmi"), Some(51.4));
        assert_eq!(tables().iter().filter(|table| table.key.starts_with("table")).count(), 8);
    }

    #[test]
    fn every_printed_value_lies_in_its_range() {
        for table in tables() {
            for row in &table.rows {
                assert!(!row.values.is_empty(), "{} {}", table.key, row.key);
                for (metric, value) in &row.values {
                    assert!(table.metrics.contains(metric), "{} {} {metric}", table.key, row.key);
                    assert!((0.0..=100.0).contains(value), "{} {} {metric}", table.key, row.key);
                }
            }
        }
    }

    #[test]
    fn curves_end_where_the_table_says() {
        assert!(curves().iter().all(|curve| curve.accuracy.len() == 200));
        // For two curves, the entry in the paper's table is known to be a value of the curve: the last value
        // of one, and the largest of the other.
        assert!((curve("exemplar").unwrap().accuracy[199] - 74.5).abs() < 0.06);
        let largest = curve("deepcluster_1000").unwrap().accuracy.iter().copied().fold(0.0, f64::max);
        assert!((largest - 67.6).abs() < 0.06);
        assert_eq!(curve_epochs_to("invaspread", 60.0), Some(6));
        assert_eq!(curve_epochs_to("nce", 60.0), Some(28));
        assert_eq!(curve_epochs_to("exemplar", 60.0), Some(58));
    }

    #[test]
    fn table1_borrows_epochs_to_60_from_figure_3() {
        assert_eq!(value("table1", "nce", "epochs_to_60"), Some(25.0));
        assert_eq!(value("figure3", "nce", "knn"), Some(80.4));
        assert_eq!(value("table1", "triplet", "epochs_to_60"), None);
        assert_eq!(value("table3", "nce", "r1"), Some(39.2));
        assert_eq!(value("nonsense", "nce", "knn"), None);
    }
}
