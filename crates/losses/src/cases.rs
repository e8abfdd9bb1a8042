//! Every objective at every setting that changes its computation, as a function of matrices: for checks that
//! go over all objectives.

use candle_core::{Result, Tensor};

use crate::MemoryBank;
use crate::op::Objective;

/// The sizes of a batch and of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// B, the number of images: at least 2.
    pub images: usize,
    /// D, the length of a feature: at least 1.
    pub dim: usize,
    /// N, the number of entries of the memory, of weights or of classes: at least B.
    pub entries: usize,
}

/// What an input of an objective holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The features of two views of each image, 2B x D.
    Views,
    /// A feature of each image, B x D.
    Images,
    /// A weight of each entry, or a row of each place of a queue, N x D.
    Entries,
    /// A score of each image for each class, B x N.
    Scores,
    /// A score of two views of each image for each class, 2B x N.
    ViewScores,
}

impl Input {
    /// Returns the rows and the columns.
    pub fn shape(self, Sizes { images, dim, entries }: Sizes) -> [usize; 2] {
        match self {
            Self::Views => [2 * images, dim],
            Self::Images => [images, dim],
            Self::Entries => [entries, dim],
            Self::Scores => [images, entries],
            Self::ViewScores => [2 * images, entries],
        }
    }
}

/// What an objective reads besides its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// A memory of N entries of length D, on the device of the inputs.
    pub memory: &'a MemoryBank,
    /// The entry of each image, B numbers below N.
    pub index: &'a [u32],
}

/// An objective at one choice of its settings.
#[derive(Debug, Clone)]
pub struct Case {
    /// The objective and the settings, for messages.
    pub name: &'static str,
    /// What the inputs hold.
    pub inputs: Vec<Input>,
    /// Which inputs are constants: no gradient flows to them ([`Objective::CONSTANT`]).
    pub constant: Vec<bool>,
    /// Whether inputs on a GPU stay there; otherwise the host computes the loss.
    pub has_cuda_kernel: bool,
    /// Returns the loss of the inputs, a scalar tensor.
    pub loss: fn(&[Tensor], &Context<'_>) -> Result<Tensor>,
}

impl Case {
    /// Makes a case of the objective `O`, which has `N` inputs.
    pub(crate) fn new<const N: usize, O: Objective<N>>(
        name: &'static str,
        inputs: [Input; N],
        loss: fn(&[Tensor], &Context<'_>) -> Result<Tensor>,
    ) -> Self {
        let (inputs, constant) = (inputs.to_vec(), O::CONSTANT.to_vec());
        Self { name, inputs, constant, has_cuda_kernel: O::HAS_CUDA_KERNEL, loss }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Context, Sizes};
    use crate::testing::{matrix_f64, unit_rows};
    use crate::{MemoryBank, all_cases};
    use candle_core::{Tensor, Var};

    #[test]
    fn gradients_reach_all_inputs_but_the_constant_ones() {
        let sizes = Sizes { images: 3, dim: 4, entries: 5 };
        let memory = MemoryBank::new(sizes.entries, sizes.dim, 0).unwrap();
        for case in all_cases() {
            let variables = (0..).zip(&case.inputs).map(|(seed, input)| {
                let [rows, columns] = input.shape(sizes);
                Var::from_tensor(&matrix_f64(&unit_rows(rows, columns, seed), columns)).unwrap()
            });
            let variables: Vec<Var> = variables.collect();
            let inputs: Vec<Tensor> = variables.iter().map(|x| x.as_tensor().clone()).collect();
            let loss = (case.loss)(&inputs, &Context { memory: &memory, index: &[4, 0, 2] }).unwrap();
            let gradients = loss.backward().unwrap();
            let reached: Vec<bool> = variables.iter().map(|x| gradients.get(x).is_some()).collect();
            let expected: Vec<bool> = case.constant.iter().map(|constant| !constant).collect();
            assert_eq!(reached, expected, "{}", case.name);
        }
    }
}
