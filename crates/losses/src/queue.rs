//! A queue of embeddings: the last K rows that were pushed. New rows overwrite the oldest ones.
//!
//! The dictionary of He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation
//! Learning", CVPR 2020, section 3.2 and algorithm 1. As in the authors' code, it begins full of random unit
//! rows, which the first epochs replace. Deviation: K need not be a multiple of the batch size; a batch that
//! does not fit before the end continues at the beginning.

use candle_core::{DType, Device, Result, Tensor, bail};
use invaspread_random::{Purpose, Stream};

use crate::check::matrix;

const NAME: &str = "queue";

/// K rows of D numbers, f32, on the host or on a GPU, and the place of the oldest row.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::Queue;
///
/// let mut queue = Queue::new(3, 2, 0, &Device::Cpu)?;
/// queue.push(&Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu)?)?;
/// queue.push(&Tensor::new(&[[0.6f32, 0.8], [-1.0, 0.0]], &Device::Cpu)?)?;
/// // The fourth row replaced the oldest one.
/// assert_eq!(queue.rows()?.to_vec2::<f32>()?, [[-1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Queue {
    /// (K, D), changed in place.
    rows: Tensor,
    oldest: usize,
}

impl Queue {
    /// Returns a queue of `length` rows of `dim` numbers on `device`. The rows are random directions; each
    /// depends only on the seed and its place.
    ///
    /// # Errors
    /// If there are no rows or no columns, or the device cannot hold them.
    pub fn new(length: usize, dim: usize, seed: u64, device: &Device) -> Result<Self> {
        if length == 0 || dim == 0 {
            bail!("{NAME}: {length} rows of {dim} numbers; both must be at least 1")
        }
        let mut values = Vec::with_capacity(length * dim);
        for row in 0..length {
            let mut stream = Stream::new(seed, Purpose::Queue, 0, row as u64);
            let drawn: Vec<f64> = (0..dim).map(|_| stream.normal()).collect();
            let norm = drawn.iter().map(|x| x * x).sum::<f64>().sqrt();
            values.extend(drawn.iter().map(|x| (x / norm) as f32));
        }
        let rows = Tensor::from_vec(values, (length, dim), &Device::Cpu)?.to_device(device)?;
        Ok(Self { rows, oldest: 0 })
    }

    /// Returns the current rows, (K, D), in the order of their places and without a gradient. Later
    /// pushes do not change the tensor.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn rows(&self) -> Result<Tensor> {
        self.rows.copy()
    }

    /// Overwrites the oldest rows with `new` (B x D, B at most K) in order. No gradient is kept.
    ///
    /// # Errors
    /// If the shape or the data type does not fit, or `new` is on another device. The queue is then
    /// unchanged.
    pub fn push(&mut self, new: &Tensor) -> Result<()> {
        let (count, dim) = matrix(NAME, "new rows", new)?;
        let (length, own) = self.rows.dims2()?;
        if dim != own || count > length {
            bail!(
                "{NAME}: {count} new rows of {dim} numbers, expected at most {length} rows of {own} numbers"
            )
        }
        if new.dtype() != DType::F32 || !new.device().same_device(self.rows.device()) {
            bail!(
                "{NAME}: new rows are {:?} on {:?}, the queue is F32 on {:?}",
                new.dtype(),
                new.device().location(),
                self.rows.device().location()
            )
        }
        let new = new.detach().contiguous()?;
        let before_end = count.min(length - self.oldest);
        self.rows.slice_set(&new.narrow(0, 0, before_end)?.contiguous()?, 0, self.oldest)?;
        if before_end < count {
            self.rows.slice_set(&new.narrow(0, before_end, count - before_end)?.contiguous()?, 0, 0)?;
        }
        self.oldest = (self.oldest + count) % length;
        Ok(())
    }

    /// Returns what a checkpoint needs, on the CPU: the rows, (K, D), and the place of the oldest row, a
    /// scalar.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state(&self) -> Result<[Tensor; 2]> {
        let rows = self.rows.to_device(&Device::Cpu)?.copy()?;
        Ok([rows, Tensor::new(self.oldest as i64, &Device::Cpu)?])
    }

    /// Restores what [`Queue::state`] returned.
    ///
    /// # Errors
    /// If the rows have another shape or type, or the place of the oldest is out of range. The queue is then
    /// unchanged.
    pub fn load_state(&mut self, [rows, oldest]: [&Tensor; 2]) -> Result<()> {
        if rows.dims() != self.rows.dims() || rows.dtype() != DType::F32 {
            bail!(
                "{NAME}: a state of {:?} in {:?}, expected {:?} in F32",
                rows.dims(),
                rows.dtype(),
                self.rows.dims()
            )
        }
        let place = oldest.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.reshape(())?.to_scalar::<i64>()?;
        match usize::try_from(place) {
            Ok(place) if place < self.rows.dim(0)? => {
                self.rows = rows.to_device(self.rows.device())?.copy()?;
                self.oldest = place;
                Ok(())
            }
            _ => bail!(
                "{NAME}: the place of the oldest row is {place}, expected a place below {}",
                self.rows.dim(0)?
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Queue;
    use crate::testing::{matrix_f32, values};
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Compares the queue with a list of all rows that were ever pushed.
        #[test]
        fn holds_the_last_rows_each_in_its_place(
            length in 1usize..12, batches in prop::collection::vec(1usize..12, 0..20),
        ) {
            let mut queue = Queue::new(length, 2, 0, &Device::Cpu).unwrap();
            let mut all = values(&queue.rows().unwrap());
            let mut next = 0.0;
            for batch in batches.into_iter().map(|batch| batch.min(length)) {
                let new: Vec<f64> = (0..2 * batch).map(|_| { next += 1.0; next }).collect();
                queue.push(&matrix_f32(&new, 2)).unwrap();
                all.extend(new);
            }
            // The row that was pushed as number n lies in place n mod K.
            let rows = values(&queue.rows().unwrap());
            let count = all.len() / 2;
            for n in count - length..count {
                prop_assert_eq!(&rows[2 * (n % length)..][..2], &all[2 * n..][..2]);
            }
        }
    }

    #[test]
    fn begins_with_unit_rows_as_the_seed_says() {
        let rows = |seed, length| values(&Queue::new(length, 5, seed, &Device::Cpu).unwrap().rows().unwrap());
        for row in rows(3, 40).chunks(5) {
            assert!((row.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-6);
        }
        assert_eq!(rows(3, 40), rows(3, 40));
        assert_ne!(rows(3, 40), rows(4, 40));
        assert_eq!(rows(3, 20), rows(3, 40)[..100]);
    }

    #[test]
    fn rows_that_were_handed_out_do_not_change() {
        let mut queue = Queue::new(3, 2, 0, &Device::Cpu).unwrap();
        let (before, state) = (queue.rows().unwrap(), queue.state().unwrap());
        let kept = values(&before);
        queue.push(&matrix_f32(&[9.0; 6], 2)).unwrap();
        assert_eq!((values(&before), values(&state[0])), (kept.clone(), kept));
        assert_eq!(values(&queue.rows().unwrap()), [9.0; 6]);
    }

    #[test]
    fn goes_on_from_a_state_bit_for_bit() {
        let push = |queue: &mut Queue, x: f64| queue.push(&matrix_f32(&[x, -x, x + 0.1, 0.3], 2)).unwrap();
        let mut through = Queue::new(5, 2, 1, &Device::Cpu).unwrap();
        push(&mut through, 1.0);
        let [rows, oldest] = through.state().unwrap();
        let mut other = Queue::new(5, 2, 2, &Device::Cpu).unwrap();
        other.load_state([&rows, &oldest]).unwrap();
        for x in [2.0, 3.0, 4.0] {
            push(&mut through, x);
            push(&mut other, x);
        }
        assert_eq!(values(&through.rows().unwrap()), values(&other.rows().unwrap()));
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_changes_nothing() {
        let mut queue = Queue::new(3, 2, 0, &Device::Cpu).unwrap();
        let before = values(&queue.rows().unwrap());
        let [rows, oldest] = queue.state().unwrap();
        let number = |n: i64| Tensor::new(n, &Device::Cpu).unwrap();
        let says = |result: candle_core::Result<()>, what: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        says(queue.push(&matrix_f32(&[0.0; 8], 2)), "4 new rows of 2 numbers, expected at most 3");
        says(queue.push(&matrix_f32(&[0.0; 3], 3)), "1 new rows of 3");
        says(queue.push(&Tensor::zeros((1, 2), DType::F64, &Device::Cpu).unwrap()), "F64");
        says(queue.load_state([&rows.narrow(0, 0, 2).unwrap(), &oldest]), "[2, 2]");
        says(queue.load_state([&rows, &number(3)]), "is 3, expected a place below 3");
        says(queue.load_state([&rows, &number(-1)]), "is -1, expected");
        assert_eq!(values(&queue.rows().unwrap()), before);
        assert!(Queue::new(0, 2, 0, &Device::Cpu).is_err());
    }
}
