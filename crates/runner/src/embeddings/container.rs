//! The kinds of files that hold arrays: numpy's `.npy`, its `.npz` (a ZIP archive of `.npy` files), safetensors and
//! Parquet. The bytes decide which one a file is, not its name.
//!
//! Arrays are listed by their headers and read one by one, so that other arrays in the file cost nothing. No
//! length in a file is trusted: an array is read up to the length in its header, its bytes are counted, and
//! the checksums of an archive are compared. Limits apply to the unpacked size, however small the packed
//! array is.

use std::io::{Read, Seek};

use invaspread_models::check_seal;
use safetensors::tensor::{Dtype, SafeTensors};
use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

use super::array::{Array, ElementType, Header, Kind};
use super::numpy::{MAGIC, read_header};
use super::parquet::{self, ParquetFile};

/// The ending of an array's name in an archive.
const MEMBER: &str = ".npy";

/// A file of arrays.
pub(crate) enum Container<F> {
    /// One array without a name.
    Npy {
        /// The file, positioned after the header.
        file: F,
        /// The array's header.
        header: Header,
        /// The number of bytes after the header.
        rest: u64,
    },
    /// Arrays by their names.
    Npz(ZipArchive<F>),
    /// Tensors by their names: the whole file.
    Safetensors(Vec<u8>),
    /// Columns by their names.
    Parquet(ParquetFile),
}

impl<F: Read + Seek> Container<F> {
    /// Opens `file`, which has `length` bytes, in the format that its first bytes show. A file of safetensors or Parquet is
    /// held in memory whole and may have at most `most` bytes.
    ///
    /// # Errors
    /// Returns what was found instead: a file of another format, or a damaged one.
    pub(crate) fn open(mut file: F, length: u64, most: u64) -> Result<Self, String> {
        let mut start = Vec::new();
        file.by_ref().take(16).read_to_end(&mut start).map_err(|error| error.to_string())?;
        file.rewind().map_err(|error| error.to_string())?;
        if start.starts_with(MAGIC) {
            let (header, taken) = read_header(&mut file)?;
            return Ok(Self::Npy { file, header, rest: length.saturating_sub(taken) });
        }
        if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
            let archive = ZipArchive::new(file).map_err(|error| format!("a damaged archive ({error})"))?;
            return Ok(Self::Npz(archive));
        }
        if is_safetensors(&start, length) {
            check_memory(length, most)?;
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            check_seal(&bytes).map_err(|found| format!("damaged safetensors: {found}"))?;
            return Ok(Self::Safetensors(bytes));
        }
        if start.starts_with(parquet::MAGIC) {
            check_memory(length, most)?;
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            return Ok(Self::Parquet(ParquetFile::open(bytes)?));
        }
        Err(something_else(&start))
    }

    /// Returns the names of the arrays in alphabetical order; none if the only array has no name.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = match self {
            Self::Npy { .. } => Vec::new(),
            Self::Npz(archive) => archive
                .file_names_raw()
                .filter_map(|name| Some(String::from_utf8_lossy(name).strip_suffix(MEMBER)?.to_owned()))
                .collect(),
            Self::Safetensors(bytes) => SafeTensors::deserialize(bytes)
                .map(|file| file.names().into_iter().map(ToOwned::to_owned).collect())
                .unwrap_or_default(),
            Self::Parquet(file) => file.names(),
        };
        names.sort();
        names
    }

    /// Reads the header of the array `name`.
    ///
    /// # Errors
    /// Returns what was found instead.
    pub(crate) fn header(&mut self, name: &str) -> Result<Header, String> {
        match self {
            Self::Npy { header, .. } => Ok(header.clone()),
            Self::Npz(archive) => {
                let mut file = member(archive, name)?;
                Ok(read_header(&mut file)?.0)
            }
            Self::Safetensors(bytes) => {
                let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
                Ok(header_of(&file.tensor(name).map_err(|_| no_array(name))?))
            }
            Self::Parquet(file) => file.header(name).ok_or_else(|| no_array(name)),
        }
    }

    /// Reads the array `name`, or the only array if it has no name. It may have at most `most` bytes.
    ///
    /// # Errors
    /// Returns what was found instead.
    pub(crate) fn array(&mut self, name: &str, most: u64) -> Result<Array, String> {
        match self {
            Self::Npy { file, header, rest } => elements(file, header.clone(), *rest, most),
            Self::Npz(archive) => {
                let mut file = member(archive, name)?;
                let (header, taken) = read_header(&mut file)?;
                let rest = file.size().saturating_sub(taken);
                elements(&mut file, header, rest, most)
            }
            Self::Safetensors(bytes) => {
                let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
                let view = file.tensor(name).map_err(|_| no_array(name))?;
                let header = header_of(&view);
                check_header(&header, view.data().len() as u64, most)?;
                Ok(Array { header, bytes: view.data().to_vec() })
            }
            Self::Parquet(file) => file.array(name, most).unwrap_or_else(|| Err(no_array(name))),
        }
    }
}

/// Returns whether a file of `length` bytes that begins with `start` begins with a header of safetensors.
fn is_safetensors(start: &[u8], length: u64) -> bool {
    let Some((header, rest)) = start.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*header) <= length.saturating_sub(8) && rest.first() == Some(&b'{')
}

/// Describes a file that is none of these kinds, by its format if that is a usual one.
fn something_else(start: &[u8]) -> String {
    let known: [(&[u8], &str); 3] = [
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x80", "a Python pickle, which is never run"),
        (b"MATLAB", "a MAT-file"),
    ];
    match known.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, what)) => (*what).to_owned(),
        None if start.is_empty() => "an empty file".to_owned(),
        None => format!("a file that begins with \"{}\"", start.escape_ascii()),
    }
}

/// Opens the array `name` of an archive.
fn member<'a, F: Read + Seek>(archive: &'a mut ZipArchive<F>, name: &str) -> Result<ZipFile<'a, F>, String> {
    let index = archive.index_for_name(&format!("{name}{MEMBER}")).ok_or_else(|| no_array(name))?;
    let damaged = |error: &dyn std::fmt::Display| format!("an archive that is damaged ({error})");
    let (packed, locked) = {
        let raw = archive.by_index_raw(index).map_err(|error| damaged(&error))?;
        (raw.compression(), raw.encrypted())
    };
    if locked {
        return Err("an encrypted array".to_owned());
    }
    if !matches!(packed, CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(format!(
            "an array packed by {packed}, but numpy.savez stores arrays and numpy.savez_compressed deflates them"
        ));
    }
    archive.by_index(index).map_err(|error| damaged(&error))
}

fn no_array(name: &str) -> String {
    format!("no array {name:?}")
}

/// Reads the elements that follow a header, which should be the `rest` of the file.
fn elements(file: &mut impl Read, header: Header, rest: u64, most: u64) -> Result<Array, String> {
    check_header(&header, rest, most)?;
    let mut bytes = Vec::new();
    // Reading one byte more than expected shows whether there are more, and makes an archive compare the
    // checksum at its member's end.
    let read = file.take(rest + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("an array whose bytes are damaged ({error})"))?;
    if bytes.len() as u64 != rest {
        return Err(format!("an array that says it is {header} and has {} bytes of elements", bytes.len()));
    }
    Ok(Array { header, bytes })
}

/// Checks the length that a header gives against the bytes that follow and against the memory limit.
fn check_header(header: &Header, rest: u64, most: u64) -> Result<(), String> {
    match &header.element.kind {
        Kind::Objects => {
            return Err("Python objects, which are pickled: allow_pickle is never used".to_owned());
        }
        Kind::Other(name) => return Err(format!("elements of the type {name}, neither numbers nor words")),
        _ => {}
    }
    if header.bytes().is_none_or(|bytes| bytes as u64 != rest) {
        return Err(format!("an array that says it is {header} and has {rest} bytes of elements"));
    }
    check_memory(rest, most)
}

pub(super) fn check_memory(bytes: u64, most: u64) -> Result<(), String> {
    if bytes <= most {
        return Ok(());
    }
    Err(format!("{bytes} bytes to hold in memory, where {most} are free"))
}

fn header_of(view: &safetensors::tensor::TensorView<'_>) -> Header {
    let element = match view.dtype() {
        Dtype::F64 => ElementType::little_endian(Kind::Float, 8),
        Dtype::F32 => ElementType::little_endian(Kind::Float, 4),
        Dtype::F16 => ElementType::little_endian(Kind::Float, 2),
        Dtype::BF16 => ElementType::little_endian(Kind::BrainFloat, 2),
        Dtype::I64 => ElementType::little_endian(Kind::Signed, 8),
        Dtype::I32 => ElementType::little_endian(Kind::Signed, 4),
        Dtype::I16 => ElementType::little_endian(Kind::Signed, 2),
        Dtype::I8 => ElementType::little_endian(Kind::Signed, 1),
        Dtype::U64 => ElementType::little_endian(Kind::Unsigned, 8),
        Dtype::U32 => ElementType::little_endian(Kind::Unsigned, 4),
        Dtype::U16 => ElementType::little_endian(Kind::Unsigned, 2),
        Dtype::U8 => ElementType::little_endian(Kind::Unsigned, 1),
        Dtype::BOOL => ElementType::little_endian(Kind::Bool, 1),
        other => ElementType::little_endian(Kind::Other(format!("{other:?}")), 0),
    };
    Header { element, columns_first: false, shape: view.shape().to_vec() }
}
