//! Hostile archives under the names of CIFAR-10's archives: nothing is written outside the folder, nothing
//! hangs, nothing panics, and the error names the archive.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::program::{folder, invaspread, said, spread, times};

/// A member of an archive: its raw name, kind, link target and bytes.
type Member<'a> = (&'a [u8], EntryType, &'a [u8], &'a [u8]);

fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, kind, target, bytes) in members {
        let mut header = Header::new_gnu();
        // Raw bytes, because the builder itself refuses names that lead outside.
        let raw = header.as_mut_bytes();
        raw[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        raw[157..157 + target.len().min(100)].copy_from_slice(&target[..target.len().min(100)]);
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// Returns archives, each with a description of its defect, for the form whose folder is `top`; `outside`
/// must stay empty.
fn hostile(top: &str, member: &str, outside: &Path) -> Vec<(String, Vec<u8>)> {
    let inside = format!("{top}/{member}");
    let absolute = outside.join("planted");
    let absolute = absolute.to_str().unwrap().as_bytes();
    let long = "x/".repeat(2000) + "../".repeat(2100).as_str() + "planted";
    let pax = b"30 path=../../../../planted   \n";
    let batch = vec![7_u8; 3073 * 10];
    let file = EntryType::Regular;
    let named = |name: &[u8]| archive(&[(name, file, b"", &batch)]);
    let linked = |kind, target: &[u8]| archive(&[(inside.as_bytes(), kind, target, b"")]);
    let mut lying = Header::new_gnu();
    lying.as_mut_bytes()[..inside.len()].copy_from_slice(inside.as_bytes());
    lying.set_entry_type(file);
    // Base 256: a length of 2^62 bytes.
    lying.as_mut_bytes()[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
    lying.set_cksum();
    let mut lies = GzEncoder::new(Vec::new(), Compression::fast());
    lies.write_all(lying.as_bytes()).unwrap();
    lies.write_all(&[0; 2048]).unwrap();
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 64 << 20]).unwrap();
    let good = named(inside.as_bytes());
    let mut cases = vec![
        ("a path that leads outside".to_owned(), named(b"../planted")),
        (
            "one that leads outside through the folder".into(),
            named(format!("{top}/../../planted").as_bytes()),
        ),
        ("an absolute path".into(), named(absolute)),
        ("a link to a file".into(), linked(EntryType::Symlink, b"/etc/passwd")),
        ("a hard link".into(), linked(EntryType::Link, b"/etc/passwd")),
        ("a pipe".into(), linked(EntryType::Fifo, b"")),
        ("a character device".into(), linked(EntryType::Char, b"")),
        ("a block device".into(), linked(EntryType::Block, b"")),
        (
            "a file below a link".into(),
            archive(&[
                (top.as_bytes(), EntryType::Symlink, absolute, b""),
                (inside.as_bytes(), file, b"", &batch),
            ]),
        ),
        (
            "a long name that leads outside".into(),
            archive(&[
                (b"././@LongLink", EntryType::GNULongName, b"", long.as_bytes()),
                (b"x", file, b"", &batch),
            ]),
        ),
        (
            "an extended header that leads outside".into(),
            archive(&[(b"x", EntryType::XHeader, b"", pax), (b"x", file, b"", &batch)]),
        ),
        ("control characters in a name".into(), named(b"x/\x1b[2J\rerror: forged\n\x07")),
        ("a name that is not UTF-8".into(), named(b"x/\xff\xfe")),
        ("an empty name".into(), named(b"")),
        (
            "a member twice".into(),
            archive(&[(inside.as_bytes(), file, b"", &batch), (inside.as_bytes(), file, b"", &batch)]),
        ),
        ("a length of 2^62 bytes".into(), lies.finish().unwrap()),
        ("64 MB of zeros".into(), bomb.finish().unwrap()),
        ("no archive".into(), b"<html>not found</html>".to_vec()),
        ("nothing".into(), Vec::new()),
        ("a member too short".into(), archive(&[(inside.as_bytes(), file, b"", b"short")])),
    ];
    for i in 0..times(3, 32) {
        let at = (spread(i) * good.len() as f64) as usize;
        cases.push((format!("cut to {at} bytes"), good[..at].to_vec()));
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        cases.push((format!("byte {at} flipped"), flipped));
    }
    cases
}

#[test]
fn no_archive_writes_outside_its_folder() {
    let forms = [
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "data_batch_1.bin"),
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_1"),
    ];
    let mut tried = 0;
    for (name, top, member) in forms {
        let outer = folder();
        let root = outer.path().join("data");
        for (what, bytes) in hostile(top, member, outer.path()) {
            std::fs::create_dir(&root).unwrap();
            std::fs::write(root.join(name), bytes).unwrap();
            let mut command = invaspread(outer.path());
            command.args(["data", "verify", "cifar10", "--root"]).arg(&root);
            let output = command.output().unwrap();
            let text = said(&output);
            assert_eq!(output.status.code(), Some(1), "{name} with {what}: {text}");
            assert!(text.contains(name), "{name} with {what}: {text}");
            let raw = |character: char| character.is_control() && character != '\n';
            assert!(!text.contains(raw) && !text.contains("\nerror: forged"), "{name} with {what}: {text:?}");
            std::fs::remove_dir_all(&root).unwrap();
            let left: Vec<_> = std::fs::read_dir(outer.path()).unwrap().collect();
            assert!(left.is_empty(), "{name} with {what}: {left:?}");
            tried += 1;
        }
    }
    eprintln!("{tried} hostile archives: nothing outside the folder");
}
