//! Tests of training on tar shards and Parquet files, from outside: the metrics are those of the same images in a folder; what is wrong
//! is told; a changed shard is another run.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod pictures;
mod program;

use std::fs;
use std::path::Path;

use invaspread_data::sample::shards::{HubRow, hub, shard};
use pictures::picture;
use program::{done, empty, invaspread, refused};
use serde_json::Value;

const CLASSES: [&str; 2] = ["ant", "bee"];

/// The width and the height of the pictures.
const SIZE: (usize, usize) = (16, 16);

/// Two steps of a tiny network.
const TINY: [&str; 10] = [
    "--json",
    "model.width=4",
    "model.embedding=8",
    "model.pool=2",
    "augment.size=16",
    "optim.batch_size=4",
    "optim.epochs=1",
    "data.subset=8",
    "eval.k=2",
    "device=cpu",
];

/// The images of a split, each with the number of its class, in the order of a folder.
fn split(first: usize, of_each: usize) -> Vec<(Vec<u8>, usize)> {
    (0..2 * of_each).map(|number| (picture(SIZE, first + number), number / of_each)).collect()
}

fn as_folder(path: &Path, images: &[(Vec<u8>, usize)]) {
    for (number, (bytes, class)) in images.iter().enumerate() {
        let folder = path.join(CLASSES[*class]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{number:02}.ppm")), bytes).unwrap();
    }
}

fn as_shard(path: &Path, first: usize, images: &[(Vec<u8>, usize)]) {
    let files: Vec<(String, &[u8])> = images
        .iter()
        .enumerate()
        .flat_map(|(number, (bytes, class))| {
            let named = |ending| format!("{:04}.{ending}", first + number);
            [(named("ppm"), &bytes[..]), (named("cls"), CLASSES[*class].as_bytes())]
        })
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    shard(path, &files);
}

fn as_parquet(path: &Path, images: &[(Vec<u8>, usize)]) {
    let rows: Vec<HubRow<'_>> =
        images.iter().map(|(bytes, class)| (Some(&bytes[..]), "", *class as i64)).collect();
    hub(path, &rows);
}

/// Trains, and returns the record.
fn train(folder: &Path, arguments: &[&str]) -> Value {
    let out = done(folder, &[&["train"], arguments, &TINY[..]].concat());
    serde_json::from_str::<Value>(&out).unwrap()[0].clone()
}

/// Checks that a record has the measurements of another.
fn same(found: &Value, expected: &Value) {
    for key in ["metrics", "train_images", "test_images", "steps", "epochs"] {
        assert_eq!(found[key], expected[key], "{key}: {found}");
    }
    assert!(expected["metrics"]["knn_top1"]["last"].is_number(), "{expected}");
}

#[test]
fn training_on_shards_gives_the_metrics_of_the_same_images_in_a_folder() {
    let folder = empty();
    let at = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let (training, test) = (split(0, 6), split(100, 3));
    as_folder(&at("images/train"), &training);
    as_folder(&at("images/test"), &test);
    as_folder(&at("undivided"), &training);
    for (shard, images) in training.chunks(5).enumerate() {
        as_shard(&at(&format!("tars/train-{shard:03}.tar")), 5 * shard, images);
        as_parquet(&at(&format!("hub/data/train-{shard:05}-of-00003.parquet")), images);
    }
    as_shard(&at("tars/test-000.tar"), 0, &test);
    as_parquet(&at("hub/data/test-00000-of-00001.parquet"), &test);

    let of_folder = ["dataset=folder", "data.folder.path=images", "data.folder.image_size=16"];
    let expected = train(folder.path(), &of_folder);
    let of_tar = ["dataset=webdataset", "data.webdataset.path=tars", "data.webdataset.image_size=16"];
    let of_hub = ["dataset=parquet", "data.parquet.path=hub", "data.parquet.image_size=16"];
    let tar = train(folder.path(), &of_tar);
    for (found, name) in [(&tar, "webdataset"), (&train(folder.path(), &of_hub), "parquet")] {
        same(found, &expected);
        assert_eq!((&found["dataset"], &found["data_state"]), (&name.into(), &"unverified".into()));
        assert_ne!(found["id"], expected["id"]);
    }
    // One split is divided as a folder is.
    let undivided =
        train(folder.path(), &["dataset=folder", "data.folder.path=undivided", "data.folder.image_size=16"]);
    let range = "data.webdataset.train=tars/train-{000..002}.tar";
    let of_range = ["dataset=webdataset", range, "data.webdataset.image_size=16"];
    same(&train(folder.path(), &of_range), &undivided);

    // The same command does nothing, and the images of the run are listed by shard.
    assert_eq!(train(folder.path(), &of_tar), tar);
    let run = format!("runs/train/{}", tar["id"].as_str().unwrap());
    let listed = fs::read_to_string(at(&format!("{run}/images.txt"))).unwrap();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(names, ["test-000.tar", "train-000.tar", "train-001.tar", "train-002.tar"]);
    // A run of shards is measured and embedded as every other.
    let measured: Value =
        serde_json::from_str(&done(folder.path(), &["evaluate", &run, "--json", "data.subset=8"])).unwrap();
    assert_eq!(measured["metrics"]["knn_top1"], tar["metrics"]["knn_top1"]["last"]);
    let said = done(folder.path(), &["embed", &run, "webdataset", "--out", "e.npz"]);
    assert!(said.contains("the test images of webdataset (unverified)"), "{said}");
    assert!(said.contains("e.npz: 6 rows"), "{said}");
    in_python(folder.path(), &of_folder);

    // A changed shard is another run, which says what has changed.
    as_shard(&at("tars/train-001.tar"), 5, &[&training[5..9], &[(picture(SIZE, 50), 1)]].concat());
    let said = invaspread(folder.path(), &[&["train"], &of_tar[..], &TINY].concat());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("1 changed (train-001.tar)"), "{}", said.err);
    assert!(said.err.contains("That run is finished"), "{}", said.err);
}

/// Trains on shards and Parquet files that Python's libraries write, if `INVASPREAD_PYTHON` names a Python that has them.
fn in_python(folder: &Path, of_folder: &[&str]) {
    let Some(python) = std::env::var_os("INVASPREAD_PYTHON") else {
        eprintln!("skipped: INVASPREAD_PYTHON names no Python with webdataset, pyarrow and Pillow");
        return;
    };
    let script = "
import io, pathlib
import pyarrow, pyarrow.parquet, webdataset
from PIL import Image

pathlib.Path('python/hub/data').mkdir(parents=True)
for part in ('train', 'test'):
    rows = []
    with webdataset.ShardWriter(f'python/{part}-%06d.tar', maxcount=5, verbose=0) as writer:
        for number, path in enumerate(sorted(pathlib.Path('images', part).glob('*/*.ppm'))):
            image, label = Image.open(path).convert('RGB'), ('ant', 'bee').index(path.parent.name)
            # PAX headers hold long names, here with a line break.
            writer.write({'__key__': f'{number:04}' + 'x' * 120 + '\\n' + 'y', 'png': image, 'json': {'label': label}})
            file = io.BytesIO()
            image.save(file, 'PNG')
            rows.append({'image': {'bytes': file.getvalue(), 'path': f'{number}.png'}, 'label': label})
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, f'python/hub/data/{part}-00000-of-00001.parquet', row_group_size=4)
";
    let output =
        std::process::Command::new(python).args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = train(folder, of_folder);
    for own in [
        ["dataset=webdataset", "data.webdataset.path=python", "data.webdataset.image_size=16"],
        ["dataset=parquet", "data.parquet.path=python/hub", "data.parquet.image_size=16"],
    ] {
        same(&train(folder, &own), &expected);
    }
}

#[test]
fn what_is_wrong_with_shards_is_told_before_anything_is_trained() {
    let folder = empty();
    let mut images = split(0, 4);
    images[1].0.truncate(100);
    as_shard(&folder.path().join("one.tar"), 0, &images);
    fs::write(folder.path().join("text.tar"), "one.tar\ntwo.tar\n").unwrap();
    let image = picture(SIZE, 1);
    let json: [(&str, &[u8]); 2] = [("cat.v2.ppm", &image), ("cat.v2.json", b"{\"label\": 0.5}")];
    shard(&folder.path().join("json.tar"), &json);
    as_shard(&folder.path().join("empty.tar"), 0, &[]);
    let of = |train: &'static str| ["train", "dataset=webdataset", train, "data.webdataset.image_size=16"];
    for (arguments, code, words) in [
        (["train", "dataset=webdataset", "seed=1", "seed=2"], 2, "data.webdataset.train: found nothing"),
        (["train", "dataset=parquet", "seed=1", "seed=2"], 2, "data.parquet.train: found nothing"),
        (of("data.webdataset.train=none.tar"), 1, "none.tar: found no file of that name"),
        (
            of("data.webdataset.train=s-{0..9}.tar"),
            1,
            "s-0.tar: found no file of that name, expected each of the 10",
        ),
        (of("data.webdataset.train=*.tar"), 1, "the pattern character *"),
        (of("data.webdataset.train=text.tar"), 1, "text.tar: found a text"),
        (of("data.webdataset.train=one.tar"), 1, "one.tar: found the image 0001 with"),
        (
            of("data.webdataset.train=json.tar"),
            1,
            "such as cat of json.tar, with the number 0.5 in the field \"label\" of cat.v2.json",
        ),
        (of("data.webdataset.train=empty.tar"), 1, "empty.tar: found no sample, expected training images"),
        (of("data.webdataset.trian=one.tar"), 2, "data.webdataset.train"),
        (
            ["train", "dataset=webdataset", "data.webdataset.train=s-0.tar", "data.webdataset.train=s-1.tar"],
            2,
            "a range of shards stands in quotes",
        ),
    ] {
        refused(folder.path(), &[&arguments[..], &TINY].concat(), code, &[words]);
    }
    let skipping = [&of("data.webdataset.train=one.tar")[..], &["data.skip_broken=true"], &TINY].concat();
    let said = invaspread(folder.path(), &skipping);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let record: Value = serde_json::from_str::<Value>(&said.out).unwrap()[0].clone();
    assert_eq!((&record["train_images"], &record["test_images"]), (&5.into(), &2.into()), "{record}");
    assert!(said.err.contains("left out"), "{}", said.err);
    let listed = done(folder.path(), &["data", "list", "--root", "."]);
    assert!(listed.contains("webdataset") && listed.contains("set data.parquet.path"), "{listed}");
    let shown = done(folder.path(), &["config", "show", "--origin", "dataset=webdataset"]);
    assert!(shown.contains("Tar shards of the training images"), "{shown}");
}

#[test]
fn a_damaged_pack_is_noticed_and_made_again() {
    let folder = empty();
    let images = split(0, 6);
    as_shard(&folder.path().join("one.tar"), 0, &images);
    let of = ["dataset=webdataset", "data.webdataset.train=one.tar", "data.webdataset.image_size=16"];
    let first = train(folder.path(), &of);
    let cached = fs::read_dir(folder.path().join("invaspread-cache")).unwrap();
    let mut cached = cached.map(|entry| entry.unwrap().path());
    let pack = cached.find(|path| path.extension().is_some_and(|ending| ending == "pack")).unwrap();
    let whole = fs::read(&pack).unwrap();
    let again = [&["train"], &of[..], &["seed=2"], &TINY].concat();
    // Each image is damaged, and the head is not.
    let head = whole.len() - images.len() * 3 * SIZE.0 * SIZE.1;
    let damaged: Vec<u8> = whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at >= head)).collect();
    fs::write(&pack, damaged).unwrap();
    refused(folder.path(), &again, 1, &["with CRC-32", "it is removed now: run the same command again"]);
    done(folder.path(), &again);
    assert!(fs::read(&pack).unwrap() == whole, "the pack is made again");
    // A pack that was cut is made again at once, with a warning.
    fs::write(&pack, &whole[..whole.len() - 7]).unwrap();
    let said = invaspread(folder.path(), &[&["train"], &of[..], &["seed=3"], &TINY].concat());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("the packed images are made again: it has"), "{}", said.err);
    assert!(fs::read(&pack).unwrap() == whole);
    assert_eq!(train(folder.path(), &of), first);
}
