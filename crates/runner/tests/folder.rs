//! Runs on a folder of a user's images: a changed folder gives another run and a note of what changed; a
//! folder that no longer exists is an error that names the finished runs; and the advice in the built-in
//! config works as it is written.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use invaspread_data::Manifest;
use invaspread_runner::config::{Config, ConfigError, Override, plan_runs, resolve};
use invaspread_runner::engine::{End, Observer, RunFinished, StepTaken, Stop};
use invaspread_runner::launch::{Planned, Standing, estimate_all, run_all};

/// Writes a portable pixmap, which needs no library.
fn picture(path: &Path, side: usize, shade: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixels: Vec<u8> = (0..side * side * 3).map(|at| shade.wrapping_add((at % 7) as u8 * 9)).collect();
    fs::write(path, [format!("P6\n{side} {side}\n255\n").as_bytes(), &pixels].concat()).unwrap();
}

/// Makes a folder of two classes with six pictures each.
fn folder(side: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..6u8 {
        picture(&folder.path().join(format!("a/{number}.ppm")), side, number * 8);
        picture(&folder.path().join(format!("b/{number}.ppm")), side, 128 + number * 8);
    }
    folder
}

fn overrides(folder: &Path, arguments: &[&str]) -> Vec<Override> {
    let path = format!("data.folder.path={}", folder.display());
    let tiny = [
        "dataset=folder",
        path.as_str(),
        "model.width=4",
        "model.embedding=8",
        "optim.batch_size=4",
        "eval.k=2",
        "device=cpu",
    ];
    tiny.iter().chain(arguments).map(|text| Override::parse(text).unwrap()).collect()
}

fn config(folder: &Path, arguments: &[&str]) -> Config {
    resolve(&overrides(folder, arguments)).unwrap().config
}

fn plan_now(folder: &Path, arguments: &[&str]) -> Result<Planned, ConfigError> {
    let sweep = plan_runs(&overrides(folder, arguments), false, &|_| None)?;
    Ok(sweep.planned.into_iter().next().unwrap())
}

/// Plans the run as a later command does: within one command, the hash of a folder is kept for two seconds.
fn plan(folder: &Path, arguments: &[&str]) -> Planned {
    std::thread::sleep(std::time::Duration::from_millis(2100));
    plan_now(folder, arguments).unwrap()
}

/// Keeps the notes and the ends of runs, and stops after some steps.
#[derive(Default)]
struct Watch {
    steps: usize,
    stop_after: Option<usize>,
    stop: Stop,
    notes: Vec<String>,
    ends: Vec<End>,
}

impl Observer for Watch {
    fn step(&mut self, _event: &StepTaken) {
        self.steps += 1;
        if self.stop_after == Some(self.steps) {
            self.stop.raise();
        }
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn run_finished(&mut self, event: &RunFinished) {
        self.ends.push(event.end.clone());
    }
}

fn go(run: &Planned, root: &Path, stop_after: Option<usize>) -> Watch {
    let mut watch = Watch { stop_after, ..Watch::default() };
    let stop = watch.stop.clone();
    run_all(std::slice::from_ref(run), root, &mut watch, &stop);
    watch
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn changed_images_are_another_run_and_images_that_are_gone_an_error() {
    let (set, runs) = (folder(8), tempfile::tempdir().unwrap());
    let arguments = ["data.folder.image_size=16", "augment.size=16", "model.pool=2", "optim.epochs=2"];
    let first = plan(set.path(), &arguments);
    assert!(matches!(go(&first, runs.path(), None).ends[..], [End::Done { .. }]));
    let listed = fs::read_to_string(first.layout(runs.path()).images()).unwrap();
    assert_eq!(Some(Manifest::from_text(&listed).unwrap().hash()), first.data.manifest);

    // The same images are the same run, whatever lies beside them.
    fs::write(set.path().join("a/readme.txt"), "no image").unwrap();
    let again = plan(set.path(), &arguments);
    assert_eq!((again.id(), again.standing(runs.path()).unwrap()), (first.id(), Standing::Done));

    // One image is added and one is changed: a new run begins with a note of what changed; it is stopped half
    // way.
    picture(&set.path().join("a/6.ppm"), 8, 77);
    picture(&set.path().join("b/0.ppm"), 8, 99);
    let second = plan(set.path(), &arguments);
    assert_ne!(second.id(), first.id());
    let watch = go(&second, runs.path(), Some(1));
    assert!(matches!(watch.ends[..], [End::Stopped { .. }]), "{:?}", watch.ends);
    let note = watch.notes.iter().find(|note| note.contains(&first.id())).unwrap();
    assert!(
        note.contains("1 added (a/6.ppm), 1 changed (b/0.ppm)") && note.contains("That run is finished"),
        "{note}"
    );

    // One image is removed: a note names the unfinished run, which is not resumed.
    fs::remove_file(set.path().join("a/6.ppm")).unwrap();
    let third = plan(set.path(), &arguments);
    assert_eq!(third.standing(runs.path()).unwrap(), Standing::New);
    let watch = go(&third, runs.path(), None);
    assert!(matches!(watch.ends[..], [End::Done { .. }]), "{:?}", watch.ends);
    let note = watch.notes.iter().find(|note| note.contains(&second.id())).unwrap();
    assert!(note.contains("1 removed (a/6.ppm)") && note.contains("stays half done"), "{note}");

    // An image that changes between planning and training is an error, and nothing is trained.
    picture(&set.path().join("a/9.ppm"), 8, 78);
    let late = plan(set.path(), &arguments);
    picture(&set.path().join("a/9.ppm"), 8, 79);
    let watch = go(&late, runs.path(), None);
    let [End::Failed { message }] = &watch.ends[..] else { panic!("{:?}", watch.ends) };
    assert!(message.contains("have changed since it was planned") && watch.steps == 0, "{message}");

    // If the folder and all its pictures are gone, an error names the finished run, and no new folder is
    // made.
    let before = folders(&runs.path().join("train"));
    let path = set.path().to_owned();
    drop(set);
    let gone = plan(&path, &arguments);
    let standing = gone.standing(runs.path()).unwrap();
    assert_eq!(standing, Standing::New);
    let message = estimate_all(std::slice::from_ref(&gone), &[Ok(standing)], runs.path(), || ())
        .unwrap_err()
        .to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(message.contains("of the same settings is finished: its results are in"), "{message}");
    let watch = go(&gone, runs.path(), None);
    let [End::Failed { message }] = &watch.ends[..] else { panic!("{:?}", watch.ends) };
    assert!(message.contains("of the same settings is finished: its results are in"), "{message}");
    assert_eq!(folders(&runs.path().join("train")), before);
}

#[test]
fn sets_that_are_not_there_or_generated_have_no_manifest_in_their_identity() {
    let empty = tempfile::tempdir().unwrap();
    for dataset in ["cifar10", "stl10", "cub200-2011", "cars196", "products", "synthetic"] {
        let arguments = [format!("dataset={dataset}"), format!("data.root={}", empty.path().display())];
        let overrides: Vec<Override> = arguments.iter().map(|text| Override::parse(text).unwrap()).collect();
        let identity = resolve(&overrides).unwrap().config.identity().unwrap();
        assert!(!identity.contains("manifest"), "{identity}");
    }
}

#[test]
fn a_manifest_that_is_asked_for_must_be_that_of_the_images() {
    let set = folder(8);
    let asked = config(set.path(), &[]);
    let hash = plan_now(set.path(), &[]).unwrap().data.manifest.unwrap();
    let right = config(set.path(), &[&format!("data.manifest=\"{hash}\"")]);
    assert_eq!(right.hash().unwrap(), asked.hash().unwrap());
    let message = plan_now(set.path(), &["data.manifest=\"blake3:00\""]).unwrap_err().to_string();
    assert!(message.contains("data.manifest") && message.contains(&hash), "{message}");
}

#[test]
fn the_advice_for_pictures_of_64_pixels_works_as_written() {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/dataset/folder.toml"),
    )
    .unwrap();
    let advice = text.lines().find_map(|line| Some(line.split_once("for 64 set all three: ")?.1)).unwrap();
    let mut arguments: Vec<&str> = advice.split(' ').collect();
    assert_eq!(arguments.len(), 3);
    arguments.push("optim.epochs=1");
    let (set, runs) = (folder(64), tempfile::tempdir().unwrap());
    let watch = go(&plan(set.path(), &arguments), runs.path(), None);
    assert!(matches!(watch.ends[..], [End::Done { .. }]), "{:?}", watch.ends);
    // If one of the last two is left out, the error names both keys before anything is run.
    for two in
        [["data.folder.image_size=64", "model.pool=8"], ["data.folder.image_size=64", "augment.size=64"]]
    {
        let message = plan_now(set.path(), &two).unwrap_err().to_string();
        assert!(message.contains("model.pool") && message.contains("augment.size"), "{message}");
    }
}

#[test]
fn the_quick_profile_takes_all_there_are_of_a_small_folder() {
    let (set, runs) = (folder(32), tempfile::tempdir().unwrap());
    let run = plan(set.path(), &["profile=quick", "optim.epochs=1", "optim.batch_size=4"]);
    let watch = go(&run, runs.path(), None);
    assert!(matches!(watch.ends[..], [End::Done { .. }]), "{:?}", watch.ends);
    let note = "folder: all 10 training images are taken, as there are fewer than the 10000 asked for";
    assert!(watch.notes.iter().any(|told| told == note), "{:?}", watch.notes);
    let record = invaspread_runner::record::RunRecord::read(&run.layout(runs.path())).unwrap();
    assert_eq!((record.train_images, record.test_images), (10, 2));
}
