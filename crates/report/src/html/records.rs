//! Links from the rows of a section's tables to the records of their runs, where the records exist.

use std::collections::BTreeMap;
use std::path::Component;

use super::Places;
use super::blocks::{Cell, Spans, Table};
use crate::quote::{code, link};
use crate::records::Run;
use crate::section::Section;

/// The records of a section's runs.
pub(crate) struct Records {
    /// The links of each row by its label, with their seeds; `None` for a label that several rows have.
    of_label: BTreeMap<String, Option<Vec<(u64, String)>>>,
    /// The link of each record by its place below `runs.root`, as the table of records writes it.
    of_place: BTreeMap<String, String>,
}

impl Records {
    /// Finds the records of a section's runs, seen from the page.
    pub(crate) fn of(section: &Section<'_>, places: Places<'_>) -> Self {
        let mut records = Self { of_label: BTreeMap::new(), of_place: BTreeMap::new() };
        for row in &section.rows {
            let of_row = section.runs.iter().filter(|run| run.record.row == *row);
            let found = of_row.filter_map(|run| Some((run.record.seed, path_to(run, places)?)));
            let found: Vec<(u64, String)> = found.collect();
            let entry = records.of_label.entry(read(&section.row_label(row)));
            entry.and_modify(|links| *links = None).or_insert(Some(found));
        }
        for run in &section.runs {
            if let Some(path) = path_to(run, places) {
                let written = code(&format!("{}/record.json", run.folder));
                records.of_place.insert(written.trim_matches('`').replace("\\|", "|"), path);
            }
        }
        records
    }

    /// Links the rows of a table: the row itself if one run is behind it, each seed if there are several, and the places of
    /// records.
    pub(crate) fn link(&self, table: &mut Table) {
        let is_of_rows = table.heads.first().is_some_and(|head| head.spans.plain() == "Row");
        let has_seeds = table.heads.iter().any(|head| head.spans.plain() == "Record");
        for row in &mut table.rows {
            if let Some(first) = row.first_mut().filter(|_| is_of_rows && !has_seeds) {
                self.link_row(first);
            }
            for cell in row {
                if let Some(path) = self.of_place.get(&cell.spans.plain()) {
                    lead(&mut cell.spans, path);
                }
            }
        }
    }

    fn link_row(&self, cell: &mut Cell) {
        match self.of_label.get(&cell.spans.plain()) {
            Some(Some(links)) if links.len() == 1 => lead(&mut cell.spans, &links[0].1),
            Some(Some(links)) => {
                cell.more = links.iter().map(|(seed, path)| (format!("seed {seed}"), path.clone())).collect();
            }
            _ => {}
        }
    }
}

fn lead(spans: &mut Spans, path: &str) {
    spans.0.iter_mut().for_each(|span| span.link = Some(path.to_owned()));
}

/// Returns a label as it is read back from Markdown.
fn read(label: &str) -> String {
    match super::blocks::read(&crate::quote::markdown(label)).first() {
        Some(super::blocks::Block::Text(spans)) => spans.plain(),
        _ => label.to_owned(),
    }
}

/// Returns the path of a run's record relative to the page, quoted for a link; `None` if there is no such file, or if the
/// two have no folder in common: such a path would hold on one machine alone.
fn path_to(run: &Run, places: Places<'_>) -> Option<String> {
    let record =
        fs_err::canonicalize(places.runs.join(&run.folder).join(invaspread_record::names::RECORD)).ok()?;
    let page = fs_err::canonicalize(places.page).ok()?;
    let depth = page.components().count();
    let path = pathdiff::diff_paths(record, page)?;
    let up = path.components().take_while(|part| *part == Component::ParentDir).count();
    if up + 1 >= depth {
        return None;
    }
    let parts: Vec<String> =
        path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    Some(link(&parts.join("/")))
}
