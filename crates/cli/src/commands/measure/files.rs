//! The files that the command line names. An error names the flag that helps.

use super::prepared::Inputs;
use super::sources::{Given, check_count};
use crate::arguments::MeasureArguments;
use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_runner::embeddings::{self, Embedded, EmbeddingsError, Role, Scaling, Source, read_sources};
use std::path::Path;

/// The flags that name the arrays of one file.
struct Flags {
    name: &'static str,
    label_name: &'static str,
    labels: &'static str,
}

const TEST_FLAGS: Flags = Flags { name: "--key", label_name: "--label-key", labels: "--labels" };
const GALLERY_FLAGS: Flags =
    Flags { name: "--gallery-key", label_name: "--gallery-label-key", labels: "--gallery-labels" };

/// Reads all rows, with their labels and sources.
///
/// # Errors
/// Returns an error if a file cannot be read, or does not hold what its flag says.
pub(super) fn read(arguments: &MeasureArguments, scaling: Scaling) -> Result<Inputs, Failure> {
    let test_source = test_source(arguments, scaling);
    let gallery_source = gallery_source(arguments, scaling);
    let test = read_rows(&test_source, &TEST_FLAGS)?;
    let gallery = gallery_source.map(|source| read_rows(&source, &GALLERY_FLAGS)).transpose()?;
    let sources = read_all_sources(arguments, &test, gallery.as_ref())?;
    // Names of arrays and files of labels are those of the rows, whatever embeds them.
    let against = arguments
        .against
        .as_deref()
        .map(|file| read_rows(&Source { file, ..test_source }, &TEST_FLAGS))
        .transpose()?;
    let of_gallery = arguments.against_gallery.as_deref().zip(gallery_source);
    let against_gallery =
        of_gallery.map(|(file, source)| read_rows(&Source { file, ..source }, &GALLERY_FLAGS)).transpose()?;
    Ok(Inputs { test, gallery, sources, against, against_gallery })
}

fn test_source(arguments: &MeasureArguments, scaling: Scaling) -> Source<'_> {
    Source {
        file: &arguments.test,
        name: arguments.key.as_deref(),
        labels: arguments.labels.as_deref(),
        label_name: arguments.label_key.as_deref(),
        scaling,
    }
}

fn gallery_source(arguments: &MeasureArguments, scaling: Scaling) -> Option<Source<'_>> {
    Some(Source {
        file: arguments.gallery.as_deref()?,
        name: arguments.gallery_key.as_deref().or(arguments.key.as_deref()),
        labels: arguments.gallery_labels.as_deref(),
        label_name: arguments.gallery_label_key.as_deref().or(arguments.label_key.as_deref()),
        scaling,
    })
}

/// Reads one file of embeddings and labels.
fn read_rows(source: &Source, flags: &Flags) -> Result<Embedded, Failure> {
    embeddings::read(source).map_err(|error| {
        let Flags { name, label_name, labels } = flags;
        let advice = match &error {
            EmbeddingsError::Missing { there, .. }
                if there.iter().any(|array| array.contains(".weight\"")) =>
            {
                "; these are weights of a network, which `invaspread evaluate FILE` measures".to_owned()
            }
            EmbeddingsError::Missing { role: Role::Embeddings, .. }
            | EmbeddingsError::Ambiguous { role: Role::Embeddings, .. } => {
                format!("; {name} NAME says which array they are")
            }
            EmbeddingsError::Missing { role: Role::Labels, .. } => format!(
                "; {label_name} NAME says which array they are, and {labels} FILE names another file that holds them"
            ),
            EmbeddingsError::Ambiguous { role: Role::Labels, .. } => {
                format!("; {label_name} NAME says which array they are")
            }
            EmbeddingsError::NoLabels { .. } => format!(" ({labels} FILE)"),
            _ => String::new(),
        };
        anyhow!("failed to read the embeddings: {error}{advice}").into()
    })
}

/// Reads the sources of the measured rows and of the gallery's, if sources are named.
fn read_all_sources(
    arguments: &MeasureArguments,
    test: &Embedded,
    gallery: Option<&Embedded>,
) -> Result<Option<(Given, Option<Given>)>, Failure> {
    let Some(given) = &arguments.same_source else { return Ok(None) };
    let of_test = read_row_sources(test, given, "--same-source")?;
    let Some(gallery) = gallery else { return Ok(Some((of_test, None))) };
    let given = match &arguments.gallery_same_source {
        Some(given) => given,
        None if Path::new(given).is_file() => {
            return Err(Failure::Usage(anyhow!(
                "--same-source {given} is the file of the measured rows: expected --gallery-same-source FILE beside it, the sources of \
                 the gallery's rows"
            )));
        }
        None => given,
    };
    let of_gallery = read_row_sources(gallery, given, "--gallery-same-source")?;
    Ok(Some((of_test, Some(of_gallery))))
}

fn read_row_sources(rows: &Embedded, given: &str, flag: &str) -> Result<Given, Failure> {
    let (labels, origin) = read_sources(&rows.origin.embeddings.file, given)
        .map_err(|error| anyhow!("failed to read the sources: {error} ({flag} FILE|NAME)"))?;
    check_count(&format!("{flag} {given}"), &labels, rows)?;
    Ok((labels, origin))
}
