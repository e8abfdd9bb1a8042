//! The results of a suite: means and deviations over seeds beside the paper's numbers.
//!
//! Averages are taken over seeds and nothing else. Runs are grouped by row, metric and setting (profile,
//! device, data set, state of the data, reduced or not). Within a group only one configuration counts, the
//! one whose run finished last; the folders of runs with older configurations are listed as left out. Values
//! are rounded to four decimals once, so that every output shows the same number.

use serde::Serialize;

use crate::aggregate::{Line, aggregate, newest_configurations, settings_fullest_first};
use crate::error::ReportError;
use crate::records::Run;
use crate::setting::Setting;
use crate::suite::Suite;

/// A suite's results, from which all outputs are made.
///
/// ```no_run
/// use invaspread_report::{Table, records};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runs = records::load("runs".as_ref(), "table1")?.runs;
/// let table = Table::new("table1", &runs)?;
/// for section in table.sections(&runs) {
///     println!("{} of profile {}:", section.main_metric, section.setting.profile);
///     for line in section.lines_of(section.main_metric) {
///         println!("  {}: {:?} (paper: {:?})", line.row, line.mean, line.paper);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// The suite.
    #[serde(flatten)]
    pub suite: Suite,
    /// The settings of the runs: those of the paper's recipe first, then by the work of their largest
    /// run.
    pub settings: Vec<Setting>,
    /// All numbers, ordered by setting, then by row and metric in the paper's order or, without one, in the
    /// suite's.
    pub lines: Vec<Line>,
    /// The folders of runs that a newer configuration of the same row and setting has replaced.
    pub left_out: Vec<String>,
}

impl Table {
    /// Aggregates finished runs of one suite.
    ///
    /// # Errors
    /// If there is no run, or if polars fails.
    pub fn new(suite: impl Into<Suite>, runs: &[Run]) -> Result<Self, ReportError> {
        let suite = suite.into();
        if runs.is_empty() {
            return Err(ReportError::NoRuns { suite: suite.name, unfinished: 0 });
        }
        let (kept, left_out) = newest_configurations(runs);
        let settings = settings_fullest_first(&kept);
        let failed = |source| ReportError::Table { suite: suite.name.clone(), source };
        let mut lines = aggregate(&suite, &settings, &kept).map_err(failed)?;
        lines.sort_by_cached_key(|line| {
            (line.setting, suite.row_place(&line.row), suite.metric_place(&line.metric))
        });
        Ok(Self { suite, settings, lines, left_out })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::records::Point;
    use crate::section::Section;
    use crate::{fake, paper};

    #[test]
    fn means_and_deviations_agree_with_the_definition() {
        let runs = fake::quick_runs(&[0, 1, 2]);
        let table = Table::new("table1", &runs).unwrap();
        let section = &table.sections(&runs)[0];
        for &row in &section.rows {
            let last: Vec<f64> = runs
                .iter()
                .filter(|run| run.record.row == row)
                .map(|run| run.curves["knn_top1"].last().unwrap().value)
                .collect();
            let mean = last.iter().sum::<f64>() / 3.0;
            let std = (last.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
            let line = section.line(row, "knn").unwrap();
            assert_eq!(line.n, 3);
            assert!((line.mean.unwrap() - mean).abs() < 1e-4, "{row}");
            assert!((line.std.unwrap() - std).abs() < 1e-4, "{row}");
            assert!(line.best_mean.unwrap() >= line.mean.unwrap());
            assert!((line.difference.unwrap() - (mean - line.paper.unwrap())).abs() < 1e-3);
        }
    }

    #[test]
    fn one_seed_has_no_deviation() {
        let table = Table::new("table1", &fake::quick_runs(&[0])).unwrap();
        assert!(table.lines.iter().all(|line| line.std.is_none() && line.n == 1));
    }

    #[test]
    fn rows_stand_in_the_papers_order() {
        let mut runs = fake::quick_runs(&[0]);
        runs.reverse();
        let table = Table::new("table1", &runs).unwrap();
        let expected: Vec<&str> =
            paper::table("table1").unwrap().rows.iter().map(|row| row.key.as_str()).collect();
        let section = &table.sections(&runs)[0];
        assert_eq!(section.rows, expected);
        assert_eq!(section.metrics, ["knn", "knn_top5", "epochs_to_40", "epochs_to_60"]);
        assert_eq!(section.main_metric, "knn");
    }

    #[test]
    fn settings_are_never_averaged_together() {
        let mut runs = fake::quick_runs(&[0]);
        let mut elsewhere = fake::quick_runs(&[0]);
        for run in &mut elsewhere {
            run.record.device = "cuda".into();
            run.folder.push_str("-cuda");
            run.record.metrics.get_mut("knn_top1").unwrap().last += 10.0;
        }
        runs.extend(elsewhere);
        runs.extend(fake::full_runs(&[0]));
        let table = Table::new("table1", &runs).unwrap();
        assert_eq!(table.settings.len(), 3);
        assert_eq!(table.settings[0].profile, "paper", "the fullest setting comes first");
        assert!(table.lines.iter().all(|line| line.n == 1));
        let sections = table.sections(&runs);
        let mean = |device: &str| {
            let is_on = |section: &&Section<'_>| {
                section.setting.profile == "quick" && section.setting.device == device
            };
            let line = sections.iter().find(is_on).unwrap().line("nce", "knn").unwrap();
            line.mean.unwrap()
        };
        assert!((mean("cuda") - mean("cpu") - 10.0).abs() < 1e-3);
    }

    #[test]
    fn held_out_images_have_a_table_of_their_own_without_the_papers_numbers() {
        let mut runs = fake::quick_runs(&[0]);
        let mut held_out = fake::quick_runs(&[0]);
        for run in &mut held_out {
            run.record.held_out = true;
            run.folder.push_str("-held-out");
        }
        runs.extend(held_out);
        let table = Table::new("table1", &runs).unwrap();
        assert_eq!(table.settings.len(), 2);
        let of_paper = |held_out: bool| {
            table
                .lines
                .iter()
                .any(|line| table.settings[line.setting].held_out == held_out && line.paper.is_some())
        };
        assert!(of_paper(false) && !of_paper(true));
        let folder = tempfile::tempdir().unwrap();
        let written = crate::write_report("table1", &runs, &[], folder.path()).unwrap();
        let mut files = written.files.clone();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), written.files.len(), "{:?}", written.files);
        let report = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
        assert!(report.contains("CIFAR-10 (verified; held-out training images)"), "{report}");
        assert!(report.contains("| Held-out training images | 2,000 |"), "{report}");
    }

    #[test]
    fn a_typed_precision_has_a_table_of_its_own_that_names_it() {
        let mut runs = fake::quick_runs(&[0]);
        let mut typed = [fake::quick_runs(&[1]), fake::quick_runs(&[2])];
        for (of_seed, precision) in typed.iter_mut().zip(["precision=f32", "precision=bf16"]) {
            for run in of_seed {
                run.record.arguments = vec![precision.into()];
            }
        }
        runs.extend(typed.concat());
        let table = Table::new("table1", &runs).unwrap();
        assert_eq!(table.settings.len(), 2, "f32 is the default");
        let seeds = |section: &Section<'_>| {
            let mut seeds: Vec<u64> = section.runs.iter().map(|run| run.record.seed).collect();
            seeds.sort_unstable();
            seeds.dedup();
            seeds
        };
        for section in table.sections(&runs) {
            let is_bf16 = section.setting.precision.as_deref() == Some("bf16");
            assert_eq!(seeds(&section), if is_bf16 { vec![2] } else { vec![0, 1] });
        }
        let folder = tempfile::tempdir().unwrap();
        crate::write_report("table1", &runs, &[], folder.path()).unwrap();
        let report = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
        assert!(report.contains("profile quick (reduced) on cpu in bf16"), "{report}");
        assert!(String::from_utf8(table.csv().unwrap()).unwrap().contains(",cpu; bf16,"));
    }

    #[test]
    fn an_older_configuration_is_left_out_and_named() {
        let mut runs = fake::quick_runs(&[0, 1]);
        let mut old = runs.iter().find(|run| run.record.row == "nce").unwrap().clone();
        old.record.config_hash = "0ld".into();
        old.record.finished = "2000-12-31T23:59:59Z".into();
        old.record.metrics.get_mut("knn_top1").unwrap().last = 99.0;
        old.folder = "table1/0ld-s0".into();
        let expected = Table::new("table1", &runs).unwrap();
        runs.push(old);
        let table = Table::new("table1", &runs).unwrap();
        assert_eq!(table.lines, expected.lines);
        assert_eq!(table.left_out, ["table1/0ld-s0"]);
        assert!(table.sections(&runs)[0].runs.iter().all(|run| run.folder != "table1/0ld-s0"));
    }

    #[test]
    fn one_seed_short_of_the_threshold_empties_the_mean() {
        let mut runs = fake::full_runs(&[0, 1]);
        let table = Table::new("table1", &runs).unwrap();
        let section = &table.sections(&runs)[0];
        let line = section.line("invaspread", "epochs_to_60").unwrap();
        assert!(line.mean.is_some() && line.paper == Some(2.0), "{line:?}");
        assert!(section.line("random", "epochs_to_60").is_none());
        let run = runs.iter_mut().find(|run| run.record.row == "invaspread").unwrap();
        run.curves.insert("knn_top1".into(), vec![Point { epoch: 1, value: 59.0 }]);
        let table = Table::new("table1", &runs).unwrap();
        let line = table.sections(&runs)[0].line("invaspread", "epochs_to_60").unwrap();
        assert_eq!((line.n, line.mean, line.difference), (2, None, None));
    }

    #[test]
    fn generated_images_are_not_set_beside_the_paper() {
        let mut runs = fake::quick_runs(&[0]);
        for run in &mut runs {
            run.record.data_state = "generated".into();
        }
        let table = Table::new("table1", &runs).unwrap();
        assert!(table.lines.iter().all(|line| line.paper.is_none() && line.difference.is_none()));
    }

    #[test]
    fn no_run_is_an_error() {
        assert!(matches!(Table::new("table1", &[]), Err(ReportError::NoRuns { .. })));
    }
}
