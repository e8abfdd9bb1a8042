//! The images of a run's data set, as far as it is there and is the one that the embeddings are of.

use super::said;
use crate::failure::Failure;
use crate::packing::stops_packing;
use anyhow::Context;
use invaspread_data::{Dataset, Split};
use invaspread_report::gallery::Picture;
use invaspread_runner::config::{Config, GroupFile, Override, resolve_over};
use invaspread_runner::runs::FoundRun;

/// Returns the config of a run, with settings of the data set over it; `None` without a config.
///
/// # Errors
/// Returns an error of usage if a setting is wrong.
pub(super) fn config(run: &FoundRun, overrides: &[String]) -> Result<Option<Config>, Failure> {
    let file = run.layout.config();
    if !file.is_file() {
        return Ok(None);
    }
    let origin = file.display().to_string();
    let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {origin}"))?;
    let seed = run.value("seed").map(|seed| format!("seed={seed}"));
    let all =
        seed.iter().chain(overrides).map(|text| Override::parse(text)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(resolve_over(Some(GroupFile { origin, text }), &all)?.config))
}

/// Opens the data set of a config; `None`, with a note, if it is not there.
///
/// # Errors
/// Returns an error if the system cannot watch for Ctrl-C.
pub(super) fn open(config: &Config, notes: &mut Vec<String>) -> Result<Option<Dataset>, Failure> {
    stops_packing()?;
    match invaspread_data::open(&config.data) {
        Ok(dataset) => {
            notes.extend(dataset.notes.iter().map(|said| format!("{}: {said}.", dataset.name)));
            Ok(Some(dataset))
        }
        Err(error) => {
            notes.push(format!(
                "The pictures of the images are missing: {}. With data.root=FOLDER, `look` finds a data set elsewhere.",
                said(&error).trim_end_matches('.')
            ));
            Ok(None)
        }
    }
}

/// Returns whether the data set of a config is the one that the run was measured on: with it, the settings still make this
/// run. If not, a note says that pictures and names of classes are left out, because they would be those of other images.
pub(super) fn is_own(run: &FoundRun, config: &Config, notes: &mut Vec<String>) -> bool {
    let id = run.name.rsplit_once('/').map_or(run.name.as_str(), |(_, id)| id);
    let is_own =
        config.hash().is_ok_and(|hash| id.strip_prefix(&hash).is_some_and(|rest| rest.starts_with("-s")));
    if !is_own {
        notes.push(
            "The pictures of the images and the names of the classes are left out: the data set that was found is not the one that the \
             run was measured on. Its settings or its images differ."
                .to_owned(),
        );
    }
    is_own
}

/// Returns whether the classes of a split are those that stand beside the embeddings; if not, a note says that its pictures
/// are left out, because they would be those of other images.
pub(super) fn is_same(split: &Split, labels: &[u32], what: &str, notes: &mut Vec<String>) -> bool {
    let same = split.labels == labels;
    if !same {
        notes.push(format!(
            "The pictures of the {what} are left out: the data set has {} of them with other classes than the {} that the embeddings are \
             of, so it is not the one that the run was measured on.",
            split.len(),
            labels.len()
        ));
    }
    same
}

/// Returns the picture of an image.
///
/// # Errors
/// Returns an error if the file that holds it cannot be read or is damaged.
pub(super) fn picture(split: &Split, index: usize) -> anyhow::Result<Picture> {
    let size = split.image_size;
    let pixels = split.load(index).context("failed to read an image of the data set")?.pixels;
    Ok(Picture { width: size, height: size, pixels, label: split.labels[index] })
}
