//! Stands for `tiles` where the processor or the system has none.

#[derive(Debug)]
pub(super) struct TiledRows;

impl TiledRows {
    pub(super) fn new(_: usize, _: usize, _: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        unreachable!("no rows are multiplied by tiles")
    }

    pub(super) fn products(&self, _: &[f32], _: usize, _: usize, _: &mut [f32]) {
        unreachable!("no rows are multiplied by tiles")
    }
}

pub(super) fn error(_: usize) -> f64 {
    0.0
}
