//! Scans a folder of images: its classes and the files of each.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::decode::ENDINGS;
use crate::error::DataError;
use crate::splits::untested_note;
use crate::walk::{PassedOver, images, subfolders};

/// One file and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// The path below the folder.
    pub(super) file: PathBuf,
    /// The number of the class.
    pub(super) label: u32,
}

/// The content of a folder by the names of its files, none of which is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    /// Names of the classes, in order.
    pub(super) classes: Vec<String>,
    /// The training images, class after class. All images of a folder without `train` and `test` are
    /// here.
    pub(super) train: Vec<Item>,
    /// The images in `test`, if the folder has one.
    pub(super) test: Option<Vec<Item>>,
    /// Sentences about the folder: which files are skipped, and which classes are not tested.
    pub(super) notes: Vec<String>,
}

/// Scans the folder at `path`.
pub(super) fn scan(path: &Path) -> Result<Scan, DataError> {
    let mut passed_over = PassedOver::default();
    let top = subfolders(path, Path::new(""), &mut passed_over)?;
    let given = |name: &str| top.iter().any(|folder| folder == name);
    if given("train") != given("test") {
        let found = "only one of the folders train and test".to_owned();
        return Err(unusable(path, found, "both, or one folder for each class"));
    }
    let divided = given("train");
    let mut notes = Vec::new();
    let (classes, train, test) = if divided {
        let others: Vec<&OsString> = top.iter().filter(|name| *name != "train" && *name != "test").collect();
        if let Some(first) = others.first() {
            let (count, first) = (others.len(), shown(first));
            notes.push(match count {
                1 => format!("the folder {first} beside train and test is not used"),
                _ => format!("{count} folders beside train and test are not used, such as {first}"),
            });
        }
        let classes = subfolders(&path.join("train"), Path::new("train"), &mut passed_over)?;
        let tested = subfolders(&path.join("test"), Path::new("test"), &mut passed_over)?;
        if let Some(class) = tested.iter().find(|class| !classes.contains(class)) {
            let found = format!("the class \"{}\" in test but not in train", shown(class));
            return Err(unusable(path, found, "no class in test that train does not have"));
        }
        let train = files(path, Path::new("train"), &classes, &classes, &mut passed_over)?;
        let test = files(path, Path::new("test"), &classes, &tested, &mut passed_over)?;
        let called: Vec<String> = classes.iter().map(|class| shown(class)).collect();
        notes.extend(untested_note(&called, &test.iter().map(|item| item.label).collect::<Vec<_>>()));
        (classes, train, Some(test))
    } else {
        let train = files(path, Path::new(""), &top, &top, &mut passed_over)?;
        (top, train, None)
    };
    notes.extend(passed_over.note());
    Ok(Scan { classes: names(path, &classes)?, train, test, notes })
}

/// Lists the images in `path/part/<class>` for each of the `present` classes, numbered as in `classes`.
fn files(
    path: &Path,
    part: &Path,
    classes: &[OsString],
    present: &[OsString],
    passed_over: &mut PassedOver,
) -> Result<Vec<Item>, DataError> {
    if present.is_empty() {
        let path = if part.as_os_str().is_empty() { path.to_owned() } else { path.join(part) };
        return Err(unusable(&path, "no folders".to_owned(), "one folder of images for each class"));
    }
    let mut items = Vec::new();
    for (label, class) in classes.iter().enumerate().filter(|(_, class)| present.contains(class)) {
        let folder = part.join(class);
        let mut own = PassedOver::default();
        let found = images(&path.join(&folder), &folder, &mut own)?;
        if found.is_empty() {
            let else_there = own.note().map_or_else(String::new, |note| format!(" ({note})"));
            let found = format!("no image{else_there}");
            let expected =
                format!("at least one for this class, its name ending in .{}", ENDINGS.join(", ."));
            return Err(DataError::Damaged {
                path: path.join(&folder),
                found,
                expected,
                advice: "put images there, or remove the folder so that it is no class",
            });
        }
        passed_over.join(own);
        items.extend(found.into_iter().map(|file| Item { file: folder.join(file), label: label as u32 }));
    }
    Ok(items)
}

/// Returns the names of the classes to show. Bytes that are not UTF-8 are shown as `\xff`.
fn names(path: &Path, classes: &[OsString]) -> Result<Vec<String>, DataError> {
    let names: Vec<String> = classes.iter().map(|class| shown(class)).collect();
    for (number, name) in names.iter().enumerate() {
        if let Some(other) = names[..number].iter().position(|other| other == name) {
            let [one, another] =
                [other, number].map(|class| classes[class].as_encoded_bytes().escape_ascii());
            let found = format!("two classes that would both be shown as \"{name}\": {one} and {another}");
            return Err(unusable(path, found, "classes that can be told apart"));
        }
    }
    Ok(names)
}

/// Returns a name as text.
fn shown(name: &OsStr) -> String {
    name.to_str().map_or_else(
        || {
            name.as_encoded_bytes().utf8_chunks().fold(String::new(), |mut text, chunk| {
                text.push_str(&chunk.valid().replace('\\', "\\\\"));
                text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
                text
            })
        },
        str::to_owned,
    )
}

pub(super) fn unusable(path: &Path, found: String, expected: &str) -> DataError {
    DataError::Damaged {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
        advice: "a folder of images holds one folder for each class, or such folders in train and in test",
    }
}
