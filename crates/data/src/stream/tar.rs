//! Shards as WebDataset has them: tar archives in which the files of a sample follow each other. Their key is their name up to the first
//! dot of its last part (`dir/0001`), the rest is their extension (`jpg`, `cls`, `json`, `left.jpg`).
//!
//! The image is the file whose whole extension is that of an image, as a sample may have masks beside it (`seg.png`); without one, it is
//! the only file whose extension ends in that of an image (`v2.jpg`). The class is in the files `cls` and `json`, also behind what
//! the image's extension begins with (`v2.cls`). Other files are passed over.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use invaspread_files::open_regular;

use super::class::{self, Class, ClassFile, NoClass};
use super::members::{Member, Members};
use super::{Fault, Picture, Sample, disguise};
use crate::decode::{ENDINGS, is_too_long};
use crate::error::{DataError, reading};

/// The longest file of a class, in bytes: a `.json` may hold other things too.
const LONGEST_CLASS: u64 = 16 << 20;

/// The most extensions of a sample without an image that are named.
const MOST_NAMED: usize = 5;

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
    walk(shard, file, from, position, Members::read, &mut |key, class, picture| {
        let picture = picture.map(Picture::Bytes).map_err(|fault| fault.of(shard));
        take(Sample::new(&path, key, class.ok(), picture))
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

/// Takes the name, the class and the image of a sample; returns whether to go on. The class of a sample that cannot be understood is
/// a fault of its image too, so that the sample is not used without it.
pub(super) type Take<'a, P> = dyn FnMut(&str, Class, Result<P, Fault>) -> bool + 'a;

/// A file of a sample.
struct File {
    /// Its whole name.
    name: String,
    /// The extension before its last dot; empty if there is none.
    before: String,
    /// The extension after its last dot, in lowercase.
    ending: String,
    member: Member,
}

/// The files of a sample that have been met.
struct Open {
    key: String,
    images: Vec<File>,
    classes: Vec<File>,
    /// The extensions of the first other files.
    others: Vec<String>,
}

impl Open {
    fn new(key: &str) -> Self {
        Self { key: key.to_owned(), images: Vec::new(), classes: Vec::new(), others: Vec::new() }
    }

    fn add(&mut self, name: &str, extension: &str, member: Member) {
        let (before, ending) = extension.rsplit_once('.').unwrap_or(("", extension));
        let files = if ENDINGS.contains(&ending) {
            &mut self.images
        } else if matches!(ending, "cls" | "json") {
            &mut self.classes
        } else {
            if self.others.len() < MOST_NAMED {
                self.others.push(format!(".{extension}"));
            }
            return;
        };
        files.push(File {
            name: name.to_owned(),
            before: before.to_owned(),
            ending: ending.to_owned(),
            member,
        });
    }

    /// Returns the image of the sample.
    fn image(&self, shard: &Path) -> Result<&File, Fault> {
        let Self { key, images, classes, others } = self;
        let alone: Vec<&File> = images.iter().filter(|file| file.before.is_empty()).collect();
        let (found, passed_over) = match alone.len() {
            0 => (images.iter().collect(), 0),
            count => (alone, images.len() - count),
        };
        match &found[..] {
            [image] if is_too_long(image.member.length) => Err(Fault::image(format!(
                "the image {} of {} bytes, too long for an image",
                image.name, image.member.length
            ))),
            [image] => {
                if passed_over > 0 {
                    warn_of_others(shard, images, image);
                }
                Ok(image)
            }
            [] => {
                let classes = classes.iter().map(|file| format!(".{}", file.ending));
                let all: Vec<String> = others.iter().cloned().chain(classes).collect();
                Err(Fault::image(format!("the sample {key} without an image (only {})", all.join(", "))))
            }
            [first, second] => Err(Fault::image(format!(
                "the sample {key} with two images ({} and {})",
                first.name, second.name
            ))),
            [first, second, ..] => Err(Fault::image(format!(
                "the sample {key} with {} images ({}, {}, ...)",
                found.len(),
                first.name,
                second.name
            ))),
        }
    }

    /// Reads the class of the sample whose image has `before` before its ending.
    fn class<R: Read + Seek>(&self, members: &mut Members<R>, before: &str) -> io::Result<Class> {
        let mut found = Vec::new();
        for file in &self.classes {
            if !file.before.is_empty() && file.before != before {
                continue;
            }
            let class_file = ClassFile { name: file.name.clone(), is_json: file.ending == "json" };
            let length = file.member.length;
            let class = if length > LONGEST_CLASS {
                Err(NoClass::Unreadable(format!("{} of {length} bytes, too long for a class", file.name)))
            } else {
                class::read(&class_file, &members.read(&file.member)?)
            };
            found.push((class_file, class));
        }
        Ok(class::agreed(found))
    }
}

/// Warns once in a process that samples have images beside those that are taken: a `cat.v2.jpg` that was meant as a sample of its own
/// has the key of `cat.jpg`.
fn warn_of_others(shard: &Path, images: &[File], taken: &File) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let other = images.iter().find(|file| !file.before.is_empty());
    if let Some(other) = other
        && !WARNED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            shard = %shard.display(),
            "a sample has the image {} beside {}, and so have perhaps others: images whose extension has several parts are passed over \
             where there is one with a simple extension",
            other.name,
            taken.name
        );
    }
}

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
    let mut open: Option<Open> = None;
    let mut close = |open: Option<Open>, members: &mut Members<R>, position: &mut u64| {
        let Some(open) = open else { return Ok(true) };
        *position += 1;
        // Samples before the first that is wanted are counted, not read.
        if *position <= from {
            return Ok(true);
        }
        let image = open.image(shard);
        let class = open.class(members, image.as_ref().map_or("", |image| image.before.as_str()))?;
        let picture = match (image, &class) {
            (Err(fault), _) => Err(fault),
            (Ok(_), Err(NoClass::Unreadable(why))) => {
                Err(Fault::class(format!("the sample {} with {why}", open.key)))
            }
            (Ok(image), _) => Ok(picture(members, &image.member)?),
        };
        Ok::<_, io::Error>(take(&open.key, class, picture))
    };
    while let Some(member) = members.next_file().map_err(damaged)? {
        let name = String::from_utf8_lossy(&member.name).into_owned();
        let Some((key, extension)) = split(&name) else { continue };
        if open.as_ref().is_none_or(|open| open.key != key) {
            let done = open.replace(Open::new(key));
            if !close(done, &mut members, position).map_err(damaged)? {
                return Ok(false);
            }
        }
        if let Some(open) = &mut open {
            open.add(&name, &extension, member);
        }
    }
    close(open, &mut members, position).map_err(damaged)
}

/// Splits a path, as WebDataset does, into the key of its sample and the extension after the first dot of the file's name, in
/// lowercase. Hidden files have no key.
fn split(name: &str) -> Option<(&str, String)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + name[start..].find('.').filter(|&dot| dot > 0)?;
    Some((&name[..dot], name[dot + 1..].to_lowercase()))
}
