//! Tests that shards give the data set that the same images give in a folder, that they are read once, and that what is wrong with
//! them is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::config::FolderConfig;
use crate::sample::png;
use crate::sample::shards::{HubRow, hub, shard};
use crate::{manifest as manifest_of, open};

/// A picture of 8 x 8 pixels of one color.
fn picture(value: u8) -> Vec<u8> {
    png((8, 8), |x, y| [value, x as u8, y as u8])
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Writes a shard with a picture for each value and class.
    fn shard(&self, name: &str, samples: &[(u8, &str)]) {
        let files: Vec<(String, Vec<u8>)> = samples
            .iter()
            .flat_map(|(value, class)| {
                let named = |ending: &str| format!("{value:03}.{ending}");
                [(named("png"), picture(*value)), (named("cls"), class.as_bytes().to_vec())]
            })
            .collect();
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
        shard(&self.at(name), &files);
    }

    /// Writes a Parquet file with a picture for each value and class.
    fn hub(&self, name: &str, samples: &[(u8, i64)]) {
        let pictures: Vec<Vec<u8>> = samples.iter().map(|(value, _)| picture(*value)).collect();
        let rows: Vec<HubRow<'_>> =
            pictures.iter().zip(samples).map(|(bytes, (_, class))| (Some(&bytes[..]), "", *class)).collect();
        hub(&self.at(name), &rows);
    }

    fn tar(&self, own: ShardsConfig) -> DataConfig {
        let webdataset = Some(ShardsConfig { image_size: 8, ..own });
        let cache = Some(self.at("cache"));
        DataConfig { name: "webdataset".to_owned(), webdataset, cache, ..DataConfig::default() }
    }

    fn parquet(&self, own: ShardsConfig) -> DataConfig {
        let parquet = Some(ShardsConfig { image_size: 8, ..own });
        DataConfig { name: "parquet".to_owned(), parquet, ..self.tar(ShardsConfig::default()) }
    }

    fn path(&self, name: &str) -> ShardsConfig {
        ShardsConfig { path: Some(self.at(name)), ..ShardsConfig::default() }
    }

    fn train(&self, name: &str) -> ShardsConfig {
        ShardsConfig { train: Some(self.at(name)), ..ShardsConfig::default() }
    }

    /// Returns the names of the files in the cache that end so.
    fn cached(&self, ending: &str) -> Vec<PathBuf> {
        let entries = fs_err::read_dir(self.at("cache")).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|found| found == ending));
        files.sort();
        files
    }
}

/// The first byte of each image, its label and its number.
fn content(split: &Split) -> Vec<(u8, u32, u32)> {
    let each =
        |index: usize| (split.load(index).unwrap().pixels[0], split.labels[index], split.original[index]);
    (0..split.len()).map(each).collect()
}

fn told(config: &DataConfig) -> String {
    open(config).unwrap_err().to_string()
}

#[test]
fn shards_are_divided_as_the_same_images_in_a_folder() {
    let folder = Folder::new();
    let classes = ["ant", "bee", "cow"];
    let mut samples = Vec::new();
    for (class, name) in classes.into_iter().enumerate() {
        for number in 0..6 {
            let value = (class * 60 + number) as u8;
            fs_err::write(folder.at(&format!("images/{name}/{number}.png")), picture(value)).unwrap();
            samples.push((value, name));
        }
    }
    folder.shard("shards/s-00.tar", &samples[..7]);
    folder.shard("shards/s-01.tar", &samples[7..]);
    let numbers: Vec<(u8, i64)> = samples.iter().map(|(value, _)| (*value, i64::from(*value / 60))).collect();
    folder.hub("hub/data/part-0.parquet", &numbers[..5]);
    folder.hub("hub/data/part-1.parquet", &numbers[5..]);
    let of_folder =
        FolderConfig { path: Some(folder.at("images")), image_size: 8, ..FolderConfig::default() };
    let of_folder = DataConfig { name: "folder".to_owned(), folder: of_folder, ..DataConfig::default() };
    let range = folder.train("shards/s-{00..01}.tar");
    let sources = [folder.tar(range), folder.tar(folder.path("shards")), folder.parquet(folder.path("hub"))];
    let limits = [(None, None, None), (Some(6), Some(3), None), (Some(7), Some(4), Some(true))];
    for (subset, test_subset, held_out) in limits {
        let limited = |config: &DataConfig| {
            open(&DataConfig { subset, test_subset, held_out, seed: 3, ..config.clone() }).unwrap()
        };
        let expected = limited(&of_folder);
        for config in &sources {
            let found = limited(config);
            assert_eq!(content(&found.train), content(&expected.train), "{}", config.name);
            assert_eq!(content(&found.test), content(&expected.test), "{}", config.name);
            assert_eq!((found.skipped, found.notes), (0, expected.notes.clone()));
        }
    }
    assert_eq!(open(&sources[0]).unwrap().classes, classes);
    assert_eq!(open(&sources[2]).unwrap().classes, ["0", "1", "2"]);
    // Both ways to name the shards give one pack.
    assert_eq!((folder.cached("pack").len(), folder.cached("samples").len()), (2, 2));
}

#[test]
fn splits_are_found_by_the_names_of_files_and_folders() {
    let folder = Folder::new();
    folder.hub("hub/data/train-00000-of-00002.parquet", &[(1, 0), (2, 10)]);
    folder.hub("hub/data/train-00001-of-00002.parquet", &[(3, 9)]);
    folder.hub("hub/data/test-00000-of-00001.parquet", &[(4, 10), (5, 9)]);
    folder.hub("hub/data/validation-00000-of-00001.parquet", &[(6, 10)]);
    let dataset = open(&folder.parquet(folder.path("hub"))).unwrap();
    assert_eq!(dataset.classes, ["0", "9", "10"]);
    assert_eq!(content(&dataset.train), [(1, 0, 0), (2, 2, 1), (3, 1, 2)]);
    assert_eq!(content(&dataset.test), [(4, 2, 0), (5, 1, 1)]);
    let unused = "the file data/validation-00000-of-00001.parquet of the validation split is not used";
    assert_eq!(dataset.notes, [unused, "the class 0 has no test images"]);

    folder.shard("tars/train/00.tar", &[(1, "7b"), (2, "7")]);
    folder.shard("tars/val/00.tar", &[(3, "7b")]);
    let dataset = open(&folder.tar(folder.path("tars"))).unwrap();
    assert_eq!(
        (content(&dataset.train), content(&dataset.test)),
        (vec![(1, 1, 0), (2, 0, 1)], vec![(3, 1, 0)])
    );
    assert_eq!(dataset.notes[0], "the validation split is tested on, as there is no test split");
    let named = ShardsConfig { test: Some(folder.at("tars/val")), ..folder.train("tars/train/00.tar") };
    let same = open(&folder.tar(named)).unwrap();
    assert_eq!((same.train.labels, same.test.labels), (dataset.train.labels, dataset.test.labels));
}

#[test]
fn shards_are_read_once_and_again_when_they_change() {
    let folder = Folder::new();
    let samples = [(1, "a"), (2, "a"), (3, "b"), (4, "b")];
    folder.shard("s-0.tar", &samples);
    let config = folder.tar(folder.train("s-0.tar"));
    let first = open(&config).unwrap();
    let hash = manifest_of(&config).unwrap().unwrap().hash();
    let [pack, list] = ["pack", "samples"].map(|ending| folder.cached(ending).remove(0));
    let written = || [&pack, &list].map(|file| fs_err::metadata(file).unwrap().modified().unwrap());
    let before = written();
    let path = folder.at("s-0.tar");
    let mut bytes = fs_err::read(&path).unwrap();
    assert_eq!(content(&open(&config).unwrap().train), content(&first.train));
    assert_eq!(written(), before, "nothing is made again");

    // One byte of a class changes, and neither the length nor the time of the shard does.
    let time = fs_err::metadata(&path).unwrap().modified().unwrap();
    let class = bytes.windows(2).rposition(|pair| pair == b"b\0").unwrap();
    bytes[class] = b'a';
    fs_err::write(&path, &bytes).unwrap();
    fs_err::OpenOptions::new().write(true).open(&path).unwrap().file().set_modified(time).unwrap();
    let changed = open(&config).unwrap();
    assert_eq!(changed.train.labels.len() + changed.test.labels.len(), 4);
    assert_eq!(changed.notes, ["the class b has no test images"]);
    assert_ne!(manifest_of(&config).unwrap().unwrap().hash(), hash);

    // What a killed process left, and damage in the cache, do no harm.
    let expected = content(&changed.train);
    drop(changed);
    let stem = pack.file_stem().unwrap().to_str().unwrap();
    fs_err::write(folder.at(&format!("cache/.{stem}-part-x")), "half").unwrap();
    for file in [&pack, &list] {
        let bytes = fs_err::read(file).unwrap();
        fs_err::write(file, &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_eq!(content(&open(&config).unwrap().train), expected);
    let left = fs_err::read_dir(folder.at("cache")).unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(left.count(), 0);
}

#[test]
fn broken_images_are_errors_or_left_out_and_counted() {
    let folder = Folder::new();
    let [one, two, three] = [1, 2, 3].map(picture);
    let files: &[(&str, &[u8])] = &[
        ("1.png", &one),
        ("1.cls", b"a"),
        ("2.png", b"no image"),
        ("2.cls", b"a"),
        ("3.cls", b"a"),
        ("4.png", &two),
        ("4.cls", b"a"),
        ("5.png", &three),
        ("5.cls", b"b"),
    ];
    shard(&folder.at("train.tar"), files);
    shard(&folder.at("test.tar"), &files[..2]);
    let config = folder.tar(folder.path(""));
    let message = told(&config);
    let words = "train.tar: found the image 2 with bytes of no known image format";
    assert!(message.contains(words) && message.contains("data.skip_broken=true"), "{message}");
    assert!(folder.cached("pack").is_empty(), "no half pack is left");
    let skipping = DataConfig { skip_broken: Some(true), ..config.clone() };
    let dataset = open(&skipping).unwrap();
    assert_eq!((dataset.skipped, content(&dataset.train)), (2, vec![(1, 0, 0), (2, 0, 3), (3, 1, 4)]));
    assert!(told(&config).contains("the image 2"), "a pack with gaps serves only who allows them");
    // A class of which nothing is left.
    shard(&folder.at("train.tar"), &[&files[..4], &[("6.png", b"none"), ("6.cls", b"b")]].concat());
    assert!(told(&skipping).contains("no image of the class \"b\" that can be decoded"));
}

#[test]
fn what_is_wrong_with_the_shards_is_told() {
    let folder = Folder::new();
    folder.shard("train.tar", &[(1, "a")]);
    folder.shard("test.tar", &[(1, "c")]);
    let one = picture(1);
    shard(&folder.at("plain/1.tar"), &[("1.png", &one), ("2.png", &one), ("2.cls", b"a")]);
    folder.hub("hub/train-0.parquet", &[(1, 0)]);
    folder.hub("hub/test-0.parquet", &[(1, -1)]);
    shard(&folder.at("field/1.tar"), &[("1.png", &one), ("1.json", b"{\"caption\": 1}")]);
    shard(&folder.at("float/1.tar"), &[("1.png", &one), ("1.json", b"{\"label\": 2.5}")]);
    shard(&folder.at("both/1.tar"), &[("1.png", &one), ("1.cls", b"1"), ("1.json", b"{\"cls\": 2}")]);
    folder.shard("no-test/train.tar", &[(1, "a")]);
    folder.shard("no-test/test-0.tar", &[]);
    folder.shard("no-test/test-1.tar", &[]);
    folder.hub("no-rows/train-0.parquet", &[(1, 0)]);
    folder.hub("no-rows/test-0.parquet", &[]);
    let both = ShardsConfig { train: Some(folder.at("train.tar")), ..folder.path("") };
    let twice = ShardsConfig { test: Some(folder.at("train.tar")), ..folder.train("train.tar") };
    let only_test = ShardsConfig { test: Some(folder.at("test.tar")), ..ShardsConfig::default() };
    let small = ShardsConfig { test_fraction: 0.0, ..folder.path("") };
    for (config, words) in [
        (folder.tar(ShardsConfig::default()), "data.webdataset.train: found nothing, expected the shards"),
        (folder.parquet(ShardsConfig::default()), "data.parquet.train: found nothing, expected the shards"),
        (folder.tar(both), "data.webdataset.path: found"),
        (folder.tar(twice), "data.webdataset.test: found"),
        (folder.tar(only_test), "data.webdataset.train: found nothing"),
        (folder.tar(small), "data.webdataset.test_fraction: found 0"),
        (folder.tar(folder.path("")), "the class \"c\" in test but not in train"),
        (
            folder.tar(folder.path("plain")),
            "1 of the 2 images without a class, such as 1 of 1.tar, with no class in a .cls or .json",
        ),
        (
            folder.tar(folder.path("field")),
            "such as 1 of 1.tar, with none of the fields \"label\", \"cls\", \"class\" in 1.json",
        ),
        (
            folder.tar(folder.path("float")),
            "1 of 1.tar, with the number 2.5 in the field \"label\" of 1.json",
        ),
        (folder.tar(folder.path("both")), "1 of 1.tar, with the class 1 in 1.cls and 2 in 1.json"),
        (
            folder.tar(folder.path("no-test")),
            "test-0.tar: found no sample, and none in the other file beside it, expected test images",
        ),
        (
            folder.parquet(folder.path("no-rows")),
            "test-0.parquet: found no row, expected test images, one in each row",
        ),
        (folder.parquet(folder.path("hub")), "such as test-0.parquet#0 (its class is a number below 0)"),
        (folder.parquet(folder.path("plain")), "no .parquet file"),
        (
            folder.tar(folder.train("s-{0..3}.tar")),
            "s-0.tar: found no file of that name, expected each of the 4 files",
        ),
        (folder.tar(folder.train("*.tar")), "the pattern character *, which is not expanded"),
        (folder.tar(folder.train("plain/none")), "plain/none: found no file of that name"),
        (folder.tar(folder.train("hub/train-0.parquet")), "found no .tar file"),
        (folder.tar(folder.path("none")), "none"),
    ] {
        let message = told(&config);
        assert!(message.contains(words), "expected {words:?} in: {message}");
    }
    // Shards that are cut anywhere are never used.
    let bytes = fs_err::read(folder.at("train.tar")).unwrap();
    fs_err::write(folder.at("cut.tar"), &bytes[..bytes.len() - 1024]).unwrap();
    let message = told(&folder.tar(folder.train("cut.tar")));
    assert!(message.contains("cut.tar: found an archive that cannot be read on"), "{message}");
}
