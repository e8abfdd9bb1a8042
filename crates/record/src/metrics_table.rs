//! `metrics.parquet`: every measurement of a run, one number in each row.
//!
//! Columns: `epoch` i64 (from 1; 0 is before training), `step` i64 (optimizer steps so far), `split` utf8
//! ("train", "test"), `name` utf8, `value` f64, `seconds` f64 since the run began. The file is compressed
//! with Snappy, and every program that reads Parquet can read it.
//!
//! The metadata in the footer holds a CRC-32C of the whole file. It is compared before the file is parsed: a
//! damaged file could otherwise give wrong numbers or make the `parquet` crate panic.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::atomic::write_atomically;

const SCHEMA: &str = "message metrics {
    required int64 epoch;
    required int64 step;
    required binary split (utf8);
    required binary name (utf8);
    required double value;
    required double seconds;
}";

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// The epoch, from 1; 0 is before training.
    pub epoch: i64,
    /// The number of optimizer steps taken before the measurement.
    pub step: i64,
    /// "train" or "test".
    pub split: String,
    /// The name of the metric: `loss`, `lr`, `knn_top1`, ...
    pub name: String,
    /// The value.
    pub value: f64,
    /// The time since the run began in seconds, without the time between interruptions and resumes.
    pub seconds: f64,
}

/// The last and the best value of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// The value after the last epoch.
    pub last: f64,
    /// The highest value.
    pub best: f64,
    /// The epoch that first reached the highest value, from 1; 0 is before training.
    pub best_epoch: i64,
}

/// The measurements of a run, in the order in which they were taken.
///
/// ```
/// use invaspread_record::{MetricRow, MetricsTable};
///
/// let row = |epoch, value| MetricRow {
///     epoch,
///     step: 10 * epoch,
///     split: "test".to_owned(),
///     name: "knn_top1".to_owned(),
///     value,
///     seconds: 0.0,
/// };
/// let table = MetricsTable::new(vec![row(1, 0.5), row(2, 0.7), row(3, 0.6)]);
/// assert_eq!(table.series("test", "knn_top1"), [(1, 0.5), (2, 0.7), (3, 0.6)]);
/// assert_eq!(table.summary("test", "knn_top1").map(|found| (found.last, found.best)), Some((0.6, 0.7)));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsTable {
    rows: Vec<MetricRow>,
}

impl MetricsTable {
    /// Makes a table of `rows`.
    pub fn new(rows: Vec<MetricRow>) -> Self {
        Self { rows }
    }

    /// Returns the rows.
    pub fn rows(&self) -> &[MetricRow] {
        &self.rows
    }

    /// Adds a row.
    pub fn push(&mut self, row: MetricRow) {
        self.rows.push(row);
    }

    /// Removes the rows after `epoch`, which a resumed run measures again.
    pub fn truncate_after(&mut self, epoch: i64) {
        self.rows.retain(|row| row.epoch <= epoch);
    }

    /// Returns `(epoch, value)` of each row of one metric, in the order of the table.
    pub fn series(&self, split: &str, name: &str) -> Vec<(i64, f64)> {
        let wanted = |row: &&MetricRow| row.split == split && row.name == name;
        self.rows.iter().filter(wanted).map(|row| (row.epoch, row.value)).collect()
    }

    /// Returns the last and the highest value of one metric; of equal highest values the first one counts.
    /// Returns `None` if the metric was never measured.
    pub fn summary(&self, split: &str, name: &str) -> Option<MetricSummary> {
        let series = self.series(split, name);
        let &(first_epoch, first) = series.first()?;
        let mut summary = MetricSummary { last: first, best: first, best_epoch: first_epoch };
        for (epoch, value) in series {
            summary.last = value;
            if value > summary.best {
                (summary.best, summary.best_epoch) = (value, epoch);
            }
        }
        Some(summary)
    }

    /// Writes the whole table to `path`, or leaves the old file.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let bytes = self.encode().map_err(io::Error::other);
        bytes.and_then(|bytes| write_atomically(path, &bytes)).map_err(RecordError::io("write", path))
    }

    /// Reads the table at `path`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses, and `Damaged` if the file is cut
    /// short, damaged or holds other columns.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let read = || {
            let (mut file, mut bytes) = (File::open(path)?, Vec::new());
            file.read_to_end(&mut bytes)?;
            Ok((file, bytes))
        };
        let (file, bytes) = read().map_err(RecordError::io("read", path))?;
        let rows = if checksum_is_right(&bytes) {
            decode(file)
        } else {
            Err(ParquetError::General("its checksum is wrong".to_owned()))
        };
        rows.map(Self::new).map_err(|error| RecordError::Damaged {
            path: path.to_path_buf(),
            found: format!("{} bytes that cannot be used ({error})", bytes.len()),
            expected: "a Parquet table of epoch, step, split, name, value and seconds",
            remedy: "delete the file and ask for the run again: the table is written again from the checkpoint",
        })
    }

    fn encode(&self) -> ParquetResult<Vec<u8>> {
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let checksum = KeyValue::new("checksum".to_owned(), format!("{CHECKSUM}{NO_CHECKSUM}"));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![checksum]))
            .build();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        let rows = &self.rows;
        let text =
            |of: fn(&MetricRow) -> &str| -> Vec<ByteArray> { rows.iter().map(|r| of(r).into()).collect() };
        write_column::<Int64Type>(&mut group, &rows.iter().map(|r| r.epoch).collect::<Vec<_>>())?;
        write_column::<Int64Type>(&mut group, &rows.iter().map(|r| r.step).collect::<Vec<_>>())?;
        write_column::<ByteArrayType>(&mut group, &text(|r| &r.split))?;
        write_column::<ByteArrayType>(&mut group, &text(|r| &r.name))?;
        write_column::<DoubleType>(&mut group, &rows.iter().map(|r| r.value).collect::<Vec<_>>())?;
        write_column::<DoubleType>(&mut group, &rows.iter().map(|r| r.seconds).collect::<Vec<_>>())?;
        group.close()?;
        let mut bytes = writer.into_inner()?;
        let at = checksum_position(&bytes).expect("the footer holds the key just given");
        let checksum = format!("{:08x}", crc32c::crc32c(&bytes));
        bytes[at..at + checksum.len()].copy_from_slice(checksum.as_bytes());
        Ok(bytes)
    }
}

/// The text before the eight hexadecimal digits of the checksum, and the digits that stand there while the
/// checksum is computed.
const CHECKSUM: &str = "crc32c=";
const NO_CHECKSUM: &str = "00000000";

/// Returns the position of the digits. In the footer, the key comes after all text of the rows.
fn checksum_position(bytes: &[u8]) -> Option<usize> {
    let key = bytes.windows(CHECKSUM.len()).rposition(|window| window == CHECKSUM.as_bytes())?;
    let at = key + CHECKSUM.len();
    (at + NO_CHECKSUM.len() <= bytes.len()).then_some(at)
}

fn checksum_is_right(bytes: &[u8]) -> bool {
    let Some(at) = checksum_position(bytes) else { return false };
    let (before, rest) = bytes.split_at(at);
    let (digits, after) = rest.split_at(NO_CHECKSUM.len());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(before), NO_CHECKSUM.as_bytes());
    digits == format!("{:08x}", crc32c::crc32c_append(checksum, after)).as_bytes()
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
) -> ParquetResult<()> {
    let mut column = group.next_column()?.expect("as many columns as the schema has");
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

fn decode(file: File) -> ParquetResult<Vec<MetricRow>> {
    let reader = SerializedFileReader::new(file)?;
    let expected = parse_message_type(SCHEMA)?;
    let found = reader.metadata().file_metadata().schema();
    let columns = |schema: &parquet::schema::types::Type| -> Vec<(String, parquet::basic::Type, bool)> {
        let fields = schema.get_fields().iter().filter(|f| f.is_primitive());
        fields.map(|f| (f.name().to_owned(), f.get_physical_type(), f.is_optional())).collect()
    };
    if columns(found) != columns(&expected) || found.get_fields().len() != expected.get_fields().len() {
        let names: Vec<&str> = found.get_fields().iter().map(|f| f.name()).collect();
        return Err(ParquetError::General(format!("columns {}", names.join(", "))));
    }
    let mut rows = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        let group = group.as_ref();
        let epoch = read_column::<Int64Type>(group, 0)?;
        let step = read_column::<Int64Type>(group, 1)?;
        let split = read_column::<ByteArrayType>(group, 2)?;
        let name = read_column::<ByteArrayType>(group, 3)?;
        let value = read_column::<DoubleType>(group, 4)?;
        let seconds = read_column::<DoubleType>(group, 5)?;
        for i in 0..epoch.len() {
            rows.push(MetricRow {
                epoch: epoch[i],
                step: step[i],
                split: split[i].as_utf8()?.to_owned(),
                name: name[i].as_utf8()?.to_owned(),
                value: value[i],
                seconds: seconds[i],
            });
        }
    }
    Ok(rows)
}

/// Reads all values of a required column, which must be as many as the group has rows.
fn read_column<T: DataType>(group: &dyn RowGroupReader, column: usize) -> ParquetResult<Vec<T::T>> {
    let expected = usize::try_from(group.metadata().num_rows())?;
    let reader: ColumnReader = group.get_column_reader(column)?;
    let mut reader = parquet::column::reader::get_typed_column_reader::<T>(reader);
    let mut values = Vec::new();
    while values.len() < expected {
        let (records, _, _) = reader.read_records(expected - values.len(), None, None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::EOF(format!(
                "column {column} has {} of {expected} rows",
                values.len()
            )));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{MetricRow, MetricSummary, MetricsTable};
    use crate::RecordError;
    use proptest::prelude::*;
    use std::fs;

    fn row(epoch: i64, split: &str, name: &str, value: f64) -> MetricRow {
        MetricRow { epoch, step: epoch * 390, split: split.into(), name: name.into(), value, seconds: 1.5 }
    }

    fn table() -> MetricsTable {
        MetricsTable::new(vec![
            row(0, "test", "knn_top1", 30.0),
            row(1, "train", "loss", 5.25),
            row(1, "test", "knn_top1", 55.5),
            row(2, "train", "loss", 4.0),
            row(2, "test", "knn_top1", 55.5),
            row(3, "test", "knn_top1", 54.0),
        ])
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            rows in prop::collection::vec((any::<i64>(), any::<i64>(), ".*", "[a-z_0-9]*", any::<f64>(), any::<f64>()), 0..60),
        ) {
            let rows = rows.into_iter().map(|(epoch, step, split, name, value, seconds)| {
                MetricRow { epoch, step, split, name, value, seconds }
            });
            let table = MetricsTable::new(rows.collect());
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("metrics.parquet");
            table.write(&path).unwrap();
            prop_assert_eq!(MetricsTable::read(&path).unwrap(), table);
        }
    }

    #[test]
    fn equal_tables_are_equal_files() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        table().write(&a).unwrap();
        table().write(&b).unwrap();
        assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
    }

    #[test]
    fn a_resumed_run_forgets_what_it_will_measure_again() {
        let mut table = table();
        table.truncate_after(1);
        assert_eq!(table.rows().len(), 3);
        table.push(row(2, "test", "knn_top1", 60.0));
        assert_eq!(table.series("test", "knn_top1"), [(0, 30.0), (1, 55.5), (2, 60.0)]);
    }

    #[test]
    fn last_and_the_first_best_are_both_kept() {
        let want = MetricSummary { last: 54.0, best: 55.5, best_epoch: 1 };
        assert_eq!(table().summary("test", "knn_top1"), Some(want));
        assert_eq!(table().summary("train", "knn_top1"), None);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.parquet");
        table().write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = MetricsTable::read(&path).unwrap_err();
            assert!(matches!(error, RecordError::Damaged { .. }), "{length}: {error}");
        }
        let text = MetricsTable::read(&path).unwrap_err().to_string();
        assert!(text.contains("metrics.parquet: found") && text.contains("delete the file"), "{text}");
    }

    #[test]
    fn a_flipped_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.parquet");
        table().write(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                bytes[at] ^= flip;
                fs::write(&path, &bytes).unwrap();
                let error = MetricsTable::read(&path).unwrap_err();
                assert!(matches!(error, RecordError::Damaged { .. }), "{at}: {error}");
                bytes[at] ^= flip;
            }
        }
    }

    #[test]
    fn other_columns_and_tables_of_others_are_refused() {
        use parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.parquet");
        let schema =
            parquet::schema::parser::parse_message_type("message m { required int32 epoch; }").unwrap();
        let file = fs::File::create(&path).unwrap();
        let properties = WriterProperties::builder().build();
        SerializedFileWriter::new(file, schema.into(), properties.into()).unwrap().close().unwrap();
        let error = super::decode(fs::File::open(&path).unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("columns epoch"), "{error}");
        let text = MetricsTable::read(&path).unwrap_err().to_string();
        assert!(
            text.contains("its checksum is wrong") && text.contains("expected a Parquet table"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let text = MetricsTable::read("no/such/metrics.parquet".as_ref()).unwrap_err().to_string();
        assert!(text.starts_with("failed to read no/such/metrics.parquet"), "{text}");
    }
}
