//! The parsers of foreign bytes as functions of bytes, for the targets in `fuzz/` and the tests that replay
//! their corpora.
//!
//! Each takes whatever it is given, in the form that its comment says, and must return. What a data set keeps
//! in several files goes through a folder of its own, so that what is tested is what [`open`](crate::open)
//! runs. Sets are miniatures, or an input would have to be megabytes long before anything but its length was
//! looked at.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target tells what it found")]

use std::io::Write;
use std::path::{Component, Path};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cifar10::{self, BATCHES, Layout};
use crate::form::Cifar10Form;
use crate::records::{Arrangement, RecordFile};
use crate::retrieval::{self, Set};
use crate::{decode, matlab, pack, stl10};

/// Returns one image in each batch of CIFAR-10, of no known checksum.
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

/// CIFAR-10's binary version: its `.tar.gz`, its `.tar`, or else the six batches one after another.
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

/// Bytes of a tar header, and where in it the format's name and the header's checksum are.
const TAR_BLOCK: usize = 512;
const TAR_NAME: std::ops::Range<usize> = 257..262;
const TAR_CHECKSUM: std::ops::Range<usize> = 148..156;

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(TAR_NAME) == Some(b"ustar")
}

/// Returns the archive with the checksums that its headers should have: a fuzzer does not guess them.
fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for header in tar.chunks_exact_mut(TAR_BLOCK).filter(|block| is_tar(block)) {
        header[TAR_CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[TAR_CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// Returns a gzip file that holds the bytes as they are.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// One batch of CIFAR-10's python version, of one image.
pub fn cifar10_pickle(bytes: &[u8]) {
    if let Ok(batch) = cifar10::decode_pickle(Path::new("data_batch_1"), bytes, &one_image_a_batch()) {
        assert_eq!(batch.records.len(), cifar10::RECORD, "one record");
    }
}

/// STL-10: the bytes as the labels of as many images, then as the images of one label, then as images of 2 x
/// 2.
pub fn stl10_binary(bytes: &[u8]) {
    let layout = stl10::Layout { counts: [0; 3], md5: stl10::OFFICIAL.md5.clone() };
    let folder = folder_of(&[("train_y.bin", bytes), ("test_y.bin", bytes)]);
    let at = |name: &str| folder.path().join(name);
    for name in ["train_X.bin", "test_X.bin"] {
        let file = fs_err::File::create(at(name)).expect("a temporary file can be made");
        // Black images, which take no room on the disk.
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
    // An empty part is refused by its length.
    let _ = stl10::read(folder.path(), true, true, &layout);
    let open = RecordFile::open(&at("train_X.bin"), 0, 2, Arrangement::ColumnPlanes, "");
    let images = open.expect("the file was just written");
    let held = (0..=bytes.len() as u32).take_while(|&number| images.image(number).is_ok()).count();
    assert_eq!(held, bytes.len() / 12);
}

/// A MAT-file of version 5 and, if it is one, the list of cars in it.
pub fn matlab(bytes: &[u8]) {
    if matlab::read(bytes).is_err() {
        return;
    }
    let folder = folder_of(&[("cars_annos.mat", bytes)]);
    list(Set::Cars, folder.path());
}

/// An image file.
pub fn images(bytes: &[u8]) {
    if let Ok(image) = decode::decode(bytes) {
        assert_eq!(image.pixels.len(), image.width * image.height * 3);
    }
}

/// The lists that the bytes hold: each begins with a line `== NAME ==`, where NAME is the list's, or
/// `class folders`.
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

/// Names of the folders of Cars196 where it has one for each class, one a line.
const CLASS_FOLDERS: &str = "class folders";

/// What [`annotations`] knows.
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

/// A pack of two images of 2 x 2: as it is, and with the checksum that its head should have.
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

/// What [`pack`] takes packs to be made of.
const PACK_FINGERPRINT: [u8; 32] = [7; 32];

#[cfg(test)]
mod tests;
