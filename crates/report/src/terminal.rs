//! The table that is printed in the terminal at the end of a suite.

use comfy_table::{CellAlignment, LineStyle, Table as Grid, presets};

use crate::caption;
use crate::names::metric_label;
use crate::quote::one_line;
use crate::section::Section;

/// Returns one grid for each setting, without colors, ready to print.
pub fn terminal_table(sections: &[Section<'_>]) -> String {
    let grids: Vec<String> = sections.iter().map(grid).collect();
    grids.join("\n\n")
}

fn grid(section: &Section<'_>) -> String {
    let (found, main) = (section.setting, section.main_metric);
    let thresholds = section.speed_metrics();
    let in_paper = section.is_printed(main);
    let mut heads = vec![String::new(), "seeds".into(), "last epoch".into(), "best epoch".into()];
    if in_paper {
        heads.extend(["paper".into(), if found.reduced { "difference*" } else { "difference" }.into()]);
    }
    let mut others = section.quality_metrics();
    others.retain(|metric| *metric != main && *metric != "knn_top5");
    heads.extend(others.iter().map(|metric| metric_label(metric).trim_end_matches(" (%)").to_owned()));
    heads.extend(thresholds.iter().map(|metric| metric_label(metric).to_lowercase()));

    let mut grid = Grid::new();
    grid.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    grid.set_header(heads);
    for line in section.lines_of(main) {
        let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
        let last = match (line.mean, line.std) {
            (Some(mean), Some(std)) => format!("{mean:.1} ± {std:.1}"),
            (mean, _) => number(mean),
        };
        let row = line.row.as_str();
        let mut cells =
            vec![one_line(&section.row_label(row)), line.n.to_string(), last, number(line.best_mean)];
        if in_paper {
            cells.push(number(line.paper));
            cells.push(line.difference.map_or("–".to_owned(), |difference| format!("{difference:+.1}")));
        }
        for metric in &others {
            cells.push(number(section.line(row, metric).and_then(|line| line.mean)));
        }
        for metric in &thresholds {
            cells.push(section.line(row, metric).map_or("–".to_owned(), |line| {
                line.mean.map_or("not reached".to_owned(), |epoch| format!("{epoch:.0}"))
            }));
        }
        grid.add_row(cells);
    }
    for column in grid.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }

    let mut text = format!(
        "{}\n{}, {}, {}\n{}, {}\n{}",
        one_line(&section.suite.heading()),
        metric_label(main),
        one_line(&caption::setting(found)),
        one_line(&caption::data(found)),
        one_line(&caption::recipe(&section.runs).0),
        caption::seeds(&section.runs),
        grid.trim_fmt(),
    );
    if found.reduced && in_paper {
        text.push_str("\n* reduced run: smaller than the paper's recipe, so not comparable with its numbers");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::table::Table;

    #[test]
    fn the_table_at_the_end_of_a_suite() {
        let runs = fake::quick_runs(&[0]);
        let table = Table::new("table1", &runs).unwrap();
        insta::assert_snapshot!("terminal", terminal_table(&table.sections(&runs)));
    }

    #[test]
    fn a_retrieval_suite_shows_every_metric() {
        let runs = fake::retrieval_runs();
        let table = Table::new("table3", &runs).unwrap();
        insta::assert_snapshot!("terminal_retrieval", terminal_table(&table.sections(&runs)));
    }
}
