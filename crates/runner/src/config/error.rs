//! Errors of configs. Each message names the key, where it came from, what was found and what was expected.

/// Why a config cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An argument is not of the form `key=value`.
    #[error("argument {found:?}: expected key=value, as in optim.lr=0.03 or dataset=cifar10")]
    Form {
        /// The argument.
        found: String,
    },
    /// A key that nothing reads.
    #[error("unknown key `{key}` in {origin}{}; `invaspread config show` lists all keys", nearest.as_ref().map(|n| format!(": did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// The file or argument.
        origin: String,
        /// The known key that is most similar.
        nearest: Option<String>,
    },
    /// A key that the chosen method does not have.
    #[error(
        "unknown key `{key}` in {origin}: {known}; `invaspread config methods` lists the keys of all methods"
    )]
    MethodKey {
        /// The key.
        key: String,
        /// The file or argument.
        origin: String,
        /// The keys that the method has, the most similar one, and the methods that have a key of this name.
        known: String,
    },
    /// A key of the first format.
    #[error("`{key}` in {origin}: {went}")]
    Moved {
        /// The key.
        key: String,
        /// The file or argument.
        origin: String,
        /// Where it went.
        went: String,
    },
    /// A group has no file of that name.
    #[error("{group}={found}: found no such {group}, expected one of {}{}", known.join(", "), nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownChoice {
        /// The group.
        group: String,
        /// The name that was given.
        found: String,
        /// The names that exist.
        known: Vec<String>,
        /// The known name that is most similar.
        nearest: Option<String>,
    },
    /// A value of the wrong type or out of the key's range.
    #[error("`{key}` in {origin}: found {found}, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The file or argument.
        origin: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A file is not TOML, or cannot be read.
    #[error("failed to read {file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// The message of the parser or of the system, with the line.
        reason: String,
    },
    /// Several values for a key where one is expected.
    #[error(
        "`{key}` has several values ({values}), expected one here; `invaspread train --multirun` runs each of them{}",
        if *list { format!(", and {key}=[{values}] is one list of them") } else { String::new() }
    )]
    Sweep {
        /// The key.
        key: String,
        /// The values.
        values: String,
        /// Whether the key takes a list.
        list: bool,
    },
    /// Several values for a key that does not distinguish runs.
    #[error(
        "`{key}` has several values ({values}), expected one: it changes no result, so all of them would be the same runs{}",
        if *path { format!("; a path that holds a comma is quoted: {key}='\"a,b\"'") } else { String::new() }
    )]
    NoAxis {
        /// The key.
        key: String,
        /// The values.
        values: String,
        /// Whether the key takes a path.
        path: bool,
    },
    /// More combinations of values than can be intended.
    #[error("the values of {keys} make {runs} runs, expected at most {most}; list fewer values")]
    TooManyRuns {
        /// The keys that have several values.
        keys: String,
        /// Their combinations.
        runs: String,
        /// The largest number of runs.
        most: usize,
    },
    /// Settings that need more memory than the machine has.
    #[error("{0}")]
    Memory(#[from] crate::memory::TooLittleMemory),
}
