//! Cars196 (Krause et al. 2013): 16,185 cars of 196 classes; classes 1 to 98 train, the others test, both official splits together.
//!
//! It is passed around in three forms: `cars_annos.mat` with all images in `car_ims/`; the devkit's `cars_train_annos.mat` and
//! `cars_test_annos_withlabels.mat` with `cars_train/` and `cars_test/`; and one folder for each class. `cars196-half` is the
//! second form's training half alone.

use std::path::{Path, PathBuf};

use super::{Form, Found, Item, Listing, Set, each_once, plain};
use crate::error::{DataError, reading};
use crate::fetch::{Package, Packing, Piece};
use crate::matlab::{self, Structs, Value};

/// Names of the classes in their official order (`cars_meta.mat`), which is no alphabet's.
const CLASSES: &str = include_str!("cars_classes.txt");

/// Classes up to this one train.
const LAST_TRAINING_CLASS: i64 = 98;

const UNION: &str = "cars_annos.mat";
const TRAIN: &str = "devkit/cars_train_annos.mat";
const TEST: [&str; 2] = ["devkit/cars_test_annos_withlabels.mat", "cars_test_annos_withlabels.mat"];

pub(super) fn find(set: Set, root: &Path) -> Option<Found> {
    let mut folders = vec![root.to_owned(), root.join(set.name())];
    if set == Set::Cars {
        folders.extend(["stanford_cars", "car_data", "car_data/car_data"].map(|name| root.join(name)));
    }
    folders.into_iter().find_map(|folder| Some(Found { form: form(set, &folder)?, folder }))
}

fn form(set: Set, folder: &Path) -> Option<Form> {
    if set == Set::Cars && folder.join(UNION).is_file() {
        return Some(Form::CarsUnion);
    }
    if folder.join(TRAIN).is_file() {
        return Some(Form::CarsDevkit);
    }
    let class_folder = |folder: PathBuf| {
        let mut inside = subfolders(&folder).unwrap_or_default().into_iter();
        inside.any(|name| class_called(&name).is_some())
    };
    let held = [folder.join("train"), folder.to_owned()].into_iter().any(class_folder);
    (set == Set::Cars && held).then_some(Form::ClassFolders)
}

pub(super) fn looked_for(set: Set) -> Vec<String> {
    let mut names = vec![format!("{}/{TRAIN}", set.name())];
    if set == Set::Cars {
        names.extend([UNION.to_owned(), format!("cars196/{UNION}"), format!("stanford_cars/{TRAIN}")]);
        names.push("cars196/train/<class>/".to_owned());
    }
    names
}

/// An error about a list.
fn damaged(path: &Path, found: String, expected: &str, set: Set) -> DataError {
    DataError::Damaged { path: path.to_owned(), found, expected: expected.to_owned(), advice: set.refetch() }
}

/// Images by class, in the order they come.
fn split(images: Vec<(String, i64)>, lists: Vec<String>) -> Listing {
    let (train, test) = images.into_iter().partition::<Vec<_>, _>(|(_, class)| *class <= LAST_TRAINING_CLASS);
    let items = |images: Vec<(String, i64)>| {
        images.into_iter().map(|(file, class)| Item { file, class: (class - 1) as u32 }).collect()
    };
    let classes = CLASSES.lines().map(str::to_owned).collect();
    Listing { classes, train: items(train), test: items(test), lists }
}

/// `cars_annos.mat`: all images in one list, with their paths.
pub(super) fn list_union(folder: &Path) -> Result<Listing, DataError> {
    let images = annotations(&folder.join(UNION), "relative_im_path", Set::Cars)?;
    let listing = split(images, vec![UNION.to_owned()]);
    each_once(&folder.join(UNION), &listing, Set::Cars)?;
    Ok(listing)
}

/// The devkit's lists: the training images and, but for the half, the test images.
pub(super) fn list_devkit(set: Set, folder: &Path) -> Result<Listing, DataError> {
    let within = |list: &str, images: &str| {
        let read = annotations(&folder.join(list), "fname", set)?;
        Ok::<_, DataError>(
            read.into_iter().map(|(name, class)| (format!("{images}/{name}"), class)).collect(),
        )
    };
    let (mut images, mut lists): (Vec<(String, i64)>, _) =
        (within(TRAIN, "cars_train")?, vec![TRAIN.to_owned()]);
    if set == Set::Cars {
        let Some(list) = TEST.into_iter().find(|list| folder.join(list).is_file()) else {
            let found = format!("no {}", TEST[1]);
            let expected = "it beside devkit/ or in it: the devkit's own list of test images has no classes";
            return Err(damaged(folder, found, expected, set));
        };
        images.extend(within(list, "cars_test")?);
        lists.push(list.to_owned());
    }
    let listing = split(images, lists);
    each_once(&folder.join(TRAIN), &listing, set)?;
    Ok(listing)
}

/// Path and class of each struct in the variable `annotations`.
fn annotations(path: &Path, name_field: &str, set: Set) -> Result<Vec<(String, i64)>, DataError> {
    let bytes = fs_err::read(path).map_err(reading)?;
    let variables =
        matlab::read(&bytes).map_err(|found| damaged(path, found, "a MAT-file of version 5", set))?;
    let structs = variables.into_iter().find_map(|variable| match variable.value {
        Value::Structs(structs) if variable.name == "annotations" => Some(structs),
        _ => None,
    });
    let lacks =
        |what: String| damaged(path, what, "a struct array \"annotations\" of paths and classes", set);
    let structs: Structs = structs.ok_or_else(|| lacks("no struct array \"annotations\"".to_owned()))?;
    let field = |name: &str| {
        let there = structs.fields.join(", ");
        structs.field(name).ok_or_else(|| lacks(format!("no field \"{name}\" among {there}")))
    };
    let (name, class) = (field(name_field)?, field("class")?);
    let count = CLASSES.lines().count() as i64;
    (0..structs.len())
        .map(|index| {
            let file = structs.get(index, name).text().filter(|file| plain(file));
            let class = structs.get(index, class).whole().filter(|class| (1..=count).contains(class));
            match (file, class) {
                (Some(file), Some(class)) => Ok((file.to_owned(), class)),
                (None, _) => Err(lacks(format!("no path in annotation {}", index + 1))),
                (_, None) => {
                    let found = format!("no class from 1 to {count} in annotation {}", index + 1);
                    Err(lacks(found))
                }
            }
        })
        .collect()
}

/// One folder for each class, named or numbered, in `train/` and `test/` or directly in `folder`.
pub(super) fn list_folders(folder: &Path) -> Result<Listing, DataError> {
    let tops: Vec<&str> = ["train", "test"].into_iter().filter(|top| folder.join(top).is_dir()).collect();
    let tops = if tops.is_empty() { vec![""] } else { tops };
    let mut images = Vec::new();
    for top in tops {
        for name in subfolders(&folder.join(top))? {
            let path = Path::new(top).join(&name);
            let Some(class) = class_called(&name) else {
                let expected =
                    "folders called after the 196 classes, as \"Audi TT Hatchback 2011\", or 1 to 196";
                return Err(damaged(
                    &folder.join(path),
                    "a folder of another name".to_owned(),
                    expected,
                    Set::Cars,
                ));
            };
            for file in files(&folder.join(&path))? {
                images.push((path.join(file).to_string_lossy().replace('\\', "/"), class));
            }
        }
    }
    Ok(split(images, Vec::new()))
}

/// The class, from 1 on, that a folder is called after.
fn class_called(name: &str) -> Option<i64> {
    let count = CLASSES.lines().count() as i64;
    if let Ok(number) = name.parse::<i64>() {
        return (1..=count).contains(&number).then_some(number);
    }
    CLASSES.lines().position(|class| bare(class).eq(bare(name))).map(|class| class as i64 + 1)
}

/// The letters and digits of a class's name: some of what else is in the names can be in no folder's.
fn bare(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

/// The names of the folders in `folder`, sorted; hidden ones are passed over.
fn subfolders(folder: &Path) -> Result<Vec<String>, DataError> {
    names(folder, Path::is_dir)
}

/// The names of the images in `folder`, sorted.
fn files(folder: &Path) -> Result<Vec<String>, DataError> {
    names(folder, |path| {
        let extension =
            path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg"))
    })
}

fn names(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && wanted(&entry.path()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The archives as they were published. Their server is gone; copies of them are found by name.
pub(super) fn package() -> Package {
    fn all(_: &str) -> bool {
        true
    }
    let piece = |file: &str, bytes, sha256: &str, packing, into| Piece {
        base_url: None,
        file: file.to_owned(),
        bytes,
        sha256: sha256.to_owned(),
        packing,
        into,
    };
    let packed = |top| Packing::TarGz { top, keep: all };
    Package {
        name: "cars196",
        folder: "cars196",
        pieces: vec![
            piece(
                "car_devkit.tgz",
                330_960,
                "b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
                packed("devkit"),
                "devkit",
            ),
            piece(
                "cars_test_annos_withlabels.mat",
                185_758,
                "790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
                Packing::Plain,
                "devkit",
            ),
            piece(
                "cars_train.tgz",
                979_269_282,
                "512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
                packed("cars_train"),
                "cars_train",
            ),
            piece(
                "cars_test.tgz",
                977_350_468,
                "bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
                packed("cars_test"),
                "cars_test",
            ),
        ],
        advice: Set::Cars.refetch(),
    }
}
