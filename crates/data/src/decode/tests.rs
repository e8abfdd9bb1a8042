//! Tests that pixels are those of Pillow, and that a file of which a part is missing is an error.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Read;

use super::*;
use crate::sample::png;

/// Returns whether the name of a sample has this ending.
fn is(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == ending)
}

/// Returns the files that `samples.py` wrote, by name.
pub(crate) fn samples() -> BTreeMap<String, Vec<u8>> {
    let packed = flate2::read::GzDecoder::new(&include_bytes!("samples.tar.gz")[..]);
    let mut archive = tar::Archive::new(packed);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    entries.collect()
}

/// Returns each image with the pixels that Pillow decodes.
fn pictures() -> Vec<(String, Vec<u8>, Image)> {
    let all = samples();
    let expected = |name: &str| {
        let (head, pixels) = all[&format!("{name}.rgb")].split_at(8);
        let side = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        Image::new(side(0), side(4), pixels.to_vec())
    };
    let images = all.iter().filter(|(name, _)| !is(name, "rgb"));
    images.map(|(name, bytes)| (name.clone(), bytes.clone(), expected(name))).collect()
}

fn furthest(one: &Image, other: &Image) -> u8 {
    one.pixels.iter().zip(&other.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn pixels_are_those_of_pillow() {
    let all = pictures();
    assert!(all.len() > 60, "{}", all.len());
    for (name, bytes, expected) in all {
        let found = decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((found.width, found.height), (expected.width, expected.height), "{name}");
        let allowed = match name.rsplit('.').next().unwrap() {
            "jpg" => 9,
            _ if name == "five_bits.bmp" => 1,
            _ => 0,
        };
        assert!(
            furthest(&found, &expected) <= allowed,
            "{name}: {:?} instead of {:?}",
            found.pixels,
            expected.pixels
        );
    }
}

#[test]
fn a_cut_file_is_an_error_or_lacks_no_pixel() {
    for (name, bytes, _) in pictures() {
        let whole = decode(&bytes).unwrap();
        for held in 0..bytes.len() {
            let Ok(image) = decode(&bytes[..held]) else { continue };
            // The last number of a plain PNM may lose its last digit, since nothing in the file shows that
            // digits are missing.
            if name != "plain.ppm" {
                assert_eq!(image, whole, "{name}, {held} of {} bytes", bytes.len());
            }
            assert!(!is(&name, "jpg"), "{name}, {held} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn a_jpeg_is_refused_at_every_length_but_its_own_whatever_follows() {
    for (name, bytes, _) in pictures().into_iter().filter(|(name, ..)| is(name, "jpg")) {
        let whole = decode(&bytes).unwrap();
        // The file is as long as the whole one, but its end was not written.
        for held in 0..bytes.len() - 1 {
            let mut zeros = bytes[..held].to_vec();
            zeros.resize(bytes.len(), 0);
            let message = decode(&zeros).unwrap_err();
            assert!(!message.is_empty(), "{name}");
        }
        // Bytes after the end are not part of the picture.
        assert_eq!(decode(&[&bytes[..], b"appended \xff\xd8 by somebody"].concat()).unwrap(), whole);
    }
    let (_, bytes, _) = pictures().into_iter().find(|(name, ..)| name == "rgb_baseline.jpg").unwrap();
    let message = decode(&bytes[..bytes.len() - 10]).unwrap_err();
    assert!(message.contains("a JPEG cut after") && message.contains("no end marker follows"), "{message}");
}

#[test]
fn a_webp_that_lacks_its_last_byte_is_an_error() {
    for (name, bytes) in samples().iter().filter(|(name, _)| is(name, "webp")) {
        assert!(decode(bytes).is_ok(), "{name}");
        let message = decode(&bytes[..bytes.len() - 1]).unwrap_err();
        let whole = format!("a WebP cut after {} bytes: its header says {}", bytes.len() - 1, bytes.len());
        assert_eq!(message, whole, "{name}");
    }
}

#[test]
fn a_jpeg_cut_in_its_head_and_closed_again_is_not_said_to_end_without_a_marker() {
    let (_, bytes, _) = pictures().into_iter().find(|(name, ..)| name == "rgb_baseline.jpg").unwrap();
    let scan = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    // The file is cut within a segment, at least two bytes before its end, so that the new marker does not
    // complete the segment.
    let mut segments = vec![];
    let mut at = 2;
    while at < scan {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        segments.push((at + 2, length));
        at += 2 + length;
    }
    assert!(segments.len() > 3);
    for (start, length) in segments {
        for held in [start + 2, start + length / 2, start + length - 3] {
            let closed = [&bytes[..held], &[0xFF, 0xD9]].concat();
            let message = decode(&closed).unwrap_err();
            let told = format!(
                "its segment at byte {start} claims {length} bytes, of which {} are there",
                held + 2 - start
            );
            assert!(message.contains(&told), "{message}");
        }
    }
}

#[test]
fn a_jpeg_whose_codes_are_damaged_is_refused_and_one_with_a_sloppy_head_is_not() {
    let (_, bytes, _) = pictures().into_iter().find(|(name, ..)| name == "rgb_baseline.jpg").unwrap();
    let whole = decode(&bytes).unwrap();
    let scan = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    let start = scan + 2 + usize::from(bytes[scan + 3]);
    // No Huffman code begins with sixteen ones.
    let mut damaged = bytes.clone();
    damaged.splice(start + 8..start + 12, [0xFF, 0x00, 0xFF, 0x00, 0xFF, 0x00, 0xFF, 0x00]);
    let message = decode(&damaged).unwrap_err();
    assert!(message.contains("fails to decode") && message.contains("Huffman"), "{message}");
    // With bytes between two headers, Pillow reads the same picture.
    let mut sloppy = bytes.clone();
    let first_end = 4 + usize::from(bytes[5]);
    sloppy.splice(first_end..first_end, *b"sloppy");
    assert_eq!(decode(&sloppy).unwrap(), whole);
}

#[test]
fn what_a_file_holds_decides_and_what_is_no_image_is_named() {
    assert_eq!(decode(b"").unwrap_err(), "an empty file");
    assert_eq!(decode(b"<svg xmlns=...>").unwrap_err(), "bytes of no known image format");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really_a_png.jpg");
    fs_err::write(&path, png((3, 2), |_, _| [1, 2, 3])).unwrap();
    assert_eq!(load(&path, "").unwrap().pixels, [1, 2, 3].repeat(6));
}

#[test]
fn an_image_that_claims_any_number_of_pixels_is_not_decoded() {
    let mut bytes = png((3, 2), |_, _| [1, 2, 3]);
    // These bytes are the width, the height, and the checksum of their chunk.
    bytes[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let sum = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(decode(&bytes).unwrap_err(), "an image of 16384 x 16384 pixels, too many to decode");
    // A GIF and a JPEG claim too many pixels as well.
    let all = samples();
    let mut gif = all["few.gif"].clone();
    gif[6..10].fill(0xFF);
    assert_eq!(decode(&gif).unwrap_err(), "an image of 65535 x 65535 pixels, too many to decode");
    let mut jpeg = all["rgb_baseline.jpg"].clone();
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    assert_eq!(decode(&jpeg).unwrap_err(), "an image of 65535 x 65535 pixels, too many to decode");
}

#[cfg(unix)]
#[test]
fn pipes_devices_and_endless_files_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(std::process::Command::new("mkfifo").arg(at("pipe.png")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", at("zeros.png")).unwrap();
    // The file consists of holes, which need no space on the disk.
    fs_err::File::create(at("long.png")).unwrap().set_len(LONGEST + 1).unwrap();
    let message = |name: &str| load(&at(name), "do this").unwrap_err().to_string();
    assert!(message("pipe.png").ends_with("pipe.png is a named pipe, expected a regular file; do this"));
    assert!(message("zeros.png").ends_with("zeros.png is a device, expected a regular file; do this"));
    assert!(message("long.png").contains("long.png has 268435457 bytes or more, expected at most 268435456"));
}
