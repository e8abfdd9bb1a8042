//! Short names of metrics, for a line of text.

use std::borrow::Cow;

/// Returns the usual short name of a recorded metric, such as "R@1" for `recall_at_1`.
pub(crate) fn short_name(recorded: &str) -> Cow<'_, str> {
    match recorded {
        "knn_top1" => "kNN".into(),
        "knn_top5" => "top-5".into(),
        "linear_svm_top1" => "linear SVM".into(),
        "map_at_r" => "MAP@R".into(),
        "r_precision" => "R-precision".into(),
        "nmi_geometric" => "NMI (geometric)".into(),
        "nmi_arithmetic" => "NMI (arithmetic)".into(),
        "ami" => "AMI".into(),
        other => match other.strip_prefix("recall_at_") {
            Some(k) => format!("R@{k}").into(),
            None => other.into(),
        },
    }
}
