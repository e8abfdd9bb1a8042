//! `report.html`, `index.html` and `look.html`: reports and runs as pages that need nothing beside them. Style, script and charts are inline,
//! and a policy in the page forbids every request, so a page opens from a disk as from a server.
//!
//! The words and tables are those of `report.md`, read back as [`blocks`]; where it shows a picture of curves or
//! distributions, the page has a [`chart`] made from the same data. askama's templates (`templates/`) escape every text.

mod blocks;
mod chart;
mod curves;
mod look;
mod photograph;
mod records;
mod section;
mod similarity;
mod sprite;
mod theme;

pub(crate) use look::look;

use std::path::Path;

use askama::Template;

use self::blocks::{Block, Spans};
use self::section::Piece;
use crate::error::ReportError;
use crate::markdown::{Parts, Pictures};
use crate::quote::one_line;
use crate::section::Section;

const STYLE: &str = include_str!("../../templates/style.css");
const SCRIPT: &str = include_str!("../../templates/report.js");

/// Where a page is written and where its records are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// The folder of the page, which exists.
    pub(crate) page: &'a Path,
    /// The folder of the runs (`runs.root`).
    pub(crate) runs: &'a Path,
}

/// A part of a page with a heading.
struct PageSection {
    /// The id, for links within the page.
    id: String,
    title: Spans,
    pieces: Vec<Piece>,
}

/// A page.
#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    style: &'static str,
    script: &'static str,
    title: Spans,
    /// The words before the sections.
    lead: Vec<Piece>,
    sections: Vec<PageSection>,
}

/// Returns `report.html`: the `parts` of `report.md`, whose `sections` have these pictures there.
///
/// # Errors
/// If a photograph cannot be read.
pub(crate) fn report(
    parts: &Parts,
    sections: &[(Section<'_>, Pictures)],
    places: Places<'_>,
) -> Result<String, ReportError> {
    let mut lead = blocks::read(&parts.heading);
    let title = title_of(&mut lead);
    let mut shown = Vec::new();
    for (place, (text, (section, pictures))) in parts.sections.iter().zip(sections).enumerate() {
        let id = format!("s{}", place + 1);
        let mut blocks = blocks::read(text);
        let title = title_of(&mut blocks);
        let pieces = section::pieces(blocks, section, pictures, &id, places)?;
        shown.push(PageSection { id, title, pieces });
    }
    for (place, (title, blocks)) in by_heading(blocks::read(&parts.end)).into_iter().enumerate() {
        let pieces = blocks.into_iter().map(Piece::Block).collect();
        shown.push(PageSection { id: format!("e{}", place + 1), title, pieces });
    }
    // Several settings are listed with links to their sections, in place of the list of their names.
    lead.retain(|block| !matches!(block, Block::List(_)));
    rendered(title, lead, shown)
}

/// Returns `index.html` for the text of `index.md`. Its links lead to the pages of the suites. The pictures stay on
/// those, where they are charts.
///
/// # Errors
/// If the template fails, which is a bug.
pub(crate) fn index(text: &str) -> Result<String, ReportError> {
    let mut blocks = blocks::read(text);
    let title = title_of(&mut blocks);
    blocks.retain(|block| !matches!(block, Block::Picture { .. }));
    for block in &mut blocks {
        let Block::Text(spans) = block else { continue };
        for link in spans.0.iter_mut().filter_map(|span| span.link.as_mut()) {
            if let Some(folder) = link.strip_suffix("report.md") {
                *link = format!("{folder}report.html");
            }
        }
    }
    let place =
        blocks.iter().position(|block| matches!(block, Block::Heading { .. })).unwrap_or(blocks.len());
    let sections = by_heading(blocks.split_off(place));
    let sections = sections.into_iter().enumerate().map(|(place, (title, blocks))| {
        let pieces = blocks.into_iter().map(Piece::Block).collect();
        PageSection { id: format!("s{}", place + 1), title, pieces }
    });
    rendered(title, blocks, sections.collect())
}

/// Takes the first heading out of `blocks`.
fn title_of(blocks: &mut Vec<Block>) -> Spans {
    match blocks.first() {
        Some(Block::Heading { spans, .. }) => {
            let title = spans.clone();
            blocks.remove(0);
            title
        }
        _ => Spans::default(),
    }
}

/// Splits blocks at their headings of level 2.
fn by_heading(blocks: Vec<Block>) -> Vec<(Spans, Vec<Block>)> {
    let mut parts: Vec<(Spans, Vec<Block>)> = Vec::new();
    for block in blocks {
        match block {
            Block::Heading { level: 2, spans } => parts.push((spans, Vec::new())),
            other => match parts.last_mut() {
                Some((_, blocks)) => blocks.push(other),
                None => parts.push((Spans::default(), vec![other])),
            },
        }
    }
    parts
}

fn rendered(title: Spans, lead: Vec<Block>, sections: Vec<PageSection>) -> Result<String, ReportError> {
    let lead = lead.into_iter().map(Piece::Block).collect();
    let page = Page { style: STYLE, script: SCRIPT, title, lead, sections };
    finished(&page)
}

/// Returns the text of a page, without the characters that control a terminal and that HTML does not allow: names of users
/// may hold them.
fn finished(page: &impl Template) -> Result<String, ReportError> {
    // A template fails by a bug alone.
    let text = page
        .render()
        .map_err(|error| ReportError::Draw { figure: "the page", reason: one_line(&error.to_string()) })?;
    Ok(text.lines().map(one_line).collect::<Vec<_>>().join("\n") + "\n")
}

#[cfg(test)]
mod look_tests;
#[cfg(test)]
mod tests;
