//! Rows with their classes and sources, and the metrics that are computed of them.

use super::names::Names;
use super::notes;
use super::sources::RowSources;
use crate::commands::card::{self, Card, Gallery};
use invaspread_metrics::{LabeledRows, Lookup, Rows};
use invaspread_runner::embeddings::{Classes, Embedded, Scaling};
use invaspread_runner::engine::{self, Classed, Findings, Metric, Recipe, Selection, When};
use serde_json::json;
use std::sync::Arc;

/// The metrics to compute, and their settings.
pub(super) struct Measurement {
    pub(super) test: Embedded,
    pub(super) gallery: Option<Embedded>,
    pub(super) classes: Classes,
    pub(super) sources: Option<Arc<RowSources>>,
    pub(super) recipe: Recipe,
    pub(super) selection: Selection,
    /// Whether the rows are clustered.
    pub(super) clusters: bool,
}

impl Measurement {
    pub(super) fn new(
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
    pub(super) fn draws(&self) -> bool {
        self.clusters || (self.gallery.is_some() && self.recipe.linear != When::Never)
    }

    /// Returns the protocol, without intervals.
    pub(super) fn card(&self, scaling: Scaling) -> Card {
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
            without_match: card::without_match(&self.selection, self.gallery.is_some()),
            clusters: self.clusters.then(|| card::clusters(&self.recipe.retrieval)),
            same_source: self.sources.as_ref().map(|sources| sources.convention().to_owned()),
            ..Card::default()
        }
    }

    /// Returns the number of rows that have nothing to find: no row of their class that they may retrieve.
    pub(super) fn without_match(&self) -> usize {
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
    pub(super) fn to_find(&self) -> usize {
        self.gallery.as_ref().map_or(self.test.labels.len() - 1, |gallery| gallery.labels.len())
    }

    pub(super) fn run(&self) -> anyhow::Result<Findings> {
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

    /// Returns notes on the rows and labels that were read.
    pub(super) fn notes_on_rows(&self, names: Names, scaling: Scaling) -> Vec<String> {
        let mut notes = notes::of_file(&self.test, scaling);
        if let Some(gallery) = &self.gallery {
            notes.extend(notes::of_file(gallery, scaling));
            notes.extend(notes::of_both(names, &self.test, gallery));
        }
        notes
    }

    /// Returns which arrays were read.
    pub(super) fn arrays(&self) -> serde_json::Value {
        json!({
            "test": self.test.origin,
            "gallery": self.gallery.as_ref().map(|gallery| &gallery.origin),
        })
    }
}

fn labeled<'a>(embedded: &'a Embedded, labels: &'a [u32]) -> LabeledRows<'a> {
    LabeledRows { rows: Rows::new(&embedded.features.values, embedded.features.dim), labels }
}
