//! Fetches a data set: downloads it, checks it, unpacks it beside its final folder, and renames that folder
//! into place.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::archive::{self, Contents};
use crate::digest;
use crate::download::{Patience, Phase, Progress, Remote, download};
use crate::error::{DataError, REFETCH, writing};
use crate::package::{ArchiveSpec, Package, Packing, Piece};
use crate::unpack::{self, Wanted};
use crate::unpacking::Unpacking;

/// The server to fetch from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The publisher's server.
    #[default]
    Official,
    /// The same archives on another server: the address without the file name.
    Mirror(String),
    /// The Hugging Face hub (`uoft-cs/cifar10`). The images are written as the official binary files.
    /// Needs the cargo feature `hub`.
    Hub,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The path of the data set.
    pub path: PathBuf,
    /// Whether anything was downloaded; false if a good copy existed.
    pub downloaded: bool,
    /// The new path of a folder that had the name of the set but was not a good copy of it.
    pub set_aside: Option<PathBuf>,
}

/// Fetches and unpacks `package`. `last` is called with the unpacked folder before the folder gets its name.
///
/// A piece that is already in `root` is used if it is the published one, and stays there.
pub(crate) fn fetch_package(
    package: &Package,
    source: &Source,
    root: &Path,
    patience: Patience,
    progress: &mut dyn FnMut(Progress),
    last: &mut dyn FnMut(&Path) -> Result<(), DataError>,
) -> Result<Fetched, DataError> {
    if *source == Source::Hub {
        let found = "only cifar10 can be fetched from there".to_owned();
        return Err(DataError::Hub { dataset: package.name, found });
    }
    fs_err::create_dir_all(root).map_err(writing)?;
    let mut own = Vec::new();
    for piece in &package.pieces {
        own.push(is_own(&root.join(&piece.file), &piece.sha256, piece.bytes, progress)?);
    }
    // This is checked first, because a piece without an address must not fail after gigabytes of another
    // piece were downloaded.
    let url = |piece: &Piece| match (source, &piece.base_url) {
        (Source::Mirror(base_url), _) | (_, Some(base_url)) => {
            Ok(format!("{}/{}", base_url.trim_end_matches('/'), piece.file))
        }
        (_, None) => {
            let files: Vec<&str> = package.pieces.iter().map(|piece| piece.file.as_str()).collect();
            Err(DataError::NoServer { name: package.name, files: files.join(", "), folder: root.to_owned() })
        }
    };
    for (piece, _) in package.pieces.iter().zip(&own).filter(|(_, own)| !**own) {
        url(piece)?;
    }
    let mut paths = Vec::new();
    for (piece, own) in package.pieces.iter().zip(&own) {
        let path = root.join(&piece.file);
        paths.push(if *own {
            path
        } else {
            let remote = Remote { url: url(piece)?, bytes: piece.bytes, sha256: piece.sha256.clone() };
            download(&remote, &path, patience, progress)?
        });
    }
    let set_aside = install(root, package.folder, |folder| {
        for (piece, path) in package.pieces.iter().zip(&paths) {
            unpack_piece(package, piece, path, folder, progress)?;
        }
        last(folder)
    })?;
    for (path, own) in paths.iter().zip(&own) {
        if !own {
            fs_err::remove_file(path).map_err(writing)?;
        }
    }
    let downloaded = own.contains(&false);
    Ok(Fetched { path: root.join(package.folder), downloaded, set_aside })
}

fn unpack_piece(
    package: &Package,
    piece: &Piece,
    path: &Path,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), DataError> {
    let into = folder.join(piece.into);
    fs_err::create_dir_all(&into).map_err(writing)?;
    // The unpacked size is not published. Photographs are hardly compressed, so the length of the archive is
    // a good estimate.
    let mut each = |bytes: u64| {
        let total = piece.bytes.max(bytes);
        progress(Progress { phase: Phase::Unpack, file: piece.file.clone(), bytes, total });
    };
    let wanted = |top, keep| Wanted { top, keep, into: &into, advice: package.advice };
    match piece.packing {
        Packing::TarGz { top, keep } => unpack::tar_gz(path, &wanted(top, keep), &mut each),
        Packing::Zip { top, keep } => unpack::zip(path, &wanted(top, keep), &mut each),
        Packing::Plain => fs_err::copy(path, into.join(&piece.file)).map(drop).map_err(writing),
    }
}

/// Returns whether the archive at `path` exists and is the published one.
fn is_own(
    path: &Path,
    sha256: &str,
    total: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<bool, DataError> {
    if !path.is_file() {
        return Ok(false);
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut check = |bytes| progress(Progress { phase: Phase::Check, file: file.clone(), bytes, total });
    let good = digest::of_file(path, &mut check)?.0 == sha256;
    if !good {
        tracing::warn!(path = %path.display(), "this archive is not the published one; downloading another");
    }
    Ok(good)
}

/// Fetches and unpacks the archive that `spec` describes.
pub(crate) fn fetch_archive(
    spec: &ArchiveSpec,
    root: &Path,
    patience: Patience,
    progress: &mut dyn FnMut(Progress),
) -> Result<Fetched, DataError> {
    fs_err::create_dir_all(root).map_err(writing)?;
    let archive = root.join(&spec.file);
    let own = is_own(&archive, &spec.sha256, spec.bytes, progress)?;
    let source = if own {
        archive
    } else {
        let url = format!("{}/{}", spec.base_url.trim_end_matches('/'), spec.file);
        let remote = Remote { url, bytes: spec.bytes, sha256: spec.sha256.clone() };
        download(&remote, &archive, patience, progress)?
    };
    let set_aside = install(root, &spec.folder, |folder| unpack(spec, &source, folder, progress))?;
    if !own {
        fs_err::remove_file(&source).map_err(writing)?;
    }
    Ok(Fetched { path: root.join(&spec.folder), downloaded: !own, set_aside })
}

fn unpack(
    spec: &ArchiveSpec,
    source: &Path,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), DataError> {
    let required: Vec<&str> = spec.required.iter().map(|(name, _)| name.as_str()).collect();
    let optional: Vec<&str> = spec.optional.iter().map(String::as_str).collect();
    let contents = Contents {
        folder: &spec.folder,
        required: &required,
        optional: &optional,
        longest: spec.required.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1 << 16),
        published: spec.bytes,
    };
    let (mut bytes, total) = (0, spec.required.iter().map(|(_, bytes)| bytes).sum());
    archive::read(source, contents, &mut |name, file| {
        let found = file.len() as u64;
        if let Some((_, expected)) = spec.required.iter().find(|(known, _)| known == name) {
            if found != *expected {
                let path = source.join(name);
                return Err(DataError::Size { path, found, expected: *expected, advice: REFETCH });
            }
            bytes += found;
        }
        write_file(&folder.join(name), &file)?;
        progress(Progress { phase: Phase::Unpack, file: name.to_owned(), bytes, total });
        Ok(())
    })
}

/// Lets `fill` write into a new folder, then gives that folder the name `root/name`. A folder that had the
/// name before is renamed; its new path is returned.
pub(crate) fn install(
    root: &Path,
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), DataError>,
) -> Result<Option<PathBuf>, DataError> {
    let new = Unpacking::begin(root, name)?;
    let filled = new.path().join(name);
    fs_err::create_dir(&filled).map_err(writing)?;
    fill(&filled)?;
    let place = root.join(name);
    let set_aside = place.exists().then(|| {
        let mut number = 1;
        while root.join(format!("{name}.old-{number}")).exists() {
            number += 1;
        }
        root.join(format!("{name}.old-{number}"))
    });
    if let Some(aside) = &set_aside {
        tracing::warn!(path = %place.display(), aside = %aside.display(), "set aside a copy that is not the official one");
        fs_err::rename(&place, aside).map_err(writing)?;
    }
    fs_err::rename(&filled, &place).map_err(writing)?;
    Ok(set_aside)
}

/// Writes a new file and waits until it is on disk.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    use std::io::Write;
    let mut file = fs_err::File::create(path).map_err(writing)?;
    file.write_all(bytes).map_err(writing)?;
    file.sync_all().map_err(writing)
}

#[cfg(test)]
mod tests;
