//! Decodes and resizes images once, and packs them into one file that training reads from.
//!
//! The pack is written under a temporary name, flushed and renamed. Its head identifies what it was made
//! from: of image files the names, lengths and times of change, of shards the content; the size and the
//! filter. If any of these has changed, or the pack was cut short, it is made again. Each image has a CRC-32 that is compared whenever it
//! is read, so that later damage is found too: the pack is then removed, and the next command makes it again.
//!
//! Layout, little-endian: [`MAGIC`], version and side (u32), number of images (u64), SHA-256 of what
//! identifies the sources; SHA-256 of the contents of image files; for each image its CRC-32 and whether it
//! was broken (u32); SHA-256 of everything before; the images, side x side x 3 bytes each, broken ones black.

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use invaspread_augment::resize;
use invaspread_files::open_regular;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::config::RetrievalConfig;
use crate::decode;
use crate::digest;
use crate::error::{DataError, reading};
use crate::left_out::{self, LEFT_OUT};
use crate::packing::{self, Packing};
use crate::records::{Arrangement, RecordFile};

/// The first bytes of a pack.
const MAGIC: [u8; 8] = *b"invapack";

/// The version of the layout and of the decoding; packs of other versions are made again.
const VERSION: u32 = 2;

/// The number of bytes before the index.
const HEADER: usize = 8 + 4 + 4 + 8 + 32 + 32;

/// The number of files that are decoded together: enough for any number of threads, and 50 MB of images of
/// 256 x 256.
const AT_ONCE: usize = 256;

/// The advice for a damaged pack.
const REMAKE: &str = "remove it: it is made again from the image files";

/// The advice for a broken image file.
const BROKEN: &str = "repair or fetch it again, or set data.skip_broken=true to leave such files out";

/// Images to pack.
pub(crate) trait Pictures {
    /// Returns the beginning of the pack's name.
    fn name(&self) -> &str;

    /// Returns the size and the filter of the resize.
    fn resize(&self) -> &RetrievalConfig;

    /// Returns whether broken images are left out.
    fn skip_broken(&self) -> bool;

    /// Returns the name of each image.
    fn names(&self) -> Vec<PathBuf>;

    /// Returns a SHA-256 of everything whose change makes a pack out of date.
    fn fingerprint(&self) -> [u8; 32];

    /// Reads, decodes and resizes all images in the order of their names, and calls `take` with some at a time.
    fn read(&self, take: &mut dyn FnMut(Vec<Decoded>) -> Result<(), DataError>) -> Result<(), DataError>;
}

/// The image files to pack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The name of the data set.
    pub name: &'a str,
    /// The folder that the names of the files are relative to.
    pub folder: &'a Path,
    /// The files.
    pub files: &'a [PathBuf],
    /// The size and the filter of the resize.
    pub resize: &'a RetrievalConfig,
    /// Whether broken files are left out.
    pub skip_broken: bool,
}

/// A pack that matches its sources.
#[derive(Debug)]
pub(crate) struct Pack {
    /// The images, in the order of the sources.
    pub images: RecordFile,
    /// For each image, whether it could not be decoded.
    pub broken: Vec<bool>,
    /// [`content`] of image files when they were packed.
    pub content: String,
}

/// Opens the pack of `sources` in the folder `cache`. Makes it first if it does not exist or was made from
/// other sources.
pub(crate) fn open(sources: &dyn Pictures, cache: &Path) -> Result<Pack, DataError> {
    let resize = sources.resize();
    let side = resize.image_size;
    let path = cache.join(format!("{}-{side}-{}.pack", sources.name(), resize.filter.name()));
    let (names, fingerprint) = (sources.names(), sources.fingerprint());
    let usable = || {
        let read = read(&path, side, names.len(), &fingerprint)?;
        let read = read.map(|pack| Pack { images: pack.images.made_of(names.clone()), ..pack });
        Ok::<_, DataError>(match read {
            Ok(pack) if pack.broken.contains(&true) && !sources.skip_broken() => {
                Err(Unusable::Outdated("some images were broken when they were packed"))
            }
            read => read,
        })
    };
    let why = match usable()? {
        Ok(pack) => return Ok(pack),
        Err(why) => why,
    };
    let _lock = Lock::wait(&path)?;
    // Another process may have made it by now.
    if let Ok(pack) = usable()? {
        return Ok(pack);
    }
    if let Unusable::Damaged(_) = &why {
        tracing::warn!(path = %path.display(), "the packed images are made again: {why}");
    } else {
        tracing::info!(path = %path.display(), %why, "packing {} images", names.len());
    }
    make(sources, &names, &path, &fingerprint)?;
    usable()?.map_err(|found| DataError::Damaged {
        path: path.clone(),
        found: format!("a pack that was just made, but {found}"),
        expected: "the pack as it was written".to_owned(),
        advice: "check that nothing else writes there and that the disk is sound",
    })
}

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// There is none.
    #[error("there is none yet")]
    Absent,
    /// It is of other images, or images are made from their files in another way.
    #[error("{0}")]
    Outdated(&'static str),
    /// It is not as it was written.
    #[error("{0}")]
    Damaged(String),
}

/// The lock that a process holds while it makes a file of the cache. Dropping the value releases it.
pub(crate) struct Lock(Option<fs_err::File>);

impl Lock {
    /// Waits until no other process makes the file at `path`, and removes the files that a killed process has
    /// left. Makes the folder if it does not exist.
    pub(crate) fn wait(path: &Path) -> Result<Self, DataError> {
        let (folder, prefix) = temporary_name(path);
        fs_err::create_dir_all(folder).map_err(uncached)?;
        let file = fs_err::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.with_extension("lock"));
        let file = file.map_err(uncached)?;
        if file.file().try_lock().is_err() {
            tracing::info!(path = %path.display(), "waiting for another process that packs the same images");
            if let Err(error) = file.file().lock() {
                // The file system has no locks. Two processes would write the same bytes, each to its own
                // file.
                tracing::debug!(%error, "no lock on the pack");
                return Ok(Self(None));
            }
        }
        for entry in fs_err::read_dir(folder).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs_err::remove_file(entry.path()).map_err(uncached)?;
            }
        }
        Ok(Self(Some(file)))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Closing the file releases the lock in any case.
            let _ = file.file().unlock();
        }
    }
}

/// Returns the folder and the beginning of the name of the file that the pack at `path` is written to until
/// it is complete.
fn temporary_name(path: &Path) -> (&Path, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    (path.parent().unwrap_or(Path::new(".")), format!(".{stem}-part-"))
}

/// The SHA-256 that tells a pack of other sources or of another resize.
pub(crate) fn fingerprint(resize: &RetrievalConfig, sources: impl IntoIterator<Item = Vec<u8>>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("{} {}\n", resize.image_size, resize.filter.name()));
    for source in sources {
        hash.update(source);
    }
    hash.finalize().into()
}

impl Pictures for Sources<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn resize(&self) -> &RetrievalConfig {
        self.resize
    }

    fn skip_broken(&self) -> bool {
        self.skip_broken
    }

    fn names(&self) -> Vec<PathBuf> {
        self.files.to_vec()
    }

    /// A missing file counts too; the error of packing names it.
    fn fingerprint(&self) -> [u8; 32] {
        let each = |name: &PathBuf| {
            let metadata = std::fs::metadata(self.folder.join(name)).ok();
            let changed = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
            let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let length = metadata.map(|metadata| metadata.len());
            let told = format!("\0{length:?}\0{:?}\n", changed.map(|time| time.as_nanos()));
            [in_lists(name), told.into_bytes()].concat()
        };
        let lines: Vec<Vec<u8>> = self.files.par_iter().map(each).collect();
        fingerprint(self.resize, lines)
    }

    fn read(&self, take: &mut dyn FnMut(Vec<Decoded>) -> Result<(), DataError>) -> Result<(), DataError> {
        self.files.chunks(AT_ONCE).try_for_each(|files| {
            take(files.par_iter().map(|name| self.decode(name)).collect::<Result<_, _>>()?)
        })
    }
}

/// A hash of the contents of files, computed from their names and hashes.
#[derive(Clone, Default)]
pub(crate) struct ContentHash(Sha256);

impl ContentHash {
    /// Adds the next file.
    pub(crate) fn add(&mut self, name: &Path, sha256: &str) {
        self.0.update(format!("{sha256}  "));
        self.0.update(in_lists(name));
        self.0.update("\n");
    }

    /// Returns the hash in lowercase hexadecimal.
    pub(crate) fn finish(self) -> String {
        digest::hex(&self.0.finalize())
    }
}

/// Returns the bytes of a path with slashes, as in lists, on every system.
fn in_lists(path: &Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_encoded_bytes().to_vec();
    if std::path::MAIN_SEPARATOR != '/' {
        bytes.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    }
    bytes
}

/// Reads `files` and returns their [`ContentHash`].
pub(crate) fn content(folder: &Path, files: &[PathBuf]) -> Result<String, DataError> {
    let each = |name: &PathBuf| Ok(digest::of_file(&folder.join(name), &mut |_| ())?.0);
    let hashes: Vec<String> = files.par_iter().map(each).collect::<Result<_, DataError>>()?;
    let mut content = ContentHash::default();
    for (name, sha256) in files.iter().zip(&hashes) {
        content.add(name, sha256);
    }
    Ok(content.finish())
}

/// Opens the pack at `path`, or returns in words why it cannot be used.
pub(crate) fn read(
    path: &Path,
    side: usize,
    images: usize,
    fingerprint: &[u8; 32],
) -> Result<Result<Pack, Unusable>, DataError> {
    if !path.exists() {
        return Ok(Err(Unusable::Absent));
    }
    let file = open_regular(path).map_err(reading)?;
    let length = file.metadata().map_err(reading)?.len();
    let start = HEADER + images * 8 + 32;
    let expected = (start + images * side * side * 3) as u64;
    let mut head = Vec::new();
    (&file).take(start as u64).read_to_end(&mut head).map_err(reading)?;
    if !head.starts_with(&beginning(side, images, fingerprint)) {
        return Ok(Err(Unusable::Outdated("the image files or the way they are resized have changed")));
    }
    if length != expected || head.len() < start {
        return Ok(Err(Unusable::Damaged(format!("it has {length} bytes instead of {expected}"))));
    }
    let (before, sum) = head.split_at(start - 32);
    if Sha256::digest(before)[..] != *sum {
        return Ok(Err(Unusable::Damaged("its head is damaged".to_owned())));
    }
    let content = digest::hex(&before[56..HEADER]);
    let (entries, _) = before[HEADER..].as_chunks::<8>();
    let word = |entry: &[u8; 8], at: usize| {
        u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
    };
    let checks = entries.iter().map(|entry| word(entry, 0)).collect();
    let broken = entries.iter().map(|entry| word(entry, 4) != 0).collect();
    // The images are read from the same open file, since another process may have put another file under its
    // name.
    let images = RecordFile::of(file, start as u64, side, Arrangement::Interleaved, REMAKE);
    Ok(Ok(Pack { images: images.checked(checks), broken, content }))
}

/// Returns the first bytes of a pack.
pub(crate) fn beginning(side: usize, images: usize, fingerprint: &[u8; 32]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((side as u32).to_le_bytes());
    out.extend((images as u64).to_le_bytes());
    out.extend(fingerprint);
    out
}

/// Writes the checksum that the head of a pack of this many images must have, if the head is complete.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn set_checksum(pack: &mut [u8], images: usize) {
    if let Some((before, after)) = pack.split_at_mut_checked(HEADER + images * 8)
        && let Some(sum) = after.first_chunk_mut::<32>()
    {
        *sum = Sha256::digest(before).into();
    }
}

/// A resized image, and the hash of its file.
pub(crate) struct Decoded {
    /// The SHA-256 of the file; of an image in a shard, nothing.
    pub(crate) sha256: String,
    /// The pixels; `None` if the image is broken.
    pub(crate) pixels: Option<Vec<u8>>,
}

/// Returns the error of a cache that cannot be written.
fn uncached(source: std::io::Error) -> DataError {
    DataError::Io {
        source,
        advice: "check that the folder may be written to and its disk has room (an image of 256 x 256 takes 197 kB), or choose \
                 another folder with data.cache",
    }
}

/// Makes a file in the folder of `path`, under a temporary name that [`Lock::wait`] knows.
pub(crate) fn temporary(path: &Path) -> Result<tempfile::NamedTempFile, DataError> {
    let (folder, prefix) = temporary_name(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    // The file gets the permissions of any new file, as data sets are often shared.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(|error| {
        uncached(std::io::Error::new(
            error.kind(),
            format!("failed to make a file in {}: {error}", folder.display()),
        ))
    })
}

/// Flushes a file that [`temporary`] made, and gives it the name `path`.
pub(crate) fn keep(file: tempfile::NamedTempFile, path: &Path) -> Result<(), DataError> {
    file.as_file().sync_all().map_err(|error| unwritten(path, &error))?;
    file.persist(path).map_err(|error| unwritten(path, &error.error))?;
    Ok(())
}

/// Returns the error of the file at `path` that cannot be written.
pub(crate) fn unwritten(path: &Path, error: &std::io::Error) -> DataError {
    uncached(std::io::Error::new(error.kind(), format!("failed to write {}: {error}", path.display())))
}

fn make(
    sources: &dyn Pictures,
    names: &[PathBuf],
    path: &Path,
    fingerprint: &[u8; 32],
) -> Result<(), DataError> {
    let (side, images) = (sources.resize().image_size, names.len());
    let file = temporary(path)?;
    let named = |error: std::io::Error| unwritten(path, &error);
    let start = HEADER + images * 8 + 32;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    // The head is written over these zeros at the end.
    out.write_all(&vec![0; start]).map_err(named)?;
    let (mut index, mut content) = (Vec::with_capacity(images * 8), ContentHash::default());
    let black = vec![0; side * side * 3];
    let mut left = names.iter();
    let report = |done| packing::report(&Packing { set: sources.name(), path, done, all: images });
    report(0)?;
    sources.read(&mut |decoded| {
        for (image, name) in decoded.into_iter().zip(&mut left) {
            content.add(name, &image.sha256);
            let pixels = image.pixels.as_ref().unwrap_or(&black);
            index.extend(crc32fast::hash(pixels).to_le_bytes());
            index.extend(u32::from(image.pixels.is_none()).to_le_bytes());
            out.write_all(pixels).map_err(named)?;
        }
        report(images - left.len())
    })?;
    let mut file = out.into_inner().map_err(|error| named(error.into_error()))?;
    let mut head = beginning(side, images, fingerprint);
    head.extend(content.0.finalize());
    head.extend(index);
    head.extend(Sha256::digest(&head));
    std::io::Seek::rewind(&mut file).map_err(named)?;
    file.write_all(&head).map_err(named)?;
    keep(file, path)
}

impl Sources<'_> {
    /// Reads, decodes and resizes a file. A broken one is an error unless broken files are left out.
    fn decode(&self, name: &Path) -> Result<Decoded, DataError> {
        let path = self.folder.join(name);
        let side = self.resize.image_size;
        let advice = if self.skip_broken { LEFT_OUT } else { BROKEN };
        let bytes = match decode::read(&path, advice) {
            Ok(bytes) => bytes,
            Err(error) if self.skip_broken => {
                left_out::warn_once(&path, &error);
                return Ok(Decoded { sha256: "missing".to_owned(), pixels: None });
            }
            Err(error) => return Err(error),
        };
        let sha256 = digest::of_bytes(&bytes);
        let pixels = match decode::decode(&bytes) {
            Ok(image) => Some(resize(image.as_ref(), side, side, self.resize.filter.filter()).pixels),
            Err(found) => {
                let error = decode::damaged(&path, found, advice);
                if !self.skip_broken {
                    return Err(error);
                }
                left_out::warn_once(&path, &error);
                None
            }
        };
        Ok(Decoded { sha256, pixels })
    }
}

/// Decodes every file, and returns the error of the first broken one.
pub(crate) fn try_all(folder: &Path, files: &[PathBuf]) -> Result<(), DataError> {
    files.par_iter().try_for_each(|name| decode::load(&folder.join(name), BROKEN).map(drop))
}

#[cfg(test)]
mod tests;
