//! Writes `table.tex`: the table in booktabs style, for use in a paper, with one `tabular` for each section.

use std::fmt::Write as _;

use crate::aggregate::Line;
use crate::caption;
use crate::names::metric_label;
use crate::quote::one_line;
use crate::section::Section;

/// Returns the LaTeX source; it needs `\usepackage{booktabs}`.
pub(crate) fn tables(sections: &[Section<'_>]) -> String {
    let mut text =
        String::from("% Made by `invaspread report` from run records; needs \\usepackage{booktabs}.\n");
    for section in sections {
        tabular(&mut text, section);
    }
    text
}

fn tabular(text: &mut String, section: &Section<'_>) {
    let found = section.setting;
    let metrics = section.quality_metrics();
    // If the paper prints some of the metrics, only those are shown. A suite that is not in the paper shows
    // all its metrics.
    let printed: Vec<&str> = metrics.iter().copied().filter(|metric| section.is_printed(metric)).collect();
    let beside_paper = !printed.is_empty();
    let shown = if beside_paper { printed } else { metrics };
    let columns = if beside_paper { 4 } else { 2 };

    let reduced = if found.reduced {
        " Reduced run: smaller than the paper's recipe, so the differences are not comparable."
    } else {
        ""
    };
    let caption = format!(
        "{}.{reduced} Measured: {}, {}, {}, {}. Last: after the last epoch; best: the best epoch.",
        section.suite.heading(),
        caption::setting(found),
        caption::data(found),
        caption::recipe(&section.runs).0,
        caption::seeds(&section.runs),
    );
    let mut put = |line: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    put("\n\\begin{table}\n  \\centering");
    put(&format!("  \\caption{{{}}}", escaped(&caption)));
    put(&format!("  \\begin{{tabular}}{{lr{}}}", "r".repeat(columns * shown.len())));
    put("    \\toprule");
    let groups: Vec<String> = shown
        .iter()
        .map(|metric| format!("\\multicolumn{{{columns}}}{{c}}{{{}}}", escaped(&metric_label(metric))))
        .collect();
    put(&format!("    & & {} \\\\", groups.join(" & ")));
    for place in 0..shown.len() {
        put(&format!("    \\cmidrule(lr){{{}-{}}}", 3 + place * columns, 2 + (place + 1) * columns));
    }
    let difference = if found.reduced { "Diff.\\ (n/c)" } else { "Diff." };
    let heads =
        if beside_paper { format!("Last & Best & Paper & {difference}") } else { "Last & Best".to_owned() };
    put(&format!("    Method & Seeds & {} \\\\", vec![heads; shown.len()].join(" & ")));
    put("    \\midrule");
    for row in &section.rows {
        let lines: Vec<Option<&Line>> = shown.iter().map(|metric| section.line(row, metric)).collect();
        let seeds = lines.iter().flatten().map(|line| line.n).max().unwrap_or(0);
        let cells: Vec<String> = lines.iter().map(|line| cells(*line, beside_paper)).collect();
        put(&format!("    {} & {seeds} & {} \\\\", escaped(&section.row_label(row)), cells.join(" & ")));
    }
    put("    \\bottomrule\n  \\end{tabular}\n\\end{table}");
}

fn cells(line: Option<&Line>, beside_paper: bool) -> String {
    let number = |value: Option<f64>| value.map_or("--".to_owned(), |value| format!("{value:.1}"));
    let last = line.map_or("--".to_owned(), |line| match (line.mean, line.std) {
        (Some(mean), Some(std)) => format!("${mean:.1} \\pm {std:.1}$"),
        (mean, _) => number(mean),
    });
    let mut cells = vec![last, number(line.and_then(|line| line.best_mean))];
    if beside_paper {
        cells.push(number(line.and_then(|line| line.paper)));
        let difference = line.and_then(|line| line.difference);
        cells.push(difference.map_or("--".to_owned(), |difference| format!("${difference:+.1}$")));
    }
    cells.join(" & ")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in one_line(text).chars() {
        match letter {
            '%' | '&' | '_' | '#' | '$' | '{' | '}' => escaped.extend(['\\', letter]),
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::table::Table;

    #[test]
    fn tex_of_a_reduced_run_and_of_three_seeds() {
        let quick = fake::quick_runs(&[0]);
        let table = Table::new("table1", &quick).unwrap();
        insta::assert_snapshot!("table_tex_reduced", tables(&table.sections(&quick)));
        let full = fake::full_runs(&[0, 1, 2]);
        let table = Table::new("table1", &full).unwrap();
        insta::assert_snapshot!("table_tex_full", tables(&table.sections(&full)));
    }

    #[test]
    fn nothing_that_tex_reads_as_a_command_slips_through() {
        assert_eq!(escaped("a_b 5% {x} \\ ~"), "a\\_b 5\\% \\{x\\} \\textbackslash{} \\textasciitilde{}");
    }
}
