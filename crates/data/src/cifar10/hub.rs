//! CIFAR-10 from the Hugging Face hub, fetched by candle-datasets and decoded here.

use std::path::Path;

use candle_datasets::hub::{FileReader, from_hub};
use hf_hub::HFClientSync;

use super::official::OFFICIAL;
use super::{Batch, parquet};
use crate::error::DataError;

const DATASET: &str = "uoft-cs/cifar10";

/// The batches of the hub's copy; the larger Parquet file is the training split.
pub(crate) fn download() -> Result<Vec<Batch>, DataError> {
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
