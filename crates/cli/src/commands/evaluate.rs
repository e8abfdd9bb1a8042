//! `invaspread evaluate WEIGHTS`: measures a file of weights on the data of its run, or on data that the user
//! names.

use super::card::{self, Card, Gallery};
use super::destination::{Destination, Mark};
use super::measure::names::Names;
use super::measure::notes;
use super::measure::outcome::{of_metrics_as_json, protocol_of};
use super::measure::peers::{self, Protocol};
use super::measure::text::said_of;
use super::origin::Origin;
use super::weights::preprocessing;
use super::{print_json, print_measured};
use crate::arguments::{EvaluateArguments, Redrawn};
use crate::failure::Failure;
use crate::output::{note, print_line};
use crate::packing::stops_packing;
use anyhow::{Context, anyhow};
use invaspread_data::Dataset;
use invaspread_models::WeightsFile;
use invaspread_runner::config::{Config, Override, Work, expand};
use invaspread_runner::embeddings;
use invaspread_runner::engine::{
    self, Embeddings, Intervals, Metric, OtherProtocol, Recipe, Selection, Units, When,
};
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
    stops_packing()?;
    let dataset = Arc::new(invaspread_data::open(&config.data).context("failed to open the data set")?);
    for said in &dataset.notes {
        note!("{}: {said}", dataset.name);
    }
    // Images are held out of a run by its own config. Typed settings may choose others.
    let of_data = |one: &Override| one.key.starts_with("data") || one.key == "profile";
    let is_held_out =
        config.data.held_out == Some(true) && origin.file.is_some() && !overrides.iter().any(of_data);
    let images = images(&dataset);
    let peer = arguments.peer.map(peers::of);
    let origin = match &peer {
        Some(peer) => by(peer, &dataset, images.gallery.is_some(), &weights, &overrides)?,
        None => origin,
    };
    let config = &origin.config;
    let recipe = config.recipe();
    let files = match &arguments.embeddings {
        Some(folder) => files(folder, images.gallery.is_some(), &path)?,
        None => Vec::new(),
    };
    let other = peer.as_ref().map(|peer| OtherProtocol {
        selection: Selection { metrics: peer.metrics.to_vec(), ..Selection::default() },
        unscaled: peer.unscaled,
    });
    let result = engine::evaluate(&recipe, &images, &weights, other.as_ref())
        .context("failed to evaluate the weights")?;
    save(&files, &dataset, &result.embeddings, &path, recipe.layer)?;
    let loaded = &result.loaded;
    let units = match (arguments.intervals, &images.gallery) {
        (Some(Redrawn::None), _) => None,
        (Some(Redrawn::Queries), _) | (None, Some(_)) => Some(Units::Queries),
        (Some(Redrawn::Classes), _) | (None, None) => Some(Units::Classes),
    };
    let intervals = units.map(|units| Intervals::new(units, recipe.seed));
    let few = intervals.as_ref().and_then(|intervals| notes::of_units(intervals, &dataset.test.labels));
    if let Some(text) = &few {
        note!("note: {text}");
    }
    let of_metrics = match &intervals {
        Some(intervals) => {
            intervals.of(&result.found, &dataset.test.labels).context("failed to find the intervals")?
        }
        None => BTreeMap::new(),
    };
    let among = images.gallery.is_some().then(|| dataset.gallery().len());
    let votes = peer.as_ref().is_none_or(|peer| peer.metrics.contains(&Metric::Knn));
    let voters = among.filter(|_| votes);
    let card = Card {
        intervals: intervals.as_ref().filter(|_| !of_metrics.is_empty()).map(protocol_of),
        ..protocol_card(&recipe, config, &dataset, among, peer.as_ref(), &path)
    };
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
            "notes": few.iter().collect::<Vec<_>>(),
            "held_out": config.data.held_out == Some(true),
            "held_out_of_its_run": is_held_out,
            "train_images": dataset.train.len(),
            "test_images": dataset.test.len(),
            "layer": recipe.layer,
            "k": voters.map(|_| config.eval.k),
            "k_used": voters.map(|among| config.eval.k.min(among)),
            "temperature": voters.map(|_| config.eval.temperature),
            "metrics": result.measured.0.iter().cloned().collect::<BTreeMap<_, _>>(),
            "intervals": intervals.as_ref().map(|intervals| of_metrics_as_json(intervals, &of_metrics)),
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
    print_line!("{}, {} {measured}; {}", dataset.name, dataset.test.len(), protocol(&recipe, among, votes));
    print_measured(&result.measured, &of_metrics);
    if let Some(intervals) = &intervals {
        print_line!("{}", said_of(intervals, &of_metrics, &result.measured));
    }
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

/// Returns the config of the weights with the settings of another library's protocol.
///
/// # Errors
/// Returns an error of usage if the protocol classifies by votes and nothing can vote, or a setting is typed that it sets.
fn by(
    peer: &Protocol,
    dataset: &Dataset,
    has_gallery: bool,
    weights: &WeightsFile,
    overrides: &[Override],
) -> Result<Origin, Failure> {
    if peer.needs_gallery && !has_gallery {
        return Err(Failure::Usage(anyhow!(
            "`--as {}` classifies by the votes of training images, and the test classes of {} are not those of training: leave it out, or \
             name another data set",
            peer.name,
            dataset.name
        )));
    }
    let all = peer.over(Names::Flags, overrides.to_vec(), has_gallery)?;
    let mut origin = Origin::of(weights, &all)?;
    origin.arguments = Origin::of(weights, overrides)?.arguments;
    Ok(origin)
}

/// Returns the protocol. If there is a gallery, `among` is the number of its images.
fn protocol_card(
    recipe: &Recipe,
    config: &Config,
    dataset: &Dataset,
    among: Option<usize>,
    peer: Option<&Protocol>,
    path: &Path,
) -> Card {
    let epoch = [("last", names::LAST_WEIGHTS), ("best", names::BEST_WEIGHTS)];
    let epoch = epoch.into_iter().find(|(_, file)| path.ends_with(file)).map(|(name, _)| name.to_owned());
    let metrics = match (peer, among) {
        (Some(peer), _) => peer.metrics,
        (None, None) => &[Metric::Retrieval, Metric::Clusters],
        (None, Some(_)) if recipe.retrieval_beside_knn => &[Metric::Knn, Metric::Retrieval],
        (None, Some(_)) => &[Metric::Knn],
    };
    let selection = Selection { metrics: metrics.to_vec(), ..Selection::default() };
    let clusters =
        among.is_none() && selection.has(Metric::Clusters) && recipe.retrieval.clustering != When::Never;
    let gallery = among.map(|rows| Gallery {
        name: format!("training images of {}", dataset.name),
        rows,
        votes: selection.has(Metric::Knn).then_some((recipe.neighbors, recipe.vote_temperature)),
    });
    // The embedding layer of a network scales its rows itself.
    let is_normalized = recipe.layer == Layer::Embedding || peer.is_none_or(|peer| !peer.unscaled);
    Card {
        of_library: peer.map(|peer| peer.name),
        test_rows: dataset.test.len(),
        gallery,
        is_normalized,
        layer: Some(layer_name(recipe.layer).to_owned()),
        ks: if selection.has(Metric::Retrieval) { recipe.retrieval.recall_at.clone() } else { Vec::new() },
        without_match: card::without_match(&selection, among.is_some()),
        clusters: clusters.then(|| card::clusters(&recipe.retrieval)),
        resize: Some(preprocessing(config)),
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
fn protocol(recipe: &Recipe, among: Option<usize>, votes: bool) -> String {
    let layer = layer_name(recipe.layer);
    let Some(among) = among else { return format!("each among the others, of the {layer}") };
    if !votes {
        return format!("each among {among} training images, of the {layer}");
    }
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
