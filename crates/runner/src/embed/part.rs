//! The file of unfinished embeddings, `OUT.part` beside the output: a line that says to what request they belong, then one frame for each
//! batch.
//!
//! A frame is the length of its payload (u64, little-endian), the payload's BLAKE3 digest, and the payload: the length of a JSON text
//! (u32), the text (names, classes, counts) and the rows (f32). A kill leaves at most one incomplete frame, the last, which is cut off.
//! The process that writes the file holds the system's lock on it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use invaspread_data::SampleLabel;
use invaspread_record::RecordError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::EmbedError;

/// The first key of the first line.
const MARK: &str = "invaspread_embeddings";
/// The number of this form of the file.
const FORM: u32 = 1;
/// The longest first line, in bytes.
const LONGEST_HEAD: u64 = 1 << 20;
/// The longest payload, in bytes: more than the rows and names of any batch.
const LONGEST: u64 = 1 << 30;

/// The rows of one batch.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Batch {
    /// Images of the input, with those that were left out.
    pub(super) read: u64,
    /// Images that were left out.
    pub(super) left_out: u64,
    /// The name of each row.
    pub(super) names: Vec<String>,
    /// The class of each row.
    pub(super) labels: Vec<Option<SampleLabel>>,
    /// The rows, one after the other.
    pub(super) rows: Vec<f32>,
}

/// What a frame says about its rows.
#[derive(Serialize, Deserialize)]
struct Text {
    read: u64,
    left_out: u64,
    names: Vec<String>,
    labels: Vec<Option<SampleLabel>>,
}

/// Facts about all rows, from which the headers of an output are made.
#[derive(Debug, Clone, Default)]
pub(super) struct Summary {
    /// Images of the input, with those that were left out.
    pub(super) read: u64,
    /// Images that were left out.
    pub(super) left_out: u64,
    /// Rows.
    pub(super) rows: u64,
    /// Rows with a class.
    pub(super) labeled: u64,
    /// The classes, if one of them is a word; all classes then count as words.
    pub(super) words: BTreeSet<String>,
    /// Whether a class is a word.
    pub(super) has_words: bool,
    /// The longest name and the longest class, in characters.
    pub(super) longest_name: usize,
    pub(super) longest_label: usize,
    /// Bytes of all names.
    pub(super) name_bytes: u64,
}

impl Summary {
    fn add(&mut self, batch: &Batch) {
        self.read += batch.read;
        self.left_out += batch.left_out;
        self.rows += batch.names.len() as u64;
        for name in &batch.names {
            self.longest_name = self.longest_name.max(name.chars().count());
            self.name_bytes += name.len() as u64;
        }
        for label in batch.labels.iter().flatten() {
            self.labeled += 1;
            self.has_words |= matches!(label, SampleLabel::Word(_));
            let text = label.to_string();
            self.longest_label = self.longest_label.max(text.chars().count());
            if !self.words.contains(&text) {
                self.words.insert(text);
            }
        }
    }
}

/// The file, open and locked.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    /// Where the frames begin, and where they end.
    frames: u64,
    end: u64,
    summary: Summary,
    length: usize,
}

impl Part {
    /// Opens the file beside `out`, or makes it. `identity` is a JSON object that says what the embeddings depend on; a row has
    /// `length` numbers.
    pub(super) fn open(out: &Path, identity: Value, length: usize) -> Result<Self, EmbedError> {
        let mut name = OsString::from(out.file_name().unwrap_or_default());
        name.push(".part");
        let path = out.with_file_name(name);
        let writing = |source| RecordError::io("write", &path)(source);
        // Not truncated: an earlier process may have begun it.
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(writing)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(EmbedError::Busy { path }),
            // A file system without locks; one process at a time works on most outputs.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut head = json!({ MARK: FORM });
        head["request"] = identity;
        let line = format!("{head}\n");
        let mut part = Self {
            path: path.clone(),
            file,
            frames: line.len() as u64,
            end: 0,
            summary: Summary::default(),
            length,
        };
        match part.known_head().map_err(RecordError::io("read", &path))? {
            Some(found) if found == line.as_bytes() => part.scan().map_err(RecordError::io("read", &path))?,
            // Killed while it wrote the first line, or before, or begun by another request without any batch.
            Some(found) if line.as_bytes().starts_with(&found) || part.is_only(&found) => {
                part.file.set_len(0).and_then(|()| part.file.rewind()).map_err(writing)?;
                part.file.write_all(line.as_bytes()).map_err(writing)?;
                part.end = part.frames;
            }
            found => return Err(part.not_ours(found.as_deref(), &head)),
        }
        // What follows the last whole frame is of no use.
        part.file.set_len(part.end).and_then(|()| part.file.sync_all()).map_err(writing)?;
        Ok(part)
    }

    /// Returns the first line; `None` if it is too long to be one.
    fn known_head(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.file.rewind()?;
        BufReader::new(&self.file).take(LONGEST_HEAD).read_until(b'\n', &mut line)?;
        Ok((line.len() as u64 != LONGEST_HEAD).then_some(line))
    }

    /// Returns whether the file is one of ours and holds nothing but the first line `found`.
    fn is_only(&self, found: &[u8]) -> bool {
        let is_ours = serde_json::from_slice::<Value>(found).is_ok_and(|head| head.get(MARK).is_some());
        is_ours && self.file.metadata().is_ok_and(|metadata| metadata.len() == found.len() as u64)
    }

    fn not_ours(&self, found: Option<&[u8]>, ours: &Value) -> EmbedError {
        let path = self.path.clone();
        let found = found.and_then(|line| serde_json::from_slice::<Value>(line).ok());
        let Some(found) = found.filter(|found| found.get(MARK).is_some()) else {
            return EmbedError::Foreign { path };
        };
        let request = |head: &Value| head["request"].as_object().cloned().unwrap_or_default();
        let (theirs, ours) = (request(&found), request(ours));
        let mut changed: Vec<String> = ours
            .iter()
            .filter(|(key, value)| theirs.get(*key) != Some(*value))
            .map(|(key, _)| key.clone())
            .collect();
        if changed.is_empty() {
            changed.push("version of the program".to_owned());
        }
        EmbedError::OtherRequest { path, changed }
    }

    /// Reads all whole frames for the summary and the place where they end.
    fn scan(&mut self) -> io::Result<()> {
        self.end = self.frames;
        let (mut summary, mut end) = (Summary::default(), self.frames);
        let whole_to = self.read(&mut |batch, to| {
            summary.add(&batch);
            end = to;
            Ok(())
        });
        match whole_to {
            // A frame that is damaged ends what can be used.
            Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
            _ => {}
        }
        (self.summary, self.end) = (summary, end);
        Ok(())
    }

    /// Calls `take` with each batch and the place where its frame ends.
    fn read(&self, take: &mut dyn FnMut(Batch, u64) -> io::Result<()>) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.frames))?;
        let length = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut place = self.frames;
        while place < length {
            let mut head = [0; 40];
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a damaged batch");
            reader.read_exact(&mut head).map_err(|_| damaged())?;
            let payload = u64::from_le_bytes(*head.first_chunk().unwrap_or(&[0; 8]));
            if payload > LONGEST || payload > length - place {
                return Err(damaged());
            }
            let mut bytes = vec![0; payload as usize];
            reader.read_exact(&mut bytes).map_err(|_| damaged())?;
            if blake3::hash(&bytes).as_bytes()[..] != head[8..] {
                return Err(damaged());
            }
            place += 40 + payload;
            take(decode(&bytes, self.length).ok_or_else(damaged)?, place)?;
        }
        Ok(())
    }

    /// Calls `take` with each batch, in order.
    pub(super) fn each(&self, take: &mut dyn FnMut(Batch) -> io::Result<()>) -> io::Result<()> {
        self.read(&mut |batch, _| take(batch))
    }

    /// Adds a batch and flushes it to the disk.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<(), EmbedError> {
        let payload = encode(batch);
        let mut frame = (payload.len() as u64).to_le_bytes().to_vec();
        frame.extend(blake3::hash(&payload).as_bytes());
        frame.extend(payload);
        let mut write = || {
            self.file.seek(SeekFrom::Start(self.end))?;
            self.file.write_all(&frame)?;
            self.file.sync_data()
        };
        write().map_err(RecordError::io("write", &self.path))?;
        self.end += frame.len() as u64;
        self.summary.add(batch);
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Returns the numbers of a row.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Deletes the file, once the output is there.
    pub(super) fn remove(self) -> Result<(), EmbedError> {
        drop(self.file); // Windows deletes no open files.
        Ok(std::fs::remove_file(&self.path).map_err(RecordError::io("delete", &self.path))?)
    }
}

fn encode(batch: &Batch) -> Vec<u8> {
    let Batch { read, left_out, names, labels, rows } = batch;
    let text = json!({ "read": read, "left_out": left_out, "names": names, "labels": labels }).to_string();
    let mut payload = (text.len() as u32).to_le_bytes().to_vec();
    payload.extend(text.as_bytes());
    payload.extend(rows.iter().flat_map(|value| value.to_le_bytes()));
    payload
}

fn decode(payload: &[u8], length: usize) -> Option<Batch> {
    let (text_len, rest) = payload.split_first_chunk::<4>()?;
    let (text, rows) = rest.split_at_checked(u32::from_le_bytes(*text_len) as usize)?;
    let Text { read, left_out, names, labels } = serde_json::from_slice(text).ok()?;
    let rows: Vec<f32> =
        rows.chunks_exact(4).filter_map(|four| Some(f32::from_le_bytes(*four.first_chunk()?))).collect();
    (rows.len() == names.len() * length && labels.len() == names.len()).then_some(Batch {
        read,
        left_out,
        names,
        labels,
        rows,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::{Batch, Part};
    use invaspread_data::SampleLabel;
    use serde_json::json;

    fn batch(first: u64) -> Batch {
        Batch {
            read: 3,
            left_out: 1,
            names: vec![format!("{first}.png"), format!("{}.png", first + 1)],
            labels: vec![Some(SampleLabel::Number(-1)), Some(SampleLabel::Word("cat".to_owned()))],
            rows: vec![first as f32, 0.5, -0.0, 1e-40, first as f32 / 3.0, 2.0],
        }
    }

    fn read(part: &Part) -> Vec<Batch> {
        let mut found = Vec::new();
        part.each(&mut |batch| {
            found.push(batch);
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn batches_come_back_and_what_a_kill_cut_off_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("e.npz");
        let open = || Part::open(&out, json!({ "images": "x" }), 3);
        let mut part = open().unwrap();
        part.append(&batch(0)).unwrap();
        let one = std::fs::metadata(folder.path().join("e.npz.part")).unwrap().len();
        part.append(&batch(2)).unwrap();
        assert_eq!(read(&part), [batch(0), batch(2)]);
        assert!(open().unwrap_err().to_string().contains("in use by another process"));
        drop(part);
        let bytes = std::fs::read(folder.path().join("e.npz.part")).unwrap();
        for held in 0..=bytes.len() {
            std::fs::write(folder.path().join("e.npz.part"), &bytes[..held]).unwrap();
            let mut part = open().unwrap();
            let whole = usize::from(held as u64 >= one) + usize::from(held == bytes.len());
            assert_eq!(read(&part).len(), whole, "{held}");
            assert_eq!((part.summary().read, part.summary().rows), (3 * whole as u64, 2 * whole as u64));
            // What was lost is appended again, to the same bytes.
            for first in (0..4).step_by(2).skip(whole) {
                part.append(&batch(first)).unwrap();
            }
            drop(part);
            assert!(std::fs::read(folder.path().join("e.npz.part")).unwrap() == bytes, "{held}");
        }
        let mut damaged = bytes.clone();
        damaged[one as usize + 50] ^= 1;
        std::fs::write(folder.path().join("e.npz.part"), damaged).unwrap();
        assert_eq!(read(&open().unwrap()), [batch(0)]);
    }

    #[test]
    fn another_request_and_another_programs_file_are_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("e.npz");
        let path = folder.path().join("e.npz.part");
        Part::open(&out, json!({ "images": "x", "length": 3 }), 3).unwrap().append(&batch(0)).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = Part::open(&out, json!({ "images": "y", "length": 3 }), 3).unwrap_err().to_string();
        assert!(error.contains("begun with another images,") && error.contains("e.npz.part"), "{error}");
        assert!(std::fs::read(&path).unwrap() == before);
        // Without a batch there is nothing to keep.
        std::fs::write(&path, &before[..=before.iter().position(|&byte| byte == b'\n').unwrap()]).unwrap();
        assert_eq!(Part::open(&out, json!({ "images": "z" }), 3).unwrap().summary().read, 0);
        for other in [&b"something else\n"[..], b"{\"a\":1}\n", &[0; 2000]] {
            std::fs::write(&path, other).unwrap();
            let error = Part::open(&out, json!({}), 3).unwrap_err().to_string();
            assert!(error.contains("did not write"), "{error}");
            assert!(std::fs::read(&path).unwrap() == other);
        }
    }
}
