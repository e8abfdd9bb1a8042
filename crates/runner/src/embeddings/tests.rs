//! Files of each form, as numpy writes them, and what is told of others.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Cursor, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::numpy::{read_npy, read_npz};
use super::{classes, read, scale_to_unit_length, write};
use crate::methods::Features;

/// A `.npy` file of version 1, its header padded to 64 bytes as numpy's is.
fn npy(descr: &str, columns_first: bool, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let order = if columns_first { "True" } else { "False" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - header.len() - 1));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((length as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(numbers);
    file
}

fn npz(members: &[(&str, &[u8])], compression: CompressionMethod) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(compression);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn numbers_of_every_type_are_read() {
    let one = |descr: &str, numbers: &[u8]| read_npy(&npy(descr, false, "(2,)", numbers)).unwrap();
    let f = |descr: &str, numbers: &[u8]| one(descr, numbers).into_floats();
    let i = |descr: &str, numbers: &[u8]| one(descr, numbers).into_integers().unwrap();
    assert_eq!(f("<f4", &floats(&[1.5, -2.0])), [1.5, -2.0]);
    assert_eq!(f(">f4", &[1.5_f32.to_be_bytes(), 2.0_f32.to_be_bytes()].concat()), [1.5, 2.0]);
    assert_eq!(f("<f8", &[1.5_f64.to_le_bytes(), (-2.0_f64).to_le_bytes()].concat()), [1.5, -2.0]);
    assert_eq!(f("<f2", &[0x00, 0x3e, 0x00, 0xc0]), [1.5, -2.0]);
    assert_eq!(f("<i2", &[1, 0, 0xff, 0xff]), [1.0, -1.0]);
    assert_eq!(i("|i1", &[0xff, 127]), [-1, 127]);
    assert_eq!(i("|u1", &[0xff, 127]), [255, 127]);
    assert_eq!(i("|b1", &[1, 0]), [1, 0]);
    assert_eq!(i("<i4", &[7, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]), [7, -2]);
    assert_eq!(i("<i8", &[5_i64.to_le_bytes(), i64::MIN.to_le_bytes()].concat()), [5, i64::MIN]);
    assert_eq!(i(">u4", &[0, 0, 1, 0, 0x80, 0, 0, 0]), [256, 1 << 31]);
}

#[test]
fn columns_may_come_first_and_headers_be_of_other_versions() {
    let file = npy("<f4", true, "(2, 3)", &floats(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    let array = read_npy(&file).unwrap();
    assert_eq!(array.shape, [2, 3]);
    assert_eq!(array.into_floats(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let header = b"{\"shape\": (2L, 1L), 'fortran_order': False, 'descr': '|u1'}";
    let mut file = b"\x93NUMPY\x03\x00".to_vec();
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header);
    file.extend([3, 9]);
    assert_eq!(read_npy(&file).unwrap().into_integers().unwrap(), [3, 9]);
    assert_eq!(read_npy(&npy("<f8", false, "()", &2.0_f64.to_le_bytes())).unwrap().into_floats(), [2.0]);
}

#[test]
fn what_is_no_array_of_numbers_is_told() {
    let told = |file: &[u8]| read_npy(file).unwrap_err();
    assert_eq!(told(b"PK"), "bytes that numpy.save did not write");
    assert_eq!(told(b"\x93NUMPY\x01\x00\x46"), "a file that ends after 9 bytes, in its header");
    assert_eq!(told(b"\x93NUMPY\x09\x00\x46\x00"), "version 9 of the format");
    assert_eq!(told(&npy("|O", false, "(2,)", b"")), "numbers of the type \"|O\"");
    assert_eq!(told(&npy("<U4", false, "(2,)", b"")), "numbers of the type \"<U4\"");
    let fields = b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n";
    let file = [b"\x93NUMPY\x01\x00".as_slice(), &(fields.len() as u16).to_le_bytes(), fields].concat();
    assert!(told(&file).starts_with("an array of several fields"), "{}", told(&file));
    assert_eq!(
        told(&npy("<f4", false, "(3,)", &[0; 8])),
        "the shape [3] of numbers of 4 bytes and 8 bytes of them"
    );
    let huge = format!("({}, {})", u64::MAX, u64::MAX);
    assert!(told(&npy("<f4", false, &huge, &[])).contains("0 bytes of them"));
    assert!(told(&npy("<f4", false, "(2, -1)", &[])).starts_with("the header"));
    assert!(told(&npy("<f4", true, "(1, 1, 1)", &[0; 4])).starts_with("columns first"));
}

#[test]
fn archives_are_read_packed_or_not_and_bombs_are_told() {
    let values = npy("<f4", false, "(1, 2)", &floats(&[3.0, 4.0]));
    for compression in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let file = npz(&[("embeddings.npy", &values), ("notes.txt", b"not an array")], compression);
        let arrays = read_npz(&file).unwrap();
        assert_eq!(arrays.len(), 1);
        assert_eq!(arrays[0].0, "embeddings");
    }
    let bomb = npz(&[("embeddings.npy", &vec![0; 1 << 20])], CompressionMethod::Deflated);
    assert_eq!(read_npz(&bomb).unwrap_err(), "an archive that unpacks to more than 64 times its length");
    let text = npz(&[("labels.npy", b"text")], CompressionMethod::Stored);
    assert_eq!(read_npz(&text).unwrap_err(), "the array \"labels\" with bytes that numpy.save did not write");
}

#[test]
fn the_three_forms_hold_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let features = Features { values: vec![3.0, 4.0, 0.0, 0.0, -1.0, 0.0], dim: 2 };
    let (embeddings, labels) = (
        npy("<f4", false, "(3, 2)", &floats(&features.values)),
        npy("<i4", false, "(3,)", &[7, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0]),
    );
    write(&path("a.safetensors"), &features, &[7, 9, 7], &"where it comes from").unwrap();
    let members = [("embeddings.npy", &embeddings[..]), ("labels.npy", &labels)];
    std::fs::write(path("a.npz"), npz(&members, CompressionMethod::Deflated)).unwrap();
    std::fs::write(path("a.npy"), &embeddings).unwrap();
    std::fs::write(path("l.npy"), &labels).unwrap();
    for (file, labels) in [("a.safetensors", None), ("a.npz", None), ("a.npy", Some(path("l.npy")))] {
        let mut read = read(&path(file), labels.as_deref()).unwrap();
        assert_eq!((&read.features.values, read.features.dim), (&features.values, 2), "{file}");
        assert_eq!(read.labels, [7, 9, 7], "{file}");
        scale_to_unit_length(&mut read.features);
        assert_eq!(read.features.values, [0.6, 0.8, 0.0, 0.0, -1.0, 0.0]);
    }
}

#[test]
fn a_file_of_something_else_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let told = |file: &str, labels: Option<&Path>| read(&path(file), labels).unwrap_err().to_string();
    assert!(told("none.npz", None).contains("none.npz"));
    let tensor = Tensor::new(&[[1.0_f32, 2.0]], &Device::Cpu).unwrap();
    invaspread_models::write_weights(&path("w.safetensors"), &[("embeddings".to_owned(), tensor)]).unwrap();
    let error = told("w.safetensors", None);
    assert!(error.contains("w.safetensors: found no \"labels\", expected `embeddings`"), "{error}");
    std::fs::write(path("e.npy"), npy("<f4", false, "(1, 2)", &floats(&[1.0, 2.0]))).unwrap();
    assert!(told("e.npy", None).contains("found no file of labels, expected one more .npy file"));
    std::fs::write(path("two.npy"), npy("|u1", false, "(2,)", &[1, 2])).unwrap();
    let error = told("e.npy", Some(&path("two.npy")));
    assert!(error.contains("two.npy: found 2 labels of 1 embeddings"), "{error}");
    assert!(told("two.npy", Some(&path("two.npy"))).contains("embeddings of the shape [2]"));
    assert!(told("e.npy", Some(&path("e.npy"))).contains("found labels with fractions"));
    std::fs::write(path("e.csv"), "1,2").unwrap();
    assert!(
        told("e.csv", None).contains("found the ending \"csv\", expected a .safetensors, .npz or .npy file")
    );
    assert!(told("w.safetensors", Some(&path("two.npy"))).contains("found a file of labels beside it"));
}

#[test]
fn the_same_label_is_the_same_class_in_both() {
    let (test, gallery, count) = classes(&[9, -3, 9], Some(&[5, 9]));
    assert_eq!((test, gallery, count), (vec![2, 0, 2], Some(vec![1, 2]), 3));
    assert_eq!(classes(&[4, 4], None), (vec![0, 0], None, 1));
}

proptest! {
    /// Whatever bytes a file is changed in or cut to, reading it ends.
    #[test]
    fn damaged_files_end_in_an_error_or_an_array(cut in 0..100_usize, at in 0..100_usize, byte: u8) {
        let mut file = npy("<f4", false, "(1, 2)", &floats(&[1.0, 2.0]));
        let length = file.len();
        file[at * (length - 1) / 99] = byte;
        file.truncate(length - cut * length / 200);
        if let Ok(array) = read_npy(&file) {
            prop_assert!(array.shape.iter().product::<usize>() <= 8);
        }
    }
}
