//! Tests what all sets share: splits of disjoint classes, subsets, and the state of a copy that is not the
//! published one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use invaspread_augment::ImageSource;

use super::*;
use crate::sample::pictures::{birds, cars_devkit, products};

/// Returns a config that accepts the small sets of the tests.
pub(super) fn config(set: Set, root: &Path) -> DataConfig {
    DataConfig {
        name: set.name().to_owned(),
        root: Some(root.to_owned()),
        partial: Some(true),
        retrieval: Some(RetrievalConfig { image_size: 8, ..RetrievalConfig::default() }),
        ..DataConfig::default()
    }
}

pub(super) fn message(set: Set, root: &Path) -> String {
    open(set, &config(set, root)).unwrap_err().to_string()
}

/// Returns the class and the number of each image, which its color encodes; see `picture`.
pub(super) fn shown(split: &Split) -> Vec<(u32, u32)> {
    (0..split.len())
        .map(|index| {
            let image = split.image(index).unwrap();
            let [red, green, _] = image.as_ref().pixel(4, 4);
            // A JPEG changes colors by a few steps; the classes in the tests are further apart.
            (u32::from(red), (u32::from(green) + 10) / 20)
        })
        .collect()
}

/// Checks that the images of `split` are those of `classes`, three of each.
#[track_caller]
pub(super) fn assert_shows(split: &Split, classes: &[u32]) {
    let expected: Vec<(u32, u32)> =
        classes.iter().flat_map(|class| (1..=3).map(move |number| (*class, number))).collect();
    let found = shown(split);
    let close = |(found, expected): (&(u32, u32), &(u32, u32))| {
        found.0.abs_diff(expected.0) <= 4 && found.1 == expected.1
    };
    assert!(
        found.len() == expected.len() && found.iter().zip(&expected).all(close),
        "{found:?} instead of {expected:?}"
    );
}

#[test]
fn train_and_test_share_no_class() {
    let root = tempfile::tempdir().unwrap();
    birds(root.path(), &[10, 100, 101, 190]);
    let dataset = open(Set::Cub2011, &config(Set::Cub2011, root.path())).unwrap();
    assert_eq!((dataset.evaluation, dataset.image_size), (Evaluation::Retrieval, 8));
    assert_eq!(dataset.train.labels, [9, 9, 9, 99, 99, 99]);
    assert_eq!(dataset.test.labels, [100, 100, 100, 189, 189, 189]);
    assert_eq!((dataset.classes.len(), dataset.classes[100].as_str()), (200, "Bird of 101"));
    assert_eq!(dataset.classes[1], "class 2");
    assert_eq!(dataset.train.original, (0..6).collect::<Vec<u32>>());
    assert_eq!(dataset.test.original, (0..6).collect::<Vec<u32>>());
    assert_shows(&dataset.train, &[10, 100]);
    assert_shows(&dataset.test, &[101, 190]);
    let DataState::Unverified { reason } = dataset.state else { panic!("{:?}", dataset.state) };
    assert!(reason.contains("6 training and 6 test images instead of 5864 and 5924"), "{reason}");
}

#[test]
fn subsets_hold_every_class() {
    let root = tempfile::tempdir().unwrap();
    birds(root.path(), &[10, 30, 150, 190]);
    let whole = open(Set::Cub2011, &config(Set::Cub2011, root.path())).unwrap();
    let some = DataConfig { subset: Some(2), test_subset: Some(4), ..config(Set::Cub2011, root.path()) };
    let some = open(Set::Cub2011, &some).unwrap();
    assert_eq!((&some.train.labels[..], &some.test.labels[..]), (&[9, 29][..], &[149, 149, 189, 189][..]));
    for (part, all) in [(&some.train, &whole.train), (&some.test, &whole.test)] {
        for (index, &original) in part.original.iter().enumerate() {
            assert_eq!(part.load(index).unwrap(), all.load(original as usize).unwrap());
        }
    }
    // A profile's subset may be larger than a small set. A subset of no images is an error.
    let many = DataConfig { subset: Some(10_000), test_subset: Some(7), ..config(Set::Cub2011, root.path()) };
    let many = open(Set::Cub2011, &many).unwrap();
    assert_eq!((many.train.len(), many.test.len()), (6, 6));
    let none = DataConfig { test_subset: Some(0), ..config(Set::Cub2011, root.path()) };
    let message = open(Set::Cub2011, &none).unwrap_err().to_string();
    assert_eq!(message, "data.test_subset: found 0, expected between 1 and the 6 images there are");
    let held_out = DataConfig { test_subset: Some(2), held_out: Some(true), ..none };
    let message = open(Set::Cub2011, &held_out).unwrap_err().to_string();
    assert!(
        message.starts_with("data.held_out: found true, expected false or no such key: the test classes of"),
        "{message}"
    );
}

#[test]
fn another_number_of_images_is_an_error_unless_asked_for() {
    let root = tempfile::tempdir().unwrap();
    birds(root.path(), &[10, 150]);
    let strict = DataConfig { partial: None, ..config(Set::Cub2011, root.path()) };
    let message = open(Set::Cub2011, &strict).unwrap_err().to_string();
    assert!(message.contains("CUB_200_2011: found 3 training and 3 test images"), "{message}");
    assert!(message.contains("5864 and 5924, as cub200-2011 has") && message.contains("data.partial=true"));
}

#[test]
fn a_set_without_one_of_its_splits_is_refused() {
    let root = tempfile::tempdir().unwrap();
    birds(root.path(), &[10, 20]);
    let message = message(Set::Cub2011, root.path());
    assert!(message.contains("found no test image, expected at least one"), "{message}");
}

#[test]
fn a_size_out_of_range_names_the_key() {
    let root = tempfile::tempdir().unwrap();
    birds(root.path(), &[10, 150]);
    let mut config = config(Set::Cub2011, root.path());
    config.retrieval = Some(RetrievalConfig { image_size: 0, ..RetrievalConfig::default() });
    let message = open(Set::Cub2011, &config).unwrap_err().to_string();
    assert_eq!(message, "data.retrieval.image_size: found 0, expected between 4 and 1024 pixels");
}

#[test]
fn a_broken_image_is_named_or_left_out_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let folder = birds(root.path(), &[10, 30, 150, 190]);
    let broken = folder.join("images/030.Bird_of_30/Bird_0002.jpg");
    let bytes = fs_err::read(&broken).unwrap();
    fs_err::write(&broken, &bytes[..bytes.len() / 3]).unwrap();
    let gone = folder.join("images/150.Bird_of_150/Bird_0001.jpg");
    let kept = fs_err::read(&gone).unwrap();
    fs_err::remove_file(&gone).unwrap();

    let text = message(Set::Cub2011, root.path());
    assert!(text.contains("Bird_0002.jpg") || text.contains("Bird_0001.jpg"), "{text}");
    assert!(text.contains("data.skip_broken=true"), "{text}");
    fs_err::write(&gone, kept).unwrap();
    let text = message(Set::Cub2011, root.path());
    assert!(text.contains("030.Bird_of_30/Bird_0002.jpg: found an image that fails to decode"), "{text}");

    fs_err::remove_file(&gone).unwrap();
    let skipping = DataConfig { skip_broken: Some(true), ..config(Set::Cub2011, root.path()) };
    for _ in 0..2 {
        // The second time, the images come from the pack.
        let dataset = open(Set::Cub2011, &skipping).unwrap();
        assert_eq!((dataset.skipped, dataset.train.len(), dataset.test.len()), (2, 5, 5));
        assert_eq!(
            (&dataset.train.original[..], &dataset.test.original[..]),
            (&[0, 1, 2, 3, 5][..], &[1, 2, 3, 4, 5][..])
        );
        assert_eq!(shown(&dataset.train)[4].1, 3);
    }
    // If broken images must not be skipped, a pack with missing images is an error.
    assert!(message(Set::Cub2011, root.path()).contains("skip_broken"));
}

#[test]
fn packs_go_where_the_config_says() {
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = birds(root.path(), &[10, 150]);
    let elsewhere =
        DataConfig { cache: Some(cache.path().join("deep/er")), ..config(Set::Cub2011, root.path()) };
    open(Set::Cub2011, &elsewhere).unwrap();
    assert!(cache.path().join("deep/er/cub200-2011-8-bilinear.pack").is_file());
    assert!(!folder.join(CACHE).exists());
    open(Set::Cub2011, &config(Set::Cub2011, root.path())).unwrap();
    assert!(folder.join(CACHE).join("cub200-2011-8-bilinear.pack").is_file());
    let file = cache.path().join("file");
    fs_err::write(&file, "").unwrap();
    let unwritable = DataConfig { cache: Some(file.join("in")), ..elsewhere };
    let message = open(Set::Cub2011, &unwritable).unwrap_err().to_string();
    assert!(message.contains("file/in") && message.contains("data.cache"), "{message}");
}

#[test]
fn a_copy_is_the_published_one_as_long_as_it_is_what_came_out_of_the_archive() {
    let root = tempfile::tempdir().unwrap();
    let folder = birds(root.path(), &[10, 150]);
    let set = Set::Cub2011;
    let listing = set.list(&set.find(root.path()).unwrap()).unwrap();
    let content = || pack::content(&folder, &listing.files()).unwrap();
    let state = || marker::state(&folder, &listing, &content()).unwrap();
    let DataState::Unverified { reason } = state() else { panic!("verified") };
    assert!(reason.contains("not unpacked by"), "{reason}");
    write_marker(set, &folder, "CUB_200_2011.tgz").unwrap();
    assert_eq!(state(), DataState::Verified);
    // The state from the pack is the same, and no image is read again.
    let pack =
        packed(set, &folder, &listing, &RetrievalConfig::default(), &config(set, root.path())).unwrap();
    assert_eq!(pack.content, content());
    for name in ["images/010.Bird_of_10/Bird_0001.jpg", "images.txt", "image_class_labels.txt", "classes.txt"]
    {
        let path = folder.join(name);
        let whole = fs_err::read(&path).unwrap();
        let mut bytes = whole.clone();
        *bytes.last_mut().unwrap() ^= 1;
        fs_err::write(&path, bytes).unwrap();
        let DataState::Unverified { reason } = state() else { panic!("{name}") };
        assert!(reason.contains("when they were unpacked"), "{reason}");
        fs_err::write(&path, whole).unwrap();
    }
}

#[test]
fn verify_tells_a_broken_copy_and_list_where_it_is() {
    let root = tempfile::tempdir().unwrap();
    products(root.path(), &[5, 100, 11_319]);
    cars_devkit(&root.path().join("cars196-half"), &[3, 130]);
    let listed = crate::list(Some(root.path())).unwrap();
    let present: Vec<&str> =
        listed.iter().filter(|entry| entry.present).map(|entry| entry.name.as_str()).collect();
    assert_eq!(present, ["cars196-half", "products", "synthetic"]);
    let report = crate::verify("products", Some(root.path())).unwrap();
    let content = report.content.clone().unwrap();
    assert_eq!((content.train, content.test), (vec![3, 3, 0], vec![0, 0, 3]));
    assert!(!report.is_good() && content.state.to_string() == "unverified");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["content"]["form"], "ebay_lists");
    assert_eq!(serde_json::from_value::<crate::VerifyReport>(json).unwrap(), report);

    let broken = root.path().join("Stanford_Online_Products/sofa_final/111100_2.JPG");
    fs_err::write(&broken, "no image").unwrap();
    let report = crate::verify("products", Some(root.path())).unwrap();
    assert!(report.content.is_none() && report.problem.unwrap().contains("111100_2.JPG"));
    let report = crate::verify("cub200-2010", Some(root.path())).unwrap();
    assert!(report.problem.unwrap().contains("cub200-2010/CUB_200_2011/images.txt"));
}

#[test]
fn a_missing_set_says_how_to_get_it() {
    let root = tempfile::tempdir().unwrap();
    for set in [Set::Cub2011, Set::Cub2010, Set::Cars, Set::CarsHalf, Set::Products] {
        let message = message(set, root.path());
        assert!(message.starts_with(set.name()) && message.contains("To get it"), "{message}");
        assert!(message.contains("data.root") && message.contains("looked for"), "{message}");
        let absent = self::message(set, &root.path().join("absent"));
        assert!(absent.contains("That folder does not exist"), "{absent}");
    }
    let message =
        |name| crate::fetch(name, Some(root.path()), &crate::Source::Official, &mut |_| ()).unwrap_err();
    assert!(message("cars196-half").to_string().contains("put your copy into the folder cars196-half/"));
    let gone = message("cars196").to_string();
    assert!(gone.contains("--mirror") && gone.contains("cars_train.tgz, cars_test.tgz"), "{gone}");
}
