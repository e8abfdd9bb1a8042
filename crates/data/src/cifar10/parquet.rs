//! Reads the version of the Hugging Face hub: Parquet files of PNG images.
//!
//! A row is a struct `img` (`bytes`: a PNG file, `path`) and an integer `label`. The rows of a PNG go from
//! top to bottom, as in the official records. (The loader of candle-datasets 0.11 reads them as columns,
//! which transposes each image.)

use std::fs::File;
use std::path::{Path, PathBuf};

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, Row};
use invaspread_files::open_regular;
use rayon::prelude::*;

use super::official::Layout;
use super::{Batch, CLASSES, IMAGE_SIZE, PLANE, RECORD};
use crate::codec;
use crate::error::{DataError, reading};

/// Returns the files with the training and the test images in a `plain_text` folder, under either of the two
/// names that the hub uses.
pub(super) fn files(folder: &Path) -> Option<[PathBuf; 2]> {
    let names = |form: fn(&str) -> String| ["train", "test"].map(|split| folder.join(form(split)));
    [names(|split| format!("{split}-00000-of-00001.parquet")), names(|split| format!("{split}/0000.parquet"))]
        .into_iter()
        .find(|files| files.iter().all(|file| file.is_file()))
}

/// Reads the batches of a `plain_text` folder.
pub(super) fn read(folder: &Path, layout: &Layout) -> Result<Vec<Batch>, DataError> {
    let expected = "train and test .parquet files";
    let [train, test] =
        files(folder).ok_or_else(|| DataError::damaged(folder, "a folder without them", expected))?;
    let mut batches = Vec::new();
    for (path, count) in [(train, 5), (test, 1)] {
        let file = open_regular(&path).map_err(reading)?.into_file();
        let reader = open(&path, file)?;
        batches.extend(read_split(&path, &reader, count, layout)?);
    }
    Ok(batches)
}

fn open(path: &Path, file: File) -> Result<SerializedFileReader<File>, DataError> {
    SerializedFileReader::new(file).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &ParquetError) -> DataError {
    DataError::damaged(path, format!("a file that fails to decode ({error})"), "a whole Parquet file")
}

/// Reads the rows of a file as `count` batches.
pub(super) fn read_split(
    path: &Path,
    reader: &dyn FileReader,
    count: usize,
    layout: &Layout,
) -> Result<Vec<Batch>, DataError> {
    codec::check(path, reader.metadata(), |_| true)?;
    let rows = reader.metadata().file_metadata().num_rows();
    let expected = count * layout.per_batch;
    if usize::try_from(rows) != Ok(expected) {
        return Err(DataError::damaged(path, format!("{rows} images"), format!("{expected} images")));
    }
    let rows = reader.get_row_iter(None).map_err(|error| broken(path, &error))?;
    let mut pngs = Vec::with_capacity(expected);
    for (record, row) in rows.enumerate() {
        let row = row.map_err(|error| broken(path, &error))?;
        pngs.push(cells(path, record, row)?);
    }
    let records: Vec<Vec<u8>> = pngs
        .into_par_iter()
        .enumerate()
        .map(|(record, (label, png))| decode(path, record, label, &png))
        .collect::<Result<_, _>>()?;
    let batches = records
        .chunks(layout.per_batch)
        .map(|part| Batch { source: path.to_owned(), records: part.concat() });
    Ok(batches.collect())
}

/// Returns the label and the PNG file of a row.
fn cells(path: &Path, record: usize, row: Row) -> Result<(u8, Vec<u8>), DataError> {
    let (mut label, mut png) = (None, None);
    for (name, field) in row.into_columns() {
        match (name.as_str(), field) {
            ("label", Field::Long(value)) => label = Some(value),
            ("label", Field::Int(value)) => label = Some(value.into()),
            ("img" | "image", Field::Group(group)) => {
                png = group.into_columns().into_iter().find_map(|(name, field)| match field {
                    Field::Bytes(bytes) if name == "bytes" => Some(bytes.data().to_vec()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let (Some(label), Some(png)) = (label, png) else {
        let expected = "the columns \"img\" (with \"bytes\") and \"label\"";
        return Err(DataError::damaged(path, format!("row {record} without an image or a label"), expected));
    };
    let byte = u8::try_from(label).ok().filter(|&byte| usize::from(byte) < CLASSES.len());
    let wrong = || DataError::Label { path: path.to_owned(), record, found: label, classes: CLASSES.len() };
    Ok((byte.ok_or_else(wrong)?, png))
}

/// Makes the record of an image.
fn decode(path: &Path, record: usize, label: u8, png: &[u8]) -> Result<Vec<u8>, DataError> {
    let wrong = |found: String| {
        DataError::damaged(path, format!("image {record} {found}"), "a PNG of 32 x 32 pixels")
    };
    let image = image::load_from_memory_with_format(png, image::ImageFormat::Png)
        .map_err(|error| wrong(format!("that fails to decode ({error})")))?;
    if (image.width(), image.height()) != (IMAGE_SIZE as u32, IMAGE_SIZE as u32) {
        return Err(wrong(format!("of {} x {} pixels", image.width(), image.height())));
    }
    let pixels = image.into_rgb8();
    let mut bytes = Vec::with_capacity(RECORD);
    bytes.push(label);
    for channel in 0..3 {
        bytes.extend(pixels.as_raw()[channel..].iter().step_by(3));
    }
    debug_assert_eq!(bytes.len(), 1 + 3 * PLANE);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::sample::png;

    #[test]
    fn a_png_cut_short_in_a_row_is_an_error_or_lacks_no_pixel() {
        let whole = png((32, 32), |x, y| [x as u8 * 7, y as u8 * 5, (x * y) as u8]);
        let record = decode(Path::new("train.parquet"), 7, 3, &whole).unwrap();
        let mut refused = 0;
        for held in 0..whole.len() {
            match decode(Path::new("train.parquet"), 7, 3, &whole[..held]) {
                Ok(found) => assert_eq!(found, record, "{held} of {} bytes", whole.len()),
                Err(error) => {
                    assert!(
                        error.to_string().contains("train.parquet: found image 7 that fails to decode"),
                        "{error}"
                    );
                    refused += 1;
                }
            }
        }
        // Only the last chunk may be missing, since it holds nothing.
        assert!(refused >= whole.len() - 12, "{refused} of {}", whole.len());
    }
}
