//! What a person can do when the file system refuses to read or write.

use std::io;

use super::fence::is_taken_over;

/// Returns what to do when the file system refused to write, as the end of an error message.
pub fn remedy(error: &io::Error) -> &'static str {
    if is_taken_over(error) {
        return "that process goes on with the run; nothing is lost. A longer runs.lease_seconds lets this one be silent for longer";
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space or set runs.root to a folder on another disk, then give the same command again; \
             what was finished before is kept"
        }
        io::ErrorKind::FileTooLarge => {
            "the file would be larger than this process or this disk allows: raise the limit (`ulimit -f`) or set runs.root to a folder on \
             another disk, then give the same command again; what was finished before is kept"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "the folder cannot be written to: change its permissions or set runs.root to one that can"
        }
        io::ErrorKind::NotADirectory => {
            "a file is where a folder was expected: move it away or set runs.root to another folder"
        }
        io::ErrorKind::AlreadyExists => {
            "something else has that name, such as a file or a link that leads nowhere: move it away or set runs.root to another folder"
        }
        io::ErrorKind::IsADirectory => "a folder is where a file was expected: move it away",
        io::ErrorKind::NotFound => "it does not exist: check the path",
        _ => "check the disk and the path, or set runs.root to another folder",
    }
}

/// Returns what to do when the file system refused to read, as the end of an error message.
pub(crate) fn remedy_of_reading(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "it may not be read: change its permissions",
        io::ErrorKind::IsADirectory => "a folder is where a file was expected: move it away",
        io::ErrorKind::NotADirectory => {
            "a file is where a folder was expected: move it away or set runs.root to another folder"
        }
        io::ErrorKind::NotFound => "it does not exist: check the path",
        _ => "check the disk and the path",
    }
}
