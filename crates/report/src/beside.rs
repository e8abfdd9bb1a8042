//! What a suite's report shows beside the metrics of each row.

use serde::Serialize;

/// A group of columns that a suite asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// The time and the memory of the runs.
    Cost,
    /// The shape of the embedding after the last epoch.
    Shape,
    /// What other libraries print for the same method and data set.
    Peers,
}
