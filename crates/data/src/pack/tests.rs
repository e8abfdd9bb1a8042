//! Tests that packs hold the images of the files, are made again when they are out of date, and give an error
//! when they are damaged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime};

use invaspread_augment::Filter;

use super::*;
use crate::config::ResizeFilter;
use crate::sample::pictures::{CMYK_JPEG, gray_jpeg, jpeg, put};
use crate::sample::png;

const SMALL: RetrievalConfig = RetrievalConfig { image_size: 8, filter: ResizeFilter::Bilinear };

struct Folder {
    root: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Folder {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            put(&root.path().join(name), bytes);
        }
        Self { root, files: files.iter().map(|(name, _)| PathBuf::from(name)).collect() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn sources<'a>(&'a self, resize: &'a RetrievalConfig, skip_broken: bool) -> Sources<'a> {
        Sources { name: "set", folder: self.root.path(), files: &self.files, resize, skip_broken }
    }

    fn open(&self) -> Pack {
        open(&self.sources(&SMALL, false), &self.path("cache")).unwrap()
    }

    fn pack(&self) -> PathBuf {
        self.path("cache/set-8-bilinear.pack")
    }

    /// Returns the names of the files in the cache.
    fn cached(&self) -> Vec<String> {
        let entries = fs_err::read_dir(self.path("cache")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Returns the time at which the pack was written, from its file.
    fn written(&self) -> SystemTime {
        fs_err::metadata(self.pack()).unwrap().modified().unwrap()
    }

    /// Makes the pack an hour old, so that a new one can be distinguished.
    fn age(&self) -> SystemTime {
        let file = fs_err::OpenOptions::new().write(true).open(self.pack()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
        self.written()
    }
}

fn two() -> Folder {
    Folder::new(&[("a.jpg", jpeg((20, 10), [200, 10, 10])), ("b.jpg", jpeg((9, 30), [10, 200, 10]))])
}

fn near(found: [u8; 3], expected: [u8; 3]) -> bool {
    found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 3)
}

#[test]
fn images_are_squashed_by_the_exact_resize() {
    let color = |x: u32, y: u32| [(x * 9) as u8, (y * 11) as u8, (x * y) as u8];
    let folder = Folder::new(&[("a.png", png((23, 17), color)), ("b.png", png((8, 8), color))]);
    for filter in [ResizeFilter::Bilinear, ResizeFilter::Lanczos] {
        let resize_to = RetrievalConfig { image_size: 8, filter };
        let pack = open(&folder.sources(&resize_to, false), &folder.path("cache")).unwrap();
        for (number, name) in ["a.png", "b.png"].into_iter().enumerate() {
            let image = decode::decode(&fs_err::read(folder.path(name)).unwrap()).unwrap();
            let plain = if filter == ResizeFilter::Bilinear { Filter::Bilinear } else { Filter::Lanczos };
            let expected = resize(image.as_ref(), 8, 8, plain);
            assert_eq!(pack.images.image(number as u32).unwrap(), expected, "{name}");
        }
    }
    let expected = ["set-8-bilinear.lock", "set-8-bilinear.pack", "set-8-lanczos.lock", "set-8-lanczos.pack"];
    assert_eq!(folder.cached(), expected, "no temporary file is left");
}

#[test]
fn gray_cmyk_transparent_and_misnamed_files_are_read() {
    let transparent = {
        let image = image::RgbaImage::from_pixel(5, 5, image::Rgba([30, 60, 90, 0]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let folder = Folder::new(&[
        ("grey.jpg", gray_jpeg((30, 12), 77)),
        ("cmyk.jpg", CMYK_JPEG.to_vec()),
        ("really_a_png.jpg", png((6, 6), |_, _| [1, 2, 3])),
        ("really_a_jpeg.png", jpeg((6, 6), [100, 120, 140])),
        ("transparent.png", transparent),
        ("LOUD.JPG", jpeg((6, 6), [9, 9, 9])),
    ]);
    let pack = folder.open();
    let at = |number, x, y| pack.images.image(number).unwrap().as_ref().pixel(x, y);
    assert!(near(at(0, 4, 4), [77, 77, 77]));
    assert!(near(at(1, 4, 1), [49, 190, 207]), "{:?}", at(1, 4, 1));
    assert!(near(at(1, 4, 6), [187, 57, 126]), "{:?}", at(1, 4, 6));
    assert_eq!(at(2, 0, 0), [1, 2, 3]);
    assert!(near(at(3, 0, 0), [100, 120, 140]));
    assert_eq!(at(4, 0, 0), [30, 60, 90]);
    assert!(near(at(5, 0, 0), [9, 9, 9]));
}

#[test]
fn a_pack_of_the_same_files_is_used_again() {
    let folder = two();
    let first = folder.open();
    let written = folder.age();
    let again = folder.open();
    assert_eq!(folder.written(), written);
    assert_eq!((&again.images, &again.content), (&first.images, &first.content));
    assert_eq!(first.content, content(folder.root.path(), &folder.files).unwrap());
}

#[test]
fn a_pack_is_made_again_when_a_file_the_list_or_the_pack_itself_has_changed() {
    let mut folder = two();
    folder.open();
    // A file gets another length.
    let written = folder.age();
    put(&folder.path("a.jpg"), &jpeg((40, 10), [10, 10, 200]));
    let pack = folder.open();
    assert!(
        folder.written() > written && near(pack.images.image(0).unwrap().as_ref().pixel(3, 3), [10, 10, 200])
    );
    // A file gets another time.
    let written = folder.age();
    let file = fs_err::OpenOptions::new().write(true).open(folder.path("b.jpg")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7)).unwrap();
    folder.open();
    assert!(folder.written() > written);
    // The files come in another order.
    let written = folder.age();
    folder.files.reverse();
    let pack = folder.open();
    assert!(
        folder.written() > written && near(pack.images.image(1).unwrap().as_ref().pixel(3, 3), [10, 10, 200])
    );
    // One more file is added.
    put(&folder.path("c.jpg"), &jpeg((9, 9), [77, 7, 7]));
    folder.files.push("c.jpg".into());
    assert!(near(folder.open().images.image(2).unwrap().as_ref().pixel(0, 0), [77, 7, 7]));

    // The pack is cut short, emptied, replaced by another kind of file, or damaged anywhere in its head.
    let whole = fs_err::read(folder.pack()).unwrap();
    let start = whole.len() - 3 * 8 * 8 * 3;
    let mut damaged = vec![Vec::new(), whole[..whole.len() - 1].to_vec(), [&whole[..], b"?"].concat()];
    for at in 0..start {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        damaged.push(bytes);
    }
    for bytes in damaged {
        fs_err::write(folder.pack(), bytes).unwrap();
        let pack = folder.open();
        assert!(near(pack.images.image(2).unwrap().as_ref().pixel(0, 0), [77, 7, 7]));
        assert_eq!(fs_err::read(folder.pack()).unwrap(), whole);
    }
}

#[test]
fn a_damaged_image_in_a_pack_is_found_when_it_is_read() {
    let folder = two();
    folder.open();
    let mut bytes = fs_err::read(folder.pack()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(folder.pack(), bytes).unwrap();
    let pack = folder.open();
    pack.images.image(0).unwrap();
    let message = pack.images.image(1).unwrap_err().to_string();
    assert!(message.contains("set-8-bilinear.pack: found image 1 (b.jpg) with CRC-32"), "{message}");
    assert!(message.contains("it is removed now: run the same command again"), "{message}");
    // So the next process makes it again.
    assert!(!folder.pack().exists());
    folder.open().images.image(1).unwrap();
}

#[test]
fn a_pack_that_is_not_as_it_was_written_is_told_from_one_of_other_images() {
    let folder = two();
    let fingerprint = folder.sources(&SMALL, false).fingerprint();
    let why = || match read(&folder.pack(), 8, 2, &fingerprint).unwrap() {
        Ok(_) => "none".to_owned(),
        Err(Unusable::Damaged(why)) => format!("damaged: {why}"),
        Err(other) => other.to_string(),
    };
    assert_eq!(why(), "there is none yet");
    folder.open();
    assert_eq!(why(), "none");
    let whole = fs_err::read(folder.pack()).unwrap();
    for (bytes, expected) in [
        (whole[..whole.len() - 1].to_vec(), format!("damaged: it has {} bytes", whole.len() - 1)),
        (whole[..70].to_vec(), "damaged: it has 70 bytes".to_owned()),
        (
            whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 100)).collect(),
            "damaged: its".to_owned(),
        ),
        (Vec::new(), "the image files or the way".to_owned()),
    ] {
        fs_err::write(folder.pack(), bytes).unwrap();
        assert!(why().starts_with(&expected), "{}", why());
    }
}

#[test]
fn packing_is_watched_and_can_be_stopped() {
    use std::sync::{Arc, Mutex};
    let folder = two();
    // Other tests pack other folders at the same time.
    let (own, seen, goes_on) =
        (folder.path(""), Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
    let (of_watcher, asked) = (Arc::clone(&seen), Arc::clone(&goes_on));
    crate::watch_packing(move |packing| {
        if !packing.path.starts_with(&own) {
            return true;
        }
        of_watcher.lock().unwrap().push((packing.done, packing.all));
        *asked.lock().unwrap()
    });
    let message = open(&folder.sources(&SMALL, false), &folder.path("cache")).unwrap_err().to_string();
    assert!(
        message.contains("set-8-bilinear.pack: the packing was stopped after 0 of 2 images"),
        "{message}"
    );
    assert!(message.contains("the same command packs them again"), "{message}");
    assert_eq!(folder.cached(), ["set-8-bilinear.lock"], "no half pack is left");
    *goes_on.lock().unwrap() = true;
    folder.open();
    // A pack that is there is opened without a word.
    folder.open();
    assert_eq!(*seen.lock().unwrap(), [(0, 2), (0, 2), (2, 2)]);
}

#[test]
fn a_broken_file_leaves_no_pack_behind() {
    let folder = Folder::new(&[("a.jpg", jpeg((9, 9), [1, 2, 3])), ("b.jpg", b"GIF89a".to_vec())]);
    let message = open(&folder.sources(&SMALL, false), &folder.path("cache")).unwrap_err().to_string();
    assert!(message.contains("b.jpg: found an image that fails to decode"), "{message}");
    assert!(
        message.contains(
            "expected a whole image (PNG, JPEG, WebP, GIF, BMP, TIFF or PNM); repair or fetch it again"
        ),
        "{message}"
    );
    assert_eq!(folder.cached(), ["set-8-bilinear.lock"]);
    let pack = open(&folder.sources(&SMALL, true), &folder.path("cache")).unwrap();
    assert_eq!(pack.broken, [false, true]);
    // A JPEG that was cut is broken too, and so is a path that is not a file.
    put(&folder.path("b.jpg"), &jpeg((40, 40), [1, 2, 3])[..500]);
    let message = open(&folder.sources(&SMALL, false), &folder.path("cache")).unwrap_err().to_string();
    assert!(
        message.contains("b.jpg: found an image that fails to decode (a JPEG cut after 500 bytes"),
        "{message}"
    );
    #[cfg(unix)]
    {
        fs_err::remove_file(folder.path("b.jpg")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path("b.jpg")).unwrap();
        let message = open(&folder.sources(&SMALL, false), &folder.path("cache")).unwrap_err().to_string();
        assert!(message.contains("b.jpg is a device, expected a regular file"), "{message}");
        assert_eq!(open(&folder.sources(&SMALL, true), &folder.path("cache")).unwrap().broken, [false, true]);
        fs_err::remove_file(folder.path("b.jpg")).unwrap();
    }
    // After the repair, it is packed with the others.
    put(&folder.path("b.jpg"), &jpeg((9, 9), [1, 2, 3]));
    assert_eq!(folder.open().broken, [false, false]);
}

#[test]
fn what_a_killed_process_left_is_cleared_away() {
    let folder = two();
    put(&folder.path("cache/.set-8-bilinear-part-abc"), b"half");
    put(&folder.path("cache/.set-8-lanczos-part-abc"), b"another's");
    folder.open();
    assert_eq!(folder.cached(), [".set-8-lanczos-part-abc", "set-8-bilinear.lock", "set-8-bilinear.pack"]);
}

#[test]
fn of_many_that_want_a_pack_one_makes_it() {
    let folder = two();
    let packs: Vec<Pack> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| folder.open())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(packs.iter().all(|pack| pack.images.image(1).unwrap() == packs[0].images.image(1).unwrap()));
    assert_eq!(folder.cached(), ["set-8-bilinear.lock", "set-8-bilinear.pack"]);
}

#[cfg(unix)]
#[test]
fn whoever_may_read_a_new_file_may_read_a_pack() {
    use std::os::unix::fs::PermissionsExt;
    let folder = two();
    folder.open();
    let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&folder.pack()), mode(&folder.path("a.jpg")));
}

#[test]
fn readers_on_many_threads_get_the_same_images() {
    let folder = two();
    let pack = folder.open();
    let expected = [pack.images.image(0).unwrap(), pack.images.image(1).unwrap()];
    (0..200_u32).into_par_iter().for_each(|number| {
        assert_eq!(pack.images.image(number % 2).unwrap(), expected[number as usize % 2]);
    });
}
