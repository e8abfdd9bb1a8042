//! CUB-200-2011 (Wah et al. 2011): 11,788 birds of 200 classes. Classes 1 to 100 are for training, the others
//! for testing.
//!
//! Each line of `images.txt` holds an id and a path below `images/`, each line of `image_class_labels.txt` an
//! id and a class, and each line of `classes.txt` a class and its name. The 2010 edition is read in the same
//! form.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Found, Item, Listing, Set, bad_line, each_once, plain};
use crate::error::DataError;
use crate::form::RetrievalForm as Form;
use crate::lists::read_text;
use crate::package::{Package, Packing, Piece};
use crate::walk::PassedOver;

/// The folder that the archive unpacks to.
const FOLDER: &str = "CUB_200_2011";

const IMAGES: &str = "images.txt";
const LABELS: &str = "image_class_labels.txt";
const CLASSES: &str = "classes.txt";

/// Classes up to this one are for training.
const LAST_TRAINING_CLASS: u32 = 100;

/// The number of classes.
const CLASS_COUNT: u32 = 200;

pub(super) fn find(set: Set, root: &Path) -> Option<Found> {
    let own = root.join(set.name());
    let mut folders: Vec<PathBuf> = vec![root.to_owned(), own.join(FOLDER), own];
    // Both editions unpack to a folder of the same name. A folder with that name is taken for the edition of
    // 2011.
    if set == Set::Cub2011 || root.file_name().is_some_and(|name| name == set.name()) {
        folders.push(root.join(FOLDER));
    }
    let folder = folders.into_iter().find(|folder| folder.join(IMAGES).is_file())?;
    Some(Found { form: Form::BirdLists, folder })
}

pub(super) fn looked_for(set: Set) -> Vec<String> {
    let mut names = vec![format!("{}/{FOLDER}/{IMAGES}", set.name()), format!("{}/{IMAGES}", set.name())];
    if set == Set::Cub2011 {
        names.insert(0, format!("{FOLDER}/{IMAGES}"));
    }
    names
}

pub(super) fn list(set: Set, folder: &Path) -> Result<Listing, DataError> {
    let paths = pairs(set, folder, IMAGES, "an id and a path below images/")?;
    let labels_path = folder.join(LABELS);
    let expected = format!("an id and a class from 1 to {CLASS_COUNT}");
    let mut labels = HashMap::new();
    for (number, (id, class)) in pairs(set, folder, LABELS, &expected)?.into_iter().enumerate() {
        match class.parse::<u32>() {
            Ok(class) if (1..=CLASS_COUNT).contains(&class) => labels.insert(id, class),
            _ => return Err(bad_line(&labels_path, number, &format!("{id} {class}"), &expected, set)),
        };
    }
    let damaged = |path: &Path, found: String, expected: String| DataError::Damaged {
        path: path.to_owned(),
        found,
        expected,
        advice: set.refetch(),
    };
    if labels.len() != paths.len() {
        let expected = format!("{}, one for each image of {IMAGES}", paths.len());
        return Err(damaged(&labels_path, format!("classes of {} images", labels.len()), expected));
    }
    let names = names(set, folder)?;
    let lists =
        [IMAGES, LABELS].into_iter().chain(names.is_some().then_some(CLASSES)).map(str::to_owned).collect();
    let classes = (1..=CLASS_COUNT)
        .map(|class| {
            names.as_ref().and_then(|names| names.get(&class).cloned()).unwrap_or(format!("class {class}"))
        })
        .collect();
    let mut listing =
        Listing { classes, lists, train: Vec::new(), test: Vec::new(), passed_over: PassedOver::default() };
    let images = folder.join(IMAGES);
    for (number, (id, path)) in paths.into_iter().enumerate() {
        if !plain(&path) {
            return Err(bad_line(&images, number, &path, "a path below images/", set));
        }
        let Some(&class) = labels.get(&id) else {
            let expected = format!("a class for every image of {IMAGES}");
            return Err(damaged(&labels_path, format!("none for image {id}"), expected));
        };
        let split = if class <= LAST_TRAINING_CLASS { &mut listing.train } else { &mut listing.test };
        split.push(Item { file: format!("images/{path}").into(), class: class - 1 });
    }
    each_once(&images, &listing, set)?;
    Ok(listing)
}

/// Reads the lines of a list, each an id and a word.
fn pairs(set: Set, folder: &Path, name: &str, expected: &str) -> Result<Vec<(u32, String)>, DataError> {
    let path = folder.join(name);
    let text = read_text(&path)?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            let pair = line.trim().split_once(' ');
            pair.and_then(|(id, word)| Some((id.parse().ok()?, word.trim().to_owned())))
                .ok_or_else(|| bad_line(&path, number, line, expected, set))
        })
        .collect()
}

/// Reads the names of the classes, if there is a list of them: `001.Black_footed_Albatross` becomes "Black
/// footed Albatross".
fn names(set: Set, folder: &Path) -> Result<Option<HashMap<u32, String>>, DataError> {
    if !folder.join(CLASSES).is_file() {
        return Ok(None);
    }
    let name = |(class, name): (u32, String)| {
        let bare = name.split_once('.').map_or(name.as_str(), |(_, bare)| bare);
        (class, bare.replace('_', " "))
    };
    Ok(Some(pairs(set, folder, CLASSES, "a class and its name")?.into_iter().map(name).collect()))
}

/// Returns the archive as published, without the parts, attributes and segmentations, which nothing here
/// reads.
pub(super) fn package() -> Package {
    fn keep(name: &str) -> bool {
        name.starts_with("images/") || [IMAGES, LABELS, CLASSES, "README"].contains(&name)
    }
    Package {
        name: "cub200-2011",
        folder: FOLDER,
        pieces: vec![Piece {
            base_url: Some("https://data.caltech.edu/records/65de6-vp158/files".to_owned()),
            file: "CUB_200_2011.tgz".to_owned(),
            bytes: 1_150_585_339,
            sha256: "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081".to_owned(),
            packing: Packing::TarGz { top: FOLDER, keep },
            into: "",
        }],
        advice: Set::Cub2011.refetch(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::open;
    use super::super::tests::{config, message};
    use super::*;
    use crate::sample::pictures::birds;

    #[test]
    fn each_edition_is_found_under_its_own_name() {
        let root = tempfile::tempdir().unwrap();
        birds(&root.path().join("cub200-2010"), &[10, 150]);
        assert_eq!(find(Set::Cub2011, root.path()), None);
        let found = find(Set::Cub2010, root.path()).unwrap().folder;
        assert_eq!(found, root.path().join("cub200-2010/CUB_200_2011"));
        assert_eq!(find(Set::Cub2010, &root.path().join("cub200-2010")).unwrap().folder, found);
        assert_eq!(find(Set::Cub2010, &found).unwrap().folder, found);
        birds(root.path(), &[10, 150]);
        assert_eq!(find(Set::Cub2011, root.path()).unwrap().folder, root.path().join(FOLDER));
        assert_eq!(find(Set::Cub2010, root.path()).unwrap().folder, found);
        let dataset = open(Set::Cub2010, &config(Set::Cub2010, root.path())).unwrap();
        assert_eq!((dataset.name.as_str(), dataset.train.len()), ("cub200-2010", 3));
    }

    #[test]
    fn names_of_classes_may_be_missing() {
        let root = tempfile::tempdir().unwrap();
        let folder = birds(root.path(), &[10, 150]);
        fs_err::remove_file(folder.join(CLASSES)).unwrap();
        let listing = list(Set::Cub2011, &folder).unwrap();
        assert_eq!(
            (&listing.classes[9][..], &listing.lists[..]),
            ("class 10", &[IMAGES.to_owned(), LABELS.to_owned()][..])
        );
    }

    #[test]
    fn damaged_lists_are_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = birds(root.path(), &[10, 150]);
        let check = |name: &str, change: &dyn Fn(&str) -> String, expected: &[&str]| {
            let path = folder.join(name);
            let whole = fs_err::read_to_string(&path).unwrap();
            fs_err::write(&path, change(&whole)).unwrap();
            let message = message(Set::Cub2011, root.path());
            assert!(
                message.contains(name) && expected.iter().all(|part| message.contains(part)),
                "{message}"
            );
            assert!(message.contains("data fetch cub200-2011"), "{message}");
            fs_err::write(&path, whole).unwrap();
        };
        let first_line =
            |line: &'static str| move |text: &str| format!("{line}\n{}", text.split_once('\n').unwrap().1);
        check(IMAGES, &first_line("one a.jpg"), &["\"one a.jpg\" in line 1", "expected an id and a path"]);
        check(IMAGES, &first_line("1"), &["\"1\" in line 1"]);
        check(IMAGES, &first_line("1 ../../../etc/passwd"), &["etc/passwd", "a path below images/"]);
        check(IMAGES, &first_line("1 010.Bird_of_10/Bird_0002.jpg"), &["Bird_0002.jpg twice"]);
        check(
            IMAGES,
            &|text| text.lines().take(5).collect::<Vec<_>>().join("\n"),
            &["classes of 6 images", "expected 5"],
        );
        check(LABELS, &first_line("1 201"), &["\"1 201\" in line 1", "a class from 1 to 200"]);
        check(LABELS, &first_line("1 0"), &["\"1 0\" in line 1"]);
        check(LABELS, &first_line("99 10"), &["none for image 1"]);
        check(LABELS, &first_line("2 10"), &["classes of 5 images"]);
        check(CLASSES, &first_line("x"), &["\"x\" in line 1", "a class and its name"]);
        fs_err::remove_file(folder.join(LABELS)).unwrap();
        let text = message(Set::Cub2011, root.path());
        assert!(text.contains(LABELS) && text.contains("check that it exists"), "{text}");
        fs_err::write(folder.join(IMAGES), b"\xff\xfe").unwrap();
        assert!(message(Set::Cub2011, root.path()).contains(IMAGES));
    }
}
