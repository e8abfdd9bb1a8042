//! An error of the TOML parser, on one line.

/// Returns the place of the error in `text` and its message, such as "line 3, column 5: invalid table header,
/// expected `]`". The parser's own message draws the place over several lines and quotes it.
pub(super) fn reason(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().trim().lines().collect::<Vec<_>>().join(", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return message };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::reason;

    #[test]
    fn the_place_is_told_on_one_line() {
        for (text, begins) in [
            ("[method\nname = 1\n", "line 1, column 8: "),
            ("a = 1\nb = = 2\n", "line 2, column 5: "),
            ("é = 1\n", "line 1, column 1: "),
            ("a = \"\x1b[31m\"", "line 1, column 6: "),
        ] {
            let error = toml::from_str::<toml::Table>(text).unwrap_err();
            let reason = reason(&error, text);
            assert!(reason.starts_with(begins), "{text:?}: {reason}");
            assert!(reason.len() > begins.len() + 3, "{text:?}: {reason}");
            assert!(!reason.contains('\n') && !reason.contains('\x1b'), "{text:?}: {reason:?}");
        }
    }
}
