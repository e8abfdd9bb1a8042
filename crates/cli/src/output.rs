//! Everything that the program prints: results on standard output, notes and errors on standard error.
//!
//! Results are collected, and written before each note and at the end. A failure to write them is stored
//! until [`finish`], which returns it as the program's failure. A note that cannot be written is dropped,
//! because a run must not end only because nobody reads its progress.
//!
//! Names in archives and weight files, paths and lines of configs come from outside and may hold control
//! characters. Every line passes through [`visible`], so that no control character reaches a terminal.

use crate::failure::Failure;
use indicatif::ProgressBar;
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use terminal_size::{Width, terminal_size_of};

/// Prints one line on standard output; takes the arguments of `format!`. A line break within the line is
/// shown as `\n`.
macro_rules! print_line {
    ($($text:tt)+) => { $crate::output::line(format_args!($($text)+)) };
}

/// Writes one line to standard error; takes the arguments of `format!`. A line break within the line is shown
/// as `\n`.
macro_rules! note {
    ($($text:tt)+) => { $crate::output::note_line(format_args!($($text)+)) };
}

pub(crate) use {note, print_line};

/// Results of more bytes than this are written before the end.
const MANY: usize = 1 << 16;

static RESULTS: Mutex<Results> = Mutex::new(Results { pending: String::new(), failure: None });

/// The text for standard output that has not been written yet.
struct Results {
    pending: String,
    /// The first failure; nothing is written after it.
    failure: Option<io::Error>,
}

impl Results {
    fn add(&mut self, text: &str) {
        if self.failure.is_none() {
            self.pending.push_str(text);
            if self.pending.len() > MANY {
                self.write();
            }
        }
    }

    fn write(&mut self) {
        if !self.pending.is_empty() && self.failure.is_none() {
            self.failure = standard_output().and_then(|out| write_all(out, self.pending.as_bytes())).err();
        }
        self.pending.clear();
    }
}

/// Returns standard output without the buffer of the standard library, which reports success for a bad
/// descriptor.
#[cfg(unix)]
fn standard_output() -> io::Result<impl Write> {
    use std::os::fd::AsFd;
    Ok(std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

#[cfg(not(unix))]
fn standard_output() -> io::Result<impl Write> {
    Ok(io::stdout())
}

/// Writes all of `bytes`. Another program may have made a shared pipe or terminal non-blocking: then this
/// waits, as a write otherwise would.
fn write_all(mut out: impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

/// Prints `text` unchanged: clap's texts, whose styles are sequences of control characters, and scripts.
pub(crate) fn print_raw(text: &str) {
    RESULTS.lock().unwrap_or_else(PoisonError::into_inner).add(text);
}

/// Prints a line, for [`print_line!`].
pub(crate) fn line(text: fmt::Arguments) {
    print_raw(&format!("{}\n", visible(&text.to_string())));
}

/// Prints lines that the program formatted itself, such as a table.
pub(crate) fn print_block(text: &str) {
    text.lines().for_each(|text| line(format_args!("{text}")));
}

/// Prints JSON and a line break. Control characters can only be within strings, where an escape has the same
/// meaning.
pub(crate) fn print_json(text: &str) {
    let mut shown = String::with_capacity(text.len() + 1);
    for letter in text.chars() {
        if is_obeyed(letter) && letter != '\n' {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(letter);
        }
    }
    shown.push('\n');
    print_raw(&shown);
}

/// Writes a line, for [`note!`].
pub(crate) fn note_line(text: fmt::Arguments) {
    note_raw(&format!("{}\n", visible(&text.to_string())));
}

/// Writes lines that the program formatted itself to standard error.
pub(crate) fn note_block(text: &str) {
    text.lines().for_each(|text| note_line(format_args!("{text}")));
}

/// Writes `text` to standard error unchanged: clap's texts, whose styles are sequences of control characters.
pub(crate) fn note_raw(text: &str) {
    // Results come before the note, in the order of the calls. A panic in the middle of printing must not
    // wait for itself.
    if let Ok(mut results) = RESULTS.try_lock() {
        results.write();
    }
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes one line to standard error, above `bar` if that is drawn.
pub(crate) fn note_above(bar: &ProgressBar, text: &str) {
    if bar.is_hidden() {
        note!("{text}");
    } else {
        bar.println(visible(text));
    }
}

/// Writes the rest of the results.
///
/// # Errors
/// Returns [`Failure::Unread`] if the reader of standard output has ended, and the system's error if anything
/// else prevented writing.
pub(crate) fn finish() -> Result<(), Failure> {
    let mut results = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    results.write();
    match results.failure.take() {
        None => Ok(()),
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Unread),
        Some(error) => {
            Err(Failure::Failed(anyhow::Error::new(error).context("failed to write to standard output")))
        }
    }
}

/// Least width of a terminal in which a bar is drawn.
const WIDE: u16 = 40;

/// Returns whether a bar can be drawn on standard error: it must be a terminal that can move its cursor and
/// is wide enough.
pub(crate) fn draws() -> bool {
    let wide = terminal_size_of(io::stderr()).is_none_or(|(Width(columns), _)| columns >= WIDE);
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") && wide
}

/// Returns whether colors are wanted on `stream`: not in a file or pipe, and not if the user turned them off
/// (no-color.org).
pub(crate) fn has_colors(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns `text` with every control character written as an escape, such as `\n` or `\u001b`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            // Writing to a string cannot fail.
            letter if is_obeyed(letter) && u32::from(letter) > 0xffff => {
                let _ = write!(shown, "\\U{:08x}", u32::from(letter));
            }
            letter if is_obeyed(letter) => {
                let _ = write!(shown, "\\u{:04x}", u32::from(letter));
            }
            letter => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// Returns whether a terminal acts on `letter` or hides it: control characters (C0, delete, C1), marks that
/// change the direction of writing ("Trojan Source", CVE-2021-42574), separators of lines, and characters
/// without width, which make two names look equal. The joiners that scripts and emoji need are not among
/// them.
fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{is_obeyed, visible, write_all};
    use std::borrow::Cow;
    use std::io::{self, Write};

    #[test]
    fn ordinary_text_is_untouched() {
        for text in [
            "",
            "R@1 80.00%",
            "Grünfink · 日本語 · नमस्ते · عربى",
            "👩\u{200d}🔬",
            "C:\\data\\new",
            "a\u{200c}b",
        ] {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text), "{text:?}");
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_shown_as_an_escape() {
        for (text, shown) in [
            ("a\nerror: forged", "a\\nerror: forged"),
            ("50%\rdone", "50%\\rdone"),
            ("a\tb", "a\\tb"),
            ("\x1b[31mred", "\\u001b[31mred"),
            ("\u{9b}2J", "\\u009b2J"),
            ("bell\x07 back\x08 null\0 delete\x7f", "bell\\u0007 back\\u0008 null\\u0000 delete\\u007f"),
            ("\u{202e}gnp.exe", "\\u202egnp.exe"),
            ("\u{2066}a\u{2069}", "\\u2066a\\u2069"),
            ("a\u{200b}b\u{feff}", "a\\u200bb\\ufeff"),
            ("one\u{2028}two", "one\\u2028two"),
            ("\u{e0041}", "\\U000e0041"),
        ] {
            assert_eq!(visible(text), shown);
            assert!(!visible(text).contains(is_obeyed));
        }
    }

    /// A writer that takes a byte at a time, and asks to wait or to try again before each.
    struct Reluctant(Vec<u8>, usize);

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 % 3 {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                1 => Err(io::ErrorKind::Interrupted.into()),
                _ => {
                    self.0.push(bytes[0]);
                    Ok(1)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_does_not_block_gets_everything_once() {
        let mut pipe = Reluctant(Vec::new(), 0);
        write_all(&mut pipe, b"[1, 2, 3]\n").unwrap();
        assert_eq!(pipe.0, b"[1, 2, 3]\n");
    }
}
