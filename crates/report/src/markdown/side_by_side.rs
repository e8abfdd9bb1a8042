//! The part of `report.md` that shows all metrics of each row side by side, last epochs only, with what the
//! suite asks for beside them: time and memory, the shape of the embedding, the numbers of other libraries.

use std::collections::{BTreeMap, BTreeSet};

use super::{line, mean_and_std, metric_label, own_label, row_label};
use crate::beside::Beside;
use crate::caption;
use crate::names::thousands;
use crate::peers::{Peer, peers};
use crate::quote::markdown;
use crate::records::Run;
use crate::section::Section;

/// A column: its head and its cell for each measured row.
struct Column<'a> {
    head: String,
    cell: Box<dyn Fn(&str) -> String + 'a>,
}

/// What is printed where there is no number.
const NONE: &str = "–";

/// Writes the table. The paper's rows follow the measured ones in italics, as the paper prints Tables 2 to 6,
/// including the rows that the paper quotes from other publications.
pub(super) fn write(text: &mut String, section: &Section<'_>, metrics: &[&str]) {
    let mut columns: Vec<Column<'_>> = metrics.iter().map(|metric| of_metric(section, metric)).collect();
    let mut notes = Vec::new();
    for beside in &section.suite.beside {
        match beside {
            Beside::Cost => cost(section, &mut columns, &mut notes),
            Beside::Shape => shape(section, &mut columns, &mut notes),
            Beside::Peers => {
                for peer in peers().filter(|peer| is_comparable(peer, section, metrics)) {
                    of_peer(peer, section.setting.reduced, &mut columns, &mut notes);
                }
            }
        }
    }
    line(text, "**Last epoch, all metrics** (%)\n");
    let heads: Vec<&str> = columns.iter().map(|column| column.head.as_str()).collect();
    line(text, &format!("| Row | {} |", heads.join(" | ")));
    line(text, &format!("|---|{}", "---:|".repeat(columns.len())));
    for row in &section.rows {
        let measured: Vec<String> = columns.iter().map(|column| (column.cell)(row)).collect();
        line(text, &format!("| {} | {} |", own_label(section, row), measured.join(" | ")));
    }
    let printed = section.suite.printed().filter(|_| section.is_in_paper());
    for row in printed.map_or(&[][..], |printed| &printed.rows[..]) {
        let of_metric = |metric: &&str| {
            let value = row.values.iter().find(|(name, _)| name == metric);
            value.map_or(NONE.to_owned(), |(_, value)| format!("*{value:.1}*"))
        };
        let mut values: Vec<String> = metrics.iter().map(of_metric).collect();
        values.resize(columns.len(), NONE.to_owned());
        let source = if row.quoted { "quoted by the paper" } else { "paper" };
        line(text, &format!("| *{}, {source}* | {} |", row_label(&row.key), values.join(" | ")));
    }
    text.push('\n');
    for note in notes {
        line(text, &format!("{note}\n"));
    }
}

fn of_metric<'a>(section: &'a Section<'_>, metric: &'a str) -> Column<'a> {
    Column {
        head: metric_label(metric).trim_end_matches(" (%)").to_owned(),
        cell: Box::new(move |row| section.line(row, metric).map_or(NONE.to_owned(), mean_and_std)),
    }
}

/// Returns a column of the mean over a row's runs, with one deviation where there are several.
fn of_runs<'a>(
    section: &'a Section<'_>,
    head: &str,
    digits: usize,
    value: impl Fn(&Run) -> Option<f64> + 'a,
) -> Column<'a> {
    let cell = move |row: &str| {
        let values: Vec<f64> = of_row(section, row).filter_map(&value).collect();
        over_seeds(&values, digits)
    };
    Column { head: head.to_owned(), cell: Box::new(cell) }
}

fn of_row<'a>(section: &'a Section<'_>, row: &str) -> impl Iterator<Item = &'a Run> {
    section.runs.iter().copied().filter(move |run| run.record.row == row)
}

/// Returns the mean of some values and, where there are several, their standard deviation (n - 1).
fn over_seeds(values: &[f64], digits: usize) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    match values.len() {
        0 => NONE.to_owned(),
        1 => format!("{mean:.digits$}"),
        _ => {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            format!("{mean:.digits$} ± {:.digits$}", (squares / (n - 1.0)).sqrt())
        }
    }
}

/// Adds the time of the training steps, on the wall and of the processor, and of the whole run, in minutes, and
/// the largest memory.
fn cost<'a>(section: &'a Section<'_>, columns: &mut Vec<Column<'a>>, notes: &mut Vec<String>) {
    let usual = usual_threads(section);
    let training = of_runs(section, "Training (min)", 1, |run| Some(training_seconds(run)? / 60.0));
    let with_threads = move |row: &str| {
        let threads: BTreeSet<u64> = of_row(section, row).map(|run| run.record.threads).collect();
        let time = (training.cell)(row);
        if time == NONE || threads.iter().all(|&threads| threads == usual) {
            return time;
        }
        let list = threads.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        format!("{time} ({})", counted_threads(&list))
    };
    columns.push(Column { head: training.head.clone(), cell: Box::new(with_threads) });
    let of_processor = |run: &Run| Some(run.record.training_processor_seconds? / 60.0);
    let is_known = section.runs.iter().any(|run| of_processor(run).is_some());
    if is_known {
        columns.push(of_runs(section, "Processor (min)", 1, of_processor));
    }
    columns.push(of_runs(section, "Run (min)", 1, |run| Some(run.record.seconds / 60.0)));
    columns.push(Column {
        head: "Memory (MiB)".to_owned(),
        cell: Box::new(move |row| {
            let largest = of_row(section, row)
                .filter_map(|run| Some((run.record.peak_memory_bytes?, run)))
                .max_by_key(|one| one.0);
            largest.map_or(NONE.to_owned(), |(bytes, run)| {
                // Earlier versions recorded the largest memory since the process began.
                let at_most = if run.record.program.is_none() { "≤ " } else { "" };
                format!("{at_most}{}", thousands(bytes >> 20))
            })
        }),
    });
    let processor = if is_known {
        " Processor is the\nprocessor time of all threads in the training steps. Other work on the machine changes it less, but it holds the time in\nwhich a thread waits for another in a busy loop, too."
    } else {
        ""
    };
    notes.push(format!(
        "Training is the time of the training steps, run that of the whole run, with its evaluations.{processor} Memory is the largest\n\
         resident memory of the process during the run, of its last part if it was stopped and resumed (≤: the process had done other runs before, whose memory may be the\n\
         larger), and the largest over seeds. The runs had {}; a row that had another number says so. Nothing\n\
         ensures that the machine did no other work.",
        counted_threads(&usual.to_string())
    ));
}

/// Returns the time of a run's training steps; `None` if it has none.
fn training_seconds(run: &Run) -> Option<f64> {
    let record = &run.record;
    let images = record.epochs * (record.train_images / record.batch_size.max(1)) * record.batch_size;
    Some(images as f64 / record.images_per_second.filter(|_| run.is_trained())?)
}

/// Returns the number of threads that most runs had.
fn usual_threads(section: &Section<'_>) -> u64 {
    let mut runs_with: BTreeMap<u64, usize> = BTreeMap::new();
    for run in &section.runs {
        *runs_with.entry(run.record.threads).or_default() += 1;
    }
    runs_with.into_iter().max_by_key(|&(_, runs)| runs).map_or(0, |(threads, _)| threads)
}

fn counted_threads(list: &str) -> String {
    format!("{list} thread{}", if list == "1" { "" } else { "s" })
}

/// Adds the rank and the spread of the embedding.
fn shape<'a>(section: &'a Section<'_>, columns: &mut Vec<Column<'a>>, notes: &mut Vec<String>) {
    if section.runs.iter().all(|run| last_shape(run, "spread").is_none()) {
        return;
    }
    for (name, head, digits) in
        [("rank_share", "Rank, of the largest", 2), ("rankme", "RankMe", 1), ("spread", "Spread", 2)]
    {
        columns.push(of_runs(section, head, digits, move |run| last_shape(run, name)));
    }
    notes.push(format!(
        "Rank, of the largest: the effective rank of the embeddings of at most 1,000 {}, divided by the largest that\n\
         there can be, the smaller of their length and the number of images less 1. RankMe and spread are explained below.",
        caption::measured(section.setting)
    ));
}

/// Returns a number of the embedding's shape after the last epoch: that of the record, or that of the run's
/// measurements where the record is older.
fn last_shape(run: &Run, name: &str) -> Option<f64> {
    let measured = || run.shape.get(name)?.last().map(|point| point.value);
    run.record.shape.get(name).copied().or_else(measured)
}

/// Returns whether a library's numbers say something beside those of the section: the data set is the same
/// and real, the metric is measured, and there is a number for some row.
fn is_comparable(peer: &Peer, section: &Section<'_>, metrics: &[&str]) -> bool {
    let setting = section.setting;
    setting.dataset == peer.dataset
        && setting.data_state != "generated"
        && !setting.held_out
        && metrics.contains(&peer.metric.as_str())
        && section.rows.iter().any(|row| peer.rows.contains_key(*row))
}

/// Adds a column for each recipe of a library.
fn of_peer(peer: &'static Peer, reduced: bool, columns: &mut Vec<Column<'_>>, notes: &mut Vec<String>) {
    let metric = metric_label(&peer.metric);
    let metric = metric.trim_end_matches(" (%)");
    for (place, recipe) in peer.recipes.iter().enumerate() {
        let cell = move |row: &str| {
            let value = peer.value(row, place);
            value.map_or(NONE.to_owned(), |value| format!("*{value:.1}*"))
        };
        let head = format!("*{}: {metric}, {}*", markdown(&peer.name), markdown(recipe));
        columns.push(Column { head, cell: Box::new(cell) });
    }
    let reduced = if reduced { " The runs above are reduced, so they do not compare with it." } else { "" };
    notes.push(format!(
        "*In italics: the numbers of {} about its own runs, as its page printed them on {}* ({}): {}.\n\
         Ours are values after the last epoch; transforms, optimizer and schedule differ too.{reduced}",
        markdown(&peer.name),
        peer.read,
        peer.source,
        markdown(&peer.about),
    ));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{over_seeds, write};
    use crate::beside::Beside;
    use crate::fake;
    use crate::records::Run;
    use crate::suite::Suite;
    use crate::table::Table;

    /// Returns the table of a suite of newer methods that asks for everything.
    fn written(runs: &[Run]) -> String {
        let beside = vec![Beside::Cost, Beside::Shape, Beside::Peers];
        let suite = Suite { beside, ..Suite::from("modern") };
        let table = Table::new(suite, runs).unwrap();
        let section = &table.sections(runs)[0];
        let mut text = String::new();
        write(&mut text, section, &section.quality_metrics());
        text
    }

    /// Returns runs of two methods for each seed.
    fn runs(seeds: &[u64]) -> Vec<Run> {
        let mut runs = fake::with_shape(fake::quick_runs(seeds));
        runs.retain(|run| ["random", "nce", "triplet"].contains(&run.record.row.as_str()));
        for run in &mut runs {
            match run.record.row.as_str() {
                "nce" => run.record.row = "simclr".into(),
                "triplet" => run.record.row = "swav".into(),
                _ => {}
            }
            let last = run.shape.iter().map(|(name, points)| (name.clone(), points.last().unwrap().value));
            run.record.shape = last.collect();
            run.record.program = Some("0123456789ab".into());
            run.record.images_per_second = run.is_trained().then_some(1000.0);
        }
        runs
    }

    /// Returns the cells of a row, by the beginning of its label.
    fn cells(text: &str, row: &str) -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(&format!("| {row}"))).unwrap();
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn a_row_has_its_cost_its_shape_and_what_others_print() {
        let text = written(&runs(&[0, 1]));
        let heads = cells(&text, "Row");
        let cell = |row: &str, head: &str| {
            let place = heads.iter().position(|found| found.contains(head)).unwrap();
            cells(&text, row)[place].clone()
        };
        // 10 epochs of 156 batches of 64 images at 1,000 images per second; 145 seconds in all.
        assert_eq!(cell("Simclr", "Training"), "1.7 ± 0.0");
        assert_eq!(cell("Simclr", "Run (min)"), "2.4 ± 0.0");
        assert_eq!(cell("Simclr", "Memory"), "612");
        assert_eq!(cell("RandomCNN", "Training"), "–", "an untrained network");
        assert_eq!(cell("Simclr", "of the largest"), "0.40 ± 0.00");
        assert_eq!(cell("Simclr", "batch 128, 200 epochs"), "*84.7*");
        assert_eq!(cell("Swav", "batch 512, 800 epochs"), "*88.4*");
        assert_eq!(cell("RandomCNN", "batch 128, 200 epochs"), "–");
        for said in [
            "had 2 threads",
            "numbers of lightly about its own runs",
            "largest over all epochs",
            "2026-11-29",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(text.contains("do not compare with it"), "these runs are reduced: {text}");
    }

    #[test]
    fn other_threads_and_older_records_are_marked() {
        let mut runs = runs(&[0]);
        let run = runs.iter_mut().find(|run| run.record.row == "swav").unwrap();
        run.record.threads = 1;
        run.record.shape.clear();
        run.record.program = None;
        let text = written(&runs);
        let swav = cells(&text, "Swav");
        assert!(swav.iter().any(|cell| cell.ends_with("(1 thread)")), "{swav:?}");
        assert!(swav.iter().any(|cell| cell == "≤ 612"), "{swav:?}");
        assert!(cells(&text, "Simclr").iter().any(|cell| cell == "612"), "{text}");
    }

    #[test]
    fn generated_images_and_other_sets_are_not_set_beside_others() {
        for change in [
            |run: &mut Run| run.record.data_state = "generated".into(),
            |run: &mut Run| run.record.dataset = "stl10".into(),
            |run: &mut Run| run.record.held_out = true,
        ] {
            let mut runs = runs(&[0]);
            runs.iter_mut().for_each(change);
            assert!(!written(&runs).contains("lightly"));
        }
    }

    #[test]
    fn deviations_are_those_of_a_sample() {
        assert_eq!(over_seeds(&[], 1), "–");
        assert_eq!(over_seeds(&[2.0], 1), "2.0");
        assert_eq!(over_seeds(&[1.0, 3.0], 2), "2.00 ± 1.41");
    }
}
