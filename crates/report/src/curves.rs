//! Draws learning curves: a section's main metric on the test images after each epoch, all rows in one
//! figure, and the rank of their embeddings in another.
//!
//! Solid lines are measured: the mean over seeds, with a band of one standard deviation if there are several
//! seeds; epoch 0 is the untrained network. Dotted lines of the same color are the paper's Figure 3 over the
//! same epochs. The labels stand at the ends of the curves and are moved apart where they would overlap.

use std::collections::BTreeMap;

use crate::canvas::{AXIS, Anchor, Face, GRID, INK, MUTED, Pen, draw, round_step, spread, text_width};
use crate::caption;
use crate::error::ReportError;
use crate::figure::Figure;
use crate::names::{metric_label, recorded_metric, row_label};
use crate::palette::Palette;
use crate::paper;
use crate::records::{Point, Run};
use crate::rows::is_ours;
use crate::section::Section;
use plotters::style::RGBColor;

const FIGURE: &str = "the learning curves";
const WIDTH: f64 = 880.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 44.0;
const PLOT: (f64, f64) = (545.0, 400.0);
const LABEL: f64 = 12.0;

/// The mean curve of a row over its seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanCurve {
    /// The row.
    pub row: String,
    /// The number of seeds.
    pub n: usize,
    /// (epoch, mean, standard deviation) at every epoch that all seeds have, percent. The deviation divides
    /// by n - 1; for one seed it is 0.
    pub points: Vec<(u64, f64, f64)>,
}

/// Returns the mean curve of the section's main metric for each row that has one.
pub fn mean_curves(section: &Section<'_>) -> Vec<MeanCurve> {
    let metric = recorded_metric(section.main_metric);
    means(section, |run| run.curves.get(&*metric), 1.0)
}

/// Returns the mean curve over seeds, times `scale`, of the curve that `of` takes from each run.
pub(crate) fn means<'a>(
    section: &Section<'a>,
    of: impl Fn(&'a Run) -> Option<&'a Vec<Point>>,
    scale: f64,
) -> Vec<MeanCurve> {
    let mean_curve = |row: &str| {
        let of_row: Vec<&&Run> = section.runs.iter().filter(|run| run.record.row == row).collect();
        let mut values: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for point in of_row.iter().filter_map(|run| of(run)).flatten() {
            values.entry(point.epoch).or_default().push(scale * point.value);
        }
        let n = of_row.len();
        let points: Vec<(u64, f64, f64)> = values
            .into_iter()
            .filter(|(_, values)| values.len() == n)
            .map(|(epoch, values)| {
                let mean = values.iter().sum::<f64>() / n as f64;
                let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
                (epoch, mean, (squares / (n.max(2) - 1) as f64).sqrt())
            })
            .collect();
        (!points.is_empty()).then(|| MeanCurve { row: row.to_owned(), n, points })
    };
    section.rows.iter().copied().filter_map(mean_curve).collect()
}

/// Draws a section's learning curves; `None` if no run of it has a curve.
///
/// # Errors
/// If drawing fails.
pub fn figure(section: &Section<'_>) -> Result<Option<Figure>, ReportError> {
    draw_curves(section, &mean_curves(section), &metric_label(section.main_metric), is_beside_paper(section))
}

/// Returns whether the paper's learning curves may stand beside the section's: they are kNN accuracies on CIFAR-10 and
/// must not be compared with anything else.
pub(crate) fn is_beside_paper(section: &Section<'_>) -> bool {
    section.main_metric == "knn" && section.setting.dataset == "cifar10"
}

/// Returns the curves of a section's effective ranks, as shares of the largest possible one, percent.
pub(crate) fn rank_curves(section: &Section<'_>) -> Vec<MeanCurve> {
    means(section, |run| run.shape.get("rank_share"), 100.0)
}

/// The name of the ranks in figures.
pub(crate) const RANK: &str = "Effective rank (% of the largest possible)";

/// Draws the effective rank of a section's embeddings, as a share of the largest possible one; `None` if no run
/// of it measured that.
///
/// # Errors
/// If drawing fails.
pub fn rank_figure(section: &Section<'_>) -> Result<Option<Figure>, ReportError> {
    draw_curves(section, &rank_curves(section), RANK, false)
}

fn draw_curves(
    section: &Section<'_>,
    curves: &[MeanCurve],
    metric: &str,
    beside_paper: bool,
) -> Result<Option<Figure>, ReportError> {
    if curves.is_empty() {
        return Ok(None);
    }
    let last_epoch = last_epoch(curves);
    let series = series_of(curves, last_epoch, section, beside_paper);
    let caption = caption::wrap(&caption_text(section, &series, last_epoch), 145);
    let palette = Palette::of(&section.rows);
    let axes = Axes::around(&series, last_epoch);
    let height = TOP + PLOT.1 + 58.0 + caption.len() as f64 * 15.0;
    let title = format!("{metric} by epoch, {}", caption::setting(section.setting));
    let svg = draw(FIGURE, &title, (WIDTH, height), |pen| {
        axes.paint(pen, metric);
        legend(pen, &series);
        // The measured curves are drawn over the paper's.
        for series in series.iter().filter(|series| series.from_paper) {
            pen.dotted(&axes.path(series), palette.color(&series.row), 2.0);
        }
        for series in series.iter().filter(|series| !series.from_paper) {
            paint_measured(pen, &axes, series, palette.color(&series.row));
        }
        end_labels(pen, &axes, &series, &palette);
        for (line, text) in caption.iter().enumerate() {
            let y = TOP + PLOT.1 + 62.0 + line as f64 * 15.0;
            pen.text((LEFT, y), text, Face::new(10.5, Anchor::Start).color(MUTED));
        }
    })?;
    Figure::of_svg(FIGURE, svg).map(Some)
}

/// Returns the last epoch of any curve, at least 1.
pub(crate) fn last_epoch(curves: &[MeanCurve]) -> u64 {
    curves.iter().filter_map(|curve| curve.points.last()).map(|point| point.0).max().unwrap_or(0).max(1)
}

/// One line of the figure.
pub(crate) struct Series {
    pub(crate) row: String,
    name: String,
    pub(crate) from_paper: bool,
    /// Whether the network is untrained; its value holds for every epoch.
    pub(crate) level: bool,
    /// (epoch, mean, standard deviation).
    pub(crate) points: Vec<(u64, f64, f64)>,
}

impl Series {
    fn end(&self) -> f64 {
        self.points.last().map_or(0.0, |point| point.1)
    }

    pub(crate) fn label(&self) -> String {
        let paper = if self.from_paper { ", paper" } else { "" };
        format!("{}{paper}", self.name)
    }
}

/// Returns the lines of a figure: the measured ones and, if `beside_paper`, the paper's up to `last_epoch`.
pub(crate) fn series_of(
    curves: &[MeanCurve],
    last_epoch: u64,
    section: &Section<'_>,
    beside_paper: bool,
) -> Vec<Series> {
    let trained = |row: &str| section.runs.iter().any(|run| run.record.row == row && run.is_trained());
    let mut series = Vec::new();
    for curve in curves {
        let level = !trained(&curve.row);
        let mut points = curve.points.clone();
        if let (true, Some(&(_, mean, std))) = (level, points.last()) {
            points = vec![(0, mean, std), (last_epoch, mean, std)];
        }
        let name = section.row_label(&curve.row);
        series.push(Series { row: curve.row.clone(), name, from_paper: false, level, points });
    }
    if beside_paper {
        for printed in
            paper::curves().iter().filter(|printed| curves.iter().any(|curve| curve.row == printed.row))
        {
            let epochs = (1_u64..).zip(&printed.accuracy).take_while(|(epoch, _)| *epoch <= last_epoch);
            let points = epochs.map(|(epoch, &accuracy)| (epoch, accuracy, 0.0)).collect();
            let name = row_label(printed.row);
            series.push(Series { row: printed.row.to_owned(), name, from_paper: true, level: false, points });
        }
    }
    series
}

/// Returns what the lines are and what was run.
pub(crate) fn caption_text(section: &Section<'_>, series: &[Series], last_epoch: u64) -> String {
    let Section { setting, runs, .. } = section;
    let (recipe, others) = caption::recipe(runs);
    let mut sentences = vec![format!(
        "Solid: measured, {}, {}: {recipe}, {}. Epoch 0 is the untrained network.",
        caption::setting(setting),
        caption::data(setting),
        caption::seeds(runs),
    )];
    if !others.is_empty() {
        sentences.push(format!("Run otherwise: {}.", others.join("; ")));
    }
    if runs.iter().any(|run| run.record.seed != runs[0].record.seed) {
        sentences.push("Bands: one standard deviation over seeds.".into());
    }
    if series.iter().any(|series| series.from_paper) {
        let span =
            if last_epoch < 200 { format!("the first {last_epoch} epochs of ") } else { String::new() };
        sentences.push(format!(
            "Dotted: the paper's Figure 3, {span}its own 200-epoch runs of the full recipe on all 50,000 images."
        ));
        if setting.reduced {
            sentences
                .push("The measured runs are reduced: the two are not comparable point by point.".into());
        }
    }
    sentences.join(" ")
}

/// The axes: the positions of data on the page.
struct Axes {
    last_epoch: u64,
    low: f64,
    high: f64,
    /// The distance between grid lines; `low` and `high` lie on grid lines.
    step: f64,
}

impl Axes {
    fn around(series: &[Series], last_epoch: u64) -> Self {
        let points = || series.iter().flat_map(|series| &series.points);
        let low = points().map(|(_, mean, std)| mean - std).fold(f64::INFINITY, f64::min);
        let high = points().map(|(_, mean, std)| mean + std).fold(f64::NEG_INFINITY, f64::max);
        let step = round_step((high - low).max(5.0), 8.0);
        let low = ((low - 0.5) / step).floor() * step;
        let high = ((high + 0.5) / step).ceil() * step;
        Self { last_epoch, low: low.max(0.0), high: high.min(100.0), step }
    }

    fn place(&self, epoch: f64, value: f64) -> (f64, f64) {
        let x = LEFT + PLOT.0 * epoch / self.last_epoch as f64;
        (x, TOP + PLOT.1 * (self.high - value) / (self.high - self.low))
    }

    fn path(&self, series: &Series) -> Vec<(f64, f64)> {
        series.points.iter().map(|&(epoch, mean, _)| self.place(epoch as f64, mean)).collect()
    }

    fn paint(&self, pen: &mut Pen<'_>, metric: &str) {
        let tick = Face::new(11.5, Anchor::End).color(MUTED);
        for index in 0..=((self.high - self.low) / self.step).round() as u32 {
            let value = self.low + f64::from(index) * self.step;
            let (_, y) = self.place(0.0, value);
            pen.line(&[(LEFT, y), (LEFT + PLOT.0, y)], GRID, 0.8);
            pen.text((LEFT - 8.0, y), &format!("{value:.0}"), tick);
        }
        let bottom = TOP + PLOT.1;
        let step = round_step(self.last_epoch as f64, 10.0).max(1.0) as u64;
        for epoch in (0..=self.last_epoch).step_by(step as usize) {
            let (x, _) = self.place(epoch as f64, self.low);
            pen.line(&[(x, bottom), (x, bottom + 4.0)], AXIS, 0.8);
            pen.text((x, bottom + 15.0), &epoch.to_string(), Face { anchor: Anchor::Middle, ..tick });
        }
        pen.line(&[(LEFT, bottom), (LEFT + PLOT.0, bottom)], AXIS, 0.8);
        let name = Face::new(13.0, Anchor::Middle);
        pen.text((LEFT + PLOT.0 / 2.0, bottom + 36.0), "Epoch", name);
        pen.text((18.0, TOP + PLOT.1 / 2.0), metric, name.upwards());
    }
}

/// Draws the legend above the data, which explains solid, dotted and shaded.
fn legend(pen: &mut Pen<'_>, series: &[Series]) {
    let y = TOP - 24.0;
    let mut x = LEFT;
    let face = Face::new(LABEL, Anchor::Start);
    let mut entry = |pen: &mut Pen<'_>, text: &str, sample: &dyn Fn(&mut Pen<'_>, f64)| {
        sample(pen, x);
        pen.text((x + 34.0, y), text, face);
        x += 34.0 + text_width(text, LABEL) + 22.0;
    };
    entry(pen, "measured", &|pen, x| pen.line(&[(x, y), (x + 26.0, y)], INK, 2.0));
    if series.iter().any(|series| !series.from_paper && series.points.iter().any(|point| point.2 > 0.0)) {
        entry(pen, "± one std", &|pen, x| {
            pen.band(&[(x, y - 6.0), (x + 26.0, y - 6.0), (x + 26.0, y + 6.0), (x, y + 6.0)], INK);
        });
    }
    if series.iter().any(|series| series.from_paper) {
        entry(pen, "paper, Figure 3", &|pen, x| pen.dotted(&[(x, y), (x + 26.0, y)], INK, 2.0));
    }
}

fn paint_measured(pen: &mut Pen<'_>, axes: &Axes, series: &Series, color: RGBColor) {
    if series.points.len() > 1 && series.points.iter().any(|point| point.2 > 0.0) {
        let edge = |sign: f64| {
            series.points.iter().map(move |&(epoch, mean, std)| axes.place(epoch as f64, mean + sign * std))
        };
        let lower: Vec<(f64, f64)> = edge(-1.0).collect();
        let outline: Vec<(f64, f64)> = edge(1.0).chain(lower.into_iter().rev()).collect();
        pen.band(&outline, color);
    }
    let path = axes.path(series);
    let main = is_ours(&series.row);
    pen.line(&path, color, if main { 2.6 } else { 1.5 });
    // With few epochs, each is marked by a dot.
    if axes.last_epoch <= 25 && !series.level {
        for point in path {
            pen.dot(point, if main { 3.2 } else { 2.4 }, color);
        }
    }
}

/// Draws a label at the end of each curve: a line that leads to the label, a sample of the curve, its name
/// and its last value.
fn end_labels(pen: &mut Pen<'_>, axes: &Axes, series: &[Series], palette: &Palette) {
    let right = LEFT + PLOT.0;
    let wanted: Vec<f64> = series.iter().map(|series| axes.place(0.0, series.end()).1).collect();
    let placed = spread(&wanted, LABEL + 4.0, (TOP, TOP + PLOT.1));
    for ((series, from), to) in series.iter().zip(wanted).zip(placed) {
        let color = palette.color(&series.row);
        let start = series.points.last().map_or(right, |point| axes.place(point.0 as f64, 0.0).0);
        pen.line(&[(start + 5.0, from), (right + 20.0, to)], crate::canvas::GRID, 1.0);
        if series.from_paper {
            pen.dotted(&[(right + 24.0, to), (right + 42.0, to)], color, 2.0);
        } else {
            pen.line(&[(right + 23.0, to), (right + 43.0, to)], color, 2.4);
        }
        let face = Face::new(LABEL, Anchor::Start).bold(is_ours(&series.row) && !series.from_paper);
        pen.text(
            (right + 50.0, to),
            &series.label(),
            if series.from_paper { face.color(MUTED) } else { face },
        );
        let value = Face { anchor: Anchor::End, ..face };
        let value = if series.from_paper { value.color(MUTED) } else { value };
        pen.text((WIDTH - 8.0, to), &format!("{:.1}", series.end()), value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::table::Table;

    #[test]
    fn mean_curves_average_seeds_epoch_by_epoch() {
        let runs = fake::quick_runs(&[0, 1]);
        let table = Table::new("table1", &runs).unwrap();
        let curves = mean_curves(&table.sections(&runs)[0]);
        let curve = curves.iter().find(|curve| curve.row == "exemplar").unwrap();
        let of_seed = |seed| {
            let run =
                runs.iter().find(|run| run.record.row == "exemplar" && run.record.seed == seed).unwrap();
            &run.curves["knn_top1"]
        };
        assert_eq!((curve.n, curve.points.len()), (2, 11));
        for &(epoch, mean, std) in &curve.points {
            let (a, b) = (of_seed(0)[epoch as usize].value, of_seed(1)[epoch as usize].value);
            assert!((mean - f64::midpoint(a, b)).abs() < 1e-9);
            assert!((std - (a - b).abs() / 2.0_f64.sqrt()).abs() < 1e-9);
        }
    }

    #[test]
    fn a_reduced_figure_says_so_and_shows_the_papers_curves_over_its_own_epochs() {
        let runs = fake::quick_runs(&[0]);
        let table = Table::new("table1", &runs).unwrap();
        let figure = figure(&table.sections(&runs)[0]).unwrap().unwrap();
        let words = figure.svg.split_whitespace().collect::<Vec<_>>().join(" ");
        for phrase in
            ["(reduced)", "the first 10 epochs of", "InvaSpread, paper", "67.5", "RandomCNN", "Epoch"]
        {
            assert!(words.contains(phrase), "{phrase}");
        }
        assert!(!words.contains("84.7"), "the paper's epoch 200 lies outside of ten epochs");
        assert_eq!(&figure.png[1..4], b"PNG");
    }

    #[test]
    fn other_datasets_are_not_set_beside_the_papers_curves() {
        let mut runs = fake::quick_runs(&[0]);
        for run in &mut runs {
            run.record.dataset = "synthetic".into();
            run.record.data_state = "generated".into();
        }
        let table = Table::new("table1", &runs).unwrap();
        let figure = figure(&table.sections(&runs)[0]).unwrap().unwrap();
        assert!(!figure.svg.contains("paper") && figure.svg.contains("synthetic (generated)"));
    }
}
