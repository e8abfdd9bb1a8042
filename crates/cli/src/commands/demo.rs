//! `invaspread demo`: three methods on generated images, then a table, curves and a picture of retrieved neighbours.

use super::launch::{announce, work};
use super::report::{Print, write};
use crate::arguments::DemoArguments;
use crate::failure::Failure;
use anyhow::{Context, anyhow};
use invaspread_data::{Dataset, Split};
use invaspread_metrics::{Rows, top_k};
use invaspread_report::gallery::{Gallery, Picture, Query, draw_gallery};
use invaspread_runner::config::Suite;
use invaspread_runner::launch::Planned;
use invaspread_runner::record::write_atomically;
use std::path::Path;

/// The row whose neighbours are drawn.
const SHOWN: &str = "invaspread";
/// Neighbours of a query.
const NEIGHBORS: usize = 6;

pub(crate) fn demo(arguments: &DemoArguments) -> Result<(), Failure> {
    let suite = Suite::open("demo")?;
    let plan = suite.plan(&arguments.settings.overrides()?)?;
    let root = plan[0].1.runs.root.clone();
    let planned: Vec<Planned> = plan.into_iter().map(|(run, _)| run).collect();
    eprintln!("{}", suite.title);
    announce(&planned, &root)?;
    work(&planned, &root)?;
    let out = root.join("demo-report");
    write(&suite, &root, &out, Print::Text)?;
    let shown = planned.iter().find(|run| run.labels.row == SHOWN).context("the demo has no row to draw")?;
    let path = out.join("neighbours.png");
    draw_neighbours(shown, &root, &path).context("failed to draw the retrieved neighbours")?;
    println!("{}", path.display());
    println!("open {} for the table, and the pictures beside it", out.join("report.md").display());
    Ok(())
}

/// One query of each class with its nearest training images, as the trained network sees them.
fn draw_neighbours(run: &Planned, root: &Path, path: &Path) -> anyhow::Result<()> {
    let dataset = invaspread_data::open(&run.data)?;
    let folder = run.layout(root).embeddings();
    let (gallery, dim) = embeddings(&folder.join("train.safetensors"))?;
    let (queries, _) = embeddings(&folder.join("test.safetensors"))?;
    let picked: Vec<usize> = (0..dataset.classes.len() as u32)
        .filter_map(|class| dataset.test.labels.iter().position(|label| *label == class))
        .collect();
    let rows: Vec<f32> =
        picked.iter().flat_map(|i| queries[i * dim..(i + 1) * dim].iter().copied()).collect();
    let found = top_k(Rows::new(&rows, dim), Rows::new(&gallery, dim), NEIGHBORS, false)?;
    let queries = picked
        .iter()
        .enumerate()
        .map(|(row, &index)| {
            let neighbors = (0..found.k)
                .map(|i| {
                    let at = row * found.k + i;
                    let neighbor = picture(&dataset, &dataset.train, found.indices[at] as usize)?;
                    Ok((neighbor, found.similarities[at]))
                })
                .collect::<anyhow::Result<_>>()?;
            Ok(Query { picture: picture(&dataset, &dataset.test, index)?, neighbors })
        })
        .collect::<anyhow::Result<_>>()?;
    let title = format!(
        "InvaSpread, epoch {}, {} images: a query of each class and its nearest training images",
        run.recipe.epochs, dataset.name
    );
    let png = draw_gallery(&Gallery { title, classes: dataset.classes.clone(), queries })?;
    write_atomically(path, &png).with_context(|| format!("failed to write {}", path.display()))
}

fn picture(dataset: &Dataset, split: &Split, index: usize) -> anyhow::Result<Picture> {
    let size = dataset.image_size;
    Ok(Picture { width: size, height: size, pixels: split.load(index)?.pixels, label: split.labels[index] })
}

/// A run's embeddings of one split, row by row, and their length.
fn embeddings(path: &Path) -> anyhow::Result<(Vec<f32>, usize)> {
    let tensors = invaspread_models::read_weights(path)?;
    let tensor = tensors.get("embeddings").ok_or_else(|| {
        anyhow!("{}: found no `embeddings`; delete the run's folder and run it again", path.display())
    })?;
    let (_, dim) = tensor.dims2()?;
    Ok((tensor.flatten_all()?.to_vec1()?, dim))
}
