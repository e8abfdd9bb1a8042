//! Arrays as numpy saves them: `.npy` files, and `.npz`, a ZIP archive of such.
//!
//! A `.npy` file is `\x93NUMPY`, two bytes of version, the header's length (two bytes; four from version 2 on), the header and the numbers.
//! The header is a Python dict of three: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`. Source: numpy's
//! `lib/format`. Read by hand, as the crates for it bring a parser generator with C to build for these three keys.
//!
//! No length in a file is trusted: what is reserved is a small multiple of the bytes that are there.

use std::io::{Cursor, Read};

use half::f16;
use zip::ZipArchive;

const MAGIC: &[u8] = b"\x93NUMPY";
/// More axes than numpy allows an array.
const MOST_AXES: usize = 64;
/// Embeddings hardly shrink when packed; an archive that unpacks to more than so many times its length holds none.
const MOST_UNPACKED: usize = 64;

/// An array of numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    /// Row by row.
    values: Values,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

impl Array {
    /// The numbers, row by row.
    pub(crate) fn into_floats(self) -> Vec<f32> {
        match self.values {
            Values::Floats(values) => values,
            Values::Integers(values) => values.into_iter().map(|value| value as f32).collect(),
        }
    }

    /// The numbers of an array with one axis, or with a second of one.
    pub(crate) fn into_integers(self) -> Result<Vec<i64>, String> {
        match (self.values, &self.shape[..]) {
            (Values::Integers(values), [_] | [_, 1]) => Ok(values),
            (Values::Integers(_), shape) => Err(format!("labels of the shape {shape:?}")),
            (Values::Floats(_), _) => Err("labels with fractions".to_owned()),
        }
    }
}

/// The arrays of an archive by their names.
///
/// # Errors
/// What was found in place of one.
pub(crate) fn read_npz(file: &[u8]) -> Result<Vec<(String, Array)>, String> {
    let broken = |error: &dyn std::fmt::Display| format!("an archive that fails to unpack ({error})");
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(|error| broken(&error))?;
    let mut left = file.len().saturating_mul(MOST_UNPACKED) as u64;
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(|error| broken(&error))?;
        let name = member.name().map_err(|error| broken(&error))?.into_owned();
        let Some(name) = name.strip_suffix(".npy").map(str::to_owned) else { continue };
        let mut bytes = Vec::new();
        // One more than may come, to see whether it does.
        member.take(left + 1).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            format!("an archive that unpacks to more than {MOST_UNPACKED} times its length")
        })?;
        let array = read_npy(&bytes).map_err(|found| format!("the array {name:?} with {found}"))?;
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// The array of a `.npy` file.
///
/// # Errors
/// What was found in place of one.
pub(crate) fn read_npy(file: &[u8]) -> Result<Array, String> {
    let rest = file.strip_prefix(MAGIC).ok_or("bytes that numpy.save did not write")?;
    let cut = || format!("a file that ends after {} bytes, in its header", file.len());
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (u16::from_le_bytes([*a, *b]) as usize, rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [version @ 4..=u8::MAX, ..] => return Err(format!("version {version} of the format")),
        _ => return Err(cut()),
    };
    let (header, numbers) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "a header that is no text".to_owned())?;
    let Header { kind, columns_first, shape } = Header::parse(header)?;
    let count = shape.iter().try_fold(1_usize, |all, &length| all.checked_mul(length));
    let bytes = count.and_then(|count| count.checked_mul(kind.size));
    if bytes != Some(numbers.len()) {
        return Err(format!(
            "the shape {shape:?} of numbers of {} bytes and {} bytes of them",
            kind.size,
            numbers.len()
        ));
    }
    let values = kind.read(numbers);
    Ok(match (columns_first, &shape[..]) {
        (false, _) | (true, [] | [_]) => Array { shape, values },
        (true, &[rows, columns]) => {
            let at = |index: usize| index % columns * rows + index / columns;
            let values = match values {
                Values::Floats(stored) => Values::Floats((0..stored.len()).map(|i| stored[at(i)]).collect()),
                Values::Integers(stored) => {
                    Values::Integers((0..stored.len()).map(|i| stored[at(i)]).collect())
                }
            };
            Array { shape, values }
        }
        (true, shape) => return Err(format!("columns first in the shape {shape:?}")),
    })
}

/// A type of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    letter: u8,
    size: usize,
    big: bool,
}

impl Kind {
    /// As numpy writes it: byte order, letter, bytes.
    fn parse(text: &str) -> Option<Self> {
        let (big, rest) = match text.as_bytes() {
            [b'<' | b'|', rest @ ..] => (false, rest),
            [b'>', rest @ ..] => (true, rest),
            _ => return None,
        };
        match *rest {
            [letter @ b'f', size @ (b'2' | b'4' | b'8')]
            | [letter @ (b'i' | b'u'), size @ (b'1' | b'2' | b'4' | b'8')]
            | [letter @ b'b', size @ b'1'] => Some(Self { letter, size: usize::from(size - b'0'), big }),
            _ => None,
        }
    }

    /// `bytes` are whole numbers of this type. One of 64 bits without a sign that is past those with one wraps around: as a label it stays
    /// distinct.
    fn read(self, bytes: &[u8]) -> Values {
        let numbers = bytes.chunks_exact(self.size).map(|number| {
            let mut wide = [0; 8];
            wide[..self.size].copy_from_slice(number);
            if self.big {
                wide[..self.size].reverse();
            }
            u64::from_le_bytes(wide)
        });
        match (self.letter, self.size) {
            (b'f', 2) => Values::Floats(numbers.map(|bits| f16::from_bits(bits as u16).to_f32()).collect()),
            (b'f', 4) => Values::Floats(numbers.map(|bits| f32::from_bits(bits as u32)).collect()),
            (b'f', _) => Values::Floats(numbers.map(|bits| f64::from_bits(bits) as f32).collect()),
            (b'i', size) => {
                let unused = 64 - 8 * size as u32;
                Values::Integers(numbers.map(|bits| ((bits << unused) as i64) >> unused).collect())
            }
            _ => Values::Integers(numbers.map(|bits| bits as i64).collect()),
        }
    }
}

struct Header {
    kind: Kind,
    columns_first: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let odd = || format!("the header {:?}", text.chars().take(100).collect::<String>());
        let (mut kind, mut columns_first, mut shape) = (None, None, None);
        let mut rest =
            text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(odd)?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest).ok_or_else(odd)?;
            let after = after.trim_start().strip_prefix(':').ok_or_else(odd)?.trim_start();
            let after = match key {
                "descr" => {
                    let (name, after) = quoted(after).ok_or_else(|| {
                        "an array of several fields, or of something else than numbers".to_owned()
                    })?;
                    kind = Some(Kind::parse(name).ok_or_else(|| format!("numbers of the type {name:?}"))?);
                    after
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
        let (Some(kind), Some(columns_first), Some(shape)) = (kind, columns_first, shape) else {
            return Err(odd());
        };
        Ok(Self { kind, columns_first, shape })
    }
}

/// A string in either of Python's quotes, and what follows it. numpy's have no quote within.
fn quoted(text: &str) -> Option<(&str, &str)> {
    ['\'', '"'].iter().find_map(|&quote| text.strip_prefix(quote)?.split_once(quote))
}

/// The numbers of a tuple; Python 2 wrote some with an L behind.
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
