//! The sources of rows, such as cameras: which rows a query leaves out.

use super::names::Names;
use crate::arguments::LeftOut;
use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_metrics::{SameSource, Sources};
use invaspread_runner::embeddings::{ArrayOrigin, Classes, Embedded, Labels};
use serde_json::{Value, json};

/// The source of each row of one set.
pub(super) type Given = (Labels, ArrayOrigin);

/// The source of each row, numbered.
pub(super) struct RowSources {
    of: Classes,
    leaves_out: SameSource,
    arrays: [Option<ArrayOrigin>; 2],
}

impl RowSources {
    /// Numbers the sources of the measured rows and of the gallery's.
    ///
    /// # Errors
    /// Returns an error if those of one set are numbers and those of the other words.
    pub(super) fn new(
        names: Names,
        (test, origin): Given,
        gallery: Option<Given>,
        leaves_out: LeftOut,
    ) -> Result<Self, Failure> {
        let (gallery, gallery_origin) = gallery.unzip();
        let of = Classes::number(&test, gallery.as_ref())
            .map_err(|_| anyhow!(names.unlike("sources", "same-source")))?;
        let leaves_out = match leaves_out {
            LeftOut::Class => SameSource::OfItsClass,
            LeftOut::All => SameSource::All,
        };
        Ok(Self { of, leaves_out, arrays: [Some(origin), gallery_origin] })
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
        let of = self.arrays.iter().flatten().map(|origin| format!("{}: {origin}", origin.file.display()));
        let of: Vec<String> = of.collect();
        let s = if count == 1 { "" } else { "s" };
        format!("{count} source{s} ({}): a query leaves out {rows}", of.join("; "))
    }
}

/// Checks that there is one source for each row; `argument` is what gave the sources.
///
/// # Errors
/// Returns an error that names the argument.
pub(super) fn check_count(argument: &str, sources: &Labels, rows: &Embedded) -> Result<(), Failure> {
    if sources.len() == rows.labels.len() {
        return Ok(());
    }
    Err(anyhow!(
        "{argument}: found {} sources of the {} rows of {}, expected one for each row",
        sources.len(),
        rows.labels.len(),
        rows.origin.embeddings.file.display()
    )
    .into())
}
