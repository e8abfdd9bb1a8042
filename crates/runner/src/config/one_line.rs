//! Values as TOML on one line, for people and for programs that read line by line.
//!
//! The TOML writer puts a text with a line break on several lines, and leaves characters without width as
//! they are. Both are valid, but lines of such a text look like settings, and a terminal does not show such
//! characters. Here they are escaped.

use toml::{Table, Value};

/// Returns `value` as TOML on one line, which reads back as the same value.
pub(super) fn one_line(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().any(is_hidden) => escaped(text),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(one_line).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key} = {}", one_line(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Splits the TOML text of a config into its headers, settings and empty lines. A setting with characters
/// that a terminal may not show is put on one line.
pub fn statements(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    for line in text.lines() {
        statement += if statement.is_empty() { "" } else { "\n" };
        statement += line;
        // An unfinished array or text is not TOML yet.
        let Ok(table) = statement.parse::<Table>() else { continue };
        let whole = std::mem::take(&mut statement);
        let setting = table.iter().next().filter(|_| !whole.starts_with('['));
        statements.push(match setting {
            Some((key, value)) if has_hidden(value) => format!("{key} = {}", one_line(value)),
            _ => whole,
        });
    }
    statements.extend(Some(statement).filter(|rest| !rest.is_empty()));
    statements
}

fn has_hidden(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().any(is_hidden),
        Value::Array(values) => values.iter().any(has_hidden),
        Value::Table(table) => table.values().any(has_hidden),
        _ => false,
    }
}

/// Returns whether a terminal may not show `letter`: a control character, or a character outside of ASCII
/// that is not a letter or a digit.
fn is_hidden(letter: char) -> bool {
    letter.is_control() || !(letter.is_ascii() || letter.is_alphanumeric())
}

fn escaped(text: &str) -> String {
    let letter = |letter: char| match letter {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        hidden if is_hidden(hidden) => format!("\\U{:08X}", u32::from(hidden)),
        plain => plain.to_string(),
    };
    format!("\"{}\"", text.chars().map(letter).collect::<String>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{one_line, statements};
    use proptest::prelude::*;
    use toml::{Table, Value};

    #[test]
    fn a_text_of_several_lines_is_one_statement() {
        let mut inner = Table::new();
        inner.insert("root".into(), "a\n[method]\nname = \"x\"\u{200b}'\\".into());
        inner.insert("without".into(), vec!["flip", "grayscale"].into());
        let mut table = Table::new();
        table.insert("seed".into(), 1.into());
        table.insert("data".into(), inner.into());
        let text = toml::to_string_pretty(&table).unwrap();
        let found = statements(&text);
        assert!(found.iter().all(|statement| !statement.contains("[method]\n")), "{found:?}");
        assert!(found.iter().any(|statement| statement.starts_with("root = \"a\\n[method]\\n")), "{found:?}");
        assert_eq!(found.join("\n").parse::<Table>().unwrap(), table);
        // Text without such characters stays as the TOML writer wrote it.
        let plain = "seed = 1\n\n[augment]\nwithout = [\n    \"flip\",\n]\n";
        assert_eq!(statements(plain).join("\n") + "\n", plain);
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in "(?s).{0,30}") {
            let line = one_line(&Value::from(text.as_str()));
            prop_assert!(!line.contains('\n'), "{line:?}");
            let table: Table = format!("value = {line}").parse().unwrap();
            prop_assert_eq!(table["value"].as_str(), Some(text.as_str()));
        }
    }
}
