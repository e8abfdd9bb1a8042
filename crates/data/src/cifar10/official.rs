//! Lengths, checksums and address of the official files.

use crate::package::ArchiveSpec;

/// The number of records of a batch, and the checksums of the batches.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Records in each of the six batches.
    pub per_batch: usize,
    /// SHA-256 of each batch, in the order of [`BATCHES`](super::BATCHES).
    pub sha256: [String; 6],
    /// The published lengths of the binary and the Python archive, for the errors of archives of other
    /// lengths.
    pub archive_bytes: [u64; 2],
}

impl Layout {
    /// Returns the number of bytes of a batch.
    pub(crate) fn batch_bytes(&self) -> u64 {
        (self.per_batch * super::RECORD) as u64
    }
}

/// The official layout. The checksums were computed from batches whose MD5 checksums are the published ones
/// (5dd7e06a..., 5ea93a67..., 942cd6a4..., ae636b3b..., 53f37980..., 803d5f7f... for `data_batch_1.bin` to
/// `test_batch.bin`).
pub(crate) static OFFICIAL: std::sync::LazyLock<Layout> = std::sync::LazyLock::new(|| Layout {
    per_batch: 10_000,
    sha256: [
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    ]
    .map(str::to_owned),
    archive_bytes: [170_052_171, 170_498_071],
});

/// The folder that the binary archive unpacks to.
pub(crate) const BINARY_FOLDER: &str = "cifar-10-batches-bin";

/// The binary archive as published.
pub(crate) static ARCHIVE: std::sync::LazyLock<ArchiveSpec> = std::sync::LazyLock::new(|| ArchiveSpec {
    base_url: "https://www.cs.toronto.edu/~kriz".to_owned(),
    file: "cifar-10-binary.tar.gz".to_owned(),
    bytes: 170_052_171,
    sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd".to_owned(),
    folder: BINARY_FOLDER.to_owned(),
    required: super::BATCHES.map(|batch| (format!("{batch}.bin"), OFFICIAL.batch_bytes())).to_vec(),
    optional: vec!["batches.meta.txt".to_owned(), "readme.html".to_owned()],
});
