//! Finds the images below a folder by the endings of their names, in the order of torchvision's
//! `ImageFolder`, and counts the files that it skips.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::decode::ENDINGS;
use crate::error::{DataError, reading};

/// Returns the images in `folder` and the folders within it, as paths below it: sorted by the path of the
/// folder, then by name. Links to folders are followed. Skipped files are counted in `passed_over`, with
/// paths that begin with `name`.
pub(crate) fn images(
    folder: &Path,
    name: &Path,
    passed_over: &mut PassedOver,
) -> Result<Vec<PathBuf>, DataError> {
    let mut walk = Walk { top: folder, name, found: Vec::new(), passed_over };
    let whole = fs_err::canonicalize(folder).map_err(reading)?;
    walk.enter(Path::new(""), &mut vec![whole])?;
    let mut found = walk.found;
    found.sort_by(|(folder, name), (other_folder, other_name)| {
        let bytes = |text: &OsStr| text.as_encoded_bytes().to_vec();
        (bytes(folder.as_os_str()), bytes(name)).cmp(&(bytes(other_folder.as_os_str()), bytes(other_name)))
    });
    Ok(found.into_iter().map(|(folder, name)| folder.join(name)).collect())
}

/// Returns the sorted names of the folders in `path`. Hidden folders are skipped, and files are counted in
/// `passed_over`, with paths that begin with `name`.
pub(crate) fn subfolders(
    path: &Path,
    name: &Path,
    passed_over: &mut PassedOver,
) -> Result<Vec<OsString>, DataError> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(path).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let own = entry.file_name();
        if is_hidden(&own) {
            continue;
        }
        if entry.path().is_dir() {
            names.push(own);
        } else {
            passed_over.add(&name.join(own));
        }
    }
    names.sort_by(|a, b| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
    Ok(names)
}

struct Walk<'a> {
    /// The folder to search.
    top: &'a Path,
    /// The name of the folder in messages.
    name: &'a Path,
    /// The folder (below `top`) and the name of each image.
    found: Vec<(PathBuf, OsString)>,
    passed_over: &'a mut PassedOver,
}

impl Walk<'_> {
    /// Searches the folder `below`; `above` are the canonical paths of that folder and the folders that led
    /// to it.
    fn enter(&mut self, below: &Path, above: &mut Vec<PathBuf>) -> Result<(), DataError> {
        for entry in fs_err::read_dir(self.top.join(below)).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let own = entry.file_name();
            if is_hidden(&own) {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(reading)?;
            if !(kind.is_dir() || kind.is_symlink() && path.is_dir()) {
                if is_image(&own) {
                    self.found.push((below.to_owned(), own));
                } else {
                    self.passed_over.add(&self.name.join(below).join(own));
                }
                continue;
            }
            let whole = match above.last() {
                Some(parent) if kind.is_dir() => parent.join(&own),
                _ => fs_err::canonicalize(&path).map_err(reading)?,
            };
            if above.contains(&whole) {
                self.passed_over.circles.push(self.name.join(below).join(own));
                continue;
            }
            above.push(whole);
            self.enter(&below.join(own), above)?;
            above.pop();
        }
        Ok(())
    }
}

/// Returns whether a file or folder is hidden, or is one that operating systems leave in many folders.
fn is_hidden(name: &OsStr) -> bool {
    let left = ["thumbs.db", "desktop.ini"];
    name.as_encoded_bytes().starts_with(b".") || left.iter().any(|left| name.eq_ignore_ascii_case(left))
}

/// Returns whether a name has the ending of an image, in upper or lower case.
fn is_image(name: &OsStr) -> bool {
    ending(name).is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Returns the text after the last dot of a name, in lowercase.
fn ending(name: &OsStr) -> Option<String> {
    Path::new(name).extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// Files whose names are not those of images, and links that lead back to a folder above.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PassedOver {
    /// The number of files with each ending; "" stands for no ending.
    endings: BTreeMap<String, usize>,
    /// The first of these files by path.
    example: Option<PathBuf>,
    /// The links that lead to a folder that contains them.
    circles: Vec<PathBuf>,
}

impl PassedOver {
    fn add(&mut self, path: &Path) {
        let ending = path.file_name().and_then(ending).unwrap_or_default();
        *self.endings.entry(ending).or_default() += 1;
        if self.example.as_deref().is_none_or(|example| path < example) {
            self.example = Some(path.to_owned());
        }
    }

    /// Adds the counts of `other`.
    pub(crate) fn join(&mut self, other: Self) {
        for (ending, count) in other.endings {
            *self.endings.entry(ending).or_default() += count;
        }
        self.circles.extend(other.circles);
        self.example = match (self.example.take(), other.example) {
            (Some(one), Some(another)) => Some(one.min(another)),
            (one, another) => one.or(another),
        };
    }

    /// Returns a sentence about the skipped files and links, if there are any.
    pub(crate) fn note(&self) -> Option<String> {
        (*self != Self::default()).then(|| self.to_string())
    }
}

/// The number of endings that are named; the rest are "others".
const MOST_ENDINGS: usize = 5;

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: usize = self.endings.values().sum();
        if let Some(example) = &self.example {
            let mut endings: Vec<(&String, &usize)> = self.endings.iter().collect();
            endings.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let others: usize = endings.iter().skip(MOST_ENDINGS).map(|(_, count)| **count).sum();
            let mut told: Vec<String> = endings
                .iter()
                .take(MOST_ENDINGS)
                .map(|(ending, count)| match ending.as_str() {
                    "" => format!("{count} without an ending"),
                    ending => format!("{count} .{ending}"),
                })
                .collect();
            told.extend((others > 0).then(|| format!("{others} others")));
            let skipped = if count == 1 {
                "file was skipped, since its name is not that of an image"
            } else {
                "files were skipped, since their names are not those of images"
            };
            write!(f, "{count} {skipped} ({}), such as {}", told.join(", "), example.display())?;
        }
        if let Some(circle) = self.circles.first() {
            let and = if count > 0 { "; " } else { "" };
            let links = self.circles.len();
            write!(
                f,
                "{and}links to a folder that contains them were not followed ({links}), such as {}",
                circle.display()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn put(root: &Path, names: &[&str]) {
        for name in names {
            let path = root.join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
    }

    #[test]
    fn images_come_in_the_order_of_torchvision_whatever_their_depth_and_case() {
        let root = tempfile::tempdir().unwrap();
        let names = [
            "b.JPG",
            "a.jpeg",
            "B.Png",
            "z.jfif",
            "deep/er/x.webp",
            "deep/y.GIF",
            "deep-2/q.tif",
            "c.jpe",
            "d.ppm",
            "e.pgm",
            "f.pbm",
            "g.pnm",
            "h.bmp",
            "i.tiff",
            "folder.jpg/in it.png",
            "two.dots.png",
        ];
        put(root.path(), &names);
        put(
            root.path(),
            &[".hidden.png", "._a.jpeg", "Thumbs.db", "DESKTOP.INI", ".DS_Store", ".cache/a.png"],
        );
        let mut passed_over = PassedOver::default();
        let found = images(root.path(), Path::new("class"), &mut passed_over).unwrap();
        // The order is that of Python: sorted(os.walk(folder)), then sorted names.
        let expected = [
            "B.Png",
            "a.jpeg",
            "b.JPG",
            "c.jpe",
            "d.ppm",
            "e.pgm",
            "f.pbm",
            "g.pnm",
            "h.bmp",
            "i.tiff",
            "two.dots.png",
            "z.jfif",
            "deep/y.GIF",
            "deep-2/q.tif",
            "deep/er/x.webp",
            "folder.jpg/in it.png",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(passed_over.note(), None);
    }

    #[test]
    fn what_is_passed_over_is_counted_by_ending() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), &["a.png", "deep/b.HEIC", "c.heic", "readme", "x.jpg.part"]);
        let mut passed_over = PassedOver::default();
        assert_eq!(images(root.path(), Path::new("class"), &mut passed_over).unwrap(), [Path::new("a.png")]);
        assert_eq!(
            passed_over.note().unwrap(),
            "4 files were skipped, since their names are not those of images (2 .heic, 1 without an ending, 1 .part), such as class/c.heic"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_a_circle() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), &["class/a.png", "elsewhere/b.png"]);
        let at = |name: &str| root.path().join(name);
        std::os::unix::fs::symlink(at("elsewhere"), at("class/linked")).unwrap();
        std::os::unix::fs::symlink(at("class"), at("elsewhere/back")).unwrap();
        let mut passed_over = PassedOver::default();
        let found = images(&at("class"), Path::new("class"), &mut passed_over).unwrap();
        assert_eq!(found, [Path::new("a.png"), Path::new("linked/b.png")]);
        let note = passed_over.note().unwrap();
        assert_eq!(
            note,
            "links to a folder that contains them were not followed (1), such as class/linked/back"
        );
    }
}
