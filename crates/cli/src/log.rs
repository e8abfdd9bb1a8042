//! The log of the libraries, on standard error. It contains warnings, unless the variable `INVASPREAD_LOG`
//! asks for more or less.

use crate::output::{has_colors, note, note_raw, visible};
use std::fmt;
use std::io::{self, Write};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

const VARIABLE: &str = "INVASPREAD_LOG";

/// Starts logging.
pub(crate) fn start() {
    let (filter, problem) = filter(std::env::var_os(VARIABLE).as_deref());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Notes)
        .with_ansi(has_colors(&io::stderr()))
        .event_format(OneLine)
        .init();
    if let Some(problem) = problem {
        note!("{problem}");
    }
}

/// Returns what to log, and an error in the variable's value if there is one.
fn filter(value: Option<&std::ffi::OsStr>) -> (EnvFilter, Option<String>) {
    let warnings = || EnvFilter::new("warn");
    let Some(value) = value.filter(|value| !value.is_empty()) else { return (warnings(), None) };
    let text = value.to_string_lossy();
    // The parser takes a word that is not a level for the name of a module, and would then log nothing else.
    let words = text.split(',').map(str::trim).filter(|word| !word.contains(['=', '[']));
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let known = words.clone().all(|word| levels.iter().any(|level| word.eq_ignore_ascii_case(level)));
    match EnvFilter::builder().parse(&text) {
        Ok(filter) if known => (filter, None),
        _ => {
            let problem = format!(
                "{VARIABLE}: found {text:?}, expected one of {}, or levels of modules as in \
                 warn,invaspread_data=debug; logging warnings",
                levels.join(", ")
            );
            (warnings(), Some(problem))
        }
    }
}

/// An event as a line of text: its level, its message and its fields, with escapes for control characters.
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() {
            let color = match level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                Level::DEBUG => 34,
                Level::TRACE => 35,
            };
            write!(writer, "\x1b[{color}m{level:>5}\x1b[0m")?;
        } else {
            write!(writer, "{level:>5}")?;
        }
        writeln!(writer, " {}", visible(&text))
    }
}

/// Standard error, written in the same way as by [`note!`].
struct Notes;

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        note_raw(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::filter;
    use std::ffi::OsStr;

    #[test]
    fn levels_and_directives_are_taken_and_anything_else_is_told() {
        for good in ["", "warn", "OFF", "debug", "warn,invaspread_data=debug", "invaspread_data=trace"] {
            let (_, problem) = filter(Some(OsStr::new(good)));
            assert_eq!(problem, None, "{good}");
        }
        for bad in ["verbose", "garbage", "invaspread_data=loud", "warn,quiet"] {
            let (used, problem) = filter(Some(OsStr::new(bad)));
            assert_eq!(used.to_string(), "warn", "{bad}");
            assert!(
                problem.is_some_and(|problem| problem.contains(bad) && problem.contains("debug")),
                "{bad}"
            );
        }
        assert_eq!(filter(None).0.to_string(), "warn");
    }
}
