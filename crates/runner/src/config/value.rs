//! Reads a key's value from text. Only the kind of the key decides how the text is read.

use std::path::Path;

use super::home::{HomeError, expand_home};
use super::number::{Whole, number, whole};
use crate::settings::Kind;

/// The meaning of a text, or of a file's value, for a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    /// A value of the key's kind.
    Value(toml::Value),
    /// No value: the key is unset.
    Unset,
}

/// Why a text is not a value of a key: what was found, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) found: String,
    pub(super) expected: String,
}

impl Unfit {
    fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }
}

/// The whole numbers that TOML, and so a run's own config, can hold.
const WHOLE: &str = "a whole number from 0 to 9223372036854775807";

impl Kind {
    /// Describes the values of this kind in words.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Whole => "a whole number, 0 or more".into(),
            Self::Number => "a number".into(),
            Self::Switch => "true or false".into(),
            Self::Word => "a word".into(),
            Self::Path => "a path".into(),
            Self::List(of) => match **of {
                Self::Whole => "a list of whole numbers, as [1,10]".into(),
                Self::Number => "a list of numbers, as [0.5,1]".into(),
                _ => "a list, as [flip,grayscale]".into(),
            },
            Self::Table => "keys of its own, as {key=value}".into(),
        }
    }

    /// Reads the text that was typed after `key=`. `null`, or an empty text, unsets a key; in quotes either
    /// one is an ordinary text.
    ///
    /// # Errors
    /// Returns an error if the text is not a value of this kind.
    pub(super) fn read(&self, text: &str) -> Result<Reading, Unfit> {
        if matches!(text.trim(), "" | "null") {
            return Ok(Reading::Unset);
        }
        self.value(text).map(Reading::Value)
    }

    fn value(&self, text: &str) -> Result<toml::Value, Unfit> {
        // Only a path may begin or end with a space.
        let trimmed = text.trim();
        let is_listed = trimmed.starts_with('[') && trimmed.ends_with(']');
        let wrong = || {
            let hint = if is_listed { "; values of several runs have no brackets, as 0,1" } else { "" };
            Unfit::new(format!("{trimmed:?}"), format!("{}{hint}", self.in_words()))
        };
        match self {
            Self::Whole => match whole(trimmed) {
                Whole::Number(number) => Ok(number.into()),
                Whole::TooLarge => Err(Unfit::new(trimmed, WHOLE)),
                Whole::Other if number(trimmed).is_some() => Err(Unfit::new(trimmed, self.in_words())),
                Whole::Other => Err(wrong()),
            },
            Self::Number => number(trimmed).map(toml::Value::from).ok_or_else(wrong),
            Self::Switch => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Ok(true.into()),
                "false" | "no" | "off" => Ok(false.into()),
                _ => Err(wrong()),
            },
            Self::Word => Ok(unquoted(trimmed).unwrap_or_else(|| trimmed.to_owned()).into()),
            Self::Path if is_listed && trimmed.contains(',') => {
                let expected = format!("one path; a path that has brackets is quoted, as '\"{trimmed}\"'");
                Err(Unfit::new(format!("the list {trimmed}"), expected))
            }
            Self::Path => path(&unquoted(trimmed).unwrap_or_else(|| text.to_owned())),
            Self::List(of) => {
                let inner = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let items = inner.map_or(vec![trimmed], items);
                items.into_iter().map(|item| of.value(item)).collect::<Result<Vec<_>, _>>().map(Into::into)
            }
            Self::Table => {
                let parsed: Option<toml::Table> = toml::from_str(&format!("value = {trimmed}")).ok();
                let value =
                    parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
                value.filter(toml::Value::is_table).ok_or_else(wrong)
            }
        }
    }

    /// Converts a file's value to this kind: `1e3` is a whole number in files too, and `~` is the home
    /// folder. The types of the config refuse a value of another type.
    ///
    /// # Errors
    /// Returns an error if the value has the right type but is not a value of this kind.
    pub(super) fn conform(&self, value: toml::Value) -> Result<toml::Value, Unfit> {
        match (self, value) {
            (Self::Whole, toml::Value::Float(float)) => match whole(&format!("{float:?}")) {
                Whole::Number(number) => Ok(number.into()),
                Whole::TooLarge => Err(Unfit::new(float.to_string(), WHOLE)),
                Whole::Other => Err(Unfit::new(float.to_string(), self.in_words())),
            },
            (Self::Whole, toml::Value::Integer(number)) if number < 0 => {
                Err(Unfit::new(number.to_string(), self.in_words()))
            }
            (Self::Number, toml::Value::Integer(number)) => Ok((number as f64).into()),
            (Self::Number, toml::Value::Float(float)) if !float.is_finite() => {
                Err(Unfit::new(float.to_string(), "a finite number"))
            }
            (Self::Path, toml::Value::String(text)) => path(&text),
            (Self::List(of), toml::Value::Array(list)) => {
                list.into_iter().map(|item| of.conform(item)).collect::<Result<Vec<_>, _>>().map(Into::into)
            }
            (Self::Number, toml::Value::String(text)) => {
                Err(Unfit::new(format!("{text:?}"), self.in_words()))
            }
            (Self::Whole, toml::Value::String(text)) => Err(Unfit::new(format!("{text:?}"), self.in_words())),
            (_, value) => Ok(value),
        }
    }
}

fn path(text: &str) -> Result<toml::Value, Unfit> {
    let expanded =
        expand_home(Path::new(text)).map_err(|HomeError { found, expected }| Unfit { found, expected })?;
    let found =
        || Unfit::new(format!("{}", expanded.display()), "a path in UTF-8, which a run's config can hold");
    expanded.to_str().map(toml::Value::from).ok_or_else(found)
}

/// Returns the content of `text` if it is one TOML string, else `None`.
pub(super) fn unquoted(text: &str) -> Option<String> {
    if !text.starts_with(['"', '\'']) {
        return None;
    }
    let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    match (table.len(), table.remove("value")) {
        (1, Some(toml::Value::String(content))) => Some(content),
        _ => None,
    }
}

/// Returns the parts between the commas that stand outside of quotes and brackets, without the spaces around
/// them. A comma may end the list.
pub(super) fn items(text: &str) -> Vec<&str> {
    let mut items = pieces(text);
    if items.last().is_some_and(|last| last.trim().is_empty()) {
        items.pop();
    }
    items.into_iter().map(str::trim).collect()
}

/// Returns the parts between the commas that stand outside of quotes and brackets. Text whose quotes or
/// brackets do not close is one part.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut start, mut depth, mut quote, mut escaped) = (Vec::new(), 0, 0_usize, None, false);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), close) if open == close && !escaped => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        escaped = false;
    }
    if quote.is_some() || depth > 0 {
        return vec![text];
    }
    pieces.push(&text[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::{Kind, Reading, pieces, unquoted};
    use proptest::prelude::*;

    fn read(kind: &Kind, text: &str) -> toml::Value {
        match kind.read(text) {
            Ok(Reading::Value(value)) => value,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn list(of: Kind) -> Kind {
        Kind::List(Box::new(of))
    }

    #[test]
    fn the_kind_of_the_key_decides() {
        // TOML would read each of these as something else.
        for text in [
            "20240105",
            "2024-01-05",
            "true",
            "1e5",
            "/x, y",
            "a=b",
            "#1",
            "[x]",
            "{y}",
            "it's",
            "a\nb",
            " ",
            "nan",
        ] {
            let text = format!("{text}x");
            assert_eq!(read(&Kind::Path, &text), toml::Value::from(text.as_str()));
        }
        for text in ["20240105", "2024-01-05", "true", "1e5", "-x", "[1]", "'half"] {
            assert_eq!(read(&Kind::Path, text), toml::Value::from(text));
            assert_eq!(read(&Kind::Word, text), toml::Value::from(text));
        }
        assert_eq!(read(&Kind::Path, "\"a, b\""), toml::Value::from("a, b"));
        assert_eq!(read(&Kind::Path, "'null'"), toml::Value::from("null"));
        for text in ["true", "True", "TRUE", "yes", "on", "On"] {
            assert_eq!(read(&Kind::Switch, text), toml::Value::from(true), "{text}");
        }
        for text in ["false", "False", "no", "NO", "off"] {
            assert_eq!(read(&Kind::Switch, text), toml::Value::from(false), "{text}");
        }
        assert_eq!(read(&Kind::Whole, "5e4"), toml::Value::from(50_000));
        assert_eq!(read(&Kind::Number, "5"), toml::Value::from(5.0));
        for kind in
            [Kind::Whole, Kind::Number, Kind::Switch, Kind::Word, Kind::Path, list(Kind::Word), Kind::Table]
        {
            for text in ["null", "", " "] {
                assert_eq!(kind.read(text), Ok(Reading::Unset), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_list_where_one_value_is_expected_is_told_how_to_be_several_runs() {
        let told = Kind::Whole.read("[0,1]").unwrap_err();
        assert_eq!(told.found, "\"[0,1]\"");
        assert!(
            told.expected.ends_with("values of several runs have no brackets, as 0,1"),
            "{}",
            told.expected
        );
        let told = Kind::Path.read("[a,b]").unwrap_err();
        assert!(told.expected.starts_with("one path; "), "{}", told.expected);
        assert_eq!(read(&Kind::Path, "\"[a,b]\""), toml::Value::from("[a,b]"));
    }

    #[test]
    fn lists_hold_words_without_quotes() {
        let words = |text: &str| read(&list(Kind::Word), text);
        let want = toml::Value::from(vec!["flip", "grayscale"]);
        for text in
            ["[flip,grayscale]", "[ flip , grayscale ]", "['flip',\"grayscale\"]", "[flip,grayscale,]"]
        {
            assert_eq!(words(text), want, "{text}");
        }
        assert_eq!(words("[]"), toml::Value::Array(Vec::new()));
        assert_eq!(words("flip"), toml::Value::from(vec!["flip"]));
        assert_eq!(read(&list(Kind::Number), "[.5,1]"), toml::Value::from(vec![0.5, 1.0]));
        assert!(list(Kind::Whole).read("[1,x]").is_err());
    }

    #[test]
    fn what_is_no_value_is_told_with_what_is() {
        let told = |kind: &Kind, text: &str| {
            let unfit = kind.read(text).unwrap_err();
            format!("{} / {}", unfit.found, unfit.expected)
        };
        assert_eq!(told(&Kind::Whole, "wide"), "\"wide\" / a whole number, 0 or more");
        assert_eq!(told(&Kind::Whole, "-4"), "-4 / a whole number, 0 or more");
        let largest = "9223372036854775808 / a whole number from 0 to 9223372036854775807";
        assert_eq!(told(&Kind::Whole, "9223372036854775808"), largest);
        assert_eq!(told(&Kind::Number, "nan"), "\"nan\" / a number");
        assert_eq!(told(&Kind::Switch, "maybe"), "\"maybe\" / true or false");
        assert!(told(&Kind::Path, "~you/x").contains("./~you"));
    }

    #[test]
    fn commas_within_quotes_and_brackets_separate_nothing() {
        assert_eq!(pieces("0,1,2"), ["0", "1", "2"]);
        assert_eq!(pieces("[0,1],[2]"), ["[0,1]", "[2]"]);
        assert_eq!(pieces(r#""a,b",'c,"d'"#), [r#""a,b""#, r#"'c,"d'"#]);
        assert_eq!(pieces(r#""a\",b",c"#), [r#""a\",b""#, "c"]);
        assert_eq!(pieces("it's,b"), ["it's,b"]);
        assert_eq!(pieces(""), [""]);
    }

    #[test]
    fn values_of_files_are_of_the_keys_kind_too() {
        assert_eq!(Kind::Whole.conform(1e3.into()), Ok(1000.into()));
        assert_eq!(Kind::Number.conform(1.into()), Ok(1.0.into()));
        for (kind, value) in [
            (Kind::Whole, toml::Value::from(1.5)),
            (Kind::Whole, toml::Value::from(-1)),
            (Kind::Whole, toml::Value::from(1e300)),
            (Kind::Number, toml::Value::from(f64::NAN)),
            (list(Kind::Number), toml::Value::from(vec![f64::INFINITY])),
            (Kind::Path, toml::Value::from("~you")),
        ] {
            assert!(kind.conform(value.clone()).is_err(), "{value}");
        }
        let home = std::env::home_dir().unwrap().join("x");
        assert_eq!(Kind::Path.conform("~/x".into()), Ok(home.to_str().unwrap().into()));
    }

    proptest! {
        /// Any value of a kind, written as text, is read as the same value.
        #[test]
        fn values_come_back(x in any::<f64>().prop_filter("finite", |x| x.is_finite()), n in 0..=i64::MAX, b in any::<bool>(), text in "\\PC{1,30}") {
            prop_assert_eq!(read(&Kind::Number, &format!("{x:?}")), toml::Value::from(x));
            prop_assert_eq!(read(&Kind::Whole, &n.to_string()), toml::Value::from(n));
            prop_assert_eq!(read(&Kind::Switch, &b.to_string()), toml::Value::from(b));
            let trimmed = text.trim();
            let is_list = trimmed.starts_with('[') && trimmed.ends_with(']');
            let is_special = is_list || text.starts_with('~') || matches!(trimmed, "" | "null");
            let plain = !is_special && unquoted(trimmed).is_none();
            if plain {
                prop_assert_eq!(read(&Kind::Path, &text), toml::Value::from(text.as_str()));
            }
            // In quotes any text is read as itself.
            let quoted = toml::Value::from(text.as_str()).to_string();
            if !text.starts_with('~') {
                prop_assert_eq!(read(&Kind::Path, &quoted), toml::Value::from(text.as_str()));
            }
            prop_assert_eq!(read(&Kind::Word, &quoted), toml::Value::from(text.as_str()));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            for kind in [Kind::Whole, Kind::Number, Kind::Switch, Kind::Word, Kind::Path, list(Kind::Whole), Kind::Table] {
                let _ = kind.read(&text);
            }
            prop_assert_eq!(pieces(&text).join(","), text);
        }
    }
}
