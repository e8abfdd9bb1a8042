//! Columns of a Parquet file as arrays: a column of lists of one length is a table of numbers, a column of numbers or words is a list.
//!
//! The file is held in memory whole. Lists may be of a fixed length or not, as pyarrow, polars and pandas write them; a null, or a list of
//! another length than the first, is an error that names its row. Dates, decimals and structs are no arrays. Checksums of pages are
//! compared where a file has them, and so are the digests of columns that `invaspread embed` writes.

use bytes::Bytes;
use invaspread_data::{codec_not_built_in, guarded};
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, Type};

use super::array::{Array, ElementType, Header, Kind};
use super::container::check_memory;

/// The first bytes of such a file.
pub(super) const MAGIC: &[u8] = b"PAR1";

/// What comes before the name of a column in the key of its digest, in the file's metadata.
const DIGEST: &str = "invaspread.blake3.";

/// Returns the key of the digest of a column.
pub(crate) fn digest_key(column: &str) -> String {
    format!("{DIGEST}{column}")
}

/// Adds a word to the digest of a column: its length and its bytes.
pub(crate) fn add_word(digest: &mut blake3::Hasher, word: &[u8]) {
    digest.update(&(word.len() as u64).to_le_bytes());
    digest.update(word);
}

/// Rows that are read together.
const TOGETHER: usize = 4096;

/// A Parquet file.
pub(crate) struct ParquetFile(SerializedFileReader<Bytes>);

/// A column that may be an array.
struct Column {
    /// The number of its leaf column.
    leaf: usize,
    header: Header,
    is_list: bool,
}

impl ParquetFile {
    /// Reads the metadata of the file with these bytes.
    ///
    /// # Errors
    /// Returns what was found instead.
    pub(super) fn open(bytes: Vec<u8>) -> Result<Self, String> {
        checked(|| SerializedFileReader::new(Bytes::from(bytes))).map(Self)
    }

    fn fields(&self) -> impl Iterator<Item = &Type> {
        self.0.metadata().file_metadata().schema().get_fields().iter().map(AsRef::as_ref)
    }

    /// Returns the names of the columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.fields().map(|field| field.name().to_owned()).collect()
    }

    /// Returns the header of the array in the column `name`; `None` if there is no such column.
    pub(super) fn header(&self, name: &str) -> Option<Header> {
        self.column(name).map(|column| column.header)
    }

    fn column(&self, name: &str) -> Option<Column> {
        self.fields().find(|field| field.name() == name)?;
        let metadata = self.0.metadata();
        let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or_default();
        let columns = metadata.file_metadata().schema_descr().columns();
        let is_of =
            |column: &ColumnDescriptor| column.path().parts().first().is_some_and(|part| part == name);
        let mut leaves = columns.iter().enumerate().filter(|(_, column)| is_of(column));
        let (leaf, column) = leaves.next()?;
        let other = |kind: &str| Column {
            leaf,
            header: Header {
                element: ElementType::little_endian(Kind::Other(kind.to_owned()), 0),
                columns_first: false,
                shape: vec![rows],
            },
            is_list: false,
        };
        let is_list = column.max_rep_level() == 1;
        let is_flat = column.path().parts().len() == 1;
        if leaves.next().is_some() || !(is_flat || is_list) {
            return Some(other("of a struct or of nested lists"));
        }
        let mut shape = vec![rows];
        if is_list {
            let values = |group: &parquet::file::metadata::RowGroupMetaData| group.column(leaf).num_values();
            let values: i64 = metadata.row_groups().iter().map(values).sum();
            // The length of each list, if all have one; that is checked when they are read.
            shape.push(usize::try_from(values).unwrap_or_default() / rows.max(1));
        }
        Some(match element(column) {
            Ok(element) => Column { leaf, header: Header { element, columns_first: false, shape }, is_list },
            Err(kind) => other(&kind),
        })
    }

    /// Reads the array in the column `name`, which may have at most `most` bytes; `None` if there is no such column.
    ///
    /// # Errors
    /// Returns what was found instead.
    pub(super) fn array(&self, name: &str, most: u64) -> Option<Result<Array, String>> {
        let column = self.column(name)?;
        Some(self.read(name, &column, most))
    }

    /// Returns the digest that the file gives of a column.
    fn digest(&self, name: &str) -> Option<&str> {
        let pairs = self.0.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == digest_key(name))?.value.as_deref()
    }

    fn read(&self, name: &str, column: &Column, most: u64) -> Result<Array, String> {
        let Column { leaf, header, is_list } = column;
        if let Kind::Other(name) = &header.element.kind {
            return Err(format!(
                "a column of the type {name}, neither numbers nor words nor lists of numbers"
            ));
        }
        let groups = self.0.metadata().row_groups();
        if let Some(codec) =
            groups.iter().find_map(|group| codec_not_built_in(group.column(*leaf).compression()))
        {
            return Err(format!(
                "a column compressed with {codec}, which this program cannot unpack; pyarrow writes it with \
                 pq.write_table(table, FILE, compression=\"snappy\")"
            ));
        }
        check_memory(header.bytes().map_or(u64::MAX, |bytes| bytes as u64), most)?;
        let mut content = Content::new(*is_list);
        for group in 0..groups.len() {
            let reader = checked(|| self.0.get_row_group(group)?.get_column_reader(*leaf))?;
            content.add(reader)?;
        }
        if let Some(expected) = self.digest(name) {
            let found = content.digest();
            if found != expected {
                return Err(format!(
                    "numbers or words with the BLAKE3 digest {found}, where it says {expected}: the file is damaged"
                ));
            }
        }
        content.finish(header.clone(), most)
    }
}

/// Calls `read`; the library may panic on a damaged file.
fn checked<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    let panicked = || Err(ParquetError::General("its parts contradict each other".to_owned()));
    let outcome = guarded(read).unwrap_or_else(panicked);
    outcome.map_err(|error| format!("a damaged Parquet file ({error})"))
}

/// Returns the type of a column's elements, or the name of a type that is no array's. That of words has the size 0, which is known only
/// when all are read.
fn element(column: &ColumnDescriptor) -> Result<ElementType, String> {
    let (physical, converted) = (column.physical_type(), column.converted_type());
    let logical = column.logical_type_ref();
    let is_plain = converted == ConvertedType::NONE && logical.is_none();
    let is_unsigned = matches!(
        converted,
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
    );
    let is_integer = is_plain || matches!(logical, Some(LogicalType::Integer(_))) || is_unsigned;
    let whole = if is_unsigned { Kind::Unsigned } else { Kind::Signed };
    let of = ElementType::little_endian;
    match physical {
        Physical::FLOAT if is_plain => Ok(of(Kind::Float, 4)),
        Physical::DOUBLE if is_plain => Ok(of(Kind::Float, 8)),
        Physical::FIXED_LEN_BYTE_ARRAY if matches!(logical, Some(LogicalType::Float16)) => {
            Ok(of(Kind::Float, 2))
        }
        Physical::INT32 if is_integer => Ok(of(whole, 4)),
        Physical::INT64 if is_integer => Ok(of(whole, 8)),
        Physical::BOOLEAN => Ok(of(Kind::Bool, 1)),
        Physical::BYTE_ARRAY if column.max_rep_level() == 0 => Ok(of(Kind::Bytes, 0)),
        _ => Err(match (logical, converted) {
            (Some(logical), _) => format!("{logical:?}"),
            (None, ConvertedType::NONE) => physical.to_string(),
            (None, converted) => converted.to_string(),
        }),
    }
}

/// What has been read of a column.
struct Content {
    /// The bytes of all numbers.
    numbers: Vec<u8>,
    words: Vec<ByteArray>,
    is_list: bool,
    /// The length of the first list.
    length: Option<usize>,
    rows: usize,
}

impl Content {
    fn new(is_list: bool) -> Self {
        Self { numbers: Vec::new(), words: Vec::new(), is_list, length: None, rows: 0 }
    }

    /// Returns the digest of all values.
    fn digest(&self) -> String {
        let mut digest = blake3::Hasher::new();
        digest.update(&self.numbers);
        self.words.iter().for_each(|word| add_word(&mut digest, word.data()));
        digest.finalize().to_hex().to_string()
    }

    fn add(&mut self, reader: ColumnReader) -> Result<(), String> {
        match reader {
            ColumnReader::BoolColumnReader(reader) => self.numbers_of(reader, |&value| [u8::from(value)]),
            ColumnReader::Int32ColumnReader(reader) => self.numbers_of(reader, |value| value.to_le_bytes()),
            ColumnReader::Int64ColumnReader(reader) => self.numbers_of(reader, |value| value.to_le_bytes()),
            ColumnReader::FloatColumnReader(reader) => self.numbers_of(reader, |value| value.to_le_bytes()),
            ColumnReader::DoubleColumnReader(reader) => self.numbers_of(reader, |value| value.to_le_bytes()),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => self
                .numbers_of(reader, |value: &FixedLenByteArray| {
                    value.data().first_chunk::<2>().copied().unwrap_or_default()
                }),
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.values_of(reader, |content, values| content.words.append(values))
            }
            ColumnReader::Int96ColumnReader(_) => Err("a column of the type INT96".to_owned()),
        }
    }

    fn numbers_of<T: DataType, const SIZE: usize>(
        &mut self,
        reader: ColumnReaderImpl<T>,
        bytes: impl Fn(&T::T) -> [u8; SIZE],
    ) -> Result<(), String> {
        self.values_of(reader, |content, values| content.numbers.extend(values.iter().flat_map(&bytes)))
    }

    /// Reads all values of a row group, and gives them to `take`.
    fn values_of<T: DataType>(
        &mut self,
        mut reader: ColumnReaderImpl<T>,
        mut take: impl FnMut(&mut Self, &mut Vec<T::T>),
    ) -> Result<(), String> {
        loop {
            let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
            let (records, found, levels) = checked(|| {
                reader.read_records(TOGETHER, Some(&mut defined), Some(&mut repeated), &mut values)
            })?;
            if records == 0 {
                return Ok(());
            }
            self.check(&repeated, &defined, [records, found, levels])?;
            self.rows += records;
            take(self, &mut values);
        }
    }

    /// Checks that `records` rows without a null were read, and that their lists have one length.
    fn check(
        &mut self,
        repeated: &[i16],
        defined: &[i16],
        [records, found, levels]: [usize; 3],
    ) -> Result<(), String> {
        let begins = |level: usize| !self.is_list || repeated.get(level).is_none_or(|&level| level == 0);
        if found != levels {
            // The level of a value is the highest; that of a null, or of an empty list, is lower.
            let whole = defined.iter().copied().max().unwrap_or_default();
            let below = defined.iter().position(|&level| level < whole).unwrap_or_default();
            let place = if found == 0 { 0 } else { below };
            let row = self.rows + (0..=place).filter(|&level| begins(level)).count() - 1;
            let what = if self.is_list { "a null or an empty list" } else { "a null" };
            return Err(format!("{what} in row {row}, counted from 0"));
        }
        if !self.is_list {
            return Ok(());
        }
        let starts: Vec<usize> = (0..levels).filter(|&level| begins(level)).chain([levels]).collect();
        if starts.len() != records + 1 {
            return Err("a damaged Parquet file (its rows do not begin with lists)".to_owned());
        }
        for (row, ends) in starts.windows(2).enumerate() {
            let own = ends[1] - ends[0];
            let length = *self.length.get_or_insert(own);
            if own != length {
                let row = self.rows + row;
                return Err(format!(
                    "a list of {own} in row {row}, counted from 0, where row 0 has one of {length}"
                ));
            }
        }
        Ok(())
    }

    fn finish(self, mut header: Header, most: u64) -> Result<Array, String> {
        if header.shape.first() != Some(&self.rows) {
            return Err(format!(
                "a damaged Parquet file ({} rows, where it says {})",
                self.rows, header.shape[0]
            ));
        }
        if let Some(length) = self.length {
            header.shape[1] = length;
        }
        if header.element.kind != Kind::Bytes {
            return Ok(Array { header, bytes: self.numbers });
        }
        let longest = self.words.iter().map(ByteArray::len).max().unwrap_or_default().max(1);
        header.element.size = longest;
        check_memory(header.bytes().map_or(u64::MAX, |bytes| bytes as u64), most)?;
        let mut bytes = vec![0; longest * self.words.len()];
        for (to, word) in bytes.chunks_exact_mut(longest).zip(&self.words) {
            to[..word.len()].copy_from_slice(word.data());
        }
        Ok(Array { header, bytes })
    }
}
