//! `invaspread measure FILE`: what embeddings are worth, whoever made them.

use super::{print_json, print_measured};
use crate::arguments::MeasureArguments;
use crate::failure::Failure;
use crate::output::{note, print_line};
use anyhow::Context;
use invaspread_runner::config::{expand, resolve_over};
use invaspread_runner::embeddings::{self, Embedded};
use invaspread_runner::engine::{self, Classed, RetrievalRecipe, When};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// So many rows times clusters take a core minutes, over the hundreds of iterations of k-means.
const LONG_TO_CLUSTER: usize = 50_000_000;

pub(crate) fn measure(arguments: &MeasureArguments) -> Result<(), Failure> {
    let overrides = expand(&arguments.settings.overrides()?, false)?.remove(0);
    let config = resolve_over(None, &overrides)?.config;
    let read = |path: &Path, labels: Option<&Path>| -> Result<Embedded, Failure> {
        let mut read = embeddings::read(path, labels).context("failed to read the embeddings")?;
        if !arguments.unscaled {
            embeddings::scale_to_unit_length(&mut read.features);
        }
        Ok(read)
    };
    let test = read(&arguments.test, arguments.labels.as_deref())?;
    let gallery = match &arguments.gallery {
        Some(path) => Some(read(path, arguments.gallery_labels.as_deref())?),
        None => None,
    };
    let labels = gallery.as_ref().map(|gallery| &gallery.labels[..]);
    let (test_classes, gallery_classes, classes) = embeddings::classes(&test.labels, labels);
    let mut recipe = config.recipe();
    if config.eval.retrieval.is_none() {
        recipe.retrieval = RetrievalRecipe::for_classes(classes);
    }
    let of_gallery = gallery.as_ref().zip(gallery_classes.as_deref());
    let (rows, dim) = (test.labels.len(), test.features.dim);
    let among = gallery.as_ref().map(|gallery| gallery.labels.len());
    let clusters = among.is_none() && recipe.retrieval.clustering != When::Never;
    let starts = clusters.then_some(recipe.retrieval.kmeans_restarts);
    if clusters && rows * classes > LONG_TO_CLUSTER {
        note!(
            "{rows} rows into {classes} clusters, as NMI and AMI need, takes minutes; eval.retrieval.clustering=never leaves them out"
        );
    }
    let measured = engine::measure(
        &recipe,
        Classed { features: &test.features, labels: &test_classes },
        of_gallery.map(|(gallery, labels)| Classed { features: &gallery.features, labels }),
        classes,
    )
    .context("failed to measure the embeddings")?;
    if arguments.json {
        return Ok(print_json(&json!({
            "test": arguments.test,
            "rows": rows,
            "dim": dim,
            "classes": classes,
            "gallery": arguments.gallery,
            "gallery_rows": among,
            "k": among.map(|_| recipe.neighbors),
            "temperature": among.map(|_| recipe.vote_temperature),
            "kmeans_starts": starts,
            "metrics": measured.0.iter().cloned().collect::<BTreeMap<_, _>>(),
        }))?);
    }
    match among {
        Some(among) => {
            let (k, temperature) = (recipe.neighbors, recipe.vote_temperature);
            print_line!(
                "{rows} rows of {dim}, {classes} classes, among {among}; kNN with k = {k}, temperature {temperature}"
            );
        }
        None => {
            let starts = starts.map(|starts| match starts {
                1 => "; NMI and AMI of k-means from one start".to_owned(),
                _ => format!("; NMI and AMI of the best k-means of {starts} starts"),
            });
            print_line!(
                "{rows} rows of {dim}, {classes} classes, each among the others{}",
                starts.unwrap_or_default()
            );
        }
    }
    print_measured(&measured);
    Ok(())
}
