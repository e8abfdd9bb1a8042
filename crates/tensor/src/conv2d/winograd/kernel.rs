//! The transformed weights.

use super::super::tiles::{PANEL, Product};
use super::SLAB;
use super::points::Points;
use super::transform::{KernelTile, plane, put_both};
use crate::memory::Aligned;
use crate::simd::{Kernel, SharedMut, Vector, dispatch};
use crate::team;
use std::marker::PhantomData;

/// The order in which the kernel is read when it is transformed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Turn {
    /// Unchanged: input channels to output channels.
    Forward,
    /// Turned by 180 degrees, output channels to input channels: the kernel of the input gradient.
    Backward,
}

/// A kernel's weights (9, C_in, C_out) and the way they are read.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) values: &'a [f32],
    pub(super) ci: usize,
    pub(super) co: usize,
    pub(super) turn: Turn,
}

impl Weights<'_> {
    /// Returns the number of channels that are summed over.
    pub(super) fn inputs(&self) -> usize {
        if self.turn == Turn::Forward { self.ci } else { self.co }
    }

    /// Returns the number of channels of the result.
    pub(super) fn outputs(&self) -> usize {
        if self.turn == Turn::Forward { self.co } else { self.ci }
    }

    /// Returns the number of words of one transformed panel of 16 outputs in each plane.
    pub(super) fn panel_words<P: Product>(&self) -> usize {
        self.inputs() * P::ROW
    }

    /// Transforms the 16 outputs of panel `number` into `[inputs / PAIR][16]` words, the first plane at `out`
    /// and each of the others `plane` further.
    pub(super) fn transform_panel<P: Product, F: Points>(&self, number: usize, out: SharedMut, plane: usize) {
        let (inputs, Self { values, ci, co, .. }) = (self.inputs(), *self);
        let product = PhantomData::<(P, F)>;
        if self.turn == Turn::Forward {
            let taps = &values[number * PANEL..];
            return dispatch(Panel { taps, distance: co, inputs, out, plane, product });
        }
        let mut taps = Aligned::uninitialized(9 * inputs * PANEL);
        for (t, taps) in taps.chunks_exact_mut(inputs * PANEL).enumerate() {
            let rows: [&[f32]; PANEL] =
                std::array::from_fn(|l| &values[((8 - t) * ci + number * PANEL + l) * co..][..co]);
            for (i, to) in taps.chunks_exact_mut(PANEL).enumerate() {
                for (to, row) in to.iter_mut().zip(rows) {
                    *to = row[i];
                }
            }
        }
        dispatch(Panel { taps: &taps, distance: PANEL, inputs, out, plane, product });
    }

    /// Returns the distance in words between two points of the weights of a slab of `channels` outputs, and
    /// between two slabs.
    pub(super) fn slab_words<P: Product, F: Points>(&self, channels: usize) -> (usize, usize) {
        let plane = plane(channels / PANEL * self.panel_words::<P>());
        (plane, F::COUNT * plane)
    }

    /// Returns the transformed kernel: for each slab of two panels, for each point, `[2][inputs / PAIR][16]`
    /// words. A task reads a slab from its first word to its last.
    pub(super) fn transform<P: Product, F: Points>(&self) -> Aligned {
        let (plane, slab) = self.slab_words::<P, F>(SLAB);
        let mut points = Aligned::uninitialized(self.outputs().div_ceil(SLAB) * slab);
        let out = SharedMut::new(&mut points);
        team::for_each(self.outputs() / PANEL, |number| {
            let at = number * PANEL / SLAB * slab + number % (SLAB / PANEL) * self.panel_words::<P>();
            // SAFETY: each task writes its own panel of the planes.
            let out = SharedMut::from(unsafe { out.at(at) });
            self.transform_panel::<P, F>(number, out, plane);
        });
        points
    }
}

struct Panel<'a, P, F> {
    /// The weights; the 16 outputs of tap t and input i are at `(t * inputs + i) * distance`.
    taps: &'a [f32],
    distance: usize,
    inputs: usize,
    out: SharedMut,
    plane: usize,
    product: PhantomData<(P, F)>,
}

impl<P: Product, F: Points> Kernel for Panel<'_, P, F> {
    const BF16: bool = P::PAIR == 2;

    #[inline(always)]
    fn run<V: Vector>(self) {
        assert!(self.taps.len() >= (9 * self.inputs - 1) * self.distance + PANEL);
        // Inputs come in panels of 16, so there are pairs of them.
        for i in (0..self.inputs).step_by(2) {
            for lane in (0..PANEL).step_by(V::LANES) {
                // SAFETY: inside the nine taps of this panel; `out` is this task's own panel in each plane.
                unsafe {
                    let tile = |i: usize| KernelTile::<F> {
                        taps: self.taps.as_ptr().add(i * self.distance + lane),
                        distance: self.inputs * self.distance,
                        points: PhantomData,
                    };
                    let to = self.out.at(i * P::ROW + lane);
                    put_both::<V, P>(&tile(i), &tile(i + 1), (to, self.plane));
                }
            }
        }
    }
}
