//! The class of a sample of a tar shard: the number or the text in its `.cls`, or `label`, `cls` or `class` in the object in its
//! `.json`. If both tell a class, it must be the same.

use std::fmt;

use serde_json::Value;

use super::SampleLabel;

/// The fields of a `.json` that may hold the class; the first that is there counts.
const FIELDS: [&str; 3] = ["label", "cls", "class"];

/// The class of a sample, or why it has none.
pub(crate) type Class = Result<SampleLabel, NoClass>;

/// Why a sample has no class, in words that follow the name of the sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoClass {
    /// Nothing gives one.
    Absent(String),
    /// What gives one cannot be understood.
    Unreadable(String),
}

impl fmt::Display for NoClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Absent(why) | Self::Unreadable(why)) = self;
        f.write_str(why)
    }
}

/// A file that may hold the class of a sample.
pub(super) struct ClassFile {
    /// Its whole name.
    pub(super) name: String,
    /// Whether it is a `.json`; otherwise it is a `.cls`.
    pub(super) is_json: bool,
}

/// Reads the class in the content of a file.
pub(super) fn read(file: &ClassFile, bytes: &[u8]) -> Class {
    let name = &file.name;
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(NoClass::Unreadable(format!("bytes that are not UTF-8 text in {name}")));
    };
    if file.is_json {
        return of_json(name, text);
    }
    of_text(text).ok_or_else(|| NoClass::Absent(format!("nothing in {name}")))
}

/// Returns the one class that the files of a sample tell.
pub(super) fn agreed(found: Vec<(ClassFile, Class)>) -> Class {
    let mut agreed: Option<(ClassFile, SampleLabel)> = None;
    let mut absent = NoClass::Absent("no class in a .cls or .json".to_owned());
    for (file, class) in found {
        match (class, &agreed) {
            (Err(why @ NoClass::Unreadable(_)), _) => return Err(why),
            (Err(why), _) => absent = why,
            (Ok(label), None) => agreed = Some((file, label)),
            (Ok(label), Some((first, known))) if !same(&label, known) => {
                let why = format!("the class {known} in {} and {label} in {}", first.name, file.name);
                return Err(NoClass::Unreadable(why));
            }
            // A `.cls` tells the class as it is meant, beside a `.json` that may quote a number.
            (Ok(label), Some((first, _))) if first.is_json && !file.is_json => agreed = Some((file, label)),
            (Ok(_), Some(_)) => {}
        }
    }
    agreed.map(|(_, label)| label).ok_or(absent)
}

/// Returns whether two labels are one class. The word "3" in a `.json` is the number 3 in a `.cls`.
fn same(one: &SampleLabel, other: &SampleLabel) -> bool {
    of_text(&one.to_string()) == of_text(&other.to_string())
}

fn of_text(text: &str) -> Option<SampleLabel> {
    let text = text.trim();
    match text.parse() {
        Ok(number) => Some(SampleLabel::Number(number)),
        Err(_) => (!text.is_empty()).then(|| SampleLabel::Word(text.to_owned())),
    }
}

fn of_json(name: &str, text: &str) -> Class {
    let object: Value = serde_json::from_str(text)
        .map_err(|error| NoClass::Unreadable(format!("{name}, which is not JSON ({error})")))?;
    let Some((field, value)) = FIELDS.iter().find_map(|field| Some((field, object.get(field)?))) else {
        let fields = FIELDS.map(|field| format!("{field:?}")).join(", ");
        return Err(NoClass::Absent(format!("none of the fields {fields} in {name}")));
    };
    let place = format!("in the field {field:?} of {name}");
    let unreadable = |what: &str| Err(NoClass::Unreadable(format!("{what} {place}")));
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(number) => Ok(SampleLabel::Number(number)),
            None => unreadable(&format!("the number {number}")),
        },
        Value::String(word) if word.trim().is_empty() => unreadable("an empty word"),
        Value::String(word) => Ok(SampleLabel::Word(word.clone())),
        Value::Null => Err(NoClass::Absent(format!("null {place}"))),
        Value::Bool(value) => unreadable(&format!("{value}")),
        Value::Array(_) => unreadable("a list"),
        Value::Object(_) => unreadable("an object"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn file(name: &str) -> ClassFile {
        ClassFile { name: name.to_owned(), is_json: name.ends_with("json") }
    }

    fn number(number: i64) -> SampleLabel {
        SampleLabel::Number(number)
    }

    fn word(word: &str) -> SampleLabel {
        SampleLabel::Word(word.to_owned())
    }

    #[test]
    fn a_class_is_a_whole_number_or_a_word() {
        for (name, content, expected) in [
            ("a.cls", " 3\n", number(3)),
            ("a.cls", "3.5", word("3.5")),
            ("a.json", r#"{"class": 1, "label": "cat"}"#, word("cat")),
            ("a.json", r#"{"cls": -7}"#, number(-7)),
        ] {
            assert_eq!(read(&file(name), content.as_bytes()), Ok(expected), "{content}");
        }
    }

    #[test]
    fn what_holds_no_class_is_told_with_its_field() {
        for (name, content, is_absent, words) in [
            ("a.cls", &b" \n"[..], true, "nothing in a.cls"),
            ("a.cls", b"\xff", false, "bytes that are not UTF-8 text in a.cls"),
            ("a.json", b"{\"x\": 1}", true, "none of the fields \"label\", \"cls\", \"class\" in a.json"),
            ("a.json", b"[1, 2]", true, "none of the fields"),
            ("a.json", b"{\"label\": null}", true, "null in the field \"label\" of a.json"),
            ("a.json", b"{label: 1}", false, "a.json, which is not JSON (key must be a string"),
            ("a.json", b"", false, "a.json, which is not JSON"),
            ("a.json", b"{\"cls\": 2.5}", false, "the number 2.5 in the field \"cls\" of a.json"),
            ("a.json", b"{\"cls\": 2.0}", false, "the number 2.0 in the field \"cls\""),
            ("a.json", b"{\"class\": 18446744073709551615}", false, "the number 18446744073709551615 in"),
            ("a.json", b"{\"label\": true}", false, "true in the field \"label\""),
            ("a.json", b"{\"label\": [1]}", false, "a list in the field \"label\""),
            ("a.json", b"{\"label\": \" \"}", false, "an empty word in the field \"label\""),
        ] {
            let why = read(&file(name), content).unwrap_err();
            assert!(why.to_string().starts_with(words), "expected {words:?} in: {why}");
            assert_eq!(matches!(why, NoClass::Absent(_)), is_absent, "{why}");
        }
    }

    #[test]
    fn the_files_of_a_sample_must_agree() {
        let of = |found: &[(&str, Class)]| {
            agreed(found.iter().map(|(name, class)| (file(name), class.clone())).collect())
        };
        let absent = || Err(NoClass::Absent("nothing".to_owned()));
        assert_eq!(of(&[("a.cls", Ok(number(3))), ("a.json", Ok(number(3)))]), Ok(number(3)));
        assert_eq!(of(&[("a.json", Ok(word("3"))), ("a.cls", Ok(number(3)))]), Ok(number(3)));
        assert_eq!(of(&[("a.cls", absent()), ("a.json", Ok(word("cat")))]), Ok(word("cat")));
        assert_eq!(of(&[("a.cls", absent())]), absent());
        assert!(of(&[]).unwrap_err().to_string().contains("no class in a .cls or .json"));
        let why = of(&[("a.cls", Ok(number(3))), ("a.json", Ok(word("cat")))]).unwrap_err();
        assert_eq!(why, NoClass::Unreadable("the class 3 in a.cls and cat in a.json".to_owned()));
        // What cannot be understood is told, though another file tells a class.
        let broken = Err(NoClass::Unreadable("a.json, which is not JSON".to_owned()));
        assert_eq!(of(&[("a.cls", Ok(number(3))), ("a.json", broken.clone())]), broken);
    }
}
