//! Ranges in braces, as WebDataset and shells write them: `shard-{000000..000004}.tar` stands for five files.

use std::path::{Path, PathBuf};

use super::unusable;
use crate::error::DataError;

/// The most files that a pattern may stand for.
const MOST: u64 = 1_000_000;

/// Returns the paths that `pattern` stands for, in order; without a range, the path itself.
pub(super) fn expand(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = Vec::new();
    add(pattern, &mut paths, pattern)?;
    Ok(paths)
}

/// Adds the paths that `rest` stands for. Only the first range is expanded, the others by a call for each number.
fn add(rest: &str, paths: &mut Vec<PathBuf>, pattern: &str) -> Result<(), DataError> {
    let Some((before, range, after)) = first_range(rest) else {
        if paths.len() as u64 >= MOST {
            let found = format!("ranges of more than {MOST} files");
            return Err(unusable(Path::new(pattern), found, "fewer files"));
        }
        paths.push(PathBuf::from(rest));
        return Ok(());
    };
    let (from, to) = range;
    let width = from.len().min(to.len());
    let number = |text: &str| {
        text.parse::<u64>().map_err(|_| {
            unusable(
                Path::new(pattern),
                format!("the range {{{from}..{to}}}"),
                "two whole numbers, the smaller first",
            )
        })
    };
    let (first, last) = (number(from)?, number(to)?);
    if first > last || last - first >= MOST {
        let found = format!("the range {{{from}..{to}}}");
        let expected = format!("two whole numbers, the smaller first, and at most {MOST} files");
        return Err(unusable(Path::new(pattern), found, &expected));
    }
    // Only numbers that begin with a zero are filled up.
    let width = if from.starts_with('0') { width } else { 0 };
    (first..=last).try_for_each(|number| add(&format!("{before}{number:0width$}{after}"), paths, pattern))
}

/// Splits `text` at its first `{FROM..TO}`, both of digits.
fn first_range(text: &str) -> Option<(&str, (&str, &str), &str)> {
    for (open, _) in text.match_indices('{') {
        let Some((inside, after)) = text[open + 1..].split_once('}') else { continue };
        let Some((from, to)) = inside.split_once("..") else { continue };
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number(from) && is_number(to) {
            return Some((&text[..open], (from, to), after));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::expand;
    use std::path::PathBuf;

    #[test]
    fn ranges_count_as_in_webdataset() {
        let of = |pattern: &str| expand(pattern).unwrap();
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(of("a-{08..11}.tar"), paths(&["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]));
        assert_eq!(of("a-{8..11}.tar"), paths(&["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]));
        assert_eq!(of("{0..1}/{0..1}.tar"), paths(&["0/0.tar", "0/1.tar", "1/0.tar", "1/1.tar"]));
        // What is no range of numbers is a part of the name.
        for name in ["plain.tar", "{a..b}.tar", "{x}.tar", "{1..}.tar", "{1..2.tar", "}{.tar"] {
            assert_eq!(of(name), paths(&[name]), "{name}");
        }
    }

    #[test]
    fn ranges_that_go_down_or_too_far_are_errors() {
        for pattern in
            ["{2..1}.tar", "{0..99999999}.tar", "{0..99999999999999999999999}.tar", "{0..1999}{0..1999}.tar"]
        {
            let error = expand(pattern).unwrap_err().to_string();
            assert!(error.contains(pattern) && error.contains("expected"), "{error}");
        }
    }
}
