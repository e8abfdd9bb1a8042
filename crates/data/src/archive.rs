//! Reads `.tar.gz` archives that are not trusted: only the named members, only plain files, and only in one
//! folder.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Component, Path};

use flate2::read::GzDecoder;
use invaspread_files::open_regular;
use tar::{Archive, EntryType};

use crate::error::{DataError, REFETCH, reading};

/// The content that an archive must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contents<'a> {
    /// The one folder at its top.
    pub folder: &'a str,
    /// The names of the plain files that must be in the folder.
    pub required: &'a [&'a str],
    /// The names of the plain files that may be in the folder. Other plain files are skipped.
    pub optional: &'a [&'a str],
    /// The largest length of a member, in bytes.
    pub longest: u64,
    /// The published length of the archive in bytes, for the error of an archive that ends too soon.
    pub published: u64,
}

/// A function that takes the name and the bytes of a member.
pub(crate) type Take<'a> = &'a mut dyn FnMut(&str, Vec<u8>) -> Result<(), DataError>;

/// Reads the named members of the archive at `path` and hands each to `take`, in the archive's order.
///
/// # Errors
/// If the archive cannot be read, ends too soon, lacks a required member, or holds a link, an absolute path,
/// a path with `..`, a member twice, or one that is too long.
pub(crate) fn read(path: &Path, contents: Contents<'_>, take: Take<'_>) -> Result<(), DataError> {
    let file = open_regular(path).map_err(reading)?;
    let held = file.metadata().map_err(reading)?.len();
    let broken = |error: &io::Error| {
        if error.kind() == io::ErrorKind::UnexpectedEof && held != contents.published {
            return DataError::Size {
                path: path.to_owned(),
                found: held,
                expected: contents.published,
                advice: REFETCH,
            };
        }
        DataError::damaged(
            path,
            format!("an archive that fails to unpack ({error})"),
            "a whole .tar.gz archive",
        )
    };
    // A valid archive unpacks to its members, headers and padding. An archive that unpacks to more is
    // hostile.
    let members = (contents.required.len() + contents.optional.len() + 1) as u64;
    let most = contents.longest * members + (1 << 20);
    let mut archive = Archive::new(GzDecoder::new(io::BufReader::new(file)).take(most));
    let mut missing: HashMap<&str, bool> = contents.required.iter().map(|name| (*name, true)).collect();
    missing.extend(contents.optional.iter().map(|name| (*name, false)));
    for entry in archive.entries().map_err(|error| broken(&error))? {
        let mut entry = entry.map_err(|error| broken(&error))?;
        let Some(name) = plain_name(path, &entry, contents.folder)? else { continue };
        if !contents.required.contains(&name.as_str()) && !contents.optional.contains(&name.as_str()) {
            tracing::debug!(archive = %path.display(), member = name, "skipped a member that is not needed");
            continue;
        }
        if missing.remove(name.as_str()).is_none() {
            return Err(DataError::damaged(path, format!("{name} twice"), "each member once"));
        }
        if entry.size() > contents.longest {
            let found = format!("{name} of {} bytes", entry.size());
            return Err(DataError::damaged(path, found, format!("at most {} bytes", contents.longest)));
        }
        let mut bytes = Vec::with_capacity(entry.size() as usize);
        entry.read_to_end(&mut bytes).map_err(|error| broken(&error))?;
        if bytes.len() as u64 != entry.size() {
            return Err(broken(&io::ErrorKind::UnexpectedEof.into()));
        }
        take(&name, bytes)?;
    }
    let mut absent: Vec<&str> =
        missing.into_iter().filter_map(|(name, needed)| needed.then_some(name)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    absent.sort_unstable();
    Err(DataError::damaged(
        path,
        format!("an archive without {}", absent.join(", ")),
        format!("{}/ with {}", contents.folder, contents.required.join(", ")),
    ))
}

/// Returns the file name of a member that is a plain file directly in `folder`; `None` for a folder or a
/// header.
fn plain_name(
    archive: &Path,
    entry: &tar::Entry<'_, impl Read>,
    folder: &str,
) -> Result<Option<String>, DataError> {
    let path = entry.path().map_err(reading)?;
    let refuse = |why: &str| {
        let expected = format!("nothing but plain files in {folder}/; do not trust this archive");
        Err(DataError::damaged(archive, format!("{} ({why})", path.display()), expected))
    };
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(None),
        EntryType::Symlink | EntryType::Link => return refuse("a link"),
        _ => return refuse("not a plain file"),
    }
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir => return refuse("a path that leads outside"),
            Component::RootDir | Component::Prefix(_) => return refuse("an absolute path"),
        }
    }
    match &mut parts[..] {
        [top, name] if top == folder => Ok(Some(std::mem::take(name))),
        _ => Ok(Some(path.to_string_lossy().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::path::PathBuf;

    use super::*;
    use crate::sample::{Member, tar_gz};

    const CONTENTS: Contents<'static> = Contents {
        folder: "set",
        required: &["a.bin", "b.bin"],
        optional: &["read.me"],
        longest: 100,
        published: 999,
    };

    fn read_all(members: &[Member<'_>]) -> Result<Vec<(String, Vec<u8>)>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.tar.gz");
        fs_err::write(&path, tar_gz(members)).unwrap();
        read_from(&path)
    }

    fn read_from(path: &Path) -> Result<Vec<(String, Vec<u8>)>, DataError> {
        let mut all = Vec::new();
        read(path, CONTENTS, &mut |name, bytes| {
            all.push((name.to_owned(), bytes));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn named_members_are_read_and_others_passed_over() {
        let found = read_all(&[
            Member::Folder("set/"),
            Member::File("set/b.bin", b"bb"),
            Member::File("./set/a.bin", b"a"),
            Member::File("set/extra", b"?"),
            Member::File("elsewhere/a.bin", b"no"),
        ]);
        assert_eq!(
            found.unwrap(),
            [("b.bin".to_owned(), b"bb".to_vec()), ("a.bin".to_owned(), b"a".to_vec())]
        );
    }

    #[test]
    fn what_leads_outside_is_refused() {
        let members = [
            (Member::File("set/../../a.bin", b"x"), "leads outside"),
            (Member::File("/etc/a.bin", b"x"), "absolute"),
            (Member::Link("set/a.bin", "/etc/passwd"), "a link"),
        ];
        for (member, why) in members {
            let message = read_all(&[member]).unwrap_err().to_string();
            assert!(message.contains(why) && message.contains("set.tar.gz"), "{message}");
        }
    }

    #[test]
    fn missing_doubled_and_overlong_members_are_named() {
        let message = read_all(&[Member::File("set/a.bin", b"a")]).unwrap_err().to_string();
        assert!(message.contains("without b.bin"), "{message}");
        let twice = [Member::File("set/a.bin", b"a"), Member::File("set/a.bin", b"a")];
        assert!(read_all(&twice).unwrap_err().to_string().contains("a.bin twice"));
        let long = read_all(&[Member::File("set/a.bin", &[0; 101])]).unwrap_err().to_string();
        assert!(long.contains("101 bytes") && long.contains("at most 100"), "{long}");
    }

    #[test]
    fn a_truncated_archive_names_both_lengths() {
        let noise: Vec<u8> = (0..90u32).map(|i| (i * i * 31 % 251) as u8).collect();
        let whole = tar_gz(&[Member::File("set/a.bin", &noise), Member::File("set/b.bin", &noise)]);
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("set.tar.gz");
        for held in 0..whole.len() - 8 {
            fs_err::write(&path, &whole[..held]).unwrap();
            match read_from(&path) {
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains("set.tar.gz") && message.contains("fetch cifar10"), "{message}");
                }
                // Only the padding after the last member may be missing without a loss.
                Ok(found) => assert!(found.len() == 2 && found.iter().all(|(_, bytes)| *bytes == noise)),
            }
        }
        fs_err::write(&path, &whole[..whole.len() / 2]).unwrap();
        let message = read_from(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("found {} bytes, expected 999", whole.len() / 2)), "{message}");
    }
}
