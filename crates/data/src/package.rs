//! What a publisher offers for download, and what it unpacks to.

/// An archive as published, and what it unpacks to.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveSpec {
    /// Its address without the file name.
    pub base_url: String,
    /// Its file name.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its checksum.
    pub sha256: String,
    /// The folder it holds.
    pub folder: String,
    /// The files in it with their lengths in bytes.
    pub required: Vec<(String, u64)>,
    /// Files it may hold besides.
    pub optional: Vec<String>,
}

/// A data set of many files: what is downloaded, and the folder it is unpacked to.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// The data set.
    pub name: &'static str,
    /// The folder it has afterwards.
    pub folder: &'static str,
    /// The downloads.
    pub pieces: Vec<Piece>,
    /// What to do with a damaged one.
    pub advice: &'static str,
}

/// One download.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Its address without the file name; `None` if its publisher's server no longer exists.
    pub base_url: Option<String>,
    /// Its file name.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its checksum.
    pub sha256: String,
    /// How its files are packed.
    pub packing: Packing,
    /// Where its content goes, below the package's folder.
    pub into: &'static str,
}

/// How the files of a piece are packed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    /// A `.tar.gz`, of which the files below `top` are taken that `keep` accepts.
    TarGz { top: &'static str, keep: fn(&str) -> bool },
    /// A `.zip`, of which the same files are taken.
    Zip { top: &'static str, keep: fn(&str) -> bool },
    /// A single file, not packed.
    Plain,
}
