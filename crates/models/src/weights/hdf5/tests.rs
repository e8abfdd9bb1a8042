//! Tests files that h5py and hickle wrote (`samples.py`), and damaged files.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::{name, read};
use crate::corpus::corpus;

const HICKLE_2: &str = "hickle2.h5";
const HICKLE_5: &str = "hickle5.h5";
const PACKED: &str = "packed.h5";
const PLAIN: &str = "plain.h5";
const CIRCLE: &str = "circle.h5";
const ZEROS: &str = "zeros.h5";

fn sample(name: &str) -> Vec<u8> {
    corpus(&format!("weights_hdf5/{name}"))
}

fn map(file: &str) -> HashMap<String, Tensor> {
    read(sample(file)).unwrap().into_iter().collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_dict_of_hickle_has_its_keys_as_names() {
    for file in [HICKLE_2, HICKLE_5, PACKED] {
        let tensors = map(file);
        let mut names: Vec<_> = tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["conv1.7x7_s2.bias", "conv1.7x7_s2.weight"]);
        let (weight, bias) = (&tensors["conv1.7x7_s2.weight"], &tensors["conv1.7x7_s2.bias"]);
        assert_eq!((weight.dims(), weight.dtype()), (&[2, 1, 2, 2][..], DType::F32));
        assert_eq!(values(weight), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(values(bias), [9.0, 10.0]);
    }
}

#[test]
fn numbers_of_every_type_keep_it_and_text_is_passed_over() {
    let tensors = map(PLAIN);
    let held = |name: &str| {
        let tensor = &tensors[name];
        (tensor.dims().to_vec(), tensor.dtype(), values(tensor))
    };
    assert_eq!(tensors.len(), 5);
    assert_eq!(held("layer/weight"), (vec![2, 2], DType::F64, vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(held("half"), (vec![3], DType::F16, vec![1.0, 2.0, 3.0]));
    assert_eq!(held("count"), (vec![], DType::I64, vec![7.0]));
    assert_eq!(held("mask"), (vec![2], DType::U8, vec![0.0, 255.0]));
    // This array is in big-endian order.
    assert_eq!(held("big"), (vec![1], DType::F32, vec![1.5]));
}

#[test]
fn only_wrapping_is_taken_off() {
    let of =
        |path: &[&str], array| name(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>(), array);
    assert_eq!(of(&["data_0", "conv1.weight"], "data_0"), "conv1.weight");
    assert_eq!(of(&["data"], "\"conv1.weight\""), "conv1.weight");
    assert_eq!(of(&["data_0", "'conv1.weight'"], "data_0"), "conv1.weight");
    assert_eq!(of(&[], "data"), "data");
    assert_eq!(of(&["data"], "data_0"), "data_0");
    assert_eq!(of(&["database"], "data_x"), "database/data_x");
    assert_eq!(of(&["a", "data_1", "b"], "c"), "a/data_1/b/c");
}

#[test]
fn a_group_that_holds_itself_ends() {
    let tensors = map(CIRCLE);
    assert_eq!(tensors.len(), 1);
    assert_eq!(values(&tensors["inner/weight"]), [1.0]);
}

/// The file holds a gigabyte of zeros in 1,400 bytes.
#[test]
fn what_unpacks_past_all_proportion_is_refused() {
    let error = read(sample(ZEROS)).unwrap_err();
    assert!(error.contains("\"zeros\" with the shape [16384, 16384], of F32"), "{error}");
    assert!(error.contains("more than 64 times the file's length"), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_holds_less() {
    for file in [HICKLE_2, HICKLE_5, PACKED, PLAIN] {
        let file = sample(file);
        for length in (0..file.len()).step_by(13) {
            if let Ok(tensors) = read(file[..length].to_vec()) {
                assert!(tensors.len() <= 5, "{length}");
            }
        }
    }
    let mut half = sample(HICKLE_2);
    half.truncate(half.len() / 2);
    let error = read(half).unwrap_err();
    assert!(error.starts_with("bytes that are no HDF5"), "{error}");
    assert_eq!(
        read(b"no such file".to_vec()).unwrap_err().split(" (").next(),
        Some("bytes that are no HDF5")
    );
}

/// Checks all 57 layers of the released code's `googlenet.h5`, in the layout that hickle gave them.
#[test]
fn the_paths_of_hickle_are_names_that_inception_knows() {
    use crate::weights::load::{HeadNeeded, load_from};
    use crate::{InceptionConfig, Network, StateDict};
    let network = Network::new(InceptionConfig { embedding: 4, ..Default::default() }, 0).unwrap();
    let tensors: HashMap<String, Tensor> = network
        .state_dict()
        .unwrap()
        .into_iter()
        .filter_map(|(entry, tensor)| {
            let key = entry.strip_prefix("base_model.")?.to_owned();
            let name = name(&["data_0".to_owned(), key], "data_0");
            Some((name, Tensor::zeros(tensor.dims(), DType::F32, &Device::Cpu).unwrap()))
        })
        .collect();
    let state_dict = StateDict { place: String::new(), tensors, not_read: Vec::new() };
    let report = load_from(&[state_dict], &network, HeadNeeded::No).unwrap();
    assert_eq!((report.loaded.len(), &report.prefix[..]), (2 * 57, ""));
}
