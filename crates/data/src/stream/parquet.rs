//! Parquet files of images as the Hugging Face hub lays them out: a row is a struct with the bytes of an image file and its path
//! (`image`: `bytes`, `path`), and a class (`label`).

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::{Type, TypePtr};
use invaspread_files::open_regular;

use super::class::{Class, NoClass};
use super::{Fault, Picture, Sample, SampleLabel, unusable};
use crate::codec;
use crate::error::{DataError, reading};
use crate::guarded::guarded;

/// Usual names of the column of images, the first of which counts, and of the column of classes.
const IMAGES: [&str; 6] = ["image", "img", "jpg", "png", "jpeg", "webp"];
const LABELS: [&str; 7] = ["label", "labels", "fine_label", "cls", "class", "target", "y"];

/// The columns of a file that are read.
pub(super) struct Columns {
    image: TypePtr,
    label: Option<TypePtr>,
    /// The number of rows of the file.
    pub(super) rows: u64,
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "images are read from the column {:?}, ", self.image.name())?;
        match &self.label {
            Some(label) => write!(f, "classes from {:?}", label.name()),
            None => write!(f, "and no column holds classes ({})", LABELS.join(", ")),
        }
    }
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let file = open_regular(path).map_err(reading)?.into_file();
    checked(path, || SerializedFileReader::new(file))
}

/// Calls `read`, which reads a part of the file at `path`. The library that reads Parquet may panic on a damaged file; that is an
/// error of the file too.
fn checked<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let panicked = || Err(ParquetError::General("its parts contradict each other".to_owned()));
    guarded(read).unwrap_or_else(panicked).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &ParquetError) -> DataError {
    DataError::Damaged {
        path: path.to_owned(),
        found: format!("a file that cannot be read on ({error})"),
        expected: "a whole Parquet file, compressed with Snappy or not at all".to_owned(),
        advice: "fetch or write the file again",
    }
}

/// Finds the columns of the file at `path`.
pub(super) fn columns(path: &Path) -> Result<Columns, DataError> {
    columns_of(path, &open(path)?)
}

fn columns_of(path: &Path, reader: &dyn FileReader) -> Result<Columns, DataError> {
    let metadata = reader.metadata().file_metadata();
    let fields = metadata.schema().get_fields();
    let holds_bytes = |field: &&TypePtr| {
        if field.is_group() {
            field.get_fields().iter().any(|child| child.name() == "bytes" && is_bytes(child))
        } else {
            is_bytes(field)
        }
    };
    let named = |name: &&str| fields.iter().find(|field| field.name() == *name);
    let mut structs = fields.iter().filter(|field| field.is_group()).filter(holds_bytes);
    let only = structs.next().filter(|_| structs.next().is_none());
    let image = IMAGES.iter().filter_map(named).find(holds_bytes).or(only).cloned();
    let Some(image) = image else {
        let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
        let expected =
            "a column \"image\" with the bytes of image files (a struct of bytes and path, or bytes)";
        return Err(unusable(path, format!("the columns {}", names.join(", ")), expected));
    };
    let label = LABELS.iter().filter_map(named).find(|field| field.is_primitive()).cloned();
    if let Some(label) = &label {
        check_classes(path, label)?;
    }
    let is_read =
        |name: &str| name == image.name() || label.as_ref().is_some_and(|label| label.name() == name);
    codec::check(path, reader.metadata(), is_read)?;
    Ok(Columns { image, label, rows: u64::try_from(metadata.num_rows()).unwrap_or_default() })
}

/// Returns an error if the column `label` has a type that no class has: its cells would all be without one.
fn check_classes(path: &Path, label: &Type) -> Result<(), DataError> {
    let (info, physical) = (label.get_basic_info(), label.get_physical_type());
    let is_number = matches!(physical, Physical::INT32 | Physical::INT64)
        && matches!(info.logical_type_ref(), None | Some(LogicalType::Integer(_)))
        && matches!(
            info.converted_type(),
            ConvertedType::NONE
                | ConvertedType::INT_8
                | ConvertedType::INT_16
                | ConvertedType::INT_32
                | ConvertedType::INT_64
                | ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64
        );
    let is_text = physical == Physical::BYTE_ARRAY
        && matches!(info.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON);
    if is_number || is_text || physical == Physical::BOOLEAN {
        return Ok(());
    }
    let what = match physical {
        Physical::FLOAT | Physical::DOUBLE => "floats".to_owned(),
        Physical::BYTE_ARRAY if info.converted_type() == ConvertedType::NONE => {
            "bytes that are not marked as text".to_owned()
        }
        other => match info.converted_type() {
            ConvertedType::NONE => format!("the type {other}"),
            converted => format!("the type {converted} ({other})"),
        },
    };
    Err(DataError::Damaged {
        path: path.to_owned(),
        found: format!("the column {:?} of {what}", label.name()),
        expected: "classes, which are whole numbers or text".to_owned(),
        advice: "if it holds classes, cast it (pyarrow: table.set_column(i, \"label\", table[\"label\"].cast(\"int64\")), which \
                 refuses numbers that are not whole); if not, give it another name (table.rename_columns)",
    })
}

fn is_bytes(field: &Type) -> bool {
    field.is_primitive() && field.get_physical_type() == Physical::BYTE_ARRAY
}

/// Calls `take` with each row of `files` from position `from` on, until it returns false.
pub(super) fn each(
    files: &[PathBuf],
    from: u64,
    take: &mut dyn FnMut(Sample) -> bool,
) -> Result<(), DataError> {
    let mut before = 0;
    for path in files {
        let reader = open(path)?;
        let rows = columns_of(path, &reader)?.rows;
        // A file whose rows are all behind is not read.
        let skipped = from.saturating_sub(before).min(rows);
        before += rows;
        if skipped < rows && !of_file(path, Box::new(reader), skipped, take)? {
            break;
        }
    }
    Ok(())
}

/// Calls `take` with the rows of one file from `from` on. Returns whether to go on.
fn of_file(
    path: &Path,
    reader: Box<dyn FileReader>,
    from: u64,
    take: &mut dyn FnMut(Sample) -> bool,
) -> Result<bool, DataError> {
    let Columns { image, label, .. } = columns_of(path, &*reader)?;
    let wanted = std::iter::once(image).chain(label.clone()).collect();
    let file: Arc<Path> = path.into();
    each_row(path, reader, wanted, &mut |number, row| {
        if number < from {
            return true;
        }
        let number = called(path, number);
        let (given, class, bytes) = cells(row, label.as_deref().map(Type::name));
        let picture = match (bytes, &class) {
            (None, _) => Err(Fault::image(format!("the row {number} without the bytes of an image"))),
            (Some(_), Err(NoClass::Unreadable(why))) => {
                Err(Fault::class(format!("the row {number} with {why}")))
            }
            (Some(bytes), _) => Ok(Picture::Bytes(bytes)),
        };
        let given = given.filter(|given| !given.is_empty());
        let picture = picture.map_err(|fault| fault.of(path));
        take(Sample::new(&file, given.as_deref().unwrap_or(&number), class.ok(), picture))
    })
}

/// Calls `take` with the name and the class of each row of the file at `path`. No image is read.
pub(super) fn labels(path: &Path, take: &mut dyn FnMut(&str, Class)) -> Result<(), DataError> {
    let reader = open(path)?;
    let Columns { label, rows, .. } = columns_of(path, &reader)?;
    let Some(label) = label else {
        (0..rows).for_each(|number| take(&called(path, number), Err(no_column())));
        return Ok(());
    };
    let name = label.name().to_owned();
    let mut take_all = |number, row| {
        take(&called(path, number), cells(row, Some(&name)).1);
        true
    };
    each_row(path, Box::new(reader), vec![label], &mut take_all).map(drop)
}

/// Returns the name of a row that gives none.
fn called(path: &Path, number: u64) -> String {
    format!("{}#{number}", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Calls `take` with the number and the columns `wanted` of each row, until it returns false. Returns whether it never did.
fn each_row(
    path: &Path,
    reader: Box<dyn FileReader>,
    wanted: Vec<TypePtr>,
    take: &mut dyn FnMut(u64, Row) -> bool,
) -> Result<bool, DataError> {
    let schema = reader.metadata().file_metadata().schema().name().to_owned();
    let rows = || {
        let wanted = Type::group_type_builder(&schema).with_fields(wanted).build()?;
        RowIter::from_file_into(reader).project(Some(wanted))
    };
    let mut rows = checked(path, rows)?;
    let mut number = 0;
    while let Some(row) = checked(path, || rows.next().transpose())? {
        if !take(number, row) {
            return Ok(false);
        }
        number += 1;
    }
    Ok(true)
}

fn no_column() -> NoClass {
    NoClass::Absent(format!("no column of classes ({})", LABELS.join(", ")))
}

/// Returns the path, the class and the bytes of a row.
fn cells(row: Row, label_column: Option<&str>) -> (Option<String>, Class, Option<Vec<u8>>) {
    let (mut path, mut label, mut image) = (None, Err(no_column()), None);
    for (name, field) in row.into_columns() {
        if Some(name.as_str()) == label_column {
            label = class(&name, field);
            continue;
        }
        match field {
            Field::Bytes(bytes) => image = Some(bytes.data().to_vec()),
            Field::Group(row) => {
                for (name, field) in row.into_columns() {
                    match (name.as_str(), field) {
                        ("bytes", Field::Bytes(bytes)) => image = Some(bytes.data().to_vec()),
                        ("path", Field::Str(text)) => path = Some(text),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (path, label, image)
}

/// Returns the class in a cell of the column `name`.
fn class(name: &str, field: Field) -> Class {
    let unreadable = |found: String| Err(NoClass::Unreadable(format!("{found} in the column {name:?}")));
    Ok(SampleLabel::Number(match field {
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value,
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => match i64::try_from(value) {
            Ok(value) => value,
            Err(_) => return unreadable(format!("the number {value}, which is too large")),
        },
        Field::Str(word) if word.trim().is_empty() => return unreadable("an empty word".to_owned()),
        Field::Str(word) => return Ok(SampleLabel::Word(word)),
        Field::Null => return Err(NoClass::Absent(format!("null in the column {name:?}"))),
        other => return unreadable(other.to_string()),
    }))
}
