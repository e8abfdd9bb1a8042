//! The part of `report.md` about chance: intervals over seeds, the distance to the paper, and paired differences
//! of rows.

use super::{capitalised, line, metric_label, own_label, signed};
use crate::section::Section;
use crate::seeds::{OverSeeds, difference, mean};

/// With more rows than this, each is compared with the best one alone.
const ALL_PAIRS: usize = 4;

/// Writes the part, for the main metric; nothing if no row has two seeds.
pub(super) fn write(text: &mut String, section: &Section<'_>) {
    let metric = section.main_metric;
    let rows: Vec<(&str, OverSeeds)> =
        section.rows.iter().filter_map(|row| Some((*row, mean(section, row, metric)?))).collect();
    if rows.is_empty() {
        return;
    }
    line(text, &format!("### Over seeds: {}\n", metric_label(metric)));
    let printed = |row: &str| section.line(row, metric).and_then(|line| line.paper);
    let in_paper = rows.iter().any(|(row, _)| printed(row).is_some());
    let mut heads = vec!["Row", "Seeds", "Mean", "95% interval"];
    if in_paper {
        heads.push("Paper");
        heads.push(if section.setting.reduced {
            "Standard deviations from the paper (reduced: not comparable)"
        } else {
            "Standard deviations from the paper"
        });
    }
    line(text, &format!("| {} |", heads.join(" | ")));
    line(text, &format!("|---|{}", "---:|".repeat(heads.len() - 1)));
    for (row, of) in &rows {
        let mut cells =
            vec![own_label(section, row), of.n.to_string(), format!("{:.2}", of.mean), interval(of)];
        if in_paper {
            let paper = printed(row);
            let distance = paper.filter(|_| of.std > 0.0).map(|paper| (of.mean - paper) / of.std);
            cells.push(super::number(paper));
            cells.push(signed(distance));
        }
        line(text, &format!("| {} |", cells.join(" | ")));
    }
    text.push('\n');
    differences(text, section, &rows);
    line(
        text,
        "Intervals are Student's, of the mean over seeds. A difference is taken seed by seed, on the seeds that both rows have.\n\
         Of twenty intervals one misses the truth by chance.",
    );
    if rows.len() > ALL_PAIRS {
        line(text, "The row that all others are compared with is the one whose mean is the highest here.");
    }
    text.push('\n');
}

fn differences(text: &mut String, section: &Section<'_>, rows: &[(&str, OverSeeds)]) {
    let pairs: Vec<[&str; 2]> = if rows.len() <= ALL_PAIRS {
        (0..rows.len()).flat_map(|i| (i + 1..rows.len()).map(move |j| [rows[i].0, rows[j].0])).collect()
    } else {
        let best = rows.iter().max_by(|a, b| a.1.mean.total_cmp(&b.1.mean)).map_or("", |best| best.0);
        rows.iter().filter(|(row, _)| *row != best).map(|(row, _)| [best, *row]).collect()
    };
    let measured: Vec<([&str; 2], OverSeeds)> = pairs
        .into_iter()
        .filter_map(|pair| Some((pair, difference(section, pair, section.main_metric)?)))
        .collect();
    if measured.is_empty() {
        return;
    }
    line(text, "| Difference | Shared seeds | Mean | 95% interval | |\n|---|---:|---:|---:|---|");
    for ([first, second], of) in measured {
        let [first, second] = [first, second].map(|row| own_label(section, row));
        let said = if of.may_be_zero() {
            "no difference shown".to_owned()
        } else {
            capitalised(&format!("{} is higher", if of.mean > 0.0 { &first } else { &second }))
        };
        let cells =
            [format!("{first} − {second}"), of.n.to_string(), hundredths(of.mean), interval(&of), said];
        line(text, &format!("| {} |", cells.join(" | ")));
    }
    text.push('\n');
}

fn interval(of: &OverSeeds) -> String {
    let [low, high] = of.interval();
    format!("{} to {}", minus(low), minus(high))
}

fn minus(value: f64) -> String {
    format!("{value:.2}").replace('-', "−")
}

fn hundredths(value: f64) -> String {
    format!("{value:+.2}").replace('-', "−")
}
