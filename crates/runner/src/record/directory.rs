//! The folder of a run: `<runs.root>/<suite or "train">/<config hash>-s<seed>/`.
//!
//! One process works in it at a time: a lock on `run.lock` is held while a [`RunDirectory`] lives.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::atomic::{remove_unfinished, write_atomically};
use super::lock::{Lock, LockWarning};
use super::{Environment, RecordError, log, now_rfc3339};

/// Where a run's files are. Holds no lock and touches no disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    folder: PathBuf,
}

/// The folder between `runs.root` and the run: the suite's name, or "train" for a run of its own.
pub fn group_name(suite: Option<&str>) -> &str {
    suite.unwrap_or("train")
}

impl Layout {
    /// The run `id` (`<config hash>-s<seed>`) of `suite` under `root`.
    pub fn new(root: &Path, suite: Option<&str>, id: &str) -> Self {
        Self { folder: root.join(group_name(suite)).join(id) }
    }

    /// The run in `folder`.
    pub fn of(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The resolved config.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// The machine and program: an [`Environment`].
    pub fn environment(&self) -> PathBuf {
        self.folder.join("env.json")
    }

    /// How far it is: a [`Status`].
    pub fn status(&self) -> PathBuf {
        self.folder.join("status.json")
    }

    /// One JSON object a line, what happened and when.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log.jsonl")
    }

    /// What was measured: a [`super::MetricsTable`].
    pub fn metrics(&self) -> PathBuf {
        self.folder.join("metrics.parquet")
    }

    /// The outcome of a finished run: a [`super::RunRecord`].
    pub fn record(&self) -> PathBuf {
        self.folder.join("record.json")
    }

    /// How similar like and unlike images are: a [`super::SimilarityRecord`].
    pub fn similarity(&self) -> PathBuf {
        self.folder.join("similarity.json")
    }

    /// What a finished run consists of: a [`super::FileList`].
    pub fn files(&self) -> PathBuf {
        self.folder.join("files.json")
    }

    /// Which images it is of, where the data set's name does not say: a manifest of `invaspread_data`.
    pub fn images(&self) -> PathBuf {
        self.folder.join("images.txt")
    }

    /// Fails where the folder holds anything but files and folders: a pipe would be waited for without end, and a device may have no end.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub(crate) fn refuse_special_files(&self) -> Result<(), RecordError> {
        for folder in [self.folder.clone(), self.checkpoints(), self.embeddings()] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if fs::metadata(&path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
                    let message = "found a pipe, a socket or a device, expected a file; move it away";
                    let source = io::Error::new(io::ErrorKind::InvalidInput, message);
                    return Err(RecordError::io("read", &path)(source));
                }
            }
        }
        Ok(())
    }

    /// Folder of the `TensorBoard` event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.folder.join("tb")
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }

    /// Folder of the embeddings.
    pub fn embeddings(&self) -> PathBuf {
        self.folder.join("embeddings")
    }

    /// The status written last; `None` if there is no such run yet.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn read_status(&self) -> Result<Option<Status>, RecordError> {
        let path = self.status();
        match read_json(&path, "a run's status", "delete the file: the run resumes from its checkpoint") {
            Ok(status) => Ok(Some(status)),
            Err(RecordError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The record that the log holds of when the run was finished, if it holds one.
    pub fn logged_record(&self) -> Option<super::RunRecord> {
        log::last(&self.log(), &["run_finished", "row_added"], "")
    }

    /// The machine and program that the log names for the last sitting, if it names them.
    pub fn logged_environment(&self) -> Option<Environment> {
        log::last(&self.log(), &["run_begun"], "environment")
    }

    fn lock(&self) -> PathBuf {
        self.folder.join("run.lock")
    }
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Planned, not begun.
    Queued,
    /// Training, or killed without a chance to say so: then the folder is not locked.
    Running,
    /// Finished.
    Done,
    /// Stopped by an error; the message says which.
    Failed,
    /// Stopped by Ctrl-C or SIGTERM; asking for it again resumes it.
    Interrupted,
}

/// status.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the run is doing.
    pub state: State,
    /// Whole epochs trained.
    pub epoch: u64,
    /// When this was written, RFC 3339.
    pub updated: String,
    /// For people.
    pub message: Option<String>,
}

/// A run's folder, locked for this process.
#[derive(Debug)]
pub struct RunDirectory {
    layout: Layout,
    lock: Lock,
}

impl RunDirectory {
    /// Creates the run's folder, or opens it again, and locks it.
    ///
    /// `config` is the text that the config's hash in `layout`'s name was taken of: settings that do not belong to the run's
    /// identity (`runs.root`) are not in it, or they could not be changed between two sittings.
    ///
    /// # Errors
    /// As [`Self::lock`] and [`Self::check_config`].
    pub fn open(layout: Layout, config: &str) -> Result<Self, RecordError> {
        let directory = Self::lock(layout)?;
        directory.check_config(config)?;
        Ok(directory)
    }

    /// Creates the run's folder, or opens it again, locks it, and removes what killed writers left in it.
    ///
    /// # Errors
    /// `Io` naming the path; `Busy` if another process holds it.
    pub fn lock(layout: Layout) -> Result<Self, RecordError> {
        for folder in
            [layout.folder().to_path_buf(), layout.tensorboard(), layout.checkpoints(), layout.embeddings()]
        {
            fs::create_dir_all(&folder).map_err(RecordError::io("create the folder", &folder))?;
        }
        layout.refuse_special_files()?;
        let lock = Lock::take(&layout.lock(), File::try_lock)?;
        for folder in [layout.folder().to_path_buf(), layout.checkpoints(), layout.embeddings()] {
            remove_unfinished(&folder).map_err(RecordError::io("tidy up", &folder))?;
        }
        Ok(Self { layout, lock })
    }

    /// Compares the config stored in the folder with `config`; writes it where there is none yet.
    ///
    /// # Errors
    /// `ConfigChanged` if the two differ; `Io` naming the path.
    pub fn check_config(&self, config: &str) -> Result<(), RecordError> {
        let path = self.layout.config();
        match fs::read(&path) {
            Ok(stored) => compare_configs(&self.layout, &String::from_utf8_lossy(&stored), config),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write_config(config),
            Err(error) => Err(RecordError::io("read", &path)(error)),
        }
    }

    /// Writes config.toml.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub fn write_config(&self, config: &str) -> Result<(), RecordError> {
        let path = self.layout.config();
        write_atomically(&path, config.as_bytes()).map_err(RecordError::io("write", &path))
    }

    /// Returns why the lock may not keep other processes out, if there is a reason.
    pub fn lock_warning(&self) -> Option<&LockWarning> {
        self.lock.warning()
    }

    /// Where the files are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes status.json.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub fn set_status(&self, state: State, epoch: u64, message: Option<&str>) -> Result<(), RecordError> {
        let message = message.map(ToOwned::to_owned);
        self.write_status(&Status { state, epoch, updated: now_rfc3339(), message })
    }

    /// Writes a status that was another time's.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub fn write_status(&self, status: &Status) -> Result<(), RecordError> {
        write_json(&self.layout.status(), status)
    }

    /// Writes env.json.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub fn write_environment(&self, environment: &Environment) -> Result<(), RecordError> {
        write_json(&self.layout.environment(), environment)
    }

    /// Adds a line to log.jsonl: `{"time": ..., "event": ..., "data": ...}`.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub fn log(&self, event: &str, data: &impl Serialize) -> Result<(), RecordError> {
        log::append(&self.layout.log(), event, data)
    }
}

fn compare_configs(layout: &Layout, stored: &str, asked: &str) -> Result<(), RecordError> {
    const END: &str = "(the end of the file)";
    if stored == asked {
        return Ok(());
    }
    let (mut stored, mut asked) = (stored.lines(), asked.lines());
    let mut line = 0;
    let (found, expected) = loop {
        line += 1;
        match (stored.next(), asked.next()) {
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return Ok(()), // line ends alone differ
            (a, b) => break (a.unwrap_or(END).to_owned(), b.unwrap_or(END).to_owned()),
        }
    };
    Err(RecordError::ConfigChanged {
        folder: layout.folder().to_path_buf(),
        config: layout.config(),
        line,
        found,
        expected,
    })
}

/// Writes `value` to `path` as indented JSON with a line end.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    let write = || {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        write_atomically(path, &text)
    };
    write().map_err(RecordError::io("write", path))
}

/// Reads JSON that is `expected`, or says what to do.
pub(super) fn read_json<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
    remedy: &'static str,
) -> Result<T, RecordError> {
    let bytes = fs::read(path).map_err(RecordError::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| RecordError::Damaged {
        path: path.to_path_buf(),
        found: format!("{} bytes of JSON that cannot be used ({error})", bytes.len()),
        expected,
        remedy,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Layout, RunDirectory, State};
    use crate::record::RecordError;
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    const CONFIG: &str = "dataset = \"cifar10\"\n[optim]\nlr = 0.03\n";
    /// Tells the test `second_process` what to do where.
    const TASK: &str = "INVASPREAD_TEST_SECOND_PROCESS";

    fn layout(root: &tempfile::TempDir) -> Layout {
        Layout::new(root.path(), Some("table1"), "0123abcd-s0")
    }

    #[test]
    fn the_folder_is_laid_out_as_designed() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(layout(&root), CONFIG).unwrap();
        assert_eq!(run.layout().folder(), root.path().join("table1/0123abcd-s0"));
        assert_eq!(fs::read_to_string(run.layout().config()).unwrap(), CONFIG);
        for folder in ["tb", "checkpoints", "embeddings"] {
            assert!(run.layout().folder().join(folder).is_dir());
        }
        assert!(Layout::new(root.path(), None, "x-s1").folder().ends_with("train/x-s1"));
    }

    #[test]
    fn status_is_written_and_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(layout(&root).read_status().unwrap(), None);
        let run = RunDirectory::open(layout(&root), CONFIG).unwrap();
        run.set_status(State::Running, 3, None).unwrap();
        run.set_status(State::Interrupted, 4, Some("stopped by SIGTERM")).unwrap();
        let status = run.layout().read_status().unwrap().unwrap();
        assert_eq!((status.state, status.epoch), (State::Interrupted, 4));
        assert_eq!(status.message.as_deref(), Some("stopped by SIGTERM"));
        assert!(fs::read_to_string(run.layout().status()).unwrap().contains("\"interrupted\""));

        fs::write(run.layout().status(), b"{\"state\": \"runn").unwrap();
        let text = run.layout().read_status().unwrap_err().to_string();
        assert!(text.contains("status.json: found 15 bytes of JSON that cannot be used"), "{text}");
        assert!(text.contains("expected a run's status; delete the file"), "{text}");
    }

    #[test]
    fn a_changed_config_is_refused_and_the_line_named() {
        let root = tempfile::tempdir().unwrap();
        drop(RunDirectory::open(layout(&root), CONFIG).unwrap());
        drop(RunDirectory::open(layout(&root), CONFIG).unwrap());
        drop(RunDirectory::open(layout(&root), &CONFIG.replace('\n', "\r\n")).unwrap());
        fs::write(layout(&root).config(), CONFIG.replace("0.03", "0.3")).unwrap();
        let error = RunDirectory::open(layout(&root), CONFIG).unwrap_err();
        assert!(matches!(error, RecordError::ConfigChanged { line: 3, .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("config.toml is `lr = 0.3`, expected `lr = 0.03`; put that line back"),
            "{text}"
        );
        fs::write(layout(&root).config(), "").unwrap();
        let text = RunDirectory::open(layout(&root), CONFIG).unwrap_err().to_string();
        assert!(text.contains("`(the end of the file)`, expected `dataset"), "{text}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("table1"), b"not a folder").unwrap();
        let text = RunDirectory::open(layout(&root), CONFIG).unwrap_err().to_string();
        assert!(
            text.contains("failed to create the folder") && text.contains("table1/0123abcd-s0"),
            "{text}"
        );
        assert!(text.contains("set runs.root to another folder"), "{text}");
    }

    #[test]
    fn half_written_files_of_a_killed_process_are_removed() {
        let root = tempfile::tempdir().unwrap();
        drop(RunDirectory::open(layout(&root), CONFIG).unwrap());
        let left = layout(&root).checkpoints().join(".unfinished-1-1-last.safetensors");
        fs::write(&left, b"half").unwrap();
        drop(RunDirectory::open(layout(&root), CONFIG).unwrap());
        assert!(!left.exists());
    }

    /// Runs the test below in another process.
    fn second_process(task: &str, root: &tempfile::TempDir) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "--ignored", "record::directory::tests::second_process_task"])
            .env(TASK, format!("{task}={}", root.path().display()))
            .stdout(Stdio::null());
        command
    }

    #[test]
    #[ignore = "what the second process of the next two tests runs"]
    fn second_process_task() {
        // Alone (`--include-ignored`) it has no task.
        let Ok(task) = std::env::var(TASK) else { return };
        let (task, root) = task.split_once('=').unwrap();
        let layout = Layout::new(root.as_ref(), Some("table1"), "0123abcd-s0");
        match (task, RunDirectory::open(layout.clone(), CONFIG)) {
            ("expect-busy", Err(RecordError::Busy { owner, .. })) => {
                let parent = fs::read_to_string(layout.folder().join("run.lock")).unwrap();
                assert_eq!(owner, Some(serde_json::from_str(&parent).unwrap()));
            }
            ("hold", Ok(run)) => {
                run.set_status(State::Running, 1, None).unwrap();
                std::thread::sleep(Duration::from_mins(1));
            }
            (task, result) => panic!("{task}: {result:?}"),
        }
    }

    #[test]
    fn two_processes_cannot_train_the_same_run() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(layout(&root), CONFIG).unwrap();
        assert!(second_process("expect-busy", &root).status().unwrap().success());
        let text = RunDirectory::open(layout(&root), CONFIG).unwrap_err().to_string();
        assert!(text.contains(&format!("process {} on host ", std::process::id())), "{text}");
        drop(run);
        RunDirectory::open(layout(&root), CONFIG).unwrap();
    }

    #[test]
    fn a_killed_process_holds_no_lock() {
        let root = tempfile::tempdir().unwrap();
        let mut child = second_process("hold", &root).spawn().unwrap();
        let start = Instant::now();
        while layout(&root).read_status().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(50), "the second process did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(matches!(RunDirectory::open(layout(&root), CONFIG), Err(RecordError::Busy { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        RunDirectory::open(layout(&root), CONFIG).unwrap();
    }
}
