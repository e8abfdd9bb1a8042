//! The versions that records state: that of the program, and that of the folder's formats.

/// The program's name and version, as records state it.
pub const VERSION: &str = concat!("invaspread ", env!("CARGO_PKG_VERSION"));

/// The version of the formats that this crate reads and writes. A record states the version of its folder.
///
/// New fields do not change it: readers ignore keys that they do not know, and every field added later has a
/// default. It is increased when the meaning of a file changes; older readers then refuse the folder with
/// [`RecordError::NewerFormat`](crate::RecordError::NewerFormat) instead of misreading it.
pub const FORMAT: u32 = 1;

/// Returns the format of records that were written before records stated it.
pub(crate) fn first_format() -> u32 {
    1
}
