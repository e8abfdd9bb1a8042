//! Reads the official Python version: six pickles, in a folder or in its archive.

use std::io::Read;
use std::path::Path;

use invaspread_files::open_regular;
use rayon::prelude::*;

use super::official::Layout;
use super::pickle::{self, PickledBatch};
use super::{BATCHES, Batch, CLASSES, PLANE, RECORD};
use crate::archive::{self, Contents};
use crate::error::{DataError, reading};

/// Reads the batches of `cifar-10-batches-py/`.
pub(super) fn read_folder(folder: &Path, layout: &Layout) -> Result<Vec<Batch>, DataError> {
    let read = |name: &&str| {
        let source = folder.join(name);
        let mut file = open_regular(&source).map_err(reading)?;
        let found = file.metadata().map_err(reading)?.len();
        if found > longest(layout) {
            let expected = format!("a batch of at most {} bytes", longest(layout));
            return Err(DataError::damaged(&source, format!("{found} bytes"), expected));
        }
        let mut pickle = Vec::with_capacity(found as usize);
        file.read_to_end(&mut pickle).map_err(reading)?;
        decode(&source, &pickle, layout)
    };
    BATCHES.par_iter().map(read).collect()
}

/// Reads the batches of `cifar-10-python.tar.gz`, unpacked in memory.
pub(super) fn read_archive(path: &Path, layout: &Layout) -> Result<Vec<Batch>, DataError> {
    let contents = Contents {
        folder: "cifar-10-batches-py",
        required: &BATCHES,
        optional: &[],
        longest: longest(layout),
        published: layout.archive_bytes[1],
    };
    let mut batches: [Option<Batch>; 6] = Default::default();
    archive::read(path, contents, &mut |name, pickle| {
        let place =
            BATCHES.iter().position(|known| *known == name).expect("only required members are handed over");
        batches[place] = Some(decode(&path.join(name), &pickle, layout)?);
        Ok(())
    })?;
    Ok(batches.into_iter().flatten().collect())
}

/// Returns the largest length of a batch. The published batches have 103 bytes for each image besides its
/// pixels (label, file name); twice that number is allowed.
fn longest(layout: &Layout) -> u64 {
    layout.batch_bytes() + layout.per_batch as u64 * 206 + (1 << 16)
}

/// Converts a pickle to records.
pub(crate) fn decode(source: &Path, pickle: &[u8], layout: &Layout) -> Result<Batch, DataError> {
    let expected = || format!("a dict with \"labels\" and \"data\" of {} x 3072 bytes", layout.per_batch);
    let PickledBatch { labels, shape, data } =
        pickle::read_batch(pickle).map_err(|found| DataError::damaged(source, found, expected()))?;
    if shape != (layout.per_batch, 3 * PLANE) || labels.len() != layout.per_batch {
        let found = format!("{} labels and {} x {} bytes of \"data\"", labels.len(), shape.0, shape.1);
        return Err(DataError::damaged(source, found, expected()));
    }
    let mut records = Vec::with_capacity(labels.len() * RECORD);
    for (record, (label, image)) in labels.into_iter().zip(data.chunks_exact(3 * PLANE)).enumerate() {
        let byte = u8::try_from(label).ok().filter(|&byte| usize::from(byte) < CLASSES.len());
        let byte = byte.ok_or_else(|| DataError::Label {
            path: source.to_owned(),
            record,
            found: label,
            classes: CLASSES.len(),
        })?;
        records.push(byte);
        records.extend_from_slice(image);
    }
    Ok(Batch { source: source.to_owned(), records })
}
