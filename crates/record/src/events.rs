//! `TensorBoard` event files: `tb/events.out.tfevents.<seconds>.<host>.<process>.<number>`.
//!
//! A file is a sequence of records, each `length u64 | crc of length u32 | data | crc of data u32`, in
//! little-endian order. The CRC is CRC-32C, rotated and shifted ("masked"). The data is an `Event` protobuf:
//! 1 `wall_time` double, 2 `step` int64, 3 `file_version` string, 5 `summary` { 1 `value` { 1 `tag` string, 2
//! `simple_value` float } }, 7 `session_log` { 1 `status` enum }. A resumed run starts a new file with a
//! session start. `TensorBoard` then drops the points of earlier files after that step.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::fence::{explained, work_folder_for};
use super::host::host_name;
use super::{MetricRow, RecordError};

/// Writes an event file, event by event.
///
/// ```
/// use invaspread_record::EventWriter;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let mut events = EventWriter::create(folder.path(), None)?;
/// for step in 1..=3 {
///     events.scalar(step, "train/loss", 1.0 / step as f64)?;
/// }
/// events.flush()?; // `tensorboard --logdir FOLDER` now shows three points
/// assert!(std::fs::metadata(events.path())?.len() > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Starts a new event file in `folder`. A resumed run passes the last step that it keeps.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn create(folder: &Path, resumed_after: Option<i64>) -> Result<Self, RecordError> {
        let path = folder.join(file_name());
        let file = begin(&path).map_err(RecordError::io("write", &path))?;
        let mut writer = Self { path, file: BufWriter::new(file) };
        let mut version = event(0);
        put_bytes(&mut version, 3, b"brain.Event:2");
        writer.write(&version)?;
        if let Some(step) = resumed_after {
            let mut session = event(step + 1);
            put_bytes(&mut session, 7, &[1 << 3, 1]); // status = START
            writer.write(&session)?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the value of `tag` at `step`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn scalar(&mut self, step: i64, tag: &str, value: f64) -> Result<(), RecordError> {
        let mut point = Vec::new();
        put_bytes(&mut point, 1, tag.as_bytes());
        put_key(&mut point, 2, FIXED32);
        point.extend((value as f32).to_le_bytes());
        let mut summary = Vec::new();
        put_bytes(&mut summary, 1, &point);
        let mut event = event(step);
        put_bytes(&mut event, 5, &summary);
        self.write(&event)
    }

    /// Adds all of `rows` and flushes them to the system.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn rows(&mut self, rows: &[MetricRow]) -> Result<(), RecordError> {
        for MetricRow { step, split, name, value, .. } in rows {
            self.scalar(*step, &format!("{split}/{name}"), *value)?;
        }
        self.flush()
    }

    /// Flushes the added events to the system, so that a running `TensorBoard` sees them. It is enough to
    /// call this once in each epoch.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn flush(&mut self) -> Result<(), RecordError> {
        self.file.flush().map_err(RecordError::io("write", &self.path))
    }

    fn write(&mut self, data: &[u8]) -> Result<(), RecordError> {
        write_record(&mut self.file, data).map_err(RecordError::io("write", &self.path))
    }
}

/// Creates the file at `path`. If this process holds the run, the file is created in the work folder and moved from
/// there, which fails if another process has taken the run over.
fn begin(path: &Path) -> io::Result<File> {
    let create = |path: &Path| File::options().write(true).create_new(true).open(path);
    let name = path.file_name().unwrap_or_default();
    // Windows does not move open files.
    let Some(work) = work_folder_for(path).filter(|_| cfg!(unix)) else { return create(path) };
    let moved = || {
        let file = create(&work.join(name))?;
        fs::rename(work.join(name), path)?;
        Ok(file)
    };
    moved().map_err(|error| explained(error, &work))
}

fn file_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let host = host_name();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seconds = wall_time() as u64;
    format!("events.out.tfevents.{seconds:010}.{host}.{}.{count}", std::process::id())
}

/// Returns the seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn write_record(file: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked_crc(&length).to_le_bytes())?;
    file.write_all(data)?;
    file.write_all(&masked_crc(data).to_le_bytes())
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Protobuf wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Returns an event at `step` with the current time; the caller appends its content.
fn event(step: i64) -> Vec<u8> {
    let mut event = Vec::new();
    put_key(&mut event, 1, FIXED64);
    event.extend(wall_time().to_le_bytes());
    put_key(&mut event, 2, VARINT);
    put_varint(&mut event, step as u64);
    event
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{EventWriter, masked_crc};
    use std::fs;

    /// Computes CRC-32C bit by bit, from its polynomial.
    fn plain_crc(data: &[u8]) -> u32 {
        !data.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
        })
    }

    #[expect(clippy::manual_rotate, reason = "as in the description of the format")]
    fn plain_mask(crc: u32) -> u32 {
        ((crc >> 15) | (crc << 17)).wrapping_add(0xa282_ead8)
    }

    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }

    fn records(mut file: &[u8]) -> Vec<&[u8]> {
        let mut records = Vec::new();
        while !file.is_empty() {
            let length = take(&mut file, 8);
            assert_eq!(take(&mut file, 4), plain_mask(plain_crc(length)).to_le_bytes());
            let data = take(&mut file, u64::from_le_bytes(length.try_into().unwrap()) as usize);
            assert_eq!(take(&mut file, 4), plain_mask(plain_crc(data)).to_le_bytes());
            records.push(data);
        }
        records
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = take(bytes, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// Splits a message into fields: the number and the bytes of each (of a varint, eight bytes).
    fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message);
            let bytes = match key & 7 {
                0 => varint(&mut message).to_le_bytes().to_vec(),
                1 => take(&mut message, 8).to_vec(),
                2 => {
                    let length = varint(&mut message) as usize;
                    take(&mut message, length).to_vec()
                }
                5 => take(&mut message, 4).to_vec(),
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, bytes));
        }
        fields
    }

    #[test]
    fn the_crc_is_the_one_of_the_standard() {
        assert_eq!(plain_crc(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(b"123456789"), plain_mask(0xe306_9283));
    }

    #[test]
    fn scalars_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();
        let long = "a".repeat(300);
        writer.scalar(1, "test/knn_top1", 83.6).unwrap();
        writer.scalar(300, &long, f64::NAN).unwrap();
        writer.flush().unwrap();
        let bytes = fs::read(writer.path()).unwrap();
        let records = records(&bytes);
        assert_eq!(records.len(), 3);
        assert_eq!(fields(records[0])[2], (3, b"brain.Event:2".to_vec()));
        for (record, step, tag, value) in
            [(records[1], 1u64, "test/knn_top1", 83.6f32), (records[2], 300, long.as_str(), f32::NAN)]
        {
            let event = fields(record);
            let time = f64::from_le_bytes(event[0].1.as_slice().try_into().unwrap());
            assert!((1.6e9..1e11).contains(&time), "{time}");
            assert_eq!(event[1], (2, step.to_le_bytes().to_vec()));
            let (field, summary) = &event[2];
            assert_eq!(*field, 5);
            let point = fields(&fields(summary)[0].1);
            assert_eq!(point, [(1, tag.as_bytes().to_vec()), (2, value.to_le_bytes().to_vec())]);
        }
    }

    #[test]
    fn a_resumed_run_begins_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path(), None).unwrap();
        let second = EventWriter::create(folder.path(), Some(390)).unwrap();
        assert_ne!(first.path(), second.path());
        let bytes = fs::read(second.path()).unwrap();
        let start = fields(records(&bytes)[1]);
        assert_eq!(start[1], (2, 391u64.to_le_bytes().to_vec()));
        assert_eq!(start[2], (7, vec![8, 1]));
    }

    #[test]
    fn a_folder_that_cannot_hold_it_is_named() {
        let text = EventWriter::create("no/such/folder".as_ref(), None).unwrap_err().to_string();
        assert!(text.starts_with("failed to write no/such/folder/events.out.tfevents."), "{text}");
    }
}
