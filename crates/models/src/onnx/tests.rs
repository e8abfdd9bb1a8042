#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::proto::tensor_shape_proto::dimension::Value as Length;
use super::proto::type_proto::Value as Kind;
use super::proto::{ModelProto, ValueInfoProto};
use super::{OnnxNotes, OnnxOutput, is_own_onnx};
use crate::{InceptionConfig, Network, NetworkConfig, ResNetConfig, VitConfig};
use candle_core::DType;
use invaspread_tensor::LocalResponseWindow;
use prost::Message;
use std::collections::{HashMap, HashSet};

/// Small networks of every kind, each with the side of its images.
fn networks() -> Vec<(NetworkConfig, usize)> {
    let small = ResNetConfig { width: 4, embedding: 6, ..ResNetConfig::default() };
    let imagenet = ResNetConfig { width: 4, embedding: 6, ..ResNetConfig::imagenet() };
    let vit = VitConfig { width: 12, depth: 2, heads: 3, embedding: 6, ..VitConfig::tiny() };
    vec![
        (small.clone().into(), 32),
        (ResNetConfig { depth: 50, channels: 1, ..small.clone() }.into(), 32),
        (imagenet.clone().into(), 64),
        (ResNetConfig { depth: 50, ..imagenet }.into(), 65),
        (InceptionConfig { embedding: 6, ..InceptionConfig::default() }.into(), 63),
        (vit.into(), 32),
    ]
}

fn shape(value: &ValueInfoProto) -> (String, Vec<i64>) {
    let Some(Kind::TensorType(tensor)) = value.r#type.clone().unwrap().value else { panic!("{value:?}") };
    let lengths = tensor.shape.unwrap().dim.into_iter().map(|dim| match dim.value.unwrap() {
        Length::DimValue(len) => len,
        Length::DimParam(name) => {
            assert_eq!(name, "N");
            -1
        }
    });
    (value.name.clone().unwrap(), lengths.collect())
}

#[test]
fn every_value_is_made_once_before_its_use_and_every_weight_is_the_state_dicts() {
    for (config, side) in networks() {
        let network = Network::new(config.clone(), 3).unwrap();
        let state: HashMap<String, Vec<u8>> = network
            .state_dict()
            .unwrap()
            .into_iter()
            .filter(|(_, tensor)| tensor.dtype() == DType::F32)
            .map(|(name, tensor)| {
                let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                (name, values.iter().flat_map(|x| x.to_le_bytes()).collect())
            })
            .collect();
        for (output, length) in
            [(OnnxOutput::Embedding, 6), (OnnxOutput::Projection, 6), (OnnxOutput::Pooled, config.pooled())]
        {
            let bytes = network.to_onnx(side, output, OnnxNotes::default()).unwrap();
            let graph = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
            let (channels, side) = (config.channels() as i64, side as i64);
            assert_eq!(shape(&graph.input[0]), ("images".to_owned(), vec![-1, channels, side, side]));
            assert_eq!(shape(&graph.output[0]), (output.name().to_owned(), vec![-1, length as i64]));

            let mut known = HashSet::from(["images".to_owned()]);
            let mut weights = HashMap::new();
            for tensor in &graph.initializer {
                assert!(known.insert(tensor.name.clone().unwrap()), "{config}: {:?}", tensor.name);
                let elements: i64 = tensor.dims.iter().product();
                let bytes = tensor.raw_data.clone().unwrap();
                assert_eq!(bytes.len() as i64, elements * if tensor.data_type == Some(7) { 8 } else { 4 });
                weights.insert(tensor.name.clone().unwrap(), bytes);
            }
            let mut used = HashSet::new();
            for node in &graph.node {
                for input in &node.input {
                    assert!(known.contains(input), "{config}: {input} of {:?}", node.name);
                    used.insert(input.clone());
                }
                for output in &node.output {
                    assert!(known.insert(output.clone()), "{config}: {output} twice");
                }
            }
            let unused: Vec<_> = known.difference(&used).collect();
            assert_eq!(unused, [output.name()], "{config}");
            let head = network.head_names();
            for (name, values) in &state {
                if output == OnnxOutput::Pooled && head.contains(name) {
                    assert!(!weights.contains_key(name), "{config}: {name}");
                } else {
                    assert!(weights[name] == *values, "{config}: {name}");
                }
            }
        }
    }
}

#[test]
fn equal_networks_give_equal_bytes_which_tell_their_origin_and_notes() {
    let make = |notes: OnnxNotes| {
        let config = ResNetConfig { width: 4, ..ResNetConfig::default() };
        Network::new(config, 1).unwrap().to_onnx(32, OnnxOutput::Embedding, notes).unwrap()
    };
    let notes = OnnxNotes {
        description: "a text".to_owned(),
        properties: vec![("mean".to_owned(), "[0.5, 0.5, 0.5]".to_owned())],
    };
    let bytes = make(notes.clone());
    assert!(bytes == make(notes) && is_own_onnx(&bytes) && !is_own_onnx(&bytes[1..]) && !is_own_onnx(&[]));
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    assert_eq!((model.ir_version, model.opset_import[0].version), (Some(8), Some(17)));
    assert_eq!(model.doc_string.as_deref(), Some("a text"));
    let property = &model.metadata_props[0];
    assert_eq!((property.key.as_deref(), property.value.as_deref()), (Some("mean"), Some("[0.5, 0.5, 0.5]")));
    model.producer_name = Some("pytorch".to_owned());
    assert!(!is_own_onnx(&model.encode_to_vec()));
}

#[test]
fn images_that_the_network_does_not_take_are_errors() {
    let says = |config: NetworkConfig, side: usize, words: &[&str]| {
        let network = Network::new(config, 0).unwrap();
        let error = network.to_onnx(side, OnnxOutput::Pooled, OnnxNotes::default()).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "expected {word:?} in {error}");
        }
    };
    says(
        ResNetConfig { width: 4, ..Default::default() }.into(),
        64,
        &["model.pool", "8x8 map", "augment.size"],
    );
    says(VitConfig { width: 12, depth: 1, ..VitConfig::tiny() }.into(), 48, &["32 x 32", "48 x 48"]);
    says(InceptionConfig::default().into(), 3, &["47 pixels"]);
    let window = LocalResponseWindow::CrossMapLrn2d;
    says(InceptionConfig { window, ..InceptionConfig::default() }.into(), 63, &["CrossMapLRN2d", "centered"]);
}
