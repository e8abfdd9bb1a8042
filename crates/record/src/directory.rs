//! A run's folder, in which one process works at a time: the one that holds a [`RunDirectory`].

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use super::atomic::{remove_unfinished, write_atomically};
use super::lease::{LEASE, Lease};
use super::{Environment, Layout, Owner, RecordError, State, Status, log, now_rfc3339};

/// A run's folder, held by this process. Dropping it releases the folder.
///
/// ```
/// use invaspread_record::{Layout, RecordError, RunDirectory, State, Status};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// let layout = Layout::new(root.path(), None, "0123abcd-s0");
/// let run = RunDirectory::open(layout.clone(), "epochs = 3\n")?;
/// run.set_status(State::Running, 0, None)?;
/// assert_eq!(Status::read(&layout)?.expect("written above").state, State::Running);
///
/// let second = RunDirectory::open(layout.clone(), "epochs = 3\n");
/// assert!(matches!(second, Err(RecordError::Busy { .. })));
///
/// drop(run);
/// let changed = RunDirectory::open(layout, "epochs = 4\n");
/// assert!(matches!(changed, Err(RecordError::ConfigChanged { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RunDirectory {
    layout: Layout,
    lease: Lease,
}

impl RunDirectory {
    /// Creates or reopens the run's folder, claims it and compares its config with `config`.
    ///
    /// `config` is the text whose hash is part of the folder's name. It must not contain settings that are
    /// not part of a run's identity (`runs.root`), since they may change when the run is resumed.
    ///
    /// # Errors
    /// Returns the errors of [`Self::claim`] and [`Self::check_config`].
    pub fn open(layout: Layout, config: &str) -> Result<Self, RecordError> {
        let directory = Self::claim(layout, Self::LEASE)?;
        directory.check_config(config)?;
        Ok(directory)
    }

    /// The time without a sign of life after which the process that holds a run counts as dead on other machines,
    /// unless it is set.
    pub const LEASE: Duration = LEASE;

    /// Creates or reopens the run's folder and claims it. On other machines, this process counts as dead after
    /// `lease` without a sign of life; on this machine, when it has ended.
    ///
    /// # Errors
    /// Returns `Busy` if another process holds the folder, and `Io`, which names the path, if the file system
    /// refuses.
    pub fn claim(layout: Layout, lease: Duration) -> Result<Self, RecordError> {
        for folder in
            [layout.folder().to_path_buf(), layout.tensorboard(), layout.checkpoints(), layout.embeddings()]
        {
            fs::create_dir_all(&folder).map_err(RecordError::io("create the folder", &folder))?;
        }
        layout.refuse_special_files()?;
        let lease = Lease::take(layout.folder(), lease)?;
        for folder in [layout.folder().to_path_buf(), layout.checkpoints(), layout.embeddings()] {
            remove_unfinished(&folder).map_err(RecordError::io("tidy up", &folder))?;
        }
        Ok(Self { layout, lease })
    }

    /// Compares the config that is stored in the folder with `config`, or writes `config` if none is stored
    /// yet.
    ///
    /// # Errors
    /// Returns `ConfigChanged` if the two differ, and `Io`, which names the path, if the file system refuses.
    pub fn check_config(&self, config: &str) -> Result<(), RecordError> {
        let path = self.layout.config();
        match fs::read(&path) {
            Ok(stored) => compare_configs(&self.layout, &String::from_utf8_lossy(&stored), config),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write_config(config),
            Err(error) => Err(RecordError::io("read", &path)(error)),
        }
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write_config(&self, config: &str) -> Result<(), RecordError> {
        let path = self.layout.config();
        write_atomically(&path, config.as_bytes()).map_err(RecordError::io("write", &path))
    }

    /// Returns the process that held the run before and died, if there was one.
    pub fn succeeded(&self) -> Option<&Owner> {
        self.lease.succeeded()
    }

    /// Returns whether another process has taken the run over, because this one gave no sign of life for too long.
    /// This process can then no longer write a file of the run.
    pub fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    /// Returns the flag that is raised when another process has taken the run over.
    pub fn lost(&self) -> Arc<AtomicBool> {
        self.lease.lost()
    }

    /// Returns the paths of the run's files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes `status.json` with the current time.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn set_status(&self, state: State, epoch: u64, message: Option<&str>) -> Result<(), RecordError> {
        let message = message.map(ToOwned::to_owned);
        self.write_status(&Status { state, epoch, updated: now_rfc3339(), message })
    }

    /// Writes `status.json` with the time that `status` holds.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write_status(&self, status: &Status) -> Result<(), RecordError> {
        status.write(&self.layout)
    }

    /// Writes `env.json`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write_environment(&self, environment: &Environment) -> Result<(), RecordError> {
        environment.write(&self.layout)
    }

    /// Appends a line to `log.jsonl`: `{"time": ..., "event": ..., "data": ...}`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
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
            (None, None) => return Ok(()), // Only line ends differ.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Layout, RunDirectory, State, Status};
    use crate::RecordError;
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    const CONFIG: &str = "dataset = \"cifar10\"\n[optim]\nlr = 0.03\n";
    /// The variable that tells the test `second_process` what to do, and in which folder.
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
        assert_eq!(Status::read(&layout(&root)).unwrap(), None);
        let run = RunDirectory::open(layout(&root), CONFIG).unwrap();
        run.set_status(State::Running, 3, None).unwrap();
        run.set_status(State::Interrupted, 4, Some("stopped by SIGTERM")).unwrap();
        let status = Status::read(run.layout()).unwrap().unwrap();
        assert_eq!((status.state, status.epoch), (State::Interrupted, 4));
        assert_eq!(status.message.as_deref(), Some("stopped by SIGTERM"));
        assert!(fs::read_to_string(run.layout().status()).unwrap().contains("\"interrupted\""));

        fs::write(run.layout().status(), b"{\"state\": \"runn").unwrap();
        let text = Status::read(run.layout()).unwrap_err().to_string();
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
            .args(["--exact", "--ignored", "directory::tests::second_process_task"])
            .env(TASK, format!("{task}={}", root.path().display()))
            .stdout(Stdio::null());
        command
    }

    #[test]
    #[ignore = "what the second process of the next two tests runs"]
    fn second_process_task() {
        // If the test is run by itself (`--include-ignored`), it has no task.
        let Ok(task) = std::env::var(TASK) else { return };
        let (task, root) = task.split_once('=').unwrap();
        let layout = Layout::new(root.as_ref(), Some("table1"), "0123abcd-s0");
        match (task, RunDirectory::open(layout.clone(), CONFIG)) {
            ("expect-busy", Err(RecordError::Busy { owner, .. })) => {
                assert_eq!(owner.map(|owner| *owner), super::Owner::of(&layout));
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
    fn a_killed_process_holds_no_run() {
        let root = tempfile::tempdir().unwrap();
        let mut child = second_process("hold", &root).spawn().unwrap();
        let start = Instant::now();
        while Status::read(&layout(&root)).unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(50), "the second process did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(matches!(RunDirectory::open(layout(&root), CONFIG), Err(RecordError::Busy { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        RunDirectory::open(layout(&root), CONFIG).unwrap();
    }
}
