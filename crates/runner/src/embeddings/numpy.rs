//! The header of numpy's `.npy` files.
//!
//! A `.npy` file is `\x93NUMPY`, two bytes of version, the header's length (two bytes; four from version 2
//! on), the header and the elements. The header is a Python dict of three keys:
//! `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`. Source: numpy's `lib/format`. It is parsed
//! by hand, because a crate for it would add a parser generator and a C build for these three keys.

use std::io::Read;

use super::array::{ElementType, Header, Kind};

/// The first bytes of a `.npy` file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// The most axes that an array may have, as in numpy.
const MOST_AXES: usize = 64;
/// The longest header that is read, in bytes. numpy stops at 10,000.
const LONGEST_HEADER: usize = 1 << 20;
/// The longest word that is read, in characters. Longer words are not names of classes.
const LONGEST_WORD: usize = 1 << 16;

/// Reads the header at the start of a `.npy` file. Returns the header and its length in bytes; the elements
/// follow it.
///
/// # Errors
/// Returns what was found instead of a header.
pub(crate) fn read_header(file: &mut impl Read) -> Result<(Header, u64), String> {
    let start = up_to(file, MAGIC.len())?;
    if start != MAGIC {
        return Err("bytes that numpy.save did not write".to_owned());
    }
    let version = exactly(file, 2)?;
    let wide = match version[0] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("version {version} of numpy's format, which has 1, 2 and 3")),
    };
    let length = exactly(file, wide)?;
    let length = length.iter().rev().fold(0_usize, |length, &byte| length << 8 | usize::from(byte));
    if length > LONGEST_HEADER {
        return Err(format!("a header of {length} bytes, of which at most {LONGEST_HEADER} are read"));
    }
    let text = exactly(file, length)?;
    let text = std::str::from_utf8(&text).map_err(|_| "a header that is not text".to_owned())?;
    Ok((parse(text)?, (start.len() + version.len() + wide + length) as u64))
}

/// Reads the next `count` bytes, or fewer if the file ends earlier.
fn up_to(file: &mut impl Read, count: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(count as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn exactly(file: &mut impl Read, count: usize) -> Result<Vec<u8>, String> {
    let bytes = up_to(file, count)?;
    if bytes.len() < count { Err("a file that ends in its header".to_owned()) } else { Ok(bytes) }
}

fn parse(text: &str) -> Result<Header, String> {
    let odd = || format!("the header {:?}", text.chars().take(100).collect::<String>());
    let (mut element, mut columns_first, mut shape) = (None, None, None);
    let mut rest =
        text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(odd)?.trim();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(odd)?;
        let after = after.trim_start().strip_prefix(':').ok_or_else(odd)?.trim_start();
        let after = match key {
            "descr" => {
                if let Some((fields, after)) = bracketed(after) {
                    let fields = Kind::Other(format!("the fields {fields}"));
                    element = Some(ElementType::little_endian(fields, 0));
                    after
                } else {
                    let (name, after) = quoted(after).ok_or_else(odd)?;
                    element = Some(element_type(name));
                    after
                }
            }
            "fortran_order" => {
                let (value, after) = after.split_at(after.find(',').unwrap_or(after.len()));
                columns_first = Some(match value.trim() {
                    "True" => true,
                    "False" => false,
                    _ => return Err(odd()),
                });
                after
            }
            "shape" => {
                let (list, after) =
                    after.strip_prefix('(').and_then(|list| list.split_once(')')).ok_or_else(odd)?;
                shape = Some(lengths(list).ok_or_else(odd)?);
                after
            }
            _ => return Err(odd()),
        };
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if after.is_empty() => after,
            None => return Err(odd()),
        };
    }
    let (Some(element), Some(columns_first), Some(shape)) = (element, columns_first, shape) else {
        return Err(odd());
    };
    Ok(Header { element, columns_first, shape })
}

/// Parses the type that numpy writes as a byte order, a letter and a size. A type that is neither a number
/// nor text keeps its name.
pub(super) fn element_type(name: &str) -> ElementType {
    let (order, rest) = name.split_at_checked(1).unwrap_or(("", name));
    let (letter, size) = rest.split_at_checked(1).unwrap_or(("", rest));
    let size: Option<usize> = size.parse().ok();
    let big_endian = order == ">";
    let known = ["<", ">", "|"].contains(&order);
    let (kind, size) = match (letter, size) {
        ("f", Some(size @ (2 | 4 | 8))) if known => (Kind::Float, size),
        ("i", Some(size @ (1 | 2 | 4 | 8))) if known => (Kind::Signed, size),
        ("u", Some(size @ (1 | 2 | 4 | 8))) if known => (Kind::Unsigned, size),
        ("b", Some(1)) if known => (Kind::Bool, 1),
        ("U", Some(characters @ 1..=LONGEST_WORD)) if known => (Kind::Text, 4 * characters),
        ("S", Some(size @ 1..=LONGEST_WORD)) if known => (Kind::Bytes, size),
        ("O", _) if known => (Kind::Objects, 0),
        _ => (Kind::Other(name.to_owned()), 0),
    };
    ElementType { kind, size, big_endian }
}

/// Splits off a string in either of Python's quotes. The strings that numpy writes contain no quote.
fn quoted(text: &str) -> Option<(&str, &str)> {
    ['\'', '"'].iter().find_map(|&quote| text.strip_prefix(quote)?.split_once(quote))
}

/// Splits off a list in square brackets, which may hold other lists. Brackets in the names of fields are not
/// supported: such a header is an error.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with('[') {
        return None;
    }
    let mut depth = 0_usize;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(text.split_at(place + 1));
        }
    }
    None
}

/// Parses the numbers of a tuple. Python 2 wrote some of them with the suffix L.
fn lengths(list: &str) -> Option<Vec<usize>> {
    let list = list.trim();
    let list = list.strip_suffix(',').unwrap_or(list);
    if list.is_empty() {
        return Some(Vec::new());
    }
    let mut lengths = Vec::new();
    for number in list.split(',') {
        let number = number.trim();
        lengths.push(number.strip_suffix('L').unwrap_or(number).parse().ok()?);
        if lengths.len() > MOST_AXES {
            return None;
        }
    }
    Some(lengths)
}
