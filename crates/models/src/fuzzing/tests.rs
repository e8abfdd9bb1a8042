//! Runs every input that fuzzing kept, and checks the inputs that fuzzing starts from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::weights::caffe::tests::{layer, old_layer};
use crate::weights::pth::tests::{Saved, state_dict, under};
use crate::write_weights;

mod replay;
mod seed;

use replay::replay;
use seed::seed;

#[test]
fn weights_pickle() {
    replay("weights_pickle", super::weights_pickle);
}

#[test]
fn weights_safetensors() {
    replay("weights_safetensors", super::weights_safetensors);
}

#[test]
fn weights_caffemodel() {
    replay("weights_caffemodel", super::weights_caffemodel);
}

#[test]
fn weights_hdf5() {
    replay("weights_hdf5", super::weights_hdf5);
}

#[test]
fn seeds() {
    let plain = state_dict(&[
        Saved {
            name: "weight",
            kind: "FloatStorage",
            shape: &[2, 3],
            strides: &[3, 1],
            offset: 1,
            parameter: false,
        },
        Saved {
            name: "bias",
            kind: "HalfStorage",
            shape: &[2, 3],
            strides: &[1, 2],
            offset: 0,
            parameter: true,
        },
        Saved { name: "count", kind: "LongStorage", shape: &[], strides: &[], offset: 7, parameter: false },
    ]);
    let nested = under("net", &plain);
    seed("weights_pickle", "seed_plain.pkl", &plain);
    seed("weights_pickle", "seed_nested.pkl", &nested);
    // Inputs with which candle's reader fails: a string of 4 GB, a call without arguments, and values each of
    // which is twice as long as the one before.
    seed("weights_pickle", "long_string.pkl", b"\x80\x02X\xff\xff\xff\xff");
    seed(
        "weights_pickle",
        "no_arguments.pkl",
        b"\x80\x02}X\x06\0\0\0weightctorch._utils\n_rebuild_tensor_v2\n)Rs.",
    );
    let doubled: Vec<u8> = (0..100).flat_map(|key| [b'q', key, b'h', key, b'h', key, 0x86]).collect();
    seed("weights_pickle", "doubled.pkl", &[b"\x80\x02)", &doubled[..], b"."].concat());
    seed("weights_pickle", "seed.pth", &super::archive(&[("a/data.pkl", &nested), ("a/data/0", &[1; 64])]));

    // A shape with a zero, so that it has no elements, whose other lengths candle multiplies beyond 64 bits.
    let huge = [0, u64::MAX, u64::MAX];
    seed("weights_caffemodel", "zero_and_huge", &layer("conv1/7x7_s2", &[(&huge, &[])]));
    let header = format!(r#"{{"weight":{{"dtype":"F32","shape":{huge:?},"data_offsets":[0,0]}}}}"#);
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    seed("weights_safetensors", "zero_and_huge.safetensors", &bytes);

    let convolution: [(&[u64], &[f32]); 2] = [(&[2, 1, 1, 2], &[1.0, 2.0, 3.0, 4.0]), (&[2], &[5.0, 6.0])];
    seed("weights_caffemodel", "seed_new", &layer("conv1/7x7_s2", &convolution));
    let convolution: [([u64; 4], &[f32]); 2] =
        [([2, 1, 1, 2], &[1.0, 2.0, 3.0, 4.0]), ([1, 1, 1, 2], &[5.0, 6.0])];
    seed("weights_caffemodel", "seed_old", &old_layer("conv1/7x7_s2", &convolution));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.safetensors");
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let tensors = HashMap::from([
        ("layer.weight".to_owned(), zeros(&[2, 3], DType::F32)),
        ("layer.count".to_owned(), zeros(&[], DType::I64)),
        ("layer.half".to_owned(), zeros(&[4], DType::BF16)),
    ]);
    write_weights(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
    seed("weights_safetensors", "seed.safetensors", &std::fs::read(&path).unwrap());
}
