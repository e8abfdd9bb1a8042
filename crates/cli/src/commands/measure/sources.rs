//! The sources of rows that `--same-source` names: which rows a query leaves out.

use crate::arguments::{LeftOut, MeasureArguments};
use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_metrics::{SameSource, Sources};
use invaspread_runner::embeddings::{ArrayOrigin, Classes, Labels, read_sources};
use serde_json::{Value, json};
use std::path::Path;

/// The source of each row, numbered.
pub(super) struct RowSources {
    of: Classes,
    leaves_out: SameSource,
    arrays: [Option<ArrayOrigin>; 2],
}

impl RowSources {
    /// Reads the sources, of which there must be as many as rows of the test file and of the gallery.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or the numbers differ.
    pub(super) fn read(
        arguments: &MeasureArguments,
        rows: usize,
        gallery_rows: Option<usize>,
    ) -> Result<Option<Self>, Failure> {
        let Some(given) = &arguments.same_source else { return Ok(None) };
        let (test, origin) = read(&arguments.test, given, "--same-source", rows)?;
        let mut gallery = None;
        if let Some((file, rows)) = arguments.gallery.as_deref().zip(gallery_rows) {
            let given = match &arguments.gallery_same_source {
                Some(given) => given,
                None if Path::new(given).exists() => {
                    return Err(Failure::Usage(anyhow!(
                        "--same-source {given} is the file of the measured rows: expected --gallery-same-source FILE beside it, the sources of \
                         the gallery's rows"
                    )));
                }
                None => given,
            };
            gallery = Some(read(file, given, "--gallery-same-source", rows)?);
        }
        let (gallery, gallery_origin) = gallery.unzip();
        let of = Classes::number(&test, gallery.as_ref()).map_err(|_| {
            anyhow!("the sources of one file are numbers and those of the other are words: save both as one or the other")
        })?;
        let leaves_out = match arguments.same_source_leaves_out {
            LeftOut::Class => SameSource::OfItsClass,
            LeftOut::All => SameSource::All,
        };
        Ok(Some(Self { of, leaves_out, arrays: [Some(origin), gallery_origin] }))
    }

    /// Returns the sources in the form of the metrics.
    pub(super) fn sources(&self) -> Sources<'_> {
        Sources {
            queries: &self.of.test,
            gallery: self.of.gallery.as_deref().unwrap_or_default(),
            leaves_out: self.leaves_out,
        }
    }

    /// Returns the name of the convention.
    pub(super) fn convention(&self) -> &'static str {
        match self.leaves_out {
            SameSource::OfItsClass => "class",
            SameSource::All => "all",
        }
    }

    pub(super) fn as_json(&self) -> Value {
        let [test, gallery] = &self.arrays;
        json!({
            "test": test,
            "gallery": gallery,
            "sources": self.of.count(),
            "leaves_out": self.convention(),
        })
    }

    /// Returns a line that says what is left out.
    pub(super) fn describe(&self) -> String {
        let count = self.of.count();
        let rows = match self.leaves_out {
            SameSource::OfItsClass => {
                "rows of its class and source, as in person re-identification; other rows of its source stay"
            }
            SameSource::All => "all rows of its source",
        };
        format!("{count} source{}: a query leaves out {rows}", if count == 1 { "" } else { "s" })
    }
}

fn read(file: &Path, given: &str, flag: &str, rows: usize) -> Result<(Labels, ArrayOrigin), Failure> {
    let (labels, origin) = read_sources(file, given)
        .map_err(|error| anyhow!("failed to read the sources: {error} ({flag} FILE|NAME)"))?;
    if labels.len() != rows {
        return Err(anyhow!(
            "{flag} {given}: found {} sources of the {rows} rows of {}, expected one for each row",
            labels.len(),
            file.display()
        )
        .into());
    }
    Ok((labels, origin))
}
