//! The files in a tar archive: their whole names, and the places of their bytes.
//!
//! The headers are read one after the other, and the bytes of the files are skipped. A name that the header has no room for comes
//! from the entry before it: a GNU long name, or a PAX header, whose records state their lengths and so may hold line breaks.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use ::tar::{EntryType, Header};

/// The length of a block of an archive, in bytes.
const BLOCK: u64 = 512;

/// The longest name or PAX header that is read, in bytes.
const LONGEST_NAME: u64 = 1 << 20;

/// A regular file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its whole name.
    pub(super) name: Vec<u8>,
    /// The position of its first byte in the archive.
    pub(super) start: u64,
    /// Its length in bytes.
    pub(super) length: u64,
}

/// An archive that is being read.
pub(super) struct Members<R> {
    file: R,
    /// The length of the archive in bytes.
    whole: u64,
    /// The position of the next header.
    next: u64,
}

impl<R: Read + Seek> Members<R> {
    /// Begins to read an archive at its start.
    ///
    /// # Errors
    /// If the file cannot be read, or if it does not end with a block of zeros: an archive that was cut between two files would
    /// else look whole.
    pub(super) fn new(mut file: R) -> io::Result<Self> {
        let whole = file.seek(SeekFrom::End(0))?;
        let mut last = [1; BLOCK as usize];
        if whole >= BLOCK {
            file.seek(SeekFrom::End(-(BLOCK as i64)))?;
            file.read_exact(&mut last)?;
        }
        if last != [0; BLOCK as usize] {
            return Err(cut("it has no end mark, so samples may be missing"));
        }
        Ok(Self { file, whole, next: 0 })
    }

    /// Returns the next regular file; `None` at the end mark. Folders, links and sparse files are passed over.
    ///
    /// # Errors
    /// If the archive is damaged, or cut in this file.
    pub(super) fn next_file(&mut self) -> io::Result<Option<Member>> {
        let (mut long_name, mut long_size) = (None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            let describes_next = matches!(
                kind,
                EntryType::GNULongName
                    | EntryType::GNULongLink
                    | EntryType::XHeader
                    | EntryType::XGlobalHeader
            );
            if kind.is_gnu_sparse() {
                self.skip_sparse_map(&header)?;
            }
            let length = match long_size {
                Some(size) if !describes_next => size,
                _ => header.entry_size()?,
            };
            let start = self.next;
            let end = start.checked_add(length).filter(|end| *end <= self.whole);
            let end = end.ok_or_else(|| cut("a file in it goes on after its end"))?;
            self.next = end.checked_next_multiple_of(BLOCK).unwrap_or(end);
            match kind {
                EntryType::GNULongName => {
                    let mut name = self.short(start, length)?;
                    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
                    long_name = Some(name);
                }
                EntryType::XHeader => {
                    let bytes = self.short(start, length)?;
                    for (key, value) in records(&bytes)? {
                        match key {
                            b"path" => long_name = Some(value.to_vec()),
                            b"size" => long_size = Some(number(value)?),
                            _ => {}
                        }
                    }
                }
                _ if describes_next => {}
                _ => {
                    let name = long_name.take().unwrap_or_else(|| header.path_bytes().into_owned());
                    long_size = None;
                    if kind.is_file() {
                        return Ok(Some(Member { name, start, length }));
                    }
                }
            }
        }
    }

    /// Reads the bytes of a file.
    pub(super) fn read(&mut self, member: &Member) -> io::Result<Vec<u8>> {
        self.bytes(member.start, member.length)
    }

    /// Reads the next header; `None` for the block of zeros at the end, or if there is no block.
    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.next == self.whole {
            return Ok(None);
        }
        let block = self.bytes(self.next, BLOCK)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.next += BLOCK;
        let header = Header::from_byte_slice(&block).clone();
        // The checksum is the sum of the header with spaces in its own place.
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
        if sum - own + 8 * u32::from(b' ') != header.cksum()? {
            return Err(damaged("a header with another checksum"));
        }
        Ok(Some(header))
    }

    /// Passes over the blocks between the header of a sparse file and its bytes.
    fn skip_sparse_map(&mut self, header: &Header) -> io::Result<()> {
        // The byte that tells whether another block follows, in the header and in each further block.
        const IN_HEADER: usize = 482;
        const IN_BLOCK: usize = 504;
        let mut goes_on = header.as_bytes()[IN_HEADER] == 1;
        while goes_on {
            goes_on = self.bytes(self.next, BLOCK)?[IN_BLOCK] == 1;
            self.next += BLOCK;
        }
        Ok(())
    }

    /// Reads the bytes of an entry that describes the next one.
    fn short(&mut self, start: u64, length: u64) -> io::Result<Vec<u8>> {
        if length > LONGEST_NAME {
            return Err(damaged("a name that is too long"));
        }
        self.bytes(start, length)
    }

    fn bytes(&mut self, start: u64, length: u64) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(cut("it ends in a file")) }
    }
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Returns the records of a PAX header, each `LENGTH KEY=VALUE` and a line break, where the length counts the whole record.
fn records(mut bytes: &[u8]) -> io::Result<Vec<Record<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let record = record(bytes).ok_or_else(|| damaged("a PAX header that cannot be read"))?;
        found.push((record.0, record.1));
        bytes = &bytes[record.2..];
    }
    Ok(found)
}

/// Returns the key, the value and the whole length of the first record.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&bytes[..space]).ok()?).ok()?;
    let text = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((&text[..equals], &text[equals + 1..], length))
}

fn number(digits: &[u8]) -> io::Result<u64> {
    let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| damaged("a PAX header with a length that is no number"))
}

fn cut(what: &str) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, what)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::io::Cursor;

    use super::*;

    /// Returns an archive of one file with the content "bytes", whose name is in a PAX header or a GNU long name.
    fn archive(name: &str, by_pax: bool) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        if by_pax {
            // The length counts its own digits.
            let record = |length: usize| format!("{length} path={name}\n");
            let mut length = name.len();
            while record(length).len() != length {
                length = record(length).len();
            }
            let record = record(length);
            let mut own = Header::new_ustar();
            own.set_entry_type(EntryType::XHeader);
            own.set_size(record.len() as u64);
            own.set_cksum();
            builder.append(&own, record.as_bytes()).unwrap();
            let short: String = name.chars().take(90).collect();
            header.set_path(short.replace('\n', "_")).unwrap();
            header.set_cksum();
            builder.append(&header, &b"bytes"[..]).unwrap();
        } else {
            builder.append_data(&mut header, name, &b"bytes"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn names_are_whole_whatever_their_length_and_however_they_are_written() {
        let names =
            ["a.png", &format!("{}/b.png", "d".repeat(150)), &format!("{}\nx\n=.png", "e".repeat(150))];
        for name in names {
            for by_pax in [false, true] {
                let mut members = Members::new(Cursor::new(archive(name, by_pax))).unwrap();
                let member = members.next_file().unwrap().unwrap();
                assert_eq!(String::from_utf8_lossy(&member.name), name, "{by_pax}");
                assert_eq!(members.read(&member).unwrap(), b"bytes");
                assert_eq!(members.next_file().unwrap(), None);
            }
        }
    }

    #[test]
    fn a_pax_header_that_cannot_be_read_is_an_error() {
        for bytes in
            [&b"8 path=a\n"[..], b"11 path=a\n", b"x path=a\n", b"10 path=ab", b"8 pathx\n", b"0 path=a\n"]
        {
            assert!(records(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        let whole = records(b"10 path=a\n19 comment=b\n=\nc\nd\n").unwrap();
        assert_eq!(whole, [(&b"path"[..], &b"a"[..]), (b"comment", b"b\n=\nc\nd")]);
    }
}
