//! The part of `report.md` about the shape of the embeddings: rank, spread, uniformity and alignment after the
//! last epoch.

use super::{line, own_label};
use crate::caption;
use crate::quote::link;
use crate::records::Run;
use crate::section::Section;

/// The measures, with the heads of their columns and the digits shown.
const MEASURES: [(&str, &str, usize); 6] = [
    ("effective_rank", "Effective rank", 1),
    ("rank_share", "of the largest", 2),
    ("rankme", "RankMe", 1),
    ("uniformity", "Uniformity", 2),
    ("alignment", "Alignment", 3),
    ("spread", "Spread", 2),
];

/// Those of the projected rows.
const PROJECTED: [(&str, &str, usize); 5] = [
    ("projection_effective_rank", "Effective rank", 1),
    ("projection_rank_share", "of the largest", 2),
    ("projection_rankme", "RankMe", 1),
    ("projection_uniformity", "Uniformity", 2),
    ("projection_spread", "Spread", 2),
];

/// Writes the table, with the figure `rank` of ranks by epoch; nothing if no run measured a shape.
pub(crate) fn write(text: &mut String, section: &Section<'_>, rank: Option<&str>) {
    if section.runs.iter().all(|run| run.shape.is_empty()) {
        return;
    }
    line(text, "### Shape of the embedding\n");
    if let Some(rank) = rank {
        line(text, &format!("![Effective rank by epoch]({0}.png)\n\n[SVG]({0}.svg)\n", link(rank)));
    }
    table(text, section, &MEASURES);
    line(
        text,
        &format!(
            "\nAfter the last epoch, of at most 1,000 {}; mean over seeds. Effective rank (Roy & Vetterli 2007) counts the\n\
         directions that the embeddings use; RankMe (Garrido et al. 2023) is the same before the mean is subtracted. Uniformity\n\
         and alignment are those of Wang & Isola (2020): lower is more uniform, and lower is less changed by augmentation. Spread\n\
         is the standard deviation of a coordinate, where 1 fills the sphere and 0 is a single point.\n",
            caption::measured(section.setting)
        ),
    );
    if section.runs.iter().any(|run| run.shape.contains_key(PROJECTED[0].0)) {
        line(
            text,
            "The same of the projected rows, which the loss compares, for methods with a projector:\n",
        );
        table(text, section, &PROJECTED);
        text.push('\n');
    }
}

/// Writes a table of `measures`, with a line for each row of the suite that has one of them.
fn table(text: &mut String, section: &Section<'_>, measures: &[(&str, &str, usize)]) {
    let heads: Vec<&str> = measures.iter().map(|(_, head, _)| *head).collect();
    line(text, &format!("| Row | {} |", heads.join(" | ")));
    line(text, &format!("|---|{}", "---:|".repeat(heads.len())));
    for row in &section.rows {
        let of_row: Vec<&Run> = section.runs.iter().copied().filter(|run| run.record.row == *row).collect();
        let has = |(name, ..): &(&str, &str, usize)| of_row.iter().any(|run| run.shape.contains_key(*name));
        if !measures.iter().any(has) {
            continue;
        }
        let cell = |(name, _, digits): &(&str, &str, usize)| {
            let last = |run: &&Run| run.shape.get(*name)?.last().map(|point| point.value);
            let values: Vec<f64> = of_row.iter().filter_map(last).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            // Without a value there is no mean.
            if values.is_empty() { "–".to_owned() } else { format!("{mean:.digits$}") }
        };
        let cells: Vec<String> = measures.iter().map(cell).collect();
        line(text, &format!("| {} | {} |", own_label(section, row), cells.join(" | ")));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::write;
    use crate::fake;
    use crate::table::Table;

    fn written(runs: &[crate::records::Run]) -> String {
        let table = Table::new("table1", runs).unwrap();
        let mut text = String::new();
        write(&mut text, &table.sections(runs)[0], Some("rank"));
        text
    }

    #[test]
    fn each_row_has_the_mean_over_its_seeds() {
        let mut runs = fake::with_shape(fake::quick_runs(&[0, 1]));
        let first = runs.iter_mut().find(|run| run.record.row == "invaspread").unwrap();
        first.shape.get_mut("effective_rank").unwrap().last_mut().unwrap().value = 50.0;
        let text = written(&runs);
        // Ten epochs: 20 (1 + 0.1 * 10) = 40 for the other seed.
        assert!(text.contains("| 45.0 | 0.40 | 30.0 | -3.00 | 0.600 | 0.80 |"), "{text}");
        assert!(text.contains("rank.png"), "{text}");
        assert!(!text.contains("projected rows"), "{text}");
        // One method has a projector.
        let first = runs.iter_mut().find(|run| run.record.row == "invaspread").unwrap();
        let of_rows = first.shape["effective_rank"].clone();
        first.shape.insert("projection_effective_rank".into(), of_rows);
        let text = written(&runs);
        let (_, projected) = text.split_once("projected rows").unwrap();
        assert!(projected.contains("| 50.0 | – | – | – | – |"), "{projected}");
        assert_eq!(projected.matches("\n| ").count(), 2, "a head and a row: {projected}");
        let unmeasured = fake::quick_runs(&[0]);
        assert_eq!(written(&unmeasured), "");
    }
}
