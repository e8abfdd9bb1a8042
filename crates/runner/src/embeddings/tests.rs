//! Files of each form, as numpy and safetensors write them, and what is told of others.

#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking; the values compared are exact"
)]

use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::array::Array;
use super::container::Container;
use super::{Classes, ClassesError, Embedded, EmbeddingsError, Labels, Scaling, Source, read, write};
use crate::methods::Features;

/// A `.npy` file of version 1, its header padded to 64 bytes as numpy's is.
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
    // As numpy's, which leave room for lengths of 64 bits.
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

/// The array of a `.npy` file.
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

/// What numpy and Python wrote: `samples.py`.
fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/numpy").join(name)
}

fn numbers(labels: &[i128]) -> Labels {
    Labels::Numbers(labels.to_vec())
}

fn words(labels: &[&str]) -> Labels {
    Labels::Words(labels.iter().map(|&word| word.to_owned()).collect())
}

/// The labels of an array of two, or of as many as `shape` says.
fn labels_of(descr: &str, shape: &str, bytes: &[u8]) -> Result<Labels, String> {
    Labels::from_array(&array(&npy(descr, false, shape, bytes)).unwrap()).map_err(|problem| problem.found)
}

#[test]
fn numbers_of_every_type_are_read() {
    let f = |descr: &str, bytes: &[u8]| {
        let array = array(&npy(descr, false, "(2,)", bytes)).unwrap();
        [0, 1].map(|row| array.number(row, 0, 2, 1))
    };
    let i = |descr: &str, bytes: &[u8]| labels_of(descr, "(2,)", bytes).unwrap();
    assert_eq!(f("<f4", &floats(&[1.5, -2.0])), [1.5, -2.0]);
    assert_eq!(f(">f4", &[1.5_f32.to_be_bytes(), 2.0_f32.to_be_bytes()].concat()), [1.5, 2.0]);
    assert_eq!(f("<f8", &doubles(&[1e-300, -2.0])), [1e-300, -2.0]);
    assert_eq!(f("<f2", &[0x00, 0x3e, 0x00, 0xc0]), [1.5, -2.0]);
    assert_eq!(f("<i2", &[1, 0, 0xff, 0xff]), [1.0, -1.0]);
    assert_eq!(i("|i1", &[0xff, 127]), numbers(&[-1, 127]));
    assert_eq!(i("|u1", &[0xff, 127]), numbers(&[255, 127]));
    assert_eq!(i("|b1", &[1, 0]), numbers(&[1, 0]));
    assert_eq!(i("<i4", &[7, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]), numbers(&[7, -2]));
    assert_eq!(
        i("<i8", &[5_i64.to_le_bytes(), i64::MIN.to_le_bytes()].concat()),
        numbers(&[5, i64::MIN.into()])
    );
    assert_eq!(i(">u4", &[0, 0, 1, 0, 0x80, 0, 0, 0]), numbers(&[256, 1 << 31]));
    // Past what a number with a sign holds, and not the same as a negative one.
    assert_eq!(
        i("<u8", &[u64::MAX.to_le_bytes(), 1_u64.to_le_bytes()].concat()),
        numbers(&[u64::MAX.into(), 1])
    );
}

#[test]
fn columns_may_come_first_and_headers_be_of_other_versions() {
    let table = array(&npy("<f4", true, "(2, 3)", &floats(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]))).unwrap();
    let rows: Vec<f64> = (0..6).map(|i| table.number(i / 3, i % 3, 2, 3)).collect();
    assert_eq!(rows, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let header = b"{\"shape\": (2L, 1L), 'fortran_order': False, 'descr': '|u1'}";
    let mut file = b"\x93NUMPY\x03\x00".to_vec();
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header);
    file.extend([3, 9]);
    assert_eq!(Labels::from_array(&array(&file).unwrap()).unwrap(), numbers(&[3, 9]));
}

#[test]
fn labels_may_be_words_booleans_and_whole_floats_of_any_shape_with_one_long_axis() {
    let label = |descr: &str, bytes: &[u8]| labels_of(descr, "(2,)", bytes);
    let letters = |text: &str| text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(label("<U3", &letters("catéé\0")).unwrap(), words(&["cat", "éé"]));
    assert_eq!(label(">U1", &[0, 0, 0, b'a', 0, 1, 0xf6, 0]).unwrap(), words(&["a", "😀"]));
    assert_eq!(label("|S2", b"a\0bc").unwrap(), words(&["a", "bc"]));
    assert_eq!(label("<f8", &doubles(&[-0.0, 3.0])).unwrap(), numbers(&[0, 3]));
    assert_eq!(label("<f4", &floats(&[1.5, 3.0])).unwrap_err(), "the label 1.5 of row 0, counted from 0");
    assert_eq!(
        label("<f8", &doubles(&[1.0, f64::NAN])).unwrap_err(),
        "the label NaN of row 1, counted from 0"
    );
    assert!(label("<f8", &doubles(&[1.0, f64::INFINITY])).unwrap_err().contains("infinity of row 1"));
    assert!(label("|S2", b"a\0\xffc").unwrap_err().contains("row 1 whose bytes are no text"));
    for shape in ["(2, 1)", "(1, 2)", "(2, 1, 1)"] {
        assert_eq!(labels_of("|u1", shape, &[4, 5]).unwrap(), numbers(&[4, 5]), "{shape}");
    }
    assert_eq!(labels_of("|u1", "()", &[4]).unwrap(), numbers(&[4]));
    assert_eq!(labels_of("|u1", "(2, 3)", &[0; 6]).unwrap_err(), "labels of the shape (2, 3)");
}

#[test]
fn what_is_no_array_of_numbers_is_told() {
    let told = |file: &[u8]| array(file).unwrap_err();
    assert_eq!(told(b""), "an empty file");
    assert_eq!(told(b"1,2\x1b"), "a file that begins with \"1,2\\x1b\"");
    assert_eq!(told(b"\x89HDF\r\n\x1a\n"), "an HDF5 file");
    assert_eq!(told(b"\x80\x04\x95"), "a Python pickle, which is never run");
    assert!(told(b"PK\x03\x04").starts_with("a damaged archive"));
    assert_eq!(told(b"\x93NUMPY\x01\x00\x46"), "a file that ends in its header");
    assert!(told(b"\x93NUMPY\x09\x00\x46\x00").starts_with("version 9 of numpy's format"));
    assert!(told(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").starts_with("a header of 4294967295 bytes"));
    assert!(told(&npy("|O", false, "(2,)", b"")).starts_with("Python objects, which are pickled"));
    assert!(told(&npy("<c8", false, "(1,)", &[0; 8])).starts_with("elements of the type <c8"));
    let fields = b"{'descr': [('a', '<f4'), ('b', '<i2', (2,))], 'fortran_order': False, 'shape': (1,), }\n";
    let file = [b"\x93NUMPY\x01\x00".as_slice(), &(fields.len() as u16).to_le_bytes(), fields].concat();
    assert!(told(&file).starts_with("elements of the type the fields [('a', '<f4')"), "{}", told(&file));
    assert_eq!(
        told(&npy("<f4", false, "(3,)", &[0; 8])),
        "an array that says it is float32 (3,) and has 8 bytes of elements"
    );
    let huge = format!("({}, {})", u64::MAX, u64::MAX);
    assert!(told(&npy("<f4", false, &huge, &[])).ends_with("has 0 bytes of elements"));
    assert!(told(&npy("<f4", false, "(2, -1)", &[])).starts_with("the header"));
}

#[test]
fn archives_may_shrink_as_far_as_they_do_and_bytes_are_what_is_limited() {
    let collapsed = npy("<f4", false, "(1000, 250)", &floats(&vec![1.0; 250_000]));
    for compression in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let file = npz(&[("embeddings.npy", &collapsed), ("notes.txt", b"not an array")], compression);
        let mut container = open(&file).unwrap();
        assert_eq!(container.names(), ["embeddings"]);
        let array = container.array("embeddings", 1_000_000).unwrap();
        assert_eq!(array.bytes.len(), 1_000_000);
        let error = container.array("embeddings", 999_999).unwrap_err();
        assert_eq!(error, "1000000 bytes to hold in memory, where 999999 are free");
    }
    // Eight gigabytes are announced, a megabyte is there, and no more is taken.
    let liar = npy("<f4", false, "(2000000000,)", &[0; 1 << 20]);
    let liar = npz(&[("embeddings.npy", &liar)], CompressionMethod::Deflated);
    let error = open(&liar).unwrap().array("embeddings", u64::MAX).unwrap_err();
    assert_eq!(error, "an array that says it is float32 (2000000000,) and has 1048576 bytes of elements");
    let text = npz(&[("labels.npy", b"text")], CompressionMethod::Stored);
    let error = open(&text).unwrap().array("labels", u64::MAX).unwrap_err();
    assert_eq!(error, "bytes that numpy.save did not write");
}

/// Any changed byte of an array in an archive is noticed, packed or not, by the archive's own checksum if by nothing else.
#[test]
fn damage_in_an_archive_is_noticed() {
    let values: Vec<f32> = (0..64_u32).map(|i| (i as f32).sin()).collect();
    let member = npy("<f4", false, "(8, 8)", &floats(&values));
    for compression in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let whole = npz(&[("embeddings.npy", &member)], compression);
        assert!(open(&whole).unwrap().array("embeddings", u64::MAX).is_ok());
        let data = if compression == CompressionMethod::Stored { 200 } else { 120 };
        for at in data..data + 100 {
            let mut file = whole.clone();
            file[at] ^= 4;
            let read = open(&file).and_then(|mut file| file.array("embeddings", u64::MAX));
            assert!(read.is_err(), "{compression:?}, byte {at}");
        }
    }
}

/// safetensors has no checksum, but what a run writes has a digest of its own.
#[test]
fn damage_in_a_runs_embeddings_is_noticed_at_every_byte() {
    let folder = Folder::new();
    let features = Features { values: vec![3.0, 4.0, 0.5, 0.0, -1.0, 0.0], dim: 2 };
    write(&folder.path("run.safetensors"), &features, &[7, 9, 7], &"where it comes from").unwrap();
    let whole = std::fs::read(folder.path("run.safetensors")).unwrap();
    assert!(folder.read("run.safetensors", Scaling::Unscaled).is_ok());
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        folder.put("run.safetensors", &damaged);
        let error = folder.told("run.safetensors");
        assert!(
            error.contains("run.safetensors: found") && !error.contains("checkpoint"),
            "byte {at}: {error}"
        );
    }
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    folder.put("run.safetensors", &damaged);
    let error = folder.told("run.safetensors");
    assert!(error.contains("damaged safetensors: contents with the BLAKE3 digest"), "{error}");
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
    // Their numbers are too small for single precision unless they are scaled.
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
fn safetensors_of_every_type_are_read() {
    let folder = Folder::new();
    let rows = floats(&[1.0, 2.0, 3.0, 4.0]);
    let types: [(Dtype, &[u8], [i128; 2]); 9] = [
        (Dtype::I8, &[0xff, 3], [-1, 3]),
        (Dtype::U8, &[0xff, 3], [255, 3]),
        (Dtype::I16, &[0xff, 0xff, 3, 0], [-1, 3]),
        (Dtype::U16, &[0xff, 0xff, 3, 0], [65535, 3]),
        (Dtype::I32, &[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0], [-1, 3]),
        (Dtype::U32, &[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0], [u32::MAX as i128, 3]),
        (Dtype::I64, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0, 0, 0, 0, 0], [-1, 3]),
        (
            Dtype::U64,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0, 0, 0, 0, 0],
            [u64::MAX as i128, 3],
        ),
        (Dtype::BOOL, &[1, 0], [1, 0]),
    ];
    for (dtype, bytes, expected) in types {
        folder
            .tensors("t.safetensors", &[("features", Dtype::F32, &[2, 2], &rows), ("y", dtype, &[2], bytes)]);
        let found = folder.read("t.safetensors", Scaling::Unscaled).unwrap();
        assert_eq!(found.labels, numbers(&expected), "{dtype:?}");
        assert_eq!(found.origin.embeddings.name.as_deref(), Some("features"));
    }
    let halves: [(Dtype, &[u8]); 2] = [
        (Dtype::F16, &[0, 0x3c, 0, 0x40, 0, 0x42, 0, 0x44]),
        (Dtype::BF16, &[0x80, 0x3f, 0, 0x40, 0x40, 0x40, 0x80, 0x40]),
    ];
    for (dtype, bytes) in halves {
        folder.tensors(
            "h.safetensors",
            &[("embs", dtype, &[2, 2], bytes), ("labels", Dtype::U8, &[2], &[1, 2])],
        );
        let found = folder.read("h.safetensors", Scaling::Unscaled).unwrap();
        assert_eq!(found.features.values, [1.0, 2.0, 3.0, 4.0], "{dtype:?}");
    }
    folder.tensors(
        "8.safetensors",
        &[("embs", Dtype::F8_E4M3, &[2, 2], &[0; 4]), ("labels", Dtype::U8, &[2], &[1, 2])],
    );
    assert!(folder.told("8.safetensors").contains("elements of the type F8_E4M3"));
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
        folder.told("many.npz").ends_with("\"image_19\" float32 (1, 1) and 10 more"),
        "{}",
        folder.told("many.npz")
    );
    put("none.npz", &[]);
    assert!(folder.told("none.npz").ends_with("found no array for the embeddings; it has no arrays"));
}

/// Scaled in double precision, rows far out of single precision's range are the rows they are multiples of.
#[test]
fn rows_out_of_single_precision_are_scaled_before_they_are_narrowed() {
    let folder = Folder::new();
    let base = [3.0_f64, 4.0, -1.0, 0.5, 1e-3, 2.0, 0.0, -7.0];
    let put = |name: &str, values: &[f64]| {
        let (rows, labels) =
            (npy("<f8", false, "(4, 2)", &doubles(values)), npy("|u1", false, "(4,)", &[1, 1, 2, 2]));
        folder.put(
            name,
            &npz(&[("embeddings.npy", &rows), ("labels.npy", &labels)], CompressionMethod::Stored),
        );
    };
    let expected: Vec<f32> = base
        .chunks_exact(2)
        .flat_map(|row| [row[0] / row[0].hypot(row[1]), row[1] / row[0].hypot(row[1])])
        .map(|value| value as f32)
        .collect();
    for factor in [1.0, 1e-50, 1e39, 1e-300, 1e307, 1e-320] {
        put("f.npz", &base.map(|value| value * factor));
        let found = folder.read("f.npz", Scaling::UnitLength).unwrap();
        // The last factor leaves numbers without most of their digits.
        let tolerance = if factor == 1e-320 { 1e-3 } else { 1e-7 };
        for (value, expected) in found.features.values.iter().zip(&expected) {
            assert!((value - expected).abs() <= tolerance, "{factor}: {value} for {expected}");
        }
    }
    put("tiny.npz", &base.map(|value| value * 1e-50));
    assert!(folder.told("tiny.npz").contains("found 4e-50 as the largest number of row 0 (column 1"));
    put("huge.npz", &base.map(|value| value * 1e39));
    let error = folder.told("huge.npz");
    assert!(error.contains("4e39") && error.contains("at most 3.4028235e38"), "{error}");
}

#[test]
fn numbers_that_are_not_finite_are_called_what_they_are_and_where() {
    let folder = Folder::new();
    for (value, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "infinity"), (f64::NEG_INFINITY, "-infinity")] {
        let rows = npy("<f8", false, "(3, 2)", &doubles(&[1.0, 2.0, 3.0, value, f64::NAN, 1.0]));
        let labels = npy("|u1", false, "(3,)", &[1, 1, 2]);
        folder.put(
            "x.npz",
            &npz(&[("embeddings.npy", &rows), ("labels.npy", &labels)], CompressionMethod::Stored),
        );
        for scaling in [Scaling::UnitLength, Scaling::Unscaled] {
            let error = folder.read("x.npz", scaling).unwrap_err().to_string();
            let expected = format!(
                "x.npz: found {word} in row 1, column 1 of the embeddings, both counted from 0 (2 of 3 rows"
            );
            assert!(error.contains(&expected), "{error}");
        }
    }
}

/// The root of the mean square distance from the mean, in units of the rows' length, as numpy computes it.
#[test]
fn the_spread_of_rows_is_measured_without_cancellation() {
    let folder = Folder::new();
    let spread = |rows: &[f64]| {
        let rows = npy("<f8", false, "(4, 2)", &doubles(rows));
        folder.put("s.npy", &rows);
        folder.put("l.txt", b"a\na\nb\nb\n");
        folder.with_labels("s.npy", "l.txt").unwrap().facts.spread
    };
    assert_eq!(spread(&[1.0; 8]), 0.0);
    assert!((spread(&[1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0]) - 1.0).abs() < 1e-12);
    // Offsets of 1e-6 each way about (1e3, 1e3), whose length is 1e3 √2.
    let near = [1e3 + 1e-6, 1e3, 1e3 - 1e-6, 1e3, 1e3, 1e3 + 1e-6, 1e3, 1e3 - 1e-6];
    let expected = 1e-6 / (1e3 * 2.0_f64.sqrt());
    assert!((spread(&near) / expected - 1.0).abs() < 1e-3);
}

#[test]
fn a_file_of_something_else_is_named() {
    let folder = Folder::new();
    assert!(folder.told("none.npz").contains("none.npz"));
    folder.tensors("w.safetensors", &[("embeddings", Dtype::F32, &[1, 2], &floats(&[1.0, 2.0]))]);
    let error = folder.told("w.safetensors");
    assert!(
        error.contains("w.safetensors: found no array for the labels; it has \"embeddings\" float32 (1, 2)"),
        "{error}"
    );
    folder.put("e.npy", &npy("<f4", false, "(1, 2)", &floats(&[1.0, 2.0])));
    assert!(folder.told("e.npy").contains("found one array and no file of labels"));
    folder.put("two.npy", &npy("|u1", false, "(2,)", &[1, 2]));
    let with = |file: &str, labels: &str| folder.with_labels(file, labels).map_err(|error| error.to_string());
    let error = with("e.npy", "two.npy").unwrap_err();
    assert!(error.starts_with("found 2 labels of 1 embeddings, expected one label a row"), "{error}");
    assert!(
        error.contains("two.npy has the shape (2,)") && error.contains("e.npy the shape (1, 2)"),
        "{error}"
    );
    assert!(
        with("two.npy", "two.npy").unwrap_err().contains("embeddings of the shape (2,), expected (n, D)")
    );
    assert!(with("e.npy", "e.npy").unwrap_err().contains("found 2 labels of 1 embeddings"));
    folder.put("e.csv", b"1,2");
    let error = folder.told("e.csv");
    assert!(error.contains("a file that begins with \"1,2\", expected a whole .npz or .npy file"), "{error}");
    folder.put("gap.txt", b"1\n\n2\n");
    assert!(with("e.npy", "gap.txt").unwrap_err().contains("gap.txt: found nothing in line 2"));
    assert!(with("e.npy", "none.txt").unwrap_err().contains("none.txt"));
    folder.put("image.jpg", b"\xff\xd8\xff\xe0");
    assert!(with("e.npy", "image.jpg").unwrap_err().contains("begins with \"\\xff\\xd8\\xff\\xe0\""));
    folder.put("cube.npy", &npy("<f4", false, "(2, 2, 2)", &[0; 32]));
    assert!(with("cube.npy", "two.npy").unwrap_err().contains("embeddings.reshape(len(embeddings), -1)"));
    folder.put("pooled.npy", &npy("<f4", false, "(2, 2, 1, 1)", &floats(&[1.0, 2.0, 3.0, 4.0])));
    assert_eq!(with("pooled.npy", "two.npy").unwrap().features.values, [1.0, 2.0, 3.0, 4.0]);
    assert!(folder.told(".").contains("found a folder, expected a file"));
}

#[test]
fn more_rows_than_are_counted_are_refused_by_the_header() {
    let folder = Folder::new();
    let header = npy("|i1", false, "(4294967296, 1)", &[]);
    folder.put("many.npy", &header);
    // A file of holes, which takes no room on the disk.
    let file = std::fs::OpenOptions::new().write(true).open(folder.path("many.npy")).unwrap();
    file.set_len(header.len() as u64 + (1 << 32)).unwrap();
    folder.put("l.txt", b"1\n");
    let error = folder.with_labels("many.npy", "l.txt").unwrap_err().to_string();
    assert!(error.contains("4294967296 rows, expected at most 4294967295"), "{error}");
}

/// A pipe that nobody writes to would be waited for.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_at_once() {
    let folder = Folder::new();
    let made = std::process::Command::new("mkfifo").arg(folder.path("x.npz")).status().unwrap();
    assert!(made.success());
    assert!(folder.told("x.npz").contains("x.npz: found a pipe, a device or a socket, expected a file"));
    std::os::unix::fs::symlink("/dev/zero", folder.path("z.npz")).unwrap();
    assert!(folder.told("z.npz").contains("a pipe, a device or a socket"));
}

#[test]
fn labels_of_text_are_numbers_if_all_are() {
    let from = |text: &str| Labels::from_text(text.as_bytes()).unwrap().unwrap();
    assert_eq!(from("3\n-1\n"), numbers(&[3, -1]));
    assert_eq!(from("3.000000000000000000e+00\n1.0\n"), numbers(&[3, 1]));
    assert_eq!(from("\u{feff}red fox\nnan\n"), words(&["red fox", "nan"]));
    assert_eq!(from("3\nb\n"), words(&["3", "b"]));
    assert_eq!(Labels::from_text(&b"a\0b"[..]).unwrap(), None);
    assert!(Labels::from_text(&b"1.5\n2.5\n"[..]).unwrap_err().found.contains("the label 1.5 of row 0"));
}

#[test]
fn the_same_label_is_the_same_class_in_both() {
    let both = Classes::number(&numbers(&[9, -3, 9]), Some(&numbers(&[5, 9]))).unwrap();
    assert_eq!((&both.test, &both.gallery), (&vec![2, 0, 2], &Some(vec![1, 2])));
    assert_eq!((both.labels.clone(), both.count(), both.without_match()), (numbers(&[-3, 5, 9]), 3, 1));
    let alone = Classes::number(&words(&["b", "a", "b"]), None).unwrap();
    assert_eq!((&alone.test, &alone.gallery, alone.without_match()), (&vec![1, 0, 1], &None, 1));
    assert_eq!(Classes::number(&words(&["9"]), Some(&numbers(&[9]))), Err(ClassesError::Unlike));
    // A number past 2^63 is no negative one.
    let wide = Classes::number(&numbers(&[u64::MAX.into()]), Some(&numbers(&[-1]))).unwrap();
    assert_eq!((wide.count(), wide.without_match()), (2, 1));
}

proptest! {
    /// Whatever bytes a file is changed in or cut to, reading it ends.
    #[test]
    fn damaged_files_end_in_an_error_or_an_array(cut in 0..100_usize, at in 0..100_usize, byte: u8) {
        let mut file = npy("<f4", false, "(1, 2)", &floats(&[1.0, 2.0]));
        let length = file.len();
        file[at * (length - 1) / 99] = byte;
        file.truncate(length - cut * length / 200);
        if let Ok(array) = array(&file) {
            prop_assert!(array.count() <= 8);
        }
    }

    /// Rows of any size come out with length 1, and multiples of a power of two as the same bits.
    #[test]
    fn rows_of_any_size_have_length_one(
        row in prop::collection::vec(-1e3..1e3_f64, 1..20), exponent in -900..900_i32,
    ) {
        prop_assume!(row.iter().any(|value| value.abs() > 1e-3));
        let scaled = |factor: f64| {
            let row: Vec<f64> = row.iter().map(|value| value * factor).collect();
            let shape = format!("(1, {})", row.len());
            let array = array(&npy("<f8", false, &shape, &doubles(&row))).unwrap();
            super::rows::rows(&array, Scaling::UnitLength).unwrap().0.values
        };
        let values = scaled(1.0);
        let length: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        prop_assert!((length - 1.0).abs() < 1e-6);
        prop_assert_eq!(&scaled(2.0_f64.powi(exponent)), &values);
        // What the rows were scaled by before: the same bits.
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        prop_assert_eq!(values, row.iter().map(|value| (value / norm) as f32).collect::<Vec<_>>());
    }
}
