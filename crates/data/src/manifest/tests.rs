//! Tests that a manifest changes with every change of its files and with nothing else, and that files are
//! read once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::*;
use crate::catalog::{manifest, recent_hash};
use crate::config::{DataConfig, FolderConfig};
use crate::sample::Miniature;
use crate::sample::pictures::birds;

/// Gives the file another time of change of its bytes.
fn set_modified(path: &Path, time: SystemTime) {
    let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.file().set_modified(time).unwrap();
}

struct Set(tempfile::TempDir);

impl Set {
    fn new() -> Self {
        let set = Self(tempfile::tempdir().unwrap());
        for name in ["a/1.png", "a/2.png", "b/1.png"] {
            set.put(name, name);
        }
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: &str) {
        fs_err::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs_err::write(self.path(name), content).unwrap();
    }

    fn config(&self) -> DataConfig {
        DataConfig {
            name: "folder".to_owned(),
            folder: FolderConfig { path: Some(self.0.path().to_owned()), ..FolderConfig::default() },
            ..DataConfig::default()
        }
    }

    fn manifest(&self) -> Manifest {
        manifest(&self.config()).unwrap().unwrap()
    }

    fn note(&self) -> Note {
        Note::read(&self.path(".invaspread-manifest")).unwrap()
    }

    /// Makes the note say that the files were read an hour from now, so that their times are old enough to be
    /// trusted.
    fn age(&self) {
        let mut note = self.note();
        note.began += 3_600_000_000_000;
        note.write(&[self.path(".invaspread-manifest")]);
    }

    /// Makes the note give every file the hash of another file, which shows which files are read again.
    fn falsify(&self) {
        let mut note = self.note();
        for entry in note.entries.values_mut() {
            entry.content = "0".repeat(64);
        }
        note.write(&[self.path(".invaspread-manifest")]);
    }

    /// Returns the files whose hash comes from the falsified note.
    fn not_read(&self) -> Vec<String> {
        let files = self.manifest().files.into_iter();
        files.filter(|file| file.content == "0".repeat(64)).map(|file| file.name).collect()
    }
}

#[test]
fn every_change_of_the_files_is_another_manifest() {
    let set = Set::new();
    let first = set.manifest();
    assert!(first.hash().starts_with("blake3:") && first.hash().len() == 71);
    assert_eq!((set.manifest().hash(), first.len(), first.is_empty()), (first.hash(), 3, false));
    assert_eq!(Manifest::from_text(&first.to_text()), Some(first.clone()));

    let mut seen = BTreeSet::from([first.hash()]);
    let mut changed = |what: &str| {
        let found = set.manifest();
        assert!(seen.insert(found.hash()), "{what}");
        first.changes(&found).to_string()
    };
    set.put("a/3.png", "new");
    assert_eq!(changed("added"), "1 added (a/3.png)");
    // The file keeps its length and its time of change.
    let modified = fs_err::metadata(set.path("a/2.png")).unwrap().modified().unwrap();
    set.put("a/2.png", "A/2.png");
    set_modified(&set.path("a/2.png"), modified);
    assert_eq!(changed("edited in place"), "1 added (a/3.png), 1 changed (a/2.png)");
    fs_err::rename(set.path("b/1.png"), set.path("b/9.png")).unwrap();
    assert_eq!(changed("renamed"), "2 added (a/3.png, b/9.png), 1 removed (b/1.png), 1 changed (a/2.png)");
    fs_err::remove_file(set.path("a/1.png")).unwrap();
    for number in 4..9 {
        set.put(&format!("a/{number}.png"), "more");
    }
    let expected =
        "7 added (a/3.png, a/4.png, a/5.png, ...), 2 removed (a/1.png, b/1.png), 1 changed (a/2.png)";
    assert_eq!(changed("removed"), expected);
}

#[test]
fn what_is_no_image_and_what_is_no_change_leave_it_as_it_is() {
    let set = Set::new();
    let first = set.manifest();
    for name in ["a/readme.txt", ".hidden/1.png", "a/.1.png"] {
        set.put(name, "no image");
    }
    set_modified(&set.path("a/1.png"), SystemTime::now() + Duration::from_mins(1));
    assert_eq!(set.manifest(), first);
    // Another folder with the same content has the same hash.
    assert_eq!(Set::new().manifest().hash(), first.hash());
}

#[test]
fn files_are_read_again_only_where_their_times_or_lengths_differ() {
    let set = Set::new();
    let first = set.manifest();
    // The files were changed less than two seconds before they were read, so they may also have been changed
    // afterwards.
    set.falsify();
    assert_eq!(set.not_read(), [""; 0]);
    assert_eq!(set.manifest(), first);
    set.age();
    set.falsify();
    assert_eq!(set.not_read(), ["a/1.png", "a/2.png", "b/1.png"]);
    set.put("a/2.png", "other");
    assert_eq!(set.not_read(), ["a/1.png", "b/1.png"]);
    // A damaged note is not used.
    set.age();
    let path = set.path(".invaspread-manifest");
    let whole = fs_err::read(&path).unwrap();
    let expected = Set::new();
    expected.put("a/2.png", "other");
    for at in [0, 30, whole.len() / 2, whole.len() - 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs_err::write(&path, bytes).unwrap();
        assert_eq!(set.manifest(), expected.manifest(), "byte {at}");
    }
}

#[test]
fn the_note_goes_to_the_cache_where_it_may_not_lie_beside_the_set() {
    let (set, cache) = (Set::new(), tempfile::tempdir().unwrap());
    let cache = cache.path().join("deep/er");
    // A file cannot be renamed onto a folder that is not empty.
    set.put(".invaspread-manifest/in the way", "");
    let config = set.config();
    let found = of_copy(&crate::folder::copy(&config).unwrap(), Some(&cache)).unwrap();
    let names: Vec<PathBuf> = fs_err::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [note] = &names[..] else { panic!("{names:?}") };
    assert_eq!(Note::read(note).unwrap().entries.len(), 3);
    assert_eq!(found, Set::new().manifest());
    // If the note cannot be stored anywhere, the manifest is computed again.
    let nowhere = of_copy(&crate::folder::copy(&config).unwrap(), Some(&set.path("a/1.png/no"))).unwrap();
    assert_eq!(nowhere, found);
}

#[test]
fn what_cannot_be_read_is_listed_as_that() {
    let set = Set::new();
    fs_err::File::create(set.path("a/long.png")).unwrap().set_len(300 << 20).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("/dev/zero", set.path("a/zeros.png")).unwrap();
    let text = set.manifest().to_text();
    assert!(text.contains("too-long 314572800 a/long.png\n"), "{text}");
    #[cfg(unix)]
    assert!(text.contains("unreadable 0 a/zeros.png\n"), "{text}");
}

#[test]
fn names_of_any_bytes_stay_different_on_one_line() {
    assert_eq!(escaped(Path::new("caf\u{e9}/1 2.png")), "caf\u{e9}/1 2.png");
    assert_eq!(escaped(Path::new("a\\x\nb")), "a\\\\x\\nb");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(escaped(Path::new(std::ffi::OsStr::from_bytes(b"a\xe9"))), "a\\xe9");
    }
}

#[test]
fn a_folder_that_is_gone_is_an_error_and_a_published_set_that_is_not_there_has_none() {
    let gone = DataConfig {
        folder: FolderConfig { path: Some("/nowhere/at/all".into()), ..FolderConfig::default() },
        ..Set::new().config()
    };
    assert!(manifest(&gone).unwrap_err().to_string().contains("/nowhere/at/all"));
    let empty = tempfile::tempdir().unwrap();
    for name in ["cifar10", "stl10", "cub200-2011", "products", "cars196", "synthetic"] {
        let config = DataConfig {
            name: name.to_owned(),
            root: Some(empty.path().to_owned()),
            ..DataConfig::default()
        };
        assert_eq!(manifest(&config).unwrap(), None, "{name}");
        assert_eq!(recent_hash(&config).unwrap(), None, "{name}");
    }
}

#[test]
fn a_copy_that_is_not_the_published_one_has_a_manifest_of_its_lists_and_images() {
    let root = tempfile::tempdir().unwrap();
    let folder = birds(root.path(), &[10, 150]);
    let config = DataConfig {
        name: "cub200-2011".to_owned(),
        root: Some(root.path().to_owned()),
        ..DataConfig::default()
    };
    let first = manifest(&config).unwrap().unwrap();
    assert_eq!(first.len(), 6 + 3);
    assert!(first.to_text().contains(" images/010.Bird_of_10/Bird_0001.jpg\n"));
    let labels = folder.join("image_class_labels.txt");
    fs_err::write(&labels, fs_err::read_to_string(&labels).unwrap().replace("1 10\n", "1 11\n")).unwrap();
    let changes = first.changes(&manifest(&config).unwrap().unwrap());
    assert_eq!(changes.to_string(), "1 changed (image_class_labels.txt)");

    let root = tempfile::tempdir().unwrap();
    Miniature::new(10).binary_archive(root.path());
    let config = DataConfig {
        name: "cifar10".to_owned(),
        root: Some(root.path().to_owned()),
        ..DataConfig::default()
    };
    let found = manifest(&config).unwrap().unwrap();
    assert!(found.len() == 1 && found.to_text().ends_with(" cifar-10-binary.tar.gz\n"));
}

#[test]
fn a_published_copy_has_none_and_is_looked_at_once() {
    let set = Set::new();
    let published = std::cell::Cell::new(true);
    let asked = std::cell::Cell::new(0);
    let ask = || {
        let copy = SetCopy {
            folder: set.0.path().to_owned(),
            files: ["a/1.png", "a/2.png"].map(PathBuf::from).to_vec(),
            part: String::new(),
            of_images: true,
            is_published: Box::new(|| {
                asked.set(asked.get() + 1);
                published.get()
            }),
        };
        of_copy(&copy, None)
    };
    assert_eq!((ask(), asked.get()), (None, 1));
    set.age();
    assert_eq!((ask(), asked.get()), (None, 1), "the note remembers");
    published.set(false);
    set.put("a/2.png", "changed");
    let found = ask().unwrap();
    assert_eq!((found.files.len(), asked.get()), (2, 2));
    let expected = Set::new();
    expected.put("a/2.png", "changed");
    assert_eq!(found.files[..], expected.manifest().files[..2], "hashes of both");
}

#[test]
fn a_set_with_other_images_than_its_config_tells_of_says_so() {
    let set = tempfile::tempdir().unwrap();
    for name in ["a/1.png", "a/2.png"] {
        let path = set.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, crate::sample::png((8, 8), |_, _| [1, 2, 3])).unwrap();
    }
    let config = |manifest| DataConfig {
        name: "folder".to_owned(),
        folder: FolderConfig { path: Some(set.path().to_owned()), image_size: 8, ..FolderConfig::default() },
        manifest,
        ..DataConfig::default()
    };
    let hash = manifest(&config(None)).unwrap().unwrap().hash();
    assert_eq!(crate::open(&config(Some(hash.clone()))).unwrap().notes, [""; 0]);
    fs_err::write(set.path().join("a/3.png"), crate::sample::png((8, 8), |_, _| [1, 2, 3])).unwrap();
    let notes = crate::open(&config(Some(hash.clone()))).unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains(&format!("expected {hash}")), "{notes:?}");
}

#[test]
#[ignore = "makes 50,000 files; prints how long a set of that size takes to be read, and to be looked at again"]
fn a_large_set_is_read_once() {
    let set = Set::new();
    for number in 0..50_000 {
        set.put(&format!("c{}/{number}.png", number % 10), &"x".repeat(20_000));
    }
    let timed = || {
        let began = Instant::now();
        (set.manifest().hash(), began.elapsed())
    };
    let (first, reading) = timed();
    set.age();
    let (again, looking) = timed();
    println!("50,000 files of 20 kB: read in {reading:?}, looked at in {looking:?}");
    assert!(first == again && looking < reading);
}
