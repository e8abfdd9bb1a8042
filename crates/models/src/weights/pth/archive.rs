//! The form since PyTorch 1.6: a ZIP archive of uncompressed members, `data.pkl`, a pickle that names tensors
//! and the storages they are views of, and each storage's bytes as `data/KEY`. ZIP's checksums reveal damage.

use std::io::{Read, Seek};
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use super::Storages;

/// The member that describes the tensors. It lies in a folder of any name, together with the storages.
const PICKLE: &str = "data.pkl";

/// An archive of `torch.save`.
pub(super) struct Archive<R> {
    zip: ZipArchive<R>,
    /// The folder of the members.
    folder: String,
    /// The number of bytes that further members may have. It is limited because members of a valid archive do
    /// not overlap.
    left: u64,
    /// Whether the storages are in big-endian order.
    big_endian: bool,
}

impl<R: Read + Seek> Archive<R> {
    /// Opens a file of `length` bytes; also returns the pickle.
    ///
    /// # Errors
    /// If the file is not such an archive. The error says what is wrong with it, in words that follow
    /// "found".
    pub(super) fn open(file: R, length: u64) -> Result<(Self, Vec<u8>), String> {
        let zip = ZipArchive::new(file).map_err(|error| {
            format!("an archive that fails to unpack ({error}), as an interrupted download does")
        })?;
        let names: Vec<String> =
            zip.file_names().filter_map(Result::ok).map(|name| name.to_string()).collect();
        let folder = names.iter().find_map(|name| {
            let folder = name.strip_suffix(PICKLE)?;
            (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_owned())
        });
        let Some(folder) = folder else {
            let numpy =
                names.iter().any(|name| Path::new(name).extension().is_some_and(|ending| ending == "npy"));
            let hint = if numpy { " (but numpy's arrays)" } else { "" };
            return Err(format!("an archive without {PICKLE}{hint}"));
        };
        if names.iter().any(|name| name.strip_prefix(&folder[..]) == Some("constants.pkl")) {
            return Err(
                "a compiled module of torch.jit.save (save the state_dict() of what torch.jit.load gives)"
                    .to_owned(),
            );
        }
        let mut archive = Self { zip, folder, left: length, big_endian: false };
        if names.contains(&format!("{}byteorder", archive.folder)) {
            archive.big_endian = archive.member("byteorder")? == b"big";
        }
        let pickle = archive.member(PICKLE)?;
        Ok((archive, pickle))
    }

    fn member(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let name = format!("{}{name}", self.folder);
        let broken =
            |error: &dyn std::fmt::Display| format!("an archive whose {name} fails to unpack ({error})");
        let member = self.zip.by_name(&name).map_err(|error| broken(&error))?;
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

impl<R: Read + Seek> Storages for Archive<R> {
    fn read(&mut self, key: &str, element: usize) -> Result<Vec<u8>, String> {
        let mut bytes = self.member(&format!("data/{key}"))?;
        if self.big_endian {
            bytes.chunks_exact_mut(element).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }
}
