//! The labels of rows, data sets, metrics and suites, and the order of metrics.

use std::borrow::Cow;

use crate::rows;

/// Returns the label of a row of which only the key is known: the paper's name for it or, if there is none,
/// the key in words.
pub fn row_label(key: &str) -> String {
    if let Some(label) = rows::known(key).and_then(|known| known.label.clone()) {
        return label;
    }
    match key.strip_suffix("_supervised") {
        Some(method) => format!("{} (supervised)", sentence(method).replace(" plus", "+")),
        None => sentence(key),
    }
}

/// Returns the usual name of a data set.
pub fn dataset_label(dataset: &str) -> &str {
    match dataset {
        "cifar10" => "CIFAR-10",
        "stl10" => "STL-10",
        "cub200-2011" => "CUB-200-2011",
        "cub200-2010" => "CUB-200 of 2010",
        "products" => "Stanford Online Products",
        "cars196" => "Cars196",
        "cars196-half" => "Cars196's official training half",
        other => other,
    }
}

/// Returns the label of a metric as the head of a column.
pub(crate) fn metric_label(metric: &str) -> String {
    match metric {
        "knn" => "kNN top-1 (%)".to_owned(),
        "knn_top5" => "kNN top-5 (%)".to_owned(),
        "linear" => "Linear (%)".to_owned(),
        "nmi" => "NMI (%)".to_owned(),
        "nmi_arithmetic" => "NMI, arithmetic (%)".to_owned(),
        "ami" => "AMI (%)".to_owned(),
        "map_at_r" => "MAP@R (%)".to_owned(),
        "r_precision" => "R-precision (%)".to_owned(),
        other => {
            let stripped = |prefix| other.strip_prefix(prefix);
            match (stripped(EPOCHS_TO), stripped("overlap_"), stripped("r")) {
                (Some(threshold), ..) => format!("Epochs to {threshold}%"),
                (_, Some(grouping), _) => format!("Overlap, {} (%)", grouping_label(grouping)),
                (.., Some(k)) if k.parse::<u32>().is_ok() => format!("R@{k} (%)"),
                _ => sentence(other),
            }
        }
    }
}

/// Returns the usual name of a grouping of the classes.
pub(crate) fn grouping_label(grouping: &str) -> &str {
    match grouping {
        "class" => "classes",
        "animals_artifacts" => "animals against artifacts",
        "big_small_animals" => "big against small animals",
        other => other,
    }
}

/// Returns whether a metric is a speed of learning, `epochs_to_<percent>`.
pub(crate) fn is_speed(metric: &str) -> bool {
    metric.starts_with(EPOCHS_TO)
}

/// The beginning of the names of speeds; the threshold in percent follows.
const EPOCHS_TO: &str = "epochs_to_";

/// Returns the sort key of a metric that the paper's table of the suite does not print.
pub(crate) fn usual_place(metric: &str) -> (usize, u32) {
    const USUAL: [&str; 10] = [
        "linear",
        "knn",
        "knn_top5",
        "r",
        "map_at_r",
        "r_precision",
        "nmi",
        "nmi_arithmetic",
        "ami",
        EPOCHS_TO,
    ];
    let number = |prefix: &str| metric.strip_prefix(prefix).and_then(|rest| rest.parse().ok());
    let place = USUAL.iter().position(|&usual| match usual {
        "r" | EPOCHS_TO => number(usual).is_some(),
        usual => usual == metric,
    });
    (place.unwrap_or(USUAL.len()), number("r").or(number(EPOCHS_TO)).unwrap_or(0))
}

/// Returns the name that the paper's tables use for a recorded metric.
pub(crate) fn paper_metric(recorded: &str) -> Cow<'_, str> {
    match recorded {
        "knn_top1" => "knn".into(),
        // The paper's code used scikit-learn's default, which was the geometric mean at that time.
        "nmi_geometric" => "nmi".into(),
        "linear_svm_top1" => "linear".into(),
        other => match other.strip_prefix("recall_at_") {
            Some(k) => format!("r{k}").into(),
            None => other.into(),
        },
    }
}

/// Returns the name under which a run records a metric of the paper's tables.
pub(crate) fn recorded_metric(paper: &str) -> Cow<'_, str> {
    match paper {
        "knn" => "knn_top1".into(),
        "nmi" => "nmi_geometric".into(),
        "linear" => "linear_svm_top1".into(),
        other => match other.strip_prefix('r').and_then(|k| k.parse::<u32>().ok()) {
            Some(k) => format!("recall_at_{k}").into(),
            None => other.into(),
        },
    }
}

/// Returns the label of a suite: "Table 1" for `table1`, "Figure 3" for `figure3`, otherwise the name itself.
pub(crate) fn suite_label(suite: &str) -> String {
    for (prefix, label) in [("table", "Table"), ("figure", "Figure")] {
        if let Some(number) = suite.strip_prefix(prefix)
            && number.parse::<u32>().is_ok()
        {
            return format!("{label} {number}");
        }
    }
    suite.to_owned()
}

/// Returns a count with separators: "10,000".
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a time as text: "48 s", "12 min", "3 h 05 min".
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", (whole + 30) / 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

fn sentence(key: &str) -> String {
    let spaced = key.replace('_', " ");
    let mut letters = spaced.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(10_000), "10,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(duration(47.6), "48 s");
        assert_eq!(duration(740.0), "12 min");
        assert_eq!(duration(3.0 * 3600.0 + 299.0), "3 h 04 min");
    }

    #[test]
    fn keys_become_labels() {
        assert_eq!(row_label("without_flip"), "Without flip");
        assert_eq!(metric_label("r10"), "R@10 (%)");
        assert_eq!(metric_label("epochs_to_60"), "Epochs to 60%");
        assert_eq!(suite_label("table1"), "Table 1");
        assert_eq!(suite_label("tablecloth"), "tablecloth");
    }
}
