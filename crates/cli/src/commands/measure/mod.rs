//! `invaspread measure FILE`: measures embeddings from any program.

mod against;
mod class_file;
mod more;
mod notes;
mod peers;
mod selection;
mod settings;
mod sources;

use super::card::{Card, Gallery};
use super::{print_json, print_measured};
use crate::arguments::{MeasureArguments, Redrawn};
use crate::failure::Failure;
use crate::output::{note, print_line};
use anyhow::{Context, anyhow};
use invaspread_metrics::{Interval, LabeledRows, Lookup, Rows};
use invaspread_runner::config::{expand, resolve_over};
use invaspread_runner::embeddings::{
    self, Classes, Embedded, EmbeddingsError, Labels, Role, Scaling, Source,
};
use invaspread_runner::engine::{
    self, Classed, Findings, Intervals, Measured, Metric, Recipe, RetrievalRecipe, Selection, Units, When,
};
use serde_json::json;
use sources::RowSources;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Product of rows and clusters from which on k-means, with its hundreds of iterations, takes minutes on a
/// core.
const LONG_TO_CLUSTER: usize = 50_000_000;

/// The metric whose interval comes from halves of the rows, if any does.
const NMI: &str = "nmi_arithmetic";

/// Largest number of class names on a line.
const MOST_NAMED: usize = 10;

pub(crate) fn measure(arguments: &MeasureArguments) -> Result<(), Failure> {
    let mut overrides = expand(&arguments.settings.overrides()?, false)?.remove(0);
    let protocol = arguments.peer.map(peers::of);
    if let Some(protocol) = &protocol {
        overrides = protocol.over(overrides, arguments.gallery.is_some())?;
    }
    let resolved = resolve_over(None, &overrides)?;
    let selection = selection::of(arguments, protocol.as_ref())?;
    settings::check(&overrides, arguments.gallery.is_some(), &selection)?;
    let class_file = arguments.per_class.as_deref().map(class_file::ClassFile::new).transpose()?;
    let config = &resolved.config;

    let unscaled = arguments.unscaled || protocol.as_ref().is_some_and(|protocol| protocol.unscaled);
    let scaling = if unscaled { Scaling::Unscaled } else { Scaling::UnitLength };
    let test = read(&test_source(arguments, scaling), &TEST_FLAGS)?;
    let gallery =
        gallery_source(arguments, scaling).map(|source| read(&source, &GALLERY_FLAGS)).transpose()?;
    let classes = Classes::number(&test.labels, gallery.as_ref().map(|gallery| &gallery.labels))
        .map_err(anyhow::Error::from)?;
    let (rows, dim) = (test.labels.len(), test.features.dim);
    if rows < 2 && gallery.is_none() {
        return Err(anyhow!(
            "{} holds one row, and there is no other row to search: expected two or more rows, or a --gallery",
            test.origin.embeddings.file.display()
        )
        .into());
    }
    let sources = RowSources::read(arguments, rows, gallery.as_ref().map(|gallery| gallery.labels.len()))?;
    let mut recipe = config.recipe();
    if config.eval.retrieval.is_none() {
        recipe.retrieval = RetrievalRecipe::for_classes(classes.count());
    }
    let measurement = Measurement::new(test, gallery, classes, sources.map(Arc::new), recipe, selection);
    let units = match (arguments.intervals, &arguments.gallery) {
        (Some(Redrawn::None), _) => None,
        (Some(Redrawn::Queries), _) | (None, Some(_)) => Some(Units::Queries),
        (Some(Redrawn::Classes), _) | (None, None) => Some(Units::Classes),
    };
    let intervals = units.map(|units| Intervals::new(units, measurement.recipe.seed));
    let draws = measurement.draws() || intervals.is_some();
    let other = against::read(arguments, scaling, &measurement)?;

    let mut notes = measurement.notes_on_files(scaling);
    notes.extend(other.iter().flat_map(|other| other.notes(scaling)));
    notes.extend(
        intervals.as_ref().and_then(|intervals| notes::of_units(intervals, &measurement.classes.test)),
    );
    notes.extend(notes::of_classes(
        &measurement.classes,
        measurement.without_match(),
        measurement.sources.is_some(),
        &measurement.selection,
    ));
    notes.extend(notes::of_depth(
        &measurement.recipe.retrieval.recall_at,
        measurement.to_find(),
        &measurement.selection,
    ));
    notes.extend(settings::idle(&overrides, config, draws)?);
    for text in &notes {
        note!("note: {text}");
    }
    if measurement.clusters && rows * measurement.classes.count() > LONG_TO_CLUSTER {
        note!(
            "{rows} rows into {} clusters, as NMI and AMI need, takes minutes; eval.retrieval.clustering=never leaves them out",
            measurement.classes.count()
        );
    }
    let failed = "failed to measure the embeddings";
    let found = measurement.run().context(failed)?;
    let measured = found.measured();
    let of_found = notes::of_findings(found.more(), rows);
    for text in &of_found {
        note!("note: {text}");
    }
    notes.extend(of_found);
    if let Some(file) = &class_file {
        file.write(&found.per_class(&measurement.classes.test), &measurement.classes.labels)?;
    }
    let of_metrics = match &intervals {
        Some(intervals) => intervals.of(&found, &measurement.classes.test).context(failed)?,
        None => BTreeMap::new(),
    };
    let comparison = other
        .map(|other| against::compare(&found, &other, intervals.as_ref(), &measurement.classes.test))
        .transpose()
        .context(failed)?;

    let card = Card {
        intervals: intervals.as_ref().map(|intervals| {
            json!({
                "method": "expanded percentile bootstrap of the scores of queries; subsampling for NMI",
                "units": intervals.units.name(),
                "level": intervals.bootstrap.level,
                "resamples": intervals.bootstrap.resamples,
            })
        }),
        of_library: protocol.as_ref().map(|protocol| protocol.name),
        ..measurement.card(scaling)
    };
    let used = settings::used(&resolved, measurement.gallery.is_some(), draws);
    if arguments.json {
        let among = measurement.gallery.as_ref().map(|gallery| gallery.labels.len());
        let voters = among.filter(|_| measurement.selection.has(Metric::Knn));
        let recipe = &measurement.recipe;
        let settings: BTreeMap<_, _> =
            used.iter().map(|s| (&s.key, json!({ "value": s.value, "origin": s.origin }))).collect();
        return Ok(print_json(&json!({
            "test": arguments.test,
            "rows": rows,
            "dim": dim,
            "classes": measurement.classes.count(),
            "class_names": match &measurement.classes.labels {
                Labels::Words(words) => Some(words),
                Labels::Numbers(_) => None,
            },
            "gallery": arguments.gallery,
            "gallery_rows": among,
            "arrays": measurement.arrays(),
            "scaling": match scaling { Scaling::UnitLength => "unit length", Scaling::Unscaled => "none" },
            "ranking": match scaling { Scaling::UnitLength => "cosine similarity", Scaling::Unscaled => "inner product" },
            "k": voters.map(|_| recipe.neighbors),
            "k_used": voters.map(|among| recipe.neighbors.min(among)),
            "temperature": voters.map(|_| recipe.vote_temperature),
            "recall_at": recipe.retrieval.recall_at,
            "kmeans_starts": measurement.clusters.then_some(recipe.retrieval.kmeans_restarts),
            "without_match": measurement.without_match(),
            "same_source": measurement.sources.as_ref().map(|sources| sources.as_json()),
            "settings": settings,
            "notes": notes,
            "metrics": measured.0.iter().cloned().collect::<BTreeMap<_, _>>(),
            "intervals": intervals.map(|intervals| json!({
                "units": intervals.units.name(),
                "level": intervals.bootstrap.level,
                "resamples": intervals.bootstrap.resamples,
                "subsamples": of_metrics.contains_key(NMI).then_some(intervals.subsampling.subsamples),
                "seed": intervals.bootstrap.seed,
                "metrics": of_metrics.iter().map(|(name, ends)| (name, as_json(*ends))).collect::<BTreeMap<_, _>>(),
            })),
            "verification": more::verification(found.more()),
            "hubness": more::hubness(found.more()),
            "shape": more::shape(found.more()),
            "per_class": arguments.per_class,
            "protocol": card.as_json(),
            "against": comparison.as_ref().map(against::Comparison::as_json),
        }))?);
    }
    for line in measurement.describe(scaling) {
        print_line!("{line}");
    }
    let set: Vec<String> = settings::set_here(&used)
        .iter()
        .map(|setting| format!("{} = {} ({})", setting.key, setting.value, setting.origin))
        .collect();
    if !set.is_empty() {
        print_line!("settings: {}", set.join(", "));
    }
    print_measured(&measured, &of_metrics);
    for line in more::lines(found.more()) {
        print_line!("{line}");
    }
    if let Some(intervals) = intervals.as_ref().filter(|_| !measured.0.is_empty()) {
        print_line!("{}", said_of(intervals, &of_metrics, &measured));
    }
    if arguments.card {
        for line in card.lines() {
            print_line!("{line}");
        }
    }
    if let Some(comparison) = &comparison {
        comparison.print(&arguments.test);
    }
    Ok(())
}

fn as_json(Interval { low, high }: Interval) -> serde_json::Value {
    json!({ "low": low, "high": high })
}

/// Returns a line that says what the intervals are.
fn said_of(intervals: &Intervals, of_metrics: &BTreeMap<String, Interval>, measured: &Measured) -> String {
    let units = intervals.units.name();
    if of_metrics.is_empty() {
        let is_fnmr = |(name, _): &(String, f64)| name.starts_with("fnmr");
        if measured.0.iter().all(is_fnmr) {
            return "no intervals: FNMR has none".to_owned();
        }
        return format!("no intervals: there are too few {units}");
    }
    let Intervals { bootstrap, subsampling, .. } = intervals;
    let of_nmi = match (of_metrics.contains_key(NMI), measured.get(NMI)) {
        (true, _) => format!(
            "; of NMI, {} halves of the {units} in the clusters as they are; AMI has none",
            subsampling.subsamples
        ),
        (false, Some(_)) => "; NMI and AMI have none".to_owned(),
        (false, None) => String::new(),
    };
    let of_fnmr =
        if measured.0.iter().any(|(name, _)| name.starts_with("fnmr")) { "; FNMR has none" } else { "" };
    format!(
        "95% intervals for other {units}: {} bootstrap draws of the {units}, seed {}{of_nmi}{of_fnmr}",
        bootstrap.resamples, bootstrap.seed
    )
}

/// The metrics to compute, and their settings.
struct Measurement {
    test: Embedded,
    gallery: Option<Embedded>,
    classes: Classes,
    sources: Option<Arc<RowSources>>,
    recipe: Recipe,
    selection: Selection,
    /// Whether the rows are clustered.
    clusters: bool,
}

impl Measurement {
    fn new(
        test: Embedded,
        gallery: Option<Embedded>,
        classes: Classes,
        sources: Option<Arc<RowSources>>,
        recipe: Recipe,
        selection: Selection,
    ) -> Self {
        let clusters = gallery.is_none()
            && selection.has(Metric::Clusters)
            && recipe.retrieval.clustering != When::Never;
        Self { test, gallery, classes, sources, recipe, selection, clusters }
    }

    /// Returns whether anything is drawn at random: the initial centers of k-means, or the order of the rows
    /// for the classifier.
    fn draws(&self) -> bool {
        self.clusters || (self.gallery.is_some() && self.recipe.linear != When::Never)
    }

    /// Returns the protocol, without intervals.
    fn card(&self, scaling: Scaling) -> Card {
        let has_ks = [Metric::Retrieval, Metric::Precision, Metric::Cmc];
        let has_ks = has_ks.into_iter().any(|metric| self.selection.has(metric));
        let votes = (self.recipe.neighbors, self.recipe.vote_temperature);
        let gallery = self.gallery.as_ref().map(|gallery| Gallery {
            name: gallery.origin.embeddings.file.display().to_string(),
            rows: gallery.labels.len(),
            votes: self.selection.has(Metric::Knn).then_some(votes),
        });
        Card {
            test_rows: self.test.labels.len(),
            gallery,
            is_normalized: scaling == Scaling::UnitLength,
            ks: if has_ks { self.recipe.retrieval.recall_at.clone() } else { Vec::new() },
            same_source: self.sources.as_ref().map(|sources| sources.convention().to_owned()),
            ..Card::default()
        }
    }

    /// Returns the number of rows that have nothing to find: no row of their class that they may retrieve.
    fn without_match(&self) -> usize {
        let Some(sources) = &self.sources else { return self.classes.without_match() };
        let gallery = self.gallery.as_ref().zip(self.classes.gallery.as_deref());
        let lookup = Lookup {
            queries: labeled(&self.test, &self.classes.test),
            gallery: gallery.map(|(gallery, labels)| labeled(gallery, labels)),
            sources: Some(sources.sources()),
        };
        lookup.relevant().into_iter().filter(|&rows| rows == 0).count()
    }

    /// Returns the number of rows in which each row is searched.
    fn to_find(&self) -> usize {
        self.gallery.as_ref().map_or(self.test.labels.len() - 1, |gallery| gallery.labels.len())
    }

    fn run(&self) -> anyhow::Result<Findings> {
        let of_gallery = self.gallery.as_ref().zip(self.classes.gallery.as_deref());
        Ok(engine::measure(
            &self.recipe,
            &self.selection,
            Classed { features: &self.test.features, labels: &self.classes.test },
            of_gallery.map(|(gallery, labels)| Classed { features: &gallery.features, labels }),
            self.sources.as_ref().map(|sources| sources.sources()),
            self.classes.count(),
        )?)
    }

    /// Returns notes on the rows and labels of the files.
    fn notes_on_files(&self, scaling: Scaling) -> Vec<String> {
        let mut notes = notes::of_file(&self.test, scaling);
        if let Some(gallery) = &self.gallery {
            notes.extend(notes::of_file(gallery, scaling));
            notes.extend(notes::of_both(&self.test, gallery));
        }
        notes
    }

    /// Returns which arrays of the files were read.
    fn arrays(&self) -> serde_json::Value {
        json!({
            "test": self.test.origin,
            "gallery": self.gallery.as_ref().map(|gallery| &gallery.origin),
        })
    }

    /// Returns a few lines that describe what is measured, and how.
    fn describe(&self, scaling: Scaling) -> Vec<String> {
        let mut lines = vec![described(&self.test)];
        lines.extend(self.gallery.as_ref().map(|gallery| format!("gallery {}", described(gallery))));
        lines.extend(self.sources.as_ref().map(|sources| sources.describe()));
        if let Labels::Words(words) = &self.classes.labels {
            let more = words.len().saturating_sub(MOST_NAMED);
            let shown = words[..words.len() - more].join(", ");
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            lines.push(format!("classes by name: {shown}{more}"));
        }
        lines.push(match scaling {
            Scaling::UnitLength => "rows scaled to length 1, ranked by cosine similarity".to_owned(),
            Scaling::Unscaled if self.clusters => {
                "rows as they are, ranked by inner product; clusters of NMI and AMI by Euclidean distance"
                    .to_owned()
            }
            Scaling::Unscaled => "rows as they are, ranked by inner product".to_owned(),
        });
        let (rows, dim, classes) = (self.test.labels.len(), self.test.features.dim, self.classes.count());
        let (s, es) = (if rows == 1 { "" } else { "s" }, if classes == 1 { "" } else { "es" });
        let rows = format!("{rows} row{s} of {dim}, {classes} class{es}");
        lines.push(match self.gallery.as_ref().map(|gallery| gallery.labels.len()) {
            Some(among) if !self.selection.has(Metric::Knn) => format!("{rows}, among {among}"),
            Some(among) => {
                let (k, temperature) = (self.recipe.neighbors, self.recipe.vote_temperature);
                let cut = if k > among { format!(" ({})", if among == 1 { "the only one there is".to_owned() } else { format!("all {among} there are") }) } else { String::new() };
                format!(
                    "{rows}, among {among}; kNN with k = {k}{cut}, temperature {temperature}; NMI and AMI are not measured with a gallery"
                )
            }
            None if self.clusters => match self.recipe.retrieval.kmeans_restarts {
                1 => format!("{rows}, each among the others; NMI and AMI of k-means from one start"),
                starts => format!("{rows}, each among the others; NMI and AMI of the best k-means of {starts} starts"),
            },
            None => format!("{rows}, each among the others"),
        });
        lines
    }
}

fn labeled<'a>(embedded: &'a Embedded, labels: &'a [u32]) -> LabeledRows<'a> {
    LabeledRows { rows: Rows::new(&embedded.features.values, embedded.features.dim), labels }
}

/// Returns a description of the files and arrays that were read.
fn described(read: &Embedded) -> String {
    let embeddings::Origin { embeddings, labels } = &read.origin;
    let file = embeddings.file.display();
    if labels.file == embeddings.file {
        format!("{file}: {embeddings}, {labels}")
    } else {
        format!("{file}: {embeddings}; {}: {labels}", labels.file.display())
    }
}

/// The flags that name the arrays of one file.
struct Flags {
    name: &'static str,
    label_name: &'static str,
    labels: &'static str,
}

const TEST_FLAGS: Flags = Flags { name: "--key", label_name: "--label-key", labels: "--labels" };
const GALLERY_FLAGS: Flags =
    Flags { name: "--gallery-key", label_name: "--gallery-label-key", labels: "--gallery-labels" };

fn test_source(arguments: &MeasureArguments, scaling: Scaling) -> Source<'_> {
    Source {
        file: &arguments.test,
        name: arguments.key.as_deref(),
        labels: arguments.labels.as_deref(),
        label_name: arguments.label_key.as_deref(),
        scaling,
    }
}

fn gallery_source(arguments: &MeasureArguments, scaling: Scaling) -> Option<Source<'_>> {
    Some(Source {
        file: arguments.gallery.as_deref()?,
        name: arguments.gallery_key.as_deref().or(arguments.key.as_deref()),
        labels: arguments.gallery_labels.as_deref(),
        label_name: arguments.gallery_label_key.as_deref().or(arguments.label_key.as_deref()),
        scaling,
    })
}

/// Reads one file. An error names the flag that helps.
fn read(source: &Source, flags: &Flags) -> Result<Embedded, Failure> {
    embeddings::read(source).map_err(|error| {
        let Flags { name, label_name, labels } = flags;
        let advice = match &error {
            EmbeddingsError::Missing { there, .. }
                if there.iter().any(|array| array.contains(".weight\"")) =>
            {
                "; these are weights of a network, which `invaspread evaluate FILE` measures".to_owned()
            }
            EmbeddingsError::Missing { role: Role::Embeddings, .. }
            | EmbeddingsError::Ambiguous { role: Role::Embeddings, .. } => {
                format!("; {name} NAME says which array they are")
            }
            EmbeddingsError::Missing { role: Role::Labels, .. } => format!(
                "; {label_name} NAME says which array they are, and {labels} FILE names another file that holds them"
            ),
            EmbeddingsError::Ambiguous { role: Role::Labels, .. } => {
                format!("; {label_name} NAME says which array they are")
            }
            EmbeddingsError::NoLabels { .. } => format!(" ({labels} FILE)"),
            _ => String::new(),
        };
        anyhow!("failed to read the embeddings: {error}{advice}").into()
    })
}
