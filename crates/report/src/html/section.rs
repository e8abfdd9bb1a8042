//! One section of a report's page: the blocks of its text, with charts in place of pictures, links from its rows to
//! their records, and the charts of training, which `report.md` does not have.

use askama::Template;

use super::blocks::{self, Block, Spans};
use super::chart::Chart;
use super::photograph::data_uri;
use super::records::Records;
use super::{Places, curves, similarity};
use crate::error::ReportError;
use crate::markdown::Pictures;
use crate::quote::link;
use crate::section::Section;

/// A piece of a section.
#[derive(Template)]
#[template(path = "piece.html")]
pub(crate) enum Piece {
    /// Words or a table.
    Block(Block),
    /// Charts, beside each other where there is space, with the words that hold for all of them.
    Charts { charts: Vec<Chart>, caption: String },
    /// A picture within the page.
    Photograph { data: String, shows: String },
}

impl askama::filters::HtmlSafe for Piece {}

/// Returns the pieces of a section: its `blocks`, whose `pictures` stand in the text. `id` is the section's on the page.
///
/// # Errors
/// If a photograph cannot be read.
pub(crate) fn pieces(
    blocks: Vec<Block>,
    section: &Section<'_>,
    pictures: &Pictures,
    id: &str,
    places: Places<'_>,
) -> Result<Vec<Piece>, ReportError> {
    let records = Records::of(section, places);
    let mut pieces = Vec::new();
    for block in blocks {
        match block {
            Block::Picture { file, shows } => {
                pieces.extend(picture(&file, shows, section, pictures, id, places)?);
            }
            // The records end the section; training comes before them.
            Block::Heading { level, spans } if spans.plain() == "Run records" => {
                pieces.extend(training(section, id));
                pieces.push(Piece::Block(Block::Heading { level, spans }));
            }
            Block::Table(mut table) => {
                records.link(&mut table);
                pieces.push(Piece::Block(Block::Table(table)));
            }
            Block::Text(spans) if is_drawing(&spans) => {}
            other => pieces.push(Piece::Block(other)),
        }
    }
    Ok(pieces)
}

/// Returns what stands in place of a picture of `report.md`; nothing for the table as a chart, whose numbers the page has.
fn picture(
    file: &str,
    shows: String,
    section: &Section<'_>,
    pictures: &Pictures,
    id: &str,
    places: Places<'_>,
) -> Result<Option<Piece>, ReportError> {
    let is = |name: &Option<String>| name.as_ref().is_some_and(|name| file == format!("{}.png", link(name)));
    if is(&pictures.curves) {
        return Ok(alone(curves::main(section, format!("{id}-curves"))));
    }
    if is(&pictures.rank) {
        return Ok(alone(curves::rank(section, format!("{id}-rank"))));
    }
    for (place, (grouping, name)) in pictures.separations.iter().enumerate() {
        if is(&Some(name.clone())) {
            let charts = similarity::charts(section, grouping, &format!("{id}-similarity{}", place + 1));
            let caption = crate::separation::caption_text(section, grouping);
            return Ok(Some(Piece::Charts { charts, caption }));
        }
    }
    match &pictures.neighbors {
        Some(name) if file == name => {
            let data = data_uri(&places.page.join(name))?;
            Ok(Some(Piece::Photograph { data, shows }))
        }
        _ => Ok(None),
    }
}

fn alone(chart: Option<Chart>) -> Option<Piece> {
    Some(Piece::Charts { charts: vec![chart?], caption: String::new() })
}

/// Returns whether a paragraph is nothing but the link to the drawing of a picture that the page shows itself.
fn is_drawing(spans: &Spans) -> bool {
    matches!(&spans.0[..], [only] if only.text == "SVG" && only.link.is_some())
}

/// Returns the charts of training under their heading; nothing if no run recorded its training.
fn training(section: &Section<'_>, id: &str) -> Vec<Piece> {
    let charts = curves::training(section, id);
    if charts.is_empty() {
        return Vec::new();
    }
    let mut words = blocks::read("### Training\n");
    words.truncate(1);
    let mut pieces: Vec<Piece> = words.into_iter().map(Piece::Block).collect();
    let caption = "Means over seeds after each epoch. The loss is the mean over the epoch's steps; losses of different \
                   methods are different functions, so their levels do not compare. Images per second counts the time of \
                   the training steps, and waiting is the time in which they waited for images.";
    pieces.push(Piece::Charts { charts, caption: caption.to_owned() });
    pieces
}
