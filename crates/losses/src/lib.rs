//! The objectives of the paper's Table 1 and newer ones, one file each: functions of embeddings and, for
//! some, of a memory bank.
//!
//! Every loss takes candle tensors (f32 or f64 on the CPU, f32 on CUDA) and returns a scalar tensor that
//! `backward` goes through. Value and gradient are computed together in one pass over slices; candle only
//! carries them. Nothing here reads a file, knows a data set or picks a device. The number of threads never
//! changes a bit: rows are computed in parallel, each is reduced in a fixed order, and the rows are added up
//! one after another.
//!
//! Every softmax subtracts the largest score first and keeps the row's own class apart from all the others.
//! So neither `log p` near p = 1 nor `log(1 - p)` loses its digits, and no temperature down to 0.01 overflows
//! in f32.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod cases;
mod check;
mod columns;
mod float;
mod memory_bank;
pub mod op;
mod partners;
mod queue;
#[cfg(feature = "cuda")]
mod self_check;
mod similarities;
mod softmax;
mod swapped;
#[cfg(test)]
mod testing;
mod unit_weight;

/// Calls the macro `$then` with the modules `$more` and those of all objectives. With this list, this crate
/// declares and exports the modules and checks the objectives, and `invaspread-runner` makes a method of
/// each.
#[doc(hidden)]
#[macro_export]
macro_rules! each_objective {
    ($then:ident $(, $more:ident)*) => {
        $then! {
            $($more,)*
            deepcluster,
            exemplar,
            npsoftmax,
            nce,
            triplet,
            ntxent,
            dcl,
            moco_v2,
            byol,
            simsiam,
            nnclr,
            barlow_twins,
            vicreg,
            swav,
            dino,
            invaspread,
        }
    };
}

macro_rules! objectives {
    ($($module:ident),* $(,)?) => {
        $(
            mod $module;
            pub use $module::*;
        )*

        /// Returns every objective at every setting that changes its computation.
        ///
        /// ```
        /// use candle_core::{Device, Tensor};
        /// use invaspread_losses::{Context, MemoryBank, Sizes, all_cases};
        ///
        /// let sizes = Sizes { images: 2, dim: 4, entries: 3 };
        /// let memory = MemoryBank::new(sizes.entries, sizes.dim, 0)?;
        /// for case in all_cases() {
        ///     let inputs = case.inputs.iter().map(|input| {
        ///         let [rows, columns] = input.shape(sizes);
        ///         Tensor::randn(0.0f32, 0.1, (rows, columns), &Device::Cpu)
        ///     });
        ///     let inputs = inputs.collect::<candle_core::Result<Vec<_>>>()?;
        ///     let loss = (case.loss)(&inputs, &Context { memory: &memory, index: &[2, 0] })?;
        ///     assert!(loss.to_scalar::<f32>()?.is_finite(), "{}", case.name);
        /// }
        /// # Ok::<(), candle_core::Error>(())
        /// ```
        pub fn all_cases() -> Vec<Case> {
            let mut cases = Vec::new();
            $( cases.extend($module::cases()); )*
            cases
        }
    };
}
each_objective!(objectives);

pub use cases::{Case, Context, Input, Sizes};
pub use memory_bank::MemoryBank;
pub use queue::Queue;
#[cfg(feature = "cuda")]
pub use self_check::self_check_on;
