//! `invaspread measure` for another program that holds the embeddings as arrays: the same checks, numbers and JSON as those
//! of the command. Errors and notes name the arguments as the Python module has them.

use super::class_file;
use super::names::Names;
use super::plan::{Asked, Plan};
use super::prepared::{Inputs, Prepared, numbered};
use super::sources::{Given, check_count};
use crate::arguments::{LeftOut, MetricName, Peer, Redrawn, is_rate};
use crate::failure::Failure;
use clap::ValueEnum;
use invaspread_runner::config::Override;
use invaspread_runner::embeddings::{
    Classes, Embedded, EmbeddingsError, InMemory, Labels, Scaling, take, take_labels,
};
use serde_json::{Value, json};

/// The arrays, each under the name that errors give it.
#[derive(Debug, Clone)]
pub struct Arrays<'a> {
    /// (n, D) the rows that are measured.
    pub embeddings: InMemory<'a>,
    /// (n) the class of each.
    pub labels: InMemory<'a>,
    /// (m, D) the rows that are searched and that vote, with the class of each (m); without them each row is searched
    /// among the others.
    pub gallery: Option<[InMemory<'a>; 2]>,
    /// (n) the source of each row, such as its camera.
    pub same_source: Option<InMemory<'a>>,
    /// (m) the source of each row of the gallery.
    pub gallery_same_source: Option<InMemory<'a>>,
    /// (n, E) other embeddings of the same rows.
    pub against: Option<InMemory<'a>>,
    /// (m, E) other embeddings of the gallery's rows.
    pub against_gallery: Option<InMemory<'a>>,
}

/// What is asked for beside the rows; `None` stands for what the command does without the flag.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The library whose protocol is set, as `--as` names it.
    pub library: Option<String>,
    /// What is measured, as `--metrics` names it.
    pub metrics: Option<Vec<String>>,
    /// The false match rates of `fnmr`.
    pub fmr: Option<Vec<f64>>,
    /// Whether rows are used as they are, without scaling them to length 1.
    pub unscaled: bool,
    /// The rows of its own source that a query leaves out, as `--same-source-leaves-out` names them.
    pub same_source_leaves_out: Option<String>,
    /// What is drawn again for intervals, as `--intervals` names it.
    pub intervals: Option<String>,
    /// Whether the table of classes is part of the result.
    pub per_class: bool,
    /// Settings, as `eval.k=20`.
    pub settings: Vec<String>,
}

/// Why embeddings could not be measured: what was found, what was expected, and where.
#[derive(Debug)]
pub struct MeasureError(String);

impl std::fmt::Display for MeasureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MeasureError {}

impl From<Failure> for MeasureError {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

impl From<EmbeddingsError> for MeasureError {
    fn from(error: EmbeddingsError) -> Self {
        Self(error.to_string())
    }
}

/// Measures embeddings and returns what `invaspread measure --json` prints; `per_class` is the table of classes, or null.
///
/// # Errors
/// Returns an error that names the argument or the setting.
pub fn measure(arrays: Arrays<'_>, options: &Options) -> Result<Value, MeasureError> {
    check_together(&arrays, options)?;
    let plan = Plan::new(&asked(arrays.gallery.is_some(), options)?)?;
    let inputs = taken(arrays, plan.scaling)?;
    let outcome = Prepared::new(plan, inputs)?.run()?;
    let table = options
        .per_class
        .then(|| class_file::rows(&outcome.per_class(), &outcome.measurement.classes.labels));
    Ok(outcome.as_json(&json!(table)))
}

/// Numbers the classes of rows and of a gallery, as [`measure`] does.
///
/// # Errors
/// Returns an error if the labels of one are numbers and those of the other words.
pub fn number(labels: &Labels, gallery: Option<&Labels>) -> Result<Classes, MeasureError> {
    Ok(numbered(Names::Python, labels, gallery)?)
}

/// Refuses arguments without those that they need, as the command line does.
fn check_together(arrays: &Arrays<'_>, options: &Options) -> Result<(), MeasureError> {
    let needs: [(&str, bool, &str, bool); 6] = [
        ("gallery_same_source", arrays.gallery_same_source.is_some(), "gallery", arrays.gallery.is_some()),
        (
            "gallery_same_source",
            arrays.gallery_same_source.is_some(),
            "same_source",
            arrays.same_source.is_some(),
        ),
        (
            "same_source, with a gallery,",
            arrays.same_source.is_some() && arrays.gallery.is_some(),
            "gallery_same_source",
            arrays.gallery_same_source.is_some(),
        ),
        (
            "same_source_leaves_out",
            options.same_source_leaves_out.is_some(),
            "same_source",
            arrays.same_source.is_some(),
        ),
        ("against_gallery", arrays.against_gallery.is_some(), "against", arrays.against.is_some()),
        ("against_gallery", arrays.against_gallery.is_some(), "gallery", arrays.gallery.is_some()),
    ];
    for (argument, is_given, other, is_there) in needs {
        if is_given && !is_there {
            return Err(MeasureError(format!("{argument}: expected {other} beside it")));
        }
    }
    let set = [("metrics", options.metrics.is_some()), ("normalize=False", options.unscaled)];
    match (&options.library, set.into_iter().find(|(_, is_given)| *is_given)) {
        (Some(library), Some((argument, _))) => Err(MeasureError(format!(
            "{argument} and as_=\"{library}\", which sets it too: leave one of them out"
        ))),
        _ => Ok(()),
    }
}

/// Reads the words of the options.
fn asked(has_gallery: bool, options: &Options) -> Result<Asked, MeasureError> {
    let metrics = match &options.metrics {
        Some(words) => words.iter().map(|word| chosen("metrics", word)).collect::<Result<_, _>>()?,
        None => vec![MetricName::Default],
    };
    if let Some(rate) = options.fmr.iter().flatten().find(|&&rate| !is_rate(rate)) {
        return Err(MeasureError(format!("fmr: found {rate}, expected numbers above 0 and below 1")));
    }
    let settings = options.settings.iter().map(|setting| Override::parse(setting));
    Ok(Asked {
        names: Names::Python,
        settings: settings.collect::<Result<_, _>>().map_err(Failure::from)?,
        has_gallery,
        peer: options.library.as_deref().map(|word| chosen::<Peer>("as_", word)).transpose()?,
        metrics,
        fmr: options.fmr.clone(),
        unscaled: options.unscaled,
        intervals: options
            .intervals
            .as_deref()
            .map(|word| chosen::<Redrawn>("intervals", word))
            .transpose()?,
        leaves_out: match &options.same_source_leaves_out {
            Some(word) => chosen("same_source_leaves_out", word)?,
            None => LeftOut::Class,
        },
        per_class: options.per_class,
    })
}

/// Returns what `word` means, as on the command line.
fn chosen<T: ValueEnum>(argument: &str, word: &str) -> Result<T, MeasureError> {
    T::from_str(word, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        MeasureError(format!("{argument}: found {word:?}, expected one of {}", names.join(", ")))
    })
}

/// Takes the rows from the arrays.
fn taken(arrays: Arrays<'_>, scaling: Scaling) -> Result<Inputs, MeasureError> {
    let Arrays { embeddings, labels, gallery, same_source, gallery_same_source, against, against_gallery } =
        arrays;
    // Other embeddings are of the same rows, and so have their labels.
    let against = against.map(|rows| take(rows, labels.clone(), scaling)).transpose()?;
    let gallery_labels = gallery.as_ref().map(|[_, labels]| labels.clone());
    let against_gallery =
        against_gallery.zip(gallery_labels).map(|(rows, labels)| take(rows, labels, scaling)).transpose()?;
    let test = take(embeddings, labels, scaling)?;
    let gallery = gallery.map(|[rows, labels]| take(rows, labels, scaling)).transpose()?;
    let of_test = same_source.map(|sources| taken_sources(sources, &test)).transpose()?;
    let of_gallery = gallery_same_source
        .zip(gallery.as_ref())
        .map(|(sources, rows)| taken_sources(sources, rows))
        .transpose()?;
    let sources = of_test.map(|of_test| (of_test, of_gallery));
    Ok(Inputs { test, gallery, sources, against, against_gallery })
}

fn taken_sources(sources: InMemory<'_>, rows: &Embedded) -> Result<Given, MeasureError> {
    let argument = sources.name;
    let (labels, origin) = take_labels(sources)?;
    check_count(argument, &labels, rows)?;
    Ok((labels, origin))
}

#[cfg(test)]
mod tests {
    use super::{Arrays, InMemory, Options, measure};
    use serde_json::json;

    /// Returns two rows of each of two classes, each nearest to the other row of its class.
    fn example() -> Arrays<'static> {
        let rows = [1.0_f64, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9];
        Arrays {
            embeddings: InMemory {
                name: "embeddings",
                element: "<f8".to_owned(),
                shape: vec![4, 2],
                bytes: rows.iter().flat_map(|number| number.to_le_bytes()).collect(),
            },
            labels: labels("labels", [3, 3, 7, 7]),
            gallery: None,
            same_source: None,
            gallery_same_source: None,
            against: None,
            against_gallery: None,
        }
    }

    fn labels(name: &'static str, labels: [u8; 4]) -> InMemory<'static> {
        InMemory { name, element: "|u1".to_owned(), shape: vec![4], bytes: labels.to_vec() }
    }

    fn named(metric: &str) -> Options {
        Options { metrics: Some(vec![metric.to_owned()]), ..Options::default() }
    }

    #[test]
    fn arrays_are_measured_and_a_table_of_classes_is_part_of_the_result() {
        let found = measure(example(), &Options { per_class: true, ..named("mrr") }).expect("four rows");
        assert_eq!(found["metrics"], json!({ "mrr": 100.0 }));
        assert_eq!(found["test"], "embeddings");
        let first = json!({ "class": 3, "rows": 2, "metrics": { "mrr": 100.0 }, "confused_with": [] });
        assert_eq!(found["per_class"][0], first);
        // Each row finds only rows of the other class, if its own class has one source.
        let arrays = Arrays { same_source: Some(labels("same_source", [1, 1, 2, 2])), ..example() };
        let left = measure(arrays, &named("retrieval")).expect("four rows");
        assert_eq!((&left["without_match"], &left["metrics"]["recall_at_1"]), (&json!(4), &json!(0.0)));
        assert!(left["per_class"].is_null());
    }

    #[test]
    fn an_error_names_the_argument() {
        let told = |arrays, options: &Options| {
            measure(arrays, options).map_or_else(|error| error.to_string(), |found| found.to_string())
        };
        assert_eq!(
            told(Arrays { gallery_same_source: Some(labels("x", [0; 4])), ..example() }, &named("map")),
            "gallery_same_source: expected gallery beside it"
        );
        assert_eq!(
            told(example(), &named("mmr")),
            "metrics: found \"mmr\", expected one of default, all, knn, retrieval, nmi, precision, mrr, map, cmc, fnmr, hubness, shape"
        );
        assert_eq!(
            told(example(), &Options { fmr: Some(vec![0.1]), ..Options::default() }),
            "`fmr` changes nothing of what is measured here: fnmr is not among metrics; leave it out, or add metrics=[\"default\", \"fnmr\"]"
        );
    }
}
