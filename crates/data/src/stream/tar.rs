//! Shards as WebDataset has them: tar archives in which the files of a sample follow each other and have one name up to the first
//! dot (`dir/0001.jpg`, `dir/0001.cls`, `dir/0001.json`).
//!
//! The image is the file whose whole ending is that of an image, the class is the number or the text in `.cls`, or `label`,
//! `cls` or `class` in the object in `.json`. Other files are passed over.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invaspread_files::open_regular;

use super::members::{Member, Members};
use super::{Picture, Sample, SampleLabel, disguise, missing};
use crate::decode::{ENDINGS, is_too_long};
use crate::error::{DataError, reading};

/// The longest file of a class, in bytes.
const LONGEST_LABEL: u64 = 1 << 20;

/// The place of the bytes of an image file in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The position of the first byte.
    pub(crate) start: u64,
    /// The length in bytes.
    pub(crate) length: u64,
}

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

/// Calls `take` with the samples of one shard. `position` counts the samples of all shards. Returns whether to go on.
pub(crate) fn of_shard(
    shard: &Path,
    file: impl Read + Seek,
    from: u64,
    position: &mut u64,
    take: &mut dyn FnMut(Sample) -> bool,
) -> Result<bool, DataError> {
    let path: Arc<Path> = shard.into();
    walk(shard, file, from, position, Members::read, &mut |key, label, picture| {
        take(Sample::new(&path, key, label, picture.map(Picture::Bytes)))
    })
}

/// Calls `take` with the name, the class and the place of the image of each sample of a shard, until it returns false. No image is
/// read.
pub(super) fn places(shard: &Path, take: &mut Take<'_, Place>) -> Result<(), DataError> {
    let file = open_regular(shard).map_err(reading)?.into_file();
    let place =
        |_: &mut Members<_>, member: &Member| Ok(Place { start: member.start, length: member.length });
    walk(shard, file, 0, &mut 0, place, take).map(drop)
}

/// The files of a sample that have been read.
struct Open<P> {
    key: String,
    label: Option<SampleLabel>,
    picture: Option<Result<P, DataError>>,
}

/// Takes the name, the class and the image of a sample; returns whether to go on.
pub(super) type Take<'a, P> = dyn FnMut(&str, Option<SampleLabel>, Result<P, DataError>) -> bool + 'a;

/// Calls `take` with the samples of a shard from position `from` on. An image is what `picture` makes of its file.
fn walk<R: Read + Seek, P>(
    shard: &Path,
    mut file: R,
    from: u64,
    position: &mut u64,
    picture: impl Fn(&mut Members<R>, &Member) -> io::Result<P>,
    take: &mut Take<'_, P>,
) -> Result<bool, DataError> {
    let damaged = |error: io::Error| DataError::Damaged {
        path: shard.to_owned(),
        found: format!("an archive that cannot be read on ({error})"),
        expected: "a whole tar archive".to_owned(),
        advice: "fetch or make the shard again",
    };
    let mut head = Vec::new();
    (&mut file).take(disguise::HEAD as u64).read_to_end(&mut head).map_err(damaged)?;
    disguise::check(shard, &head)?;
    let mut members = Members::new(file).map_err(damaged)?;
    let mut open: Option<Open<P>> = None;
    let mut close = |open: Option<Open<P>>, position: &mut u64| {
        let Some(Open { key, label, picture }) = open else { return true };
        *position += 1;
        if *position <= from {
            return true;
        }
        let picture =
            picture.unwrap_or_else(|| Err(missing(shard, format!("the sample {key} without an image"))));
        take(&key, label, picture)
    };
    while let Some(member) = members.next_file().map_err(damaged)? {
        let name = String::from_utf8_lossy(&member.name).into_owned();
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
            let length = member.length;
            open.picture = Some(match open.picture.take() {
                Some(_) => Err(missing(shard, format!("the sample {key} with two images"))),
                None if is_too_long(length) => {
                    let found = format!("the image {name} of {length} bytes, too long for an image");
                    Err(missing(shard, found))
                }
                None => Ok(picture(&mut members, &member).map_err(damaged)?),
            });
        } else if let Some(label) = read_label(&ending, &mut members, &member).map_err(damaged)? {
            // A class of its own counts more than one among other things.
            if ending == "cls" || open.label.is_none() {
                open.label = Some(label);
            }
        }
    }
    Ok(close(open, position))
}

/// Splits a path into the key of its sample and the rest after the first dot of the file's name, in lowercase. Hidden files have no
/// key.
fn split(name: &str) -> Option<(&str, String)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + name[start..].find('.').filter(|&dot| dot > 0)?;
    Some((&name[..dot], name[dot + 1..].to_lowercase()))
}

/// Returns the class in a file with the given ending, if it holds one.
fn read_label<R: Read + Seek>(
    ending: &str,
    members: &mut Members<R>,
    member: &Member,
) -> io::Result<Option<SampleLabel>> {
    if !matches!(ending, "cls" | "json") || member.length > LONGEST_LABEL {
        return Ok(None);
    }
    let bytes = members.read(member)?;
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
