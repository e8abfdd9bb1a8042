//! Runs every input that fuzzing kept, and checks the inputs that fuzzing starts from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;

use flate2::read::{GzDecoder, ZlibDecoder};

use crate::sample::matlab::{Mat, Writer};
use crate::sample::pictures::{CMYK_JPEG, USUAL, birds, cars_list, gray_jpeg, jpeg, products};
use crate::sample::{Member, pickled, png, tar, tar_gz};

mod replay;
mod seed;

use replay::replay;
use seed::{packed_seed, seed};

#[test]
fn cifar10_binary() {
    replay("cifar10_binary", super::cifar10_binary);
}

#[test]
fn cifar10_pickle() {
    replay("cifar10_pickle", super::cifar10_pickle);
}

#[test]
fn stl10_binary() {
    replay("stl10_binary", super::stl10_binary);
}

#[test]
fn matlab() {
    replay("matlab", super::matlab);
}

#[test]
fn images() {
    replay("images", super::images);
}

#[test]
fn annotations() {
    replay("annotations", super::annotations);
}

#[test]
fn shards() {
    replay("shards", super::shards);
}

#[test]
fn pack() {
    replay("pack", super::pack);
}

/// One sample for each way in which a format stores its pixels.
const OF_EACH_FORMAT: [&str; 14] = [
    "rgb_progressive.jpg",
    "few.gif",
    "animated.gif",
    "run_length.bmp",
    "rgb.bmp",
    "plain.ppm",
    "one.pbm",
    "grey16.pgm",
    "rgb_lzw.tif",
    "few_packbits.tif",
    "fax.tif",
    "lossless.webp",
    "lossy.webp",
    "animated.webp",
];

#[test]
fn seeds() {
    // This is CIFAR-10 with one plain image in each batch.
    let records: [Vec<u8>; 6] = std::array::from_fn(|batch| {
        let mut record = vec![40 * batch as u8; crate::cifar10::RECORD];
        record[0] = batch as u8;
        record
    });
    let names = crate::cifar10::BATCHES.map(|batch| format!("cifar-10-batches-bin/{batch}.bin"));
    let mut members = vec![Member::Folder("cifar-10-batches-bin/")];
    members.extend(names.iter().zip(&records).map(|(name, record)| Member::File(name, record)));
    packed_seed("cifar10_binary", "seed.tar.gz", &tar_gz(&members), |file| read(GzDecoder::new(file)));
    seed("cifar10_binary", "seed.tar", &tar(&members));
    seed("cifar10_binary", "seed.bin", &records.concat());
    let pixels = &records[1][1..];
    seed("cifar10_pickle", "seed_rows", &pickled(&[3], (1, 3072), pixels, false));
    seed("cifar10_pickle", "seed_columns", &pickled(&[9], (1, 3072), pixels, true));
    seed("cifar10_pickle", "seed_small", &pickled(&[7, 300], (2, 3), &[1, 2, 3, 4, 5, 6], true));

    seed("stl10_binary", "seed_labels", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    seed("stl10_binary", "seed_images", &[9; 24]);

    let cars = [(3, "car_ims/000001.jpg".to_owned()), (196, "car_ims/000002.jpg".to_owned())];
    for (name, writer) in [
        ("seed_cars_compressed.mat", USUAL),
        ("seed_cars.mat", Writer { big: false, compressed: false }),
        ("seed_cars_big.mat", Writer { big: true, compressed: false }),
    ] {
        packed_seed("matlab", name, &cars_list(writer, "relative_im_path", &cars), inflated);
        let numbers = [Mat::Bytes(vec![1, 2, 3, 4, 5]), Mat::Shorts(vec![6]), Mat::Doubles(vec![0.5, -1.0])];
        let cells =
            Mat::Cells(numbers.into_iter().chain([Mat::Text("text".to_owned()), Mat::Empty]).collect());
        packed_seed("matlab", &name.replace("cars", "cells"), &writer.file(&[("cells", cells)]), inflated);
    }

    let color = |x: u32, y: u32| [(x * 20) as u8, (y * 20) as u8, 90];
    packed_seed("images", "seed.png", &png((9, 7), color), pixels_of);
    seed("images", "seed.jpg", &jpeg((9, 7), [200, 40, 20]));
    seed("images", "seed_grey.jpg", &gray_jpeg((9, 7), 77));
    seed("images", "seed_cmyk.jpg", CMYK_JPEG);
    for (name, bytes) in crate::decode::tests::samples() {
        if OF_EACH_FORMAT.contains(&name.as_str()) {
            seed("images", &format!("seed_{name}"), &bytes);
        }
    }

    let [first, second] = [[9; 3], [1; 3]].map(|color| png((2, 2), move |_, _| color));
    let members = [
        Member::Folder("d/"),
        Member::File("d/1.png", &first),
        Member::File("d/1.cls", b"7"),
        Member::File("d/2.json", b"{\"label\": \"cat\"}"),
        Member::File("d/2.seg.png", b"mask"),
        Member::File("d/2.PNG", &second),
        Member::Link("d/3.png", "1.png"),
        Member::File("3.txt", b"no image"),
    ];
    packed_seed("shards", "seed.tar", &tar(&members), names_in);

    let folder = tempfile::tempdir().unwrap();
    let lists = |folder: &std::path::Path| -> Vec<u8> {
        let held = super::LISTS.iter().filter(|name| folder.join(name).is_file());
        held.flat_map(|name| {
            [format!("== {name} ==\n").into(), fs_err::read(folder.join(name)).unwrap()].concat()
        })
        .collect()
    };
    seed("annotations", "seed_birds", &lists(&birds(folder.path(), &[3, 150])));
    seed("annotations", "seed_products", &lists(&products(folder.path(), &[5, 11_319])));
    let folders =
        "== class folders ==\nAudi TT Hatchback 2011\n196\nRam C-V Cargo Van Minivan 2012\nram cv cargo\n0\n";
    seed("annotations", "seed_class_folders", folders.as_bytes());

    let images: [[u8; 12]; 2] = [[5; 12], [0; 12]];
    let mut bytes = crate::pack::beginning(2, 2, &super::PACK_FINGERPRINT);
    bytes.extend([9; 32]);
    for (image, broken) in images.iter().zip([0_u32, 1]) {
        bytes.extend(crc32fast::hash(image).to_le_bytes());
        bytes.extend(broken.to_le_bytes());
    }
    bytes.extend([0; 32]);
    crate::pack::set_checksum(&mut bytes, 2);
    bytes.extend(images.concat());
    seed("pack", "seed.pack", &bytes);
}

fn read(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Returns the names of the files of an archive; the bytes of a PNG differ from encoder to encoder.
fn names_in(file: &[u8]) -> Vec<u8> {
    let mut archive = ::tar::Archive::new(file);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries.flat_map(|entry| entry.path_bytes().into_owned()).collect()
}

/// Returns a MAT-file of one variable without compression.
fn inflated(file: &[u8]) -> Vec<u8> {
    const HEAD: usize = 128;
    const DEFLATED: [u8; 4] = 15_u32.to_le_bytes();
    let (head, variable) = file.split_at(HEAD);
    match variable.strip_prefix(&DEFLATED) {
        Some(rest) => [head, &read(ZlibDecoder::new(&rest[4..]))].concat(),
        None => file.to_vec(),
    }
}

/// Returns the size and the pixels of an image.
fn pixels_of(file: &[u8]) -> Vec<u8> {
    let image = image::load_from_memory(file).unwrap().into_rgb8();
    [image.width().to_le_bytes().to_vec(), image.height().to_le_bytes().to_vec(), image.into_raw()].concat()
}
