//! The descriptors of cuDNN's graph API: attributes are set, then the descriptor is finalized, then it is
//! used.

use super::super::failed;
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::{Error, Result};
use std::ffi::{CStr, c_char, c_void};

pub(super) use sys::cudnnBackendAttributeName_t as Name;
pub(super) use sys::cudnnBackendAttributeType_t as Type;
pub(super) use sys::cudnnBackendDescriptorType_t as Kind;

/// A value of an attribute, of the type that cuDNN calls `TYPE`.
///
/// # Safety
/// The value must have the size and meaning of that type.
pub(super) unsafe trait Element: Copy + Default {
    const TYPE: Type;
}

/// A value that cuDNN's headers number. The number is kept as it is: a newer library may know more of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Numbered<const TYPE: u32>(pub(super) u32);

pub(super) type DataType = Numbered<{ Type::CUDNN_TYPE_DATA_TYPE as u32 }>;
pub(super) type ConvolutionMode = Numbered<{ Type::CUDNN_TYPE_CONVOLUTION_MODE as u32 }>;
pub(super) type HeuristicMode = Numbered<{ Type::CUDNN_TYPE_HEUR_MODE as u32 }>;
pub(super) type Knob = Numbered<{ Type::CUDNN_TYPE_KNOB_TYPE as u32 }>;
pub(super) type NumericalNote = Numbered<{ Type::CUDNN_TYPE_NUMERICAL_NOTE as u32 }>;
pub(super) type BehaviorNote = Numbered<{ Type::CUDNN_TYPE_BEHAVIOR_NOTE as u32 }>;

/// Declares the types of attributes.
macro_rules! elements {
    ($($element:ty => $kind:ident),* $(,)?) => {$(
        // SAFETY: cuDNN's headers give the type this size.
        unsafe impl Element for $element {
            const TYPE: Type = Type::$kind;
        }
    )*};
}

elements! {
    i64 => CUDNN_TYPE_INT64,
    f32 => CUDNN_TYPE_FLOAT,
    DataType => CUDNN_TYPE_DATA_TYPE,
    ConvolutionMode => CUDNN_TYPE_CONVOLUTION_MODE,
    HeuristicMode => CUDNN_TYPE_HEUR_MODE,
    Knob => CUDNN_TYPE_KNOB_TYPE,
    NumericalNote => CUDNN_TYPE_NUMERICAL_NOTE,
    BehaviorNote => CUDNN_TYPE_BEHAVIOR_NOTE,
}

/// A descriptor, which cuDNN frees with the last that refers to it.
#[derive(Debug)]
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

impl Descriptor {
    /// Makes a descriptor without attributes.
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let mut made = std::ptr::null_mut();
        // SAFETY: cuDNN writes one pointer.
        checked(unsafe { sys::cudnnBackendCreateDescriptor(kind, &raw mut made) }, format_args!("{kind:?}"))?;
        Ok(Self(made))
    }

    /// Sets an attribute that holds numbers.
    pub(super) fn set<T: Element>(&self, name: Name, values: &[T]) -> Result<()> {
        self.set_raw(name, T::TYPE, values)
    }

    /// Sets an attribute that holds other descriptors. cuDNN keeps what it refers to.
    pub(super) fn set_parts(&self, name: Name, parts: &[&Self]) -> Result<()> {
        let parts: Vec<_> = parts.iter().map(|part| part.0).collect();
        self.set_raw(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &parts)
    }

    /// Sets an attribute that holds cuDNN's handle.
    pub(super) fn set_handle(&self, name: Name, handle: sys::cudnnHandle_t) -> Result<()> {
        self.set_raw(name, Type::CUDNN_TYPE_HANDLE, &[handle])
    }

    /// Sets an attribute that holds addresses on the device.
    pub(super) fn set_addresses(&self, name: Name, addresses: &[u64]) -> Result<()> {
        self.set_raw(name, Type::CUDNN_TYPE_VOID_PTR, addresses)
    }

    fn set_raw<T>(&self, name: Name, kind: Type, values: &[T]) -> Result<()> {
        let (count, at) = (values.len() as i64, values.as_ptr().cast::<c_void>());
        // SAFETY: so many values of that type lie there, and cuDNN copies them.
        checked(
            unsafe { sys::cudnnBackendSetAttribute(self.0, name, kind, count, at) },
            format_args!("set {name:?}"),
        )
    }

    /// Ends the setting of attributes.
    pub(super) fn finalize(self, what: &str) -> Result<Self> {
        // SAFETY: the descriptor is alive.
        checked(unsafe { sys::cudnnBackendFinalize(self.0) }, what)?;
        Ok(self)
    }

    /// Reads an attribute of at most `most` numbers.
    pub(super) fn get<T: Element>(&self, name: Name, most: usize) -> Result<Vec<T>> {
        let mut values = vec![T::default(); most];
        let count = self.get_raw(name, T::TYPE, most, values.as_mut_ptr().cast())?;
        values.truncate(count);
        Ok(values)
    }

    /// Reads an attribute of one number.
    pub(super) fn get_one<T: Element>(&self, name: Name) -> Result<T> {
        let values = self.get(name, 1)?;
        values.first().copied().ok_or_else(|| Error::Msg(format!("cuda: cuDNN gave no value of {name:?}")))
    }

    /// Returns how many values an attribute has at most. Fewer may come.
    pub(super) fn most(&self, name: Name, kind: Type) -> Result<usize> {
        self.get_raw(name, kind, 0, std::ptr::null_mut())
    }

    /// Reads an attribute of at most `most` descriptors, which are of one kind.
    pub(super) fn get_parts(&self, name: Name, kind: Kind, most: usize) -> Result<Vec<Self>> {
        let mut parts = (0..most).map(|_| Self::new(kind)).collect::<Result<Vec<_>>>()?;
        let mut raw: Vec<_> = parts.iter().map(|part| part.0).collect();
        let count = self.get_raw(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, most, raw.as_mut_ptr().cast())?;
        // cuDNN fills the descriptors that it is given; it does not put others in their place.
        parts.truncate(count);
        Ok(parts)
    }

    fn get_raw(&self, name: Name, kind: Type, most: usize, to: *mut c_void) -> Result<usize> {
        let mut count = 0i64;
        // SAFETY: there is room for `most` values of that type, and cuDNN writes no more.
        let status =
            unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, most as i64, &raw mut count, to) };
        checked(status, format_args!("read {name:?}"))?;
        let count = usize::try_from(count).unwrap_or(0);
        Ok(if most == 0 { count } else { count.min(most) })
    }

    /// Runs a plan on what a variant pack names.
    pub(super) fn execute(&self, handle: sys::cudnnHandle_t, pack: &Self) -> Result<()> {
        // SAFETY: both are finalized, and what the pack names is memory of the sizes that the plan's graph
        // describes.
        checked(unsafe { sys::cudnnBackendExecute(handle, self.0, pack.0) }, "run a plan")
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: `new` made it, and nothing uses it any more.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

/// Returns cuDNN's error with what was being done and, where cuDNN says it, the check that failed.
fn checked(status: sys::cudnnStatus_t, what: impl std::fmt::Display) -> Result<()> {
    let Err(error) = status.result() else { return Ok(()) };
    let mut text = [0 as c_char; 512];
    // SAFETY: cuDNN writes at most so many bytes, of which the last is zero.
    let said = unsafe {
        sys::cudnnGetLastErrorString(text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr()).to_string_lossy()
    };
    let said = said.trim();
    let why = if said.is_empty() { String::new() } else { format!(" ({said})") };
    Err(failed(format_args!("{what} by cuDNN's graph API{why}"), error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::super::testing::device_or_skip;
    use super::{DataType, Descriptor, Kind, Name, Numbered};

    /// Sizes and strides are set in this order, or not at all.
    fn tensor(sizes: &[i64], strides: Option<&[i64]>) -> candle_core::Result<Descriptor> {
        let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
        tensor.set::<DataType>(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[Numbered(0)])?;
        tensor.set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, sizes)?;
        if let Some(strides) = strides {
            tensor.set(Name::CUDNN_ATTR_TENSOR_STRIDES, strides)?;
        }
        tensor.set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[1i64])?;
        tensor.set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16i64])?;
        tensor.finalize("describe a tensor")
    }

    /// The emulated library and the real one refuse the same mistakes.
    #[test]
    fn mistakes_are_refused_with_the_attribute_or_the_step() {
        if device_or_skip().is_none() {
            return;
        }
        let sizes = [2, 16, 8, 8];
        let strides = [1024, 1, 128, 16];
        let whole = tensor(&sizes, Some(&strides)).unwrap();
        assert_eq!(whole.get::<i64>(Name::CUDNN_ATTR_TENSOR_STRIDES, 8).unwrap(), strides);
        let refused = |result: candle_core::Result<()>, words: &[&str]| {
            let error = result.unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}: {words:?}");
        };
        let part = |result: candle_core::Result<Descriptor>| result.map(drop);
        refused(part(tensor(&sizes, None)), &["describe a tensor", "CUDNN_STATUS_BAD_PARAM"]);
        refused(part(tensor(&sizes, Some(&strides[..3]))), &["describe a tensor", "CUDNN_STATUS_BAD_PARAM"]);
        // Nothing can be set any more.
        let again = whole.set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16i64]);
        refused(again, &["CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT", "CUDNN_STATUS_BAD_PARAM"]);
        let new = || Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR).unwrap();
        let of_another_type = new().set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &[1.0f32]);
        refused(of_another_type, &["CUDNN_ATTR_TENSOR_DIMENSIONS", "CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE"]);
        let two = new().set::<DataType>(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[Numbered(0), Numbered(0)]);
        refused(two, &["CUDNN_ATTR_TENSOR_DATA_TYPE", "CUDNN_STATUS_BAD_PARAM"]);
        refused(new().set(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, &[1i64]), &["CUDNN_STATUS_BAD_PARAM"]);
        let too_early = new().get::<i64>(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, 4).map(drop);
        refused(too_early, &["CUDNN_STATUS_NOT_INITIALIZED"]);
        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR).unwrap();
        let unfinished =
            Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR).unwrap();
        let not_yet = graph.set_parts(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&unfinished]);
        refused(not_yet, &["CUDNN_ATTR_OPERATIONGRAPH_OPS", "CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED"]);
    }
}
