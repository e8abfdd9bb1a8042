//! Columns of Parquet as arrays, with the layouts of lists that writers choose.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

/// The content of a leaf column, with its definition and repetition levels.
enum Leaf {
    Floats(Vec<f32>, Vec<i16>, Vec<i16>),
    Halves(Vec<[u8; 2]>, Vec<i16>, Vec<i16>),
    Longs(Vec<i64>, Vec<i16>),
    Words(&'static [&'static str]),
}
use Leaf::{Floats, Halves, Longs, Words};

/// Returns a Parquet file with these columns; each list of leaves is a row group.
fn file(columns: &str, groups: &[&[Leaf]]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message of_a_test {{ {columns} }}")).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for leaves in groups {
        let mut group = writer.next_row_group().unwrap();
        for leaf in *leaves {
            let mut column = group.next_column().unwrap().unwrap();
            let written = match (column.untyped(), leaf) {
                (ColumnWriter::FloatColumnWriter(to), Floats(values, defined, repeated)) => {
                    to.write_batch(values, Some(defined), Some(repeated))
                }
                (ColumnWriter::FixedLenByteArrayColumnWriter(to), Halves(values, defined, repeated)) => {
                    let values: Vec<FixedLenByteArray> =
                        values.iter().map(|half| ByteArray::from(half.to_vec()).into()).collect();
                    to.write_batch(&values, Some(defined), Some(repeated))
                }
                (ColumnWriter::Int64ColumnWriter(to), Longs(values, defined)) => {
                    to.write_batch(values, Some(defined), None)
                }
                (ColumnWriter::ByteArrayColumnWriter(to), Words(words)) => {
                    let words: Vec<ByteArray> = words.iter().map(|word| ByteArray::from(*word)).collect();
                    to.write_batch(&words, None, None)
                }
                _ => panic!("the leaf is of another type than its column"),
            };
            written.unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

/// As pyarrow, polars and pandas write lists: they and their elements may be null, so that an element has the level 3.
const LISTS: &str = "optional group embedding (list) { repeated group list { optional float element; } }";

/// Returns lists of floats in that layout.
fn lists(rows: &[&[f32]]) -> Leaf {
    let begins = rows.iter().flat_map(|row| (0..row.len()).map(|place| i16::from(place > 0)));
    Floats(rows.concat(), vec![3; rows.concat().len()], begins.collect())
}

#[test]
fn lists_and_words_are_read_from_several_row_groups() {
    let folder = Folder::new();
    let columns = format!("required binary label (utf8); {LISTS} required binary path (utf8);");
    let first: [Leaf; 3] = [Words(&["cat", "ox"]), lists(&[&[1.0, 2.0], &[3.0, 4.0]]), Words(&["a", "b"])];
    let second: [Leaf; 3] = [Words(&["cat"]), lists(&[&[5.0, 6.0]]), Words(&["c"])];
    folder.put("e.parquet", &file(&columns, &[&first, &second]));
    let found = folder.read("e.parquet", Scaling::Unscaled).unwrap();
    assert_eq!((found.features.dim, &found.features.values[..]), (2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..]));
    assert_eq!(found.labels, words(&["cat", "ox", "cat"]));
    assert_eq!(found.origin.embeddings.to_string(), "embedding float32 (3, 2)");
    let path = folder.path("e.parquet");
    let told = read(&Source { label_name: Some("paths"), ..Source::of(&path) }).unwrap_err().to_string();
    assert!(told.contains("\"path\" words (3,)") && told.contains("\"embedding\" float32 (3, 2)"), "{told}");
}

#[test]
fn numbers_of_any_width_are_labels_and_halves_are_embeddings() {
    let folder = Folder::new();
    let columns = "optional int64 y; required group features (list) { repeated group list { required fixed_len_byte_array(2) element \
                   (FLOAT16); } }";
    let halves = [1.5_f32, -2.0].map(|value| half::f16::from_f32(value).to_bits().to_le_bytes());
    let leaves = [Longs(vec![-7, 40], vec![1, 1]), Halves(halves.to_vec(), vec![1, 1], vec![0, 0])];
    folder.put("e.parquet", &file(columns, &[&leaves]));
    let found = folder.read("e.parquet", Scaling::Unscaled).unwrap();
    assert_eq!((found.features.dim, &found.features.values[..]), (1, &[1.5, -2.0][..]));
    assert_eq!(found.labels, numbers(&[-7, 40]));
}

#[test]
fn what_is_no_table_is_named_with_its_row() {
    let folder = Folder::new();
    let columns = format!("optional int64 label; {LISTS}");
    let told = |label: Leaf, list: Leaf| {
        folder.put("e.parquet", &file(&columns, &[&[label, list]]));
        folder.told("e.parquet")
    };
    let labels = || Longs(vec![1, 2, 3], vec![1, 1, 1]);
    let of_one = || lists(&[&[1.0], &[2.0], &[3.0]]);
    let error = told(labels(), lists(&[&[1.0, 2.0], &[3.0], &[4.0, 5.0, 6.0]]));
    assert!(error.contains("a list of 1 in row 1, counted from 0, where row 0 has one of 2"), "{error}");
    // The second list is null: it has one level, as a list of one.
    let error = told(labels(), Floats(vec![1.0, 3.0], vec![3, 0, 3], vec![0, 0, 0]));
    assert!(error.contains("a null or an empty list in row 1"), "{error}");
    // The second element of the third list is null.
    let floats = Floats(vec![1.0, 2.0, 3.0, 4.0, 5.0], vec![3, 3, 3, 3, 3, 2], vec![0, 1, 0, 1, 0, 1]);
    let error = told(labels(), floats);
    assert!(error.contains("a null or an empty list in row 2"), "{error}");
    let error = told(Longs(vec![1, 3], vec![1, 0, 1]), of_one());
    assert!(error.contains("for \"label\" a null in row 1"), "{error}");

    let whole = file(&columns, &[&[labels(), of_one()]]);
    folder.put("e.parquet", &whole[..whole.len() / 2]);
    assert!(folder.told("e.parquet").contains("a damaged Parquet file"));
    // Every byte of a file may be another one: an error or other numbers, never a panic.
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        folder.put("e.parquet", &damaged);
        let _ = folder.read("e.parquet", Scaling::Unscaled);
    }
}

#[test]
fn columns_that_are_no_arrays_may_stand_beside_but_not_be_asked_for() {
    let folder = Folder::new();
    let columns = "required int64 label (TIMESTAMP_MILLIS); required binary code;";
    folder.put("e.parquet", &file(columns, &[&[Longs(vec![5], vec![0]), Words(&["x"])]]));
    let asked = |name, label_name| {
        let path = folder.path("e.parquet");
        read(&Source { name: Some(name), label_name, ..Source::of(&path) }).unwrap_err().to_string()
    };
    assert!(asked("label", None).contains("neither numbers nor words nor lists of numbers"));
    assert!(asked("code", None).contains("expected"), "words are no embeddings");
    assert!(asked("image", None).contains("\"code\" words (1,)"));
}
