//! The curves of a section as charts: its main metric, the rank of its embeddings, and its training.

use super::chart::{Chart, Form, Plan, Series};
use crate::curves::{
    MeanCurve, RANK, caption_text, is_beside_paper, last_epoch, mean_curves, means, rank_curves, series_of,
};
use crate::names::metric_label;
use crate::palette::Palette;
use crate::section::Section;

/// What of training is drawn: its name in the records, its label, the digits behind the point, and whether its axis
/// begins at 0.
const TRAINING: [(&str, &str, usize, bool); 3] = [
    ("loss", "Loss", 3, false),
    ("images_per_second", "Images per second", 0, true),
    ("wait_seconds", "Waiting for images (s per epoch)", 2, true),
];

/// Returns the chart of the main metric, with the paper's curves where they compare.
pub(crate) fn main(section: &Section<'_>, id: String) -> Option<Chart> {
    let curves = mean_curves(section);
    let label = metric_label(section.main_metric);
    percents(section, &curves, &label, is_beside_paper(section), id)
}

/// Returns the chart of the effective rank.
pub(crate) fn rank(section: &Section<'_>, id: String) -> Option<Chart> {
    percents(section, &rank_curves(section), RANK, false, id)
}

fn percents(
    section: &Section<'_>,
    curves: &[MeanCurve],
    label: &str,
    beside_paper: bool,
    id: String,
) -> Option<Chart> {
    let last = last_epoch(curves);
    let lines = series_of(curves, last, section, beside_paper);
    let palette = Palette::of(&section.rows);
    let series: Vec<Series> = lines
        .iter()
        .map(|line| Series {
            label: line.label(),
            color: palette.color(&line.row),
            form: match (line.from_paper, line.level) {
                (true, _) => Form::Dotted,
                (false, true) => Form::Level,
                (false, false) => Form::Line,
            },
            points: if line.level { level(&line.points, last) } else { placed(&line.points) },
        })
        .collect();
    let plan = Plan {
        id,
        title: format!("{label} by epoch"),
        x_label: "Epoch".to_owned(),
        y_label: label.to_owned(),
        caption: caption_text(section, &lines, last),
        limits: (Some(0.0), Some(100.0)),
        from_zero: false,
        digits: (0, 1),
        x_range: (0.0, last as f64),
        is_small: false,
    };
    Chart::new(plan, &series)
}

fn placed(points: &[(u64, f64, f64)]) -> Vec<(f64, f64, f64)> {
    points.iter().map(|&(epoch, mean, std)| (epoch as f64, mean, std)).collect()
}

/// Returns the value of an untrained network at every epoch, so that it is read beside the others.
fn level(points: &[(u64, f64, f64)], last: u64) -> Vec<(f64, f64, f64)> {
    let value = points.last().copied();
    value.map_or_else(Vec::new, |(_, mean, std)| (0..=last).map(|epoch| (epoch as f64, mean, std)).collect())
}

/// Returns the charts of training that the runs recorded.
pub(crate) fn training(section: &Section<'_>, id: &str) -> Vec<Chart> {
    let palette = Palette::of(&section.rows);
    let chart = |&(name, label, digits, from_zero): &(&str, &str, usize, bool)| {
        let curves = means(section, |run| run.training.get(name), 1.0);
        let series: Vec<Series> = curves
            .iter()
            .map(|curve| Series {
                label: section.row_label(&curve.row),
                color: palette.color(&curve.row),
                form: Form::Line,
                points: placed(&curve.points),
            })
            .collect();
        let last = last_epoch(&curves);
        let plan = Plan {
            id: format!("{id}-{name}"),
            title: format!("{label} by epoch"),
            x_label: "Epoch".to_owned(),
            y_label: label.to_owned(),
            caption: String::new(),
            limits: (None, None),
            from_zero,
            digits: (0, digits),
            x_range: (if last > 1 { 1.0 } else { 0.0 }, last as f64),
            is_small: true,
        };
        Chart::new(plan, &series)
    };
    TRAINING.iter().filter_map(chart).collect()
}
