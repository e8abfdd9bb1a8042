//! Files that are damaged, too large, or something else.

use proptest::prelude::*;
use safetensors::tensor::Dtype;
use zip::CompressionMethod;

use super::{Folder, array, floats, npy, npz, open};
use crate::embeddings::{Scaling, write};
use crate::methods::Features;

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
    // The header announces eight gigabytes; the file holds one megabyte, and no more is allocated.
    let liar = npy("<f4", false, "(2000000000,)", &vec![0; 1 << 20]);
    let liar = npz(&[("embeddings.npy", &liar)], CompressionMethod::Deflated);
    let error = open(&liar).unwrap().array("embeddings", u64::MAX).unwrap_err();
    assert_eq!(error, "an array that says it is float32 (2000000000,) and has 1048576 bytes of elements");
    let text = npz(&[("labels.npy", b"text")], CompressionMethod::Stored);
    let error = open(&text).unwrap().array("labels", u64::MAX).unwrap_err();
    assert_eq!(error, "bytes that numpy.save did not write");
}

/// Any changed byte of an array in an archive is noticed, packed or not, at the latest by the archive's
/// checksum.
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

/// safetensors has no checksum, but the files of a run carry a digest.
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
    // A sparse file, which takes no room on the disk.
    let file = std::fs::OpenOptions::new().write(true).open(folder.path("many.npy")).unwrap();
    file.set_len(header.len() as u64 + (1 << 32)).unwrap();
    folder.put("l.txt", b"1\n");
    let error = folder.with_labels("many.npy", "l.txt").unwrap_err().to_string();
    assert!(error.contains("4294967296 rows, expected at most 4294967295"), "{error}");
}

/// Opening a pipe that nobody writes to would wait forever.
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

proptest! {
    /// Reading a file with a changed byte, or a truncated file, always ends.
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
}
