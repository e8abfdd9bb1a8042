//! Draws a section's main metric as a chart: for each row the measured mean (± one standard deviation) and
//! the paper's value.

use crate::aggregate::Line;
use crate::canvas::{AXIS, Anchor, Face, GRID, INK, MUTED, Pen, draw, round_step, text_width};
use crate::caption;
use crate::error::ReportError;
use crate::figure::Figure;
use crate::names::metric_label;
use crate::palette::Palette;
use crate::rows::is_ours;
use crate::section::Section;
use plotters::style::RGBColor;

const FIGURE: &str = "the table's chart";
/// The font size of the rows' names, and the free space on both sides of a name.
const NAME: f64 = 12.5;
const BESIDE_NAME: f64 = 12.0;
const TOP: f64 = 62.0;
const PLOT_WIDTH: f64 = 440.0;
const ROW: f64 = 30.0;
/// The right edges of the columns of numbers, measured from the left edge of the plot.
const COLUMNS: [f64; 3] = [554.0, 626.0, 708.0];
/// The free space at the right.
const RIGHT: f64 = 14.0;

/// Draws a section's main metric; `None` if no row has a value.
///
/// # Errors
/// If drawing fails.
pub fn figure(section: &Section<'_>) -> Result<Option<Figure>, ReportError> {
    let metric = section.main_metric;
    let lines: Vec<&Line> = section.lines_of(metric).into_iter().filter(|line| line.mean.is_some()).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let palette = Palette::of(&section.rows);
    let names: Vec<String> = lines.iter().map(|line| section.row_label(&line.row)).collect();
    let scale = Scale::around(&lines, &names);
    let bottom = TOP + lines.len() as f64 * ROW;
    let beside_paper = lines.iter().any(|line| line.paper.is_some());
    let width = scale.column(if beside_paper { 2 } else { 0 }) + RIGHT;
    let caption = caption::wrap(&caption_text(section), (width / 6.05) as usize);
    let size = (width, bottom + 58.0 + caption.len() as f64 * 15.0);
    let title = format!("{}, {}", metric_label(metric), caption::setting(section.setting));
    let svg = draw(FIGURE, &title, size, |pen| {
        scale.paint(pen, bottom, &metric_label(metric));
        legend(pen, &scale, &lines);
        heads(pen, &scale, beside_paper, section.setting.reduced);
        for (place, (line, name)) in lines.iter().zip(&names).enumerate() {
            let y = TOP + (place as f64 + 0.5) * ROW;
            let face = Face::new(NAME, Anchor::End).bold(is_ours(&line.row));
            pen.text((scale.left - BESIDE_NAME, y), name, face);
            paint_row(pen, &scale, y, line, palette.color(&line.row), beside_paper);
        }
        for (number, text) in caption.iter().enumerate() {
            let y = bottom + 62.0 + number as f64 * 15.0;
            pen.text((14.0, y), text, Face::new(10.5, Anchor::Start).color(MUTED));
        }
    })?;
    Figure::of_svg(FIGURE, svg).map(Some)
}

struct Scale {
    /// The left edge of the plot; the longest name fits before it.
    left: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn around(lines: &[&Line], names: &[String]) -> Self {
        let values = || {
            lines.iter().flat_map(|line| {
                let (mean, std) = (line.mean.unwrap_or_default(), line.std.unwrap_or_default());
                [Some(mean - std), Some(mean + std), line.paper].into_iter().flatten()
            })
        };
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        let names = names.iter().map(|name| text_width(name, NAME));
        Self {
            left: names.fold(0.0, f64::max) + 2.0 * BESIDE_NAME,
            low: ((low - 1.0) / 10.0).floor().max(0.0) * 10.0,
            high: ((high + 1.0) / 10.0).ceil() * 10.0,
        }
    }

    /// Returns the right edge of a column of numbers.
    fn column(&self, number: usize) -> f64 {
        self.left + COLUMNS[number]
    }

    fn x(&self, value: f64) -> f64 {
        self.left + PLOT_WIDTH * (value - self.low) / (self.high - self.low)
    }

    fn paint(&self, pen: &mut Pen<'_>, bottom: f64, name: &str) {
        let step = round_step(self.high - self.low, 8.0);
        for index in 0..=((self.high - self.low) / step).floor() as u32 {
            let value = self.low + f64::from(index) * step;
            pen.line(&[(self.x(value), TOP), (self.x(value), bottom)], GRID, 0.8);
            let tick = Face::new(11.5, Anchor::Middle).color(MUTED);
            pen.text((self.x(value), bottom + 14.0), &format!("{value:.0}"), tick);
        }
        pen.line(&[(self.left, bottom), (self.left + PLOT_WIDTH, bottom)], AXIS, 0.8);
        pen.text((self.left + PLOT_WIDTH / 2.0, bottom + 34.0), name, Face::new(13.0, Anchor::Middle));
    }
}

fn legend(pen: &mut Pen<'_>, scale: &Scale, lines: &[&Line]) {
    let y = TOP - 36.0;
    let face = Face::new(12.0, Anchor::Start);
    let spread = lines.iter().any(|line| line.std.is_some());
    pen.dot((scale.left + 6.0, y), 4.0, INK);
    pen.text(
        (scale.left + 17.0, y),
        if spread { "measured, last epoch (± one std)" } else { "measured, last epoch" },
        face,
    );
    if lines.iter().any(|line| line.paper.is_some()) {
        let x = scale.left + if spread { 260.0 } else { 180.0 };
        pen.hollow_diamond((x, y), 5.5, INK, 1.5);
        pen.text((x + 12.0, y), "paper", face);
    }
}

/// Draws the heads of the columns of numbers. The paper's columns exist only if the paper prints a value.
fn heads(pen: &mut Pen<'_>, scale: &Scale, beside_paper: bool, reduced: bool) {
    let face = Face::new(11.5, Anchor::End).color(MUTED);
    let names = if beside_paper { &["measured", "paper", "difference"][..] } else { &["measured"] };
    for (column, text) in names.iter().enumerate() {
        pen.text((scale.column(column), TOP - 12.0), text, face);
    }
    if beside_paper && reduced {
        pen.text((scale.column(2), TOP - 28.0), "reduced run: not comparable", face);
    }
}

fn paint_row(pen: &mut Pen<'_>, scale: &Scale, y: f64, line: &Line, color: RGBColor, beside_paper: bool) {
    let bold = is_ours(&line.row);
    let mean = line.mean.unwrap_or_default();
    if let Some(paper) = line.paper {
        pen.line(&[(scale.x(mean), y), (scale.x(paper), y)], AXIS, 0.8);
        pen.hollow_diamond((scale.x(paper), y), 5.5, color, 1.6);
    }
    if let Some(std) = line.std {
        let (from, to) = (scale.x(mean - std), scale.x(mean + std));
        pen.line(&[(from, y), (to, y)], color, 1.5);
        for x in [from, to] {
            pen.line(&[(x, y - 6.0), (x, y + 6.0)], color, 1.5);
        }
    }
    pen.dot((scale.x(mean), y), 4.0, color);
    let number = Face::new(12.0, Anchor::End);
    let measured = line.std.map_or_else(|| format!("{mean:.1}"), |std| format!("{mean:.1} ± {std:.1}"));
    pen.text((scale.column(0), y), &measured, number.bold(bold));
    if !beside_paper {
        return;
    }
    pen.text((scale.column(1), y), &line.paper.map_or("–".to_owned(), |paper| format!("{paper:.1}")), number);
    let difference =
        line.difference.map_or("–".to_owned(), |difference| format!("{difference:+.1}").replace('-', "−"));
    pen.text((scale.column(2), y), &difference, number.color(MUTED));
}

fn caption_text(section: &Section<'_>) -> String {
    let Section { setting, runs, .. } = section;
    let (recipe, others) = caption::recipe(runs);
    let mut sentences = vec![format!(
        "Measured: {}, {}: {recipe}, {}.",
        caption::setting(setting),
        caption::data(setting),
        caption::seeds(runs)
    )];
    if !others.is_empty() {
        sentences.push(format!("Run otherwise: {}.", others.join("; ")));
    }
    if setting.reduced && section.is_in_paper() {
        sentences.push(
            "The paper's values are of the full recipe on all images; differences to a reduced run are not comparable.".into(),
        );
    }
    sentences.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::table::Table;

    #[test]
    fn every_row_shows_its_three_numbers() {
        let runs = fake::full_runs(&[0, 1, 2]);
        let table = Table::new("table1", &runs).unwrap();
        let section = &table.sections(&runs)[0];
        let figure = figure(section).unwrap().unwrap();
        let words: Vec<&str> = figure.svg.lines().map(str::trim).collect();
        for row in &section.rows {
            let line = section.line(row, "knn").unwrap();
            let measured = format!("{:.1} ± {:.1}", line.mean.unwrap(), line.std.unwrap());
            assert!(words.contains(&measured.as_str()), "{row}: {measured}");
            assert!(words.contains(&format!("{:.1}", line.paper.unwrap()).as_str()), "{row}");
        }
        assert!(!figure.svg.contains("reduced"), "a full run is not called reduced");
    }
}
