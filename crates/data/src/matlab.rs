//! Reads MATLAB's MAT-files of version 5, as far as lists of annotations need it: arrays of structs, cells,
//! text and numbers, of either byte order, compressed or not.
//!
//! A file is a header of 128 bytes followed by elements, each a type, a length and bytes. A matrix is an
//! element made of elements; a struct array is a matrix whose elements are matrices, one for each field of
//! each struct. A length is compared with the bytes that are left before memory is reserved, nesting ends at
//! [`DEEPEST`], and compressed elements may not unpack to more than [`LONGEST`], so that a hostile file ends
//! in an error. Source: "MAT-File Format", The MathWorks, chapter 1.
//!
//! Among the crates for these files only `matrw` reads struct arrays. In its version 0.1.4 a damaged
//! compressed element makes it panic, and a file that was cut short is read as a shorter one.

use std::io::Read;

use flate2::read::ZlibDecoder;

/// Bytes of the header.
const HEADER: usize = 128;

/// The deepest nesting of matrices; annotations have three levels.
const DEEPEST: usize = 16;

/// The largest number of bytes to which all compressed elements of a file may unpack. The list of 8,144 cars
/// unpacks to less than 4 MB.
const LONGEST: u64 = 32 << 20;

/// The largest number of fields of a struct; annotations have six. A name of one byte in the file needs fifty
/// bytes in memory, even if no struct has the field.
const MOST_FIELDS: usize = 1000;

/// The class number of objects of user-defined classes, which have another layout.
const OPAQUE: u32 = 17;

/// A variable of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Variable {
    /// The name of the variable.
    pub name: String,
    /// The value of the variable.
    pub value: Value,
}

/// The content of a matrix, column by column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Numbers of any type, as f64; logical values are 0 and 1.
    Numbers(Vec<f64>),
    /// Characters.
    Text(String),
    /// A matrix of matrices.
    Cells(Vec<Value>),
    /// A matrix of structs.
    Structs(Structs),
    /// The class of something that annotations do not contain.
    Other(u32),
}

/// Structs that all have the same fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Structs {
    /// The names of the fields.
    pub fields: Vec<String>,
    /// The fields of the first struct, then those of the second, and so on.
    values: Vec<Value>,
}

impl Structs {
    /// Returns the number of structs.
    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.fields.len().max(1)
    }

    /// Returns the number of the field `name`.
    pub(crate) fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field == name)
    }

    /// Returns field `field` of struct `index`.
    pub(crate) fn get(&self, index: usize, field: usize) -> &Value {
        &self.values[index * self.fields.len() + field]
    }
}

impl Value {
    /// Returns the characters, if the value is text.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Returns the number, if the value is a single integer.
    pub(crate) fn whole(&self) -> Option<i64> {
        match self {
            Self::Numbers(numbers) => match numbers[..] {
                [number] if number.fract() == 0.0 && number.abs() < 1e15 => Some(number as i64),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Reads all variables of a file.
///
/// # Errors
/// If the file is not valid. The error says what is wrong and where, in words that follow "found".
pub(crate) fn read(file: &[u8]) -> Result<Vec<Variable>, String> {
    let Some((header, body)) = file.split_at_checked(HEADER) else {
        return Err(format!("{} bytes, less than a MAT-file's header of {HEADER}", file.len()));
    };
    let order = match &header[126..] {
        b"IM" => Order::Little,
        b"MI" => Order::Big,
        other => return Err(format!("a file whose bytes 126 and 127 are \"{}\"", other.escape_ascii())),
    };
    let version = order.u16([header[124], header[125]]);
    match version >> 8 {
        1 => {}
        2 => return Err("a MAT-file of version 7.3, which is HDF5".to_owned()),
        other => return Err(format!("a MAT-file of version {other}.{}", version & 0xff)),
    }
    let mut elements = Elements { bytes: body, order };
    let mut variables = Vec::new();
    let mut left = LONGEST;
    while let Some(element) = elements.next()? {
        match element.kind {
            Kind::MATRIX => variables.extend(variable(&element, 0)?),
            Kind::COMPRESSED => {
                let mut unpacked = Vec::new();
                let mut decoder = ZlibDecoder::new(element.bytes).take(left + 1);
                decoder
                    .read_to_end(&mut unpacked)
                    .map_err(|error| format!("a compressed element that fails to unpack ({error})"))?;
                left = left
                    .checked_sub(unpacked.len() as u64)
                    .ok_or_else(|| format!("compressed elements of more than {LONGEST} bytes"))?;
                let mut inner = Elements { bytes: &unpacked, order };
                while let Some(element) = inner.next()? {
                    if element.kind == Kind::MATRIX {
                        variables.extend(variable(&element, 0)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(variables)
}

/// The byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self == Self::Little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self == Self::Little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    }

    /// Returns `bytes` as a little-endian machine would have written them.
    fn little<const N: usize>(self, mut bytes: [u8; N]) -> [u8; N] {
        if self == Self::Big {
            bytes.reverse();
        }
        bytes
    }
}

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind(u32);

impl Kind {
    const INT8: Self = Self(1);
    const UINT8: Self = Self(2);
    const INT16: Self = Self(3);
    const UINT16: Self = Self(4);
    const INT32: Self = Self(5);
    const UINT32: Self = Self(6);
    const SINGLE: Self = Self(7);
    const DOUBLE: Self = Self(9);
    const INT64: Self = Self(12);
    const UINT64: Self = Self(13);
    const MATRIX: Self = Self(14);
    const COMPRESSED: Self = Self(15);
    const UTF8: Self = Self(16);
    const UTF16: Self = Self(17);
    const UTF32: Self = Self(18);
}

/// A type and the bytes that belong to it.
#[derive(Debug, Clone, Copy)]
struct Element<'a> {
    kind: Kind,
    bytes: &'a [u8],
    order: Order,
}

/// Elements one after another.
struct Elements<'a> {
    bytes: &'a [u8],
    order: Order,
}

impl<'a> Elements<'a> {
    /// Returns the next element; `None` at the end.
    fn next(&mut self) -> Result<Option<Element<'a>>, String> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (&word, after) = self.bytes.split_first_chunk::<4>().ok_or("an element without a tag")?;
        let word = self.order.u32(word);
        // In a small element, the length and the type share a word, and up to four bytes follow.
        if word >> 16 != 0 {
            let (kind, length) = (Kind(word & 0xffff), (word >> 16) as usize);
            if length > 4 {
                return Err(format!("a small element of {length} bytes"));
            }
            let (data, rest) = after.split_at_checked(4).ok_or("a small element that ends too soon")?;
            self.bytes = rest;
            return Ok(Some(Element { kind, bytes: &data[..length], order: self.order }));
        }
        let kind = Kind(word);
        let (&length, after) = after.split_first_chunk::<4>().ok_or("an element without a length")?;
        let length = self.order.u32(length) as usize;
        let (bytes, rest) = after
            .split_at_checked(length)
            .ok_or_else(|| format!("an element of {length} bytes of which {} are there", after.len()))?;
        // An element is padded to a multiple of eight bytes, unless it is compressed. The last padding of a
        // file may be missing.
        let padding = if kind == Kind::COMPRESSED { 0 } else { length.wrapping_neg() % 8 };
        self.bytes = rest.get(padding..).unwrap_or_default();
        Ok(Some(Element { kind, bytes, order: self.order }))
    }

    fn expect(&mut self, what: &str) -> Result<Element<'a>, String> {
        self.next()?.ok_or_else(|| format!("a matrix without {what}"))
    }
}

/// Reads the variable of a matrix; `None` if it is empty.
fn variable(matrix: &Element<'_>, depth: usize) -> Result<Option<Variable>, String> {
    // An empty matrix in a cell or a field may have no bytes at all.
    if matrix.bytes.is_empty() {
        return Ok(None);
    }
    if depth > DEEPEST {
        return Err(format!("matrices nested more than {DEEPEST} deep"));
    }
    let mut parts = Elements { bytes: matrix.bytes, order: matrix.order };
    let flags = parts.expect("flags")?.numbers()?;
    let Some(&flags) = flags.first() else { return Err("a matrix without flags".to_owned()) };
    let (class, complex) = (flags as u32 & 0xff, flags as u32 & 0x800 != 0);
    if class == OPAQUE {
        return Ok(None); // An object of a class has no dimensions. No annotation is such an object.
    }
    let dimensions = parts.expect("dimensions")?.numbers()?;
    let count = dimensions.iter().try_fold(1_usize, |count, &size| {
        let size = if size >= 0.0 { size as usize } else { return Err("a negative dimension".to_owned()) };
        count.checked_mul(size).ok_or_else(|| "dimensions beyond any memory".to_owned())
    })?;
    let name = String::from_utf8_lossy(parts.expect("a name")?.bytes).into_owned();
    let matrices = |parts: &mut Elements<'_>, count: usize| {
        // Each matrix takes at least the bytes of its tag.
        if count > parts.bytes.len() / 8 {
            return Err(format!("{count} matrices in {} bytes", parts.bytes.len()));
        }
        (0..count)
            .map(|_| {
                let inner = parts.expect("all its matrices")?;
                if inner.kind != Kind::MATRIX {
                    return Err(format!("an element of type {} among matrices", inner.kind.0));
                }
                Ok(variable(&inner, depth + 1)?.map_or(Value::Numbers(Vec::new()), |inner| inner.value))
            })
            .collect::<Result<Vec<Value>, String>>()
    };
    let value = match class {
        1 => Value::Cells(matrices(&mut parts, count)?),
        2 => {
            let length = parts.expect("a length of names")?.numbers()?;
            let length = length.first().map_or(0, |&length| length as usize);
            let names = parts.expect("names of fields")?.bytes;
            if length == 0 && !names.is_empty() {
                return Err("names of fields of no length".to_owned());
            }
            if names.len().div_ceil(length.max(1)) > MOST_FIELDS {
                return Err(format!("{} bytes of names of {length} bytes in a struct", names.len()));
            }
            let fields: Vec<String> = names.chunks(length.max(1)).map(until_zero).collect();
            let values = count.checked_mul(fields.len()).ok_or("structs beyond any memory")?;
            Value::Structs(Structs { values: matrices(&mut parts, values)?, fields })
        }
        4 => Value::Text(if count == 0 { String::new() } else { parts.expect("characters")?.text()? }),
        6..=15 => {
            let numbers = if count == 0 { Vec::new() } else { parts.expect("numbers")?.numbers()? };
            if numbers.len() != count {
                return Err(format!("{} numbers in a matrix of {count}", numbers.len()));
            }
            if complex {
                return Ok(Some(Variable { name, value: Value::Other(class) }));
            }
            Value::Numbers(numbers)
        }
        other => Value::Other(other),
    };
    Ok(Some(Variable { name, value }))
}

fn until_zero(name: &[u8]) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

impl Element<'_> {
    /// Reads numbers of any type as f64.
    fn numbers(&self) -> Result<Vec<f64>, String> {
        fn each<const N: usize>(
            element: &Element<'_>,
            to: impl Fn([u8; N]) -> f64,
        ) -> Result<Vec<f64>, String> {
            let (numbers, []) = element.bytes.as_chunks::<N>() else {
                return Err(format!("{} bytes of numbers of {N} bytes each", element.bytes.len()));
            };
            Ok(numbers.iter().map(|&number| to(element.order.little(number))).collect())
        }
        match self.kind {
            Kind::INT8 => each(self, |b| i8::from_le_bytes(b).into()),
            Kind::UINT8 => each(self, |b| u8::from_le_bytes(b).into()),
            Kind::INT16 => each(self, |b| i16::from_le_bytes(b).into()),
            Kind::UINT16 => each(self, |b| u16::from_le_bytes(b).into()),
            Kind::INT32 => each(self, |b| i32::from_le_bytes(b).into()),
            Kind::UINT32 => each(self, |b| u32::from_le_bytes(b).into()),
            Kind::SINGLE => each(self, |b| f32::from_le_bytes(b).into()),
            Kind::DOUBLE => each(self, f64::from_le_bytes),
            Kind::INT64 => each(self, |b| i64::from_le_bytes(b) as f64),
            Kind::UINT64 => each(self, |b| u64::from_le_bytes(b) as f64),
            other => Err(format!("an element of type {} where numbers should be", other.0)),
        }
    }

    /// Reads characters.
    fn text(&self) -> Result<String, String> {
        match self.kind {
            Kind::INT8 | Kind::UINT8 | Kind::UTF8 => Ok(String::from_utf8_lossy(self.bytes).into_owned()),
            Kind::UINT16 | Kind::UTF16 => {
                let (units, []) = self.bytes.as_chunks::<2>() else {
                    return Err("half a character".to_owned());
                };
                let units: Vec<u16> = units.iter().map(|&unit| self.order.u16(unit)).collect();
                Ok(String::from_utf16_lossy(&units))
            }
            Kind::UTF32 => {
                let (points, []) = self.bytes.as_chunks::<4>() else {
                    return Err("a part of a character".to_owned());
                };
                let character = |&point| char::from_u32(self.order.u32(point)).unwrap_or('\u{fffd}');
                Ok(points.iter().map(character).collect())
            }
            other => Err(format!("an element of type {} where text should be", other.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;
    use crate::sample::matlab::{Mat, Writer};

    fn annotations() -> Mat {
        Mat::Structs(
            vec!["class".to_owned(), "fname".to_owned(), "box".to_owned()],
            vec![
                vec![Mat::Bytes(vec![7]), Mat::Text("00001.jpg".to_owned()), Mat::Doubles(vec![1.5, -2.0])],
                vec![Mat::Shorts(vec![196]), Mat::Text("a".to_owned()), Mat::Empty],
            ],
        )
    }

    fn check(file: &[u8]) {
        let variables = read(file).unwrap();
        assert_eq!(variables.len(), 2);
        assert_eq!(variables[0].name, "annotations");
        let Value::Structs(structs) = &variables[0].value else { panic!("{:?}", variables[0]) };
        assert_eq!((structs.len(), structs.field("fname"), structs.field("other")), (2, Some(1), None));
        assert_eq!((structs.get(0, 0).whole(), structs.get(1, 0).whole()), (Some(7), Some(196)));
        assert_eq!((structs.get(0, 1).text(), structs.get(1, 1).text()), (Some("00001.jpg"), Some("a")));
        assert_eq!(structs.get(0, 2), &Value::Numbers(vec![1.5, -2.0]));
        assert_eq!(structs.get(1, 2), &Value::Numbers(Vec::new()));
        assert_eq!((structs.get(0, 2).whole(), structs.get(0, 1).whole()), (None, None));
        let Value::Cells(cells) = &variables[1].value else { panic!("{:?}", variables[1]) };
        assert_eq!(cells.iter().map(|cell| cell.text().unwrap()).collect::<Vec<_>>(), ["Ä", "truck"]);
    }

    fn file(writer: Writer) -> Vec<u8> {
        let names = Mat::Cells(vec![Mat::Text("Ä".to_owned()), Mat::Text("truck".to_owned())]);
        writer.file(&[("annotations", annotations()), ("class_names", names)])
    }

    #[test]
    fn struct_arrays_are_read_in_either_order_compressed_or_not() {
        for big in [false, true] {
            for compressed in [false, true] {
                check(&file(Writer { big, compressed }));
            }
        }
    }

    #[test]
    fn what_is_no_such_file_is_told_apart() {
        let mut whole = file(Writer { big: false, compressed: false });
        assert!(read(&whole[..100]).unwrap_err().contains("100 bytes"));
        whole[126..128].copy_from_slice(b"??");
        assert!(read(&whole).unwrap_err().contains("bytes 126 and 127"));
        whole[126..128].copy_from_slice(b"IM");
        whole[125] = 2;
        assert!(read(&whole).unwrap_err().contains("7.3"));
        whole[125] = 9;
        assert_eq!(read(&whole).unwrap_err(), "a MAT-file of version 9.0");
    }

    #[test]
    fn every_cut_is_an_error_or_loses_a_whole_variable() {
        for big in [false, true] {
            let whole = file(Writer { big, compressed: false });
            let mut shorter = Vec::new();
            for held in 0..whole.len() {
                if let Ok(variables) = read(&whole[..held]) {
                    shorter.push(variables.len());
                }
            }
            shorter.dedup();
            // The padding at the end of the file may be missing.
            assert!(shorter == [0, 1] || shorter == [0, 1, 2], "{shorter:?}");
        }
    }

    #[test]
    fn a_compressed_element_that_is_damaged_says_so() {
        let mut whole = file(Writer { big: false, compressed: true });
        whole[150] ^= 0xff;
        assert!(read(&whole).unwrap_err().contains("compressed element"));
    }

    #[test]
    fn a_bomb_is_no_list() {
        let zeros = Mat::Bytes(vec![0; 20 << 20]);
        let file = Writer { big: false, compressed: true }.file(&[("a", zeros.clone()), ("b", zeros)]);
        assert!(file.len() < 1 << 20);
        assert!(read(&file).unwrap_err().contains("compressed elements of more than"));
    }

    #[test]
    fn names_of_fields_have_an_end_though_no_struct_has_them() {
        let fields = |count| Mat::Structs(vec!["a".to_owned(); count], Vec::new());
        let file = |count| Writer { big: false, compressed: true }.file(&[("a", fields(count))]);
        read(&file(MOST_FIELDS)).unwrap();
        assert_eq!(read(&file(MOST_FIELDS + 1)).unwrap_err(), "32032 bytes of names of 32 bytes in a struct");
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = (0..40).fold(Mat::Empty, |inner, _| Mat::Cells(vec![inner]));
        let whole = Writer { big: false, compressed: false }.file(&[("deep", deep)]);
        assert!(read(&whole).unwrap_err().contains("nested"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(big: bool, at in 120usize..700, noise in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut whole = file(Writer { big, compressed: false });
            let start = at.min(whole.len());
            let end = (start + noise.len()).min(whole.len());
            whole.splice(start..end, noise);
            let _ = read(&whole);
        }
    }
}
