//! Tests fetching from a server on this machine, and the faults that may occur.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::time::Duration;

use super::*;
use crate::catalog::fetch;
use crate::dataset::DataState;
use crate::retrieval::{Set, write_marker};
use crate::sample::{Answer, Member, Server, tar_gz, zip};

const QUICK: Patience = Patience {
    tries: 2,
    progress: 1,
    pause: Duration::from_millis(1),
    silence: Duration::from_secs(10),
    slowest: 1,
};

fn spec(archive: &[u8], server: &Server) -> ArchiveSpec {
    ArchiveSpec {
        base_url: server.url(),
        file: "set.tar.gz".to_owned(),
        bytes: archive.len() as u64,
        sha256: digest::of_bytes(archive),
        folder: "set".to_owned(),
        required: vec![("a.bin".to_owned(), 3), ("b.bin".to_owned(), 2)],
        optional: vec!["read.me".to_owned()],
    }
}

fn good() -> Vec<u8> {
    tar_gz(&[
        Member::Folder("set"),
        Member::File("set/a.bin", b"aaa"),
        Member::File("set/read.me", b"hello"),
        Member::File("set/surprise", b"?"),
        Member::File("set/b.bin", b"bb"),
    ])
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_archive_is_downloaded_checked_unpacked_and_removed() {
    let archive = good();
    let server = Server::start(archive.clone(), vec![Answer::BreakAfter(40), Answer::Whole]);
    let root = tempfile::tempdir().unwrap();
    let mut phases = Vec::new();
    let nested = root.path().join("not/yet/there");
    let fetched = fetch_archive(&spec(&archive, &server), &nested, QUICK, &mut |progress| {
        phases.push(progress.phase);
    })
    .unwrap();
    phases.dedup();
    assert_eq!(phases, [Phase::Download, Phase::Check, Phase::Unpack]);
    assert_eq!(fetched, Fetched { path: nested.join("set"), downloaded: true, set_aside: None });
    assert_eq!(names(&nested), ["set"]);
    assert_eq!(names(&nested.join("set")), ["a.bin", "b.bin", "read.me"]);
    assert_eq!(fs_err::read(nested.join("set/a.bin")).unwrap(), b"aaa");
    server.stop();
}

#[test]
fn an_archive_that_is_there_is_used_and_kept() {
    let archive = good();
    let server = Server::start(archive.clone(), vec![]);
    let root = tempfile::tempdir().unwrap();
    fs_err::write(root.path().join("set.tar.gz"), &archive).unwrap();
    fs_err::create_dir(root.path().join("set")).unwrap();
    fs_err::write(root.path().join("set/mine"), b"precious").unwrap();
    let fetched = fetch_archive(&spec(&archive, &server), root.path(), QUICK, &mut |_| ()).unwrap();
    assert!(!fetched.downloaded);
    assert_eq!(names(root.path()), ["set", "set.old-1", "set.tar.gz"]);
    assert_eq!(fetched.set_aside.unwrap(), root.path().join("set.old-1"));
    assert_eq!(fs_err::read(root.path().join("set.old-1/mine")).unwrap(), b"precious");
    assert!(server.stop().is_empty(), "no request");
}

#[test]
fn a_set_that_is_not_whole_never_appears() {
    let short = tar_gz(&[Member::File("set/a.bin", b"aaa"), Member::File("set/b.bin", b"b")]);
    let lacking = tar_gz(&[Member::File("set/a.bin", b"aaa")]);
    let hostile = tar_gz(&[Member::File("set/a.bin", b"aaa"), Member::File("../b.bin", b"bb")]);
    let linked = tar_gz(&[Member::File("set/a.bin", b"aaa"), Member::Link("set/b.bin", "a.bin")]);
    for (archive, why) in [
        (short, "found 1 bytes, expected 2"),
        (lacking, "without b.bin"),
        (hostile, "leads outside"),
        (linked, "a link"),
    ] {
        let server = Server::start(archive.clone(), vec![Answer::Whole]);
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        let message =
            fetch_archive(&spec(&archive, &server), &root, QUICK, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
        assert_eq!(
            (names(&root), names(outer.path())),
            (vec!["set.tar.gz.part".to_owned()], vec!["root".to_owned()])
        );
        server.stop();
    }
}

#[test]
fn what_a_killed_fetch_left_behind_is_removed_by_the_next() {
    let archive = good();
    let server = Server::start(archive.clone(), vec![]);
    let root = tempfile::tempdir().unwrap();
    let there = |name: &str| root.path().join(name);
    fs_err::write(there("set.tar.gz"), &archive).unwrap();
    let leave = |name: &str, lock: bool| {
        fs_err::create_dir_all(there(name).join("set")).unwrap();
        fs_err::write(there(name).join("set/a.bin"), vec![0; 100]).unwrap();
        lock.then(|| fs_err::File::create(there(name).join("lock")).unwrap())
    };
    // One fetch was killed, one is running, one was left by an older version an hour ago, and one begins at
    // this moment.
    drop(leave(".set-unpacking-killed", true));
    let busy = leave(".set-unpacking-busy", true).unwrap();
    busy.file().lock().unwrap();
    leave(".set-unpacking-old", false);
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3700);
    fs_err::File::open(there(".set-unpacking-old")).unwrap().file().set_modified(hour_ago).unwrap();
    leave(".set-unpacking-new", false);
    // These names are similar, but belong to another set or are not those of folders.
    leave(".settings-unpacking-x", true);
    fs_err::write(there(".set-unpacking-file"), b"mine").unwrap();
    fs_err::create_dir(there("precious")).unwrap();
    fs_err::write(there("precious/mine"), b"mine").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(there("precious"), there(".set-unpacking-link")).unwrap();
    fetch_archive(&spec(&archive, &server), root.path(), QUICK, &mut |_| ()).unwrap();
    let mut left = names(root.path());
    left.retain(|name| name != ".set-unpacking-link");
    let expected = [
        ".set-unpacking-busy",
        ".set-unpacking-file",
        ".set-unpacking-new",
        ".settings-unpacking-x",
        "precious",
        "set",
        "set.tar.gz",
    ];
    assert_eq!(left, expected);
    assert_eq!(fs_err::read(there("precious/mine")).unwrap(), b"mine");
    server.stop();
}

#[test]
fn an_unwritable_folder_says_what_to_do() {
    let archive = good();
    let server = Server::start(archive.clone(), vec![]);
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs_err::write(&file, b"").unwrap();
    let message = fetch_archive(&spec(&archive, &server), &file.join("in"), QUICK, &mut |_| ())
        .unwrap_err()
        .to_string();
    assert!(message.contains("file/in") && message.contains("INVASPREAD_DATA"), "{message}");
    server.stop();
}

/// Returns a set of two archives and a plain file, like Cars196.
fn package(pieces: [(&'static str, &[u8], Packing); 3], url: Option<&str>) -> Package {
    let piece = |(file, bytes, packing): (&str, &[u8], Packing)| Piece {
        base_url: url.map(str::to_owned),
        file: file.to_owned(),
        bytes: bytes.len() as u64,
        sha256: digest::of_bytes(bytes),
        packing,
        into: if file == "list.txt" { "lists" } else { "" },
    };
    Package { name: "cars196", folder: "cars", pieces: pieces.map(piece).to_vec(), advice: "get it again" }
}

fn keep(name: &str) -> bool {
    name.starts_with("images/")
}

const TAR: Packing = Packing::TarGz { top: "set", keep };
const ZIP: Packing = Packing::Zip { top: "set", keep };

fn tarred() -> Vec<u8> {
    tar_gz(&[
        Member::Folder("set"),
        Member::File("./set/images/a/1.jpg", b"one"),
        Member::File("set/notes.txt", b"passed over"),
        Member::File("other/images/2.jpg", b"passed over"),
        Member::Link("set/link", "/etc/passwd"),
    ])
}

fn zipped() -> Vec<u8> {
    zip(&[("set/images/b/2.JPG", b"two"), ("set/notes.txt", b"passed over"), ("top.txt", b"passed over")])
}

#[test]
fn a_set_of_several_pieces_appears_as_a_whole() {
    let (tar, zip) = (tarred(), zipped());
    let root = tempfile::tempdir().unwrap();
    // Two pieces were put into the folder by hand; the third one is downloaded.
    fs_err::write(root.path().join("images.zip"), &zip).unwrap();
    fs_err::write(root.path().join("list.txt"), b"list").unwrap();
    let server = Server::start(tar.clone(), vec![Answer::BreakAfter(20), Answer::Whole]);
    let pieces =
        [("images.tgz", &tar[..], TAR), ("images.zip", &zip, ZIP), ("list.txt", b"list", Packing::Plain)];
    let package = package(pieces, None);
    let mirror = Source::Mirror(server.url());
    let mut marked = None;
    let fetched = fetch_package(&package, &mirror, root.path(), QUICK, &mut |_| (), &mut |folder| {
        marked = Some(names(&folder.join("images")));
        assert_ne!(folder, root.path().join("cars"));
        Ok(())
    });
    let place = root.path().join("cars");
    assert_eq!(fetched.unwrap(), Fetched { path: place.clone(), downloaded: true, set_aside: None });
    assert_eq!(marked.unwrap(), ["a", "b"]);
    assert_eq!(names(&place), ["images", "lists"]);
    assert_eq!(fs_err::read(place.join("images/a/1.jpg")).unwrap(), b"one");
    assert_eq!(fs_err::read(place.join("images/b/2.JPG")).unwrap(), b"two");
    assert_eq!(fs_err::read(place.join("lists/list.txt")).unwrap(), b"list");
    // Files that were put there by hand stay, and downloaded files are removed.
    assert_eq!(names(root.path()), ["cars", "images.zip", "list.txt"]);
    assert!(server.stop()[0].contains("/images.tgz"));
}

#[test]
fn without_a_server_the_files_are_named_before_anything_is_done() {
    let (tar, zip) = (tarred(), zipped());
    let root = tempfile::tempdir().unwrap();
    fs_err::write(root.path().join("images.zip"), &zip).unwrap();
    fs_err::write(root.path().join("list.txt"), b"of another kind").unwrap();
    let pieces =
        [("images.tgz", &tar[..], TAR), ("images.zip", &zip, ZIP), ("list.txt", b"list", Packing::Plain)];
    let package = package(pieces, None);
    let fetch = |source| {
        fetch_package(&package, &source, root.path(), QUICK, &mut |_| (), &mut |_| Ok(()))
            .unwrap_err()
            .to_string()
    };
    let message = fetch(Source::Official);
    assert!(
        message.contains("images.tgz, images.zip, list.txt") && message.contains("--mirror URL"),
        "{message}"
    );
    assert!(fetch(Source::Hub).contains("only cifar10"));
    assert_eq!(names(root.path()), ["images.zip", "list.txt"]);
}

#[test]
fn a_set_with_a_bad_piece_never_appears() {
    let outside = tar_gz(&[Member::File("set/../../images/a.jpg", b"x")]);
    let linked = tar_gz(&[Member::Link("set/images/a.jpg", "/etc/passwd")]);
    let twice = tar_gz(&[Member::File("set/images/a.jpg", b"x"), Member::File("set/images/a.jpg", b"y")]);
    let noise: Vec<u8> = (0..4000_u32).map(|i| (i * i * 31 % 251) as u8).collect();
    let whole = tar_gz(&[Member::File("set/images/a.jpg", &noise)]);
    let bomb = tar_gz(&[Member::File("set/images/a.jpg", &vec![0; 4 << 20])]);
    let zip_outside = zip(&[("set/../../images/a.jpg", b"x")]);
    let mut zip_damaged = zipped();
    let at = zip_damaged.windows(3).position(|bytes| bytes == b"two").unwrap();
    zip_damaged[at] ^= 1;
    let cases: [(&[u8], Packing, &str); 10] = [
        (&outside, TAR, "leads outside"),
        (&linked, TAR, "not a plain file"),
        (&twice, TAR, "images/a.jpg twice"),
        (&whole[..whole.len() / 2], TAR, "fails to unpack"),
        (&bomb, TAR, "members of more than"),
        (b"<html>", TAR, "whole .tar.gz"),
        (&zip_outside, ZIP, "leads outside"),
        (&zip_damaged, ZIP, "fails to unpack"),
        (&zipped()[..60], ZIP, "whole .zip"),
        (b"<html>", ZIP, "whole .zip"),
    ];
    for (bytes, packing, why) in cases {
        let root = tempfile::tempdir().unwrap();
        fs_err::write(root.path().join("set.archive"), bytes).unwrap();
        let good = tarred();
        for name in ["images.tgz", "list.txt"] {
            fs_err::write(root.path().join(name), &good).unwrap();
        }
        let pieces = [
            ("images.tgz", &good[..], TAR),
            ("set.archive", bytes, packing),
            ("list.txt", &good, Packing::Plain),
        ];
        let fetched = fetch_package(
            &package(pieces, None),
            &Source::Official,
            root.path(),
            QUICK,
            &mut |_| (),
            &mut |_| Ok(()),
        );
        let message = fetched.unwrap_err().to_string();
        assert!(message.contains("set.archive") && message.contains(why), "{message}");
        assert!(message.ends_with("get it again"), "{message}");
        assert_eq!(names(root.path()), ["images.tgz", "list.txt", "set.archive"]);
    }
}

#[test]
fn a_fetched_set_is_known_to_be_the_published_one() {
    let root = tempfile::tempdir().unwrap();
    let made = crate::sample::pictures::products(root.path(), &[5, 11_319]);
    let mut files = Vec::new();
    for name in ["Ebay_train.txt", "Ebay_test.txt"] {
        files.push((format!("Stanford_Online_Products/{name}"), fs_err::read(made.join(name)).unwrap()));
    }
    for name in names(&made.join("sofa_final")) {
        let bytes = fs_err::read(made.join("sofa_final").join(&name)).unwrap();
        files.push((format!("Stanford_Online_Products/sofa_final/{name}"), bytes));
    }
    let members: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let archive = zip(&members);
    let set = Set::Products;
    let mut package = set.package().unwrap();
    package.pieces[0].bytes = archive.len() as u64;
    package.pieces[0].sha256 = digest::of_bytes(&archive);
    let server = Server::start(archive, vec![Answer::Whole]);
    let target = tempfile::tempdir().unwrap();
    let mirror = Source::Mirror(server.url());
    let mut mark = |folder: &Path| write_marker(set, folder, "the archive");
    let fetched = fetch_package(&package, &mirror, target.path(), QUICK, &mut |_| (), &mut mark).unwrap();
    assert!(fetched.downloaded && server.stop()[0].contains("/stanford_online_products.zip"));
    // Only its numbers of images, which are not the published ones, prevent the state "verified".
    let report = crate::verify("products", Some(target.path())).unwrap();
    let DataState::Unverified { reason } = report.content.unwrap().state else { panic!("verified") };
    assert!(reason.starts_with("it has 3 training and 3 test images"), "{reason}");
    let note = fs_err::read_to_string(fetched.path.join("invaspread-fetched.txt")).unwrap();
    assert!(note.contains("`invaspread data fetch products` from the archive"), "{note}");
}

#[test]
fn what_cannot_be_fetched_says_how_to_use_it() {
    let message = |name| fetch(name, None, &Source::Official, &mut |_| ()).unwrap_err().to_string();
    assert!(message("synthetic").contains("drawn on the fly"));
    assert!(message("folder").contains("data.folder.path"));
    assert!(message("cifar11").contains("\"cifar11\"") && message("cifar11").contains("cifar10"));
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_feature_the_hub_says_how_to_rebuild() {
    let root = tempfile::tempdir().unwrap();
    let message = fetch("cifar10", Some(root.path()), &Source::Hub, &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("--features hub"), "{message}");
}
