//! Tests files as Caffe writes them, made field by field, and damaged or hostile files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::read;
use candle_core::{DType, Tensor};

fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn varint(field: u64, value: u64) -> Vec<u8> {
    [number(field << 3), number(value)].concat()
}

pub(crate) fn bytes(field: u64, bytes: &[u8]) -> Vec<u8> {
    [number(field << 3 | 2), number(bytes.len() as u64), bytes.to_vec()].concat()
}

fn packed(values: &[f32]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    bytes(5, &values)
}

fn shape(dims: &[u64]) -> Vec<u8> {
    bytes(7, &bytes(1, &dims.iter().flat_map(|&d| number(d)).collect::<Vec<_>>()))
}

/// Returns a layer of the new form, whose blobs have a list as their shape.
pub(crate) fn layer(name: &str, blobs: &[(&[u64], &[f32])]) -> Vec<u8> {
    let blobs = blobs.iter().flat_map(|(dims, values)| bytes(7, &[shape(dims), packed(values)].concat()));
    bytes(100, &[bytes(1, name.as_bytes()), bytes(2, b"Convolution"), blobs.collect()].concat())
}

/// Returns a layer of the old form, which has a number as its type and four numbers as a shape.
pub(crate) fn old_layer(name: &str, blobs: &[([u64; 4], &[f32])]) -> Vec<u8> {
    let blobs = blobs.iter().flat_map(|(dims, values)| {
        let dims = dims.iter().zip(1..).flat_map(|(&len, field)| varint(field, len));
        bytes(6, &dims.chain(packed(values)).collect::<Vec<_>>())
    });
    bytes(
        2,
        &[bytes(2, b"data"), bytes(3, b"conv1"), bytes(4, name.as_bytes()), varint(5, 4), blobs.collect()]
            .concat(),
    )
}

fn held(tensor: &Tensor) -> (Vec<usize>, Vec<f64>) {
    let values = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (tensor.dims().to_vec(), values)
}

#[test]
fn both_forms_of_layers_and_shapes_are_read() {
    let file = [
        bytes(1, b"a network"),
        old_layer("old/a", &[([2, 1, 1, 1], &[1.0, 2.0]), ([1, 1, 1, 2], &[3.0, 4.0])]),
        // A pool has no blobs.
        old_layer("pool", &[]),
        layer("new/b", &[(&[1, 2], &[5.0, 6.0]), (&[1], &[7.0]), (&[], &[8.0])]),
    ];
    let tensors = read(&file.concat()).unwrap();
    let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["old/a.weight", "old/a.bias", "new/b.weight", "new/b.bias", "new/b.2"]);
    let want = [
        (vec![2, 1, 1, 1], vec![1.0, 2.0]),
        (vec![1, 1, 1, 2], vec![3.0, 4.0]),
        (vec![1, 2], vec![5.0, 6.0]),
        (vec![1], vec![7.0]),
        (vec![], vec![8.0]),
    ];
    assert_eq!(tensors.iter().map(|(_, tensor)| held(tensor)).collect::<Vec<_>>(), want);
}

#[test]
fn numbers_are_read_packed_and_one_by_one_in_both_widths() {
    let float = |value: f32| [number(5 << 3 | 5), value.to_le_bytes().to_vec()].concat();
    let double = |value: f64| [number(8 << 3 | 1), value.to_le_bytes().to_vec()].concat();
    let doubles: Vec<u8> = [0.1f64, 0.2].iter().flat_map(|v| v.to_le_bytes()).collect();
    let unpacked = bytes(7, &[varint(1, 2), varint(1, 1)].concat());
    for (blob, dtype, want) in [
        ([unpacked.clone(), float(0.5), float(-1.5)].concat(), DType::F32, [0.5, -1.5]),
        ([shape(&[2, 1]), packed(&[0.5]), packed(&[-1.5])].concat(), DType::F32, [0.5, -1.5]),
        ([unpacked, double(0.1), double(0.2)].concat(), DType::F64, [0.1, 0.2]),
        ([shape(&[2, 1]), bytes(8, &doubles)].concat(), DType::F64, [0.1, 0.2]),
    ] {
        let file = bytes(100, &[bytes(1, b"ip"), bytes(7, &blob)].concat());
        let tensors = read(&file).unwrap();
        assert_eq!((tensors[0].1.dtype(), held(&tensors[0].1)), (dtype, (vec![2, 1], want.to_vec())));
    }
}

#[test]
fn what_is_wrong_is_told() {
    let wrong = |file: &[u8]| read(file).unwrap_err();
    let blob = |blob: &[u8]| wrong(&bytes(100, &[bytes(1, b"ip"), bytes(7, blob)].concat()));
    assert_eq!(wrong(b""), "a message without layers that have weights");
    assert_eq!(wrong(&layer("pool", &[])), "a message without layers that have weights");
    assert_eq!(wrong(b"\x89HDF\r\n\x1a\n"), "a field of 8 bytes with 6 left");
    assert_eq!(
        wrong(&[number(2 << 3 | 2), number(1 << 60)].concat()),
        "a field of 1152921504606846976 bytes with 0 left"
    );
    assert_eq!(wrong(&[0xff; 20]), "a number of more than ten bytes");
    assert_eq!(wrong(&[0x80]), "a number that is cut off");
    assert_eq!(wrong(&number(2 << 3 | 3)), "a field of kind 3, where 0, 1, 2 and 5 are known");
    assert_eq!(
        blob(&[shape(&[2, 3]), packed(&[1.0])].concat()),
        "the blob \"ip.weight\" with the shape [2, 3] and 1 numbers"
    );
    assert!(blob(&[shape(&[1 << 40, 1 << 40]), packed(&[1.0])].concat()).contains("and 1 numbers"));
    assert_eq!(
        blob(&[shape(&[1; 33]), packed(&[1.0])].concat()),
        "the blob \"ip.weight\" with more than 32 axes"
    );
    assert_eq!(blob(&bytes(5, &[0; 6])), "the blob \"ip.weight\" with 6 bytes of numbers of 4 bytes each");
    let nameless = wrong(&layer("", &[(&[1], &[1.0])]));
    assert_eq!(nameless, "a layer with weights whose name is not 1 to 256 letters");
    let many: Vec<(&[u64], &[f32])> = vec![(&[1], &[1.0]); 17];
    assert_eq!(wrong(&layer("many", &many)), "a layer of more than 16 blobs");
}

#[test]
fn no_cut_ends_the_process() {
    let file = [
        old_layer("old", &[([2, 1, 1, 1], &[1.0, 2.0]), ([1, 1, 1, 2], &[3.0, 4.0])]),
        layer("new", &[(&[1, 2], &[5.0, 6.0])]),
    ]
    .concat();
    for length in 0..file.len() {
        let whole_layers = read(&file[..length]);
        assert!(whole_layers.is_err() || whole_layers.unwrap().len() == 2, "{length}");
    }
    for place in 0..file.len() {
        for value in [0x00, 0x7f, 0x80, 0xff] {
            let mut file = file.clone();
            file[place] = value;
            // The reader must return, whatever the result is.
            let _ = read(&file);
        }
    }
}
