//! Tests the real lists and pictures of two small sets. `INVASPREAD_DATA` names the folder that holds
//! `cars196-half/` and `cub200-2010/`, or their `.tar` archives. If a set is missing, its test is skipped
//! with a message.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use invaspread_augment::ImageSource;

use super::tests::config;
use super::*;
use crate::location::ENVIRONMENT;

/// Returns the folder that holds `set`, unpacked into `scratch` if need be.
fn folder_of(set: Set, scratch: &Path) -> Option<PathBuf> {
    let name = set.name();
    let Some(root) = std::env::var_os(ENVIRONMENT).map(PathBuf::from) else {
        eprintln!("skipped: {ENVIRONMENT} is not set to the folder that holds {name}");
        return None;
    };
    if set.find(&root).is_some() {
        return Some(root);
    }
    let archive = root.join(format!("{name}.tar"));
    if !archive.is_file() {
        eprintln!("skipped: neither {name}/ nor {name}.tar is in {}", root.display());
        return None;
    }
    tar::Archive::new(fs_err::File::open(archive).unwrap()).unpack(scratch).unwrap();
    Some(scratch.to_owned())
}

fn check(set: Set, classes: [&str; 2]) {
    let scratch = tempfile::tempdir().unwrap();
    let Some(root) = folder_of(set, scratch.path()) else { return };
    let config = DataConfig {
        partial: None,
        cache: Some(scratch.path().join("cache")),
        retrieval: Some(RetrievalConfig { image_size: 32, ..RetrievalConfig::default() }),
        ..config(set, &root)
    };
    let dataset = open(set, &config).unwrap();
    let [train, test] = set.counts();
    assert_eq!((dataset.train.len(), dataset.test.len(), dataset.skipped), (train, test, 0));
    let DataState::Unverified { reason } = &dataset.state else { panic!("verified") };
    assert!(reason.contains("right numbers of images"), "{reason}");
    assert_eq!((&dataset.classes[0][..], &dataset.classes.last().unwrap()[..]), (classes[0], classes[1]));
    let boundary = dataset.classes.len() as u32 / 2;
    assert!(dataset.train.labels.iter().all(|label| *label < boundary));
    assert!(dataset.test.labels.iter().all(|label| *label >= boundary));
    // The images are photographs, so no image has only one color, and their mean is neither dark nor bright.
    let mut total = 0;
    for split in [&dataset.train, &dataset.test] {
        for index in 0..split.len() {
            let image = split.image(index).unwrap();
            let pixels = image.as_ref().pixels;
            assert!(pixels.iter().any(|value| *value != pixels[0]), "{index}");
            total += pixels.iter().map(|value| u64::from(*value)).sum::<u64>();
        }
    }
    let mean = total as f64 / ((train + test) * 32 * 32 * 3) as f64;
    assert!((90.0..150.0).contains(&mean), "{mean}");
}

#[test]
fn the_half_of_cars196_is_read_from_its_true_lists() {
    check(Set::CarsHalf, ["AM General Hummer SUV 2000", "smart fortwo Convertible 2012"]);
}

#[test]
fn the_birds_of_2010_are_read() {
    check(Set::Cub2010, ["Black footed Albatross", "Common Yellowthroat"]);
}
