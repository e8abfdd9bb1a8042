//! Repair of a finished run: missing and damaged files are made again from the checkpoint, the log and the
//! other files, without training.
//!
//! | file | is made from |
//! |---|---|
//! | config.toml | the planned config, which the folder is named after |
//! | metrics.parquet | the state, which holds all measurements |
//! | last.safetensors | the state |
//! | best.safetensors | the same weights, if the last epoch is the best |
//! | embeddings | the weights of the state, or of last.safetensors, and the data set |
//! | similarity.json | the embeddings and the data set |
//! | record.json | the log, or else the state and the data set |
//! | env.json | the log |
//! | status.json | the record |
//! | event files | metrics.parquet |

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use invaspread_data::Dataset;
use serde_json::json;

use super::dataset_cache::DatasetCache;
use super::finish::{Facts, listed_files, record, write_embeddings, write_similarity};
use super::inspect::{Depth, Finished, look};
use super::{LaunchError, Planned, images};
use crate::checkpoint::{self, CheckpointFiles};
use crate::engine::{Embeddings, KeptState, embed_by, read_state, write_weights};
use crate::methods::Features;
use crate::record::{
    Environment, EventWriter, Fault, FileList, MetricsTable, RecordError, RunDirectory, RunRecord, State,
    Status, names, now_rfc3339,
};

/// The outcome of a repair.
pub(super) struct Repaired {
    /// The files that were made again.
    pub(super) files: Vec<String>,
    /// The files that cannot be made again; none of them is a result of the run.
    pub(super) lost: Vec<Fault>,
}

/// Repairs the finished run in `directory` as far as possible; `None` if the run is not finished.
///
/// # Errors
/// Returns [`LaunchError::Lost`] if a result of the run cannot be made again, and another error if a file
/// cannot be read or written or the data set cannot be read.
pub(super) fn repair(
    run: &Planned,
    root: &Path,
    directory: &RunDirectory,
    datasets: &mut DatasetCache,
) -> Result<Option<Repaired>, LaunchError> {
    let Some(found) = look(directory.layout(), Depth::Whole)? else { return Ok(None) };
    let mut work =
        Work { run, root, directory, datasets, found, state: None, embeddings: None, files: Vec::new() };
    Ok(Some(work.all()?))
}

struct Work<'a> {
    run: &'a Planned,
    root: &'a Path,
    directory: &'a RunDirectory,
    datasets: &'a mut DatasetCache,
    found: Finished,
    /// The state, read at most once, or the reason why it cannot be used.
    state: Option<Result<KeptState, String>>,
    embeddings: Option<Embeddings>,
    /// The files made again so far.
    files: Vec<String>,
}

/// Makes one file again if possible; returns whether it did.
type Maker<W> = fn(&mut W) -> Result<bool, LaunchError>;

impl Work<'_> {
    fn all(&mut self) -> Result<Repaired, LaunchError> {
        self.config()?;
        // In this order each file is made only from files before it.
        let making: [(&str, Maker<Self>); 8] = [
            (names::METRICS, Self::metrics),
            (names::ENVIRONMENT, Self::environment),
            (names::LAST_WEIGHTS, Self::last),
            (names::BEST_WEIGHTS, Self::best),
            (names::TEST_EMBEDDINGS, Self::test_embeddings),
            (names::GALLERY_EMBEDDINGS, Self::gallery_embeddings),
            (names::SIMILARITY, Self::similarity),
            (names::RECORD, Self::record),
        ];
        for (name, make) in making {
            if self.is_faulty(name) && make(self)? {
                self.files.push(name.to_owned());
            }
        }
        self.status()?;
        self.events()?;
        let lost: Vec<Fault> = self
            .found
            .faults
            .iter()
            .filter(|fault| !self.files.contains(&fault.file) && fault.file != names::FILES)
            .cloned()
            .collect();
        let is_lost = lost.iter().any(|fault| names::is_result(&fault.file));
        self.list(is_lost)?;
        if is_lost {
            let (results, others): (Vec<Fault>, Vec<Fault>) =
                lost.into_iter().partition(|fault| names::is_result(&fault.file));
            let folder = self.directory.layout().folder().to_path_buf();
            return Err(LaunchError::Lost { folder, results, others, why: self.why_no_state() });
        }
        Ok(Repaired { files: std::mem::take(&mut self.files), lost })
    }

    fn is_faulty(&self, name: &str) -> bool {
        self.found.faults.iter().any(|fault| fault.file == name)
    }

    /// Returns whether the file `name`, written just now, has the listed content. Without a list, it counts
    /// as right.
    fn is_as_listed(&self, name: &str) -> Result<bool, LaunchError> {
        let Some(list) = &self.found.list else { return Ok(true) };
        let path = self.directory.layout().folder().join(name);
        let bytes = fs_err::read(&path).map_err(|source| RecordError::Io { action: "read", path, source })?;
        Ok(list.is(name, &bytes))
    }

    fn config(&mut self) -> Result<(), LaunchError> {
        let config = &self.run.config;
        let is_this = self.found.list.as_ref().is_some_and(|list| list.is(names::CONFIG, config.as_bytes()));
        if is_this && self.is_faulty(names::CONFIG) {
            self.directory.write_config(config)?;
            self.files.push(names::CONFIG.to_owned());
        }
        Ok(self.directory.check_config(config)?)
    }

    /// Returns the state if it is whole and from the end of the run.
    fn state(&mut self) -> Result<Option<&KeptState>, LaunchError> {
        if self.state.is_none() {
            let faulty = self.found.faults.iter().find(|fault| fault.file == names::LAST_STATE);
            let read = match faulty {
                Some(fault) => Err(fault.to_string()),
                None => {
                    let state = read_state(&CheckpointFiles::of(self.directory.layout().folder()))?;
                    let (id, epochs) = (self.run.id(), self.run.recipe.epochs_trained());
                    if state.run == id && (state.epoch, state.step) == (epochs, 0) {
                        Ok(state)
                    } else {
                        let KeptState { run, epoch, step, .. } = state;
                        Err(format!(
                            "{} belongs to run {run} after epoch {epoch}, step {step}, expected run {id} after epoch {epochs}",
                            names::LAST_STATE
                        ))
                    }
                }
            };
            self.state = Some(read);
        }
        Ok(self.state.as_ref().and_then(|state| state.as_ref().ok()))
    }

    fn why_no_state(&mut self) -> String {
        match &self.state {
            Some(Err(why)) => why.clone(),
            _ => "its checkpoint does not hold them".to_owned(),
        }
    }

    /// Returns the weights of the last epoch, from the state or from the file of weights.
    fn weights(&mut self) -> Result<Option<HashMap<String, Tensor>>, LaunchError> {
        if let Some(state) = self.state()? {
            return Ok(Some(state.weights.clone()));
        }
        if self.is_faulty(names::LAST_WEIGHTS) {
            return Ok(None);
        }
        let path = CheckpointFiles::of(self.directory.layout().folder()).last();
        Ok(Some(checkpoint::read::<serde_json::Value>(&path)?.0))
    }

    fn dataset(&mut self) -> Result<Arc<Dataset>, LaunchError> {
        self.datasets.open(&self.run.data)
    }

    fn metrics(&mut self) -> Result<bool, LaunchError> {
        let Some(state) = self.state()? else { return Ok(false) };
        let table = MetricsTable::new(state.rows.clone());
        table.write(&self.directory.layout().metrics())?;
        Ok(true)
    }

    fn environment(&mut self) -> Result<bool, LaunchError> {
        let Some(logged) = Environment::logged(self.directory.layout()) else { return Ok(false) };
        self.directory.write_environment(&logged)?;
        self.is_as_listed(names::ENVIRONMENT)
    }

    fn last(&mut self) -> Result<bool, LaunchError> {
        let Some(state) = self.state()? else { return Ok(false) };
        let (weights, epoch) = (named(&state.weights), state.epoch);
        let path = CheckpointFiles::of(self.directory.layout().folder()).last();
        write_weights(&path, &weights, &self.run.id(), epoch, 0)?;
        Ok(true)
    }

    fn best(&mut self) -> Result<bool, LaunchError> {
        let epochs = self.run.recipe.epochs_trained();
        let of_state = self.state()?.map(|state| state.best_epoch);
        let best = of_state.unwrap_or_else(|| {
            let record = RunRecord::read(self.directory.layout()).ok()?;
            record.metrics.get(&record.main_metric).map(|summary| summary.best_epoch as u64)
        });
        if best != Some(epochs) {
            return Ok(false);
        }
        let Some(weights) = self.weights()? else { return Ok(false) };
        let path = CheckpointFiles::of(self.directory.layout().folder()).best();
        write_weights(&path, &named(&weights), &self.run.id(), epochs, 0)?;
        Ok(true)
    }

    /// Computes the embeddings unless that was done before; returns whether it was possible.
    fn embed(&mut self) -> Result<bool, LaunchError> {
        if self.embeddings.is_none() {
            let Some(weights) = self.weights()? else { return Ok(false) };
            let images = images(&self.dataset()?);
            self.embeddings = Some(embed_by(&self.run.recipe, &images, &weights)?);
        }
        Ok(true)
    }

    fn test_embeddings(&mut self) -> Result<bool, LaunchError> {
        self.embedded(names::TEST_EMBEDDINGS)
    }

    fn gallery_embeddings(&mut self) -> Result<bool, LaunchError> {
        self.embedded(names::GALLERY_EMBEDDINGS)
    }

    fn embedded(&mut self, name: &str) -> Result<bool, LaunchError> {
        if !self.embed()? {
            return Ok(false);
        }
        let dataset = self.dataset()?;
        let epochs = self.run.recipe.epochs_trained();
        let layout = self.directory.layout();
        let found = self.embeddings.as_ref().expect("embedded just now");
        write_embeddings(&self.run.id(), layout, &dataset, epochs, found, |file| file == name)?;
        Ok(true)
    }

    fn similarity(&mut self) -> Result<bool, LaunchError> {
        if self.embeddings.is_none() {
            // The files on disk are whole unless they are lost: damaged ones were made again before.
            let is_lost = |name| self.is_faulty(name) && !self.files.iter().any(|file| file == name);
            if is_lost(names::TEST_EMBEDDINGS) || is_lost(names::GALLERY_EMBEDDINGS) {
                return Ok(false);
            }
            let folder = self.directory.layout().folder();
            let gallery = folder.join(names::GALLERY_EMBEDDINGS);
            let gallery = gallery.is_file().then(|| features(&gallery)).transpose()?;
            self.embeddings =
                Some(Embeddings { gallery, test: features(&folder.join(names::TEST_EMBEDDINGS))? });
        }
        let dataset = self.dataset()?;
        let found = self.embeddings.as_ref().expect("there since just now");
        write_similarity(self.run, self.directory.layout(), &dataset, found)
    }

    fn record(&mut self) -> Result<bool, LaunchError> {
        let layout = self.directory.layout();
        if let Some(logged) = RunRecord::logged(layout).filter(|logged| logged.id == self.run.id()) {
            logged.write(layout)?;
            if self.is_as_listed(names::RECORD)? {
                return Ok(true);
            }
        }
        let status = Status::read(layout).ok().flatten();
        let environment = Environment::read(layout).ok();
        let dataset = if self.state()?.is_some() { Some(self.dataset()?) } else { None };
        let (Some(environment), Some(dataset), Some(state)) = (environment, dataset, self.state()?) else {
            return Ok(false);
        };
        let facts = Facts {
            epoch: state.epoch,
            rows: state.rows.clone(),
            seconds: state.seconds,
            images_per_second: state.images_per_second,
            training_processor_seconds: state.training_processor_seconds,
            began: state.began.clone(),
            finished: status.map_or_else(now_rfc3339, |status| status.updated),
            // The memory of this process is not that of the run.
            peak_memory_bytes: None,
        };
        record(self.run, self.root, self.directory.layout(), &dataset, &environment, facts)
            .write(self.directory.layout())?;
        Ok(true)
    }

    fn status(&mut self) -> Result<(), LaunchError> {
        let Ok(record) = RunRecord::read(self.directory.layout()) else { return Ok(()) };
        if self.is_faulty(names::STATUS) {
            let RunRecord { epochs: epoch, finished: updated, .. } = record;
            self.directory.write_status(&Status { state: State::Done, epoch, updated, message: None })?;
            self.files.push(names::STATUS.to_owned());
        }
        Ok(())
    }

    /// Replaces damaged event files by a new one.
    fn events(&mut self) -> Result<(), LaunchError> {
        let layout = self.directory.layout();
        let faulty: Vec<String> = self
            .found
            .faults
            .iter()
            .filter(|fault| fault.file.starts_with(names::TENSORBOARD))
            .map(|fault| fault.file.clone())
            .collect();
        let Ok(table) = MetricsTable::read(&layout.metrics()) else { return Ok(()) };
        if faulty.is_empty() {
            return Ok(());
        }
        let mut events = EventWriter::create(&layout.tensorboard(), Some(-1))?;
        events.rows(table.rows())?;
        for name in &faulty {
            let path = layout.folder().join(name);
            match fs_err::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(RecordError::Io { action: "remove", path, source }.into());
                }
                _ => {}
            }
            if let Some(list) = &mut self.found.list {
                list.forget(name);
            }
        }
        self.files.extend(faulty);
        Ok(())
    }

    /// Updates the list of files for those made again. The entries of lost files stay.
    fn list(&mut self, is_lost: bool) -> Result<(), LaunchError> {
        let layout = self.directory.layout();
        if let Some(list) = &mut self.found.list {
            let changed: Vec<&String> = self
                .files
                .iter()
                .chain(&self.found.touched)
                .filter(|name| !name.starts_with(names::TENSORBOARD))
                .collect();
            for name in &changed {
                list.note(layout, name)?;
            }
            let events = self.files.iter().any(|name| name.starts_with(names::TENSORBOARD));
            if events {
                for name in
                    listed_files(layout)?.into_iter().filter(|name| name.starts_with(names::TENSORBOARD))
                {
                    list.note(layout, &name)?;
                }
            }
            if events || !changed.is_empty() {
                list.write(layout)?;
            }
        } else if !is_lost && !self.found.is_record_alone {
            FileList::take(layout, listed_files(layout)?)?.write(layout)?;
            if self.is_faulty(names::FILES) {
                self.files.push(names::FILES.to_owned());
            }
        }
        if !self.files.is_empty() {
            self.directory.log("run_repaired", &json!({ "files": self.files }))?;
        }
        Ok(())
    }
}

/// Returns the tensors in the form that checkpoints are written from.
fn named(tensors: &HashMap<String, Tensor>) -> checkpoint::NamedTensors {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}

/// Reads the embeddings of a file that the run wrote.
fn features(path: &Path) -> Result<Features, LaunchError> {
    let (tensors, _): (_, serde_json::Value) = checkpoint::read(path)?;
    let read = || {
        let rows = tensors
            .get("embeddings")
            .ok_or_else(|| candle_core::Error::Msg("it holds no embeddings".to_owned()))?;
        Ok(Features { dim: rows.dim(1)?, values: rows.flatten_all()?.to_vec1()? })
    };
    read().map_err(|source| {
        checkpoint::CheckpointError::Tensor { path: path.to_path_buf(), source: Box::new(source) }.into()
    })
}
