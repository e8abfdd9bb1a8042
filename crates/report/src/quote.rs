//! Quoting of names that users chose (suites, rows, profiles, data sets, folders) for Markdown, links and
//! shells, where some characters have a meaning.

use std::fmt::Write as _;

/// Replaces by a space each character that breaks a line, controls a terminal, turns the direction of the text around
/// it, which would reverse the digits of numbers, or is not allowed in XML.
pub(crate) fn one_line(text: &str) -> String {
    let breaks = |letter: char| {
        let turns = matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        letter.is_control() || turns || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
    };
    text.chars().map(|letter| if breaks(letter) { ' ' } else { letter }).collect()
}

/// Quotes `text` for a line or a table cell of Markdown, so that it is not read as markup, HTML, a link or a
/// new cell.
pub(crate) fn markdown(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for letter in one_line(text).chars() {
        match letter {
            '<' => quoted.push_str("&lt;"),
            '\\' | '`' | '*' | '[' | ']' | '|' => quoted.extend(['\\', letter]),
            other => quoted.push(other),
        }
    }
    quoted
}

/// Quotes `text` as code in a table cell of Markdown. Only the bar, which ends a cell, can be escaped there.
pub(crate) fn code(text: &str) -> String {
    format!("`{}`", one_line(text).replace('`', "'").replace('|', "\\|"))
}

/// Quotes the path of a file beside the page as the target of a Markdown link.
pub(crate) fn link(path: &str) -> String {
    let mut quoted = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(quoted, "%{byte:02X}");
        }
    }
    quoted
}

/// Quotes `argument` as one word for a shell, on one line.
pub(crate) fn shell(argument: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "=._-/:,+@".contains(letter);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    if !argument.contains(char::is_control) {
        return format!("'{}'", argument.replace('\'', r"'\''"));
    }
    // bash and zsh both read escapes in this form.
    let mut quoted = String::from("$'");
    for letter in argument.chars() {
        match letter {
            '\'' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            letter if letter.is_control() => {
                for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a string cannot fail.
                    let _ = write!(quoted, "\\x{byte:02x}");
                }
            }
            other => quoted.push(other),
        }
    }
    quoted + "'"
}

#[cfg(test)]
mod tests {
    use super::{code, link, markdown, one_line, shell};

    #[test]
    fn ordinary_names_are_untouched() {
        for name in
            ["Triplet (hard)", "CIFAR-10 (verified)", "k-MeansNet, 105k images", "ResNet-18 & Kö_2", "10 %"]
        {
            assert_eq!(markdown(name), name);
            assert_eq!(one_line(name), name);
        }
        assert_eq!(code("table1/4f3a-s0"), "`table1/4f3a-s0`");
        assert_eq!(link("figure3/curves-quick.png"), "figure3/curves-quick.png");
        assert_eq!(shell("data.root=/data/cifar"), "data.root=/data/cifar");
    }

    #[test]
    fn names_stay_text() {
        assert_eq!(markdown("a|b\n# c"), "a\\|b # c");
        assert_eq!(markdown("<script>x</script>"), "&lt;script>x&lt;/script>");
        assert_eq!(markdown("[x](y) `z` *w* \\"), "\\[x\\](y) \\`z\\` \\*w\\* \\\\");
        assert_eq!(code("a`b|c\u{1b}"), "`a'b\\|c `");
        assert_eq!(link("my suite/a)b.png"), "my%20suite/a%29b.png");
        assert_eq!(one_line("a\u{1b}[31m\r\nb\u{2028}c\u{9b}d\u{ffff}"), "a [31m  b c d ");
        assert_eq!(shell("data.root=/a b"), "'data.root=/a b'");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell("a\n```\n\u{1b}'"), "$'a\\n```\\n\\x1b\\''");
        assert_eq!(shell(""), "''");
    }
}
