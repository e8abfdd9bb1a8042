//! How the program ends when it cannot do what was asked: 2 for a request that makes no sense, 1 for one that failed.

use invaspread_data::DataError;
use invaspread_runner::config::ConfigError;
use invaspread_runner::launch::LaunchError;
use std::fmt;
use std::process::ExitCode;

/// Why the program stops.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request itself is wrong: an unknown key, suite or value.
    Usage(anyhow::Error),
    /// The request was fine and failed.
    Failed(anyhow::Error),
    /// It was asked to stop; not an error, but not done either.
    Stopped,
    /// Whoever read standard output is gone, as `head` is after a few lines: no error, and nobody to tell.
    Unread,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            // What a shell reports of a program that an interrupt ended.
            Self::Stopped => 130,
            // The same of one that wrote to a closed pipe.
            Self::Unread => 141,
        })
    }
}

impl fmt::Display for Failure {
    /// The error and what caused it, on one line, leaving out causes that the line already holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Usage(error) | Self::Failed(error) => error,
            Self::Stopped => return f.write_str("stopped on request; the same command resumes"),
            Self::Unread => return f.write_str("standard output was closed by its reader"),
        };
        let mut line = error.to_string();
        for cause in error.chain().skip(1) {
            let cause = cause.to_string();
            if !line.contains(&cause) {
                line = format!("{line}: {cause}");
            }
        }
        f.write_str(&line)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<anyhow::Error> for Failure {
    /// A value of a key that only its data set can judge is a wrong request as any other value is.
    fn from(error: anyhow::Error) -> Self {
        let of_a_key = |cause: &(dyn std::error::Error + 'static)| {
            let data = match cause.downcast_ref() {
                Some(LaunchError::Data(error)) => Some(error),
                _ => cause.downcast_ref(),
            };
            matches!(data, Some(DataError::Value { .. }))
        };
        if error.chain().any(of_a_key) { Self::Usage(error) } else { Self::Failed(error) }
    }
}
