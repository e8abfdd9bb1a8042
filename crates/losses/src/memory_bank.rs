//! The memory bank: one stored feature for each training image, which moves towards each new feature of that
//! image.
//!
//! ```text
//! bank in R^{n x D};  for image y just seen with feature f:  v_y ← (m v_y + (1 − m) f) / ‖m v_y + (1 − m) f‖
//! ```
//!
//! Instance discrimination's bank, as in the released lemniscate code: entries start as U(±1/√(D/3)) draws,
//! *not* normalized, and become unit vectors when first written. Paper: sections 2 and 4.1 (the NCE and
//! `NPSoftmax` rows use it with m = 0.5). Deviations: if an image appears twice in one batch, its entry is
//! moved twice, in order (in the released code the result is undefined); and where the sum has length zero,
//! the entry stays as it is instead of being divided by zero.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::with_f32;

use crate::check::{check_index, matrix};

const NAME: &str = "memory bank";

/// n entries of D numbers, f32, row by row; on the host or on the device.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::MemoryBank;
///
/// let mut bank = MemoryBank::new(3, 2, 0)?;
/// // With a momentum of 0, the entry of image 1 becomes the direction of its new feature.
/// bank.update(&[1], &Tensor::new(&[[3f32, 4.0]], &Device::Cpu)?, 0.0)?;
/// assert_eq!(bank.entry(1), [0.6, 0.8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemoryBank {
    entries: Entries,
    images: usize,
    dim: usize,
}

#[derive(Debug, Clone)]
enum Entries {
    Host(Vec<f32>),
    /// (n, D), updated in place.
    #[cfg(feature = "cuda")]
    OnDevice(Tensor),
}

impl MemoryBank {
    /// Returns a bank of `images` entries of `dim` numbers, drawn from U(±1/√(dim/3)). The draws of a row
    /// depend only on the seed and the row.
    ///
    /// # Errors
    /// If there are no images or no columns.
    pub fn new(images: usize, dim: usize, seed: u64) -> Result<Self> {
        if images == 0 || dim == 0 {
            bail!("{NAME}: {images} images of {dim} numbers; both must be at least 1")
        }
        let bound = (dim as f64 / 3.0).sqrt().recip();
        let mut entries = Vec::with_capacity(images * dim);
        for row in 0..images {
            let mut stream = Stream::new(seed, Purpose::MemoryBank, 0, row as u64);
            entries.extend((0..dim).map(|_| stream.between(-bound, bound) as f32));
        }
        Ok(Self { entries: Entries::Host(entries), images, dim })
    }

    /// Returns the bank that a checkpoint holds, from an n x D tensor on the CPU (read as f32).
    ///
    /// # Errors
    /// If the tensor is not a matrix of numbers, or has no rows or no columns.
    pub fn from_tensor(state: &Tensor) -> Result<Self> {
        let (images, dim) = matrix(NAME, "state", state)?;
        let entries = with_f32(&state.to_dtype(DType::F32)?.contiguous()?, <[f32]>::to_vec)?;
        Ok(Self { entries: Entries::Host(entries), images, dim })
    }

    /// Returns the same bank on `device`, which must be the device of the features.
    ///
    /// # Errors
    /// If the device cannot hold it.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Self::from_tensor(&self.tensor()?),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => {
                Ok(Self { entries: Entries::OnDevice(self.tensor()?.to_device(device)?), ..*self })
            }
            other => bail!("{NAME}: a memory bank cannot be on {other:?}, only on the CPU or on CUDA"),
        }
    }

    /// Returns the entries as an n x D tensor, f32, on the CPU.
    ///
    /// # Errors
    /// If candle cannot make the tensor.
    pub fn tensor(&self) -> Result<Tensor> {
        match &self.entries {
            Entries::Host(entries) => Tensor::from_slice(entries, (self.images, self.dim), &Device::Cpu),
            #[cfg(feature = "cuda")]
            Entries::OnDevice(entries) => entries.to_device(&Device::Cpu),
        }
    }

    /// Returns the entries on the device.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(&self) -> Result<&Tensor> {
        match &self.entries {
            Entries::OnDevice(entries) => Ok(entries),
            Entries::Host(_) => {
                bail!(
                    "{NAME}: the features are on CUDA, the memory bank is on the host; move it with to_device"
                )
            }
        }
    }

    /// Returns the entries on the host; empty for a bank on a GPU.
    fn on_host(&self) -> &[f32] {
        match &self.entries {
            Entries::Host(entries) => entries,
            #[cfg(feature = "cuda")]
            Entries::OnDevice(_) => &[],
        }
    }

    /// Returns the number of images, n.
    pub fn len(&self) -> usize {
        self.images
    }

    /// Returns false: a bank has at least one image.
    pub fn is_empty(&self) -> bool {
        self.images == 0
    }

    /// Returns the length of an entry, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns all entries of a bank on the host, row by row.
    pub fn as_slice(&self) -> &[f32] {
        self.on_host()
    }

    /// Returns one image's entry of a bank on the host, D numbers.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn entry(&self, image: usize) -> &[f32] {
        &self.on_host()[image * self.dim..(image + 1) * self.dim]
    }

    /// Returns the entries of a range of images.
    pub(crate) fn block(&self, images: Range<usize>) -> &[f32] {
        &self.on_host()[images.start * self.dim..images.end * self.dim]
    }

    /// Moves the entries of `index` (B numbers below n) towards `features` (B x D): `momentum` is the old
    /// entry's share, in 0..=1. No gradient is kept.
    ///
    /// # Errors
    /// If shapes do not fit, an index is out of range, or the momentum is not between 0 and 1. The bank is
    /// then unchanged.
    pub fn update(&mut self, index: &[u32], features: &Tensor, momentum: f64) -> Result<()> {
        let (rows, dim) = matrix(NAME, "features", features)?;
        if dim != self.dim {
            bail!("{NAME}: features have {dim} columns, the bank's entries {}; they must agree", self.dim)
        }
        check_index(NAME, "image index", index, rows, self.len())?;
        if !(0.0..=1.0).contains(&momentum) {
            bail!("{NAME}: momentum must lie between 0 and 1, it is {momentum}")
        }
        #[cfg_attr(
            not(feature = "cuda"),
            expect(clippy::infallible_destructuring_match, reason = "a build with CUDA has two places")
        )]
        let entries = match &mut self.entries {
            Entries::Host(entries) => entries,
            #[cfg(feature = "cuda")]
            Entries::OnDevice(entries) => {
                use invaspread_tensor::cuda::losses::{indices, update_memory};
                return update_memory(entries, &indices(index, &[rows], features)?, features, momentum);
            }
        };
        with_f32(&features.detach().to_dtype(DType::F32)?.contiguous()?, |features| {
            let (kept, taken) = (momentum as f32, (1.0 - momentum) as f32);
            for (feature, &image) in features.chunks(dim).zip(index) {
                let image = image as usize;
                let entry = &mut entries[image * dim..(image + 1) * dim];
                let moved = |v: f32, f: f32| v * kept + f * taken;
                let squared: f64 =
                    entry.iter().zip(feature).map(|(&v, &f)| f64::from(moved(v, f)).powi(2)).sum();
                if squared == 0.0 {
                    continue;
                }
                let length = squared.sqrt() as f32;
                for (v, &f) in entry.iter_mut().zip(feature) {
                    *v = moved(*v, f) / length;
                }
            }
        })
    }
}

impl PartialEq for MemoryBank {
    /// Returns whether both banks are on the host and hold the same numbers.
    fn eq(&self, other: &Self) -> bool {
        match (&self.entries, &other.entries) {
            (Entries::Host(mine), Entries::Host(theirs)) => self.dim == other.dim && mine == theirs,
            #[cfg(feature = "cuda")]
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::MemoryBank;
    use crate::testing::{matrix_f32, unit_rows};
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn starts_uniform_within_its_bound_and_as_the_seed_says() {
        let bank = MemoryBank::new(400, 48, 7).unwrap();
        let bound = 0.25_f32; // 1/√(48/3)
        assert!(bank.as_slice().iter().all(|v| v.abs() <= bound));
        let mean = |f: &dyn Fn(f32) -> f32| bank.as_slice().iter().map(|&v| f(v)).sum::<f32>() / 19_200.0;
        assert!(mean(&|v| v).abs() < 0.005);
        assert!((mean(&|v| v * v) - bound * bound / 3.0).abs() < 0.0005);
        assert_eq!(bank, MemoryBank::new(400, 48, 7).unwrap());
        assert_ne!(bank, MemoryBank::new(400, 48, 8).unwrap());
        // A larger bank begins with the same rows.
        assert_eq!(MemoryBank::new(500, 48, 7).unwrap().entry(399), bank.entry(399));
    }

    #[test]
    fn update_moves_and_normalizes_only_what_was_seen() {
        let mut bank = MemoryBank::new(6, 4, 0).unwrap();
        let before = bank.clone();
        let f = unit_rows(2, 4, 1);
        bank.update(&[4, 1], &matrix_f32(&f, 4), 0.25).unwrap();
        for image in [0, 2, 3, 5] {
            assert_eq!(bank.entry(image), before.entry(image));
        }
        for (image, f) in [(4, &f[..4]), (1, &f[4..])] {
            let moved: Vec<f64> =
                before.entry(image).iter().zip(f).map(|(&v, &f)| 0.25 * f64::from(v) + 0.75 * f).collect();
            let length = moved.iter().map(|v| v * v).sum::<f64>().sqrt();
            for (got, want) in bank.entry(image).iter().zip(moved) {
                assert!((f64::from(*got) - want / length).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn an_image_seen_twice_moves_twice_and_a_zero_sum_stays() {
        let f = unit_rows(2, 3, 2);
        let mut together = MemoryBank::new(2, 3, 0).unwrap();
        let mut apart = together.clone();
        together.update(&[1, 1], &matrix_f32(&f, 3), 0.5).unwrap();
        apart.update(&[1], &matrix_f32(&f[..3], 3), 0.5).unwrap();
        apart.update(&[1], &matrix_f32(&f[3..], 3), 0.5).unwrap();
        assert_eq!(together, apart);
        let opposite: Vec<f64> = together.entry(1).iter().map(|&v| f64::from(-v)).collect();
        together.update(&[1], &matrix_f32(&opposite, 3), 0.5).unwrap();
        assert_eq!(together, apart);
    }

    #[test]
    fn survives_a_checkpoint_bit_for_bit() {
        let bank = MemoryBank::new(9, 5, 3).unwrap();
        assert_eq!(MemoryBank::from_tensor(&bank.tensor().unwrap()).unwrap(), bank);
    }

    #[test]
    fn bad_input_is_an_error_and_changes_nothing() {
        let mut bank = MemoryBank::new(3, 2, 0).unwrap();
        let before = bank.clone();
        let f = matrix_f32(&[1.0, 0.0, 0.0, 1.0], 2);
        assert!(bank.update(&[0, 3], &f, 0.5).unwrap_err().to_string().contains("image index 3 (row 1)"));
        assert!(bank.update(&[0], &f, 0.5).is_err());
        assert!(bank.update(&[0, 1], &f, 1.5).unwrap_err().to_string().contains("momentum"));
        assert!(
            bank.update(&[0], &matrix_f32(&[1.0; 3], 3), 0.5).unwrap_err().to_string().contains("3 columns")
        );
        assert_eq!(bank, before);
        assert!(MemoryBank::new(0, 4, 0).is_err());
        assert!(MemoryBank::from_tensor(&Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap()).is_err());
    }
}
