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
        "map" => "mAP".into(),
        "mrr" => "MRR".into(),
        other => {
            let prefixes = [
                ("recall_at_", "R@"),
                ("precision_at_", "precision@"),
                ("cmc_", "CMC rank "),
                ("fnmr_at_fmr_", "FNMR at FMR "),
            ];
            let short = prefixes
                .iter()
                .find_map(|(long, short)| Some(format!("{short}{}", other.strip_prefix(long)?)));
            short.map_or(other.into(), Into::into)
        }
    }
}
