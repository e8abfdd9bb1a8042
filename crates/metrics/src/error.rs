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
    /// Rows have another dimension than the ones that were fitted to, or that they are looked up among.
    #[error(
        "the {what} hold {found} numbers each, expected {expected} as the rows they are compared with: take both from one layer"
    )]
    Dimension {
        /// Which input.
        what: &'static str,
        /// Numbers per row.
        found: usize,
        /// Numbers per row of the others.
        expected: usize,
    },
    /// There are more or fewer labels than rows.
    #[error("found {labels} labels for {rows} rows in the {what}, expected one label a row")]
    LabelCount {
        /// Which input.
        what: &'static str,
        /// Rows found.
        rows: usize,
        /// Labels found.
        labels: usize,
    },
    /// A classifier was to be trained on one class.
    #[error(
        "all {rows} training rows have label {label}, expected at least two classes: use more images or check the labels"
    )]
    OneClass {
        /// The label.
        label: u32,
        /// How many rows have it.
        rows: usize,
    },
    /// A setting must be a finite number above zero.
    #[error("{name} is {value}, expected a finite number above zero")]
    NotAboveZero {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// An iteration did not reach its tolerance.
    #[error(
        "the {what} stopped {found:e} from its solution after {iterations} iterations, expected {tolerance:e}: scale the rows \
         (L2-normalise or standardise them), raise max_iterations or lower C"
    )]
    NotConverged {
        /// What was fitted.
        what: &'static str,
        /// The criterion's last value, in the unit of the tolerance.
        found: f64,
        /// What it had to come down to.
        tolerance: f64,
        /// Iterations that were done.
        iterations: usize,
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
