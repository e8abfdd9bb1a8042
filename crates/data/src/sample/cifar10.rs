//! CIFAR-10's binary files with other pictures. They have as many records as the published files, since the
//! set has no smaller form.

use std::path::{Path, PathBuf};

use invaspread_random::{Purpose, Stream};

use crate::cifar10::{BATCHES, BINARY_FOLDER, CLASSES, OFFICIAL, RECORD};

/// The number of different pictures; each of them is in a batch many times.
const DISTINCT: usize = 100;

/// Writes the six batches to `root/cifar-10-batches-bin`, with labels in turn and random pixels.
pub fn write_cifar10(root: &Path) -> PathBuf {
    let folder = root.join(BINARY_FOLDER);
    fs_err::create_dir_all(&folder).unwrap();
    for (number, batch) in BATCHES.iter().enumerate() {
        let mut stream = Stream::new(2, Purpose::Synthetic, 1, number as u64);
        let mut records: Vec<u8> = (0..DISTINCT * RECORD).map(|_| stream.next_u32() as u8).collect();
        for (record, label) in records.iter_mut().step_by(RECORD).zip((0..CLASSES.len() as u8).cycle()) {
            *record = label;
        }
        fs_err::write(folder.join(format!("{batch}.bin")), records.repeat(OFFICIAL.per_batch / DISTINCT))
            .unwrap();
    }
    folder
}
