//! `index.md`: every table and figure of the paper on one page, each measured number beside the paper's.

use std::path::Path;

use crate::caption;
use crate::error::ReportError;
use crate::html;
use crate::names::{metric_label, row_label};
use crate::paper::{self, PaperTable};
use crate::quote::{link, markdown};
use crate::records::Run;
use crate::section::Section;
use crate::suite::Suite;
use crate::table::Table;
use invaspread_record::write_atomically;

/// A suite on the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The suite. Suites that reproduce no table or figure of the paper come last.
    pub suite: Suite,
    /// The suite's finished runs; empty if it was not run.
    pub runs: Vec<Run>,
    /// The folder of the suite's report, relative to the page.
    pub folder: String,
    /// The file names of the pictures in that folder.
    pub pictures: Vec<String>,
}

/// Writes `index.md` into `folder` and returns its path.
///
/// # Errors
/// If polars fails or the file cannot be written.
pub fn write_index(entries: &[Entry], folder: &Path) -> Result<std::path::PathBuf, ReportError> {
    let path = folder.join("index.md");
    let failed = |source| ReportError::File { action: "write", path: path.clone(), source };
    fs_err::create_dir_all(folder).map_err(failed)?;
    write_atomically(&path, index(entries)?.as_bytes()).map_err(failed)?;
    Ok(path)
}

/// The file name of the page with links to the pages of the suites.
pub const INDEX_PAGE: &str = "index.html";

/// Writes [`INDEX_PAGE`] into `folder`, the same page with links to the `report.html` of each suite, and returns its path.
///
/// # Errors
/// If polars fails or the file cannot be written.
pub fn write_index_page(entries: &[Entry], folder: &Path) -> Result<std::path::PathBuf, ReportError> {
    let path = folder.join(INDEX_PAGE);
    let failed = |source| ReportError::File { action: "write", path: path.clone(), source };
    fs_err::create_dir_all(folder).map_err(failed)?;
    write_atomically(&path, html::index(&index(entries)?)?.as_bytes()).map_err(failed)?;
    Ok(path)
}

fn index(entries: &[Entry]) -> Result<String, ReportError> {
    let mut text = String::from(
        "# The paper's tables and figures beside ours\n\n\
         Made by `invaspread report all` from run records alone. Ours: after the last epoch, mean over seeds; in brackets what the paper \
         prints. Runs that are marked reduced are smaller than the paper's, and their level is not comparable.\n",
    );
    let own = |entry: &&Entry| paper::table_of_suite(&entry.suite.name).is_none();
    for printed in paper::tables() {
        let entry = entries.iter().find(|entry| entry.suite.name == printed.key);
        section(&mut text, &printed.key, Some(printed), entry)?;
    }
    for entry in entries.iter().filter(own).filter(|entry| !entry.runs.is_empty()) {
        section(&mut text, &entry.suite.name, None, Some(entry))?;
    }
    Ok(text)
}

fn section(
    text: &mut String,
    name: &str,
    printed: Option<&PaperTable>,
    entry: Option<&Entry>,
) -> Result<(), ReportError> {
    let suite = entry.map_or_else(|| Suite::from(name), |entry| entry.suite.clone());
    let heading = markdown(&suite.heading());
    put(text, &format!("\n## {heading}\n\n"));
    let Some(entry) = entry.filter(|entry| !entry.runs.is_empty()) else {
        put(text, &format!("Not run yet: `invaspread reproduce {name}`.\n"));
        if let Some(printed) = printed.filter(|printed| !printed.rows.is_empty()) {
            text.push('\n');
            paper_alone(text, printed);
        }
        return Ok(());
    };
    let table = Table::new(suite, &entry.runs)?;
    for section in table.sections(&entry.runs) {
        put(
            text,
            &format!(
                "{}, {}: {}, {} ([report]({}/report.md))\n\n",
                markdown(&caption::setting(section.setting)),
                markdown(&caption::data(section.setting)),
                markdown(&caption::recipe(&section.runs).0),
                caption::seeds(&section.runs),
                link(&entry.folder)
            ),
        );
        section_table(text, &section, printed);
        let missing = section.missing_rows();
        if !missing.is_empty() {
            put(text, &format!("Rows without a finished run: {}.\n\n", markdown(&missing.join(", "))));
        }
    }
    for picture in &entry.pictures {
        put(text, &format!("![{heading}]({}/{})\n\n", link(&entry.folder), link(picture)));
    }
    Ok(())
}

/// Writes the measured rows, then the rows that only the paper's table has.
fn section_table(text: &mut String, section: &Section<'_>, printed: Option<&PaperTable>) {
    let metrics = match printed {
        Some(printed) => {
            let is_printed = |metric: &&str| printed.metrics.iter().any(|name| name == metric);
            section.metrics.iter().copied().filter(is_printed).collect()
        }
        None => section.quality_metrics(),
    };
    if metrics.is_empty() {
        return;
    }
    head(text, &metrics);
    for row in &section.rows {
        let cells: Vec<String> = metrics
            .iter()
            .map(|metric| {
                let line = section.line(row, metric);
                let mean =
                    line.and_then(|line| line.mean).map_or("–".to_owned(), |mean| format!("**{mean:.1}**"));
                let std = line.and_then(|line| line.std).map_or(String::new(), |std| format!(" ± {std:.1}"));
                let paper =
                    line.and_then(|line| line.paper).map_or(String::new(), |paper| format!(" ({paper:.1})"));
                format!("{mean}{std}{paper}")
            })
            .collect();
        put(text, &format!("| {} | {} |\n", markdown(&section.row_label(row)), cells.join(" | ")));
    }
    for row in printed.filter(|_| section.is_in_paper()).map_or(&[][..], |printed| &printed.rows[..]) {
        if !section.rows.contains(&row.key.as_str()) {
            paper_row(text, row, &metrics);
        }
    }
    text.push('\n');
}

fn paper_alone(text: &mut String, printed: &PaperTable) {
    let metrics: Vec<&str> = printed.metrics.iter().map(String::as_str).collect();
    head(text, &metrics);
    printed.rows.iter().for_each(|row| paper_row(text, row, &metrics));
    text.push('\n');
}

fn put(text: &mut String, words: &str) {
    text.push_str(words);
}

fn head(text: &mut String, metrics: &[&str]) {
    let labels: Vec<String> = metrics.iter().map(|metric| markdown(&metric_label(metric))).collect();
    put(text, &format!("| | {} |\n|---|{}\n", labels.join(" | "), "---:|".repeat(metrics.len())));
}

fn paper_row(text: &mut String, row: &paper::PaperRow, metrics: &[&str]) {
    let cells: Vec<String> = metrics
        .iter()
        .map(|metric| {
            let value = row.values.iter().find(|(name, _)| name == metric);
            value.map_or("–".to_owned(), |(_, value)| format!("({value:.1})"))
        })
        .collect();
    let quoted = if row.quoted { " *(quoted by the paper)*" } else { "" };
    put(text, &format!("| {}{quoted} | {} |\n", row_label(&row.key), cells.join(" | ")));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::names::suite_label;

    fn entry(suite: &str, runs: Vec<Run>) -> Entry {
        Entry {
            suite: Suite { title: format!("About {suite}"), ..suite.into() },
            runs,
            folder: suite.into(),
            pictures: vec!["curves.png".into()],
        }
    }

    #[test]
    fn every_table_of_the_paper_is_there_run_or_not() {
        let mut own = fake::retrieval_runs();
        for run in &mut own {
            run.record.suite = "mine".into();
        }
        let mut mine = entry("mine", own);
        mine.suite.rows = vec!["invaspread".into(), "byol".into()];
        let entries = [
            entry("table1", fake::quick_runs(&[0, 1])),
            entry("table3", fake::retrieval_runs()),
            mine,
            entry("winograd", Vec::new()),
        ];
        let text = index(&entries).unwrap();
        insta::assert_snapshot!("index", text);
        for printed in paper::tables() {
            assert!(text.contains(&format!("## {}: ", suite_label(&printed.key))), "{}", printed.key);
        }
        assert!(text.contains("Rows without a finished run: byol."));
        assert!(!text.contains("winograd"), "a suite of our own that was not run says nothing");
    }
}
