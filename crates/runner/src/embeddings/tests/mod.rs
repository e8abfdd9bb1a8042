//! Tests of files in each format that numpy and safetensors write, and of the errors for other files.

#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking; the values compared are exact"
)]

mod columns;
mod damage;
mod elements;
mod narrowing;

use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::array::Array;
use super::container::Container;
use super::{Embedded, EmbeddingsError, Labels, Scaling, Source, read, write};
use crate::methods::Features;

/// Returns a `.npy` file of version 1, whose header is padded to 64 bytes like numpy's.
fn npy(descr: &str, columns_first: bool, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let order = if columns_first { "True" } else { "False" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - header.len() - 1));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((length as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(numbers);
    file
}

fn npz(members: &[(&str, &[u8])], compression: CompressionMethod) -> Vec<u8> {
    // Like numpy's archives, which leave room for lengths of 64 bits.
    let options = SimpleFileOptions::default().compression_method(compression).large_file(true);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn open(file: &[u8]) -> Result<Container<Cursor<&[u8]>>, String> {
    Container::open(Cursor::new(file), file.len() as u64, u64::MAX)
}

/// Returns the array of a `.npy` file.
fn array(file: &[u8]) -> Result<Array, String> {
    open(file)?.array("", u64::MAX)
}

/// A folder of files.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn tensors(&self, name: &str, tensors: &[(&str, Dtype, &[usize], &[u8])]) {
        let views: HashMap<_, _> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
            })
            .collect();
        self.put(name, &safetensors::serialize(views, None).unwrap());
    }

    fn read(&self, name: &str, scaling: Scaling) -> Result<Embedded, EmbeddingsError> {
        read(&Source { scaling, ..Source::of(&self.path(name)) })
    }

    fn with_labels(&self, name: &str, labels: &str) -> Result<Embedded, EmbeddingsError> {
        read(&Source { labels: Some(&self.path(labels)), ..Source::of(&self.path(name)) })
    }

    fn told(&self, name: &str) -> String {
        self.read(name, Scaling::Unscaled).unwrap_err().to_string()
    }
}

/// Returns the path of a file that `samples.py` wrote with numpy.
fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/numpy").join(name)
}

fn numbers(labels: &[i128]) -> Labels {
    Labels::Numbers(labels.to_vec())
}

fn words(labels: &[&str]) -> Labels {
    Labels::Words(labels.iter().map(|&word| word.to_owned()).collect())
}

/// Reads the labels of an array with this type, shape and bytes.
fn labels_of(descr: &str, shape: &str, bytes: &[u8]) -> Result<Labels, String> {
    Labels::from_array(&array(&npy(descr, false, shape, bytes)).unwrap()).map_err(|problem| problem.found)
}

#[test]
fn numpys_own_files_are_read_with_other_arrays_beside() {
    let people = sample("seed_people.npz");
    let found = read(&Source { scaling: Scaling::UnitLength, ..Source::of(&people) }).unwrap();
    assert_eq!(found.labels, words(&["bird", "cat", "bird"]));
    let row = |a: f64, b: f64| [(a / a.hypot(b)) as f32, (b / a.hypot(b)) as f32];
    assert_eq!(found.features.values, [row(0.0, 1.0), row(2.0, 3.0), row(4.0, 5.0)].concat());
    assert_eq!(found.origin.embeddings.to_string(), "embeddings float64 (3, 2)");
    assert_eq!(found.origin.labels.to_string(), "labels <U4 (3,)");

    let other = |label_name| read(&Source { label_name: Some(label_name), ..Source::of(&people) });
    // The embeddings' numbers are too small for single precision unless they are scaled.
    assert!(other("codes").unwrap_err().to_string().contains("as the largest number of row 0"));
    let error = other("meta").unwrap_err().to_string();
    assert!(
        error.contains("for \"meta\" Python objects") && error.contains("allow_pickle is never used"),
        "{error}"
    );
    assert!(other("fields").unwrap_err().to_string().contains("elements of the type the fields"));
    let error = other("classes").unwrap_err().to_string();
    for part in [
        "no array \"classes\" for the labels; it has \"codes\" |S2 (3,), \"count\" int64 (), \"embeddings\" float64 (3, 2)",
        "\"fields\" the fields [('a', '<f4'), ('b', '<i2')] (2,)",
        "\"meta\" object ()",
        "\"paths\" <U7 (3,)",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }

    for name in ["seed.npz", "seed_packed.npz", "seed_zip64.npz"] {
        let found = read(&Source::of(&sample(name))).unwrap();
        assert_eq!(found.features.values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{name}");
        assert_eq!(found.labels, numbers(&[1, 2, 1]), "{name}");
    }
    let error = read(&Source::of(&sample("seed_bzip2.npz"))).unwrap_err().to_string();
    assert!(error.contains("packed by Bzip2") || error.contains("packed by"), "{error}");
    assert!(error.contains("numpy.savez_compressed"), "{error}");
    let error = read(&Source::of(&sample("seed_positional.npz"))).unwrap_err().to_string();
    assert!(error.contains("it has \"arr_0\" float32 (3, 2), \"arr_1\" int64 (3,)"), "{error}");
    let positional = sample("seed_positional.npz");
    let named = Source { name: Some("arr_0"), label_name: Some("arr_1"), ..Source::of(&positional) };
    assert_eq!(read(&named).unwrap().labels, numbers(&[1, 2, 1]));
}

#[test]
fn the_forms_hold_the_same_whatever_they_are_called() {
    let folder = Folder::new();
    let features = Features { values: vec![3.0, 4.0, 0.0, 0.0, -1.0, 0.0], dim: 2 };
    let (embeddings, labels) = (
        npy("<f4", false, "(3, 2)", &floats(&features.values)),
        npy("<i4", false, "(3,)", &[7, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0]),
    );
    write(&folder.path("a.safetensors"), &features, &[7, 9, 7], &"where it comes from").unwrap();
    let members = [("embeddings.npy", &embeddings[..]), ("labels.npy", &labels)];
    folder.put("a.npz", &npz(&members, CompressionMethod::Deflated));
    folder.put("a.npy", &embeddings);
    folder.put("l.npy", &labels);
    folder.put("l.txt", b"7\r\n9\r\n7\r\n");
    std::fs::copy(folder.path("a.npz"), folder.path("A.NPZ")).unwrap();
    std::fs::copy(folder.path("a.npz"), folder.path("none")).unwrap();
    std::fs::copy(folder.path("a.safetensors"), folder.path("wrong.npz")).unwrap();
    let files = [
        ("a.safetensors", None),
        ("a.npz", None),
        ("A.NPZ", None),
        ("none", None),
        ("wrong.npz", None),
        ("a.npy", Some("l.npy")),
        ("a.npy", Some("l.txt")),
        ("a.npy", Some("a.npz")),
        ("a.npz", Some("l.npy")),
    ];
    for (file, labels) in files {
        let labels = labels.map(|name| folder.path(name));
        let found = |scaling| {
            read(&Source { labels: labels.as_deref(), scaling, ..Source::of(&folder.path(file)) }).unwrap()
        };
        assert_eq!(found(Scaling::Unscaled).features.values, features.values, "{file}");
        let scaled = found(Scaling::UnitLength);
        assert_eq!(
            (scaled.features.values, scaled.features.dim),
            (vec![0.6, 0.8, 0.0, 0.0, -1.0, 0.0], 2),
            "{file}"
        );
        assert_eq!(scaled.labels, numbers(&[7, 9, 7]), "{file}");
        assert_eq!((scaled.facts.zero_rows, scaled.facts.first_zero_row), (1, Some(1)), "{file}");
    }
}

#[test]
fn arrays_are_found_under_usual_names_or_the_name_that_is_given() {
    let folder = Folder::new();
    let (ones, twos) =
        (npy("<f4", false, "(1, 1)", &floats(&[1.0])), npy("<f4", false, "(1, 1)", &floats(&[2.0])));
    let label = npy("|u1", false, "(1,)", &[5]);
    let put =
        |name: &str, members: &[(&str, &[u8])]| folder.put(name, &npz(members, CompressionMethod::Stored));
    put("first.npz", &[("features.npy", &ones), ("embeddings.npy", &twos), ("y.npy", &label)]);
    let found = folder.read("first.npz", Scaling::Unscaled).unwrap();
    assert_eq!((found.features.values, found.labels), (vec![2.0], numbers(&[5])));
    put("two.npz", &[("features.npy", &ones), ("X.npy", &twos), ("y.npy", &label)]);
    let error = folder.told("two.npz");
    assert!(
        error.contains(
            "\"features\" float32 (1, 1) and \"X\" float32 (1, 1) where one array for the embeddings"
        ),
        "{error}"
    );
    let path = folder.path("two.npz");
    let named = |name| read(&Source { name: Some(name), ..Source::of(&path) }).unwrap().features.values;
    assert_eq!((named("features"), named("X")), (vec![1.0], vec![2.0]));
    put("both.npz", &[("X.npy", &ones), ("y.npy", &label), ("target.npy", &label)]);
    assert!(folder.told("both.npz").contains("where one array for the labels"));
    let many: Vec<String> = (0..30).map(|i| format!("image_{i:02}.npy")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &ones[..])).collect();
    put("many.npz", &many);
    assert!(
        folder.told("many.npz").ends_with("\"image_07\" float32 (1, 1) and 22 more"),
        "{}",
        folder.told("many.npz")
    );
    put("none.npz", &[]);
    assert!(folder.told("none.npz").ends_with("found no array for the embeddings; it has no arrays"));
}
