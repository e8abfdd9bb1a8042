//! `invaspread evaluate WEIGHTS`: what a file of weights is worth on the configured data.

use super::{print_json, print_measured};
use crate::arguments::EvaluateArguments;
use crate::failure::Failure;
use crate::output::{note, print_line};
use anyhow::Context;
use invaspread_data::Dataset;
use invaspread_runner::config::{GroupFile, expand, resolve_over};
use invaspread_runner::embeddings;
use invaspread_runner::engine::{self, Embeddings};
use invaspread_runner::launch::images;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

pub(crate) fn evaluate(arguments: &EvaluateArguments) -> Result<(), Failure> {
    let overrides = expand(&arguments.settings.overrides_beside_weights()?, false)?.remove(0);
    let config = resolve_over(run_config(&arguments.weights)?, &overrides)?.config;
    let dataset = Arc::new(invaspread_data::open(&config.data).context("failed to open the data set")?);
    for said in &dataset.notes {
        note!("{}: {said}", dataset.name);
    }
    let result = engine::evaluate(&config.recipe(), &images(&dataset), &arguments.weights)
        .context("failed to evaluate the weights")?;
    if let Some(folder) = &arguments.embeddings {
        save(folder, &dataset, &result.embeddings, &arguments.weights)?;
    }
    if arguments.json {
        return Ok(print_json(&json!({
            "weights": arguments.weights,
            "dataset": dataset.name,
            "data_state": dataset.state,
            "data_skipped": dataset.skipped,
            "data_notes": dataset.notes,
            "train_images": dataset.train.len(),
            "test_images": dataset.test.len(),
            "k": config.eval.k,
            "temperature": config.eval.temperature,
            "metrics": result.measured.0.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "left_over": result.left_over,
        }))?);
    }
    print_line!("{}, {} test images", dataset.name, dataset.test.len());
    print_measured(&result.measured);
    if !result.left_over.is_empty() {
        print_line!("entries of the file that the network has no use for: {}", result.left_over.join(", "));
    }
    Ok(())
}

/// The embeddings of what was measured, in the order of the splits.
fn save(folder: &Path, dataset: &Dataset, found: &Embeddings, weights: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let gallery = found.gallery.as_ref().map(|features| ("train", features, &dataset.gallery().labels));
    for (split, features, labels) in gallery.into_iter().chain([("test", &found.test, &dataset.test.labels)])
    {
        let path = folder.join(format!("{split}.safetensors"));
        let content = json!({ "weights": weights, "dataset": dataset.name, "split": split });
        embeddings::write(&path, features, labels, &content).context("failed to save the embeddings")?;
        note!("{}", path.display());
    }
    Ok(())
}

/// The config of the run whose checkpoint `weights` is, if it lies in a run's folder: what was trained need not be said again.
pub(super) fn run_config(weights: &Path) -> Result<Option<GroupFile>, Failure> {
    let file = weights.parent().and_then(Path::parent).map(|run| run.join("config.toml"));
    let Some(file) = file.filter(|file| file.is_file()) else { return Ok(None) };
    let origin = file.display().to_string();
    let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {origin}"))?;
    Ok(Some(GroupFile { origin, text }))
}
