#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::ByteArray;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::{ImageStream, Sample, SampleLabel};
use crate::sample::png;
use crate::sample::shards::{hub, shard};

/// A picture of 2 x 2 pixels of one color.
fn picture(value: u8) -> Vec<u8> {
    png((2, 2), |_, _| [value; 3])
}

/// Reads all samples from `from` on: the name, the class, and the value of the first pixel or the error.
fn read(input: &str, from: u64) -> Vec<(String, Option<String>, Result<u8, String>)> {
    let mut found = Vec::new();
    let mut take = |sample: Sample| {
        let (name, label) = (sample.name.clone(), sample.label.as_ref().map(SampleLabel::to_string));
        let value = sample.decode().map(|image| image.pixels[0]).map_err(|error| error.to_string());
        found.push((name, label, value));
        true
    };
    ImageStream::open(input).unwrap().each(from, &mut take).unwrap();
    found
}

fn whole(name: &str, label: Option<&str>, value: u8) -> (String, Option<String>, Result<u8, String>) {
    (name.to_owned(), label.map(str::to_owned), Ok(value))
}

fn at(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_folder_has_classes_if_every_image_lies_in_one() {
    let folder = tempfile::tempdir().unwrap();
    for (number, name) in ["b/2.png", "a/1.png", "a/deep/0.png"].into_iter().enumerate() {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, picture(number as u8)).unwrap();
    }
    let input = at(&folder, "");
    let expected =
        [whole("a/1.png", Some("a"), 1), whole("a/deep/0.png", Some("a"), 2), whole("b/2.png", Some("b"), 0)];
    assert_eq!(read(&input, 0), expected);
    assert_eq!(read(&input, 2), expected[2..]);
    let stream = ImageStream::open(&input).unwrap();
    assert_eq!(stream.count().unwrap(), Some(3));
    let before = stream.fingerprint().unwrap();
    fs_err::write(folder.path().join("top.png"), b"no image").unwrap();
    fs_err::write(folder.path().join("notes.txt"), b"text").unwrap();
    let stream = ImageStream::open(&input).unwrap();
    assert_ne!(stream.fingerprint().unwrap(), before);
    assert!(
        stream.notes[0].contains("1 file was skipped") && stream.notes[1].contains("no classes"),
        "{:?}",
        stream.notes
    );
    let found = read(&input, 0);
    assert!(found[0].0 == "top.png" && found.iter().all(|(_, label, _)| label.is_none()), "{found:?}");
    let error = found[0].2.clone().unwrap_err();
    assert!(error.contains("top.png: found") && error.contains("skip_broken"), "{error}");
}

#[test]
fn a_list_names_images_relative_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::create_dir(folder.path().join("x")).unwrap();
    fs_err::write(folder.path().join("x/1.png"), picture(7)).unwrap();
    fs_err::write(folder.path().join("list.txt"), "x/1.png\r\n\nabsent.png\nx/1.png").unwrap();
    let found = read(&at(&folder, "list.txt"), 0);
    assert_eq!([&found[0], &found[2]], [&whole("x/1.png", None, 7), &whole("x/1.png", None, 7)]);
    assert!(found[1].2.clone().unwrap_err().contains("absent.png"));
    // The mark of the encoding that some editors write is no part of the first path.
    fs_err::write(folder.path().join("marked.txt"), "\u{feff}x/1.png\r\n").unwrap();
    assert_eq!(read(&at(&folder, "marked.txt"), 0), [whole("x/1.png", None, 7)]);
    for (name, content) in [("empty.txt", &b"\n"[..]), ("binary.txt", b"\xff\xfe")] {
        fs_err::write(folder.path().join(name), content).unwrap();
        let error = ImageStream::open(&at(&folder, name)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("a path in each line"), "{error}");
    }
}

#[test]
fn shards_give_the_samples_of_webdataset_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let pictures: Vec<Vec<u8>> = (0..4).map(picture).collect();
    shard(
        &folder.path().join("s-00.tar"),
        &[
            ("./d/0001.png", &pictures[0]),
            ("./d/0001.cls", b"3\n"),
            ("./d/0001.json", b"{\"label\": 3}"),
            ("d/0002.json", b"{\"cls\": \"cat\", \"x\": [1]}"),
            ("d/0002.seg.png", b"a mask is not the image"),
            ("d/0002.PNG", &pictures[1]),
            (".hidden.png", b"?"),
            ("d/lost.txt", b"a caption alone"),
        ],
    );
    shard(
        &folder.path().join("s-01.tar"),
        &[
            ("0003.png", &pictures[2]),
            ("0003.cls", b"dog"),
            ("two.png", &pictures[3]),
            ("two.jpg", &pictures[3]),
        ],
    );
    let input = at(&folder, "s-{00..01}.tar");
    let found = read(&input, 0);
    assert_eq!(found[..2], [whole("d/0001", Some("3"), 0), whole("d/0002", Some("cat"), 1)]);
    assert_eq!(found[3], whole("0003", Some("dog"), 2));
    for (number, words) in
        [(2, "s-00.tar: found the sample d/lost without an image"), (4, "the sample two with two images")]
    {
        let error = found[number].2.clone().unwrap_err();
        assert!(error.contains(words) && error.contains("skip_broken"), "{error}");
    }
    // From any position on, and in a folder of shards, the same samples come.
    for from in 0..=5 {
        assert_eq!(read(&input, from), found[from as usize..], "{from}");
    }
    assert_eq!(read(&at(&folder, ""), 0).len(), 5);
    assert_eq!(ImageStream::open(&input).unwrap().count().unwrap(), None);
}

#[test]
fn a_key_ends_at_the_first_dot_as_in_webdataset() {
    let folder = tempfile::tempdir().unwrap();
    let pictures: Vec<Vec<u8>> = (0..6).map(picture).collect();
    shard(
        &folder.path().join("s.tar"),
        &[
            ("v1.0/cat.v2.png", &pictures[0]),
            ("v1.0/cat.v2.cls", b"4"),
            ("v1.0/cat.v3.cls", b"another's"),
            ("v1.0/cow.v2.png", &pictures[1]),
            ("v1.0/cow.json", b"{\"label\": 7}"),
            ("dog.left.png", &pictures[2]),
            ("dog.right.png", &pictures[3]),
            ("emu.png", &pictures[4]),
            ("emu.v2.png", &pictures[5]),
            ("fox.JPG.TXT", b"no image"),
            ("fox.cls", b"1"),
        ],
    );
    let found = read(&at(&folder, "s.tar"), 0);
    assert_eq!(found[..2], [whole("v1.0/cat", Some("4"), 0), whole("v1.0/cow", Some("7"), 1)]);
    assert_eq!(found[3], whole("emu", None, 4));
    for (number, words) in [
        (2, "the sample dog with two images (dog.left.png and dog.right.png)"),
        (4, "the sample fox without an image (only .jpg.txt, .cls)"),
    ] {
        let error = found[number].2.clone().unwrap_err();
        assert!(error.contains(words) && error.contains("s.tar"), "{error}");
    }
    assert_eq!(found.len(), 5);
}

#[test]
fn a_class_that_cannot_be_understood_is_an_error_of_its_sample() {
    let folder = tempfile::tempdir().unwrap();
    let one = picture(1);
    let long = vec![b' '; (16 << 20) + 1];
    shard(
        &folder.path().join("s.tar"),
        &[
            ("0.png", &one),
            ("0.json", b"{\"caption\": \"a cat\"}"),
            ("1.json", b"{'label': 3}"),
            ("1.png", &one),
            ("2.png", &one),
            ("2.json", b"{\"label\": 2.5}"),
            ("3.png", &one),
            ("3.cls", b"3"),
            ("3.json", b"{\"label\": \"cat\"}"),
            ("4.png", &one),
            ("4.json", b"{\"label\": null}"),
            ("5.png", &one),
            ("5.json", &long),
        ],
    );
    let found = read(&at(&folder, "s.tar"), 0);
    // Images may have no class.
    assert_eq!([&found[0], &found[4]], [&whole("0", None, 1), &whole("4", None, 1)]);
    for (number, words) in [
        (1, "s.tar: found the sample 1 with 1.json, which is not JSON"),
        (2, "s.tar: found the sample 2 with the number 2.5 in the field \"label\" of 2.json"),
        (3, "s.tar: found the sample 3 with the class 3 in 3.cls and cat in 3.json"),
        (5, "s.tar: found the sample 5 with 5.json of 16777217 bytes, too long for a class"),
    ] {
        assert!(found[number].1.is_none());
        let error = found[number].2.clone().unwrap_err();
        assert!(error.contains(words) && error.contains("expected one class"), "{error}");
    }
}

#[test]
fn a_shard_that_was_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.tar");
    let (one, two) = (picture(1), picture(2));
    shard(&path, &[("1.png", &one), ("1.cls", b"0"), ("2.png", &two)]);
    let bytes = fs_err::read(&path).unwrap();
    // 1024 bytes of zeros end it, of which one block is enough.
    for length in (0..bytes.len() - 512).step_by(100).chain([1536, 2048]) {
        fs_err::write(&path, &bytes[..length]).unwrap();
        let mut names = Vec::new();
        let read = ImageStream::open(path.to_str().unwrap()).unwrap().each(0, &mut |sample| {
            names.push((sample.name.clone(), sample.decode().is_ok()));
            true
        });
        let all = names == [("1".to_owned(), true), ("2".to_owned(), true)];
        assert!(all || read.is_err(), "{length} of {}: {names:?}", bytes.len());
        if let Err(error) = read {
            assert!(error.to_string().contains("s.tar: found an archive"), "{error}");
        }
    }
}

#[test]
fn parquet_files_of_the_hub_give_their_rows_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let pictures: Vec<Vec<u8>> = (0..3).map(picture).collect();
    fs_err::create_dir(folder.path().join("data")).unwrap();
    hub(
        &folder.path().join("data/train-00000-of-00002.parquet"),
        &[(Some(&pictures[0]), "a.png", 4), (None, "elsewhere.png", 1), (Some(b"junk"), "c.png", 2)],
    );
    hub(&folder.path().join("data/train-00001-of-00002.parquet"), &[(Some(&pictures[2]), "", -1)]);
    let input = at(&folder, "");
    let found = read(&input, 0);
    assert_eq!(found[0], whole("a.png", Some("4"), 0));
    assert_eq!(found[3], whole("train-00001-of-00002.parquet#0", Some("-1"), 2));
    let errors = [found[1].2.clone().unwrap_err(), found[2].2.clone().unwrap_err()];
    assert!(errors[0].contains("train-00000-of-00002.parquet#1 without the bytes"), "{}", errors[0]);
    assert!(errors[1].contains("00000-of-00002.parquet: found the image c.png with"), "{}", errors[1]);
    for from in 0..=4 {
        assert_eq!(read(&input, from), found[from as usize..], "{from}");
    }
    let stream = ImageStream::open(&input).unwrap();
    assert_eq!(stream.count().unwrap(), Some(4));
    assert!(stream.notes[0].contains("column \"image\", classes from \"label\""), "{:?}", stream.notes);
    // Damage in a footer is an error when the file is opened.
    let path = folder.path().join("data/train-00001-of-00002.parquet");
    let bytes = fs_err::read(&path).unwrap();
    fs_err::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = ImageStream::open(&input).unwrap_err().to_string();
    assert!(error.contains("00001-of-00002.parquet: found a file that cannot be read on"), "{error}");
}

/// Writes a Parquet file of two images with classes of another type, which `write` writes.
fn with_classes(path: &std::path::Path, kind: &str, write: impl FnOnce(&mut ColumnWriter<'_>)) {
    let schema = format!("message schema {{ required binary image; required {kind}; }}");
    let schema = std::sync::Arc::new(parse_message_type(&schema).unwrap());
    let properties = std::sync::Arc::new(WriterProperties::builder().build());
    let file = fs_err::File::create(path).unwrap().into_file();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut images = group.next_column().unwrap().unwrap();
    let ColumnWriter::ByteArrayColumnWriter(typed) = images.untyped() else { unreachable!("it has bytes") };
    typed.write_batch(&[ByteArray::from(picture(1)), ByteArray::from(picture(2))], None, None).unwrap();
    images.close().unwrap();
    let mut classes = group.next_column().unwrap().unwrap();
    write(classes.untyped());
    classes.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn classes_of_a_type_that_is_no_class_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.parquet");
    let told = || ImageStream::open(path.to_str().unwrap()).map(drop).unwrap_err().to_string();
    with_classes(&path, "double label", |column| match column {
        ColumnWriter::DoubleColumnWriter(typed) => {
            typed.write_batch(&[1.0, 2.0], None, None).unwrap();
        }
        _ => unreachable!("the column holds doubles"),
    });
    let error = told();
    assert!(error.contains("p.parquet: found the column \"label\" of floats"), "{error}");
    assert!(error.contains("cast(\"int64\")"), "{error}");
    for kind in ["int64 label (timestamp_millis)", "int64 label (uint_64)"] {
        with_classes(&path, kind, |column| match column {
            ColumnWriter::Int64ColumnWriter(typed) => {
                typed.write_batch(&[5, -1], None, None).unwrap();
            }
            _ => unreachable!("the column holds whole numbers"),
        });
        if kind.contains("uint") {
            // The bits of -1 are a number that no class has.
            let found = read(path.to_str().unwrap(), 0);
            assert_eq!(found[0], whole("p.parquet#0", Some("5"), 1));
            let error = found[1].2.clone().unwrap_err();
            let words = "the row p.parquet#1 with the number 18446744073709551615, which is too large in";
            assert!(error.contains(words), "{error}");
        } else {
            let error = told();
            assert!(error.contains("of the type TIMESTAMP_MILLIS"), "{error}");
        }
    }
    let bytes = |column: &mut ColumnWriter<'_>| match column {
        ColumnWriter::ByteArrayColumnWriter(typed) => {
            typed.write_batch(&["cat".into(), "dog".into()], None, None).unwrap();
        }
        _ => unreachable!("the column holds bytes"),
    };
    with_classes(&path, "binary label", bytes);
    assert!(told().contains("bytes that are not marked as text"));
    with_classes(&path, "binary label (utf8)", bytes);
    assert_eq!(read(path.to_str().unwrap(), 0)[1], whole("p.parquet#1", Some("dog"), 2));
    // A column of another name is no class.
    with_classes(&path, "binary caption", bytes);
    assert_eq!(read(path.to_str().unwrap(), 0)[0], whole("p.parquet#0", None, 1));
}

#[test]
fn a_damaged_parquet_file_is_an_error_or_gives_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.parquet");
    let image = picture(1);
    hub(&path, &[(Some(&image), "a.png", 4), (Some(&image), "b.png", 1)]);
    let bytes = fs_err::read(&path).unwrap();
    let mut refused = 0;
    for (at, way) in (0..bytes.len()).flat_map(|at| [0, 0x7f, 0xff].map(|way| (at, way))) {
        let mut damaged = bytes.clone();
        damaged[at] = way;
        fs_err::write(&path, damaged).unwrap();
        let stream = ImageStream::open(path.to_str().unwrap());
        let read = stream.and_then(|stream| stream.each(0, &mut |sample| sample.decode().is_ok() || at > 0));
        if let Err(error) = read {
            assert!(error.to_string().contains("d.parquet: found"), "{error}");
            refused += 1;
        }
    }
    assert!(refused > bytes.len() / 4, "{refused} of {}", bytes.len());
}

#[test]
fn what_is_neither_is_an_error_that_says_what_to_name() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("a.tar"), b"").unwrap();
    hub(&folder.path().join("empty.parquet"), &[]);
    for (name, words) in [
        ("empty.parquet", "empty.parquet: found no row, expected images, one in each row"),
        ("none", "none: found no file of that name, expected a folder of images, a text file"),
        ("", "no image"),
        ("a.{0..1}.tar", "a.0.tar: found no file of that name, expected each of the 2 files"),
        ("x.parquet", "x.parquet: found no file of that name"),
        ("*.tar", "found the pattern character *, which is not expanded"),
    ] {
        if name.is_empty() {
            for shard in ["a.tar", "empty.parquet"] {
                fs_err::remove_file(folder.path().join(shard)).unwrap();
            }
        }
        let error = ImageStream::open(&at(&folder, name)).unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}
