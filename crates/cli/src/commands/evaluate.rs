//! `invaspread evaluate WEIGHTS`: measures a file of weights on the data of its run, or on data that the user
//! names.

use super::card::{Card, Gallery};
use super::destination::{Destination, Mark};
use super::origin::Origin;
use super::{print_json, print_measured};
use crate::arguments::EvaluateArguments;
use crate::failure::Failure;
use crate::output::{note, print_line};
use anyhow::{Context, anyhow};
use invaspread_data::Dataset;
use invaspread_models::WeightsFile;
use invaspread_runner::config::{Override, Work, expand};
use invaspread_runner::embeddings;
use invaspread_runner::engine::{self, Embeddings, Recipe};
use invaspread_runner::launch::images;
use invaspread_runner::memory::Memory;
use invaspread_runner::methods::Layer;
use invaspread_runner::record::names;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn evaluate(arguments: &EvaluateArguments) -> Result<(), Failure> {
    let overrides = expand(&arguments.settings.overrides_beside_weights()?, false)?.remove(0);
    let path = file_of(&arguments.weights)?;
    let weights = open(&path, arguments.within.as_deref())?;
    let origin = Origin::of(&weights, &overrides)?;
    origin.require_data(&path)?;
    let config = &origin.config;
    config.fits_for(Work::Measure, &Memory::of)?;
    let dataset = Arc::new(invaspread_data::open(&config.data).context("failed to open the data set")?);
    for said in &dataset.notes {
        note!("{}: {said}", dataset.name);
    }
    // Images are held out of a run by its own config. Typed settings may choose others.
    let of_data = |one: &Override| one.key.starts_with("data") || one.key == "profile";
    let is_held_out =
        config.data.held_out == Some(true) && origin.file.is_some() && !overrides.iter().any(of_data);
    let (recipe, images) = (config.recipe(), images(&dataset));
    let files = match &arguments.embeddings {
        Some(folder) => files(folder, images.gallery.is_some(), &path)?,
        None => Vec::new(),
    };
    let result = engine::evaluate(&recipe, &images, &weights).context("failed to evaluate the weights")?;
    save(&files, &dataset, &result.embeddings, &path, recipe.layer)?;
    let loaded = &result.loaded;
    let among = images.gallery.is_some().then(|| dataset.gallery().len());
    let card = card(&recipe, &dataset, among, &path);
    if arguments.json {
        return Ok(print_json(&json!({
            "weights": path,
            "run": origin.run,
            "config": origin.file,
            "arguments": origin.arguments,
            "dataset": dataset.name,
            "data_state": dataset.state,
            "data_skipped": dataset.skipped,
            "data_notes": dataset.notes,
            "held_out": config.data.held_out == Some(true),
            "held_out_of_its_run": is_held_out,
            "train_images": dataset.train.len(),
            "test_images": dataset.test.len(),
            "layer": recipe.layer,
            "k": among.map(|_| config.eval.k),
            "k_used": among.map(|among| config.eval.k.min(among)),
            "temperature": among.map(|_| config.eval.temperature),
            "metrics": result.measured.0.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "protocol": card.as_json(),
            "state_dict": loaded.place,
            "prefix_dropped": loaded.prefix,
            "would_fit_too": loaded.others,
            "not_loaded": loaded.missing,
            "left_over": loaded.left_over,
        }))?);
    }
    print_line!("config: {}", origin.describe());
    let measured = match (config.data.held_out, is_held_out) {
        (Some(true), true) => "held-out training images",
        (Some(true), false) => "training images, which the network may have been trained on",
        _ => "test images",
    };
    print_line!("{}, {} {measured}; {}", dataset.name, dataset.test.len(), protocol(&recipe, among));
    print_measured(&result.measured, &BTreeMap::new());
    if arguments.card {
        for line in card.lines() {
            print_line!("{line}");
        }
    }
    super::print_loaded(loaded);
    Ok(())
}

/// Returns the file of weights that `path` names; for a run's folder, the weights of its last epoch.
pub(super) fn file_of(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let last = path.join(names::LAST_WEIGHTS);
    if !last.is_file() {
        return Err(Failure::Usage(anyhow!(
            "failed to read {}: it is a folder without {}; expected a file of weights, or the folder of a run",
            path.display(),
            names::LAST_WEIGHTS,
        )));
    }
    note!("{} is the folder of a run: {} is read", path.display(), last.display());
    Ok(last)
}

/// Returns the content of a file of weights, or the part of it that the user asked for.
pub(super) fn open(path: &Path, within: Option<&str>) -> Result<WeightsFile, Failure> {
    let file = engine::open_weights(path).context("failed to read the weights")?;
    Ok(match within {
        Some(place) => file.within(place).context("failed to read the weights")?,
        None => file,
    })
}

/// Returns the protocol. If there is a gallery, `among` is the number of its images.
fn card(recipe: &Recipe, dataset: &Dataset, among: Option<usize>, path: &Path) -> Card {
    let augment = &recipe.augment;
    let size = augment.size;
    let squashed =
        augment.squash.map_or(String::new(), |side| format!("resized to {side} x {side} (Lanczos); "));
    let resize = match augment.crop {
        Some(_) => format!("{squashed}the middle {size} x {size}"),
        None => format!("{squashed}the shorter side to {size} (bilinear), the middle {size} x {size}"),
    };
    let epoch = [("last", names::LAST_WEIGHTS), ("best", names::BEST_WEIGHTS)];
    let epoch = epoch.into_iter().find(|(_, file)| path.ends_with(file)).map(|(name, _)| name.to_owned());
    let gallery = among.map(|rows| Gallery {
        name: format!("training images of {}", dataset.name),
        rows,
        votes: Some((recipe.neighbors, recipe.vote_temperature)),
    });
    let retrieves = gallery.is_none() || recipe.retrieval_beside_knn;
    Card {
        test_rows: dataset.test.len(),
        gallery,
        is_normalized: true,
        layer: Some(layer_name(recipe.layer).to_owned()),
        ks: if retrieves { recipe.retrieval.recall_at.clone() } else { Vec::new() },
        resize: Some(resize),
        epoch,
        ..Card::default()
    }
}

fn layer_name(layer: Layer) -> &'static str {
    match layer {
        Layer::Embedding => "embedding",
        Layer::Projection => "projection",
        Layer::Pooled => "pooled features",
    }
}

/// Describes how the embeddings are measured. If there is a gallery, `among` is the number of its images.
fn protocol(recipe: &Recipe, among: Option<usize>) -> String {
    let layer = layer_name(recipe.layer);
    let Some(among) = among else { return format!("each among the others, of the {layer}") };
    let (asked, temperature) = (recipe.neighbors, recipe.vote_temperature);
    let all = if among < asked { format!(" (all {among} there are)") } else { String::new() };
    format!("kNN with k = {asked}{all}, temperature {temperature}, of the {layer}")
}

/// Returns the file of each split's embeddings, in the order of the splits. No other file may exist under
/// these names.
fn files(folder: &Path, votes: bool, weights: &Path) -> Result<Vec<(&'static str, PathBuf)>, Failure> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let destination =
        Destination { input: weights, what: "embeddings", mark: Mark::Seal(["weights", "split"]) };
    let splits = if votes { &["train", "test"][..] } else { &["test"] };
    let file =
        |split: &&'static str| Ok((*split, destination.check(&folder.join(format!("{split}.safetensors")))?));
    splits.iter().map(file).collect()
}

/// Saves the embeddings that were measured.
fn save(
    files: &[(&str, PathBuf)],
    dataset: &Dataset,
    found: &Embeddings,
    weights: &Path,
    layer: Layer,
) -> Result<(), Failure> {
    for (split, path) in files {
        let (features, labels) = match (*split, &found.gallery) {
            ("train", Some(features)) => (features, &dataset.gallery().labels),
            _ => (&found.test, &dataset.test.labels),
        };
        let content = json!({ "weights": weights, "dataset": dataset.name, "split": split, "layer": layer });
        embeddings::write(path, features, labels, &content).context("failed to save the embeddings")?;
        note!("{}", path.display());
    }
    Ok(())
}
