//! A small STL-10 of random pixels, in the form of binary files.

use std::path::{Path, PathBuf};

use invaspread_random::{Purpose, Stream};

#[cfg(test)]
use crate::digest;
#[cfg(test)]
use crate::stl10::Layout;
use crate::stl10::RECORD;

/// A small STL-10.
pub struct MiniatureStl10 {
    /// The names and the bytes of the files.
    pub files: [(&'static str, Vec<u8>); 5],
}

impl MiniatureStl10 {
    /// Makes a set with the given numbers of training, test and unlabeled images, and labels in turn.
    pub fn new(counts: [usize; 3]) -> Self {
        let pixels = |part: usize| -> Vec<u8> {
            let mut stream = Stream::new(2, Purpose::Synthetic, 0, part as u64);
            (0..counts[part] * RECORD).map(|_| stream.next_u32() as u8).collect()
        };
        let labels =
            |part: usize| -> Vec<u8> { (0..counts[part]).map(|image| (image % 10) as u8 + 1).collect() };
        let files = [
            ("train_X.bin", pixels(0)),
            ("train_y.bin", labels(0)),
            ("test_X.bin", pixels(1)),
            ("test_y.bin", labels(1)),
            ("unlabeled_X.bin", pixels(2)),
        ];
        Self { files }
    }

    /// Returns the counts and checksums of the files, in place of the published ones.
    #[cfg(test)]
    pub(crate) fn layout(&self) -> Layout {
        let folder = tempfile::tempdir().unwrap();
        let md5 = self.files.each_ref().map(|(name, bytes)| {
            let path = folder.path().join(name);
            fs_err::write(&path, bytes).unwrap();
            (*name, digest::md5_of_file(&path).unwrap())
        });
        let images = |file: usize| self.files[file].1.len() / RECORD;
        Layout { counts: [images(0), images(2), images(4)], md5 }
    }

    /// Writes the files to `root/stl10_binary`.
    pub fn write(&self, root: &Path) -> PathBuf {
        let folder = root.join("stl10_binary");
        fs_err::create_dir_all(&folder).unwrap();
        for (name, bytes) in &self.files {
            fs_err::write(folder.join(name), bytes).unwrap();
        }
        folder
    }
}
