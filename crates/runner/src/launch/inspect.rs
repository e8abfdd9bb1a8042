//! Checks whether a finished run is still whole.
//!
//! A finished run has a list of its files (see [`FileList`]), which is written last. Runs of earlier
//! versions, records that were copied without the other files, and runs whose process was killed just before
//! it wrote the list have none. Their files are checked one by one.

use std::io;
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::checkpoint::{self, CheckpointError};
use crate::record::{
    Environment, Fault, FileList, Layout, MetricsTable, RecordError, RunRecord, SimilarityRecord, State,
    Status, names,
};

/// How closely the files of a run without a list are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Small files are read; large files must exist.
    Glance,
    /// All files are read.
    Whole,
}

/// A finished run and its faults.
#[derive(Debug)]
pub(super) struct Finished {
    /// The list of its files, if there is one that can be read.
    pub(super) list: Option<FileList>,
    /// The files that are missing or damaged.
    pub(super) faults: Vec<Fault>,
    /// Large files with a new time but the same bytes. The list must be updated with their times.
    pub(super) touched: Vec<String>,
    /// Whether the folder holds only a record and measurements, like runs that are published without their
    /// other files.
    pub(super) is_record_alone: bool,
}

impl Finished {
    /// Returns whether nothing has to be done about the run.
    pub(super) fn is_settled(&self) -> bool {
        self.faults.is_empty() && self.touched.is_empty() && (self.list.is_some() || self.is_record_alone)
    }
}

/// Checks the run in `layout`; `None` if it is not finished.
///
/// # Errors
/// Returns an error if the system does not allow a file to be read.
pub(super) fn look(layout: &Layout, depth: Depth) -> Result<Option<Finished>, LaunchError> {
    layout.refuse_special_files()?;
    let list = match FileList::read(layout) {
        Ok(Some(list)) => {
            let (faults, touched) = list.compare(layout, |_| true)?;
            return Ok(Some(Finished { list: Some(list), faults, touched, is_record_alone: false }));
        }
        Ok(None) => None,
        Err(RecordError::Damaged { found, .. }) => Some(Fault::damaged(names::FILES, found)),
        Err(error) => return Err(error.into()),
    };
    let status = match Status::read(layout) {
        Ok(None) if list.is_none() => return Ok(None),
        Ok(None) => Some(Fault::missing(names::STATUS)),
        // Only finished runs have a list.
        Ok(Some(status)) if status.state != State::Done && list.is_none() => return Ok(None),
        Ok(Some(status)) if status.state != State::Done => {
            Some(Fault::damaged(names::STATUS, "it says that the run is not done"))
        }
        Ok(Some(_)) => None,
        Err(RecordError::Damaged { found, .. }) if list.is_some() || RunRecord::read(layout).is_ok() => {
            Some(Fault::damaged(names::STATUS, found))
        }
        Err(RecordError::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut faults: Vec<Fault> = list.into_iter().chain(status).collect();
    let is_record_alone = look_one_by_one(layout, depth, &mut faults)?;
    Ok(Some(Finished { list: None, faults, touched: Vec::new(), is_record_alone }))
}

/// Returns the finished runs of `suite` under `root` (`runs.root`) whose record, measurements or similarities
/// are missing or damaged, ordered by folder, with the faults of each. Large files are not checked.
///
/// # Errors
/// Returns an error if the system does not allow a file to be read.
pub fn damaged_results(root: &Path, suite: &str) -> Result<Vec<(PathBuf, Vec<Fault>)>, LaunchError> {
    let is_reported = |name: &str| [names::RECORD, names::METRICS, names::SIMILARITY].contains(&name);
    let mut damaged = Vec::new();
    for layout in Layout::all_of(root, suite)? {
        let faults = match FileList::read(&layout) {
            Ok(Some(list)) => list.compare(&layout, is_reported)?.0,
            Ok(None) | Err(RecordError::Damaged { .. }) => {
                let found = look(&layout, Depth::Glance)?.map(|found| found.faults).unwrap_or_default();
                found.into_iter().filter(|fault| is_reported(&fault.file)).collect()
            }
            Err(error) => return Err(error.into()),
        };
        if !faults.is_empty() {
            damaged.push((layout.folder().to_path_buf(), faults));
        }
    }
    Ok(damaged)
}

/// Checks the files of a run without a list; returns whether it has only the record and the measurements.
fn look_one_by_one(layout: &Layout, depth: Depth, faults: &mut Vec<Fault>) -> Result<bool, LaunchError> {
    let record = RunRecord::read(layout);
    let table = MetricsTable::read(&layout.metrics());
    let named = |is: fn(&str) -> bool| {
        record.as_ref().map_or_else(
            |_| table.as_ref().is_ok_and(|table| table.rows().iter().any(|row| is(&row.name))),
            |record| is(&record.main_metric),
        )
    };
    let has_gallery = named(|metric| metric.starts_with("knn"));
    faults.extend(fault(names::RECORD, record)?);
    faults.extend(fault(names::METRICS, table)?);
    let similarity = fault(names::SIMILARITY, SimilarityRecord::read(layout))?;
    // Data sets without a gallery have no similarities, and earlier versions of the program wrote none.
    faults.extend(similarity.filter(|fault| fault.damage.is_some()));

    let large = [
        names::LAST_STATE,
        names::LAST_WEIGHTS,
        names::BEST_WEIGHTS,
        names::TEST_EMBEDDINGS,
        names::GALLERY_EMBEDDINGS,
    ];
    if large.iter().all(|name| !layout.folder().join(name).exists()) {
        return Ok(true);
    }
    faults.extend(fault(names::ENVIRONMENT, Environment::read(layout))?);
    for name in large.into_iter().filter(|name| has_gallery || *name != names::GALLERY_EMBEDDINGS) {
        let path = layout.folder().join(name);
        if !path.is_file() {
            faults.push(Fault::missing(name));
        } else if depth == Depth::Whole {
            match checkpoint::read::<serde_json::Value>(&path) {
                Ok(_) => {}
                Err(CheckpointError::Damaged { found, .. } | CheckpointError::Foreign { found, .. }) => {
                    faults.push(Fault::damaged(name, found));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(false)
}

/// Returns the fault of the file `name` that the result of reading it shows, if any.
fn fault<T>(name: &str, read: Result<T, RecordError>) -> Result<Option<Fault>, RecordError> {
    match read {
        Ok(_) => Ok(None),
        Err(RecordError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Some(Fault::missing(name)))
        }
        Err(RecordError::Damaged { found, .. }) => Ok(Some(Fault::damaged(name, found))),
        Err(error) => Err(error),
    }
}
