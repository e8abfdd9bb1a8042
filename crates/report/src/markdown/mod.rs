//! Writes `report.md`: what was run, the results beside the paper's, and the runs behind each number.

mod seeds;
mod shape;
mod side_by_side;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use invaspread_record::RunRecord;

use crate::aggregate::Line;
use crate::caption;
use crate::names::{duration, grouping_label, thousands};
use crate::order;
use crate::paper;
use crate::quote::{code, link, markdown, shell};
use crate::records::Run;
use crate::section::Section;
use crate::setting::Setting;
use crate::table::Table;

/// The picture files of one section, by file name; `None` for those that were not drawn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pictures {
    pub(crate) curves: Option<String>,
    pub(crate) rank: Option<String>,
    pub(crate) chart: Option<String>,
    /// The file name with its extension, since photographs have no SVG.
    pub(crate) neighbors: Option<String>,
    /// Each grouping, with its file name.
    pub(crate) separations: Vec<(String, String)>,
}

/// The report as text, in the order of its parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    /// The title and what holds for all sections.
    pub(crate) heading: String,
    /// One part for each section.
    pub(crate) sections: Vec<String>,
    /// The runs that were left out and the commands.
    pub(crate) end: String,
}

impl Parts {
    /// Returns the whole text.
    pub(crate) fn text(&self) -> String {
        [&self.heading, &self.sections.concat(), &self.end].map(String::as_str).concat()
    }
}

/// Returns the report of `table`: `sections` are its sections, each with its pictures.
pub(crate) fn report(table: &Table, sections: &[(Section<'_>, Pictures)]) -> Parts {
    let mut parts = Parts { heading: String::new(), sections: Vec::new(), end: String::new() };
    heading(&mut parts.heading, table);
    for (section, pictures) in sections {
        let mut text = String::new();
        one_section(&mut text, section, pictures);
        parts.sections.push(text);
    }
    left_out(&mut parts.end, &table.left_out);
    commands(&mut parts.end, &table.suite.name, sections.iter().map(|(section, _)| section));
    parts
}

/// The text that ends a report's title if all runs of the report are reduced.
pub(crate) const REDUCED: &str = " (reduced run)";

fn heading(text: &mut String, table: &Table) {
    let all_reduced = table.settings.iter().all(|setting| setting.reduced);
    let reduced = if all_reduced { REDUCED } else { "" };
    line(text, &format!("# {}{reduced}\n", markdown(&table.suite.heading())));
    line(
        text,
        "Made by `invaspread report` from run records alone; every measured number is traced to its runs below.\n",
    );
    if all_reduced {
        line(
            text,
            "> **Reduced.** These runs are smaller than the paper's recipe (fewer epochs, images or channels), so their level is not\n\
             > the paper's. The differences are shown, but are not comparable; what can be read is the order of the rows.\n",
        );
    }
    if table.settings.iter().any(|setting| setting.data_state.starts_with("unverified")) {
        line(
            text,
            "> **Unverified data.** No checksum of the data set's files was published, or theirs is another.\n",
        );
    }
    if table.settings.iter().any(|setting| setting.data_state.starts_with("generated")) {
        line(
            text,
            "> **Generated data.** Results on generated images say nothing about the paper's datasets.\n",
        );
    }
    if table.settings.len() > 1 {
        line(text, "Runs of different settings are kept apart, one section each:\n");
        for setting in &table.settings {
            line(text, &format!("- {}", section_title(setting)));
        }
        text.push('\n');
    }
}

fn one_section(text: &mut String, section: &Section<'_>, pictures: &Pictures) {
    line(text, &format!("## {}\n", capitalised(&section_title(section.setting))));
    what_was_run(text, section);
    results(text, section);
    if let Some(chart) = &pictures.chart {
        line(text, &format!("![The table as a chart]({0}.png)\n\n[SVG]({0}.svg)\n", link(chart)));
    }
    if let Some(neighbors) = &pictures.neighbors {
        line(
            text,
            &format!("### Retrieved neighbours\n\n![Test images and what is nearest to them]({neighbors})\n"),
        );
    }
    for (grouping, name) in &pictures.separations {
        let (grouping, name) = (markdown(grouping_label(grouping)), link(name));
        line(text, &format!("### Similarity to neighbours: {grouping}\n"));
        line(text, &format!("![Distributions of similarity, {grouping}]({name}.png)\n\n[SVG]({name}.svg)\n"));
    }
    seeds::write(text, section);
    learning_speed(text, section, pictures);
    shape::write(text, section, pictures.rank.as_deref());
    order_of_rows(text, section);
    records(text, section);
}

fn section_title(setting: &Setting) -> String {
    markdown(&format!("{}, {}", caption::setting(setting), caption::data(setting)))
}

fn what_was_run(text: &mut String, section: &Section<'_>) {
    let runs = &section.runs;
    let distinct = |of: &dyn Fn(&Run) -> Option<String>| -> String {
        let values: BTreeSet<String> = runs.iter().filter_map(|run| of(run)).collect();
        if values.is_empty() {
            "not recorded".into()
        } else {
            values.into_iter().collect::<Vec<_>>().join("; ")
        }
    };
    let (shared, others) = caption::recipe(runs);
    let seconds: f64 = runs.iter().map(|run| run.record.seconds).sum();
    let memory = runs.iter().filter_map(|run| run.record.peak_memory_bytes).max();
    line(text, "| | |\n|---|---|");
    let mut entry = |name: &str, value: &str| line(text, &format!("| {name} | {} |", markdown(value)));
    entry("Recipe", &shared);
    for other in others {
        entry("Run otherwise", &other);
    }
    let measured =
        if runs.iter().any(|run| run.record.held_out) { "Held-out training images" } else { "Test images" };
    entry(measured, &distinct(&|run| Some(thousands(run.record.test_images))));
    let (shared, others) = caption::evaluation(runs);
    entry("Measured by", &shared);
    for other in others {
        entry("Measured otherwise", &other);
    }
    entry("Runs", &format!("{}, {}", runs.len(), caption::seeds(runs)));
    // Those of a table of the paper are named where it is compared.
    let missing = section.missing_rows();
    if !missing.is_empty() {
        entry("Rows without a finished run", &missing.join(", "));
    }
    entry(
        "Program",
        &distinct(&|run| {
            let RunRecord { version, program, git, .. } = &run.record;
            let Some(program) = program else {
                let git = git.as_ref().map(|git| format!(", source {git}")).unwrap_or_default();
                return Some(format!("{version}{git}"));
            };
            // The commit is that of the folder where the program was started.
            let git = git.as_ref().map(|git| format!(", started in a checkout of {git}")).unwrap_or_default();
            let hash: String = program.chars().take(12).collect();
            Some(format!("{version}, program {hash}{git}"))
        }),
    );
    entry("Compiler", &distinct(&|run| Some(run.record.rustc.clone())));
    entry("Processor", &distinct(&|run| Some(run.record.cpu.clone())));
    entry("Threads", &distinct(&|run| Some(run.record.threads.to_string())));
    entry("Time", &format!("{} in all", duration(seconds)));
    if let Some(memory) = memory {
        entry("Memory", &format!("{} MiB at most", thousands(memory >> 20)));
    }
    text.push('\n');
}

fn results(text: &mut String, section: &Section<'_>) {
    let reduced = section.setting.reduced;
    let metrics = section.quality_metrics();
    if metrics.len() > 2 || !section.suite.beside.is_empty() {
        side_by_side::write(text, section, &metrics);
    }
    // A metric has a table of its own if the paper prints its values, or if there are few metrics.
    let in_detail =
        |metric: &&str| metrics.len() <= 2 || *metric == section.main_metric || section.is_printed(metric);
    for metric in metrics.iter().copied().filter(in_detail) {
        let in_paper = section.is_printed(metric);
        let mut heads = vec!["Row", "Seeds", "**Last epoch**", "Best epoch"];
        if in_paper {
            heads.push("Paper");
            heads.push(if reduced { "Difference (reduced: not comparable)" } else { "Difference" });
        }
        line(text, &format!("**{}**\n", metric_label(metric)));
        line(text, &format!("| {} |", heads.join(" | ")));
        line(text, &format!("|---|{}", "---:|".repeat(heads.len() - 1)));
        for measured in section.lines_of(metric) {
            let mut cells = vec![
                own_label(section, &measured.row),
                measured.n.to_string(),
                mean_and_std(measured),
                number(measured.best_mean),
            ];
            if in_paper {
                cells.push(number(measured.paper));
                cells.push(signed(measured.difference));
            }
            line(text, &format!("| {} |", cells.join(" | ")));
        }
        text.push('\n');
    }
    line(
        text,
        &format!(
            "Last epoch: the value after the last epoch, which is the result. Best epoch: the largest over epochs, chosen on the\n\
             {}, so it flatters. Mean over seeds, ± one standard deviation (n − 1) where there are several.\n",
            caption::measured(section.setting)
        ),
    );
    let printed = section.suite.printed().map_or(&[][..], |printed| &printed.rows[..]);
    let absent: Vec<String> = printed
        .iter()
        .filter(|row| !row.quoted && !section.rows.contains(&row.key.as_str()))
        .map(|row| row_label(&row.key))
        .collect();
    if !absent.is_empty() {
        line(text, &format!("Rows of the paper's table that were not run: {}.\n", absent.join(", ")));
    }
}

fn learning_speed(text: &mut String, section: &Section<'_>, pictures: &Pictures) {
    let thresholds = section.speed_metrics();
    if thresholds.is_empty() && pictures.curves.is_none() {
        return;
    }
    line(text, "### Learning speed\n");
    if let Some(curves) = &pictures.curves {
        line(text, &format!("![Learning curves]({0}.png)\n\n[SVG]({0}.svg)\n", link(curves)));
    }
    if thresholds.is_empty() {
        return;
    }
    let on_paper = section.setting.dataset == "cifar10";
    let mut heads = vec!["Row".to_owned()];
    for metric in &thresholds {
        heads.push(metric_label(metric));
        if on_paper {
            heads.push("Paper's curve".into());
        }
        if *metric == "epochs_to_60" && on_paper {
            heads.push("Paper's text".into());
        }
    }
    line(text, &format!("| {} |", heads.join(" | ")));
    line(text, &format!("|---|{}", "---:|".repeat(heads.len() - 1)));
    for row in &section.rows {
        let mut cells = vec![own_label(section, row)];
        for metric in &thresholds {
            let Some(measured) = section.line(row, metric) else { continue };
            cells.push(measured.mean.map_or("not reached".to_owned(), |mean| match measured.std {
                Some(std) => format!("{mean:.1} ± {std:.1}"),
                None => format!("{mean:.0}"),
            }));
            let threshold = metric.trim_start_matches("epochs_to_").parse().unwrap_or(f64::INFINITY);
            if on_paper {
                let curve = paper::curve_epochs_to(row, threshold);
                cells.push(curve.map_or("–".to_owned(), |epoch| epoch.to_string()));
            }
            if *metric == "epochs_to_60" && on_paper {
                cells.push(measured.paper.map_or("–".to_owned(), |epoch| format!("{epoch:.0}")));
            }
        }
        if cells.len() == heads.len() {
            line(text, &format!("| {} |", cells.join(" | ")));
        }
    }
    line(
        text,
        "\nThe first epoch after which kNN accuracy is at or above the threshold; an untrained network is left out. With several\n\
         seeds, \"not reached\" means not by every one.",
    );
    if on_paper {
        line(
            text,
            "The paper's own curve and its text disagree (InvaSpread: epoch 6 drawn, 2 written), so both are given; its epochs\n\
             are of all 50,000 images.",
        );
    }
    text.push('\n');
}

fn order_of_rows(text: &mut String, section: &Section<'_>) {
    let images = section.runs.iter().map(|run| run.record.test_images).min();
    let kind = if section.runs.iter().any(|run| run.record.held_out) { "held-out" } else { "test" };
    let order = order::compare(section, images);
    if order.pairs == 0 {
        return;
    }
    line(text, "### Order of the rows, compared with the paper's\n");
    let inverted = order.inversions.len();
    if inverted == 0 {
        let all = if order.pairs == 1 {
            "The one pair of rows that both rank stands".to_owned()
        } else {
            format!("All {} pairs of rows stand", order.pairs)
        };
        line(text, &format!("{all} in the paper's order.\n"));
        return;
    }
    let noise = order.inversions.iter().filter(|inversion| inversion.within_noise()).count();
    line(
        text,
        &format!(
            "{} of {} pairs of rows stand in the paper's order; {inverted} {} inverted, {noise} of them by no more than chance explains\n\
             (95% interval of the difference, given {} {kind} images).\n",
            order.pairs - inverted,
            order.pairs,
            if inverted == 1 { "is" } else { "are" },
            images.map_or_else(|| "the".to_owned(), thousands),
        ),
    );
    line(
        text,
        "| Paper ranks | above | Measured | against | The other way by | |\n|---|---|---:|---:|---:|---|",
    );
    for inversion in &order.inversions {
        let side = |side: &order::Side| format!("{} ({:.1})", row_label(&side.row), side.paper);
        let margin = inversion.margin.map_or(String::new(), |margin| format!(" (±{margin:.1})"));
        line(
            text,
            &format!(
                "| {} | {} | {:.1} | {:.1} | {:.1}{margin} | {} |",
                side(&inversion.paper_higher),
                side(&inversion.paper_lower),
                inversion.paper_higher.measured,
                inversion.paper_lower.measured,
                inversion.gap(),
                if inversion.within_noise() { "within chance" } else { "" },
            ),
        );
    }
    text.push('\n');
}

fn records(text: &mut String, section: &Section<'_>) {
    line(text, "### Run records\n");
    line(text, "Records are given by their place below `runs.root`.\n");
    let metric = section.main_metric;
    let recorded = crate::names::recorded_metric(metric);
    line(
        text,
        &format!(
            "| Row | Seed | {} last | best (at epoch) | Time | Images/s | Configuration | Record |\n|---|---:|---:|---:|---:|---:|---|---|",
            metric_label(metric)
        ),
    );
    for run in &section.runs {
        let record = &run.record;
        let summary = record.metrics.get(&*recorded);
        let speed = record.images_per_second.filter(|_| run.is_trained());
        line(
            text,
            &format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                own_label(section, &record.row),
                record.seed,
                number(summary.map(|summary| summary.last)),
                summary.map_or("–".to_owned(), |summary| format!(
                    "{:.1} ({})",
                    summary.best, summary.best_epoch
                )),
                duration(record.seconds),
                speed.map_or("–".to_owned(), |speed| thousands(speed.round() as u64)),
                code(&record.config_hash),
                code(&format!("{}/record.json", run.folder)),
            ),
        );
    }
    text.push('\n');
}

fn left_out(text: &mut String, folders: &[String]) {
    if folders.is_empty() {
        return;
    }
    line(text, "## Left out\n");
    line(
        text,
        "Runs of the same row and setting under an older configuration; they enter no number above:\n",
    );
    for folder in folders {
        line(text, &format!("- {}", code(folder)));
    }
    text.push('\n');
}

/// Writes the commands that make the runs and the report again.
fn commands<'a>(text: &mut String, suite: &str, sections: impl Iterator<Item = &'a Section<'a>>) {
    line(text, "## To regenerate\n");
    line(text, "```sh");
    let mut commands: Vec<String> = Vec::new();
    for Section { setting, runs, .. } in sections {
        let seeds: BTreeSet<u64> = runs.iter().map(|run| run.record.seed).collect();
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        let seeds = if seeds == ["0"] { String::new() } else { format!(" seed={}", seeds.join(",")) };
        commands.push(format!(
            "invaspread reproduce {} --profile {} device={}{seeds}{}",
            shell(suite),
            // Changes of the profile are among the arguments.
            shell(setting.profile.split(" with ").next().unwrap_or_default()),
            shell(&setting.device),
            arguments(runs)
        ));
    }
    commands.dedup();
    for command in commands {
        line(text, &command);
    }
    line(text, &format!("invaspread report {}", shell(suite)));
    line(text, "```\n");
    line(
        text,
        "Runs that are already done are not run again. The numbers of this page in long form: [table.csv](table.csv),\n\
         [table.parquet](table.parquet), [table.tex](table.tex).",
    );
}

/// Returns the arguments that all runs share, quoted for a shell.
fn arguments(runs: &[&Run]) -> String {
    let Some((first, others)) = runs.split_first() else { return String::new() };
    let shared = first.record.arguments.iter();
    let shared = shared.filter(|argument| others.iter().all(|run| run.record.arguments.contains(argument)));
    shared.fold(String::new(), |command, argument| command + " " + &shell(argument))
}

/// Returns a row's label, quoted for Markdown.
fn row_label(key: &str) -> String {
    markdown(&crate::names::row_label(key))
}

/// Returns the label of a measured row, as a table cell or a word of the page.
fn own_label(section: &Section<'_>, row: &str) -> String {
    markdown(&section.row_label(row))
}

/// Returns a metric's label, quoted for Markdown.
fn metric_label(metric: &str) -> String {
    markdown(&crate::names::metric_label(metric))
}

fn mean_and_std(measured: &Line) -> String {
    match (measured.mean, measured.std) {
        (Some(mean), Some(std)) => format!("**{mean:.1}** ± {std:.1}"),
        (Some(mean), None) => format!("**{mean:.1}**"),
        _ => "–".to_owned(),
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.1}"))
}

fn signed(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:+.1}").replace('-', "−"))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn line(text: &mut String, content: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::suite::Suite;

    fn of(runs: &[Run]) -> String {
        let table = Table::new("table1", runs).unwrap();
        let pictures =
            Pictures { curves: Some("curves".into()), chart: Some("table1".into()), ..Pictures::default() };
        let sections = table.sections(runs).into_iter().map(|section| (section, pictures.clone()));
        report(&table, &sections.collect::<Vec<_>>()).text()
    }

    #[test]
    fn a_reduced_report() {
        insta::assert_snapshot!("report_reduced", of(&fake::quick_runs(&[0])));
    }

    #[test]
    fn a_full_report_over_three_seeds() {
        insta::assert_snapshot!("report_full", of(&fake::full_runs(&[0, 1, 2])));
    }

    #[test]
    fn the_build_of_the_program_is_named_by_its_hash() {
        let mut runs = fake::quick_runs(&[0]);
        runs[0].record.git = Some("29de398".into());
        assert!(of(&runs).contains("invaspread 0.0.0, source 29de398"), "a record without a hash");
        runs[0].record.program = Some("0123456789abcdef".into());
        let named = "invaspread 0.0.0, program 0123456789ab, started in a checkout of 29de398";
        assert!(of(&runs).contains(named), "{}", of(&runs));
    }

    #[test]
    fn settings_get_a_section_each_and_absent_rows_are_named() {
        let mut runs = fake::quick_runs(&[0]);
        runs.retain(|run| run.record.row != "nce");
        runs.extend(fake::full_runs(&[0]));
        let text = of(&runs);
        assert!(
            text.contains("# Table 1: kNN accuracy on CIFAR-10\n"),
            "a mixed report is not reduced as a whole"
        );
        assert!(text.contains("## Profile paper on cpu, CIFAR-10 (verified)"));
        assert!(text.contains("## Profile quick (reduced) on cpu, CIFAR-10 (verified)"));
        assert!(text.contains("Rows of the paper's table that were not run: NCE."));
    }

    #[test]
    fn rows_of_a_suite_beyond_the_paper_that_were_not_run_are_named() {
        let runs = fake::quick_runs(&[0]);
        let of = |rows: &[&str]| {
            let rows = rows.iter().map(|&row| row.to_owned()).collect();
            let table = Table::new(Suite { rows, ..Suite::from("own") }, &runs).unwrap();
            let sections = table.sections(&runs).into_iter().map(|section| (section, Pictures::default()));
            report(&table, &sections.collect::<Vec<_>>()).text()
        };
        assert!(of(&["nce", "absent", "other"]).contains("| Rows without a finished run | absent, other |"));
        assert!(!of(&["nce"]).contains("without a finished run"));
    }

    #[test]
    fn a_retrieval_report_has_all_metrics_side_by_side_and_quoted_rows() {
        let runs = fake::retrieval_runs();
        let table = Table::new("table3", &runs).unwrap();
        let sections = table.sections(&runs).into_iter().map(|section| (section, Pictures::default()));
        insta::assert_snapshot!("report_retrieval", report(&table, &sections.collect::<Vec<_>>()).text());
    }

    #[test]
    fn names_of_users_are_text_and_nothing_else() {
        let mut runs = fake::quick_runs(&[0]);
        for run in &mut runs {
            run.record.row = format!("{}|<img src=x>\n# forged", run.record.row);
            run.record.profile = "a`b\u{1b}[31m\n```".into();
            run.record.cpu = "x | y".into();
            run.record.arguments = vec!["data.root=/a\n```\nrm".into()];
        }
        let text = of(&runs);
        assert!(!text.contains("<img") && !text.contains('\u{1b}') && !text.contains("\n# forged"), "{text}");
        assert!(text.contains("x \\| y") && text.contains("&lt;img src=x>"), "{text}");
        assert_eq!(text.matches("\n```").count(), 2, "the block of commands opens and ends once: {text}");
        for table in text.split("\n\n").filter(|block| block.starts_with('|')) {
            let cells = |line: &str| line.replace("\\|", "").matches('|').count();
            let widths: Vec<usize> = table.lines().map(cells).collect();
            assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        }
        let table = Table::new("table1", &runs).unwrap();
        let shown = crate::terminal_table(&table.sections(&runs));
        assert!(!shown.contains('\u{1b}') && !shown.lines().any(|line| line.starts_with('#')), "{shown}");
        let drawn = crate::curves::figure(&table.sections(&runs)[0]).unwrap().unwrap();
        assert!(!drawn.svg.contains('\u{1b}') && !drawn.png.is_empty());
    }
}
