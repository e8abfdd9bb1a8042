//! The form before PyTorch 1.6, which later versions still write with `_use_new_zipfile_serialization=False`.
//! It has five pickles (a number that marks the form, its version, the machine that wrote it, what was saved,
//! and a list of the keys of the storages), then for each storage of that list the number of its elements and
//! its bytes. Numbers are always in little-endian order. There is no checksum, so damage is found only if the
//! file contradicts itself. Source: `torch.serialization._legacy_save`.

use std::collections::HashMap;
use std::ops::Range;

use invaspread_pickle::{Pickle, Value};

use super::Storages;
use super::saved::Storage;

/// The number 0x1950a86a20f9469cfc6c, as every protocol of pickle writes it.
const MARK: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The number of bytes in which the mark is searched; its pickle is not longer.
const FIRST: usize = 32;
/// The only version of this form.
const VERSION: i64 = 1001;

/// Returns whether a file with this beginning has this form.
pub(crate) fn is_old_form(start: &[u8]) -> bool {
    let start = &start[..start.len().min(FIRST)];
    start.first() == Some(&0x80) && start.windows(MARK.len()).any(|bytes| bytes == MARK)
}

/// Returns the bytes of the pickle of what was saved, and the rest of the file after it.
///
/// # Errors
/// Says what is wrong with the file, in words that follow "found".
pub(super) fn take_apart(file: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let mut rest = file;
    let mut next = || {
        let pickle = Pickle::read(rest)?;
        let (this, behind) = rest.split_at(pickle.length());
        rest = behind;
        Ok::<_, String>((pickle.root(), this))
    };
    next()?;
    let (version, _) = next()?;
    if version != Value::Int(VERSION) {
        return Err("another version of the form before PyTorch 1.6 than 1001".to_owned());
    }
    next()?;
    let (_, saved) = next()?;
    Ok((saved, rest))
}

/// The storages of a file.
pub(super) struct OldStorages<'a> {
    bytes: &'a [u8],
    /// The place of each storage.
    places: HashMap<String, Range<usize>>,
}

impl<'a> OldStorages<'a> {
    /// Finds the storages in the bytes `rest`, which follow the pickle `saved`. This pickle says how long
    /// each storage is.
    ///
    /// # Errors
    /// Says what is wrong with them, in words that follow "found".
    pub(super) fn new(rest: &'a [u8], saved: &Pickle<'_>) -> Result<Self, String> {
        let said: HashMap<&str, Storage<'_>> = saved
            .all_stored()
            .filter_map(|name| Storage::of(saved, name))
            .map(|storage| (storage.key, storage))
            .collect();
        let keys = Pickle::read(rest)?;
        let bytes = &rest[keys.length()..];
        let list = keys.list(keys.root()).ok_or("no list of storages")?;
        let mut places = HashMap::new();
        let mut at = 0_usize;
        for key in list {
            let key = keys.bytes(*key).and_then(|key| std::str::from_utf8(key).ok());
            let key = key.ok_or("a storage whose key is no string")?;
            let storage = said.get(key).ok_or_else(|| format!("a storage {key:?} that no tensor uses"))?;
            let size = element(storage.kind).ok_or_else(|| {
                format!("a storage {key:?} of the unknown type {}", String::from_utf8_lossy(storage.kind))
            })?;
            let short = || format!("a storage {key:?} that ends too soon, as an interrupted download does");
            let head = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(short)?;
            let (held, expected) = (u64::from_le_bytes(*head), storage.elements);
            if usize::try_from(held) != Ok(expected) {
                return Err(format!("a storage {key:?} of {held} elements where its tensors say {expected}"));
            }
            at += head.len();
            let end = expected.checked_mul(size).and_then(|length| at.checked_add(length));
            let end = end.filter(|&end| end <= bytes.len()).ok_or_else(short)?;
            places.insert(key.to_owned(), at..end);
            at = end;
        }
        Ok(Self { bytes, places })
    }
}

/// Returns the number of bytes of an element of a storage.
fn element(storage: &[u8]) -> Option<usize> {
    Some(match storage {
        b"ByteStorage" | b"CharStorage" | b"BoolStorage" | b"QInt8Storage" | b"QUInt8Storage" => 1,
        b"ShortStorage" | b"HalfStorage" | b"BFloat16Storage" => 2,
        b"IntStorage" | b"FloatStorage" | b"QInt32Storage" => 4,
        b"LongStorage" | b"DoubleStorage" | b"ComplexFloatStorage" => 8,
        b"ComplexDoubleStorage" => 16,
        _ => return None,
    })
}

impl Storages for OldStorages<'_> {
    fn read(&mut self, key: &str, _element: usize) -> Result<Vec<u8>, String> {
        let place = self.places.get(key).ok_or_else(|| format!("no storage {key:?}"))?;
        Ok(self.bytes[place.clone()].to_vec())
    }
}
