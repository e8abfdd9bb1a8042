//! `invaspread embed WEIGHTS IMAGES`: the embeddings of any images, in a file.

use super::evaluate::{file_of, open};
use super::origin::Origin;
use super::print_json;
use super::weights::preprocessing;
use crate::arguments::{EmbedArguments, Split};
use crate::failure::Failure;
use crate::output::{draws, note, note_above, print_line};
use crate::packing::stops_packing;
use crate::progress::{bar, readable};
use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use invaspread_data::{DataConfig, ImageStream, NAMES};
use invaspread_runner::config::{Config, Work, expand};
use invaspread_runner::embed::{self, EmbedError, Embedded, Event, Format, Request};
use invaspread_runner::memory::Memory;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) fn embed(arguments: &EmbedArguments) -> Result<(), Failure> {
    let overrides = expand(&arguments.settings.overrides_beside_weights()?, false)?.remove(0);
    let path = file_of(&arguments.weights)?;
    let out = &arguments.out;
    check_out(out)?;
    let weights = open(&path, arguments.within.as_deref())?;
    let origin = Origin::of(&weights, &overrides)?;
    origin.require_network(&path, &overrides)?;
    let config = &origin.config;
    config.fits_for(Work::Measure, &Memory::of)?;
    let asked = arguments.images.to_str().ok_or_else(|| {
        Failure::Usage(anyhow!("failed to read {}: expected a path of UTF-8", arguments.images.display()))
    })?;
    let stop = stops_packing()?;
    let images = images(asked, arguments.split, config)?;
    for said in &images.notes {
        note!("{said}");
    }
    let resize = if is_data_set(asked) { None } else { config.data.resize_on_reading() };
    let preprocessing = match resize {
        Some(_) => preprocessing(config),
        None => config.augment.evaluation_in_words(),
    };
    let recipe = config.recipe();
    let digest = std::fs::read(&path).map(|bytes| blake3::hash(&bytes).to_hex().to_string());
    let content = json!({
        "weights": path,
        "weights_digest": digest.with_context(|| format!("failed to read {}", path.display()))?,
        "within": arguments.within,
        "run": origin.run,
        "images": asked,
        "layer": recipe.layer,
        "preprocessing": preprocessing,
    });
    if !arguments.json {
        print_line!("config: {}", origin.describe());
        print_line!("images: {}", images.description);
        print_line!("preprocessing: {preprocessing}");
    }
    let request = Request {
        recipe: &recipe,
        weights: &weights,
        images: &images,
        resize: resize.map(|(side, filter)| (side, filter.filter())),
        skip_broken: config.data.skip_broken == Some(true) || config.data.folder.skip_broken,
        out,
        content,
        stop: &stop,
    };
    let mut shown = Shown::new();
    let embedded = embed::embed(&request, &mut |event| shown.show(&event));
    shown.bar.finish_and_clear();
    let embedded = embedded.map_err(|error| match error {
        EmbedError::Ending { .. } => Failure::Usage(error.into()),
        error => Failure::Failed(anyhow::Error::new(error).context("failed to embed the images")),
    })?;
    let Some(embedded) = embedded else { return Err(Failure::Stopped) };
    say(&embedded, out, arguments, &images)
}

fn say(
    embedded: &Embedded,
    out: &Path,
    arguments: &EmbedArguments,
    images: &ImageStream,
) -> Result<(), Failure> {
    let Embedded { files, rows, length, left_out, labeled, loaded } = embedded;
    if arguments.json {
        return Ok(print_json(&json!({
            "files": files,
            "images": images.description,
            "rows": rows,
            "length": length,
            "left_out": left_out,
            "labels": labeled == rows,
            "state_dict": loaded.place,
            "prefix_dropped": loaded.prefix,
            "not_loaded": loaded.missing,
            "left_over": loaded.left_over,
        }))?);
    }
    let labels = match labeled {
        0 => "no labels".to_owned(),
        all if all == rows => "labels".to_owned(),
        some => format!("no labels, because {} of the images have none", rows - some),
    };
    let called = if *rows == 1 { "row" } else { "rows" };
    print_line!("{}: {rows} {called} of {length} numbers, names and {labels}", out.display());
    for file in &files[1..] {
        print_line!("{}", file.display());
    }
    if *left_out > 0 {
        print_line!("images left out: {left_out}");
    }
    super::print_loaded(loaded);
    Ok(())
}

/// Refuses an ending of no format, and files that are there.
fn check_out(out: &Path) -> Result<(), Failure> {
    let Some(format) = Format::of(out) else {
        return Err(Failure::Usage(EmbedError::Ending { path: out.to_path_buf() }.into()));
    };
    match format.files(out).into_iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Err(Failure::Usage(anyhow!(
            "failed to write embeddings to {}: there is a file of that name; name another, or move it away",
            file.display()
        ))),
        None => Ok(()),
    }
}

/// Returns whether `asked` is the name of a data set, and not of a file.
fn is_data_set(asked: &str) -> bool {
    NAMES.contains(&asked) && !Path::new(asked).exists()
}

fn images(asked: &str, split: Option<Split>, config: &Config) -> Result<ImageStream, Failure> {
    if is_data_set(asked) {
        // The run's list of images is that of its own set.
        let data = DataConfig { name: asked.to_owned(), manifest: None, ..config.data.clone() };
        let dataset = invaspread_data::open(&data).context("failed to open the data set")?;
        return Ok(ImageStream::of_dataset(Arc::new(dataset), split == Some(Split::Train)));
    }
    if split.is_some() {
        return Err(Failure::Usage(anyhow!(
            "--split is for data sets ({}), and {asked} is none; name the folder or the files of the split",
            NAMES.join(", ")
        )));
    }
    Ok(ImageStream::open(asked).context("failed to open the images")?)
}

/// The most images that are named when they are left out; all are counted.
const MOST_NAMED: u64 = 10;

/// The time between two lines of progress where no bar can be drawn.
const BETWEEN: Duration = Duration::from_secs(30);

/// Progress: a bar on a terminal, otherwise a line now and then.
struct Shown {
    bar: ProgressBar,
    told: Instant,
    left_out: u64,
}

impl Shown {
    fn new() -> Self {
        Self { bar: bar("{bar:24} {percent:>3}%  {msg}"), told: Instant::now(), left_out: 0 }
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Resumed { images } => note_above(&self.bar, &format!("going on after {images} images")),
            Event::LeftOut(error) => {
                self.left_out += 1;
                match self.left_out {
                    ..=MOST_NAMED => note_above(&self.bar, &format!("left out: {error}")),
                    number if number == MOST_NAMED + 1 => {
                        note_above(&self.bar, "more images are left out; they are counted, not named");
                    }
                    _ => {}
                }
            }
            Event::Progress { done, all, rate, left } => {
                let of = all.map_or_else(String::new, |all| format!(" of {all}"));
                let left = left.map_or_else(String::new, |left| format!(", {} left", readable(left)));
                let message = format!("{done}{of} images, {rate:.0} images/s{left}");
                self.bar.set_length(all.unwrap_or(0).max(*done));
                self.bar.set_position(*done);
                if !draws() && self.told.elapsed() >= BETWEEN {
                    self.told = Instant::now();
                    note_above(&self.bar, &message);
                }
                self.bar.set_message(message);
            }
        }
    }
}
