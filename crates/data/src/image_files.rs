//! Images as their files hold them, each read and decoded when it is needed, in any order and by several threads.
//!
//! Image files are opened one by one. Of tar shards, the places of the images are listed once, and each image is read from its place.
//! The images of Parquet files cannot be reached one by one: their files are copied as they are, still encoded, into a temporary file
//! without a name, which the system removes when it is closed, and are read from there.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use invaspread_augment::{Image, ImageSource, SourceError, SourceImage};
use invaspread_files::open_regular;
use rayon::prelude::*;

use crate::decode;
use crate::error::{DataError, reading};
use crate::records::read_at;
use crate::stream::{Content, Fault, ImageStream, Place, SampleLabel, Shards};

/// Images of any sizes, each with a name and perhaps a class.
#[derive(Debug)]
pub struct ImageFiles {
    images: Vec<Stored>,
    /// Sentences about the input: files that are passed over, where labels come from.
    pub notes: Vec<String>,
    /// The name of the first image of tar shards without a class, and why it has none.
    unlabeled: Option<Unlabeled>,
    /// The advice for an image that cannot be read.
    advice: &'static str,
}

/// The name of an image without a class, and a sentence that says why.
type Unlabeled = (String, String);

/// An image that is not read yet.
#[derive(Debug)]
struct Stored {
    name: String,
    label: Option<SampleLabel>,
    place: Source,
}

#[derive(Debug)]
enum Source {
    /// A file of its own.
    File(PathBuf),
    /// A part of a file.
    Part { holder: Arc<Holder>, place: Place },
    /// There is no image, for this reason.
    Missing(Arc<Holder>, Fault),
}

/// A file that holds several images.
#[derive(Debug)]
struct Holder {
    /// The path that errors name: that of the shard, also where its images were copied.
    path: PathBuf,
    /// The open file; `None` for a shard that is opened for each image.
    file: Option<Arc<File>>,
}

/// The most shards that are kept open: systems often allow a process a thousand open files.
const MOST_OPEN: usize = 256;

impl Holder {
    fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; place.length as usize];
        match &self.file {
            Some(file) => read_at(file, &mut bytes, place.start)?,
            None => read_at(open_regular(&self.path)?.file(), &mut bytes, place.start)?,
        }
        Ok(bytes)
    }
}

impl ImageFiles {
    /// Opens `input`, which is what [`ImageStream::open`] takes; `advice` says what to do about a broken image. No image is decoded.
    ///
    /// The images of a folder that has a folder for each class come class by class, as in torchvision's `ImageFolder`.
    ///
    /// # Errors
    /// If there is nothing at `input`, it holds no images, it is of another kind, or a shard cannot be read.
    pub fn open(input: &str, advice: &'static str) -> Result<Self, DataError> {
        let stream = ImageStream::open(input)?;
        let mut notes = stream.notes.clone();
        let mut unlabeled = None;
        let images = match stream.content() {
            Content::Files(files) => {
                let mut images: Vec<Stored> = files
                    .iter()
                    .map(|(path, name, label)| Stored {
                        name: name.clone(),
                        label: label.clone(),
                        place: Source::File(path.clone()),
                    })
                    .collect();
                // A class may have folders within it, which lie behind other classes in the order of paths.
                images.sort_by(|one, other| one.label.cmp(&other.label));
                images
            }
            Content::Shards(Shards::Tar, files) => in_tar(files, &mut unlabeled)?,
            Content::Shards(Shards::Parquet, files) => copied(files, &mut notes)?,
            Content::Split => Vec::new(),
        };
        if let Some((_, first)) = &unlabeled
            && images.iter().all(|image| image.label.is_none())
        {
            notes.push(format!("the images have no classes, such as {first}"));
        }
        Ok(Self { images, notes, unlabeled, advice })
    }

    /// Leaves out the images that cannot be decoded, and returns their errors. Decodes every image.
    pub fn leave_out_broken(&mut self) -> Vec<DataError> {
        let errors: Vec<Option<DataError>> =
            (0..self.images.len()).into_par_iter().map(|index| self.load(index).err()).collect();
        let mut broken = errors.iter().map(Option::is_some);
        self.images.retain(|_| broken.next() != Some(true));
        errors.into_iter().flatten().collect()
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Returns whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Returns the name of each image.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|image| image.name.as_str())
    }

    /// Returns the class of each image, as the input gives it.
    pub fn labels(&self) -> impl Iterator<Item = Option<&SampleLabel>> {
        self.images.iter().map(|image| image.label.as_ref())
    }

    /// Returns the first image without a class, and why it has none if a tar shard holds it.
    pub fn unlabeled(&self) -> Option<&str> {
        let name = &self.images.iter().find(|image| image.label.is_none())?.name;
        // The one that was found when the shards were listed may have been left out since.
        let told = self.unlabeled.as_ref().filter(|(first, _)| first == name);
        Some(told.map_or(name, |(_, told)| told))
    }

    /// Reads and decodes image `index`.
    ///
    /// # Errors
    /// If it cannot be read or decoded; the error names its file and, where that holds several images, the image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn load(&self, index: usize) -> Result<Image, DataError> {
        let Stored { name, place, .. } = &self.images[index];
        match place {
            Source::File(path) => decode::load(path, self.advice),
            Source::Part { holder, place } => {
                let bytes = holder.read(*place).map_err(|error| DataError::Io {
                    source: io::Error::new(
                        error.kind(),
                        format!("failed to read the image {name} of {}: {error}", holder.path.display()),
                    ),
                    advice: self.advice,
                })?;
                decode::decode(&bytes).map_err(|found| {
                    decode::damaged(&holder.path, format!("the image {name} with {found}"), self.advice)
                })
            }
            Source::Missing(holder, Fault { found, expected }) => Err(DataError::Damaged {
                path: holder.path.clone(),
                found: found.clone(),
                expected: expected.clone(),
                advice: self.advice,
            }),
        }
    }
}

/// Lists the images in tar shards. `unlabeled` becomes the first without a class, and why it has none.
fn in_tar(shards: &[PathBuf], unlabeled: &mut Option<Unlabeled>) -> Result<Vec<Stored>, DataError> {
    let mut images = Vec::new();
    for path in shards {
        let open = || Ok::<_, DataError>(Arc::new(open_regular(path).map_err(reading)?.into_file()));
        let file = (shards.len() <= MOST_OPEN).then(open).transpose()?;
        let holder = Arc::new(Holder { path: path.clone(), file });
        Shards::places(path, &mut |name, label, place| {
            let place = match place {
                Ok(place) => Source::Part { holder: Arc::clone(&holder), place },
                Err(fault) => Source::Missing(Arc::clone(&holder), fault),
            };
            let label = label.inspect_err(|why| {
                unlabeled.get_or_insert_with(|| (name.clone(), why.clone()));
            });
            let label = label.ok();
            images.push(Stored { name, label, place });
        })?;
    }
    if images.is_empty() {
        return Err(Shards::Tar.empty(shards, ""));
    }
    Ok(images)
}

/// Copies the images of Parquet files, as they are, into a temporary file.
fn copied(files: &[PathBuf], notes: &mut Vec<String>) -> Result<Vec<Stored>, DataError> {
    let copy = Arc::new(tempfile::tempfile().map_err(|error| unwritten(&error))?);
    let mut out = BufWriter::with_capacity(1 << 20, &*copy);
    let (mut images, mut end, mut outcome) = (Vec::new(), 0, Ok(()));
    for path in files {
        let holder = Arc::new(Holder { path: path.clone(), file: Some(Arc::clone(&copy)) });
        Shards::Parquet.each(std::slice::from_ref(path), &mut |sample| {
            let (name, label) = (sample.name.clone(), sample.label.clone());
            let place = match sample.bytes() {
                Ok(bytes) => {
                    let place = Place { start: end, length: bytes.len() as u64 };
                    end += place.length;
                    outcome = out.write_all(&bytes);
                    Source::Part { holder: Arc::clone(&holder), place }
                }
                Err(fault) => Source::Missing(Arc::clone(&holder), fault),
            };
            images.push(Stored { name, label, place });
            outcome.is_ok()
        })?;
    }
    outcome.and_then(|()| out.flush()).map_err(|error| unwritten(&error))?;
    drop(out);
    notes.push(format!(
        "the {} images were copied, as they are, into a temporary file of {end} bytes",
        images.len()
    ));
    Ok(images)
}

fn unwritten(error: &io::Error) -> DataError {
    let folder = std::env::temp_dir();
    let text = format!("failed to copy the images into a temporary file in {}: {error}", folder.display());
    DataError::Io {
        source: io::Error::new(error.kind(), text),
        advice: "check that its disk has room for the images, or name another folder in the variable TMPDIR",
    }
}

impl ImageSource for ImageFiles {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        Ok(self.load(index)?.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::sample::png;
    use crate::sample::shards::{hub, shard};

    /// A picture of one color, whose width tells it from others.
    fn picture(value: u8) -> Vec<u8> {
        png((2 + u32::from(value), 2), |_, _| [value; 3])
    }

    /// The name, the class, and the width of each image or the error.
    fn all(images: &ImageFiles) -> Vec<(String, String, Result<usize, String>)> {
        let named = images.names().zip(images.labels()).enumerate();
        named
            .map(|(index, (name, label))| {
                let label = label.map_or_else(|| "-".to_owned(), SampleLabel::to_string);
                let width = images.load(index).map(|image| image.width).map_err(|error| error.to_string());
                (name.to_owned(), label, width)
            })
            .collect()
    }

    #[test]
    fn images_of_each_kind_of_input_are_read_from_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        let pictures = [0, 1, 2].map(picture);
        let files: [(&str, &[u8]); 7] = [
            ("x.png", &pictures[0]),
            ("x.cls", b"4"),
            ("y.png", &pictures[1]),
            ("z.txt", b"no image"),
            ("v.png", b"junk"),
            ("w.png", &pictures[2]),
            ("w.cls", b"5"),
        ];
        shard(&at("s-0.tar"), &files[..3]);
        shard(&at("s-1.tar"), &files[3..]);
        let input = folder.path().join("s-{0..1}.tar");
        let mut images = ImageFiles::open(input.to_str().unwrap(), "do this").unwrap();
        let found = all(&images);
        let own = |name: &str, label: &str, width| (name.to_owned(), label.to_owned(), Ok(width));
        assert_eq!(
            [&found[0], &found[1], &found[4]],
            [&own("x", "4", 2), &own("y", "-", 3), &own("w", "5", 4)]
        );
        let errors = [&found[2].2, &found[3].2].map(|error| error.clone().unwrap_err());
        assert!(errors[0].contains("s-1.tar: found the sample z without an image"), "{}", errors[0]);
        assert!(errors[1].contains("the image v with bytes of no known") && errors[1].ends_with("do this"));
        assert_eq!(images.leave_out_broken().len(), 2);
        assert_eq!(all(&images), [found[0].clone(), found[1].clone(), found[4].clone()]);

        // Images without a class are told with the reason, and a class that cannot be understood is an error of its image.
        let classes: [(&str, &[u8]); 6] = [
            ("a.png", &pictures[0]),
            ("a.json", b"{\"label\": 1.5}"),
            ("b.png", &pictures[1]),
            ("b.json", b"{}"),
            ("c.png", &pictures[2]),
            ("c.cls", b"3"),
        ];
        shard(&at("t.tar"), &classes);
        let mut images = ImageFiles::open(at("t.tar").to_str().unwrap(), "do this").unwrap();
        let told = images.unlabeled().unwrap();
        assert!(told.starts_with("a of t.tar, with the number 1.5 in the field \"label\""), "{told}");
        let error = images.load(0).unwrap_err().to_string();
        let expected =
            "in the field \"label\" of a.json, expected one class, a whole number or a word; do this";
        assert!(error.ends_with(expected), "{error}");
        assert_eq!(images.leave_out_broken().len(), 1);
        assert_eq!(images.unlabeled(), Some("b"));
        shard(&at("t.tar"), &classes[2..4]);
        let images = ImageFiles::open(at("t.tar").to_str().unwrap(), "do this").unwrap();
        let note = "the images have no classes, such as b of t.tar, with none of the fields";
        assert!(images.notes[0].starts_with(note), "{:?}", images.notes);
        shard(&at("t.tar"), &[]);
        let error = ImageFiles::open(at("t.tar").to_str().unwrap(), "do this").unwrap_err().to_string();
        assert!(error.contains("t.tar: found no sample, expected images"), "{error}");

        hub(
            &at("p.parquet"),
            &[(Some(&pictures[2]), "a.png", 1), (None, "", 0), (Some(&pictures[0]), "", 2)],
        );
        let images = ImageFiles::open(at("p.parquet").to_str().unwrap(), "do this").unwrap();
        let found = all(&images);
        assert_eq!([&found[0], &found[2]], [&own("a.png", "1", 4), &own("p.parquet#2", "2", 2)]);
        assert!(found[1].2.clone().unwrap_err().contains("p.parquet: found the row p.parquet#1 without"));

        // The images of `a/deeper` come before those of `a-b`, as in torchvision.
        for (number, name) in ["i/a/1.png", "i/a/deeper/2.png", "i/a-b/0.png"].into_iter().enumerate() {
            fs_err::write(at(name), &pictures[number]).unwrap();
        }
        let images = ImageFiles::open(at("i").to_str().unwrap(), "do this").unwrap();
        assert_eq!(
            all(&images),
            [own("a/1.png", "a", 2), own("a/deeper/2.png", "a", 3), own("a-b/0.png", "a-b", 4)]
        );
        fs_err::remove_file(at("i/a/1.png")).unwrap();
        assert!(images.load(0).unwrap_err().to_string().contains("a/1.png"));
    }
}
