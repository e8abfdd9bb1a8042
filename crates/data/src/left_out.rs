//! Warns about images that are left out because they cannot be read or decoded. A program may open a set
//! several times, but each image is named only once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::error::DataError;

/// The advice for an image that is left out.
pub(crate) const LEFT_OUT: &str = "repair or replace it to have it again";

/// Logs a warning that the image at `path` is left out, unless this process has logged it before. Returns
/// whether it was logged.
pub(crate) fn warn_once(path: &Path, error: &DataError) -> bool {
    static NAMED: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    let is_first = NAMED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_path_buf());
    if is_first {
        tracing::warn!(%error, "left out an image");
    }
    is_first
}

#[cfg(test)]
mod tests {
    use super::{LEFT_OUT, warn_once};
    use crate::decode;
    use std::path::Path;

    #[test]
    fn an_image_is_named_once() {
        let (one, two) = (Path::new("left_out/one.png"), Path::new("left_out/two.png"));
        let error = |path| decode::damaged(path, "an empty file".to_owned(), LEFT_OUT);
        assert!(!error(one).to_string().contains("skip_broken"), "advice that is followed already");
        assert!(warn_once(one, &error(one)));
        assert!(warn_once(two, &error(two)));
        assert!(!warn_once(one, &error(one)));
    }
}
