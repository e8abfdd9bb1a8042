//! Tests of `invaspread embed`, from outside: its rows are those that `evaluate` measures, in every format and from every kind of input;
//! a killed process loses no row and changes no bit; broken images and wrong requests are told.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod pictures;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use invaspread_models::{Network, ResNetConfig, check_seal, write_weights};
use invaspread_runner::embeddings::{self, Labels, Source};
use pictures::picture;
use serde_json::Value;
use tempfile::TempDir;

/// The width and the height of the pictures.
const SIZE: (usize, usize) = (20, 14);

const SMALL: [&str; 2] = ["model.width=2", "model.embedding=6"];

fn invaspread(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("invaspread").unwrap();
    command.env_remove("INVASPREAD_DATA").env_remove("INVASPREAD_LOG").env("RUST_BACKTRACE", "0");
    // `measure` refuses settings of a network, which it has not.
    let of_network = if arguments[0] == "measure" { &[][..] } else { &SMALL };
    let output = command.current_dir(folder).args(arguments).args(of_network).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn done(folder: &Path, arguments: &[&str]) -> (String, String) {
    let (code, out, err) = invaspread(folder, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    (out, err)
}

fn refused(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let (found, _, err) = invaspread(folder, arguments);
    assert_eq!(found, Some(code), "{arguments:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{arguments:?}: expected {word:?} in: {err}");
    }
}

/// Makes a folder with weights `w` and images `images/cat/00.ppm` ... of two classes, `count` of each.
fn set(count: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let network = Network::new(ResNetConfig { width: 2, embedding: 6, ..Default::default() }, 5).unwrap();
    write_weights(&folder.path().join("w"), &network.state_dict().unwrap()).unwrap();
    for (class, name) in ["cat", "dog"].into_iter().enumerate() {
        let of_class = folder.path().join("images").join(name);
        fs::create_dir_all(&of_class).unwrap();
        for number in 0..count {
            fs::write(of_class.join(format!("{number:03}.ppm")), picture(SIZE, class * count + number))
                .unwrap();
        }
    }
    folder
}

/// The rows and the labels of a file.
fn read(path: &Path) -> (Vec<f32>, Labels) {
    let labels = path.with_extension("labels.txt");
    let apart = path.extension().is_some_and(|ending| ending == "npy");
    let source = Source { labels: apart.then_some(labels.as_path()), ..Source::of(path) };
    let read = embeddings::read(&source).unwrap();
    assert_eq!(read.features.dim, 6);
    (read.features.values, read.labels)
}

fn words(count: usize) -> Labels {
    Labels::Words(["cat", "dog"].into_iter().flat_map(|word| vec![word.to_owned(); count]).collect())
}

#[test]
fn every_format_holds_the_rows_that_evaluate_measures() {
    let folder = set(4);
    let at = |name: &str| folder.path().join(name);
    // As the test images of a data set of one's own, which are first resized to 32 x 32 pixels.
    fs::create_dir(at("own")).unwrap();
    fs::create_dir_all(at("own/train")).unwrap();
    for class in ["cat", "dog"] {
        fs::create_dir(at("own/train").join(class)).unwrap();
        fs::write(at("own/train").join(class).join("0.ppm"), picture(SIZE, 99)).unwrap();
    }
    fs::rename(at("images"), at("own/test")).unwrap();
    let own = ["dataset=folder", "data.folder.path=own"];
    done(folder.path(), &[&["evaluate", "w", "--embeddings", "measured"], &own[..]].concat());
    let measured = read(&at("measured/test.safetensors")).0;
    for out in ["e.npz", "e.npy", "e.safetensors"] {
        let (said, _) = done(folder.path(), &[&["embed", "w", "own/test", "--out", out], &own[..]].concat());
        for part in [
            "images: a folder of images: 8",
            "preprocessing: resize to 32 x 32 pixels, whatever the aspect ratio",
            "shorter side to 32 pixels",
            &format!("{out}: 8 rows of 6 numbers, names and labels"),
        ] {
            assert!(said.contains(part), "expected {part:?} in {said}");
        }
        let (rows, labels) = read(&at(out));
        assert!(rows == measured, "{out}: {rows:?} {measured:?}");
        let numbered = Labels::Numbers(vec![0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(labels, if out.ends_with("safetensors") { numbered } else { words(4) }, "{out}");
        assert!(!at(&format!("{out}.part")).exists());
    }
    let names = fs::read_to_string(at("e.names.txt")).unwrap();
    assert!(names.starts_with("cat/000.ppm\ncat/001.ppm\n") && names.ends_with("dog/003.ppm\n"), "{names}");
    let seal = check_seal(&fs::read(at("e.safetensors")).unwrap()).unwrap().unwrap();
    let seal: Value = serde_json::from_str(&seal).unwrap();
    assert_eq!((&seal["classes"], &seal["layer"]), (&serde_json::json!(["cat", "dog"]), &"embedding".into()));
    // `measure` takes the files as they are, and prints the same.
    let (of_npz, _) = done(folder.path(), &["measure", "e.npz"]);
    let (of_npy, _) = done(folder.path(), &["measure", "e.npy", "--labels", "e.labels.txt"]);
    let metrics =
        |text: &str| text.lines().filter(|line| line.contains('%')).map(str::to_owned).collect::<Vec<_>>();
    assert!(!metrics(&of_npz).is_empty() && metrics(&of_npz) == metrics(&of_npy), "{of_npz}\n{of_npy}");
    assert_eq!(metrics(&of_npz), metrics(&done(folder.path(), &["measure", "e.safetensors"]).0));
    done(folder.path(), &[&["embed", "w", "own/test", "--out", "e.parquet"], &own[..]].concat());
    let (of_parquet, _) = done(folder.path(), &["measure", "e.parquet"]);
    assert_eq!(metrics(&of_npz), metrics(&of_parquet));
    assert!(of_parquet.contains("e.parquet: embedding float32 (8, 6), label |S3 (8,)"), "{of_parquet}");
    // A bit of the numbers that has changed is found.
    let whole = fs::read(at("e.parquet")).unwrap();
    let mut found = 0;
    for place in (4..whole.len() / 2).step_by(7) {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(at("damaged.parquet"), &damaged).unwrap();
        let (code, out, err) = invaspread(folder.path(), &["measure", "damaged.parquet"]);
        assert!(code == Some(1) || metrics(&out) == metrics(&of_parquet), "{place}: {out}");
        found += usize::from(err.contains("BLAKE3 digest"));
    }
    assert!(found > 5, "{found}");
    // Without that data set the images go into the transform as they are.
    done(folder.path(), &["embed", "w", "own/test", "--out", "plain.npz"]);
    assert!(read(&at("plain.npz")).0 != measured);
    check_in_python(folder.path(), &own);
}

/// Reads the formats by numpy, pyarrow and safetensors' own header, if `INVASPREAD_PYTHON` names a Python that has them.
fn check_in_python(folder: &Path, own: &[&str]) {
    let Some(python) = std::env::var_os("INVASPREAD_PYTHON") else {
        eprintln!("skipped: INVASPREAD_PYTHON names no Python with numpy, pyarrow, Pillow and onnxruntime");
        return;
    };
    let script = "
import numpy, pyarrow, pyarrow.parquet
z = numpy.load('e.npz')
assert sorted(z.files) == ['embeddings', 'labels', 'names'], z.files
table = pyarrow.parquet.read_table('e.parquet').to_pydict()
assert (numpy.array(table['embedding'], 'f4') == z['embeddings']).all() and z['embeddings'].shape == (8, 6)
assert table['name'] == z['names'].tolist() and z['names'][7] == 'dog/003.ppm'
assert [label.decode() if isinstance(label, bytes) else label for label in table['label']] == z['labels'].tolist() == ['cat'] * 4 + ['dog'] * 4
assert (numpy.load('e.npy') == z['embeddings']).all()
flat = pyarrow.array(z['embeddings'].ravel())
for name, column in [('lists', pyarrow.array(z['embeddings'].tolist(), pyarrow.list_(pyarrow.float32()))),
                     ('fixed', pyarrow.FixedSizeListArray.from_arrays(flat, 6))]:
    pyarrow.parquet.write_table(pyarrow.table({'X': column, 'label': table['label']}), name + '.parquet', row_group_size=3)
";
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output =
            std::process::Command::new(&python).args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(&["-c".as_ref(), script.as_ref()]);
    // `measure` reads the lists of pyarrow, of any length and of a fixed one.
    let metrics = |file: &str| -> Value {
        let result: Value = serde_json::from_str(&done(folder, &["measure", file, "--json"]).0).unwrap();
        result["metrics"].clone()
    };
    let expected = metrics("e.npz");
    assert_eq!([metrics("lists.parquet"), metrics("fixed.parquet")], [expected.clone(), expected]);
    // A model's own metadata suffice to make the same embeddings of the same files.
    let by_metadata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/images_in_onnxruntime.py");
    let bgr = ["augment.normalize.channels=bgr", "augment.squash=40", "augment.size=36", "model.pool=0"];
    let cropped = ["augment.crop.padding=0"];
    for (number, settings) in [own, &[], &bgr, &cropped].into_iter().enumerate() {
        let (model, rows) = (format!("m{number}.onnx"), format!("m{number}.npz"));
        done(folder, &[&["weights", "export", "w", "--onnx", &model], settings].concat());
        done(folder, &[&["embed", "w", "own/test", "--out", &rows], settings].concat());
        run(&[by_metadata.as_ref(), model.as_ref(), rows.as_ref(), "own/test".as_ref()]);
    }
}

#[test]
fn lists_and_shards_give_the_rows_of_their_folder() {
    let folder = set(3);
    let at = |name: &str| folder.path().join(name);
    done(folder.path(), &["embed", "w", "images", "--out", "folder.npz"]);
    let (rows, _) = read(&at("folder.npz"));
    let files: Vec<PathBuf> = ["cat", "dog"]
        .iter()
        .flat_map(|class| (0..3).map(move |n| format!("images/{class}/{n:03}.ppm").into()))
        .collect();
    let lines: Vec<&str> = files.iter().filter_map(|file| file.to_str()).collect();
    fs::write(at("list.txt"), lines.join("\n")).unwrap();
    for (shard, files) in files.chunks(4).enumerate() {
        let mut builder = tar::Builder::new(fs::File::create(at(&format!("s-{shard:03}.tar"))).unwrap());
        for (number, file) in files.iter().enumerate() {
            let class = u8::from(file.starts_with("images/dog")).to_string();
            for (ending, bytes) in
                [("ppm", fs::read(at("").join(file)).unwrap()), ("cls", class.into_bytes())]
            {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, format!("{shard}{number}.{ending}"), &bytes[..]).unwrap();
            }
        }
        builder.finish().unwrap();
    }
    let (said, _) = done(folder.path(), &["embed", "w", "list.txt", "--out", "list.npy"]);
    assert!(said.contains("names and no labels"), "{said}");
    assert_eq!(fs::read_to_string(at("list.names.txt")).unwrap(), lines.join("\n") + "\n");
    assert!(!at("list.labels.txt").exists());
    fs::write(at("list.labels.txt"), "0\n0\n0\n1\n1\n1\n").unwrap();
    assert!(read(&at("list.npy")).0 == rows);
    let (said, _) = done(folder.path(), &["embed", "w", "s-{000..001}.tar", "--out", "shards.npz", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["rows"], &said["labels"], &said["left_out"]), (&6.into(), &true.into(), &0.into()));
    let (found, labels) = read(&at("shards.npz"));
    assert!(found == rows);
    assert_eq!(labels, Labels::Numbers(vec![0, 0, 0, 1, 1, 1]));
}

#[test]
fn a_data_set_by_its_name_gives_what_evaluate_measures() {
    let folder = set(1);
    let data = ["--profile", "smoke", "data.test_subset=30", "data.subset=40"];
    done(folder.path(), &[&["evaluate", "w", "dataset=synthetic", "--embeddings", "m"], &data[..]].concat());
    for (split, flags) in [("test", &[][..]), ("train", &["--split", "train"])] {
        let out = format!("{split}.npz");
        done(folder.path(), &[&["embed", "w", "synthetic", "--out", &out], flags, &data].concat());
        let (rows, labels) = read(&folder.path().join(out));
        let (measured, classes) = read(&folder.path().join(format!("m/{split}.safetensors")));
        assert!(rows == measured && labels == classes, "{split}");
    }
}

#[test]
fn work_that_was_cut_off_goes_on_and_ends_with_the_same_bytes() {
    let folder = set(300);
    let at = |name: &str| folder.path().join(name);
    let embed = |out: &'static str| ["embed", "w", "images", "--out", out];
    done(folder.path(), &embed("whole.safetensors"));
    // An image that cannot be read, in the second batch, stops the work.
    let broken = at("images/dog/150.ppm");
    let whole = fs::read(&broken).unwrap();
    fs::write(&broken, &whole[..40]).unwrap();
    refused(folder.path(), &embed("e.npz"), 1, &["dog/150.ppm", "skip_broken"]);
    assert!(at("e.npz.part").exists() && !at("e.npz").exists());
    fs::write(&broken, whole).unwrap();
    // Another request does not go on with it.
    refused(
        folder.path(),
        &[&embed("e.npz")[..], &["eval.layer=pooled"]].concat(),
        1,
        &["e.npz.part", "begun with another"],
    );
    let (_, err) = done(folder.path(), &embed("e.npz"));
    assert!(err.contains("going on after 250 images"), "{err}");
    let (rows, labels) = read(&at("e.npz"));
    assert!(rows == read(&at("whole.safetensors")).0 && labels == words(300));

    // A process that is killed, at whatever moment.
    let mut kills = 0;
    for wait in [0, 20, 60, 200] {
        let out = format!("killed{wait}.safetensors");
        let arguments = ["embed", "w", "images", "--out", &out];
        let part = at(&format!("{out}.part"));
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("invaspread"))
            .args(arguments)
            .args(SMALL)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !part.exists()
            && child.try_wait().unwrap().is_none()
            && began.elapsed() < Duration::from_mins(1)
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        if !at(&out).exists() {
            kills += 1;
            done(folder.path(), &arguments);
        }
        assert!(fs::read(at(&out)).unwrap() == fs::read(at("whole.safetensors")).unwrap(), "{wait}");
        assert!(!part.exists() || kills == 0, "{wait}");
    }
    assert!(kills > 0, "a process that is killed at its beginning is not done");
}

#[test]
fn broken_images_are_left_out_and_counted_if_asked() {
    let folder = set(3);
    fs::write(folder.path().join("images/cat/001.ppm"), b"no image").unwrap();
    let embed = ["embed", "w", "images", "--out", "e.npz"];
    refused(
        folder.path(),
        &embed,
        1,
        &["cat/001.ppm: found bytes of no known image format", "data.skip_broken=true"],
    );
    let (out, err) = done(folder.path(), &[&embed[..], &["data.skip_broken=true"]].concat());
    assert!(out.contains("e.npz: 5 rows") && out.contains("images left out: 1"), "{out}");
    assert!(err.contains("left out: ") && err.contains("cat/001.ppm"), "{err}");
    assert_eq!(read(&folder.path().join("e.npz")).1.len(), 5);
}

#[test]
fn wrong_requests_are_refused_before_any_work() {
    let folder = set(1);
    let embed = |images: &'static str, out: &'static str| ["embed", "w", images, "--out", out];
    fs::write(folder.path().join("there.npz"), "mine").unwrap();
    fs::write(folder.path().join("e.names.txt"), "mine").unwrap();
    refused(folder.path(), &embed("images", "there.npz"), 2, &["there.npz: there is a file of that name"]);
    refused(folder.path(), &embed("images", "e.npy"), 2, &["e.names.txt: there is a file of that name"]);
    refused(folder.path(), &embed("images", "e.csv"), 2, &["e.csv", ".npz, .npy, .safetensors or .parquet"]);
    refused(
        folder.path(),
        &[&embed("images", "e.npz")[..], &["--split", "train"]].concat(),
        2,
        &["--split is for data sets"],
    );
    refused(folder.path(), &embed("nothing", "e.npz"), 1, &["nothing"]);
    refused(folder.path(), &embed("images", "no/folder/e.npz"), 1, &["no/folder/e.npz.part"]);
    assert_eq!(fs::read_to_string(folder.path().join("there.npz")).unwrap(), "mine");
    assert!(!folder.path().join("e.npz.part").exists());
}
