//! Stands for `amx` where the processor or the system has none.

use super::geometry::Geometry;
use half::bf16;

pub(super) fn fits(_: &Geometry) -> bool {
    false
}

pub(super) fn input_gradient_fits(_: &Geometry) -> bool {
    false
}

pub(super) fn forward(_: &Geometry, _: &[bf16], _: &[f32], _: &mut [bf16]) {
    unreachable!("no shape fits");
}

pub(super) fn input_gradient(_: &Geometry, _: &[f32], _: &[bf16], _: &mut [bf16]) {
    unreachable!("no shape fits");
}

pub(super) fn weight_gradient(_: &Geometry, _: &[bf16], _: &[bf16], _: &mut [f32]) {
    unreachable!("no shape fits");
}
