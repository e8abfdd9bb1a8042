//! An array as a file holds it: the type of its elements, its shape and its bytes. Numbers and words are
//! decoded one by one when they are needed, so that nothing is converted or copied in advance.

use std::fmt;

use half::{bf16, f16};

/// The kind of an array's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IEEE floats of 2, 4 or 8 bytes.
    Float,
    /// The upper half of a 4-byte float.
    BrainFloat,
    /// Whole numbers with a sign, of 1, 2, 4 or 8 bytes.
    Signed,
    /// Whole numbers without a sign, of 1, 2, 4 or 8 bytes.
    Unsigned,
    /// One byte, 0 or 1.
    Bool,
    /// Text of a fixed length, four bytes a character (numpy's `U`).
    Text,
    /// Text of a fixed length, in bytes (numpy's `S`).
    Bytes,
    /// Pickled Python objects.
    Objects,
    /// Any other type, under the name that the file gives it.
    Other(String),
}

/// The type of an array's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ElementType {
    pub(crate) kind: Kind,
    /// The bytes of one element; 0 for [`Kind::Objects`] and [`Kind::Other`], which are never read.
    pub(crate) size: usize,
    pub(crate) big_endian: bool,
}

impl ElementType {
    /// Returns the little-endian type of `size` bytes.
    pub(crate) fn little_endian(kind: Kind, size: usize) -> Self {
        Self { kind, size, big_endian: false }
    }

    /// Returns whether the elements are numbers.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self.kind, Kind::Float | Kind::BrainFloat | Kind::Signed | Kind::Unsigned | Kind::Bool)
    }

    /// Returns whether the elements are words.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Bytes)
    }
}

impl fmt::Display for ElementType {
    /// Writes the name that numpy prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = 8 * self.size;
        match &self.kind {
            Kind::Float => write!(f, "float{bits}"),
            Kind::BrainFloat => f.write_str("bfloat16"),
            Kind::Signed => write!(f, "int{bits}"),
            Kind::Unsigned => write!(f, "uint{bits}"),
            Kind::Bool => f.write_str("bool"),
            Kind::Text => write!(f, "<U{}", self.size / 4),
            // A file of columns does not say how long they are.
            Kind::Bytes if self.size == 0 => f.write_str("words"),
            Kind::Bytes => write!(f, "|S{}", self.size),
            Kind::Objects => f.write_str("object"),
            Kind::Other(name) => f.write_str(name),
        }
    }
}

/// A shape as Python prints it: `(3,)`, `(3, 2)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a>(pub(crate) &'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [one] => write!(f, "({one},)"),
            lengths => {
                let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
                write!(f, "({})", lengths.join(", "))
            }
        }
    }
}

/// The description of an array that comes before its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) element: ElementType,
    /// Whether the first axis varies fastest (Fortran's order) instead of the last.
    pub(crate) columns_first: bool,
    pub(crate) shape: Vec<usize>,
}

impl Header {
    /// Returns the number of bytes of all elements; `None` if it overflows.
    pub(crate) fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.element.size, |all, &length| all.checked_mul(length))
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.element, Shape(&self.shape))
    }
}

/// An array: its header, and the bytes of its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) header: Header,
    /// [`Header::bytes`] of them.
    pub(crate) bytes: Vec<u8>,
}

impl Array {
    /// Returns the number of elements.
    pub(crate) fn count(&self) -> usize {
        self.header.shape.iter().product()
    }

    /// Returns the element at `row` and `column` of a table of `rows` and `columns` as a float of 64 bits.
    ///
    /// # Panics
    /// Panics if the elements are not numbers.
    pub(crate) fn number(&self, row: usize, column: usize, rows: usize, columns: usize) -> f64 {
        let place = if self.header.columns_first { column * rows + row } else { row * columns + column };
        let (bits, size) = (self.bits(place), self.header.element.size);
        match (&self.header.element.kind, size) {
            (Kind::Float, 2) => f16::from_bits(bits as u16).to_f64(),
            (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
            (Kind::Float, _) => f64::from_bits(bits),
            (Kind::BrainFloat, _) => bf16::from_bits(bits as u16).to_f64(),
            (Kind::Signed, _) => signed(bits, size) as f64,
            (Kind::Unsigned, _) => bits as f64,
            (Kind::Bool, _) => f64::from(u8::from(bits != 0)),
            (other, _) => unreachable!("{other:?} is not a number"),
        }
    }

    /// Returns element `place` of a list as a whole number; `None` if it is a float.
    pub(crate) fn whole(&self, place: usize) -> Option<i128> {
        let bits = self.bits(place);
        match self.header.element.kind {
            Kind::Signed => Some(signed(bits, self.header.element.size).into()),
            Kind::Unsigned => Some(bits.into()),
            Kind::Bool => Some(i128::from(bits != 0)),
            _ => None,
        }
    }

    /// Returns element `place` of a list as a word, without the zeros that pad it; `None` if its bytes are
    /// not text.
    pub(crate) fn word(&self, place: usize) -> Option<String> {
        let ElementType { kind, size, big_endian } = &self.header.element;
        let bytes = &self.bytes[place * size..(place + 1) * size];
        let mut word = match kind {
            Kind::Bytes => std::str::from_utf8(bytes).ok()?.to_owned(),
            _ => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&code| {
                    char::from_u32(if *big_endian {
                        u32::from_be_bytes(code)
                    } else {
                        u32::from_le_bytes(code)
                    })
                })
                .collect::<Option<String>>()?,
        };
        word.truncate(word.trim_end_matches('\0').len());
        Some(word)
    }

    /// Returns the bytes of a number as the lower bits of a word.
    fn bits(&self, place: usize) -> u64 {
        let ElementType { size, big_endian, .. } = self.header.element;
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(&self.bytes[place * size..(place + 1) * size]);
        if big_endian {
            wide[..size].reverse();
        }
        u64::from_le_bytes(wide)
    }
}

/// Extends the sign of a number of `size` bytes to 64 bits.
fn signed(bits: u64, size: usize) -> i64 {
    let unused = 64 - 8 * size as u32;
    ((bits << unused) as i64) >> unused
}
