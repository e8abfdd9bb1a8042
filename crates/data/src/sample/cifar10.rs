//! CIFAR-10's binary files with other pictures in them: as many records as the published ones have, since it
//! has no smaller form.

use std::path::{Path, PathBuf};

use invaspread_random::{Purpose, Stream};

use crate::cifar10::{BATCHES, BINARY_FOLDER, CLASSES, OFFICIAL, RECORD};

/// Pictures that differ; each is in a batch many times over.
const DISTINCT: usize = 100;

/// Writes the six batches to `root/cifar-10-batches-bin`: labels in turn, pixels at random.
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
