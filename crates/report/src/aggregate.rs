//! Aggregates runs into numbers: means and standard deviations over seeds, computed by polars, for each
//! setting, row and metric.

use std::collections::{BTreeMap, BTreeSet};

use polars::prelude::*;
use serde::Serialize;

use crate::names::{paper_metric, recorded_metric};
use crate::paper;
use crate::records::Run;
use crate::setting::Setting;
use crate::suite::Suite;
use crate::thresholds::thresholds;

/// One number of a table: a row's metric in a setting, over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The place of the setting in [`Table::settings`](crate::Table::settings).
    pub setting: usize,
    /// The row, by its key in the paper's table.
    pub row: String,
    /// The metric, under the paper's name (`knn` for the recorded `knn_top1`), or `epochs_to_<percent>`.
    pub metric: String,
    /// The number of runs (seeds) behind the number.
    pub n: usize,
    /// The mean after the last epoch. For `epochs_to_*`, the mean epoch; `None` unless every run reached the
    /// threshold.
    pub mean: Option<f64>,
    /// The standard deviation over seeds (n - 1); `None` for one seed.
    pub std: Option<f64>,
    /// The mean of the best values of the runs; `None` for `epochs_to_*`.
    pub best_mean: Option<f64>,
    /// The paper's value; `None` for generated images, on which the paper measured nothing, and for held-out
    /// training images.
    pub paper: Option<f64>,
    /// The difference `mean - paper`.
    pub difference: Option<f64>,
}

/// Splits runs into those of the newest configuration of their row and setting, and the sorted folders of the
/// others.
pub(crate) fn newest_configurations(runs: &[Run]) -> (Vec<&Run>, Vec<String>) {
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

/// Returns the settings of `runs`: those of the paper's recipe first, then by the work of their largest run.
pub(crate) fn settings_fullest_first(runs: &[&Run]) -> Vec<Setting> {
    let distinct: BTreeSet<Setting> = runs.iter().map(|run| Setting::of(&run.record)).collect();
    let mut settings: Vec<Setting> = distinct.into_iter().collect();
    settings.sort_by_cached_key(|setting| {
        let work = runs.iter().filter(|run| Setting::of(&run.record) == *setting);
        let work = work.map(|run| run.record.epochs * run.record.train_images * run.record.width).max();
        (setting.reduced, std::cmp::Reverse(work))
    });
    settings
}

/// Aggregates `runs`, one line for each setting, row and metric.
///
/// # Errors
/// Returns the errors of polars.
pub(crate) fn aggregate(suite: &Suite, settings: &[Setting], runs: &[&Run]) -> PolarsResult<Vec<Line>> {
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
            for separation in &run.separations {
                let metric = format!("overlap_{}", separation.name);
                if suite.printed_metrics().contains(&metric) {
                    push(metric, Some(100.0 * separation.overlap), None);
                }
            }
            for &threshold in thresholds.iter().filter(|_| run.is_trained()) {
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

/// Reduces one group of rows (one setting, row and metric) to its line.
fn line(suite: &Suite, settings: &[Setting], group: &DataFrame) -> PolarsResult<Line> {
    let text = |name: &str| -> PolarsResult<String> {
        Ok(group.column(name)?.str()?.get(0).unwrap_or_default().to_owned())
    };
    // A mean over only those seeds that reached a threshold would be too good, so there is no mean if one
    // value is missing.
    let complete = |name: &str| -> PolarsResult<Option<&Float64Chunked>> {
        let column = group.column(name)?.f64()?;
        Ok((column.null_count() == 0).then_some(column))
    };
    let (row, metric) = (text("row")?, text("metric")?);
    let last = complete("last")?;
    let mean = last.and_then(ChunkAgg::mean).map(rounded);
    let setting = group.column("setting")?.u32()?.get(0).unwrap_or_default() as usize;
    // The paper measured nothing on generated images, and printed nothing of held-out ones.
    let in_paper = settings[setting].data_state != "generated" && !settings[setting].held_out;
    let paper = paper::value(&suite.name, &row, &metric).filter(|_| in_paper);
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

/// Rounds to four decimals, so that all outputs show the same number.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
