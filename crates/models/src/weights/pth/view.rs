//! Copies a tensor, which is a view of a storage, out of the storage's bytes.

use candle_core::{DType, Device, Tensor};

use crate::weights::format::element_count;

/// A tensor, as a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// The distance between neighboring elements along each axis, in elements.
    pub(super) strides: Vec<usize>,
    /// The place of the first element.
    pub(super) offset: usize,
    /// The key of the storage.
    pub(super) storage: String,
}

impl View {
    /// Makes the tensor from the bytes of its storage, which are in little-endian order.
    ///
    /// # Errors
    /// Says what is wrong with the view, in words that follow "the tensor ... with".
    pub(super) fn tensor(&self, storage: &[u8]) -> Result<Tensor, String> {
        let bytes = self.bytes(storage)?;
        Tensor::from_raw_buffer(&bytes, self.dtype, &self.shape, &Device::Cpu)
            .map_err(|error| format!("bytes that fail to decode ({error})"))
    }

    /// Copies the bytes of the tensor, row by row, from those of its storage.
    fn bytes(&self, storage: &[u8]) -> Result<Vec<u8>, String> {
        let size = self.dtype.size_in_bytes();
        let held = storage.len() / size;
        let shape = || format!("the shape {:?} in a storage of {held}", self.shape);
        let elements = element_count(&self.shape).filter(|&elements| elements <= held).ok_or_else(shape)?;
        if elements == 0 {
            return Ok(Vec::new());
        }
        let last = self.shape.iter().zip(&self.strides).try_fold(self.offset, |last, (side, stride)| {
            (side - 1).checked_mul(*stride).and_then(|step| last.checked_add(step))
        });
        if last.is_none_or(|last| last >= held) {
            return Err(format!(
                "{} from element {} on and strides {:?}",
                shape(),
                self.offset,
                self.strides
            ));
        }
        let mut bytes = Vec::with_capacity(elements * size);
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..elements {
            bytes.extend_from_slice(&storage[at * size..][..size]);
            // The last index changes fastest. An index that reaches the end returns to zero and advances the
            // one before it.
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= index[axis] * self.strides[axis];
                index[axis] = 0;
            }
        }
        Ok(bytes)
    }
}
