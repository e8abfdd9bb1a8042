//! The formats of a file of embeddings. Each is written from the unfinished file, batch after batch, so that the rows need not fit in
//! memory, to a temporary name that is renamed when all is there.
//!
//! | ending | content |
//! |---|---|
//! | `.npz` | `embeddings` (n, D; f32), `labels` (n; i64, or words), `names` (n; words) |
//! | `.npy` | (n, D; f32); beside it `.labels.txt` and `.names.txt`, one a line |
//! | `.safetensors` | `embeddings` (n, D; f32), `labels` (n; i64: numbers, or places in `classes` of the seal), `names` (u8: UTF-8, each name ended by a line break); sealed |
//! | `.parquet` | columns `name`, `label` (i64 or words), `embedding` (list of f32) |
//!
//! Labels are there if every image has one. They are words if one of them is a word.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invaspread_data::SampleLabel;
use invaspread_models::{SealedTensor, write_sealed_to};
use invaspread_record::{RecordError, write_with};
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use safetensors::tensor::Dtype;
use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::EmbedError;
use super::part::{Batch, Part};
use crate::embeddings::{add_word, digest_key};

/// A format, by the ending of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// numpy's archive.
    Npz,
    /// numpy's plain array, with text files beside it.
    Npy,
    /// safetensors under this program's seal.
    Safetensors,
    /// Parquet.
    Parquet,
}

/// The rows of a Parquet row group, at least.
const ROW_GROUP: usize = 8192;

impl Format {
    /// Returns the format that the ending of `path` names.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "npz" => Some(Self::Npz),
            "npy" => Some(Self::Npy),
            "safetensors" => Some(Self::Safetensors),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// Returns all files that an output at `path` consists of, the embeddings first.
    pub fn files(self, path: &Path) -> Vec<PathBuf> {
        let mut files = vec![path.to_path_buf()];
        if self == Self::Npy {
            files.extend(["labels.txt", "names.txt"].map(|ending| path.with_extension(ending)));
        }
        files
    }

    /// Writes the rows of `part` to `path` and returns the files. The embeddings come last, so that nothing is missing beside them.
    pub(super) fn write(self, path: &Path, part: &Part, content: &Value) -> Result<Vec<PathBuf>, EmbedError> {
        let write = |path: &Path, fill: &dyn Fn(&mut File) -> io::Result<()>| {
            write_with(path, fill).map_err(RecordError::io("write", path))
        };
        let labeled = has_labels(part);
        let mut files = self.files(path);
        match self {
            Self::Npz => write(path, &|file| npz(file, part))?,
            Self::Safetensors => write(path, &|file| safetensors_to(file, part, content))?,
            Self::Parquet => write(path, &|file| parquet_to(file, part).map_err(io::Error::other))?,
            Self::Npy => {
                let names = files.pop().unwrap_or_default();
                let labels = files.pop().unwrap_or_default();
                write(&names, &|file| buffered(file, |out| lines(out, part, |batch| batch.names.clone())))?;
                if labeled {
                    let words =
                        |batch: &Batch| batch.labels.iter().flatten().map(ToString::to_string).collect();
                    write(&labels, &|file| buffered(file, |out| lines(out, part, words)))?;
                    files.push(labels);
                }
                files.push(names);
                write(path, &|file| buffered(file, |out| npy_rows(out, part)))?;
            }
        }
        Ok(files)
    }
}

/// Returns whether every row has a class.
fn has_labels(part: &Part) -> bool {
    part.summary().labeled == part.summary().rows
}

fn buffered(file: &mut File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    fill(&mut out)?;
    out.flush()
}

fn lines(out: &mut dyn Write, part: &Part, texts: impl Fn(&Batch) -> Vec<String>) -> io::Result<()> {
    part.each(&mut |batch| texts(&batch).iter().try_for_each(|text| writeln!(out, "{text}")))
}

fn bytes_of(rows: &[f32]) -> Vec<u8> {
    rows.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes the header of a `.npy` file, version 1: its length is a multiple of 64.
fn npy_header(out: &mut dyn Write, element: &str, shape: &str) -> io::Result<()> {
    let dict = format!("{{'descr': '{element}', 'fortran_order': False, 'shape': ({shape}), }}");
    let filled = (10 + dict.len() + 1).next_multiple_of(64) - 11;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(filled as u16 + 1).to_le_bytes())?;
    writeln!(out, "{dict:<filled$}")
}

fn npy_rows(out: &mut dyn Write, part: &Part) -> io::Result<()> {
    npy_header(out, "<f4", &format!("{}, {}", part.summary().rows, part.length()))?;
    part.each(&mut |batch| out.write_all(&bytes_of(&batch.rows)))
}

/// Writes words of at most `longest` characters, each in four bytes a character (numpy's `U`).
fn npy_words(
    out: &mut dyn Write,
    part: &Part,
    longest: usize,
    words: impl Fn(&Batch) -> Vec<String>,
) -> io::Result<()> {
    let longest = longest.max(1);
    npy_header(out, &format!("<U{longest}"), &format!("{},", part.summary().rows))?;
    part.each(&mut |batch| {
        for word in words(&batch) {
            let mut characters: Vec<u8> = word.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            characters.resize(4 * longest, 0);
            out.write_all(&characters)?;
        }
        Ok(())
    })
}

fn npz(file: &mut File, part: &Part) -> io::Result<()> {
    let mut archive = ZipWriter::new(file);
    // Without a time, so that equal rows give equal bytes; and for members above 4 GiB.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .large_file(true);
    let summary = part.summary();
    archive.start_file("embeddings.npy", options)?;
    npy_rows(&mut archive, part)?;
    if has_labels(part) {
        archive.start_file("labels.npy", options)?;
        if summary.has_words {
            let words = |batch: &Batch| batch.labels.iter().flatten().map(ToString::to_string).collect();
            npy_words(&mut archive, part, summary.longest_label, words)?;
        } else {
            npy_header(&mut archive, "<i8", &format!("{},", summary.rows))?;
            part.each(&mut |batch| archive.write_all(&numbers(&batch)))?;
        }
    }
    archive.start_file("names.npy", options)?;
    npy_words(&mut archive, part, summary.longest_name, |batch| batch.names.clone())?;
    archive.finish()?;
    Ok(())
}

/// Returns the classes of a batch, all of which are numbers.
fn numbers(batch: &Batch) -> Vec<u8> {
    let number = |label: &SampleLabel| match label {
        SampleLabel::Number(number) => number.to_le_bytes(),
        SampleLabel::Word(word) => unreachable!("the class {word} is not a number"),
    };
    batch.labels.iter().flatten().flat_map(number).collect()
}

fn safetensors_to(file: &mut File, part: &Part, content: &Value) -> io::Result<()> {
    let summary = part.summary();
    let rows = summary.rows as usize;
    let mut content = content.clone();
    let classes: Vec<&String> = summary.words.iter().collect();
    if has_labels(part) && summary.has_words {
        content["classes"] = classes.clone().into_iter().cloned().collect();
    }
    let embeddings =
        |take: &mut dyn FnMut(&[u8]) -> io::Result<()>| part.each(&mut |batch| take(&bytes_of(&batch.rows)));
    let labels = |take: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
        part.each(&mut |batch| {
            if !summary.has_words {
                return take(&numbers(&batch));
            }
            let place = |label: &SampleLabel| {
                // All words are among the classes, which are in order.
                let place = classes.binary_search(&&label.to_string()).unwrap_or_default();
                (place as i64).to_le_bytes()
            };
            take(&batch.labels.iter().flatten().flat_map(place).collect::<Vec<u8>>())
        })
    };
    let names = |take: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
        part.each(&mut |batch| {
            let text: String = batch.names.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
            take(text.as_bytes())
        })
    };
    let name_bytes = (summary.name_bytes + summary.rows) as usize;
    let mut tensors = vec![
        SealedTensor {
            name: "embeddings",
            dtype: Dtype::F32,
            shape: vec![rows, part.length()],
            bytes: &embeddings,
        },
        SealedTensor { name: "names", dtype: Dtype::U8, shape: vec![name_bytes], bytes: &names },
    ];
    if has_labels(part) {
        tensors.push(SealedTensor { name: "labels", dtype: Dtype::I64, shape: vec![rows], bytes: &labels });
    }
    buffered(file, |out| write_sealed_to(out, tensors, content.to_string()))
}

fn parquet_to(file: &mut File, part: &Part) -> Result<(), ParquetError> {
    let summary = part.summary();
    let label = match (has_labels(part), summary.has_words) {
        (false, _) => "",
        (true, true) => "required binary label (utf8);",
        (true, false) => "required int64 label;",
    };
    let schema = format!(
        "message embeddings {{
            required binary name (utf8);
            {label}
            required group embedding (list) {{ repeated group list {{ required float element; }} }}
        }}"
    );
    let schema = Arc::new(parse_message_type(&schema)?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    let mut held = Batch::default();
    let mut digests = Digests::default();
    let mut failed = None;
    let read = part.each(&mut |mut batch| {
        held.names.append(&mut batch.names);
        held.labels.append(&mut batch.labels);
        held.rows.append(&mut batch.rows);
        if held.names.len() >= ROW_GROUP {
            let rows = std::mem::take(&mut held);
            digests.add(&rows, summary.has_words);
            if let Err(error) = writer.next_row_group().and_then(|group| row_group(group, &rows, part)) {
                failed = Some(error);
                return Err(io::ErrorKind::Other.into());
            }
        }
        Ok(())
    });
    if let Some(error) = failed {
        return Err(error);
    }
    read?;
    if !held.names.is_empty() {
        digests.add(&held, summary.has_words);
        row_group(writer.next_row_group()?, &held, part)?;
    }
    for (column, digest) in [("embedding", &digests.rows), ("label", &digests.labels)] {
        let value = digest.finalize().to_hex().to_string();
        writer.append_key_value_metadata(KeyValue::new(digest_key(column), value));
    }
    writer.close()?;
    Ok(())
}

/// The digests of the columns that `measure` reads, since the format's writer makes no checksums.
#[derive(Default)]
struct Digests {
    rows: blake3::Hasher,
    labels: blake3::Hasher,
}

impl Digests {
    /// Adds rows, whose labels are written as words if `has_words` says so.
    fn add(&mut self, batch: &Batch, has_words: bool) {
        for value in &batch.rows {
            self.rows.update(&value.to_le_bytes());
        }
        for label in batch.labels.iter().flatten() {
            match label {
                SampleLabel::Number(number) if !has_words => {
                    self.labels.update(&number.to_le_bytes());
                }
                label => add_word(&mut self.labels, label.to_string().as_bytes()),
            }
        }
    }
}

fn row_group(
    mut group: SerializedRowGroupWriter<'_, &mut File>,
    rows: &Batch,
    part: &Part,
) -> Result<(), ParquetError> {
    let text = |texts: Vec<String>| {
        texts.into_iter().map(|text| ByteArray::from(text.into_bytes())).collect::<Vec<_>>()
    };
    let mut texts = vec![rows.names.clone()];
    if part.summary().has_words {
        texts.push(rows.labels.iter().flatten().map(ToString::to_string).collect());
    }
    let mut texts = texts.into_iter().map(text);
    while let Some(mut column) = group.next_column()? {
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(typed) => {
                typed.write_batch(&texts.next().unwrap_or_default(), None, None)?;
            }
            ColumnWriter::Int64ColumnWriter(typed) => {
                let number = |label: &SampleLabel| {
                    if let SampleLabel::Number(number) = label { Some(*number) } else { None }
                };
                let values: Vec<i64> = rows.labels.iter().flatten().filter_map(number).collect();
                typed.write_batch(&values, None, None)?;
            }
            ColumnWriter::FloatColumnWriter(typed) => {
                // Every list has elements; a list begins where the repetition is 0.
                let begins: Vec<i16> =
                    (0..rows.rows.len()).map(|i| i16::from(i % part.length() != 0)).collect();
                typed.write_batch(&rows.rows, Some(&vec![1; rows.rows.len()]), Some(&begins))?;
            }
            _ => unreachable!("the schema has no other type"),
        }
        column.close()?;
    }
    group.close()?;
    Ok(())
}
