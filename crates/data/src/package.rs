//! The archives that a publisher offers for download, and the files that they unpack to.

/// A published archive, and the files that it unpacks to.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveSpec {
    /// The address without the file name.
    pub base_url: String,
    /// The file name.
    pub file: String,
    /// The length in bytes.
    pub bytes: u64,
    /// The checksum.
    pub sha256: String,
    /// The folder that it holds.
    pub folder: String,
    /// The files in the folder, with their lengths in bytes.
    pub required: Vec<(String, u64)>,
    /// Other files that the folder may hold.
    pub optional: Vec<String>,
}

/// A data set of many files: the downloads, and the folder that they are unpacked into.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// The data set.
    pub name: &'static str,
    /// The folder that the data set has after unpacking.
    pub folder: &'static str,
    /// The downloads.
    pub pieces: Vec<Piece>,
    /// The advice for a damaged download.
    pub advice: &'static str,
}

/// One download.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The address without the file name; `None` if its publisher's server no longer exists.
    pub base_url: Option<String>,
    /// The file name.
    pub file: String,
    /// The length in bytes.
    pub bytes: u64,
    /// The checksum.
    pub sha256: String,
    /// The way in which its files are packed.
    pub packing: Packing,
    /// The folder for its content, below the package's folder.
    pub into: &'static str,
}

/// The way in which the files of a piece are packed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    /// A `.tar.gz`. Those files below `top` are unpacked that `keep` accepts.
    TarGz { top: &'static str, keep: fn(&str) -> bool },
    /// A `.zip`. Those files below `top` are unpacked that `keep` accepts.
    Zip { top: &'static str, keep: fn(&str) -> bool },
    /// A single file, not packed.
    Plain,
}
