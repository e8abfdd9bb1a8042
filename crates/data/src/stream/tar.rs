//! Shards as WebDataset has them: tar archives in which the files of a sample follow each other and have one name up to the first
//! dot (`dir/0001.jpg`, `dir/0001.cls`, `dir/0001.json`).
//!
//! The image is the file whose whole ending is that of an image, the class is the number or the text in `.cls`, or `label`,
//! `cls` or `class` in the object in `.json`. Other files are passed over.

use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::tar::{Archive, Entry};
use invaspread_files::open_regular;

use super::{Picture, Sample, SampleLabel, missing};
use crate::decode::{ENDINGS, is_too_long};
use crate::error::{DataError, reading};

/// The longest file of a class, in bytes.
const LONGEST_LABEL: u64 = 1 << 20;

/// The length of a block of an archive, in bytes.
const BLOCK: usize = 512;

/// Calls `take` with each sample of `shards` from position `from` on, until it returns false.
pub(super) fn each(
    shards: &[PathBuf],
    from: u64,
    take: &mut dyn FnMut(Sample) -> bool,
) -> Result<(), DataError> {
    let mut position = 0;
    for shard in shards {
        let file = open_regular(shard).map_err(reading)?.into_file();
        if !of_shard(shard, file, from, &mut position, take)? {
            break;
        }
    }
    Ok(())
}

/// The files of a sample that have been read.
struct Open {
    key: String,
    label: Option<SampleLabel>,
    picture: Option<Result<Picture, DataError>>,
}

/// Calls `take` with the samples of one shard. `position` counts the samples of all shards. Returns whether to go on.
pub(crate) fn of_shard(
    shard: &Path,
    mut file: impl Read + Seek,
    from: u64,
    position: &mut u64,
    take: &mut dyn FnMut(Sample) -> bool,
) -> Result<bool, DataError> {
    let path: Arc<Path> = shard.into();
    let damaged = |error: std::io::Error| DataError::Damaged {
        path: shard.to_owned(),
        found: format!("an archive that cannot be read on ({error})"),
        expected: "a whole tar archive".to_owned(),
        advice: "fetch or make the shard again",
    };
    if !ends_whole(&mut file).map_err(damaged)? {
        return Err(damaged(std::io::Error::new(
            ErrorKind::UnexpectedEof,
            "it has no end mark, so samples may be missing",
        )));
    }
    let mut archive = Archive::new(file);
    let mut open: Option<Open> = None;
    let mut close = |open: Option<Open>, position: &mut u64| {
        let Some(Open { key, label, picture }) = open else { return true };
        *position += 1;
        if *position <= from {
            return true;
        }
        let picture =
            picture.unwrap_or_else(|| Err(missing(shard, format!("the sample {key} without an image"))));
        take(Sample::new(&path, &key, label, picture))
    };
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((key, ending)) = split(&name) else { continue };
        if open.as_ref().is_none_or(|open| open.key != key) {
            let done = open.replace(Open { key: key.to_owned(), label: None, picture: None });
            if !close(done, position) {
                return Ok(false);
            }
        }
        let Some(open) = &mut open else { continue };
        // Samples before the first that is wanted are counted, not read.
        if *position < from {
            continue;
        }
        if ENDINGS.contains(&ending.as_str()) {
            open.picture = Some(match open.picture.take() {
                Some(_) => Err(missing(shard, format!("the sample {key} with two images"))),
                None => read_image(shard, &name, &mut entry).map_err(damaged)?,
            });
        } else if let Some(label) = read_label(&ending, &mut entry).map_err(damaged)? {
            // A class of its own counts more than one among other things.
            if ending == "cls" || open.label.is_none() {
                open.label = Some(label);
            }
        }
    }
    Ok(close(open, position))
}

/// Returns whether an archive ends with a block of zeros. One that was cut between two files would else look whole. Leaves the file at
/// its beginning.
fn ends_whole(file: &mut (impl Read + Seek)) -> std::io::Result<bool> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut last = [1; BLOCK];
    if length >= BLOCK as u64 {
        file.seek(SeekFrom::End(-(BLOCK as i64)))?;
        file.read_exact(&mut last)?;
    }
    file.rewind()?;
    Ok(last == [0; BLOCK])
}

/// Splits a path into the key of its sample and the rest after the first dot of the file's name, in lowercase. Hidden files have no
/// key.
fn split(name: &str) -> Option<(&str, String)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + name[start..].find('.').filter(|&dot| dot > 0)?;
    Some((&name[..dot], name[dot + 1..].to_lowercase()))
}

fn read_image<R: Read>(
    shard: &Path,
    name: &str,
    entry: &mut Entry<'_, R>,
) -> std::io::Result<Result<Picture, DataError>> {
    let length = entry.size();
    if is_too_long(length) {
        return Ok(Err(missing(shard, format!("the image {name} of {length} bytes, too long for an image"))));
    }
    let bytes = whole(entry, length)?;
    Ok(Ok(Picture::Bytes(bytes)))
}

/// Reads an entry of `length` bytes; fewer are an error.
fn whole<R: Read>(entry: &mut Entry<'_, R>, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Returns the class in an entry with the given ending, if it holds one.
fn read_label<R: Read>(ending: &str, entry: &mut Entry<'_, R>) -> std::io::Result<Option<SampleLabel>> {
    let length = entry.size();
    if !matches!(ending, "cls" | "json") || length > LONGEST_LABEL {
        return Ok(None);
    }
    let bytes = whole(entry, length)?;
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(None) };
    if ending == "cls" {
        return Ok(of_text(text));
    }
    let Ok(object) = serde_json::from_str::<serde_json::Value>(text) else { return Ok(None) };
    let found = ["label", "cls", "class"].iter().find_map(|key| object.get(key));
    Ok(found.and_then(|found| match found {
        serde_json::Value::Number(number) => number.as_i64().map(SampleLabel::Number),
        serde_json::Value::String(word) => Some(SampleLabel::Word(word.clone())),
        _ => None,
    }))
}

fn of_text(text: &str) -> Option<SampleLabel> {
    let text = text.trim();
    match text.parse() {
        Ok(number) => Some(SampleLabel::Number(number)),
        Err(_) => (!text.is_empty()).then(|| SampleLabel::Word(text.to_owned())),
    }
}
