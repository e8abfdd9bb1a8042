//! Tests folders in all the forms in which people have them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::config::FolderConfig;
use crate::sample::pictures::jpeg;
use crate::sample::png;

fn put(root: &Path, name: &str, color: [u8; 3], size: (u32, u32)) {
    let path = root.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, png(size, |_, _| color)).unwrap();
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
fn held_out_files_are_not_trained_on() {
    let root = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        for number in 0..10u8 {
            put(root.path(), &format!("train/{class}/{number}.png"), [number, 0, 0], (8, 8));
        }
        put(root.path(), &format!("test/{class}/0.png"), [200, 0, 0], (8, 8));
    }
    let config = DataConfig { test_subset: Some(6), held_out: Some(true), ..config(root.path()) };
    let dataset = open(&config).unwrap();
    assert_eq!((dataset.train.len(), &dataset.test.labels[..]), (14, &[0, 0, 0, 1, 1, 1][..]));
    assert!((0..6).all(|index| dataset.test.pixels(index).pixel(0, 0)[0] < 10));
    assert!(dataset.test.original.iter().all(|original| !dataset.train.original.contains(original)));
    assert_eq!(
        dataset.notes,
        ["6 training images are held out and measured; no test image is (data.held_out)"]
    );
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
    assert_eq!((dataset.skipped, &dataset.train.original[..]), (1, &[0, 2, 3][..]));
    // The key for the other sets of image files has the same effect.
    let alike = DataConfig { skip_broken: Some(true), ..config(root.path()) };
    assert_eq!(open(&alike).unwrap().skipped, 1);
    // If the subset is larger than the folder, the number of images that are left does not include the broken
    // one.
    let notes = open(&DataConfig { subset: Some(9), ..alike }).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("all 3 training images are taken")), "{notes:?}");
    // A JPEG that was cut is broken too.
    let whole = jpeg((40, 40), [9, 9, 9]);
    fs_err::remove_file(&broken).unwrap();
    fs_err::write(root.path().join("train/a/1.jpg"), &whole[..whole.len() * 9 / 10]).unwrap();
    let message = open(&config(root.path())).unwrap_err().to_string();
    assert!(
        message.contains("train/a/1.jpg: found an image that fails to decode (a JPEG cut after")
            && message.contains("skip_broken"),
        "{message}"
    );
    assert_eq!(open(&skipping).unwrap().skipped, 1);
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

/// Returns the number of training images of each class, and the red value of the first one.
fn train(dataset: &Dataset) -> Vec<(usize, u8)> {
    (0..dataset.classes.len() as u32)
        .map(|class| {
            let own: Vec<usize> =
                (0..dataset.train.len()).filter(|at| dataset.train.labels[*at] == class).collect();
            (own.len(), dataset.train.pixels(own[0]).pixel(3, 3)[0])
        })
        .collect()
}

#[test]
fn every_format_depth_and_case_that_torchvision_reads_is_read() {
    let root = tempfile::tempdir().unwrap();
    let image = image::RgbImage::from_pixel(8, 8, image::Rgb([90, 0, 0]));
    let endings = ["png", "PPM", "bmp", "pgm", "tif", "TIFF", "WebP", "gif", "jpg", "JPEG", "jpe", "jfif"];
    for ending in endings {
        let path = root.path().join(format!("train/{}/deep/er/picture.{ending}", ending.to_lowercase()));
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = match ending {
            "jpg" | "JPEG" | "jpe" | "jfif" => jpeg((8, 8), [90, 0, 0]),
            ending => {
                let format = image::ImageFormat::from_extension(ending).unwrap();
                let mut bytes = std::io::Cursor::new(Vec::new());
                image.write_to(&mut bytes, format).unwrap();
                bytes.into_inner()
            }
        };
        fs_err::write(&path, bytes).unwrap();
        put(root.path(), &format!("test/{}/1.png", ending.to_lowercase()), [90, 0, 0], (8, 8));
    }
    let dataset = open(&config(root.path())).unwrap();
    assert_eq!(
        (dataset.classes.len(), dataset.train.len(), dataset.notes.len()),
        (endings.len(), endings.len(), 0)
    );
    for (class, (count, red)) in dataset.classes.iter().zip(train(&dataset)) {
        assert!(count == 1 && red.abs_diff(90) <= 3, "{class}: {red}");
    }
}

#[test]
fn what_is_passed_over_is_said_and_an_emptied_class_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        put(root.path(), &format!("train/{class}/1.png"), [10, 0, 0], (8, 8));
    }
    put(root.path(), "test/a/1.png", [10, 0, 0], (8, 8));
    put(root.path(), "val/a/1.png", [10, 0, 0], (8, 8));
    for name in
        ["labels.csv", "train/a/2.heic", "train/b/x/3.heic", "train/a/.hidden.png", "train/a/Thumbs.db"]
    {
        fs_err::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
        fs_err::write(root.path().join(name), "").unwrap();
    }
    let expected = [
        "the folder val beside train and test is not used",
        "the class b has no test images",
        "3 files were skipped, since their names are not those of images (2 .heic, 1 .csv), such as labels.csv",
    ];
    assert_eq!(open(&config(root.path())).unwrap().notes, expected);
    fs_err::remove_file(root.path().join("train/b/1.png")).unwrap();
    let message = open(&config(root.path())).unwrap_err().to_string();
    assert!(
        message.contains(
            "train/b: found no image (1 file was skipped, since its name is not that of an image (1 .heic)"
        ),
        "{message}"
    );
    assert!(message.contains("its name ending in .jpg, .jpeg"), "{message}");
    // This file has the name of an image, but cannot be decoded.
    fs_err::write(root.path().join("train/b/1.png"), "").unwrap();
    let mut skipping = config(root.path());
    skipping.folder.skip_broken = true;
    let message = open(&skipping).unwrap_err().to_string();
    assert!(message.contains("found no image of the class \"b\" that can be decoded"), "{message}");
}

#[test]
fn a_class_of_one_image_is_trained_on_and_said_not_to_be_tested() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a/1.png", "a/2.png", "b/1.png"] {
        put(root.path(), name, [10, 0, 0], (8, 8));
    }
    let dataset = open(&config(root.path())).unwrap();
    assert_eq!((dataset.train.len(), dataset.test.labels), (2, vec![0]));
    assert_eq!(dataset.notes, ["the class b has no test images"]);
}

#[test]
fn fewer_images_than_a_subset_are_all_taken() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..10u8 {
        put(root.path(), &format!("a/{number}.png"), [number, 0, 0], (8, 8));
    }
    let all = open(&config(root.path())).unwrap();
    let many = DataConfig { subset: Some(10_000), test_subset: Some(2_000), ..config(root.path()) };
    let many = open(&many).unwrap();
    assert_eq!((&many.train, &many.test), (&all.train, &all.test));
    let expected = [
        "all 8 training images are taken, as there are fewer than the 10000 asked for",
        "all 2 test images are taken, as there are fewer than the 2000 asked for",
    ];
    assert_eq!(many.notes, expected);
    let none = DataConfig { subset: Some(0), ..config(root.path()) };
    assert!(open(&none).unwrap_err().to_string().starts_with("data.subset: found 0"));
}

#[cfg(unix)]
#[test]
fn names_of_any_bytes_are_classes_of_their_own() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let root = tempfile::tempdir().unwrap();
    for (number, name) in [&b"caf\xe9"[..], b"caf\xe8", "caf\u{e9}".as_bytes()].into_iter().enumerate() {
        let folder = root.path().join(OsStr::from_bytes(name));
        fs_err::create_dir_all(&folder).unwrap();
        for picture in [&b"\xff.png"[..], b"\xfe.png"] {
            let path = folder.join(OsStr::from_bytes(picture));
            fs_err::write(path, png((8, 8), |_, _| [number as u8 + 1, 0, 0])).unwrap();
        }
    }
    let dataset = open(&config(root.path())).unwrap();
    assert_eq!(dataset.classes, ["caf\u{e9}", "caf\\xe8", "caf\\xe9"]);
    assert_eq!(train(&dataset), [(1, 3), (1, 2), (1, 1)]);
    // This name looks like the name that is shown for another folder.
    fs_err::create_dir(root.path().join("caf\\xe9")).unwrap();
    put(root.path(), "caf\\xe9/1.png", [0; 3], (8, 8));
    let message = open(&config(root.path())).unwrap_err().to_string();
    assert!(message.contains("two classes that would both be shown as \"caf\\xe9\""), "{message}");
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_errors_or_left_out() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..4u8 {
        put(root.path(), &format!("train/a/{number}.png"), [number, 0, 0], (8, 8));
    }
    put(root.path(), "test/a/1.png", [1, 0, 0], (8, 8));
    std::os::unix::fs::symlink("/dev/zero", root.path().join("train/a/zeros.png")).unwrap();
    let message = open(&config(root.path())).unwrap_err().to_string();
    assert!(message.contains("a/zeros.png is a device") && message.contains("skip_broken"), "{message}");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(root.path().join("train/a/pipe.png"))
            .status()
            .unwrap()
            .success()
    );
    std::os::unix::fs::symlink("nowhere", root.path().join("train/a/dangling.png")).unwrap();
    let mut skipping = config(root.path());
    skipping.folder.skip_broken = true;
    let dataset = open(&skipping).unwrap();
    assert_eq!((dataset.skipped, dataset.train.len(), dataset.test.len()), (3, 4, 1));
}
