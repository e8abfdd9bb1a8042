//! A reader for `.pth` files: what `torch.save` makes of a state dict, or of a dict that holds one.
//!
//! Such a file is a ZIP archive of uncompressed members: `data.pkl`, a pickle that names tensors and the storages they are views of,
//! and each storage's bytes as `data/KEY`. candle's reader of these (as of 0.11.1) takes the file at its word: a length in the pickle
//! is reserved before it is compared with what is there, a call with too few arguments ends the process, and what the memo holds is
//! copied whenever it is mentioned, so that a file of a kilobyte fills any memory. Weights come from strangers; hence this reader,
//! whose memory is a small multiple of the file's length whatever the file says.

mod views;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{Read, Seek};

use candle_core::{Device, Tensor};
use zip::{CompressionMethod, ZipArchive};

use crate::weights::element_count;
use views::View;

/// The member that names the tensors; it lies in a folder of any name, beside which the storages are.
const PICKLE: &str = "data.pkl";

/// How files of the older form begin: a pickle of the number that `torch.save` wrote to mark them.
const BEFORE_1_6: [u8; 14] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Tensors together may be so many times as long as the file: some share a storage, few all of it.
const SHARED: u64 = 8;

/// All tensors of a file of `length` bytes, by name.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(mut file: impl Read + Seek, length: u64) -> Result<HashMap<String, Tensor>, String> {
    let broken = |error| format!("an archive that fails to unpack ({error})");
    let mut start = [0; BEFORE_1_6.len()];
    if file.read_exact(&mut start).is_ok() && start == BEFORE_1_6 {
        return Err("the form of before PyTorch 1.6 (torch.load it and torch.save it again)".to_owned());
    }
    file.rewind().map_err(|error| format!("a file that cannot be read twice ({error})"))?;
    let mut archive = Archive { zip: ZipArchive::new(file).map_err(broken)?, left: length };
    let mut names = archive.zip.file_names().filter_map(Result::ok);
    let folder = names.find_map(|name| {
        let folder = name.strip_suffix(PICKLE)?;
        (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_owned())
    });
    drop(names);
    let folder = folder.ok_or_else(|| format!("an archive without {PICKLE}"))?;
    let views = views::views(&archive.member(&format!("{folder}{PICKLE}"))?)?;

    let mut storages: HashMap<&str, Vec<u8>> = HashMap::new();
    let mut left = length.saturating_mul(SHARED);
    let mut tensors = HashMap::with_capacity(views.len());
    for (name, view) in &views {
        let storage = match storages.entry(&view.storage) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(archive.member(&format!("{folder}data/{}", view.storage))?),
        };
        let bytes = view.bytes(storage).map_err(|found| format!("the tensor {name:?} with {found}"))?;
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| format!("tensors of more than {SHARED} times the file's length"))?;
        let tensor = Tensor::from_raw_buffer(&bytes, view.dtype, &view.shape, &Device::Cpu)
            .map_err(|error| format!("the tensor {name:?} that fails to decode ({error})"))?;
        tensors.insert(name.clone(), tensor);
    }
    Ok(tensors)
}

struct Archive<R> {
    zip: ZipArchive<R>,
    /// Bytes that members may still have: those of an honest archive do not overlap.
    left: u64,
}

impl<R: Read + Seek> Archive<R> {
    fn member(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let broken =
            |error: &dyn std::fmt::Display| format!("an archive whose {name} fails to unpack ({error})");
        let member = self.zip.by_name(name).map_err(|error| broken(&error))?;
        if member.compression() != CompressionMethod::Stored {
            return Err(format!("an archive whose {name} is compressed, which torch.save leaves as it is"));
        }
        let mut bytes = Vec::new();
        member.take(self.left + 1).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| format!("an archive shorter than its members, {name} among them"))?;
        Ok(bytes)
    }
}

impl View {
    /// The tensor's bytes, row by row, out of those of its storage.
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
            // The last index turns fastest; one that is through goes back to zero and turns the one before it.
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

#[cfg(test)]
pub(crate) mod tests;
