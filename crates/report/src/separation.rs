//! Draws the similarity of test images to their nearest neighbors of the same group and of other groups, as
//! in the paper's Figures 5 and 6, with one panel for each row.
//!
//! A panel shows two overlapping histograms, each with sum 1. Where they overlap, the network does not
//! separate the two kinds; the number beside them is the overlapping area. All panels share the axis of
//! similarities, but each has its own height: the similarities of an untrained network fill one or two bins,
//! and a shared height would flatten all other panels. Histograms of several seeds are added up.

use plotters::prelude::RGBColor;

use crate::canvas::{AXIS, Anchor, Face, GRID, INK, MUTED, Pen, draw, text_width};
use crate::caption;
use crate::error::ReportError;
use crate::figure::Figure;
use crate::names::grouping_label;
use crate::paper;
use crate::records::Run;
use crate::rows::is_ours;
use crate::section::Section;
use invaspread_record::{GroupSimilarity, Histogram};

const FIGURE: &str = "the distributions of similarity";
pub(crate) const SAME: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
pub(crate) const OTHER: RGBColor = RGBColor(0x00, 0x72, 0xB2);
const PANEL: (f64, f64) = (400.0, 132.0);
const LEFT: f64 = 30.0;
const TOP: f64 = 74.0;
const GAP: (f64, f64) = (52.0, 66.0);

/// One row's two histograms over all of its seeds, as shares.
pub(crate) struct Panel {
    pub(crate) row: String,
    pub(crate) label: String,
    /// The share in each bin from -1 to 1, for the same group and for others.
    pub(crate) shares: [Vec<f64>; 2],
    /// The mean and the standard deviation of each of the two kinds.
    moments: [(f64, f64); 2],
    overlap: f64,
}

/// Returns the panels of a section's runs by `grouping`, one for each row that has it.
pub(crate) fn panels(section: &Section<'_>, grouping: &str) -> Vec<Panel> {
    section.rows.iter().filter_map(|row| Panel::of(row, &section.runs, grouping)).collect()
}

/// Draws the similarities of a section's runs by `grouping`; `None` if no run has that grouping.
///
/// # Errors
/// If drawing fails.
pub fn figure(section: &Section<'_>, grouping: &str) -> Result<Option<Figure>, ReportError> {
    let panels = panels(section, grouping);
    let Some((low, high)) = extent(&panels) else { return Ok(None) };
    let lines = panels.len().div_ceil(2);
    let columns = panels.len().min(2);
    let width = LEFT * 2.0 + columns as f64 * PANEL.0 + (columns - 1) as f64 * GAP.0;
    let caption = caption::wrap(&caption_text(section, grouping), (width / 5.5) as usize);
    // The last line of panels needs less space below it, because no names follow.
    let bottom = TOP + lines as f64 * (PANEL.1 + GAP.1) - 16.0;
    let size = (width, bottom + caption.len() as f64 * 15.0 + 4.0);
    let title = format!("Similarity to neighbours, {}", grouping_label(grouping));
    let svg = draw(FIGURE, &title, size, |pen| {
        pen.text((LEFT, 20.0), &title, Face::new(14.0, Anchor::Start).bold(true));
        legend(pen, grouping);
        for (place, panel) in panels.iter().enumerate() {
            let x = LEFT + (place % 2) as f64 * (PANEL.0 + GAP.0);
            let y = TOP + (place / 2) as f64 * (PANEL.1 + GAP.1);
            panel.paint(pen, (x, y), (low, high), printed(grouping, &panel.row));
        }
        for (line, text) in caption.iter().enumerate() {
            let face = Face::new(10.5, Anchor::Start).color(MUTED);
            pen.text((LEFT, bottom + 2.0 + line as f64 * 15.0), text, face);
        }
    })?;
    Figure::of_svg(FIGURE, svg).map(Some)
}

/// Returns what the panels show and what was run.
pub(crate) fn caption_text(section: &Section<'_>, grouping: &str) -> String {
    let Section { setting, runs, .. } = section;
    let (recipe, _) = caption::recipe(runs);
    format!(
        "Cosine similarity of each {4} to its 5 nearest training images of the same {0} (orange) and of others (blue). Overlap: \
         the part of the histograms that lies under both. Each panel is drawn to the height of its own bars. Runs of {1}, {2}: {recipe}, {3}.",
        group_word(grouping),
        caption::setting(setting),
        caption::data(setting),
        caption::seeds(runs),
        if setting.held_out { "held-out training image" } else { "test image" },
    )
}

pub(crate) fn group_word(grouping: &str) -> &str {
    if grouping == "class" { "class" } else { "group" }
}

/// Returns the overlap read from the paper's figure, if the figure shows this row.
pub(crate) fn printed(grouping: &str, row: &str) -> Option<f64> {
    let metric = format!("overlap_{grouping}");
    ["figure5", "figure6"]
        .iter()
        .find_map(|figure| paper::value(figure, row, &metric))
        .map(|percent| percent / 100.0)
}

/// Returns the range of similarities from the first to the last visible bin, with a margin of one bin.
pub(crate) fn extent(panels: &[Panel]) -> Option<(f64, f64)> {
    let bins = panels.first()?.shares[0].len();
    // A bin with less than a thousandth of its histogram is invisible.
    let seen = |bin: &usize| panels.iter().any(|panel| panel.shares.iter().any(|share| share[*bin] > 1e-3));
    let first = (0..bins).find(seen)?;
    let last = (0..bins).rev().find(seen)?;
    let edge = |bin: usize| 2.0 * bin as f64 / bins as f64 - 1.0;
    Some((edge(first.saturating_sub(1)), edge((last + 2).min(bins))))
}

impl Panel {
    fn of(row: &str, runs: &[&Run], grouping: &str) -> Option<Self> {
        let found: Vec<_> = runs
            .iter()
            .filter(|run| run.record.row == row)
            .flat_map(|run| &run.separations)
            .filter(|separation| separation.name == grouping)
            .collect();
        let bins = found.first()?.same.counts.len();
        let sum = |of: &dyn Fn(usize) -> Option<u64>| (0..found.len()).filter_map(of).sum::<u64>();
        let shares = |kind: for<'a> fn(&'a GroupSimilarity) -> &'a Histogram| {
            let total = sum(&|i| Some(kind(found[i]).counts.iter().sum())).max(1) as f64;
            (0..bins)
                .map(|bin| sum(&|i| kind(found[i]).counts.get(bin).copied()) as f64 / total)
                .collect::<Vec<f64>>()
        };
        let n = found.len() as f64;
        let moments = |kind: for<'a> fn(&'a GroupSimilarity) -> &'a Histogram| {
            let mean = found.iter().map(|s| kind(s).mean).sum::<f64>() / n;
            let square =
                found.iter().map(|s| kind(s).deviation.powi(2) + kind(s).mean.powi(2)).sum::<f64>() / n;
            (mean, (square - mean * mean).max(0.0).sqrt())
        };
        let shares = [shares(|s| &s.same), shares(|s| &s.other)];
        let overlap = shares[0].iter().zip(&shares[1]).map(|(a, b)| a.min(*b)).sum();
        Some(Self {
            row: row.to_owned(),
            label: runs.iter().find(|run| run.record.row == row)?.row_label(),
            shares,
            moments: [moments(|s| &s.same), moments(|s| &s.other)],
            overlap,
        })
    }

    /// Returns the overlap, with the paper's, and the two means.
    pub(crate) fn summary(&self, paper: Option<f64>) -> String {
        let beside = paper.map_or(String::new(), |paper| format!(" (paper {paper:.2})"));
        let [(same, _), (other, _)] = self.moments;
        format!("overlap {:.2}{beside}, means {same:.2} and {other:.2}", self.overlap).replace('-', "−")
    }

    fn paint(&self, pen: &mut Pen<'_>, (x, y): (f64, f64), (low, high): (f64, f64), paper: Option<f64>) {
        let bins = self.shares[0].len() as f64;
        let most = self.shares.iter().flatten().copied().fold(0.0, f64::max);
        let across = |similarity: f64| x + PANEL.0 * (similarity - low) / (high - low);
        let up = |share: f64| y + PANEL.1 * (1.0 - share / most);
        let bottom = y + PANEL.1;
        let step = if high - low > 1.0 { 0.25 } else { 0.1 };
        let mut tick = (low / step).ceil() * step;
        while tick <= high + 1e-9 {
            let at = across(tick);
            pen.line(&[(at, y), (at, bottom)], GRID, 0.8);
            let text = format!("{:.2}", if tick.abs() < 1e-9 { 0.0 } else { tick }).replace('-', "−");
            pen.text((at, bottom + 13.0), &text, Face::new(10.5, Anchor::Middle).color(MUTED));
            tick += step;
        }
        for (shares, color) in self.shares.iter().zip([SAME, OTHER]).rev() {
            let mut outline = vec![(across(low), bottom)];
            for (bin, &share) in shares.iter().enumerate() {
                let [from, to] = [bin, bin + 1].map(|edge| 2.0 * edge as f64 / bins - 1.0);
                if from >= low - 1e-9 && to <= high + 1e-9 {
                    outline.extend([(across(from), up(share)), (across(to), up(share))]);
                }
            }
            outline.push((across(high), bottom));
            pen.band(&outline, color);
            pen.band(&outline, color);
            pen.line(&outline, color, 1.4);
        }
        pen.line(&[(x, bottom), (x + PANEL.0, bottom)], AXIS, 0.8);
        let bold = is_ours(&self.row);
        pen.text((x, y - 12.0), &self.label, Face::new(12.5, Anchor::Start).bold(bold));
        let text = self.summary(paper);
        pen.text((x + PANEL.0, y - 12.0), &text, Face::new(11.0, Anchor::End).color(INK));
        let name = Face::new(10.5, Anchor::Middle).color(MUTED);
        pen.text((x + PANEL.0 / 2.0, bottom + 28.0), "cosine similarity", name);
    }
}

fn legend(pen: &mut Pen<'_>, grouping: &str) {
    let mut x = LEFT;
    let word = group_word(grouping);
    for (color, text) in
        [(SAME, format!("nearest of the same {word}")), (OTHER, format!("nearest of another {word}"))]
    {
        let box_ = [(x, 34.0), (x + 22.0, 34.0), (x + 22.0, 46.0), (x, 46.0)];
        pen.band(&box_, color);
        pen.band(&box_, color);
        pen.line(&[box_[0], box_[1], box_[2], box_[3], box_[0]], color, 1.2);
        pen.text((x + 30.0, 40.0), &text, Face::new(12.0, Anchor::Start));
        x += 30.0 + text_width(&text, 12.0) + 24.0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::table::Table;

    #[test]
    fn a_panel_for_each_row_with_its_share() {
        let runs = fake::with_separations(fake::quick_runs(&[0, 1]));
        let table = Table::new("table1", &runs).unwrap();
        let drawn = figure(&table.sections(&runs)[0], "class").unwrap().unwrap();
        let words = drawn.svg.split_whitespace().collect::<Vec<_>>().join(" ");
        for phrase in [
            "InvaSpread",
            "RandomCNN",
            "overlap 0.",
            "nearest of the same class",
            "cosine similarity",
            "(reduced)",
        ] {
            assert!(words.contains(phrase), "{phrase}");
        }
        assert!(words.contains("(paper 0.24)"), "the paper's own overlap stands beside ours");
        assert!(figure(&table.sections(&runs)[0], "nothing").unwrap().is_none());
    }

    #[test]
    fn two_seeds_are_added_up() {
        let runs = fake::with_separations(fake::quick_runs(&[0, 1]));
        let refs: Vec<&Run> = runs.iter().collect();
        let panel = Panel::of("nce", &refs, "class").unwrap();
        let of_seed = |seed: u64| {
            let run = runs.iter().find(|run| run.record.row == "nce" && run.record.seed == seed).unwrap();
            &run.separations[0].same
        };
        let (a, b) = (of_seed(0), of_seed(1));
        let total = (a.counts.iter().sum::<u64>() + b.counts.iter().sum::<u64>()) as f64;
        for (bin, share) in panel.shares[0].iter().enumerate() {
            assert!((share - (a.counts[bin] + b.counts[bin]) as f64 / total).abs() < 1e-12);
        }
        assert!((panel.shares[1].iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
