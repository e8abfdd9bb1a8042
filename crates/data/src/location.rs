//! Finds the folder of the data sets: the given one, that of `INVASPREAD_DATA`, or the platform's cache
//! folder.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The environment variable that names the folder if the configuration does not.
pub const ENVIRONMENT: &str = "INVASPREAD_DATA";

/// No folder was given, and the platform has no cache folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this platform names no cache folder; set data.root or {ENVIRONMENT} to the folder that holds data sets"
)]
pub struct NoFolder;

/// A folder, and the setting that chose it; errors show both.
///
/// ```
/// use invaspread_data::Location;
/// use std::path::Path;
///
/// let location = Location::find(Some(Path::new("/data"))).expect("a folder was given");
/// assert_eq!(location.path, Path::new("/data"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The folder.
    pub path: PathBuf,
    /// The setting that chose it.
    pub origin: Origin,
}

/// The setting that chose a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// The config or the command line.
    Config,
    /// The environment variable [`ENVIRONMENT`].
    Environment,
    /// No setting; the folder is the platform's cache folder.
    Cache,
}

impl Location {
    /// Returns the folder that data sets are searched in and fetched into: `root` if given, otherwise that of
    /// the environment variable, otherwise the cache folder.
    ///
    /// # Errors
    /// If none is given and the platform has no cache folder (no home folder).
    pub fn find(root: Option<&Path>) -> Result<Self, NoFolder> {
        Self::choose(root, env::var_os(ENVIRONMENT), dirs::cache_dir())
    }

    fn choose(
        root: Option<&Path>,
        environment: Option<OsString>,
        cache: Option<PathBuf>,
    ) -> Result<Self, NoFolder> {
        if let Some(root) = root {
            return Ok(Self { path: root.to_owned(), origin: Origin::Config });
        }
        if let Some(path) = environment.filter(|path| !path.is_empty()) {
            return Ok(Self { path: path.into(), origin: Origin::Environment });
        }
        let path = cache.ok_or(NoFolder)?.join("invaspread");
        Ok(Self { path, origin: Origin::Cache })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Config => "chosen by data.root",
            Origin::Environment => "chosen by INVASPREAD_DATA",
            Origin::Cache => "the cache folder, as neither data.root nor INVASPREAD_DATA is set",
        };
        write!(f, "{} ({origin})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn config_wins_over_environment_wins_over_cache() {
        let (env, cache) = (Some(OsString::from("/e")), Some(PathBuf::from("/c")));
        let first = Location::choose(Some(Path::new("/r")), env.clone(), cache.clone()).unwrap();
        assert_eq!(first.to_string(), "/r (chosen by data.root)");
        let second = Location::choose(None, env, cache.clone()).unwrap();
        assert_eq!(second.to_string(), "/e (chosen by INVASPREAD_DATA)");
        let third = Location::choose(None, Some(OsString::new()), cache).unwrap();
        assert_eq!((third.path.as_path(), third.origin), (Path::new("/c/invaspread"), Origin::Cache));
        let message = Location::choose(None, None, None).unwrap_err().to_string();
        assert!(message.contains(ENVIRONMENT) && message.contains("data.root"), "{message}");
    }
}
