//! Writes MAT-files of version 5 as MATLAB does, to test the reader.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// A matrix to write; all matrices have one row.
#[derive(Debug, Clone)]
pub enum Mat {
    /// Numbers of type uint8.
    Bytes(Vec<u8>),
    /// Numbers of type uint16.
    Shorts(Vec<u16>),
    /// Numbers of type double.
    Doubles(Vec<f64>),
    /// Characters.
    Text(String),
    /// Cells.
    Cells(Vec<Mat>),
    /// Structs: the names of the fields, and the fields of each struct.
    Structs(Vec<String>, Vec<Vec<Mat>>),
    /// A matrix element without bytes.
    Empty,
}

/// The settings of a file to write.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    /// Whether the file has the byte order of a big-endian machine.
    pub big: bool,
    /// Whether variables are compressed, as in MATLAB since version 7.
    pub compressed: bool,
}

impl Writer {
    /// Returns a file with the given variables.
    pub fn file(self, variables: &[(&str, Mat)]) -> Vec<u8> {
        let mut out = b"MATLAB 5.0 MAT-file, Platform: TEST".to_vec();
        out.resize(124, b' ');
        out.extend(self.u16(0x0100));
        out.extend(if self.big { b"MI" } else { b"IM" });
        for (name, value) in variables {
            let matrix = self.matrix(name, value);
            if self.compressed {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&matrix).unwrap();
                let packed = encoder.finish().unwrap();
                out.extend(self.u32(15));
                out.extend(self.u32(packed.len() as u32));
                out.extend(packed);
            } else {
                out.extend(matrix);
            }
        }
        out
    }

    fn matrix(self, name: &str, value: &Mat) -> Vec<u8> {
        let (class, count) = match value {
            Mat::Bytes(numbers) => (9, numbers.len()),
            Mat::Shorts(numbers) => (11, numbers.len()),
            Mat::Doubles(numbers) => (6, numbers.len()),
            Mat::Text(text) => (4, text.encode_utf16().count()),
            Mat::Cells(cells) => (1, cells.len()),
            Mat::Structs(_, structs) => (2, structs.len()),
            Mat::Empty => return self.element(14, &[]),
        };
        let mut body = self.element(6, &[self.u32(class), self.u32(0)].concat());
        body.extend(self.element(5, &[self.u32(1), self.u32(count as u32)].concat()));
        body.extend(self.element(1, name.as_bytes()));
        body.extend(match value {
            Mat::Bytes(numbers) => self.element(2, numbers),
            Mat::Shorts(numbers) => {
                self.element(4, &numbers.iter().flat_map(|n| self.u16(*n)).collect::<Vec<_>>())
            }
            Mat::Doubles(numbers) => {
                let bytes = |n: &f64| if self.big { n.to_be_bytes() } else { n.to_le_bytes() };
                self.element(9, &numbers.iter().flat_map(bytes).collect::<Vec<_>>())
            }
            Mat::Text(text) => {
                self.element(4, &text.encode_utf16().flat_map(|unit| self.u16(unit)).collect::<Vec<_>>())
            }
            Mat::Cells(cells) => cells.iter().flat_map(|cell| self.matrix("", cell)).collect(),
            Mat::Structs(fields, structs) => {
                let mut out = self.element(5, &self.u32(32));
                let names = fields.iter().flat_map(|field| {
                    let mut name = field.clone().into_bytes();
                    name.resize(32, 0);
                    name
                });
                out.extend(self.element(1, &names.collect::<Vec<_>>()));
                out.extend(structs.iter().flatten().flat_map(|field| self.matrix("", field)));
                out
            }
            Mat::Empty => Vec::new(),
        });
        self.element(14, &body)
    }

    /// Returns an element. Up to four bytes become a small element, as in MATLAB, but a matrix never
    /// does.
    fn element(self, kind: u32, bytes: &[u8]) -> Vec<u8> {
        let small = (1..=4).contains(&bytes.len());
        let mut out = if small {
            self.u32((bytes.len() as u32) << 16 | kind).to_vec()
        } else {
            [self.u32(kind), self.u32(bytes.len() as u32)].concat()
        };
        out.extend(bytes);
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    fn u16(self, value: u16) -> [u8; 2] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}
