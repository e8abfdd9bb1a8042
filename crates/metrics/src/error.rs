//! Errors about embeddings, labels and settings.

/// The reason why a metric could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// A row holds NaN or an infinity: training has diverged, or the file the rows came from is damaged.
    #[error(
        "row {row} of the {what} holds {value}, expected finite numbers: the network that made it has diverged (train it with a \
         lower learning rate) or its file is damaged"
    )]
    NotFinite {
        /// The input: "queries", "gallery", "points".
        what: &'static str,
        /// Zero-based row.
        row: usize,
        /// The first value found there that is not finite.
        value: f32,
    },
    /// Inner products of finite rows exceed the range of f32.
    #[error(
        "the similarities of query {row} are too large for f32: the rows are far too long, so scale them to length 1 first"
    )]
    Overflow {
        /// Number of the query, from 0.
        row: usize,
    },
    /// The device failed.
    #[error("the device failed: {reason}")]
    Device {
        /// The error of the device.
        reason: String,
    },
    /// The system refused to start a thread.
    #[error(
        "failed to start a thread: {reason}; raise the limit on processes (`ulimit -u`, a container's pids limit)"
    )]
    Threads {
        /// The system's reason.
        reason: String,
    },
    /// Rows differ in dimension from the rows that a classifier was fitted to, or from the gallery.
    #[error(
        "the {what} hold {found} numbers each, expected {expected} as in the rows they are compared with: take both from the same \
         layer"
    )]
    Dimension {
        /// The input.
        what: &'static str,
        /// Numbers per row.
        found: usize,
        /// Numbers per row of the rows they are compared with.
        expected: usize,
    },
    /// There are more or fewer labels than rows.
    #[error("found {labels} labels for {rows} rows in the {what}, expected one label for each row")]
    LabelCount {
        /// The input.
        what: &'static str,
        /// Rows found.
        rows: usize,
        /// Labels found.
        labels: usize,
    },
    /// All training rows of a classifier are of one class.
    #[error(
        "all {rows} training rows have the label {label}, expected at least two classes: use more images or check the labels"
    )]
    OneClass {
        /// The label.
        label: u32,
        /// The number of rows with this label.
        rows: usize,
    },
    /// A setting must be a finite number above zero.
    #[error("{name} is {value}, expected a finite number above zero")]
    NotAboveZero {
        /// The setting.
        name: &'static str,
        /// The value.
        value: f64,
    },
    /// An iteration did not reach its tolerance.
    #[error(
        "the {what} stopped at a distance of {found:e} from its solution after {iterations} iterations, expected at most \
         {tolerance:e}: scale the rows (to length 1, or to a variance of 1), allow more iterations or lower C"
    )]
    NotConverged {
        /// The model that was fitted.
        what: &'static str,
        /// The distance reached, in the unit of the tolerance.
        found: f64,
        /// The largest distance allowed.
        tolerance: f64,
        /// Iterations that were done.
        iterations: usize,
    },
    /// A label is not one of the classes.
    #[error("row {row} of the {what} has the label {label}, expected 0 to {}: check the file of labels", classes - 1)]
    LabelOutOfRange {
        /// The input: "queries" or "gallery".
        what: &'static str,
        /// Zero-based row.
        row: usize,
        /// The label found.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// There are fewer rows than the metric needs.
    #[error("found {found} rows in the {what}, expected at least {needed}: {advice}")]
    TooFewRows {
        /// The input.
        what: &'static str,
        /// Rows found.
        found: usize,
        /// Rows needed.
        needed: usize,
        /// The advice on what to do.
        advice: &'static str,
    },
}
