//! Finishing a run: writes the embeddings, then the record, then the status "done", then the list of files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use invaspread_data::Dataset;
use serde_json::json;

use super::{LaunchError, Planned, images};
use crate::embeddings;
use crate::engine::{Embeddings, EngineError, Trained};
use crate::machine::PeakMemory;
use crate::record::{
    Environment, FORMAT, FileList, Layout, MetricRow, MetricSummary, MetricsTable, RecordError, RunDirectory,
    RunRecord, SimilarityRecord, State, group_name, names, now_rfc3339,
};

/// Writes the files of a finished run and returns its record. After a kill in between, the run is finished
/// again, with the same files.
///
/// # Errors
/// Returns an error if a file cannot be written or an embedding is not finite.
pub(super) fn finish(
    run: &Planned,
    root: &Path,
    directory: &RunDirectory,
    dataset: &Arc<Dataset>,
    environment: &Environment,
    trained: &Trained,
    memory: PeakMemory,
) -> Result<RunRecord, LaunchError> {
    let layout = directory.layout();
    write_embeddings(&run.id(), layout, dataset, trained.epoch, &trained.embeddings, |_| true)?;
    write_similarity(run, layout, dataset, &trained.embeddings)?;
    let facts = Facts {
        epoch: trained.epoch,
        rows: trained.rows.clone(),
        seconds: trained.seconds,
        images_per_second: trained.images_per_second,
        training_processor_seconds: trained.training_processor_seconds,
        began: trained.began.clone(),
        finished: now_rfc3339(),
        peak_memory_bytes: memory.bytes(),
    };
    let record = record(run, root, layout, dataset, environment, facts);
    record.write(layout)?;
    directory.log("run_finished", &record)?;
    directory.set_status(State::Done, trained.epoch, None)?;
    FileList::take(layout, listed_files(layout)?)?.write(layout)?;
    Ok(record)
}

/// Writes the files of embeddings whose paths in the run's folder are `wanted`.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub(super) fn write_embeddings(
    run: &str,
    layout: &Layout,
    dataset: &Dataset,
    epoch: u64,
    found: &Embeddings,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), LaunchError> {
    let gallery = found.gallery.as_ref();
    let gallery =
        gallery.map(|features| ("train", names::GALLERY_EMBEDDINGS, features, &dataset.gallery().labels));
    let test = ("test", names::TEST_EMBEDDINGS, &found.test, &dataset.test.labels);
    for (split, name, features, labels) in gallery.into_iter().chain([test]).filter(|one| wanted(one.1)) {
        let content = json!({ "run": run, "epoch": epoch, "split": split });
        embeddings::write(&layout.folder().join(name), features, labels, &content)?;
    }
    Ok(())
}

/// Writes the histograms of similarity if the data set has any; returns whether it has.
///
/// # Errors
/// Returns an error if the file cannot be written or an embedding is not finite.
pub(super) fn write_similarity(
    run: &Planned,
    layout: &Layout,
    dataset: &Arc<Dataset>,
    found: &Embeddings,
) -> Result<bool, LaunchError> {
    let groupings = images(dataset).similarities(&run.recipe, found).map_err(EngineError::from)?;
    let has_any = !groupings.is_empty();
    if has_any {
        SimilarityRecord { groupings }.write(layout)?;
    }
    Ok(has_any)
}

/// Returns the files that a finished run must keep, as far as they exist: all except the log, the claim and
/// the list itself. Of the event files only the last one counts, because it holds everything.
///
/// # Errors
/// Returns an error if the folder of event files cannot be listed.
pub(super) fn listed_files(layout: &Layout) -> Result<Vec<String>, LaunchError> {
    let fixed = [
        names::CONFIG,
        names::ENVIRONMENT,
        names::STATUS,
        names::RECORD,
        names::METRICS,
        names::SIMILARITY,
        names::GALLERY_EMBEDDINGS,
        names::TEST_EMBEDDINGS,
        names::LAST_STATE,
        names::LAST_WEIGHTS,
        names::BEST_WEIGHTS,
    ];
    let mut files: Vec<String> = fixed
        .iter()
        .filter(|name| layout.folder().join(name).is_file())
        .map(|name| (*name).to_owned())
        .collect();
    let path = layout.tensorboard();
    let newest = || -> std::io::Result<Option<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            names.push((entry.metadata()?.modified()?, entry.file_name().to_string_lossy().into_owned()));
        }
        Ok(names.into_iter().max().map(|(_, name)| name))
    };
    match newest() {
        Ok(name) => files.extend(name.map(|name| format!("{}/{name}", names::TENSORBOARD))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(RecordError::Io { action: "read", path, source }.into()),
    }
    Ok(files)
}

/// The parts of a record that do not come from the plan, the data set and the machine.
pub(super) struct Facts {
    /// The number of epochs trained.
    pub(super) epoch: u64,
    /// All measurements.
    pub(super) rows: Vec<MetricRow>,
    /// The time spent on the run, seconds.
    pub(super) seconds: f64,
    /// Images trained on per second.
    pub(super) images_per_second: Option<f64>,
    /// The processor time of the training steps, seconds.
    pub(super) training_processor_seconds: Option<f64>,
    /// When the run was started, RFC 3339.
    pub(super) began: String,
    /// When the run ended, RFC 3339.
    pub(super) finished: String,
    /// The largest resident memory, bytes.
    pub(super) peak_memory_bytes: Option<u64>,
}

/// Returns the record of a finished run.
pub(super) fn record(
    run: &Planned,
    root: &Path,
    layout: &Layout,
    dataset: &Dataset,
    environment: &Environment,
    facts: Facts,
) -> RunRecord {
    let (labels, recipe, folder) = (&run.labels, &run.recipe, layout.folder());
    let of_last_epoch = |split: &'static str| {
        facts.rows.iter().filter(move |row| row.epoch == facts.epoch as i64 && row.split == split)
    };
    let main_metric = of_last_epoch("test").next().map(|row| row.name.clone()).unwrap_or_default();
    let shape = of_last_epoch("shape").map(|row| (row.name.clone(), row.value)).collect();
    RunRecord {
        format: FORMAT,
        id: run.id(),
        suite: group_name(run.suite.as_deref()).to_owned(),
        row: labels.row.clone(),
        label: labels.label.clone(),
        method: labels.method.clone(),
        dataset: labels.dataset.clone(),
        data_state: dataset.state.to_string(),
        profile: labels.profile.clone(),
        device: labels.device.clone(),
        gpu: environment.gpu.clone(),
        seed: recipe.seed,
        epochs: facts.epoch,
        batch_size: recipe.batch_size as u64,
        train_images: dataset.train.labels.len() as u64,
        test_images: dataset.test.labels.len() as u64,
        held_out: labels.held_out,
        width: recipe.network.width() as u64,
        model: labels.model.clone(),
        protocol: labels.protocol.clone(),
        arguments: labels.arguments.clone(),
        also: Vec::new(),
        main_metric,
        metrics: summaries(&facts.rows),
        shape,
        seconds: facts.seconds,
        images_per_second: facts.images_per_second,
        training_processor_seconds: facts.training_processor_seconds,
        peak_memory_bytes: facts.peak_memory_bytes,
        config_hash: run.hash.clone(),
        started: facts.began,
        finished: facts.finished,
        version: environment.version.clone(),
        program: environment.program.clone(),
        git: environment.git.clone(),
        rustc: environment.rustc.clone(),
        cpu: environment.cpu.clone(),
        threads: environment.threads as u64,
        path: folder.strip_prefix(root).unwrap_or(folder).display().to_string(),
        reduced: labels.reduced,
    }
}

/// Returns the last and the best value of each test metric. If the run trained, the untrained network does
/// not count for the best.
fn summaries(rows: &[MetricRow]) -> BTreeMap<String, MetricSummary> {
    let trained = rows.iter().any(|row| row.epoch > 0);
    let counted: Vec<MetricRow> = rows.iter().filter(|row| row.epoch > 0 || !trained).cloned().collect();
    let names: Vec<String> =
        counted.iter().filter(|row| row.split == "test").map(|row| row.name.clone()).collect();
    let table = MetricsTable::new(counted);
    names.into_iter().filter_map(|name| Some((name.clone(), table.summary("test", &name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::summaries;
    use crate::record::{MetricRow, MetricSummary};

    fn row(epoch: i64, value: f64) -> MetricRow {
        MetricRow {
            epoch,
            step: 0,
            split: "test".to_owned(),
            name: "knn_top1".to_owned(),
            value,
            seconds: 0.0,
        }
    }

    #[test]
    fn the_untrained_network_is_best_only_where_nothing_was_trained() {
        let trained = summaries(&[row(0, 40.0), row(1, 20.0), row(2, 30.0), row(3, 30.0)]);
        assert_eq!(trained["knn_top1"], MetricSummary { last: 30.0, best: 30.0, best_epoch: 2 });
        let random = summaries(&[row(0, 40.0)]);
        assert_eq!(random["knn_top1"], MetricSummary { last: 40.0, best: 40.0, best_epoch: 0 });
    }
}
