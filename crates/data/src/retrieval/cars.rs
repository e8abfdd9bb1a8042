//! Cars196 (Krause et al. 2013): 16,185 cars of 196 classes. Both official splits are joined; classes 1 to 98
//! are for training, the others for testing.
//!
//! It exists in three forms: `cars_annos.mat` with all images in `car_ims/`; the devkit's
//! `cars_train_annos.mat` and `cars_test_annos_withlabels.mat` with `cars_train/` and `cars_test/`; and one
//! folder for each class. `cars196-half` is the training half of the second form.

use std::path::{Path, PathBuf};

use super::{Found, Item, Listing, Set, each_once, plain};
use crate::error::DataError;
use crate::form::RetrievalForm as Form;
use crate::lists::read_list;
use crate::matlab::{self, Structs, Value};
use crate::package::{Package, Packing, Piece};
use crate::walk::{self, PassedOver, subfolders};

/// The names of the classes in their official order (`cars_meta.mat`), which is not alphabetical.
const CLASSES: &str = include_str!("cars_classes.txt");

/// Classes up to this one are for training.
const LAST_TRAINING_CLASS: i64 = 98;

const UNION: &str = "cars_annos.mat";
const TRAIN: &str = "devkit/cars_train_annos.mat";
const TEST: [&str; 2] = ["devkit/cars_test_annos_withlabels.mat", "cars_test_annos_withlabels.mat"];

/// The MD5 checksums of the published lists, by their names.
pub(super) const LISTS: [(&str, &str); 3] = [
    ("cars_annos.mat", "b407c6086d669747186bd1d764ff9dbc"),
    ("cars_train_annos.mat", "7b154abe023e6274e597db035347ff56"),
    ("cars_test_annos_withlabels.mat", "b0a2b23655a3edd16d84508592a98d10"),
];

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
        let inside = subfolders(&folder, Path::new(""), &mut PassedOver::default()).unwrap_or_default();
        inside.iter().any(|name| class_called(&name.to_string_lossy()).is_some())
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

/// Returns the error of a list.
fn damaged(path: &Path, found: String, expected: &str, set: Set) -> DataError {
    DataError::Damaged { path: path.to_owned(), found, expected: expected.to_owned(), advice: set.refetch() }
}

/// Divides images by class, in their order.
fn split(images: Vec<(PathBuf, i64)>, lists: Vec<String>) -> Listing {
    let (train, test) = images.into_iter().partition::<Vec<_>, _>(|(_, class)| *class <= LAST_TRAINING_CLASS);
    let items = |images: Vec<(PathBuf, i64)>| {
        images.into_iter().map(|(file, class)| Item { file, class: (class - 1) as u32 }).collect()
    };
    let classes = CLASSES.lines().map(str::to_owned).collect();
    Listing { classes, lists, train: items(train), test: items(test), passed_over: PassedOver::default() }
}

/// Reads `cars_annos.mat`: all images in one list, with their paths.
pub(super) fn list_union(folder: &Path) -> Result<Listing, DataError> {
    let images = annotations(&folder.join(UNION), "relative_im_path", Set::Cars)?;
    let listing = split(images, vec![UNION.to_owned()]);
    each_once(&folder.join(UNION), &listing, Set::Cars)?;
    Ok(listing)
}

/// Reads the lists of the devkit: the training images and, except for `cars196-half`, the test images.
pub(super) fn list_devkit(set: Set, folder: &Path) -> Result<Listing, DataError> {
    let within = |list: &str, images: &str| {
        let read = annotations(&folder.join(list), "fname", set)?;
        Ok::<_, DataError>(
            read.into_iter().map(|(name, class)| (Path::new(images).join(name), class)).collect(),
        )
    };
    let (mut images, mut lists): (Vec<(PathBuf, i64)>, _) =
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

/// Returns the path and the class of each struct in the variable `annotations`.
fn annotations(path: &Path, name_field: &str, set: Set) -> Result<Vec<(PathBuf, i64)>, DataError> {
    let bytes = read_list(path)?;
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
                (Some(file), Some(class)) => Ok((file.into(), class)),
                (None, _) => Err(lacks(format!("no path in annotation {}", index + 1))),
                (_, None) => {
                    let found = format!("no class from 1 to {count} in annotation {}", index + 1);
                    Err(lacks(found))
                }
            }
        })
        .collect()
}

/// Lists one folder for each class, named or numbered, in `train/` and `test/` or directly in `folder`.
pub(super) fn list_folders(folder: &Path) -> Result<Listing, DataError> {
    let tops: Vec<&str> = ["train", "test"].into_iter().filter(|top| folder.join(top).is_dir()).collect();
    let tops = if tops.is_empty() { vec![""] } else { tops };
    let (mut images, mut passed_over) = (Vec::new(), PassedOver::default());
    for top in tops {
        for name in subfolders(&folder.join(top), Path::new(top), &mut passed_over)? {
            let path = Path::new(top).join(&name);
            let Some(class) = class_called(&name.to_string_lossy()) else {
                let expected =
                    "folders called after the 196 classes, as \"Audi TT Hatchback 2011\", or 1 to 196";
                return Err(damaged(
                    &folder.join(path),
                    "a folder of another name".to_owned(),
                    expected,
                    Set::Cars,
                ));
            };
            for file in walk::images(&folder.join(&path), &path, &mut passed_over)? {
                images.push((path.join(file), class));
            }
        }
    }
    Ok(Listing { passed_over, ..split(images, Vec::new()) })
}

/// Returns the class, from 1 on, that a folder is named after.
pub(crate) fn class_called(name: &str) -> Option<i64> {
    let count = CLASSES.lines().count() as i64;
    if let Ok(number) = name.parse::<i64>() {
        return (1..=count).contains(&number).then_some(number);
    }
    CLASSES.lines().position(|class| bare(class).eq(bare(name))).map(|class| class as i64 + 1)
}

/// Returns the letters and digits of the name of a class: some other characters of the names cannot be in the
/// name of a folder.
fn bare(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

/// Returns the archives as published. Their server no longer exists; copies are found by name.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::open;
    use super::super::tests::{assert_shows, config, message, shown};
    use super::*;
    use crate::sample::matlab::{Mat, Writer};
    use crate::sample::pictures::{USUAL, cars_devkit, cars_list, cars_union, picture, put};

    #[test]
    fn every_form_gives_the_same_classes() {
        let classes = [3, 98, 99, 196];
        let folders = |root: &Path| {
            for (class, name) in
                [(3, "Acura TL Sedan 2012"), (98, "98"), (99, "FIAT 500 Abarth 2012"), (196, "196")]
            {
                for number in 1..=3 {
                    let top = if number == 2 { "test" } else { "train" };
                    put(&root.join(top).join(name).join(format!("{number}.jpg")), &picture(class, number));
                }
            }
            put(&root.join("train/98/readme.txt"), b"passed over");
        };
        for form in [Form::CarsUnion, Form::CarsDevkit, Form::ClassFolders] {
            let write = |root: &Path| match form {
                Form::CarsUnion => cars_union(root, &classes),
                Form::CarsDevkit => cars_devkit(root, &classes),
                _ => folders(root),
            };
            for below in ["", "cars196", "stanford_cars"] {
                let root = tempfile::tempdir().unwrap();
                write(&root.path().join(below));
                assert_eq!(Set::Cars.find(root.path()).unwrap().form, form);
                let dataset = open(Set::Cars, &config(Set::Cars, root.path())).unwrap();
                let mut labels = [dataset.train.labels.clone(), dataset.test.labels.clone()];
                labels[0].sort_unstable();
                labels[1].sort_unstable();
                assert_eq!(labels, [vec![2, 2, 2, 97, 97, 97], vec![98, 98, 98, 195, 195, 195]], "{form}");
                for split in [&dataset.train, &dataset.test] {
                    for ((red, _), label) in shown(split).into_iter().zip(&split.labels) {
                        assert!(red.abs_diff(label + 1) <= 4, "{form}: {red} for {label}");
                    }
                }
                assert_eq!(
                    (dataset.classes.len(), &dataset.classes[195][..]),
                    (196, "smart fortwo Convertible 2012")
                );
                if form == Form::CarsUnion {
                    assert_shows(&dataset.train, &[3, 98]);
                    assert_shows(&dataset.test, &[99, 196]);
                }
            }
        }
    }

    #[test]
    fn the_half_needs_no_list_of_test_images_and_the_whole_does() {
        let root = tempfile::tempdir().unwrap();
        cars_devkit(root.path(), &[3, 60, 130]);
        fs_err::remove_file(root.path().join("cars_test_annos_withlabels.mat")).unwrap();
        let dataset = open(Set::CarsHalf, &config(Set::CarsHalf, root.path())).unwrap();
        assert_eq!((&dataset.train.labels[..], &dataset.test.labels[..]), (&[2, 59][..], &[129][..]));
        let message = message(Set::Cars, root.path());
        assert!(message.contains("found no cars_test_annos_withlabels.mat"), "{message}");
        // The list may also be in the devkit.
        let list = cars_list(USUAL, "fname", &[(130, "00001.jpg".to_owned())]);
        put(&root.path().join("devkit/cars_test_annos_withlabels.mat"), &list);
        assert_eq!(open(Set::Cars, &config(Set::Cars, root.path())).unwrap().test.len(), 2);
    }

    #[test]
    fn a_list_that_is_not_the_published_one_is_told() {
        let root = tempfile::tempdir().unwrap();
        cars_union(root.path(), &[3, 130]);
        let listing = list_union(root.path()).unwrap();
        let told = Set::Cars.other_list(root.path(), &listing).unwrap().unwrap();
        assert!(told.starts_with("cars_annos.mat has MD5") && told.contains(LISTS[0].1), "{told}");
        // For sets without a known list, there is no difference to report.
        assert_eq!(Set::Products.other_list(root.path(), &listing).unwrap(), None);
    }

    #[test]
    fn damaged_lists_are_named() {
        let root = tempfile::tempdir().unwrap();
        cars_union(root.path(), &[3, 130]);
        let path = root.path().join(UNION);
        let whole = fs_err::read(&path).unwrap();
        let check = |bytes: &[u8], expected: &str| {
            fs_err::write(&path, bytes).unwrap();
            let message = message(Set::Cars, root.path());
            assert!(message.contains("cars_annos.mat: found") && message.contains(expected), "{message}");
        };
        check(&whole[..100], "100 bytes, less than a MAT-file's header");
        check(&whole[..whole.len() - 9], "an element of");
        check(b"<html>404</html>", "16 bytes");
        let list = |cars: &[(u32, &str)]| {
            let cars: Vec<(u32, String)> =
                cars.iter().map(|(class, path)| (*class, (*path).to_owned())).collect();
            cars_list(USUAL, "relative_im_path", &cars)
        };
        check(
            &list(&[(3, "car_ims/000001.jpg"), (0, "car_ims/000002.jpg")]),
            "no class from 1 to 196 in annotation 2",
        );
        check(&list(&[(197, "a.jpg")]), "no class from 1 to 196 in annotation 1");
        check(&list(&[(3, "../../etc/passwd")]), "no path in annotation 1");
        check(&list(&[(3, "/etc/passwd")]), "no path in annotation 1");
        check(&list(&[(3, "a.jpg"), (130, "a.jpg")]), "a.jpg twice");
        check(&cars_list(USUAL, "fname", &[]), "no field \"relative_im_path\" among bbox_x1, class, fname");
        check(&USUAL.file(&[("annotations", Mat::Bytes(vec![1]))]), "no struct array \"annotations\"");
        let big = Writer { big: true, compressed: false };
        fs_err::write(&path, cars_list(big, "relative_im_path", &[(3, "car_ims/000001.jpg".to_owned())]))
            .unwrap();
        assert!(message(Set::Cars, root.path()).contains("no test image"));
    }

    #[test]
    fn a_folder_that_is_no_class_is_named() {
        let root = tempfile::tempdir().unwrap();
        let cars = root.path().join("cars196");
        put(&cars.join("Ram C-V Cargo Van Minivan 2012/1.jpg"), &picture(3, 1));
        put(&cars.join("5/1.jpg"), &picture(3, 1));
        let listing = list_folders(&cars).unwrap();
        assert_eq!((listing.train[0].class, listing.test[0].class), (4, 173));
        put(&cars.join("Trabant 601/1.jpg"), &picture(3, 1));
        let message = message(Set::Cars, root.path());
        assert!(message.contains("Trabant 601: found a folder of another name"), "{message}");
    }
}
