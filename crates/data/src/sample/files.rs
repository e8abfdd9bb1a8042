//! Test data: CIFAR-10 in every form, valid and hostile archives, and a server that can misbehave.

use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use flate2::Compression;
use flate2::write::GzEncoder;
use invaspread_random::{Purpose, Stream};

use crate::cifar10::{BATCHES, Layout, RECORD};
use crate::digest;

/// A member of a tar archive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Member<'a> {
    File(&'a str, &'a [u8]),
    Folder(&'a str),
    Link(&'a str, &'a str),
}

/// Returns a `.tar.gz`; names are written unchanged, also those with `..`.
pub(crate) fn tar_gz(members: &[Member<'_>]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&tar(members)).unwrap();
    encoder.finish().unwrap()
}

/// Returns a `.tar`; names are written unchanged, also those with `..`.
pub(crate) fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    for member in members {
        let (name, kind, link, bytes) = match *member {
            Member::File(name, bytes) => (name, ::tar::EntryType::Regular, "", bytes),
            Member::Folder(name) => (name, ::tar::EntryType::Directory, "", &b""[..]),
            Member::Link(name, link) => (name, ::tar::EntryType::Symlink, link, &b""[..]),
        };
        let mut header = ::tar::Header::new_ustar();
        let raw = header.as_ustar_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Returns a `.zip` of stored files; names are written unchanged.
pub(crate) fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        ::zip::write::SimpleFileOptions::default().compression_method(::zip::CompressionMethod::Stored);
    for (name, bytes) in files {
        writer.start_file(*name, stored).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Returns a PNG file.
pub(crate) fn png(size: (u32, u32), color: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let image = image::RgbImage::from_fn(size.0, size.1, |x, y| image::Rgb(color(x, y)));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A small CIFAR-10 of random pixels, with `per_batch` records in each batch and labels in turn. Its
/// checksums take the place of the official ones.
pub(crate) struct Miniature {
    pub batches: Vec<Vec<u8>>,
    pub layout: Layout,
}

impl Miniature {
    pub(crate) fn new(per_batch: usize) -> Self {
        let batches: Vec<Vec<u8>> = (0..6)
            .map(|batch| {
                let mut stream = Stream::new(1, Purpose::Synthetic, 0, batch);
                (0..per_batch * RECORD)
                    .map(|at| match at % RECORD {
                        0 => (at / RECORD % 10) as u8,
                        _ => stream.next_u32() as u8,
                    })
                    .collect()
            })
            .collect();
        let sha256 = std::array::from_fn(|batch| digest::of_bytes(&batches[batch]));
        Self { batches, layout: Layout { per_batch, sha256, archive_bytes: [111, 222] } }
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &Vec<u8>)> {
        BATCHES.into_iter().zip(&self.batches)
    }

    pub(crate) fn binary_folder(&self, root: &Path) {
        let folder = root.join("cifar-10-batches-bin");
        fs_err::create_dir_all(&folder).unwrap();
        for (name, records) in self.named() {
            fs_err::write(folder.join(format!("{name}.bin")), records).unwrap();
        }
    }

    pub(crate) fn binary_archive(&self, root: &Path) {
        let names = BATCHES.map(|name| format!("cifar-10-batches-bin/{name}.bin"));
        let mut members = vec![Member::Folder("cifar-10-batches-bin/")];
        members.extend(names.iter().zip(&self.batches).map(|(name, records)| Member::File(name, records)));
        fs_err::write(root.join("cifar-10-binary.tar.gz"), tar_gz(&members)).unwrap();
    }

    pub(crate) fn python_folder(&self, root: &Path) {
        let folder = root.join("cifar-10-batches-py");
        fs_err::create_dir_all(&folder).unwrap();
        for (name, records) in self.named() {
            fs_err::write(folder.join(name), pickle_of(records)).unwrap();
        }
    }

    pub(crate) fn python_archive(&self, root: &Path) {
        let names = BATCHES.map(|name| format!("cifar-10-batches-py/{name}"));
        let pickles: Vec<Vec<u8>> = self.batches.iter().map(|records| pickle_of(records)).collect();
        let members: Vec<Member<'_>> =
            names.iter().zip(&pickles).map(|(name, pickle)| Member::File(name, pickle)).collect();
        fs_err::write(root.join("cifar-10-python.tar.gz"), tar_gz(&members)).unwrap();
    }

    /// Writes the hub's files, under the first (`train-00000-of-00001.parquet`) or the second
    /// (`train/0000.parquet`) of the names that it uses.
    pub(crate) fn parquet_folder(&self, root: &Path, second: bool) {
        for (split, batches) in [("train", &self.batches[..5]), ("test", &self.batches[5..])] {
            let name = if second {
                format!("{split}/0000.parquet")
            } else {
                format!("{split}-00000-of-00001.parquet")
            };
            let path = root.join("plain_text").join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, parquet_of(&batches.concat())).unwrap();
        }
    }
}

fn pickle_of(records: &[u8]) -> Vec<u8> {
    let labels: Vec<i32> = records.iter().step_by(RECORD).map(|label| i32::from(*label)).collect();
    let data: Vec<u8> = records.chunks_exact(RECORD).flat_map(|record| record[1..].to_vec()).collect();
    pickled(&labels, (labels.len(), RECORD - 1), &data, false)
}

/// Returns a batch as Python 2's cPickle writes it in protocol 2.
pub(crate) fn pickled(labels: &[i32], shape: (usize, usize), data: &[u8], columns_first: bool) -> Vec<u8> {
    let mut out =
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05("
            .to_vec();
    let int = |value: i32| match value {
        0..=255 => vec![b'K', value as u8],
        256..=65535 => [&b"M"[..], &(value as u16).to_le_bytes()].concat(),
        _ => [&b"J"[..], &value.to_le_bytes()].concat(),
    };
    for label in labels {
        out.extend(int(*label));
    }
    out.extend(b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09(K\x01");
    out.extend([int(shape.0 as i32), int(shape.1 as i32)].concat());
    out.extend(b"\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb");
    out.push(if columns_first { 0x88 } else { 0x89 });
    out.push(b'T');
    out.extend((data.len() as i32).to_le_bytes());
    out.extend(data);
    out.extend(b"tbU\tfilenamesq\x0c]q\x0d(U\x05a.pngq\x0eU\x05b.pngr\x0f\x00\x00\x00eu.");
    out
}

fn parquet_of(records: &[u8]) -> Vec<u8> {
    let schema = "message schema {
        optional group img { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";
    let pngs: Vec<ByteArray> = records
        .chunks_exact(RECORD)
        .map(|record| {
            let at = |channel: usize, x: u32, y: u32| record[1 + channel * 1024 + (y * 32 + x) as usize];
            ByteArray::from(png((32, 32), |x, y| [at(0, x, y), at(1, x, y), at(2, x, y)]))
        })
        .collect();
    let labels: Vec<i64> = records.iter().step_by(RECORD).map(|label| i64::from(*label)).collect();
    let paths = vec![ByteArray::from("a.png"); labels.len()];
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties =
        WriterProperties::builder().set_compression(::parquet::basic::Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in [&pngs, &paths] {
        let mut out = group.next_column().unwrap().unwrap();
        out.typed::<ByteArrayType>().write_batch(column, Some(&vec![2; column.len()]), None).unwrap();
        out.close().unwrap();
    }
    let mut out = group.next_column().unwrap().unwrap();
    out.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; labels.len()]), None).unwrap();
    out.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

/// The answer of the server to a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Sends the file, or the requested range if the tag agrees.
    Whole,
    /// Sends the head and this many bytes of the file, then closes the connection.
    BreakAfter(usize),
    /// Sends the whole file, whatever range was requested.
    IgnoreRange,
    /// Sends another file.
    Other(Vec<u8>),
    /// Sends this many of the requested bytes, then closes the connection.
    Some(usize),
    /// Sends a byte every few milliseconds, this many times, then closes the connection.
    Drip(usize),
    /// Sends no file.
    Status(u16),
}

/// An HTTP server on the loopback interface that gives its answers in turn and records the requests.
pub(crate) struct Server {
    address: std::net::SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Server {
    pub(crate) fn start(content: Vec<u8>, answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut requests, mut answers) = (Vec::new(), answers.into_iter());
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                let request = read_request(&stream);
                let answer = answers.next().unwrap_or(Answer::Status(500));
                // The client may close the connection first.
                let _ = give(&stream, &request, &content, answer);
                requests.push(request);
            }
            requests
        });
        Self { address, stop, thread }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends the server and returns its requests in lowercase.
    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        self.thread.join().unwrap()
    }
}

fn read_request(stream: &TcpStream) -> String {
    let mut request = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap().to_lowercase();
        if line.is_empty() {
            break;
        }
        request.push_str(&line);
        request.push('\n');
    }
    request
}

fn give(mut stream: &TcpStream, request: &str, content: &[u8], answer: Answer) -> std::io::Result<()> {
    let header = |name: &str| request.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let range = header("range: bytes=").and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    let same = header("if-range:").is_none_or(|tag| tag == "\"tag\"");
    let head = "Connection: close\r\nETag: \"tag\"\r\n";
    let whole = |length: usize| format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\n\r\n");
    match (answer, range) {
        (answer @ (Answer::Whole | Answer::Some(_)), Some(from)) if same => {
            let length = content.len() - from;
            let range = format!("Content-Range: bytes {from}-{}/{}", content.len() - 1, content.len());
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\n{head}{range}\r\nContent-Length: {length}\r\n\r\n"
            )?;
            let sent = if let Answer::Some(bytes) = answer { bytes } else { length };
            stream.write_all(&content[from..from + sent])
        }
        (Answer::Whole | Answer::IgnoreRange, _) => {
            stream.write_all(whole(content.len()).as_bytes())?;
            stream.write_all(content)
        }
        (Answer::Drip(bytes), _) => {
            stream.write_all(whole(content.len()).as_bytes())?;
            for byte in &content[..bytes] {
                stream.write_all(&[*byte])?;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Ok(())
        }
        (Answer::BreakAfter(bytes) | Answer::Some(bytes), _) => {
            stream.write_all(whole(content.len()).as_bytes())?;
            stream.write_all(&content[..bytes])
        }
        (Answer::Other(other), _) => {
            stream.write_all(whole(other.len()).as_bytes())?;
            stream.write_all(&other)
        }
        (Answer::Status(status), _) => {
            write!(stream, "HTTP/1.1 {status} No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        }
    }
}
