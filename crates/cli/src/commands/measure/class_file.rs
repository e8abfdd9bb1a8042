//! The table of classes: its rows, and the file of CSV or JSON that `--per-class FILE` writes.

use crate::failure::Failure;
use crate::table_file::{Format, TableFile, quoted};
use anyhow::Context;
use invaspread_runner::embeddings::Labels;
use invaspread_runner::engine::ClassScores;
use serde_json::{Map, Value, json};
use std::path::Path;

/// How such a file begins: what marks one that may be written again.
const CSV_HEAD: &str = "class,rows,";
const JSON_HEAD: &str = "{\n  \"per_class\"";

/// Returns the file to write at `path`.
///
/// # Errors
/// Returns an error of usage that names the file.
pub(super) fn file(path: &Path) -> Result<TableFile, Failure> {
    TableFile::new(path, "classes", [CSV_HEAD, JSON_HEAD])
}

/// Writes the table, whole or not at all; `labels` are the labels of the classes.
///
/// # Errors
/// Returns an error that names the file if the file system refuses.
pub(super) fn write(file: &TableFile, classes: &[ClassScores], labels: &Labels) -> Result<(), Failure> {
    file.write(&match file.format {
        Format::Csv => as_csv(classes, labels),
        Format::Json => as_json(classes, labels)?,
    })
}

/// Returns a row of the table for each class, as JSON.
pub(super) fn rows(classes: &[ClassScores], labels: &Labels) -> Vec<Value> {
    // Numbers of 128 bits are outside of JSON's usual range; as text they stay what they are.
    let name = |class: u32| match labels {
        Labels::Numbers(numbers) => {
            let number = numbers[class as usize];
            i64::try_from(number).map_or_else(|_| json!(number.to_string()), |number| json!(number))
        }
        Labels::Words(words) => json!(words[class as usize]),
    };
    let row = |one: &ClassScores| {
        let metrics: Map<String, Value> =
            one.metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let confused: Vec<Value> = one
            .confused_with
            .iter()
            .map(|&(class, queries)| json!({ "class": name(class), "rows": queries }))
            .collect();
        json!({ "class": name(one.class), "rows": one.queries, "metrics": metrics, "confused_with": confused })
    };
    classes.iter().map(row).collect()
}

fn as_json(classes: &[ClassScores], labels: &Labels) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(&json!({ "per_class": rows(classes, labels) }))
        .context("failed to write the classes as JSON")?;
    Ok(text + "\n")
}

fn as_csv(classes: &[ClassScores], labels: &Labels) -> String {
    let name = |class: u32| match labels {
        Labels::Numbers(numbers) => numbers[class as usize].to_string(),
        Labels::Words(words) => words[class as usize].clone(),
    };
    let mut text = CSV_HEAD.to_owned();
    for (metric, _) in classes.first().into_iter().flat_map(|one| &one.metrics) {
        text.push_str(metric);
        text.push(',');
    }
    text.push_str("confused_with\n");
    for one in classes {
        let confused: Vec<String> = one
            .confused_with
            .iter()
            .map(|&(class, queries)| format!("{} ({queries})", name(class)))
            .collect();
        let mut cells = vec![quoted(&name(one.class)), one.queries.to_string()];
        // An empty cell: no row of the class has a score.
        cells.extend(one.metrics.iter().map(|(_, value)| value.map_or(String::new(), |v| v.to_string())));
        cells.push(quoted(&confused.join("; ")));
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{CSV_HEAD, JSON_HEAD, as_csv, as_json};
    use invaspread_runner::embeddings::Labels;
    use invaspread_runner::engine::ClassScores;

    #[test]
    fn a_table_is_written_as_csv_and_json() {
        let classes = [
            ClassScores {
                class: 0,
                queries: 2,
                metrics: vec![("recall_at_1".to_owned(), Some(50.0)), ("map".to_owned(), None)],
                confused_with: vec![(1, 1)],
            },
            ClassScores {
                class: 1,
                queries: 1,
                metrics: vec![("recall_at_1".to_owned(), Some(0.0)), ("map".to_owned(), Some(12.5))],
                confused_with: Vec::new(),
            },
        ];
        let words = Labels::Words(vec!["a, \"b\"".to_owned(), "c".to_owned()]);
        assert_eq!(
            as_csv(&classes, &words),
            "class,rows,recall_at_1,map,confused_with\n\"a, \"\"b\"\"\",2,50,,c (1)\nc,1,0,12.5,\n"
        );
        assert!(as_csv(&classes, &words).starts_with(CSV_HEAD));
        let json = as_json(&classes, &Labels::Numbers(vec![-3, i128::MAX])).expect("plain values");
        assert!(json.starts_with(JSON_HEAD), "{json}");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (&json["per_class"][0]["class"], &json["per_class"][0]["metrics"]["map"]),
            (&(-3).into(), &serde_json::Value::Null)
        );
        assert_eq!(json["per_class"][0]["confused_with"][0]["class"], i128::MAX.to_string());
    }
}
