//! CIFAR-10 from the Hugging Face hub, fetched by candle-datasets and decoded here.

use std::path::Path;

use candle_datasets::hub::{FileReader, from_hub};
use hf_hub::HFClientSync;

use super::official::{ARCHIVE, BINARY_FOLDER, OFFICIAL};
use super::{Batch, parquet};
use crate::download::{Phase, Progress};
use crate::error::{DataError, writing};
use crate::fetch::{Fetched, install, write_file};

const DATASET: &str = "uoft-cs/cifar10";

/// Fetches the hub's copy into `root` and writes it as the official binary files.
pub(super) fn fetch(root: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Fetched, DataError> {
    fs_err::create_dir_all(root).map_err(writing)?;
    let batches = download()?;
    let files: Vec<(String, u64)> = ARCHIVE.required.clone();
    let set_aside = install(root, BINARY_FOLDER, |folder| {
        for (done, ((name, bytes), batch)) in files.iter().zip(&batches).enumerate() {
            write_file(&folder.join(name), &batch.records)?;
            let (bytes, total) = (bytes * (done as u64 + 1), bytes * files.len() as u64);
            progress(Progress { phase: Phase::Unpack, file: name.clone(), bytes, total });
        }
        Ok(())
    })?;
    Ok(Fetched { path: root.join(BINARY_FOLDER), downloaded: true, set_aside })
}

/// Reads the batches of the hub's copy; the larger Parquet file is the training split.
fn download() -> Result<Vec<Batch>, DataError> {
    let failed = |found: String| DataError::Hub { dataset: DATASET, found };
    let client = HFClientSync::new().map_err(|error| failed(error.to_string()))?;
    let mut readers = from_hub(&client, DATASET.to_owned()).map_err(|error| failed(error.to_string()))?;
    readers.sort_by_key(|reader| std::cmp::Reverse(reader.metadata().file_metadata().num_rows()));
    let [train, test] = &readers[..] else {
        return Err(failed(format!("found {} Parquet files, expected 2", readers.len())));
    };
    let mut batches = parquet::read_split(Path::new("uoft-cs/cifar10/train"), train, 5, &OFFICIAL)?;
    batches.extend(parquet::read_split(Path::new("uoft-cs/cifar10/test"), test, 1, &OFFICIAL)?);
    Ok(batches)
}
