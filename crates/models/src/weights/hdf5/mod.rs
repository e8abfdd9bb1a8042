//! Reads weights from HDF5 files, such as `googlenet.h5`, which the released code needs.
//!
//! An HDF5 file is a tree of groups with arrays as leaves. The name of a tensor is the path to its array. The
//! Python package hickle, which saved `googlenet.h5` as a dict of arrays, puts what it saves under `data_0`
//! or `data`, and up to version 3 each array under another `data_0`; later versions put keys in quotes. Both
//! are removed, so that the names are those of the dict: `/data_0/conv1.7x7_s2.weight/data_0` becomes
//! `conv1.7x7_s2.weight`. Text, tables and everything else that is not a tensor is skipped. Source of the
//! layout: what other people read from that file with h5py, and files of hickle 5.
//!
//! Files of weights are not trusted: all arrays together may unpack to at most a fixed multiple of the length
//! of the file, and every group is entered once, so that a group that contains itself does no harm.

use std::collections::HashSet;

use candle_core::{DType, Device, Tensor};
use hdf5_reader::error::Error;
use hdf5_reader::group::Group;
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions};

use crate::weights::format::element_count;

/// All tensors together may be at most this many times as long as the file. Trained weights hardly shrink
/// when they are compressed.
const MOST_UNPACKED: usize = 64;
/// The deepest nesting of groups that is read.
const DEEPEST: usize = 32;

/// Reads all tensors of a file.
///
/// # Errors
/// Says what is wrong with the file, in words that follow "found".
pub(crate) fn read(file: Vec<u8>) -> Result<Vec<(String, Tensor)>, String> {
    let most = most_unpacked(file.len());
    let options =
        OpenOptions::default().with_max_read_bytes(most).with_max_chunk_bytes(most).with_chunk_cache_bytes(0);
    let file = Hdf5File::from_vec_with_options(file, options).map_err(|error| damage(&error))?;
    let mut walk = Walk { left: most, entered: HashSet::new(), path: Vec::new(), tensors: Vec::new() };
    walk.group(&file.root_group().map_err(|error| damage(&error))?)?;
    if walk.tensors.is_empty() {
        return Err("a file without arrays of numbers".to_owned());
    }
    Ok(walk.tensors)
}

/// Returns the number of bytes that the tensors of a file of `length` bytes may take.
pub(crate) fn most_unpacked(length: usize) -> usize {
    length.saturating_mul(MOST_UNPACKED)
}

struct Walk {
    /// The number of bytes that further tensors may take.
    left: usize,
    /// The addresses of the groups that were entered.
    entered: HashSet<u64>,
    path: Vec<String>,
    tensors: Vec<(String, Tensor)>,
}

impl Walk {
    fn group(&mut self, group: &Group) -> Result<(), String> {
        if !self.entered.insert(group.address()) {
            return Ok(());
        }
        if self.path.len() == DEEPEST {
            return Err(format!("groups more than {DEEPEST} deep"));
        }
        let (groups, arrays) = group.members().map_err(|error| damage(&error))?;
        for array in arrays {
            self.array(&array)?;
        }
        for group in groups {
            self.path.push(group.name().to_owned());
            self.group(&group)?;
            self.path.pop();
        }
        Ok(())
    }

    fn array(&mut self, array: &Dataset) -> Result<(), String> {
        let Some(dtype) = dtype(array.dtype()) else { return Ok(()) };
        let name = name(&self.path, array.name());
        let told = |what: &dyn std::fmt::Display| format!("the array {name:?} with {what}");
        let shape = array.shape().iter().map(|&length| usize::try_from(length));
        let shape: Vec<usize> =
            shape.collect::<Result<_, _>>().map_err(|_| told(&"an axis past all memory"))?;
        let bytes = element_count(&shape).and_then(|count| count.checked_mul(dtype.size_in_bytes()));
        let Some(left) = bytes.and_then(|bytes| self.left.checked_sub(bytes)) else {
            let what = format!(
                "the shape {shape:?}, of {dtype:?}: all in all more than {MOST_UNPACKED} times the file's length"
            );
            return Err(told(&what));
        };
        self.left = left;
        let numbers = array.read_native_bytes().map_err(|error| told(&damage(&error)))?;
        let tensor = Tensor::from_raw_buffer(&numbers, dtype, &shape, &Device::Cpu);
        let tensor = tensor.map_err(|error| told(&format!("numbers that make no tensor ({error})")))?;
        self.tensors.push((name, tensor));
        Ok(())
    }
}

/// Returns the name of an array in the group at `path`, without the parts that hickle adds.
fn name(path: &[String], array: &str) -> String {
    let wraps = |part: &str| {
        part.strip_prefix("data").is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix('_').is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    let mut parts: Vec<&str> = path.iter().map(String::as_str).chain([array]).collect();
    if parts.len() > 1 && wraps(parts[0]) {
        parts.remove(0);
    }
    if parts.len() > 1 && wraps(parts[parts.len() - 1]) {
        parts.pop();
    }
    let bare = |part: &str| {
        let quoted = ['"', '\''].iter().find_map(|quote| part.strip_prefix(*quote)?.strip_suffix(*quote));
        quoted.unwrap_or(part).to_owned()
    };
    parts.into_iter().map(bare).collect::<Vec<_>>().join("/")
}

/// Returns the type of the numbers of an array, if this type can be read.
fn dtype(numbers: &Datatype) -> Option<DType> {
    match numbers {
        Datatype::FloatingPoint { size: 2, .. } => Some(DType::F16),
        Datatype::FloatingPoint { size: 4, .. } => Some(DType::F32),
        Datatype::FloatingPoint { size: 8, .. } => Some(DType::F64),
        Datatype::FixedPoint { size: 1, signed: false, .. } => Some(DType::U8),
        Datatype::FixedPoint { size: 8, signed: true, .. } => Some(DType::I64),
        _ => None,
    }
}

/// Returns the message of the reader as a clause.
fn damage(error: &Error) -> String {
    format!("bytes that are no HDF5 ({error})")
}

#[cfg(test)]
mod tests;
