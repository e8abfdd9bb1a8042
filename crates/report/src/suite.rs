//! The name and the title of a suite in its reports, and the order of its rows and metrics.

use serde::Serialize;

use crate::beside::Beside;
use crate::names::{suite_label, usual_place};
use crate::paper::{self, PaperTable};
use crate::rows;

/// A suite, with the names and the order that its reports use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suite {
    /// The suite's name.
    #[serde(rename = "suite")]
    pub name: String,
    /// The title of its report. For a suite that is a table of the paper, the paper's title takes its place.
    pub title: String,
    /// The order of its rows. For a suite that is a table of the paper, the paper's order takes its place.
    #[serde(skip)]
    pub rows: Vec<String>,
    /// Whether the suite has a picture of retrieved neighbors.
    #[serde(skip)]
    pub gallery: bool,
    /// What its table shows beside the metrics, in this order.
    #[serde(skip)]
    pub beside: Vec<Beside>,
}

impl Suite {
    /// Returns the heading of the suite's report.
    pub(crate) fn heading(&self) -> String {
        match paper::table(&self.name) {
            Some(printed) => format!("{}: {}", suite_label(&self.name), printed.title),
            None => self.title.clone(),
        }
    }

    /// Returns the paper's table that the suite reproduces, if there is one.
    pub(crate) fn printed(&self) -> Option<&'static PaperTable> {
        paper::table_of_suite(&self.name)
    }

    /// Returns the metrics of the paper's table that the suite reproduces; none if there is no such table.
    pub(crate) fn printed_metrics(&self) -> &'static [String] {
        self.printed().map_or(&[], |table| &table.metrics)
    }

    /// Returns the sort key of a row: the paper's order, then the suite's own, then that of Table 1. An
    /// untrained network comes first.
    pub(crate) fn row_place(&self, row: &str) -> (usize, String) {
        let place_in =
            |printed: Option<&PaperTable>| printed?.rows.iter().position(|printed| printed.key == row);
        let own = || self.rows.iter().position(|own| own == row);
        let is_first = || rows::known(row).is_some_and(|known| known.first);
        let otherwise = || match place_in(paper::table_of_suite("table1")) {
            _ if is_first() => 0,
            Some(place) => 100 + place,
            None => usize::MAX,
        };
        (place_in(self.printed()).or_else(own).unwrap_or_else(otherwise), row.to_owned())
    }

    /// Returns the sort key of a metric: the paper's order, then the usual order.
    pub(crate) fn metric_place(&self, metric: &str) -> (usize, u32, String) {
        let printed = self.printed_metrics();
        let (usual, number) = usual_place(metric);
        let place = printed.iter().position(|name| name == metric).unwrap_or(printed.len() + usual);
        (place, number, metric.to_owned())
    }
}

/// Makes a suite of which only the name is known.
impl From<&str> for Suite {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: name.to_owned(),
            rows: Vec::new(),
            gallery: false,
            beside: Vec::new(),
        }
    }
}
