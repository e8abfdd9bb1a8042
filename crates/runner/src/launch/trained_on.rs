//! The images of a run: they are listed in its folder, compared when it resumes, and compared with those of
//! runs of the same settings.
//!
//! If the name of a data set does not determine its images, the hash of its manifest is part of a run's
//! identity. A run on changed images is therefore a new run. A note then names the run on the other images
//! and says what has changed since.

use std::fs;
use std::path::{Path, PathBuf};

use invaspread_data::Manifest;

use super::{LaunchError, Planned};
use crate::config::{NO_SET, is_same_in_first_format, manifest_in, without_manifest};
use crate::record::{Layout, RecordError, State, Status, write_atomically};

/// Writes the list of the images into the folder of `run`, whose data set is open.
///
/// # Errors
/// Returns an error if the images are not those that the run was planned on, or the list cannot be written.
pub(super) fn write_image_list(run: &Planned, layout: &Layout) -> Result<(), LaunchError> {
    let Some(planned) = run.data.manifest.as_deref() else { return Ok(()) };
    let path = layout.images();
    let found = invaspread_data::manifest(&run.data)?;
    let listed = listed(&path);
    if found.as_ref().map(Manifest::hash).as_deref() != Some(planned) {
        let before = listed.filter(|listed| listed.hash() == planned);
        let changes = match (before, found) {
            (Some(before), Some(found)) => format!(": {}", before.changes(&found)),
            _ => String::new(),
        };
        return Err(LaunchError::ImagesChanged { id: run.id(), changes });
    }
    if let Some(found) = found.filter(|found| listed.as_ref() != Some(found)) {
        write_atomically(&path, found.to_text().as_bytes()).map_err(RecordError::io("write", &path))?;
    }
    Ok(())
}

/// Returns a note before a new run begins, if there is a run of the same settings on other images or with a
/// config of the first format: which run it is and what has changed since.
pub(super) fn note_on_similar_run(run: &Planned, root: &Path) -> Option<String> {
    let Some(Other { id, folder, done }) = others(run, root).into_iter().next() else {
        return of_first_format(run, root);
    };
    let changes = match (listed(&Layout::of(&folder).images()), invaspread_data::manifest(&run.data)) {
        (Some(before), Ok(Some(now))) => before.changes(&now).to_string(),
        (Some(_), Ok(None)) => "the published set is in their place".to_owned(),
        _ => "which of them differ is not known".to_owned(),
    };
    let then = if done {
        format!("That run is finished and stays in {}", folder.display())
    } else {
        format!(
            "That run stays half done in {} and can be resumed once the images are as they were",
            folder.display()
        )
    };
    Some(format!(
        "the images are not those of run {id}, which has the same settings: {changes}. {then}; this is a new run"
    ))
}

/// Returns the note for a run of the same settings whose config is of the first format, if there is one. Its
/// name differs from that of `run`.
fn of_first_format(run: &Planned, root: &Path) -> Option<String> {
    let is_same = |config: &str| is_same_in_first_format(config, &run.config);
    let Other { id, folder, done } = siblings(run, root, is_same).into_iter().next()?;
    let then = if done { "finished, and stays in reports" } else { "half done, and is not resumed" };
    Some(format!(
        "run {id} in {} has the same settings and was started by an earlier version, which named runs by the settings of all methods. It is \
         {then}; this is a new run",
        folder.display()
    ))
}

/// Adds to `error`, which occurred when the images of `run` were opened, a run of the same settings, if there
/// is one.
pub(super) fn with_similar_run(error: LaunchError, run: &Planned, root: &Path) -> LaunchError {
    let others = others(run, root);
    let other = others.iter().find(|other| other.done).or(others.first());
    match (error, other) {
        (LaunchError::Data(source), Some(Other { id, folder, done })) => {
            let how_far = if *done { "is finished: its results are" } else { "is half done:" };
            LaunchError::OtherRun {
                source,
                other: format!("run {id} of the same settings {how_far} in {}", folder.display()),
            }
        }
        (error, _) => error,
    }
}

/// Checks that the images of `run` could be read when it was planned.
///
/// # Errors
/// Returns the error that reading them gives now.
pub(super) fn check_planned(run: &Planned, root: &Path) -> Result<(), LaunchError> {
    if run.data.manifest.as_deref() != Some(NO_SET) {
        return Ok(());
    }
    let error = match invaspread_data::manifest(&run.data) {
        Err(error) => LaunchError::Data(error),
        Ok(_) => {
            LaunchError::ImagesChanged { id: run.id(), changes: ": they could not be read before".to_owned() }
        }
    };
    Err(with_similar_run(error, run, root))
}

/// A run of the same settings on other images.
struct Other {
    id: String,
    folder: PathBuf,
    /// Whether the run is finished.
    done: bool,
}

/// Returns the runs whose config differs from that of `run` only in the images, the latest first. Runs that
/// cannot be read are skipped.
fn others(run: &Planned, root: &Path) -> Vec<Other> {
    let settings = without_manifest(&run.config);
    // A config without a manifest is of a published set or of an older version, and says nothing of the
    // images.
    let mut others =
        siblings(run, root, |config| manifest_in(config).is_some() && without_manifest(config) == settings);
    // A run that ended before its images were opened has no images.
    others.retain(|other| other.done || Layout::of(&other.folder).images().is_file());
    others
}

/// Returns the runs beside that of `run` with the same seed and a config that passes the test, the latest
/// first. Runs that cannot be read are skipped.
fn siblings(run: &Planned, root: &Path, is_asked_for: impl Fn(&str) -> bool) -> Vec<Other> {
    let own = run.layout(root).folder().to_owned();
    let ending = format!("-s{}", run.recipe.seed);
    let mut found = Vec::new();
    for entry in own.parent().and_then(|group| fs::read_dir(group).ok()).into_iter().flatten().flatten() {
        let (folder, id) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let layout = Layout::of(&folder);
        if folder == own || !id.ends_with(&ending) {
            continue;
        }
        let Ok(config) = fs::read_to_string(layout.config()) else { continue };
        if !is_asked_for(&config) {
            continue;
        }
        let Ok(Some(status)) = Status::read(&layout) else { continue };
        let done = status.state == State::Done && layout.record().is_file();
        found.push((status.updated, Other { id, folder, done }));
    }
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    found.into_iter().map(|(_, other)| other).collect()
}

/// Reads the list at `path`; `None` if there is no list or it is damaged.
fn listed(path: &Path) -> Option<Manifest> {
    Manifest::from_text(&fs::read_to_string(path).ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::note_on_similar_run;
    use crate::config::{Override, Suite};
    use std::fs;
    use std::path::Path;

    /// The same settings as those of a committed run of the first format.
    #[test]
    fn a_run_of_the_first_format_is_told_of_and_not_resumed() {
        let typed = ["profile=quick", "device=cpu"].map(|text| Override::parse(text).unwrap());
        let (run, _) = Suite::open("table1").unwrap().plan(&typed).unwrap().remove(0);
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/runs");
        let told = note_on_similar_run(&run, &committed).unwrap();
        assert!(
            told.contains("run 0ac4613a25a9-s0") && told.contains("finished, and stays in reports"),
            "{told}"
        );

        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("table1/0ac4613a25a9-s0");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(committed.join("table1/0ac4613a25a9-s0/config.toml"), folder.join("config.toml")).unwrap();
        let status = fs::read_to_string(committed.join("table1/0ac4613a25a9-s0/status.json")).unwrap();
        fs::write(folder.join("status.json"), status.replace("\"done\"", "\"interrupted\"")).unwrap();
        let told = note_on_similar_run(&run, root.path()).unwrap();
        assert!(told.contains("half done, and is not resumed"), "{told}");
        let other = Suite::open("table1").unwrap().plan(&typed).unwrap().remove(3).0;
        assert_eq!(note_on_similar_run(&other, root.path()), None);
    }
}
