//! Runs every objective on inputs with one value that is not finite.

#![allow(dead_code, reason = "each test file uses its part")]

use candle_core::{DType, Device, Result, Tensor};
use invaspread_losses::{
    Dcl, Exemplar, InvaSpread, KeySide, MemoryBank, Mining, Nce, Negatives, NpSoftmax, NtXent, Triplet,
    cluster_cross_entropy, draw_negatives, draw_noise,
};
use invaspread_random::{Purpose, Stream};

/// The loss of some inputs, and a memory.
type Loss = Box<dyn Fn(&[Tensor], &MemoryBank) -> Result<Tensor>>;

/// An objective with the shapes of its inputs.
pub(crate) struct Objective {
    pub(crate) name: &'static str,
    shapes: Vec<[usize; 2]>,
    loss: Loss,
}

/// Sizes of a batch: images, numbers of a feature, entries of the memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) images: usize,
    pub(crate) dim: usize,
    pub(crate) entries: usize,
}

/// Returns all objectives; batches of at least two images, of which none has more than one entry of the
/// memory.
pub(crate) fn objectives(sizes: Sizes) -> Vec<Objective> {
    let Sizes { images, dim, entries } = sizes;
    let index: Vec<u32> = (0..images as u32).collect();
    let (of_memory, of_noise, of_clusters) = (index.clone(), index.clone(), index.clone());
    let inva = |name, key_side, negatives| Objective {
        name,
        shapes: vec![[2 * images, dim]],
        loss: Box::new(move |x, _| InvaSpread { key_side, negatives, ..InvaSpread::default() }.loss(&x[0])),
    };
    let dcl = |name, sigma| Objective {
        name,
        shapes: vec![[2 * images, dim]],
        loss: Box::new(move |x, _| Dcl { sigma, ..Dcl::default() }.loss(&x[0])),
    };
    let exemplar = |name, normalize_weight| {
        let index = index.clone();
        Objective {
            name,
            shapes: vec![[images, dim], [entries, dim]],
            loss: Box::new(move |x, _| {
                Exemplar { temperature: 0.2, normalize_weight }.loss(&x[0], &x[1], &index)
            }),
        }
    };
    let triplet = |name, mining| Objective {
        name,
        shapes: vec![[images, dim]; 2],
        loss: Box::new(move |x, _| {
            let drawn = draw_negatives(0, 1, 0, x[0].dim(0)?)?;
            let given = (mining == Mining::Random).then_some(&drawn[..]);
            Triplet { mining, ..Triplet::default() }.loss(&x[0], &x[1], given)
        }),
    };
    vec![
        inva("InvaSpread", KeySide::Detached, Negatives::All),
        inva("InvaSpread, both sides", KeySide::BothSides, Negatives::All),
        inva("InvaSpread, hardest half", KeySide::Detached, Negatives::HardestHalf),
        inva("InvaSpread, easiest half", KeySide::Detached, Negatives::EasiestHalf),
        Objective {
            name: "NT-Xent",
            shapes: vec![[2 * images, dim]],
            loss: Box::new(|x, _| NtXent::default().loss(&x[0])),
        },
        dcl("DCL", None),
        dcl("DCLW", Some(0.5)),
        exemplar("Exemplar", false),
        exemplar("Exemplar, unit weights", true),
        triplet("triplet", Mining::Random),
        triplet("triplet, hardest", Mining::Hardest),
        Objective {
            name: "NPSoftmax",
            shapes: vec![[images, dim]],
            loss: Box::new(move |x, bank| NpSoftmax::default().loss(&x[0], bank, &of_memory)),
        },
        Objective {
            name: "NCE",
            shapes: vec![[images, dim]],
            loss: Box::new(move |x, bank| {
                let noise = draw_noise(0, 1, 0, of_noise.len(), 5, bank.len())?;
                // A normalizer that an earlier batch set: this one cannot refuse its own.
                let mut normalizer = Some(bank.len() as f64);
                Nce { noise_per_row: 5, ..Nce::default() }.loss(
                    &x[0],
                    bank,
                    &of_noise,
                    &noise,
                    &mut normalizer,
                )
            }),
        },
        Objective {
            name: "softmax of clusters",
            shapes: vec![[images, entries]],
            loss: Box::new(move |x, _| cluster_cross_entropy(&x[0], &of_clusters)),
        },
    ]
}

/// Where a value is put into an objective's inputs, modulo their number and lengths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) input: usize,
    pub(crate) at: usize,
}

impl Objective {
    /// Returns whether the objective says that an input holds `value`: by a loss that is not finite, or by an
    /// error.
    pub(crate) fn tells(
        &self,
        (sizes, seed): (Sizes, u64),
        (dtype, device): (DType, &Device),
        place: Place,
        value: f64,
    ) -> bool {
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 8, 0);
        let mut inputs: Vec<Vec<f64>> = self
            .shapes
            .iter()
            .map(|&[rows, columns]| {
                (0..rows * columns).map(|_| stream.normal() / (columns as f64).sqrt()).collect()
            })
            .collect();
        let count = inputs.len();
        let input = &mut inputs[place.input % count];
        let len = input.len();
        input[place.at % len] = value;
        let tensors: Vec<Tensor> = inputs
            .into_iter()
            .zip(&self.shapes)
            .map(|(values, &[rows, columns])| {
                let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
                tensor.to_dtype(dtype).unwrap().to_device(device).unwrap()
            })
            .collect();
        let bank = MemoryBank::new(sizes.entries, sizes.dim, 0).unwrap().to_device(device).unwrap();
        match (self.loss)(&tensors, &bank) {
            Err(_) => true,
            Ok(loss) => {
                let loss = loss.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
                !loss.to_scalar::<f64>().unwrap().is_finite()
            }
        }
    }
}
