//! Tests files that PyTorch wrote (`samples.py`), in the forms before and after PyTorch 1.6.

use candle_core::{DType, Tensor};

use super::super::read;
use crate::corpus::corpus;
use crate::weights::StateDict;

const OLD: &str = "torch1.12_entries";
const NEW: &str = "torch1.12_entries.pth.tar";
const OLDEST: &str = "torch1.0_entries";
const OLD_PROTOCOL_4: &str = "torch1.12_protocol4";
const NEW_PROTOCOL_4: &str = "torch1.12_protocol4.bin";
const OLD_MODULE: &str = "torch1.12_module";
const NEW_MODULE: &str = "torch1.12_module.pt";
const NESTED: &str = "torch1.12_nested.ckpt";
const RELEASED: &str = "torch1.0_released_best.t";

fn sample(name: &str) -> Vec<u8> {
    corpus(&format!("weights_pickle/{name}"))
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn names(state_dict: &StateDict) -> Vec<&str> {
    let mut names: Vec<&str> = state_dict.tensors.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn each_form_gives_the_same_tensors() {
    for file in [OLDEST, OLD, NEW, OLD_PROTOCOL_4, NEW_PROTOCOL_4] {
        let [state_dict] = &read(&sample(file)).unwrap()[..] else { panic!("one state dict") };
        let held = |name: &str| {
            let tensor = &state_dict.tensors[name];
            (tensor.dtype(), tensor.dims().to_vec(), values(tensor))
        };
        let counted = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(held("weight"), (DType::F32, vec![2, 3], counted.clone()));
        assert_eq!(held("tied"), (DType::F32, vec![2, 3], counted));
        assert_eq!(held("turned"), (DType::F32, vec![3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        assert_eq!(held("late"), (DType::F32, vec![3], vec![3.0, 4.0, 5.0]));
        assert_eq!(held("parameter"), (DType::F32, vec![2], vec![1.5, -2.5]));
        assert_eq!(held("half"), (DType::F16, vec![2], vec![0.5, 65504.0]));
        assert_eq!(held("double"), (DType::F64, vec![1], vec![1e39]));
        assert_eq!(held("count"), (DType::I64, vec![], vec![7.0]));
        assert_eq!(held("bytes"), (DType::U8, vec![2], vec![0.0, 255.0]));
        if file == OLDEST {
            assert_eq!((state_dict.tensors.len(), state_dict.not_read.len()), (9, 0));
            continue;
        }
        assert_eq!(held("brain"), (DType::BF16, vec![2], vec![1.0, -3.0]));
        assert_eq!(state_dict.tensors.len(), 10);
        let not_read: Vec<_> = state_dict.not_read.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(not_read, ["mask", "sparse"], "{:?}", state_dict.not_read);
    }
}

#[test]
fn whole_modules_give_their_state_dict() {
    let names_of_small = [
        "module.conv.bias",
        "module.conv.weight",
        "module.norm.bias",
        "module.norm.num_batches_tracked",
        "module.norm.running_mean",
        "module.norm.running_var",
        "module.norm.weight",
    ];
    for file in [OLD_MODULE, NEW_MODULE] {
        let [state_dict] = &read(&sample(file)).unwrap()[..] else { panic!("one state dict") };
        assert_eq!(names(state_dict), names_of_small);
        assert_eq!(values(&state_dict.tensors["module.conv.bias"]), [-19.0 / 64.0]);
    }
}

#[test]
fn state_dicts_are_found_beside_other_things() {
    let found = read(&sample(NESTED)).unwrap();
    let places: Vec<&str> = found.iter().map(|state_dict| state_dict.place.as_str()).collect();
    assert_eq!(places, ["", "state_dict", "ema.shadow"], "an optimizer's state is none");
    assert_eq!(names(&found[0]), ["best_acc1"]);
    assert!(names(&found[1]).contains(&"model.conv.weight") && names(&found[2]).contains(&"conv.weight"));
}

#[test]
fn every_truncation_of_the_older_form_is_an_error() {
    let (old, released) = (sample(OLD), sample(RELEASED));
    for held in 0..old.len() {
        assert!(read(&old[..held]).is_err(), "{held}");
    }
    for held in (0..released.len()).step_by(97) {
        assert!(read(&released[..held]).is_err(), "{held}");
    }
}
