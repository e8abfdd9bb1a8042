//! What can be wrong with the embeddings and labels a metric is given.

/// Why a metric could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// A row holds NaN or an infinity: training has diverged, or the file the rows came from is damaged.
    #[error(
        "row {row} of the {what} holds {value}, expected finite numbers: the network that made it has diverged (lower \
         optim.lr) or its file is damaged"
    )]
    NotFinite {
        /// Which input: "queries", "gallery", "points".
        what: &'static str,
        /// Zero-based row.
        row: usize,
        /// The first value found there that is not finite.
        value: f32,
    },
    /// Inner products of finite rows left the range of f32.
    #[error(
        "the similarities of query {row} leave the range of f32: the rows are far too long, L2-normalise them first"
    )]
    Overflow {
        /// Zero-based query.
        row: usize,
    },
    /// The device that was to compute it failed.
    #[error("the device failed: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
    /// A label is not one of the classes.
    #[error("label {label} of row {row} of the {what} is out of range, expected 0 to {}: check the labels' file", classes - 1)]
    LabelOutOfRange {
        /// Which input: "queries" or "gallery".
        what: &'static str,
        /// Zero-based row.
        row: usize,
        /// The label found.
        label: u32,
        /// How many classes there are.
        classes: usize,
    },
    /// There are fewer rows than the metric needs.
    #[error("found {found} rows in the {what}, expected at least {needed}: use more images or fewer {fewer}")]
    TooFewRows {
        /// Which input.
        what: &'static str,
        /// Rows found.
        found: usize,
        /// Rows needed.
        needed: usize,
        /// What could be made smaller instead.
        fewer: &'static str,
    },
}
