//! Runs every objective on inputs with one value that is not finite.

#![allow(dead_code, reason = "each test file uses its part")]

use candle_core::{DType, Device, Tensor};
use invaspread_losses::{Case, Context, MemoryBank, Sizes};
use invaspread_random::{Purpose, Stream};

/// Where a value is put into an objective's inputs, modulo their number and lengths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) input: usize,
    pub(crate) at: usize,
}

/// Returns whether the objective says that an input holds `value`: by a loss that is not finite, or by an
/// error. Image i has entry i of the memory.
pub(crate) fn tells(
    case: &Case,
    (sizes, seed): (Sizes, u64),
    (dtype, device): (DType, &Device),
    place: Place,
    value: f64,
) -> bool {
    let mut stream = Stream::new(seed, Purpose::Bootstrap, 8, 0);
    let mut inputs: Vec<Vec<f64>> = Vec::new();
    for input in &case.inputs {
        let [rows, columns] = input.shape(sizes);
        let scale = (columns as f64).sqrt();
        inputs.push((0..rows * columns).map(|_| stream.normal() / scale).collect());
    }
    let count = inputs.len();
    let input = &mut inputs[place.input % count];
    let len = input.len();
    input[place.at % len] = value;
    let tensors: Vec<Tensor> = inputs
        .into_iter()
        .zip(&case.inputs)
        .map(|(values, input)| {
            let [rows, columns] = input.shape(sizes);
            let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
            tensor.to_dtype(dtype).unwrap().to_device(device).unwrap()
        })
        .collect();
    let memory = MemoryBank::new(sizes.entries, sizes.dim, 0).unwrap().to_device(device).unwrap();
    let index: Vec<u32> = (0..sizes.images as u32).collect();
    match (case.loss)(&tensors, &Context { memory: &memory, index: &index }) {
        Err(_) => true,
        Ok(loss) => {
            let loss = loss.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
            !loss.to_scalar::<f64>().unwrap().is_finite()
        }
    }
}
