//! The exit codes of the program when it cannot do what was asked: 2 for a wrong request, 1 for a failure.

use invaspread_data::DataError;
use invaspread_runner::config::ConfigError;
use invaspread_runner::launch::LaunchError;
use std::fmt;
use std::process::ExitCode;

/// Why the program stops.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request is wrong: an unknown key, suite or value.
    Usage(anyhow::Error),
    /// The request was correct, and carrying it out failed.
    Failed(anyhow::Error),
    /// The program was asked to stop. This is not an error, but the work is not done.
    Stopped,
    /// The reader of standard output has ended, as `head` does after a few lines. This is not an error, and
    /// nobody reads a message.
    Unread,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            // The code that a shell reports for a program that an interrupt ended.
            Self::Stopped => 130,
            // The code that a shell reports for a program that wrote to a closed pipe.
            Self::Unread => 141,
        })
    }
}

impl fmt::Display for Failure {
    /// Writes the error and its causes on one line, without causes that the line already contains.
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
    /// Returns a wrong request if a value was refused that only the data set can check, a stop if the packing of a data set was
    /// stopped, and a failure for any other error.
    fn from(error: anyhow::Error) -> Self {
        match error.chain().find_map(of_data) {
            Some(DataError::Value { .. }) => Self::Usage(error),
            Some(DataError::Stopped { .. }) => Self::Stopped,
            _ => Self::Failed(error),
        }
    }
}

/// Returns an error of a data set, if `cause` is one.
fn of_data<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a DataError> {
    match cause.downcast_ref() {
        Some(LaunchError::Data(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}
