//! The sum of two gradients of one value, in place.

#![expect(unsafe_code, reason = "vector loads and stores of whole vectors inside of a slice")]

use crate::simd::{Kernel, Number, Vector, dispatch};
use crate::storage::{Scalar, slice};
use crate::team;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, bail};
use half::bf16;

/// The op `a += b`.
pub(crate) struct AddInto;

/// Values that one task adds.
const BLOCK: usize = 1 << 14;

impl InplaceOp2 for AddInto {
    fn name(&self) -> &'static str {
        "add_into"
    }

    fn cpu_fwd(&self, to: &mut CpuStorage, lt: &Layout, from: &CpuStorage, lf: &Layout) -> Result<()> {
        let Some((start, end)) = lt.contiguous_offsets() else {
            bail!("a sum of gradients is not contiguous")
        };
        let length = end - start;
        let same = |found: usize| {
            if found == length {
                return Ok(());
            }
            bail!("two gradients of one value have {length} and {found} numbers")
        };
        match to {
            CpuStorage::F32(to) => {
                let from = slice::<f32>(from, lf)?;
                same(from.len())?;
                add(&mut to[start..end], from);
            }
            CpuStorage::BF16(to) => {
                let from = slice::<bf16>(from, lf)?;
                same(from.len())?;
                add(&mut to[start..end], from);
            }
            CpuStorage::F64(to) => {
                let from = slice::<f64>(from, lf)?;
                same(from.len())?;
                for (t, f) in to[start..end].iter_mut().zip(from) {
                    *t += f;
                }
            }
            _ => bail!("gradients must be f32, bf16 or f64"),
        }
        Ok(())
    }
}

/// Adds numbers to as many others, in f32.
fn add<X: Number + Scalar>(to: &mut [X], from: &[X]) {
    team::for_each_chunk(to, BLOCK, |i, to| dispatch(Add { from: &from[i * BLOCK..][..to.len()], to }));
}

struct Add<'a, X> {
    from: &'a [X],
    to: &'a mut [X],
}

impl<X: Number + Scalar> Kernel for Add<'_, X> {
    const BF16: bool = X::HALF;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let whole = self.to.len() / V::LANES * V::LANES;
        for at in (0..whole).step_by(V::LANES) {
            // SAFETY: a whole vector of both slices, which have equal lengths.
            unsafe {
                let to = self.to.as_mut_ptr().add(at);
                X::store(X::load::<V>(to).add(X::load(self.from.as_ptr().add(at))), to);
            }
        }
        for (to, from) in self.to[whole..].iter_mut().zip(&self.from[whole..]) {
            *to = X::write(f64::from((to.read() + from.read()) as f32));
        }
    }
}
