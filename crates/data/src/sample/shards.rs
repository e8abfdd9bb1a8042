//! Test data: shards of images, as WebDataset and the Hugging Face hub write them.

use std::path::Path;
use std::sync::Arc;

use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::ByteArray;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

/// Writes a tar shard of the given files.
pub fn shard(path: &Path, files: &[(&str, &[u8])]) {
    let mut builder = ::tar::Builder::new(fs_err::File::create(path).unwrap());
    for (name, bytes) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.finish().unwrap();
}

/// A row of a Parquet file: the bytes, the path and the class.
pub type HubRow<'a> = (Option<&'a [u8]>, &'a str, i64);

/// Writes a Parquet file as the Hugging Face hub has them, of the given rows.
pub fn hub(path: &Path, rows: &[HubRow<'_>]) {
    let schema = "message schema {
        optional group image { optional binary bytes; optional binary path (utf8); }
        optional int64 label;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer =
        SerializedFileWriter::new(fs_err::File::create(path).unwrap().into_file(), schema, properties)
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut number = 0;
    while let Some(mut column) = group.next_column().unwrap() {
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(typed) => {
                let of = |row: &HubRow<'_>| {
                    if number == 0 { row.0.map(<[u8]>::to_vec) } else { Some(row.1.as_bytes().to_vec()) }
                };
                let cells: Vec<Option<Vec<u8>>> = rows.iter().map(of).collect();
                let levels: Vec<i16> = cells.iter().map(|cell| if cell.is_some() { 2 } else { 1 }).collect();
                let values: Vec<ByteArray> = cells.into_iter().flatten().map(ByteArray::from).collect();
                typed.write_batch(&values, Some(&levels), None).unwrap();
            }
            ColumnWriter::Int64ColumnWriter(typed) => {
                let values: Vec<i64> = rows.iter().map(|row| row.2).collect();
                typed.write_batch(&values, Some(&vec![1; rows.len()]), None).unwrap();
            }
            _ => unreachable!("the schema has bytes and whole numbers"),
        }
        column.close().unwrap();
        number += 1;
    }
    group.close().unwrap();
    writer.close().unwrap();
}
