//! A NaN or an infinity in any input of any objective makes the loss not finite or is an error. The loss is
//! never a plausible number.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;

use broken::{Place, tells};
use candle_core::{DType, Device, Tensor};
use invaspread_losses::{Exemplar, MemoryBank, NpSoftmax, Sizes, all_cases, cluster_cross_entropy};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_objective_hides_what_is_not_finite(
        images in 2usize..7, dim in 1usize..9, more in 0usize..40, seed: u64, input in 0usize..6, at: usize,
    ) {
        let sizes = Sizes { images, dim, entries: images + more };
        for case in all_cases() {
            for dtype in [DType::F32, DType::F64] {
                let told = |value| {
                    tells(&case, (sizes, seed), (dtype, &Device::Cpu), Place { input, at }, value)
                };
                for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    prop_assert!(told(value), "{}, {dtype:?}: {value} was not noticed", case.name);
                }
                for value in [0.0, -0.0] {
                    prop_assert!(!told(value), "{}, {dtype:?}: {value} gave no finite loss", case.name);
                }
            }
        }
    }
}

fn loss(loss: candle_core::Result<Tensor>) -> f64 {
    loss.unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// A score of infinity does not mean that the own class is certain, and a score of minus infinity does not
/// mean that another class is impossible: both give a loss of NaN.
#[test]
fn infinite_scores_are_no_certainty() {
    let infinity = f32::INFINITY;
    for logits in [[infinity, 0.0], [0.0, -infinity], [infinity, -infinity], [f32::NAN, -infinity]] {
        let logits = Tensor::new(&[logits], &Device::Cpu).unwrap();
        let found = loss(cluster_cross_entropy(&logits, &[0]));
        assert!(!found.is_finite(), "{logits}: {found}");
    }
    // All other weights give the score minus infinity.
    let features = Tensor::new(&[[1.0f32]], &Device::Cpu).unwrap();
    let weight = Tensor::new(&[[1.0f32], [-infinity]], &Device::Cpu).unwrap();
    let found = loss(Exemplar::default().loss(&features, &weight, &[0]));
    assert!(!found.is_finite(), "{found}");
}

/// The loss of a single class is zero only if its score is a number.
#[test]
fn a_lone_class_with_a_nan_is_not_free() {
    let of = |logit: f32| loss(cluster_cross_entropy(&Tensor::new(&[[logit]], &Device::Cpu).unwrap(), &[0]));
    assert!(of(3.0) == 0.0 && of(f32::NAN).is_nan() && of(f32::INFINITY).is_nan());
}

/// A value of a feature that is not finite stays visible in the memory bank that it is written to, and in
/// later losses against this bank.
#[test]
fn the_memory_keeps_what_is_not_finite() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut bank = MemoryBank::new(4, 3, 0).unwrap();
        let features = Tensor::new(&[[0.6f32, value, 0.8]], &Device::Cpu).unwrap();
        bank.update(&[2], &features, 0.5).unwrap();
        assert!(bank.entry(2).iter().any(|v| v.is_nan()), "{:?}", bank.entry(2));
        let sound = Tensor::new(&[[0.6f32, 0.0, 0.8]], &Device::Cpu).unwrap();
        assert!(loss(NpSoftmax::default().loss(&sound, &bank, &[0])).is_nan());
    }
}
