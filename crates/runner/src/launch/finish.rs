//! What a finished run leaves: embeddings, then the record, then the word "done".

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use invaspread_data::Dataset;
use serde_json::json;

use super::{LaunchError, Planned, images};
use crate::embeddings;
use crate::engine::{EngineError, Trained};
use crate::record::{
    Environment, MetricRow, MetricSummary, MetricsTable, RunDirectory, RunRecord, SimilarityRecord, State,
    group_name, now_rfc3339, peak_memory_bytes,
};

/// Writes all that and returns the record. A kill on the way leaves the run to be finished again, to the same files.
pub(super) fn finish(
    run: &Planned,
    root: &Path,
    directory: &RunDirectory,
    dataset: &Arc<Dataset>,
    environment: &Environment,
    trained: &Trained,
) -> Result<RunRecord, LaunchError> {
    let layout = directory.layout();
    let gallery = trained.embeddings.gallery.as_ref();
    let gallery = gallery.map(|features| ("train", features, &dataset.gallery().labels));
    let test = ("test", &trained.embeddings.test, &dataset.test.labels);
    for (split, features, labels) in gallery.into_iter().chain([test]) {
        let content = json!({ "run": run.id(), "epoch": trained.epoch, "split": split });
        let path = layout.embeddings().join(format!("{split}.safetensors"));
        embeddings::write(&path, features, labels, &content)?;
    }
    let separations =
        images(dataset).separations(&run.recipe, &trained.embeddings).map_err(EngineError::from)?;
    if !separations.is_empty() {
        SimilarityRecord::new(separations).write(layout)?;
    }
    let record = record(run, root, directory, dataset, environment, trained);
    record.write(layout)?;
    directory.log("run_finished", &record)?;
    directory.set_status(State::Done, trained.epoch, None)?;
    Ok(record)
}

fn record(
    run: &Planned,
    root: &Path,
    directory: &RunDirectory,
    dataset: &Dataset,
    environment: &Environment,
    trained: &Trained,
) -> RunRecord {
    let (labels, recipe) = (&run.labels, &run.recipe);
    let folder = directory.layout().folder();
    RunRecord {
        id: run.id(),
        suite: group_name(run.suite.as_deref()).to_owned(),
        row: labels.row.clone(),
        method: labels.method.clone(),
        dataset: labels.dataset.clone(),
        data_state: dataset.state.to_string(),
        profile: labels.profile.clone(),
        device: labels.device.clone(),
        seed: recipe.seed,
        epochs: trained.epoch,
        batch_size: recipe.batch_size as u64,
        train_images: dataset.train.labels.len() as u64,
        test_images: dataset.test.labels.len() as u64,
        width: recipe.network.width() as u64,
        model: labels.model.clone(),
        protocol: labels.protocol.clone(),
        arguments: labels.arguments.clone(),
        also: Vec::new(),
        main_metric: trained.last.headline().map(|(name, _)| name.to_owned()).unwrap_or_default(),
        metrics: summaries(&trained.rows),
        seconds: trained.seconds,
        images_per_second: trained.images_per_second,
        peak_memory_bytes: peak_memory_bytes(),
        config_hash: run.hash.clone(),
        started: trained.began.clone(),
        finished: now_rfc3339(),
        version: environment.version.clone(),
        git: environment.git.clone(),
        rustc: environment.rustc.clone(),
        cpu: environment.cpu.clone(),
        threads: environment.threads as u64,
        path: folder.strip_prefix(root).unwrap_or(folder).display().to_string(),
        reduced: labels.reduced,
    }
}

/// Last and best of each test metric. Where there was training, the untrained network is no epoch of it and cannot be the best.
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
