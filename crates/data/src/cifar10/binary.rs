//! Reads the official binary version: six files of records, in a folder or in its archive.

use std::io::Read;
use std::path::Path;

use invaspread_files::open_regular;
use rayon::prelude::*;

use super::official::{BINARY_FOLDER, Layout};
use super::{BATCHES, Batch};
use crate::archive::{self, Contents};
use crate::error::{DataError, REFETCH, reading};

/// Reads the batches of `cifar-10-batches-bin/`.
pub(super) fn read_folder(folder: &Path, layout: &Layout) -> Result<Vec<Batch>, DataError> {
    let read = |name: &&str| {
        let source = folder.join(format!("{name}.bin"));
        // The length is checked first, so that a file of another length is not read.
        let mut file = open_regular(&source).map_err(reading)?;
        let found = file.metadata().map_err(reading)?.len();
        if found != layout.batch_bytes() {
            return Err(DataError::Size {
                path: source,
                found,
                expected: layout.batch_bytes(),
                advice: REFETCH,
            });
        }
        let mut records = Vec::with_capacity(found as usize);
        file.read_to_end(&mut records).map_err(reading)?;
        Ok(Batch { source, records })
    };
    BATCHES.par_iter().map(read).collect()
}

/// Reads the batches of `cifar-10-binary.tar.gz`, unpacked in memory.
pub(super) fn read_archive(path: &Path, layout: &Layout) -> Result<Vec<Batch>, DataError> {
    let names = BATCHES.map(|name| format!("{name}.bin"));
    let contents = Contents {
        folder: BINARY_FOLDER,
        required: &names.each_ref().map(String::as_str),
        optional: &[],
        longest: layout.batch_bytes().max(1 << 16),
        published: layout.archive_bytes[0],
    };
    let mut batches: [Option<Batch>; 6] = Default::default();
    archive::read(path, contents, &mut |name, records| {
        let place =
            names.iter().position(|known| known == name).expect("only required members are handed over");
        batches[place] = Some(Batch { source: path.join(name), records });
        Ok(())
    })?;
    Ok(batches.into_iter().flatten().collect())
}
