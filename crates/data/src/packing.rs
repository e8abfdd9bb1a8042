//! Reports how far the packing of a data set is, to whoever watches. The packing of a large set takes minutes, and begins deep within
//! the opening of a data set, so that the watcher is set once for the process.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::DataError;

/// How far the packing of a data set is.
#[derive(Debug, Clone, Copy)]
pub struct Packing<'a> {
    /// The name of the set, or the beginning of the name of its pack.
    pub set: &'a str,
    /// The file that it is packed into.
    pub path: &'a Path,
    /// The images that are packed.
    pub done: usize,
    /// All images.
    pub all: usize,
}

type Watcher = Arc<dyn Fn(&Packing<'_>) -> bool + Send + Sync>;

static WATCHER: RwLock<Option<Watcher>> = RwLock::new(None);

/// Has `watch` called before images are packed and after each few hundred of them, in the threads that open data sets. If it returns
/// false, the packing ends with [`DataError::Stopped`]. Replaces the watcher that was set before.
pub fn watch_packing(watch: impl Fn(&Packing<'_>) -> bool + Send + Sync + 'static) {
    *WATCHER.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(watch));
}

/// Tells the watcher.
///
/// # Errors
/// If the watcher wants the packing to end.
pub(crate) fn report(packing: &Packing<'_>) -> Result<(), DataError> {
    let watcher = WATCHER.read().unwrap_or_else(PoisonError::into_inner).clone();
    match watcher {
        Some(watch) if !watch(packing) => {
            Err(DataError::Stopped { path: packing.path.to_owned(), done: packing.done, all: packing.all })
        }
        _ => Ok(()),
    }
}
