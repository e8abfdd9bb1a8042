//! Tests that every form gives the same images, and that every kind of damage gives an error that names the
//! file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use super::*;
use crate::sample::Miniature;

fn open_in(root: &Path, config: &DataConfig, layout: &Layout) -> Result<Dataset, DataError> {
    let location = Location { path: root.to_owned(), origin: crate::location::Origin::Config };
    open_found(&find(root).ok_or_else(|| missing(location))?, config, layout)
}

fn message(root: &Path, layout: &Layout) -> String {
    open_in(root, &DataConfig::default(), layout).unwrap_err().to_string()
}

/// Writes a set in one of its forms.
type Write = fn(&Miniature, &Path);

#[test]
fn every_form_gives_the_same_verified_images() {
    let mini = Miniature::new(20);
    let forms: [(Cifar10Form, Write); 6] = [
        (Cifar10Form::BinaryFolder, Miniature::binary_folder),
        (Cifar10Form::BinaryArchive, Miniature::binary_archive),
        (Cifar10Form::PythonFolder, Miniature::python_folder),
        (Cifar10Form::PythonArchive, Miniature::python_archive),
        (Cifar10Form::Parquet, |mini, root| mini.parquet_folder(root, false)),
        (Cifar10Form::Parquet, |mini, root| mini.parquet_folder(root, true)),
    ];
    for (form, write) in forms {
        let root = tempfile::tempdir().unwrap();
        write(&mini, root.path());
        assert_eq!(find(root.path()).unwrap().form, form);
        let dataset = open_in(root.path(), &DataConfig::default(), &mini.layout).unwrap();
        assert_eq!(dataset.state, DataState::Verified, "{form:?}");
        assert_eq!((dataset.train.len(), dataset.test.len()), (100, 20));
        for (split, first) in [(&dataset.train, 0), (&dataset.test, 5)] {
            for index in 0..split.len() {
                let record = &mini.batches[first + index / 20][index % 20 * RECORD..][..RECORD];
                assert_eq!(split.labels[index], u32::from(record[0]));
                let image = split.pixels(index);
                for (x, y) in [(0, 0), (31, 0), (0, 31), (5, 17)] {
                    let at = 1 + y * 32 + x;
                    assert_eq!(
                        image.pixel(x, y),
                        [record[at], record[at + 1024], record[at + 2048]],
                        "{form:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_root_may_be_the_copy_itself_or_hold_it_under_cifar10() {
    let mini = Miniature::new(10);
    let root = tempfile::tempdir().unwrap();
    let nested = root.path().join("cifar10");
    fs_err::create_dir(&nested).unwrap();
    mini.python_folder(&nested);
    mini.binary_archive(&nested);
    mini.parquet_folder(&nested, true);
    assert_eq!(find(root.path()).unwrap().form, Cifar10Form::BinaryArchive);
    for (inner, form) in [
        ("cifar-10-binary.tar.gz", Cifar10Form::BinaryArchive),
        ("cifar-10-batches-py", Cifar10Form::PythonFolder),
        ("plain_text", Cifar10Form::Parquet),
    ] {
        assert_eq!(find(&nested.join(inner)), Some(Found { form, path: nested.join(inner) }));
    }
}

#[test]
fn subsets_are_balanced_remember_where_they_came_from_and_follow_the_seed() {
    let mini = Miniature::new(40);
    let root = tempfile::tempdir().unwrap();
    mini.binary_folder(root.path());
    let config = DataConfig { subset: Some(50), test_subset: Some(7), seed: 3, ..DataConfig::default() };
    let some = open_in(root.path(), &config, &mini.layout).unwrap();
    let all = open_in(root.path(), &DataConfig::default(), &mini.layout).unwrap();
    assert_eq!((some.train.len(), some.test.original.clone()), (50, (0..7).collect()));
    for class in 0..10 {
        assert_eq!(some.train.labels.iter().filter(|label| **label == class).count(), 5);
    }
    for (index, &original) in some.train.original.iter().enumerate() {
        assert_eq!(some.train.pixels(index), all.train.pixels(original as usize));
        assert_eq!(some.train.labels[index], all.train.labels[original as usize]);
    }
    let other = open_in(root.path(), &DataConfig { seed: 4, ..config }, &mini.layout).unwrap();
    assert_ne!(other.train.original, some.train.original);
    let many = DataConfig { subset: Some(201), ..DataConfig::default() };
    let many = open_in(root.path(), &many, &mini.layout).unwrap();
    assert_eq!(many.train, all.train);
    assert_eq!(many.notes, ["all 200 training images are taken, as there are fewer than the 201 asked for"]);
}

#[test]
fn held_out_images_are_training_images_that_are_not_trained_on() {
    let mini = Miniature::new(40);
    let root = tempfile::tempdir().unwrap();
    mini.binary_folder(root.path());
    let plain = DataConfig { subset: Some(50), test_subset: Some(30), ..DataConfig::default() };
    let without = open_in(root.path(), &plain, &mini.layout).unwrap();
    let config = DataConfig { held_out: Some(true), ..plain };
    let with = open_in(root.path(), &config, &mini.layout).unwrap();
    assert_eq!(with.train, without.train);
    assert_ne!(with.test, without.test);
    let all = open_in(root.path(), &DataConfig::default(), &mini.layout).unwrap().train;
    assert_eq!(with.test.len(), 30);
    for (index, original) in with.test.original.iter().enumerate() {
        assert_eq!(with.test.pixels(index), all.pixels(*original as usize));
        assert!(!with.train.original.contains(original));
    }
    assert_eq!(
        with.notes,
        ["30 training images are held out and measured; no test image is (data.held_out)"]
    );
}

#[test]
fn a_changed_byte_is_used_but_unverified() {
    let mut mini = Miniature::new(10);
    let root = tempfile::tempdir().unwrap();
    mini.batches[2][100] ^= 1;
    mini.binary_folder(root.path());
    let dataset = open_in(root.path(), &DataConfig::default(), &mini.layout).unwrap();
    let DataState::Unverified { reason } = dataset.state else { panic!("{:?}", dataset.state) };
    assert!(reason.contains("data_batch_3.bin") && reason.contains(&mini.layout.sha256[2]), "{reason}");
    assert!(!reason.contains("data_batch_2.bin"), "{reason}");
}

#[test]
fn a_missing_folder_and_an_empty_one_say_where_was_looked() {
    let layout = Miniature::new(1).layout;
    let root = tempfile::tempdir().unwrap();
    let empty = message(root.path(), &layout);
    assert!(empty.contains("cifar-10-binary.tar.gz") && empty.contains("data fetch cifar10"), "{empty}");
    let absent = message(&root.path().join("absent"), &layout);
    assert!(absent.contains("absent (chosen by data.root)") && absent.contains("does not exist"), "{absent}");
}

#[test]
fn a_truncated_or_missing_batch_names_the_file_and_both_lengths() {
    let mini = Miniature::new(10);
    let root = tempfile::tempdir().unwrap();
    mini.binary_folder(root.path());
    let batch = root.path().join("cifar-10-batches-bin/data_batch_4.bin");
    for held in [0, RECORD, 9 * RECORD, 10 * RECORD - 1, 10 * RECORD + 1] {
        let mut bytes = mini.batches[3].clone();
        bytes.resize(held, 0);
        fs_err::write(&batch, bytes).unwrap();
        let message = message(root.path(), &mini.layout);
        assert!(message.contains("data_batch_4.bin"), "{message}");
        assert!(message.contains(&format!("found {held} bytes, expected 30730; ")), "{message}");
    }
    fs_err::remove_file(&batch).unwrap();
    let message = message(root.path(), &mini.layout);
    assert!(
        message.contains(
            "cifar-10-batches-bin: found no data_batch_4.bin (binary batches), expected all of its 6 files; "
        ),
        "{message}"
    );
    // The error is the same for another batch, and if `root` is the copy's own folder.
    fs_err::rename(root.path().join("cifar-10-batches-bin/data_batch_1.bin"), &batch).unwrap();
    let message = self::message(&root.path().join("cifar-10-batches-bin"), &mini.layout);
    assert!(message.contains("found no data_batch_1.bin"), "{message}");
}

#[test]
fn a_label_out_of_range_is_named_in_every_form() {
    let mut mini = Miniature::new(10);
    mini.batches[5][3 * RECORD] = 10;
    for form in 0..4 {
        let root = tempfile::tempdir().unwrap();
        match form {
            0 => mini.binary_folder(root.path()),
            1 => mini.binary_archive(root.path()),
            2 => mini.python_folder(root.path()),
            _ => mini.parquet_folder(root.path(), false),
        }
        let message = message(root.path(), &mini.layout);
        assert!(
            message.contains("image 3 has label 10, expected 0 to 9") && message.contains("test"),
            "{message}"
        );
    }
}

#[test]
fn truncated_archives_are_errors_that_name_both_lengths() {
    let mini = Miniature::new(10);
    for (name, published) in [("cifar-10-binary.tar.gz", 111), ("cifar-10-python.tar.gz", 222)] {
        let root = tempfile::tempdir().unwrap();
        mini.binary_archive(root.path());
        mini.python_archive(root.path());
        let path = root.path().join(name);
        let bytes = fs_err::read(&path).unwrap();
        for held in [100, bytes.len() / 2] {
            fs_err::write(&path, &bytes[..held]).unwrap();
            let found = find(&path).unwrap();
            let message = open_found(&found, &DataConfig::default(), &mini.layout).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            assert!(message.contains(&format!("found {held} bytes, expected {published};")), "{message}");
        }
        fs_err::write(&path, b"not an archive").unwrap();
        let found = find(&path).unwrap();
        let message = open_found(&found, &DataConfig::default(), &mini.layout).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("whole .tar.gz"), "{message}");
    }
}

#[test]
fn damaged_pickles_and_parquet_files_are_named() {
    let mini = Miniature::new(10);
    let root = tempfile::tempdir().unwrap();
    mini.python_folder(root.path());
    let path = root.path().join("cifar-10-batches-py/data_batch_2");
    let bytes = fs_err::read(&path).unwrap();
    fs_err::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let text = message(root.path(), &mini.layout);
    assert!(text.contains("data_batch_2") && text.contains("too soon"), "{text}");
    let larger = Layout { per_batch: 11, ..mini.layout.clone() };
    fs_err::write(&path, &bytes).unwrap();
    let text = message(root.path(), &larger);
    assert!(text.contains("10 labels and 10 x 3072") && text.contains("11 x 3072"), "{text}");

    let root = tempfile::tempdir().unwrap();
    mini.parquet_folder(root.path(), false);
    let path = root.path().join("plain_text/train-00000-of-00001.parquet");
    let text = message(root.path(), &larger);
    assert!(text.contains("50 images") && text.contains("55 images"), "{text}");
    let bytes = fs_err::read(&path).unwrap();
    fs_err::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    let text = message(root.path(), &mini.layout);
    assert!(text.contains("train-00000-of-00001.parquet") && text.contains("whole Parquet file"), "{text}");
}

#[test]
#[ignore = "needs the real CIFAR-10 in the folder INVASPREAD_DATA"]
fn the_real_data_set_is_verified() {
    let dataset = open(&DataConfig::default()).unwrap();
    assert_eq!(dataset.state, DataState::Verified);
    assert_eq!((dataset.train.len(), dataset.test.len()), (50_000, 10_000));
    assert!(
        dataset.test.labels.starts_with(&[3, 8, 8, 0, 6, 6, 1, 6, 3, 1]),
        "cat ship ship airplane frog ..."
    );
    assert!(crate::verify("cifar10", None).unwrap().is_good());
}

/// candle-datasets also reads the binary files. It gives the same images, as f32 planes.
#[cfg(feature = "hub")]
#[test]
#[ignore = "needs the real CIFAR-10 in the folder INVASPREAD_DATA"]
fn candle_datasets_reads_the_same_images() {
    let dataset = open(&DataConfig { test_subset: Some(500), ..DataConfig::default() }).unwrap();
    let folder = find(&Location::find(None).unwrap().path).unwrap().path;
    let oracle = candle_datasets::vision::cifar::load_dir(folder).unwrap();
    let planes = oracle.test_images.narrow(0, 0, 500).unwrap().permute((0, 2, 3, 1)).unwrap();
    let expected: Vec<f32> = planes.flatten_all().unwrap().to_vec1().unwrap();
    assert!(
        dataset
            .test
            .bytes()
            .unwrap()
            .iter()
            .zip(expected)
            .all(|(byte, value)| f32::from(*byte) / 255.0 == value)
    );
    let labels: Vec<u8> = oracle.test_labels.narrow(0, 0, 500).unwrap().to_vec1().unwrap();
    assert!(dataset.test.labels.iter().zip(labels).all(|(ours, theirs)| *ours == u32::from(theirs)));
}
