//! Refuses Parquet files that are compressed in a way that this program cannot unpack.

use std::path::Path;

use ::parquet::basic::Compression;
use ::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use crate::error::DataError;

/// The advice for such a file.
const REWRITE: &str = "write it again, as with pyarrow: import pyarrow.parquet as pq; \
                       pq.write_table(pq.read_table(\"THIS.parquet\"), \"OTHER.parquet\", compression=\"snappy\")";

/// Returns an error that names the codec if one of the columns that `is_read` names cannot be unpacked.
pub(crate) fn check(
    path: &Path,
    metadata: &ParquetMetaData,
    is_read: impl Fn(&str) -> bool,
) -> Result<(), DataError> {
    for column in metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let name = column.column_path().parts().first().map_or("", String::as_str);
        if is_read(name)
            && let Some(codec) = codec_not_built_in(column.compression())
        {
            return Err(DataError::Damaged {
                path: path.to_owned(),
                found: format!(
                    "the column {name:?} compressed with {codec}, which this program cannot unpack"
                ),
                expected: "a Parquet file compressed with Snappy or not at all".to_owned(),
                advice: REWRITE,
            });
        }
    }
    Ok(())
}

/// Returns the name of a codec of Parquet that is not built in.
pub fn codec_not_built_in(codec: Compression) -> Option<&'static str> {
    let name = match codec {
        Compression::UNCOMPRESSED | Compression::SNAPPY => return None,
        Compression::LZO => return Some("LZO"),
        Compression::GZIP(_) => "gzip",
        Compression::BROTLI(_) => "Brotli",
        Compression::LZ4 | Compression::LZ4_RAW => "LZ4",
        Compression::ZSTD(_) => "Zstandard (zstd)",
    };
    // The crate that fetches from the hub builds these in.
    (!cfg!(feature = "hub")).then_some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use ::parquet::basic::CompressionCodec;
    use ::parquet::file::metadata::ParquetMetaDataWriter;
    use ::parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::sample::png;
    use crate::sample::shards::hub;
    use crate::stream::ImageStream;

    /// Makes the file at `path` claim that its columns are compressed with `codec`.
    fn claim(path: &Path, codec: CompressionCodec) {
        let bytes = fs_err::read(path).unwrap();
        let reader = SerializedFileReader::new(fs_err::File::open(path).unwrap().into_file()).unwrap();
        let metadata = reader.metadata().clone();
        let group = |group: &RowGroupMetaData| {
            let columns = group.columns().iter().cloned();
            let columns =
                columns.map(|column| column.into_builder().set_compression_codec(codec).build().unwrap());
            group.clone().into_builder().set_column_metadata(columns.collect()).build().unwrap()
        };
        let groups = metadata.row_groups().iter().map(group).collect();
        let metadata = metadata.into_builder().set_row_groups(groups).build();
        // The footer ends with its length and a mark of four bytes.
        let end = bytes.len() - 8;
        let footer = u32::from_le_bytes(*bytes[end..].first_chunk().unwrap()) as usize;
        let mut out = bytes[..end - footer].to_vec();
        ParquetMetaDataWriter::new(&mut out, &metadata).finish().unwrap();
        fs_err::write(path, out).unwrap();
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn a_codec_that_is_not_built_in_is_named_before_anything_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.parquet");
        let image = png((2, 2), |_, _| [1; 3]);
        for (codec, name) in [
            (CompressionCodec::ZSTD, "Zstandard (zstd)"),
            (CompressionCodec::GZIP, "gzip"),
            (CompressionCodec::BROTLI, "Brotli"),
            (CompressionCodec::LZ4, "LZ4"),
            (CompressionCodec::LZ4_RAW, "LZ4"),
            (CompressionCodec::LZO, "LZO"),
        ] {
            hub(&path, &[(Some(&image), "", 1)]);
            claim(&path, codec);
            let error = ImageStream::open(path.to_str().unwrap()).unwrap_err().to_string();
            for words in ["train.parquet: found the column \"image\"", name, "compression=\"snappy\""] {
                assert!(error.contains(words), "expected {words:?} in: {error}");
            }
        }
        hub(&path, &[(Some(&image), "", 1)]);
        claim(&path, CompressionCodec::UNCOMPRESSED);
        ImageStream::open(path.to_str().unwrap()).unwrap();
    }

    #[test]
    fn columns_that_are_not_read_may_have_any_codec() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.parquet");
        hub(&path, &[(Some(&png((2, 2), |_, _| [1; 3])), "", 1)]);
        claim(&path, CompressionCodec::LZO);
        let reader = SerializedFileReader::new(fs_err::File::open(&path).unwrap().into_file()).unwrap();
        check(&path, reader.metadata(), |name| name == "other").unwrap();
        check(&path, reader.metadata(), |name| name == "label").unwrap_err();
    }
}
