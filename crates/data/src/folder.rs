//! A folder of images, one folder a class: `train/<class>/` and `test/<class>/`, or `<class>/` alone, split by the seed.
//!
//! Images are PNG or JPEG, decoded in parallel and resized to one square size by the bilinear filter, their aspect ratio not
//! kept. Classes are numbered by name and files taken by name, so the same folder gives the same data set everywhere.

use std::path::{Path, PathBuf};

use invaspread_augment::{Filter, resize};
use rayon::prelude::*;

use crate::config::DataConfig;
use crate::dataset::{DataState, Dataset, Evaluation, Split};
use crate::decode;
use crate::error::{DataError, reading};
use crate::subset;

/// One file and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    path: PathBuf,
    label: u32,
}

/// Opens the folder at `config.folder.path`; both subsets are stratified by class.
pub(crate) fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    let folder = &config.folder;
    let path = folder.path.as_deref().ok_or_else(|| DataError::Value {
        key: "folder.path",
        found: "nothing".to_owned(),
        expected: "the folder with the images".to_owned(),
    })?;
    let within = |key, good, found: String, expected: &str| {
        if good { Ok(()) } else { Err(DataError::Value { key, found, expected: expected.to_owned() }) }
    };
    let size = folder.image_size;
    within("folder.image_size", (4..=1024).contains(&size), size.to_string(), "between 4 and 1024 pixels")?;
    let fraction = folder.test_fraction;
    let good = fraction > 0.0 && fraction < 1.0;
    within("folder.test_fraction", good, fraction.to_string(), "a part between 0 and 1")?;

    let Arranged { classes, train, test } = arrange(path, fraction, config.seed)?;
    let train = Numbered::all(train).keep(config.subset, classes.len(), config.seed, "subset")?;
    let test = Numbered::all(test).keep(config.test_subset, classes.len(), config.seed, "test_subset")?;
    let (train, skipped_train) = read_all(&train, size, folder.skip_broken)?;
    let (test, skipped_test) = read_all(&test, size, folder.skip_broken)?;
    for (split, name) in [(&train, "train"), (&test, "test")] {
        if split.is_empty() {
            return Err(unusable(path, format!("no readable {name} image"), "at least one"));
        }
    }
    Ok(Dataset {
        name: "folder".to_owned(),
        classes,
        image_size: size,
        evaluation: Evaluation::Neighbors,
        train,
        labelled: None,
        test,
        state: DataState::Unverified { reason: "a folder of images has no published checksum".to_owned() },
        skipped: skipped_train + skipped_test,
    })
}

/// Files with their numbers in the whole split.
struct Numbered {
    items: Vec<Item>,
    numbers: Vec<u32>,
}

impl Numbered {
    fn all(items: Vec<Item>) -> Self {
        Self { numbers: (0..items.len() as u32).collect(), items }
    }

    fn keep(
        self,
        keep: Option<usize>,
        classes: usize,
        seed: u64,
        key: &'static str,
    ) -> Result<Self, DataError> {
        let Some(keep) = keep else { return Ok(self) };
        let labels: Vec<u32> = self.items.iter().map(|item| item.label).collect();
        let numbers = subset::stratified(&labels, classes, keep, seed, key)?;
        let items = numbers.iter().map(|&number| self.items[number as usize].clone()).collect();
        Ok(Self { items, numbers })
    }
}

/// Class names, training files and test files.
struct Arranged {
    classes: Vec<String>,
    train: Vec<Item>,
    test: Vec<Item>,
}

fn arrange(path: &Path, fraction: f64, seed: u64) -> Result<Arranged, DataError> {
    let top = subfolders(path)?;
    let given = |name: &str| top.iter().any(|folder| folder == name);
    if given("train") && given("test") {
        let classes = subfolders(&path.join("train"))?;
        for class in subfolders(&path.join("test"))? {
            if !classes.contains(&class) {
                let found = format!("the class \"{class}\" in test but not in train");
                return Err(unusable(path, found, "the same class folders in both"));
            }
        }
        let (train, test) = (files(&path.join("train"), &classes)?, files(&path.join("test"), &classes)?);
        return Ok(Arranged { classes, train, test });
    }
    if given("train") || given("test") {
        let found = "only one of the folders train and test".to_owned();
        return Err(unusable(path, found, "both, or one folder for each class"));
    }
    let items = files(path, &top)?;
    let labels: Vec<u32> = items.iter().map(|item| item.label).collect();
    let (train, test) = subset::cut(&labels, top.len(), fraction, seed);
    let pick = |side: Vec<u32>| side.into_iter().map(|index| items[index as usize].clone()).collect();
    Ok(Arranged { train: pick(train), test: pick(test), classes: top })
}

/// The names of the folders in `path`, sorted; hidden ones are passed over.
fn subfolders(path: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(path).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(unusable(path, "no folders".to_owned(), "one folder of images for each class"));
    }
    Ok(names)
}

/// The images of each class in `path`, class after class, by name.
fn files(path: &Path, classes: &[String]) -> Result<Vec<Item>, DataError> {
    let mut items = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let folder = path.join(class);
        if !folder.is_dir() {
            continue; // a class without test images
        }
        let mut own = Vec::new();
        for entry in fs_err::read_dir(&folder).map_err(reading)? {
            let path = entry.map_err(reading)?.path();
            let extension =
                path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
            if matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg")) {
                own.push(Item { path, label: label as u32 });
            }
        }
        own.sort_by(|a, b| a.path.cmp(&b.path));
        items.extend(own);
    }
    if items.is_empty() {
        return Err(unusable(path, "no image".to_owned(), ".png, .jpg or .jpeg files in the class folders"));
    }
    Ok(items)
}

fn unusable(path: &Path, found: String, expected: &str) -> DataError {
    DataError::Damaged {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
        advice: "see data.folder in the configuration for the layout",
    }
}

/// The images of `files`, and how many were left out.
fn read_all(files: &Numbered, size: usize, skip_broken: bool) -> Result<(Split, usize), DataError> {
    let read = |item: &Item| match decode::load(&item.path, BROKEN) {
        Ok(image) => Ok(Some(resize(image.as_ref(), size, size, Filter::Bilinear).pixels)),
        Err(error) if skip_broken => {
            tracing::warn!(%error, "left out an image");
            Ok(None)
        }
        Err(error) => Err(error),
    };
    let images: Vec<Option<Vec<u8>>> = files.items.par_iter().map(read).collect::<Result<_, _>>()?;
    let (mut pixels, mut labels, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for ((image, item), number) in images.into_iter().zip(&files.items).zip(&files.numbers) {
        if let Some(image) = image {
            pixels.extend(image);
            labels.push(item.label);
            numbers.push(*number);
        }
    }
    let skipped = files.items.len() - labels.len();
    Ok((Split::new(pixels, labels, numbers, size), skipped))
}

/// What to do with a file that cannot be decoded.
const BROKEN: &str = "repair or remove it, or set data.folder.skip_broken=true to leave such files out";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::config::FolderConfig;
    use crate::sample::png;

    fn put(root: &Path, name: &str, colour: [u8; 3], size: (u32, u32)) {
        let path = root.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, png(size, |_, _| colour)).unwrap();
    }

    fn config(root: &Path) -> DataConfig {
        DataConfig {
            name: "folder".to_owned(),
            folder: FolderConfig { path: Some(root.to_owned()), image_size: 8, ..FolderConfig::default() },
            ..DataConfig::default()
        }
    }

    #[test]
    fn train_and_test_folders_are_read_by_name_and_resized() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "train/dog/2.png", [30, 0, 0], (9, 5));
        put(root.path(), "train/dog/1.PNG", [20, 0, 0], (8, 8));
        put(root.path(), "train/ape/1.png", [10, 0, 0], (3, 30));
        put(root.path(), "test/dog/a.png", [40, 0, 0], (8, 8));
        fs_err::write(root.path().join("train/dog/readme.txt"), "not an image").unwrap();
        let dataset = open(&config(root.path())).unwrap();
        assert_eq!(dataset.classes, ["ape", "dog"]);
        assert_eq!((&dataset.train.labels[..], &dataset.test.labels[..]), (&[0, 1, 1][..], &[1][..]));
        let reds: Vec<u8> = (0..3).map(|index| dataset.train.pixels(index).pixel(3, 3)[0]).collect();
        assert_eq!((reds, dataset.image_size), (vec![10, 20, 30], 8));
        assert_eq!(dataset.state.to_string(), "unverified");
    }

    #[test]
    fn classes_alone_are_split_by_the_seed() {
        let root = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            for number in 0..10u8 {
                put(root.path(), &format!("{class}/{number}.png"), [number, 0, 0], (8, 8));
            }
        }
        let first = open(&config(root.path())).unwrap();
        assert_eq!((first.train.len(), first.test.len()), (16, 4));
        assert_eq!(first.test.labels, [0, 0, 1, 1]);
        assert_eq!(open(&config(root.path())).unwrap().test, first.test);
        let other = DataConfig { seed: 1, ..config(root.path()) };
        assert_ne!(open(&other).unwrap().test, first.test);
        let fewer = DataConfig { subset: Some(6), test_subset: Some(2), ..config(root.path()) };
        let fewer = open(&fewer).unwrap();
        assert_eq!((fewer.train.labels, fewer.test.labels), (vec![0, 0, 0, 1, 1, 1], vec![0, 1]));
    }

    #[test]
    fn a_broken_image_is_named_or_counted() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..4u8 {
            put(root.path(), &format!("train/a/{number}.png"), [number, 0, 0], (8, 8));
            put(root.path(), &format!("test/a/{number}.png"), [number, 0, 0], (8, 8));
        }
        let broken = root.path().join("train/a/1.png");
        let bytes = fs_err::read(&broken).unwrap();
        fs_err::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
        let message = open(&config(root.path())).unwrap_err().to_string();
        assert!(message.contains("train/a/1.png") && message.contains("skip_broken"), "{message}");
        let mut skipping = config(root.path());
        skipping.folder.skip_broken = true;
        let dataset = open(&skipping).unwrap();
        assert_eq!((dataset.skipped, dataset.train.original), (1, vec![0, 2, 3]));
    }

    #[test]
    fn a_folder_of_another_layout_says_what_is_expected() {
        let message = |root: &Path| open(&config(root)).unwrap_err().to_string();
        let root = tempfile::tempdir().unwrap();
        assert!(message(root.path()).contains("one folder of images for each class"));
        assert!(message(&root.path().join("absent")).contains("absent"));
        put(root.path(), "train/a/1.png", [0; 3], (8, 8));
        assert!(message(root.path()).contains("only one of the folders"));
        put(root.path(), "test/b/1.png", [0; 3], (8, 8));
        assert!(message(root.path()).contains("\"b\" in test but not in train"));
        let none = DataConfig { folder: FolderConfig::default(), ..config(root.path()) };
        assert!(open(&none).unwrap_err().to_string().contains("data.folder.path: found nothing"));
        let mut wrong = config(root.path());
        wrong.folder.image_size = 0;
        assert!(open(&wrong).unwrap_err().to_string().starts_with("data.folder.image_size: found 0"));
    }
}
