//! `invaspread look RUN`: a page of one run, with a map of its test images, the classes it takes for others, nearest
//! neighbors, curves and settings.

mod images;
mod seen;

use super::runs::named;
use crate::arguments::LookArguments;
use crate::failure::Failure;
use crate::output::{note, print_line};
use anyhow::{Context, anyhow};
use invaspread_report::is_foreign_page;
use invaspread_report::look::{Look, read_run, write_look};
use invaspread_runner::record::names;
use invaspread_runner::runs::FoundRun;
use std::path::Path;

/// The file name of the page.
const PAGE: &str = "look.html";

pub(crate) fn look(arguments: &LookArguments) -> Result<(), Failure> {
    if let Some(other) = arguments.overrides.iter().find(|text| !text.starts_with("data.")) {
        return Err(Failure::Usage(anyhow!(
            "found the setting {other}, expected one of the data set, such as data.root=FOLDER: a run keeps all other settings"
        )));
    }
    let mut run = named(&arguments.runs, &arguments.run)?;
    run.name = name_of(&run);
    let page = match &arguments.out {
        Some(folder) => folder.join(PAGE),
        // No file of a run has this name, and the list of its files leaves it out.
        None => run.layout.file(PAGE),
    };
    if is_foreign_page(&page) {
        return Err(Failure::Usage(anyhow!(
            "failed to write {}: there is something of that name which this command did not write; move it away, or name another folder \
             with --out",
            page.display()
        )));
    }
    let mut notes = Vec::new();
    let root = root_of(&run);
    let finished = match read_run(root, &run.layout) {
        Ok(finished) => finished,
        Err(error) => {
            notes.push(format!("The record and the curves are missing: {}.", said(&error)));
            None
        }
    };
    match &finished {
        Some(finished) if finished.record.reduced => notes.push(
            "Reduced: this run is smaller than the paper's recipe (fewer epochs, images or channels), so its level is not the paper's."
                .to_owned(),
        ),
        None if notes.is_empty() => {
            notes.push(format!("The run is not finished ({}): it has no record and no curves yet.", run.state.name()));
        }
        _ => {}
    }
    let images = seen::of(&run, finished.as_ref(), &arguments.overrides, &mut notes)?;
    for text in &notes {
        note!("{text}");
    }
    let settings = run.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let look = Look { name: run.name.clone(), facts: facts(&run), settings, run: finished, images, notes };
    write_look(&look, &page).context("failed to write the page; --out FOLDER writes it elsewhere")?;
    print_line!("{}", page.display());
    Ok(())
}

/// Returns the folder that the run's name begins in.
fn root_of(run: &FoundRun) -> &Path {
    let depth = Path::new(&run.name).components().count();
    run.layout.folder().ancestors().nth(depth).unwrap_or_else(|| run.layout.folder())
}

/// Returns the run's name with its suite or "train", however the run was asked for: `table1/0123abcd-s0`.
fn name_of(run: &FoundRun) -> String {
    let Ok(folder) = std::fs::canonicalize(run.layout.folder()) else { return run.name.clone() };
    let mut parts: Vec<_> = folder.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
    parts.reverse();
    parts.join("/")
}

/// Returns what the run is, as far as its files say.
fn facts(run: &FoundRun) -> Vec<(String, String)> {
    let mut facts = vec![("Run".to_owned(), run.name.clone())];
    let keys = [
        ("State", "state"),
        ("Row", "row"),
        ("Method", "method"),
        ("Data set", "dataset"),
        ("Profile", "profile"),
        ("Seed", "seed"),
        ("Epochs", "epoch"),
    ];
    facts.extend(keys.into_iter().filter_map(|(name, key)| Some((name.to_owned(), run.value(key)?))));
    let Some(record) = &run.record else { return facts };
    let mut add = |name: &str, value: String| facts.push((name.to_owned(), value));
    add("Images", format!("{} for training, {} measured", record.train_images, record.test_images));
    if !record.arguments.is_empty() {
        add("Arguments", record.arguments.join(" "));
    }
    add(
        "Machine",
        format!("{}, {} threads", record.gpu.clone().unwrap_or_else(|| record.cpu.clone()), record.threads),
    );
    add("Program", record.version.clone());
    facts
}

/// Returns an error with its causes, in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

/// Returns the name of the file of embeddings in sentences: "embeddings/test.safetensors".
fn named_file(gallery: bool) -> &'static str {
    if gallery { names::GALLERY_EMBEDDINGS } else { names::TEST_EMBEDDINGS }
}

#[cfg(test)]
mod tests {
    use super::PAGE;
    use invaspread_runner::record::names;

    #[test]
    fn the_page_has_the_name_of_no_file_of_a_run() {
        let files = [
            names::CONFIG,
            names::ENVIRONMENT,
            names::STATUS,
            names::LOG,
            names::METRICS,
            names::SIMILARITY,
            names::RECORD,
            names::FILES,
            names::IMAGES,
            names::REQUEST,
            names::TENSORBOARD,
            names::CHECKPOINTS,
            names::EMBEDDINGS,
        ];
        assert!(!files.contains(&PAGE) && !PAGE.starts_with(names::LEASE));
    }
}
