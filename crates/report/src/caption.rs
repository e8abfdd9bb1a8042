//! The captions of figures and tables, which say what was run. No measurement is shown without one.

use std::collections::{BTreeMap, BTreeSet};

use crate::evaluation::Evaluation;
use crate::names::{dataset_label, thousands};
use crate::records::Run;
use crate::setting::Setting;

/// Returns the usual name of the data set, the state of the copy, and what is measured if it is not the test
/// images: "CIFAR-10 (verified)", "CIFAR-10 (verified; held-out training images)".
pub(crate) fn data(setting: &Setting) -> String {
    let held_out = if setting.held_out { "; held-out training images" } else { "" };
    format!("{} ({}{held_out})", dataset_label(&setting.dataset), setting.data_state)
}

/// Returns the name of the images that are measured in a setting.
pub(crate) fn measured(setting: &Setting) -> &'static str {
    if setting.held_out { "held-out training images" } else { "test images" }
}

/// Returns the setting as text: "profile quick (reduced) on cpu", "profile standard (reduced) on cpu in bf16".
pub(crate) fn setting(setting: &Setting) -> String {
    let reduced = if setting.reduced { " (reduced)" } else { "" };
    let precision =
        setting.precision.as_ref().map(|precision| format!(" in {precision}")).unwrap_or_default();
    format!("profile {}{reduced} on {}{precision}", setting.profile, setting.device)
}

/// Returns the recipe that most trained rows share ("10 epochs of 10,000 images, batch 64, ResNet-18 of width
/// 16, protocol code"), and one text for each other recipe with its rows.
pub(crate) fn recipe(runs: &[&Run]) -> (String, Vec<String>) {
    let trained: Vec<&Run> = runs.iter().copied().filter(|run| run.is_trained()).collect();
    shared_and_other(if trained.is_empty() { runs } else { &trained }, |run| {
        let record = &run.record;
        format!(
            "{} epoch{} of {} images, batch {}, {} of width {}, protocol {}",
            record.epochs,
            if record.epochs == 1 { "" } else { "s" },
            thousands(record.train_images),
            record.batch_size,
            network(&record.model),
            record.width,
            record.protocol,
        )
    })
}

/// Returns how most rows were measured, and one text for each other way with its rows.
pub(crate) fn evaluation(runs: &[&Run]) -> (String, Vec<String>) {
    shared_and_other(runs, |run| {
        run.evaluation.as_ref().map_or_else(|| "not recorded".to_owned(), Evaluation::describe)
    })
}

/// Returns the text that most rows share, and each other text after the labels of its rows.
fn shared_and_other(runs: &[&Run], text_of: impl Fn(&Run) -> String) -> (String, Vec<String>) {
    let mut rows_of: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for run in runs {
        rows_of.entry(text_of(run)).or_default().insert(&run.record.row);
    }
    let shared =
        rows_of.iter().max_by_key(|(_, rows)| rows.len()).map(|(text, _)| text.clone()).unwrap_or_default();
    let others = rows_of
        .iter()
        .filter(|(text, _)| **text != shared)
        .map(|(text, rows)| {
            let label = |row: &&str| match runs.iter().find(|run| run.record.row == **row) {
                Some(run) => run.row_label(),
                None => (*row).to_owned(),
            };
            let rows: Vec<String> = rows.iter().map(label).collect();
            format!("{}: {text}", rows.join(", "))
        })
        .collect();
    (shared, others)
}

fn network(model: &str) -> String {
    model.strip_prefix("resnet").map_or_else(|| model.to_owned(), |depth| format!("ResNet-{depth}"))
}

/// Returns the seeds of the runs: "seed 0" or "seeds 0, 1, 2".
pub(crate) fn seeds(runs: &[&Run]) -> String {
    let seeds: BTreeSet<u64> = runs.iter().map(|run| run.record.seed).collect();
    let list = seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    format!("seed{} {list}", if seeds.len() == 1 { "" } else { "s" })
}

/// Breaks a text at spaces into lines of at most `letters` letters.
pub(crate) fn wrap(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;

    #[test]
    fn rows_that_ran_otherwise_are_named() {
        let mut runs = fake::quick_runs(&[0]);
        runs.iter_mut().find(|run| run.record.row == "nce").unwrap().record.epochs = 5;
        let runs: Vec<&Run> = runs.iter().collect();
        let (shared, others) = recipe(&runs);
        assert_eq!(shared, "10 epochs of 10,000 images, batch 64, ResNet-18 of width 16, protocol code");
        assert_eq!(
            others,
            ["NCE: 5 epochs of 10,000 images, batch 64, ResNet-18 of width 16, protocol code"]
        );
        assert_eq!(seeds(&runs), "seed 0");
    }

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("immeasurable x", 4), ["immeasurable", "x"]);
    }
}
