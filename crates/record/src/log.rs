//! `log.jsonl`: the events of a run with their times, one JSON object in each line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fence::{explained, work_folder_for};
use super::{RecordError, now_rfc3339};

#[derive(Serialize)]
struct Line<'a, T> {
    time: String,
    event: &'a str,
    data: &'a T,
}

/// Appends a line to the log at `path`: `{"time": ..., "event": ..., "data": ...}`.
///
/// # Errors
/// Returns `Io`, which names the path, if the file system refuses.
pub(crate) fn append(path: &Path, event: &str, data: &impl Serialize) -> Result<(), RecordError> {
    let append = || {
        let mut line = serde_json::to_vec(&Line { time: now_rfc3339(), event, data })?;
        line.push(b'\n');
        let mut file = open(path)?;
        if file.seek(SeekFrom::End(0))? > 0 {
            // A killed process may have left its last line incomplete. That line is ended here, so that the
            // next one is not lost.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                line.insert(0, b'\n');
            }
        }
        file.write_all(&line)
    };
    append().map_err(RecordError::io("write", path))
}

/// Opens the log at `path` and makes it if there is none. If this process holds the run, it is opened through a hard
/// link in the work folder, which is not there any more once another process has taken the run over.
fn open(path: &Path) -> io::Result<File> {
    let options = || File::options().read(true).append(true).create(true).clone();
    let Some(work) = work_folder_for(path) else { return options().open(path) };
    let link = work.join("log");
    let through_link = || File::options().read(true).append(true).open(&link);
    if !link.exists() {
        drop(options().open(path)?);
        match std::fs::hard_link(path, &link) {
            Ok(()) => {}
            Err(error) if !work.is_dir() => return Err(explained(error, &work)),
            // The file system has no hard links.
            Err(_) => return options().open(path),
        }
    }
    through_link().map_err(|error| explained(error, &work))
}

/// Returns the value under `key` in the data of the last line of one of `events`, or the whole data if `key`
/// is empty. Returns `None` if there is no such line or its value has another type. Lines that cannot be
/// parsed are skipped.
pub(crate) fn last<T: DeserializeOwned>(path: &Path, events: &[&str], key: &str) -> Option<T> {
    #[derive(Deserialize)]
    struct Stored {
        event: String,
        data: serde_json::Value,
    }
    let bytes = std::fs::read(path).ok()?;
    bytes
        .split(|&byte| byte == b'\n')
        .rev()
        .filter_map(|line| serde_json::from_slice::<Stored>(line).ok())
        .find(|line| events.contains(&line.event.as_str()))
        .and_then(|Stored { mut data, .. }| {
            let data = if key.is_empty() { data } else { data.get_mut(key)?.take() };
            serde_json::from_value(data).ok()
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{append, last};
    use serde_json::{Value, json};
    use std::fs;

    #[test]
    fn the_log_survives_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        append(&path, "started", &json!({"epochs": 3})).unwrap();
        append(&path, "epoch", &1).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        fs::write(&path, bytes).unwrap();
        append(&path, "resumed", &Value::Null).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<Option<Value>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].as_ref().unwrap()["data"]["epochs"], 3);
        assert!(lines[1].is_none());
        assert_eq!(lines[2].as_ref().unwrap()["event"], "resumed");

        assert_eq!(last::<u64>(&path, &["started"], "epochs"), Some(3));
        assert_eq!(last::<u64>(&path, &["epoch"], ""), None, "its line is torn");
        append(&path, "epoch", &2).unwrap();
        append(&path, "epoch", &4).unwrap();
        assert_eq!(last::<u64>(&path, &["epoch", "other"], ""), Some(4));
        assert_eq!(last::<u64>(&path, &["started"], "steps"), None);
        assert_eq!(last::<u64>(&folder.path().join("none"), &["epoch"], ""), None);
    }
}
