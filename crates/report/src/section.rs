//! One setting of a suite's table: everything that the outputs show, collected once.

use crate::aggregate::Line;
use crate::names::{is_speed, row_label};
use crate::records::Run;
use crate::setting::Setting;
use crate::suite::Suite;
use crate::table::Table;

/// One setting's rows, metrics, numbers and runs.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    /// The suite.
    pub suite: &'a Suite,
    /// The setting.
    pub setting: &'a Setting,
    /// The measured rows, in the paper's order or, without one, in the suite's.
    pub rows: Vec<&'a str>,
    /// The measured metrics, in the paper's order.
    pub metrics: Vec<&'a str>,
    /// The main metric of the suite: the first one of the paper's table; if there is none, kNN or R@1;
    /// otherwise the first one recorded.
    pub main_metric: &'a str,
    /// The numbers, ordered by row, then by metric.
    pub lines: &'a [Line],
    /// The runs behind the numbers, in the order of [`Self::rows`], then by seed.
    pub runs: Vec<&'a Run>,
}

impl Table {
    /// Returns one section for each setting, in the order of [`Self::settings`]. `runs` are the runs from
    /// which the table was made.
    pub fn sections<'a>(&'a self, runs: &'a [Run]) -> Vec<Section<'a>> {
        (0..self.settings.len()).map(|setting| Section::new(self, setting, runs)).collect()
    }
}

impl<'a> Section<'a> {
    /// Makes the section of setting number `setting` of `table`, which was made from `runs`.
    fn new(table: &'a Table, setting: usize, runs: &'a [Run]) -> Self {
        let suite = &table.suite;
        let from = table.lines.partition_point(|line| line.setting < setting);
        let to = table.lines.partition_point(|line| line.setting <= setting);
        let lines = &table.lines[from..to];

        let mut rows: Vec<&str> = lines.iter().map(|line| line.row.as_str()).collect();
        rows.dedup();
        let mut metrics: Vec<&str> = lines.iter().map(|line| line.metric.as_str()).collect();
        metrics.sort_by_cached_key(|metric| suite.metric_place(metric));
        metrics.dedup();

        let setting = &table.settings[setting];
        let mut of_setting: Vec<&Run> = runs
            .iter()
            .filter(|run| Setting::of(&run.record) == *setting && !table.left_out.contains(&run.folder))
            .collect();
        of_setting.sort_by_cached_key(|run| (suite.row_place(&run.record.row), run.record.seed));
        let main_metric = main_metric(suite, &metrics);
        Self { suite, setting, rows, metrics, main_metric, lines, runs: of_setting }
    }

    /// Returns the label of a row: that of its runs' records or, if they have none, that of the row's
    /// key.
    pub fn row_label(&self, row: &str) -> String {
        let run = self.runs.iter().find(|run| run.record.row == row);
        run.map_or_else(|| row_label(row), |run| run.row_label())
    }

    /// Returns the number of a row under a metric.
    pub fn line(&self, row: &str, metric: &str) -> Option<&'a Line> {
        self.lines.iter().find(|line| line.row == row && line.metric == metric)
    }

    /// Returns the numbers under a metric, in the order of the rows.
    pub fn lines_of(&self, metric: &str) -> Vec<&'a Line> {
        self.lines.iter().filter(|line| line.metric == metric).collect()
    }

    /// Returns the metrics of quality: all but those of [`Self::speed_metrics`].
    pub fn quality_metrics(&self) -> Vec<&'a str> {
        self.metrics.iter().copied().filter(|metric| !is_speed(metric)).collect()
    }

    /// Returns the metrics of speed, `epochs_to_<percent>`.
    pub fn speed_metrics(&self) -> Vec<&'a str> {
        self.metrics.iter().copied().filter(|metric| is_speed(metric)).collect()
    }

    /// Returns the suite's own rows that have no finished run here, in the suite's order; none for a suite that
    /// is a table of the paper, whose rows are those of the paper.
    pub fn missing_rows(&self) -> Vec<&'a str> {
        let suite = self.suite;
        let own = suite.rows.iter().map(String::as_str).filter(|_| suite.printed().is_none());
        own.filter(|row| !self.rows.contains(row)).collect()
    }

    /// Returns whether the paper prints a value beside any number of the section.
    pub fn is_in_paper(&self) -> bool {
        self.lines.iter().any(|line| line.paper.is_some())
    }

    /// Returns whether the paper prints a value beside any number under `metric`.
    pub fn is_printed(&self, metric: &str) -> bool {
        self.lines.iter().any(|line| line.metric == metric && line.paper.is_some())
    }
}

fn main_metric<'a>(suite: &Suite, metrics: &[&'a str]) -> &'a str {
    // The overlap is not a main metric by itself: it is a property of the network, and lower is better.
    let printed = suite.printed_metrics().iter().map(String::as_str);
    let preferred = printed.filter(|metric| !metric.starts_with("overlap_")).chain(["knn", "r1"]);
    let found = preferred.into_iter().find_map(|name| metrics.iter().find(|metric| **metric == name));
    found.or(metrics.first()).copied().unwrap_or("knn")
}
