//! `invaspread data`: fetch, verify, list.

use super::print_json;
use crate::arguments::DataCommand;
use crate::failure::Failure;
use crate::output::{note_above, print_line, visible};
use crate::progress::bar;
use anyhow::Context;
use indicatif::ProgressBar;
use invaspread_data::{DataError, DataState, Phase, Progress, Source};

/// Sets with more classes are summarized.
const MOST_CLASSES_SHOWN: usize = 20;

pub(crate) fn data(command: &DataCommand) -> Result<(), Failure> {
    match command {
        DataCommand::Fetch { name, root, mirror, hub, json } => {
            let source = match (mirror, hub) {
                (Some(url), _) => Source::Mirror(url.clone()),
                (None, true) => Source::Hub,
                (None, false) => Source::Official,
            };
            let mut shown = Transfer::new();
            let fetched =
                invaspread_data::fetch(name, root.as_deref(), &source, &mut |progress| shown.show(&progress));
            shown.bar.finish_and_clear();
            let fetched =
                fetched.map_err(wrong_name).map_err(|f| in_context(f, &format!("failed to fetch {name}")))?;
            if *json {
                return Ok(print_json(&fetched)?);
            }
            if let Some(path) = &fetched.set_aside {
                print_line!("what was there before is kept as {}", path.display());
            }
            let how = if fetched.downloaded { "fetched and verified" } else { "already there and verified" };
            print_line!("{name}: {how}: {}", fetched.path.display());
        }
        DataCommand::Verify { name, root, json } => {
            let report = invaspread_data::verify(name, root.as_deref()).map_err(wrong_name)?;
            if *json {
                print_json(&report)?;
            } else if let Some(content) = &report.content {
                print_line!("{name}: {} in {}", content.form, content.path.display());
                let count = |counts: &[usize]| counts.iter().sum::<usize>();
                print_line!("  {} training and {} test images", count(&content.train), count(&content.test));
                if content.unlabeled > 0 {
                    print_line!("  {} images without labels", content.unlabeled);
                }
                let classes = |counts: &[usize]| counts.iter().filter(|count| **count > 0).count();
                if content.classes.len() > MOST_CLASSES_SHOWN {
                    let (train, test) = (classes(&content.train), classes(&content.test));
                    print_line!("  {train} classes in training, {test} in test");
                } else {
                    let counts = content.train.iter().zip(&content.test);
                    for (class, (train, test)) in content.classes.iter().zip(counts) {
                        print_line!("  {class:<12} {train:>6} {test:>6}");
                    }
                }
                for note in &content.notes {
                    print_line!("  {note}");
                }
                match &content.state {
                    DataState::Unverified { reason } => print_line!("  checksums: unverified: {reason}"),
                    state => print_line!("  checksums: {state}"),
                }
            }
            if let Some(problem) = report.problem {
                return Err(Failure::Failed(anyhow::Error::msg(problem)));
            }
        }
        DataCommand::List { root, json } => {
            let listed = invaspread_data::list(root.as_deref()).context("failed to list the data sets")?;
            if *json {
                return Ok(print_json(&listed)?);
            }
            for entry in listed {
                let mark = if entry.present { "there  " } else { "missing" };
                let path = entry.path.map_or_else(String::new, |path| format!("  {}", path.display()));
                print_line!("{:<12} {mark}  {}{path}", entry.name, entry.note);
            }
        }
    }
    Ok(())
}

/// Returns a usage error for a name that no data set has, and a failure for everything else.
fn wrong_name(error: DataError) -> Failure {
    match error {
        DataError::UnknownName { .. } | DataError::Value { .. } => Failure::Usage(error.into()),
        other => Failure::Failed(other.into()),
    }
}

fn in_context(failure: Failure, doing: &str) -> Failure {
    match failure {
        Failure::Failed(error) => Failure::Failed(error.context(doing.to_owned())),
        other => other,
    }
}

/// The progress bar of a download.
struct Transfer {
    bar: ProgressBar,
    phase: Option<Phase>,
}

impl Transfer {
    fn new() -> Self {
        let bar = bar("{msg} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
        Self { bar, phase: None }
    }

    fn show(&mut self, progress: &Progress) {
        if self.phase != Some(progress.phase) {
            let doing = match progress.phase {
                Phase::Download => "downloading",
                Phase::Check => "checking",
                Phase::Unpack => "unpacking",
            };
            let message = format!("{doing} {}", progress.file);
            self.bar.set_message(visible(&message).into_owned());
            // Bytes of an earlier, interrupted download must not count in the rate.
            self.bar.set_position(progress.bytes);
            self.bar.reset_eta();
            self.phase = Some(progress.phase);
            note_above(&self.bar, &message);
        }
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.bytes);
    }
}
