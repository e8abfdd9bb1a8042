//! The distributions of similarity of a section as charts, one for each row: the shares of the nearest images of the same
//! group and of others, by cosine similarity.

use super::chart::{Chart, Form, Plan, Series};
use crate::section::Section;
use crate::separation::{OTHER, SAME, extent, group_word, panels, printed};

/// Returns a chart for each row that has the grouping. All share the axis of similarities; each has its own height.
pub(crate) fn charts(section: &Section<'_>, grouping: &str, id: &str) -> Vec<Chart> {
    let panels = panels(section, grouping);
    let Some(x_range) = extent(&panels) else { return Vec::new() };
    let word = group_word(grouping);
    panels
        .iter()
        .enumerate()
        .filter_map(|(place, panel)| {
            let width = 2.0 / panel.shares[0].len() as f64;
            let points = |shares: &[f64]| -> Vec<(f64, f64, f64)> {
                let centers = (0..shares.len()).map(|bin| (bin as f64 + 0.5) * width - 1.0);
                let all = centers.zip(shares).map(|(center, share)| (center, 100.0 * share, 0.0));
                all.filter(|point| point.0 >= x_range.0 && point.0 <= x_range.1).collect()
            };
            let series = [(SAME, 0, "nearest of the same"), (OTHER, 1, "nearest of another")].map(
                |(color, kind, label)| Series {
                    label: format!("{label} {word}"),
                    color,
                    form: Form::Steps(width),
                    points: points(&panel.shares[kind]),
                },
            );
            let plan = Plan {
                id: format!("{id}-{place}"),
                title: format!("{}: {}", panel.label, panel.summary(printed(grouping, &panel.row))),
                x_label: "Cosine similarity".to_owned(),
                y_label: "Share (%)".to_owned(),
                caption: String::new(),
                limits: (Some(0.0), Some(100.0)),
                from_zero: true,
                digits: (2, 2),
                x_range,
                is_small: true,
            };
            Chart::new(plan, &series)
        })
        .collect()
}
