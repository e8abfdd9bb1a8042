//! Finds whether the process that holds a claim lives. [`super::lease`] says by which rules.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::RecordError;
use super::claim::{Claim, work_folder};
use super::lease::{BEAT, is_gone};

/// How it stands with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its owner released it.
    Free,
    /// Its owner lives, or may live.
    Held,
    /// Its owner has ended, or gave no sign of life for too long.
    Dead,
}

/// What was seen of a claim, and since when by the clock of this process.
struct Seen {
    number: u64,
    nonce: String,
    signs: Vec<u8>,
    since: Instant,
}

/// What this process saw of the claims of each folder. A claim is watched from one look at the folder to the next.
static SEEN: LazyLock<Mutex<HashMap<PathBuf, Seen>>> = LazyLock::new(Mutex::default);

/// Returns how it stands with `claim`, the highest in `folder`. A claim that does not say for how long its owner may be
/// silent has the time `unknown`.
///
/// # Errors
/// Returns `Io`, which names the path, if the file system refuses to say.
pub(super) fn standing(folder: &Path, claim: &Claim, unknown: Duration) -> Result<Standing, RecordError> {
    let work = work_folder(folder, claim);
    // A claim whose file is not whole yet has no known work folder. If it stays so, its owner died.
    let signs = match fs::read(work.join(BEAT)) {
        Ok(signs) => signs,
        Err(error) if is_gone(&error) && claim.owner.is_some() && !exists(&work)? => {
            SEEN.lock().unwrap_or_else(PoisonError::into_inner).remove(folder);
            return Ok(Standing::Free);
        }
        Err(error) if is_gone(&error) => Vec::new(),
        Err(error) => return Err(RecordError::io("read", &work.join(BEAT))(error)),
    };
    if let Some(has_ended) = claim.owner.as_ref().and_then(super::Owner::has_ended) {
        return Ok(if has_ended { Standing::Dead } else { Standing::Held });
    }
    let allowed = claim.owner.as_ref().map_or(unknown, super::Owner::lease);
    let mut all = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    match all.get(folder) {
        Some(seen) if (seen.number, &seen.nonce, &seen.signs) == (claim.number, &claim.nonce, &signs) => {
            Ok(if seen.since.elapsed() > allowed { Standing::Dead } else { Standing::Held })
        }
        _ => {
            let (number, nonce) = (claim.number, claim.nonce.clone());
            all.insert(folder.to_path_buf(), Seen { number, nonce, signs, since: Instant::now() });
            Ok(Standing::Held)
        }
    }
}

fn exists(path: &Path) -> Result<bool, RecordError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(RecordError::io("read", path)(error)),
    }
}
