//! `~` in paths. A shell replaces it at the start of a word, but not in `data.root=~/images`, in
//! `--runs=~/runs` or in a file.

use std::path::{Component, Path, PathBuf};

/// Why a path that begins with `~` cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found}, expected {expected}")]
pub struct HomeError {
    /// The first part of the path.
    pub found: String,
    /// What to give instead.
    pub expected: String,
}

/// Returns the path with a leading `~` replaced by the home folder; any other path is returned unchanged.
///
/// # Errors
/// Returns an error if there is no home folder, or the path begins with another user's (`~name`).
pub fn expand_home(path: &Path) -> Result<PathBuf, HomeError> {
    expand(path, std::env::home_dir)
}

fn expand(path: &Path, home: impl FnOnce() -> Option<PathBuf>) -> Result<PathBuf, HomeError> {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else { return Ok(path.to_owned()) };
    if !first.as_encoded_bytes().starts_with(b"~") {
        return Ok(path.to_owned());
    }
    if first != "~" {
        let found = first.to_string_lossy().into_owned();
        let expected = format!(
            "~ or ~/... for your own home folder, another user's in full, or ./{found} for a name that begins with ~"
        );
        return Err(HomeError { found, expected });
    }
    let home = home().filter(|home| !home.as_os_str().is_empty()).ok_or_else(|| HomeError {
        found: "~".to_owned(),
        expected: "the folder in full, as this user has no home folder (the variable HOME names it)"
            .to_owned(),
    })?;
    let rest = parts.as_path();
    Ok(if rest.as_os_str().is_empty() { home } else { home.join(rest) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::expand;
    use std::path::{Path, PathBuf};

    #[test]
    fn a_leading_tilde_is_the_home_folder_and_nothing_else_is() {
        let of = |text: &str| expand(Path::new(text), || Some("/home/me".into()));
        for (text, path) in [
            ("~", "/home/me"),
            ("~/", "/home/me"),
            ("~/a b/c", "/home/me/a b/c"),
            ("./~", "./~"),
            ("./~x", "./~x"),
            ("/a/~/b", "/a/~/b"),
            ("a~", "a~"),
            ("", ""),
            ("..", ".."),
        ] {
            assert_eq!(of(text), Ok(PathBuf::from(path)), "{text}");
        }
        let told = of("~you/x").unwrap_err().to_string();
        assert!(told.starts_with("found ~you, expected ~ or ~/...") && told.contains("./~you"), "{told}");
        for home in [None, Some(PathBuf::new())] {
            let told = expand(Path::new("~/x"), || home).unwrap_err().to_string();
            assert!(told.contains("HOME"), "{told}");
        }
    }
}
