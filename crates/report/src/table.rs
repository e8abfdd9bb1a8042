//! From runs to rows: means and deviations over seeds, beside the paper's numbers.
//!
//! Averages are taken over seeds and nothing else. Runs are grouped by row, metric and setting (profile, device,
//! dataset, state of the data, reduced or not); within a group only one configuration counts, the one finished last,
//! and the folders of older ones are listed as left out. Values are rounded to four decimals once, here, so that every
//! output shows the same number.

use std::collections::{BTreeMap, BTreeSet};

use polars::prelude::*;

use crate::error::ReportError;
use crate::names::{paper_metric, recorded_metric, suite_label, usual_place};
use serde::Serialize;

use crate::paper;
use crate::records::{Run, RunRecord};

/// What runs must share to stand in one table: numbers of different settings are never averaged together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Setting {
    /// The profile: `paper`, `quick`, `smoke`.
    pub profile: String,
    /// `cpu`, `cuda`.
    pub device: String,
    /// The dataset.
    pub dataset: String,
    /// `verified`, `unverified` or `generated`.
    pub data_state: String,
    /// Less than the paper's recipe was run.
    pub reduced: bool,
}

impl Setting {
    /// The setting of one run.
    pub fn of(record: &RunRecord) -> Self {
        Self {
            profile: record.profile.clone(),
            device: record.device.clone(),
            dataset: record.dataset.clone(),
            data_state: record.data_state.clone(),
            reduced: record.reduced,
        }
    }
}

/// One number of the table: a row's metric in a setting, over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Index into [`Table::settings`].
    pub setting: usize,
    /// The row, as the paper's table is keyed.
    pub row: String,
    /// The metric under the paper's name (`knn` for the recorded `knn_top1`), or `epochs_to_<percent>`.
    pub metric: String,
    /// Runs (seeds) behind the number.
    pub n: usize,
    /// Mean after the last epoch; for `epochs_to_*` the mean epoch, none unless every run got there.
    pub mean: Option<f64>,
    /// Standard deviation over seeds (n - 1); none for one seed.
    pub std: Option<f64>,
    /// Mean of each run's best epoch; none for `epochs_to_*`.
    pub best_mean: Option<f64>,
    /// What the paper prints; none beside generated images, on which it measured nothing.
    pub paper: Option<f64>,
    /// `mean - paper`.
    pub difference: Option<f64>,
}

/// A suite, as its reports name and order it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suite {
    /// Its name.
    #[serde(rename = "suite")]
    pub name: String,
    /// What it is about; where the paper has a title for it, that is used.
    pub title: String,
    /// Its rows in the order they stand in; where the paper has one, that is used.
    #[serde(skip)]
    pub rows: Vec<String>,
    /// Whether it has a picture of retrieved neighbours.
    #[serde(skip)]
    pub gallery: bool,
}

impl Suite {
    /// The head of its report.
    pub(crate) fn heading(&self) -> String {
        match paper::table(&self.name) {
            Some(printed) => format!("{}: {}", suite_label(&self.name), printed.title),
            None => self.title.clone(),
        }
    }
}

/// A suite of which nothing but its name is known.
impl From<&str> for Suite {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), title: name.to_owned(), rows: Vec::new(), gallery: false }
    }
}

/// A suite's results, ready to be written out in any form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// The suite.
    #[serde(flatten)]
    pub suite: Suite,
    /// The settings found, the fullest first.
    pub settings: Vec<Setting>,
    /// All numbers, by setting, then row and metric in the paper's order, or else the suite's.
    pub lines: Vec<Line>,
    /// Folders of runs that a newer configuration of the same row and setting has replaced.
    pub left_out: Vec<String>,
}

impl Table {
    /// Aggregates finished runs of one suite.
    ///
    /// # Errors
    /// There is no run, or polars fails.
    pub fn new(suite: impl Into<Suite>, runs: &[Run]) -> Result<Self, ReportError> {
        let suite = suite.into();
        if runs.is_empty() {
            return Err(ReportError::NoRuns { suite: suite.name, unfinished: 0 });
        }
        let (kept, left_out) = newest_configurations(runs);
        let settings = settings_fullest_first(&kept);
        let failed = |source| ReportError::Table { suite: suite.name.clone(), source };
        let mut lines = aggregate(&suite.name, &settings, &kept).map_err(failed)?;
        lines.sort_by_cached_key(|line| {
            (line.setting, row_place(&suite, &line.row), metric_place(&suite.name, &line.metric))
        });
        Ok(Self { suite, settings, lines, left_out })
    }

    /// The rows measured in a setting, in the paper's order, or else the suite's.
    pub fn rows(&self, setting: usize) -> Vec<&str> {
        let mut rows: Vec<&str> =
            self.lines.iter().filter(|line| line.setting == setting).map(|line| line.row.as_str()).collect();
        rows.dedup();
        rows
    }

    /// The metrics measured in a setting, in the paper's order.
    pub fn metrics(&self, setting: usize) -> Vec<&str> {
        let mut metrics: Vec<&str> = self
            .lines
            .iter()
            .filter(|line| line.setting == setting)
            .map(|line| line.metric.as_str())
            .collect();
        metrics.sort_by_cached_key(|metric| metric_place(&self.suite.name, metric));
        metrics.dedup();
        metrics
    }

    /// One number.
    pub fn line(&self, setting: usize, row: &str, metric: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.setting == setting && line.row == row && line.metric == metric)
    }

    /// The metric that the suite is about: the paper's first, else kNN, else the first recorded.
    pub fn main_metric(&self, setting: usize) -> &str {
        let metrics = self.metrics(setting);
        let printed = paper::table_of_suite(&self.suite.name).map_or(&[][..], |table| &table.metrics[..]);
        // An overlap is a property of the network that is measured; the lower the better.
        let printed = printed.iter().map(String::as_str).filter(|metric| !metric.starts_with("overlap_"));
        let preferred = printed.chain(["knn", "r1"]);
        let found = preferred.into_iter().find_map(|name| metrics.iter().find(|metric| **metric == name));
        found.or(metrics.first()).copied().unwrap_or("knn")
    }

    /// The runs behind a setting's numbers, in the table's order of rows, then by seed.
    pub fn runs_of<'a>(&self, setting: usize, runs: &'a [Run]) -> Vec<&'a Run> {
        let mut found: Vec<&Run> = runs
            .iter()
            .filter(|run| {
                Setting::of(&run.record) == self.settings[setting] && !self.left_out.contains(&run.folder)
            })
            .collect();
        found.sort_by_cached_key(|run| (row_place(&self.suite, &run.record.row), run.record.seed));
        found
    }

    /// The long form: columns `row,metric,n,mean,std,best_mean,paper,difference,profile,device,data`.
    ///
    /// # Errors
    /// polars fails.
    pub fn frame(&self) -> Result<DataFrame, ReportError> {
        let texts = |of: fn(&Line, &Setting) -> String| -> Vec<String> {
            self.lines.iter().map(|line| of(line, &self.settings[line.setting])).collect()
        };
        let numbers =
            |of: fn(&Line) -> Option<f64>| -> Vec<Option<f64>> { self.lines.iter().map(of).collect() };
        df!(
            "row" => texts(|line, _| line.row.clone()),
            "metric" => texts(|line, _| line.metric.clone()),
            "n" => self.lines.iter().map(|line| line.n as i64).collect::<Vec<_>>(),
            "mean" => numbers(|line| line.mean),
            "std" => numbers(|line| line.std),
            "best_mean" => numbers(|line| line.best_mean),
            "paper" => numbers(|line| line.paper),
            "difference" => numbers(|line| line.difference),
            "profile" => texts(|_, setting| setting.profile.clone()),
            "device" => texts(|_, setting| setting.device.clone()),
            "data" => texts(|_, setting| setting.data_state.clone()),
        )
        .map_err(|source| ReportError::Table { suite: self.suite.name.clone(), source })
    }

    /// [`Table::frame`] as CSV; an empty field is a number that does not exist.
    ///
    /// # Errors
    /// polars fails.
    pub fn csv(&self) -> Result<Vec<u8>, ReportError> {
        let mut bytes = Vec::new();
        CsvWriter::new(&mut bytes)
            .finish(&mut self.frame()?)
            .map_err(|source| ReportError::Table { suite: self.suite.name.clone(), source })?;
        Ok(bytes)
    }

    /// [`Table::frame`] as Parquet.
    ///
    /// # Errors
    /// polars fails.
    pub fn parquet(&self) -> Result<Vec<u8>, ReportError> {
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes)
            .with_compression(ParquetCompression::Snappy)
            .finish(&mut self.frame()?)
            .map_err(|source| ReportError::Table { suite: self.suite.name.clone(), source })?;
        Ok(bytes)
    }
}

/// The thresholds (percent) whose first epoch is reported: the paper's 60, and, when fewer than two trained rows got
/// there, the highest multiple of five that two did, so that a reduced run still compares speeds.
pub(crate) fn thresholds(runs: &[&Run]) -> Vec<u32> {
    let mut best_of_row: BTreeMap<&str, f64> = BTreeMap::new();
    if runs.iter().all(|run| !run.curves.contains_key("knn_top1")) {
        return Vec::new();
    }
    let points = runs.iter().filter_map(|run| run.curves.get("knn_top1")).flatten();
    let untrained = points.filter(|point| point.epoch == 0).map(|point| point.value).fold(0.0, f64::max);
    for run in runs.iter().filter(|run| is_trained(run)) {
        let points = run.curves.get("knn_top1").map_or(&[][..], |points| &points[..]);
        let best = points.iter().map(|point| point.value).fold(0.0, f64::max);
        let entry = best_of_row.entry(&run.record.row).or_insert(best);
        *entry = entry.min(best);
    }
    let mut best: Vec<f64> = best_of_row.into_values().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    match best.get(1) {
        None if best.is_empty() => Vec::new(),
        Some(&second) if second < 60.0 => {
            let reached = (second / 5.0).floor() as u32 * 5;
            // What an untrained network has already says nothing of speed.
            if f64::from(reached) > untrained { vec![reached, 60] } else { vec![60] }
        }
        _ => vec![60],
    }
}

/// A network left as initialised has no speed of learning.
pub(crate) fn is_trained(run: &Run) -> bool {
    run.record.method != "random" && run.record.epochs > 0
}

fn newest_configurations(runs: &[Run]) -> (Vec<&Run>, Vec<String>) {
    let group = |run: &Run| (Setting::of(&run.record), run.record.row.clone());
    let mut newest = BTreeMap::new();
    for run in runs {
        let candidate = (&run.record.finished, &run.record.config_hash);
        let entry = newest.entry(group(run)).or_insert(candidate);
        *entry = (*entry).max(candidate);
    }
    let (kept, replaced): (Vec<&Run>, Vec<&Run>) = runs
        .iter()
        .partition(|run| newest.get(&group(run)).is_some_and(|(_, hash)| *hash == &run.record.config_hash));
    let mut left_out: Vec<String> = replaced.iter().map(|run| run.folder.clone()).collect();
    left_out.sort();
    (kept, left_out)
}

fn settings_fullest_first(runs: &[&Run]) -> Vec<Setting> {
    let distinct: BTreeSet<Setting> = runs.iter().map(|run| Setting::of(&run.record)).collect();
    let mut settings: Vec<Setting> = distinct.into_iter().collect();
    settings.sort_by_cached_key(|setting| {
        let work = runs.iter().filter(|run| Setting::of(&run.record) == *setting);
        let work = work.map(|run| run.record.epochs * run.record.train_images * run.record.width).max();
        (setting.reduced, std::cmp::Reverse(work))
    });
    settings
}

/// Means and deviations by polars, one group for each setting, row and metric.
fn aggregate(suite: &str, settings: &[Setting], runs: &[&Run]) -> PolarsResult<Vec<Line>> {
    let mut keys: (Vec<u32>, Vec<&str>, Vec<String>) = Default::default();
    let mut values: (Vec<Option<f64>>, Vec<Option<f64>>) = Default::default();
    for (index, setting) in settings.iter().enumerate() {
        let of_setting: Vec<&Run> =
            runs.iter().copied().filter(|run| Setting::of(&run.record) == *setting).collect();
        let thresholds = thresholds(&of_setting);
        for run in of_setting {
            let mut push = |metric: String, last, best| {
                keys.0.push(index as u32);
                keys.1.push(&run.record.row);
                keys.2.push(metric);
                values.0.push(last);
                values.1.push(best);
            };
            for (metric, summary) in &run.record.metrics {
                push(paper_metric(metric).into_owned(), Some(summary.last), Some(summary.best));
            }
            let printed = paper::table_of_suite(suite).map_or(&[][..], |table| &table.metrics[..]);
            for separation in &run.separations {
                let metric = format!("overlap_{}", separation.name);
                if printed.contains(&metric) {
                    push(metric, Some(100.0 * separation.overlap), None);
                }
            }
            for &threshold in thresholds.iter().filter(|_| is_trained(run)) {
                let epoch = run.epochs_to(&recorded_metric("knn"), f64::from(threshold));
                push(format!("epochs_to_{threshold}"), epoch.map(|epoch| epoch as f64), None);
            }
        }
    }
    let frame = df!(
        "setting" => keys.0, "row" => keys.1, "metric" => keys.2, "last" => values.0, "best" => values.1
    )?;
    frame
        .partition_by_stable(["setting", "row", "metric"], true)?
        .iter()
        .map(|group| line(suite, settings, group))
        .collect()
}

fn line(suite: &str, settings: &[Setting], group: &DataFrame) -> PolarsResult<Line> {
    let text = |name: &str| -> PolarsResult<String> {
        Ok(group.column(name)?.str()?.get(0).unwrap_or_default().to_owned())
    };
    // A mean over only those seeds that reached a threshold would flatter: one missing value empties the mean.
    let complete = |name: &str| -> PolarsResult<Option<&Float64Chunked>> {
        let column = group.column(name)?.f64()?;
        Ok((column.null_count() == 0).then_some(column))
    };
    let (row, metric) = (text("row")?, text("metric")?);
    let last = complete("last")?;
    let mean = last.and_then(ChunkAgg::mean).map(rounded);
    let setting = group.column("setting")?.u32()?.get(0).unwrap_or_default() as usize;
    // Nothing in the paper was measured on generated images.
    let in_paper = settings[setting].data_state != "generated";
    let paper = paper::value(suite, &row, &metric).filter(|_| in_paper);
    Ok(Line {
        setting,
        n: group.height(),
        mean,
        std: last.and_then(|column| column.std(1)).map(rounded),
        best_mean: complete("best")?.and_then(ChunkAgg::mean).map(rounded),
        paper,
        difference: mean.zip(paper).map(|(mean, paper)| rounded(mean - paper)),
        row,
        metric,
    })
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn row_place(suite: &Suite, row: &str) -> (usize, String) {
    let printed =
        |suite: &str| paper::table_of_suite(suite)?.rows.iter().position(|printed| printed.key == row);
    let own = || suite.rows.iter().position(|own| own == row);
    // What neither has stands after it in the order of Table 1; an untrained network always comes first.
    let otherwise = || match (row, printed("table1")) {
        ("random", _) => 0,
        (_, Some(place)) => 100 + place,
        _ => usize::MAX,
    };
    (printed(&suite.name).or_else(own).unwrap_or_else(otherwise), row.to_owned())
}

fn metric_place(suite: &str, metric: &str) -> (usize, u32, String) {
    let metrics = paper::table_of_suite(suite).map_or(&[][..], |table| &table.metrics[..]);
    let (usual, number) = usual_place(metric);
    let place = metrics.iter().position(|name| name == metric).unwrap_or(metrics.len() + usual);
    (place, number, metric.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::records::Point;

    #[test]
    fn means_and_deviations_agree_with_the_definition() {
        let runs = fake::quick_runs(&[0, 1, 2]);
        let table = Table::new("table1", &runs).unwrap();
        for row in table.rows(0) {
            let last: Vec<f64> = runs
                .iter()
                .filter(|run| run.record.row == row)
                .map(|run| run.curves["knn_top1"].last().unwrap().value)
                .collect();
            let mean = last.iter().sum::<f64>() / 3.0;
            let std = (last.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
            let line = table.line(0, row, "knn").unwrap();
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
        assert_eq!(table.rows(0), expected);
        assert_eq!(table.metrics(0), ["knn", "knn_top5", "epochs_to_40", "epochs_to_60"]);
        assert_eq!(table.main_metric(0), "knn");
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
        let on = |device: &str| {
            table.settings.iter().position(|s| s.profile == "quick" && s.device == device).unwrap()
        };
        let mean = |device: &str| table.line(on(device), "nce", "knn").unwrap().mean.unwrap();
        assert!((mean("cuda") - mean("cpu") - 10.0).abs() < 1e-3);
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
        assert!(table.runs_of(0, &runs).iter().all(|run| run.folder != "table1/0ld-s0"));
    }

    #[test]
    fn one_seed_short_of_the_threshold_empties_the_mean() {
        let mut runs = fake::full_runs(&[0, 1]);
        let table = Table::new("table1", &runs).unwrap();
        let line = table.line(0, "invaspread", "epochs_to_60").unwrap();
        assert!(line.mean.is_some() && line.paper == Some(2.0), "{line:?}");
        assert!(table.line(0, "random", "epochs_to_60").is_none());
        let run = runs.iter_mut().find(|run| run.record.row == "invaspread").unwrap();
        run.curves.insert("knn_top1".into(), vec![Point { epoch: 1, value: 59.0 }]);
        let table = Table::new("table1", &runs).unwrap();
        let line = table.line(0, "invaspread", "epochs_to_60").unwrap();
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
    fn the_extra_threshold_is_one_that_training_reached() {
        let runs = fake::quick_runs(&[0]);
        let thresholds_of = |runs: &[Run]| thresholds(&runs.iter().collect::<Vec<_>>());
        assert_eq!(thresholds_of(&runs), [40, 60], "Triplet (hard), the second best, reached 44.9");
        assert_eq!(thresholds_of(&fake::full_runs(&[0])), [60]);
        let slow: Vec<Run> =
            runs.into_iter().filter(|run| ["nce", "npsoftmax"].contains(&&*run.record.row)).collect();
        assert_eq!(thresholds_of(&slow), [60], "25% was there before training");
    }

    #[test]
    fn csv_has_the_agreed_columns_and_parquet_the_same_values() {
        let table = Table::new("table1", &fake::quick_runs(&[0, 1])).unwrap();
        let csv = String::from_utf8(table.csv().unwrap()).unwrap();
        assert_eq!(
            csv.lines().next().unwrap(),
            "row,metric,n,mean,std,best_mean,paper,difference,profile,device,data"
        );
        insta::assert_snapshot!("table_csv", csv);
        let bytes = table.parquet().unwrap();
        let read = ParquetReader::new(std::io::Cursor::new(bytes)).finish().unwrap();
        assert!(read.equals_missing(&table.frame().unwrap()));
    }

    #[test]
    fn no_run_is_an_error() {
        assert!(matches!(Table::new("table1", &[]), Err(ReportError::NoRuns { .. })));
    }
}
