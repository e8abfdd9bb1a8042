//! The parsers of foreign bytes as functions of bytes, for the targets in `fuzz/` and the tests that replay
//! their corpora.
//!
//! Each function takes any bytes, in the form that its comment describes, and must return. If a data set has
//! several files, they are written into a temporary folder, so that the code of [`open`](crate::open) is
//! tested. The sets are small; otherwise an input would have to be megabytes long before the code looked at
//! more than its length.

#![allow(clippy::missing_panics_doc, reason = "a fuzz target reports what it found by a panic")]

use std::io::{Cursor, Write};
use std::path::{Component, Path};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cifar10::{self, BATCHES, Layout};
use crate::form::Cifar10Form;
use crate::records::{Arrangement, RecordFile};
use crate::retrieval::{self, Set};
use crate::stream::{self, Sample};
use crate::{decode, matlab, pack, stl10};

/// Returns a layout of CIFAR-10 with one image in each batch and no known checksum.
fn one_image_a_batch() -> Layout {
    Layout { per_batch: 1, sha256: Default::default(), archive_bytes: [0; 2] }
}

/// Returns a folder with the given files.
fn folder_of(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, bytes) in files {
        write(&folder.path().join(name), bytes);
    }
    folder
}

fn write(path: &Path, bytes: &[u8]) {
    fs_err::write(path, bytes).expect("a temporary file can be written");
}

/// Reads CIFAR-10's binary version: its `.tar.gz`, its `.tar`, or otherwise the six batches one after
/// another.
pub fn cifar10_binary(bytes: &[u8]) {
    const GZIP: &[u8] = b"\x1f\x8b";
    let layout = one_image_a_batch();
    let (name, form) = ("cifar-10-binary.tar.gz", Cifar10Form::BinaryArchive);
    let archive = if bytes.starts_with(GZIP) {
        Some(bytes.to_vec())
    } else {
        is_tar(bytes).then(|| compressed(&with_checksums(bytes)))
    };
    let (folder, found) = if let Some(archive) = archive {
        let folder = folder_of(&[(name, &archive)]);
        let path = folder.path().join(name);
        (folder, cifar10::Found { form, path })
    } else {
        let length = bytes.len().div_ceil(BATCHES.len()).max(1);
        let names = BATCHES.map(|batch| format!("{batch}.bin"));
        let batches = bytes.chunks(length).chain(std::iter::repeat(&b""[..]));
        let files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(batches).collect();
        let folder = folder_of(&files);
        let path = folder.path().to_owned();
        (folder, cifar10::Found { form: Cifar10Form::BinaryFolder, path })
    };
    if let Ok(batches) = cifar10::read(&found, &layout) {
        assert_eq!(cifar10::labels(&batches).len(), BATCHES.len(), "a label for each image");
    }
    drop(folder);
}

/// The number of bytes of a tar header, and the places of the format's name and of the header's checksum in
/// it.
const TAR_BLOCK: usize = 512;
const TAR_NAME: std::ops::Range<usize> = 257..262;
const TAR_CHECKSUM: std::ops::Range<usize> = 148..156;

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(TAR_NAME) == Some(b"ustar")
}

/// Returns the archive with the correct checksums in its headers, because a fuzzer does not guess them.
fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for header in tar.chunks_exact_mut(TAR_BLOCK).filter(|block| is_tar(block)) {
        header[TAR_CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[TAR_CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// Returns a gzip file that holds the bytes without compression.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// Reads a shard of images as an archive with correct checksums and the block of zeros at its end.
pub fn shards(bytes: &[u8]) {
    let mut archive = with_checksums(bytes);
    archive.resize(archive.len().next_multiple_of(TAR_BLOCK), 0);
    archive.extend([0; TAR_BLOCK]);
    let (mut all, mut names) = (0, Vec::new());
    let mut take = |sample: Sample| {
        names.push(sample.name.clone());
        if let Ok(image) = sample.decode() {
            assert_eq!(image.pixels.len(), 3 * image.width * image.height);
        }
        true
    };
    let read = stream::of_shard(Path::new("s.tar"), Cursor::new(&archive), 0, &mut all, &mut take);
    if read.is_err() {
        return;
    }
    assert_eq!(names.len() as u64, all, "a sample for each position");
    // A reader that goes on in the middle finds the same samples.
    let (from, mut position, mut later) = (all / 2, 0, Vec::new());
    let mut take = |sample: Sample| {
        later.push(sample.name);
        true
    };
    let read = stream::of_shard(Path::new("s.tar"), Cursor::new(&archive), from, &mut position, &mut take);
    assert!(read.is_ok() && later == names[from as usize..], "{later:?}");
}

/// Reads a batch of CIFAR-10's Python version that has one image.
pub fn cifar10_pickle(bytes: &[u8]) {
    if let Ok(batch) = cifar10::decode_pickle(Path::new("data_batch_1"), bytes, &one_image_a_batch()) {
        assert_eq!(batch.records.len(), cifar10::RECORD, "one record");
    }
}

/// Reads STL-10: takes the bytes as labels of the same number of images, then as images with one label, then
/// as images of 2 x 2 pixels.
pub fn stl10_binary(bytes: &[u8]) {
    let layout = stl10::Layout { counts: [0; 3], md5: stl10::OFFICIAL.md5.clone() };
    let folder = folder_of(&[("train_y.bin", bytes), ("test_y.bin", bytes)]);
    let at = |name: &str| folder.path().join(name);
    for name in ["train_X.bin", "test_X.bin"] {
        let file = fs_err::File::create(at(name)).expect("a temporary file can be made");
        // The images are black, and need no space on the disk.
        file.set_len((bytes.len() * stl10::RECORD) as u64).expect("a temporary file can be lengthened");
    }
    if let Ok(contents) = stl10::read(folder.path(), false, true, &layout) {
        assert_eq!((contents.train.len(), contents.test.len()), (bytes.len(), bytes.len()));
        let last = contents.train.len() as u32 - 1;
        let open = RecordFile::open(&at("train_X.bin"), 0, stl10::IMAGE_SIZE, Arrangement::ColumnPlanes, "");
        let images = open.expect("the file was just made");
        images.image(last).expect("the file holds as many images as labels");
        images.image(last + 1).expect_err("the file ends before it");
    }
    for name in ["train_X.bin", "test_X.bin", "unlabeled_X.bin"] {
        write(&at(name), bytes);
    }
    for name in ["train_y.bin", "test_y.bin"] {
        write(&at(name), &[1]);
    }
    // An empty part is refused because of its length.
    let _ = stl10::read(folder.path(), true, true, &layout);
    let open = RecordFile::open(&at("train_X.bin"), 0, 2, Arrangement::ColumnPlanes, "");
    let images = open.expect("the file was just written");
    let held = (0..=bytes.len() as u32).take_while(|&number| images.image(number).is_ok()).count();
    assert_eq!(held, bytes.len() / 12);
}

/// Reads a MAT-file of version 5 and, if there is one, the list of cars in it.
pub fn matlab(bytes: &[u8]) {
    if matlab::read(bytes).is_err() {
        return;
    }
    let folder = folder_of(&[("cars_annos.mat", bytes)]);
    list(Set::Cars, folder.path());
}

/// Decodes an image file.
pub fn images(bytes: &[u8]) {
    if let Ok(image) = decode::decode(bytes) {
        assert_eq!(image.pixels.len(), image.width * image.height * 3);
    }
}

/// Reads the lists that the bytes hold. Each begins with a line `== NAME ==`, where NAME is that of the list,
/// or `class folders`.
pub fn annotations(bytes: &[u8]) {
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let named = LISTS.into_iter().find(|name| line == format!("== {name} ==\n").as_bytes());
        match (named, files.last_mut()) {
            (Some(name), _) => files.push((name, Vec::new())),
            (None, Some((_, content))) => content.extend_from_slice(line),
            (None, None) => {}
        }
    }
    for (_, names) in files.iter().filter(|(name, _)| *name == CLASS_FOLDERS) {
        for name in String::from_utf8_lossy(names).lines() {
            let class = retrieval::class_called(name);
            assert!(class.is_none_or(|class| (1..=196).contains(&class)), "{name:?} is class {class:?}");
        }
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, &content[..])).collect();
    let folder = folder_of(&files);
    list(Set::Cub2011, folder.path());
    list(Set::Products, folder.path());
}

/// The heading of the list of folder names of Cars196 in its form with one folder for each class; each line
/// holds a name.
const CLASS_FOLDERS: &str = "class folders";

/// The names of the lists that [`annotations`] knows.
const LISTS: [&str; 6] =
    ["images.txt", "image_class_labels.txt", "classes.txt", "Ebay_train.txt", "Ebay_test.txt", CLASS_FOLDERS];

fn list(set: Set, folder: &Path) {
    let Some(Ok(listing)) = set.find(folder).map(|found| set.list(&found)) else { return };
    for item in listing.train.iter().chain(&listing.test) {
        assert!((item.class as usize) < listing.classes.len(), "{item:?} has a class without a name");
        let below = Path::new(&item.file).components().all(|part| matches!(part, Component::Normal(_)));
        assert!(below, "{item:?} leads outside");
    }
}

/// Reads a pack of two images of 2 x 2 pixels: in its own form, and with the correct checksum in its head.
pub fn pack(bytes: &[u8]) {
    const IMAGES: usize = 2;
    let mut bytes = bytes.to_vec();
    for _ in 0..2 {
        let folder = folder_of(&[("set.pack", &bytes)]);
        let read = pack::read(&folder.path().join("set.pack"), 2, IMAGES, &PACK_FINGERPRINT);
        if let Ok(Ok(pack)) = read {
            assert_eq!(pack.broken.len(), IMAGES);
            for number in 0..IMAGES as u32 {
                let _ = pack.images.image(number);
            }
        }
        pack::set_checksum(&mut bytes, IMAGES);
    }
}

/// The fingerprint of the sources that [`pack`] expects.
const PACK_FINGERPRINT: [u8; 32] = [7; 32];

#[cfg(test)]
mod tests;
