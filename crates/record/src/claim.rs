//! The claims in a run's folder: files `lease-N`, each made once and never changed. [`super::lease`] says how
//! they are used.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RecordError;
use super::lease::{BEAT, is_gone};
use super::names;
use super::owner::Owner;

/// Tries to remove a work folder into which its former owner may still put files.
const TRIES: usize = 1000;

/// A claim, as its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) number: u64,
    /// The random part of the work folder's name; empty if the file is not whole (yet).
    pub(super) nonce: String,
    pub(super) owner: Option<Owner>,
}

/// The content of the file of a claim.
#[derive(Serialize, Deserialize)]
struct Content {
    nonce: String,
    owner: Owner,
}

/// All claims in a folder, and the work folders with the numbers of their claims.
pub(super) struct Claims {
    claims: Vec<Claim>,
    work_folders: Vec<(u64, PathBuf)>,
}

/// The highest number that counts as one of a claim.
const MOST: u64 = 999_999_999_999;

/// Returns the work folder of a claim.
pub(super) fn work_folder(folder: &Path, claim: &Claim) -> PathBuf {
    folder.join(format!("{}{:06}-{}", names::LEASE, claim.number, claim.nonce))
}

impl Claim {
    /// Returns a claim of `owner` that is not made yet.
    pub(super) fn new(number: u64, owner: Owner) -> Self {
        // Two hash maps of one program, or of two, do not have the same random keys.
        let nonce = format!("{:016x}", RandomState::new().hash_one(&owner.since));
        Self { number, nonce, owner: Some(owner) }
    }

    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}{:06}", names::LEASE, self.number))
    }

    /// Makes the work folder, then the claim. Returns whether it holds: it does not if another process made this
    /// claim or a higher one.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub(super) fn make(&self, folder: &Path) -> Result<bool, RecordError> {
        let (work, path) = (work_folder(folder, self), self.path(folder));
        let made = self.try_to_make(&work, &path).map_err(RecordError::io("claim", &path))?;
        let higher = |claims: Claims| claims.highest().is_some_and(|claim| claim.number > self.number);
        let holds = made && !higher(Claims::of(folder)?);
        if !holds {
            if made {
                let _ = fs::remove_file(&path);
            }
            dismantle(&work).map_err(RecordError::io("tidy up", &work))?;
        }
        Ok(holds)
    }

    /// Returns whether this process made the claim.
    fn try_to_make(&self, work: &Path, path: &Path) -> io::Result<bool> {
        let Some(owner) = self.owner.clone() else { return Ok(false) };
        let text = serde_json::to_string(&Content { nonce: self.nonce.clone(), owner })? + "\n";
        let whole = work.join("claim");
        fs::create_dir(work)?;
        let prepared = fs::write(work.join(BEAT), format!("{:020}\n", 0)).and_then(|()| {
            let mut file = File::create(&whole)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        match prepared {
            // The owner of a higher claim removed the folder.
            Err(error) if is_gone(&error) => return Ok(false),
            prepared => prepared?,
        }
        let made = match fs::hard_link(&whole, path) {
            Ok(()) => true,
            // An answer of a file server may have been lost, and the link made nevertheless.
            Err(_) if links(&whole) == Some(2) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) if is_gone(&error) => false,
            // The file system has no hard links. A reader may then see the file before its content.
            Err(_) => match File::options().write(true).create_new(true).open(path) {
                Ok(mut file) => file.write_all(text.as_bytes()).map(|()| true)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            },
        };
        // If it is gone, the first write finds that the lease is lost.
        let _ = fs::remove_file(&whole);
        Ok(made)
    }
}

/// Returns the number of names that a file has, where the system says so.
#[cfg(unix)]
fn links(path: &Path) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(path).ok()?))
}

#[cfg(not(unix))]
fn links(_path: &Path) -> Option<u64> {
    None
}

impl Claims {
    /// Reads the claims in `folder`; none if there is no such folder.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub(super) fn of(folder: &Path) -> Result<Self, RecordError> {
        let mut found = Self { claims: Vec::new(), work_folders: Vec::new() };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(RecordError::io("read", folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(RecordError::io("read", folder))?;
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(names::LEASE)) else { continue };
            match rest.split_once('-') {
                Some((number, nonce)) => {
                    let is_nonce = nonce.len() == 16 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
                    let number = number.parse().ok().filter(|number| is_nonce && *number <= MOST);
                    found.work_folders.extend(number.map(|number| (number, entry.path())));
                }
                None => {
                    let number = rest.parse().ok().filter(|number| *number <= MOST && entry.path().is_file());
                    let Some(number) = number else { continue };
                    // It may have been removed since, and then it is not the highest.
                    let content = fs::read(entry.path())
                        .ok()
                        .and_then(|bytes| serde_json::from_slice::<Content>(&bytes).ok());
                    let (nonce, owner) =
                        content.map_or_else(Default::default, |found| (found.nonce, Some(found.owner)));
                    found.claims.push(Claim { number, nonce, owner });
                }
            }
        }
        Ok(found)
    }

    /// Returns the claim that holds, or held last.
    pub(super) fn highest(&self) -> Option<&Claim> {
        self.claims.iter().max_by_key(|claim| claim.number)
    }

    /// Removes the claims below `own`, and all work folders of its number and of lower ones except its own. (A second
    /// folder of its number is that of a process that was slower, or of an owner whose claim somebody deleted.)
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub(super) fn dismantle_others(&self, folder: &Path, own: &Claim) -> Result<(), RecordError> {
        let kept = work_folder(folder, own);
        for (_, work) in self.work_folders.iter().filter(|(of, work)| *of <= own.number && *work != kept) {
            dismantle(work).map_err(RecordError::io("tidy up", work))?;
        }
        for claim in self.claims.iter().filter(|claim| claim.number < own.number) {
            let path = claim.path(folder);
            match fs::remove_file(&path) {
                Err(error) if !is_gone(&error) => return Err(RecordError::io("remove", &path)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Removes a work folder with all files in it. Afterwards nothing can be renamed out of it.
///
/// # Errors
/// Returns the error of the file system.
pub(super) fn dismantle(work: &Path) -> io::Result<()> {
    let mut tried = 0;
    loop {
        let entries = match fs::read_dir(work) {
            Err(error) if is_gone(&error) => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed =
                if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            match removed {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        tried += 1;
        match fs::remove_dir(work) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            // Its former owner put a file there in between.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tried < TRIES => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}
