//! The picture of retrieved neighbors, from the embeddings that runs store (Figure 4 of the paper).

use anyhow::Context;
use invaspread_data::{Dataset, Evaluation, Split};
use invaspread_metrics::{Rows, top_k};
use invaspread_report::gallery::{Gallery, Neighbors, Picture, Query, draw_gallery};
use invaspread_report::{dataset_label, row_label};
use invaspread_runner::config::GalleryFigure;
use invaspread_runner::embeddings::{self, Source};
use invaspread_runner::launch::Planned;
use invaspread_runner::methods::Features;
use invaspread_runner::record::{names, write_atomically};
use std::collections::BTreeSet;
use std::path::Path;

/// Draws `figure` into `path`: test images of classes that are spread evenly over all classes, and their
/// nearest neighbors in the embeddings of each named run among `runs`, with its first seed. All runs must
/// have the same data set.
pub(crate) fn draw_neighbors(
    figure: &GalleryFigure,
    runs: &[Planned],
    root: &Path,
    path: &Path,
) -> anyhow::Result<()> {
    let shown = figure
        .rows
        .iter()
        .map(|row| {
            let run = runs.iter().find(|run| run.labels.row == *row);
            run.with_context(|| format!("the suite's gallery names row {row}, which it does not have"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let first = shown.first().context("the suite's gallery names no row")?;
    let dataset = invaspread_data::open(&first.data)?;
    let asked = queries(&dataset, figure.queries);
    let mut queries: Vec<Query> = asked
        .iter()
        .map(|&index| Ok(Query { picture: picture(&dataset, &dataset.test, index)?, found: Vec::new() }))
        .collect::<anyhow::Result<_>>()?;
    for run in &shown {
        let found = neighbors(run, root, &dataset, &asked, figure.neighbors)?;
        queries.iter_mut().zip(found).for_each(|(query, found)| query.found.push(found));
    }
    let among = match dataset.evaluation {
        Evaluation::Neighbors => "training images",
        Evaluation::Retrieval => "other test images, all of classes never trained on",
    };
    let reduced = if first.labels.reduced { " (reduced)" } else { "" };
    let held_out = if first.labels.held_out { " to held-out training images" } else { "" };
    let gallery = Gallery {
        title: format!(
            "{}, profile {}{reduced}: nearest {among}{held_out}",
            dataset_label(&dataset.name),
            first.labels.profile
        ),
        networks: shown
            .iter()
            .map(|run| match run.labels.label.clone().unwrap_or_else(|| row_label(&run.labels.row)) {
                epoch if run.labels.row.starts_with("epoch_") => epoch,
                network => format!("{network}, {} epochs", run.recipe.epochs_trained()),
            })
            .collect(),
        classes: dataset.classes.clone(),
        queries,
    };
    write_atomically(path, &draw_gallery(&gallery)?)
        .with_context(|| format!("failed to write {}", path.display()))
}

/// Returns the first test image of each of `count` classes, which are spread evenly over the classes of the
/// test set.
fn queries(dataset: &Dataset, count: usize) -> Vec<usize> {
    let labels = &dataset.test.labels;
    let classes: Vec<u32> = labels.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let count = count.min(classes.len());
    (0..count)
        .map(|i| classes[i * classes.len() / count])
        .filter_map(|class| labels.iter().position(|label| *label == class))
        .collect()
}

/// Returns the nearest images of each of `asked` in the embeddings of `run`.
fn neighbors(
    run: &Planned,
    root: &Path,
    dataset: &Dataset,
    asked: &[usize],
    count: usize,
) -> anyhow::Result<Vec<Neighbors>> {
    let layout = run.layout(root);
    let embedded = |name| embeddings::read(&Source::of(&layout.file(name)));
    let Features { values: test, dim } = embedded(names::TEST_EMBEDDINGS)?.features;
    let rows: Vec<f32> = asked.iter().flat_map(|i| test[i * dim..(i + 1) * dim].iter().copied()).collect();
    let (gallery, split, itself) = match dataset.evaluation {
        Evaluation::Neighbors => {
            (embedded(names::GALLERY_EMBEDDINGS)?.features.values, dataset.gallery(), false)
        }
        Evaluation::Retrieval => (test, &dataset.test, true),
    };
    let found = top_k(Rows::new(&rows, dim), Rows::new(&gallery, dim), count + usize::from(itself), false)?;
    asked
        .iter()
        .enumerate()
        .map(|(row, &index)| {
            let (indices, similarities) = found.of(row);
            let others = indices.iter().zip(similarities).filter(|(i, _)| !itself || **i as usize != index);
            others.take(count).map(|(&i, &s)| Ok((picture(dataset, split, i as usize)?, s))).collect()
        })
        .collect()
}

fn picture(dataset: &Dataset, split: &Split, index: usize) -> anyhow::Result<Picture> {
    let size = dataset.image_size;
    Ok(Picture { width: size, height: size, pixels: split.load(index)?.pixels, label: split.labels[index] })
}
