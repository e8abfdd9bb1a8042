//! Tests that images have the right orientation and are in the right splits, and that every kind of damage
//! gives an error that names the file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use invaspread_augment::ImageSource;

use super::*;
use crate::config::Stl10Config;
use crate::sample::stl10::MiniatureStl10;

fn config(unlabeled: bool) -> DataConfig {
    DataConfig { name: "stl10".to_owned(), stl10: Some(Stl10Config { unlabeled }), ..DataConfig::default() }
}

/// Returns whether image `index` of `split` is record `record` of `planes`. It computes the places of pixels
/// independently of the reader.
fn is_record(split: &Split, index: usize, planes: &[u8], record: usize) -> bool {
    let image = split.image(index).unwrap();
    let at = |channel: usize, x: usize, y: usize| planes[record * 27_648 + channel * 9_216 + x * 96 + y];
    [(0, 0), (95, 0), (0, 95), (31, 64)]
        .into_iter()
        .all(|(x, y)| image.as_ref().pixel(x, y) == [at(0, x, y), at(1, x, y), at(2, x, y)])
}

#[test]
fn labeled_images_train_and_columns_become_rows() {
    let mini = MiniatureStl10::new([20, 10, 5]);
    let root = tempfile::tempdir().unwrap();
    let folder = mini.write(root.path());
    // The images without labels are not needed, and their file is not read.
    fs_err::remove_file(folder.join("unlabeled_X.bin")).unwrap();
    assert_eq!(find(root.path()), Some(folder.clone()));
    let dataset = open_found(&folder, &config(false), &mini.layout()).unwrap();
    assert_eq!(dataset.state, DataState::Verified);
    assert_eq!((dataset.train.len(), dataset.test.len(), dataset.image_size), (20, 10, 96));
    assert!(dataset.labeled.is_none() && dataset.gallery() == &dataset.train);
    for index in 0..20 {
        assert!(is_record(&dataset.train, index, &mini.files[0].1, index));
        assert_eq!(dataset.train.labels[index], index as u32 % 10);
    }
    assert!((0..10).all(|index| is_record(&dataset.test, index, &mini.files[2].1, index)));
}

#[test]
fn unlabeled_images_train_too_and_the_labeled_ones_alone_vote() {
    let mini = MiniatureStl10::new([20, 10, 40]);
    let root = tempfile::tempdir().unwrap();
    let folder = mini.write(root.path());
    let dataset = open_found(&folder, &config(true), &mini.layout()).unwrap();
    assert_eq!((dataset.train.len(), dataset.gallery().len()), (60, 20));
    assert_eq!(dataset.gallery().labels, (0..20).map(|image| image % 10).collect::<Vec<u32>>());
    assert!(dataset.train.labels[20..].iter().all(|label| *label == UNLABELED));
    assert!(is_record(&dataset.train, 19, &mini.files[0].1, 19));
    assert!((0..40).all(|index| is_record(&dataset.train, 20 + index, &mini.files[4].1, index)));

    let some = DataConfig { subset: Some(30), test_subset: Some(10), ..config(true) };
    let some = open_found(&folder, &some, &mini.layout()).unwrap();
    let unlabeled = some.train.labels.iter().filter(|label| **label == UNLABELED).count();
    assert_eq!((some.train.len(), unlabeled, some.gallery().len()), (30, 20, 20));
    for (index, &original) in some.train.original.iter().enumerate() {
        assert_eq!(some.train.labels[index], dataset.train.labels[original as usize]);
        let (part, record) = if original < 20 { (0, original) } else { (4, original - 20) };
        assert!(is_record(&some.train, index, &mini.files[part].1, record as usize));
    }
}

#[test]
fn labeled_images_alone_are_held_out_and_do_not_vote() {
    let mini = MiniatureStl10::new([20, 10, 40]);
    let root = tempfile::tempdir().unwrap();
    let folder = mini.write(root.path());
    for unlabeled in [false, true] {
        let config = DataConfig { test_subset: Some(10), held_out: Some(true), ..config(unlabeled) };
        let dataset = open_found(&folder, &config, &mini.layout()).unwrap();
        let lengths = (dataset.train.len(), dataset.gallery().len(), dataset.test.len());
        assert_eq!(lengths, (if unlabeled { 50 } else { 10 }, 10, 10));
        for (index, &original) in dataset.test.original.iter().enumerate() {
            assert!(is_record(&dataset.test, index, &mini.files[0].1, original as usize));
            assert!(
                ![&dataset.train, dataset.gallery()].iter().any(|split| split.original.contains(&original))
            );
        }
    }
}

#[test]
fn a_changed_byte_is_used_but_unverified() {
    let mini = MiniatureStl10::new([10, 10, 10]);
    let root = tempfile::tempdir().unwrap();
    let folder = mini.write(root.path());
    let path = folder.join("unlabeled_X.bin");
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[5] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    assert_eq!(open_found(&folder, &config(false), &mini.layout()).unwrap().state, DataState::Verified);
    let state = open_found(&folder, &config(true), &mini.layout()).unwrap().state;
    let DataState::Unverified { reason } = state else { panic!("{state:?}") };
    assert!(
        reason.contains("unlabeled_X.bin has MD5") && reason.contains(&mini.layout().md5[4].1),
        "{reason}"
    );
}

#[test]
fn another_number_of_images_is_an_error_or_taken_on_request() {
    let mini = MiniatureStl10::new([10, 10, 10]);
    let larger = Layout { counts: [11, 10, 10], ..mini.layout().clone() };
    let root = tempfile::tempdir().unwrap();
    let folder = mini.write(root.path());
    let message = open_found(&folder, &config(false), &larger).unwrap_err().to_string();
    assert!(message.contains("train_X.bin: found 276480 bytes, expected 304128; "), "{message}");
    assert!(message.contains("data.partial=true") && message.contains("data fetch stl10"), "{message}");
    let partial = DataConfig { partial: Some(true), ..config(true) };
    let dataset = open_found(&folder, &partial, &OFFICIAL).unwrap();
    assert_eq!(dataset.train.len(), 20);
    assert!(matches!(dataset.state, DataState::Unverified { .. }));
    let many = DataConfig { subset: Some(10_000), test_subset: Some(2_000), ..partial };
    let many = open_found(&folder, &many, &mini.layout()).unwrap();
    assert_eq!((many.train.len(), many.test.len()), (20, 10));
}

#[test]
fn damaged_files_are_named() {
    let mini = MiniatureStl10::new([10, 10, 10]);
    let root = tempfile::tempdir().unwrap();
    let folder = mini.write(root.path());
    let partial = DataConfig { partial: Some(true), ..config(true) };
    let message = |layout: &Layout| open_found(&folder, &partial, layout).unwrap_err().to_string();
    let with = |name: &str, change: &dyn Fn(&mut Vec<u8>), expected: &[&str]| {
        let path = folder.join(name);
        let whole = fs_err::read(&path).unwrap();
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs_err::write(&path, bytes).unwrap();
        let message = message(&mini.layout());
        assert!(message.contains(name) && expected.iter().all(|part| message.contains(part)), "{message}");
        fs_err::write(&path, whole).unwrap();
    };
    with("test_X.bin", &|bytes| bytes.truncate(RECORD * 3 + 1), &["82945 bytes", "a multiple of 27648"]);
    with("unlabeled_X.bin", &Vec::clear, &["found 0 bytes"]);
    with(
        "train_y.bin",
        &|bytes| bytes.truncate(9),
        &["9 labels", "expected 10, one for each image of train_X.bin"],
    );
    with("test_y.bin", &|bytes| bytes[4] = 0, &["label 0 for image 4", "expected 1 to 10"]);
    with("test_y.bin", &|bytes| bytes[4] = 11, &["label 11 for image 4"]);
    for (name, _) in &mini.files {
        let (path, aside) = (folder.join(name), folder.join("aside"));
        fs_err::rename(&path, &aside).unwrap();
        let message = message(&mini.layout());
        assert!(message.contains(name) && message.contains("check that it exists"), "{message}");
        fs_err::rename(&aside, &path).unwrap();
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_named() {
    let mini = MiniatureStl10::new([10, 10, 10]);
    let root = tempfile::tempdir().unwrap();
    let folder = mini.write(root.path());
    let dataset = open_found(&folder, &config(false), &mini.layout()).unwrap();
    let file = fs_err::OpenOptions::new().write(true).open(folder.join("train_X.bin")).unwrap();
    file.set_len(5 * RECORD as u64).unwrap();
    dataset.train.image(4).unwrap();
    let message = dataset.train.image(5).unwrap_err().to_string();
    assert!(message.contains("train_X.bin: found its end before that of image 5"), "{message}");
}

#[test]
fn a_folder_without_it_says_how_to_get_it() {
    let root = tempfile::tempdir().unwrap();
    let config = DataConfig { root: Some(root.path().to_owned()), ..config(false) };
    let message = || open(&config).unwrap_err().to_string();
    assert!(
        message().contains("stl10_binary/train_X.bin") && message().contains("data fetch stl10"),
        "{}",
        message()
    );
    fs_err::write(root.path().join(ARCHIVE), b"").unwrap();
    assert!(message().contains("The archive is there"), "{}", message());
}

#[test]
#[ignore = "needs the real STL-10 in the folder INVASPREAD_DATA"]
fn the_real_data_set_is_verified() {
    let dataset = open(&config(true)).unwrap();
    assert_eq!(dataset.state, DataState::Verified);
    assert_eq!((dataset.train.len(), dataset.gallery().len(), dataset.test.len()), (105_000, 5_000, 8_000));
    assert!(crate::verify("stl10", None).unwrap().is_good());
}
