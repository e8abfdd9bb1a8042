//! What a run's saved embeddings say of its test images: predictions, maps, and nearest neighbors.

use super::images::{config, is_own, is_same, open, picture};
use super::{named_file, said};
use crate::failure::Failure;
use crate::output::note;
use anyhow::{Context, anyhow};
use invaspread_data::{Dataset, Split};
use invaspread_metrics::{Neighbors, Rows, Tsne, WeightedKnn, Whitening, l2_normalize_rows, top_k};
use invaspread_report::Run;
use invaspread_report::look::{Found, Images, MOST_POINTS, Query, View};
use invaspread_runner::config::Config;
use invaspread_runner::embeddings::{self, Labels, Source};
use invaspread_runner::runs::FoundRun;

/// The most queries that are shown with their neighbors: wrong ones, and right ones.
const QUERIES: (usize, usize) = (90, 30);
/// The neighbors of each.
const NEIGHBORS: usize = 8;

/// Embeddings with the classes of their images.
struct Embedded {
    values: Vec<f32>,
    dim: usize,
    labels: Vec<u32>,
}

impl Embedded {
    fn rows(&self) -> Rows<'_> {
        Rows::new(&self.values, self.dim)
    }

    /// Returns some of the rows.
    fn some(&self, asked: &[u32]) -> Vec<f32> {
        let row = |&image: &u32| self.values[image as usize * self.dim..][..self.dim].iter().copied();
        asked.iter().flat_map(row).collect()
    }
}

/// Returns what is seen of the test images of `run`; `None`, with a note, without embeddings.
///
/// # Errors
/// Returns an error of usage if a setting is wrong, and another error if an image cannot be read or a metric cannot be
/// computed.
pub(super) fn of(
    run: &FoundRun,
    finished: Option<&Run>,
    overrides: &[String],
    notes: &mut Vec<String>,
) -> Result<Option<Images>, Failure> {
    let config = config(run, overrides)?;
    let Some(test) = read(run, false, notes) else { return Ok(None) };
    let dataset = match &config {
        Some(config) => open(config, notes)?.filter(|_| is_own(run, config, notes)),
        None => {
            notes.push(
                "The pictures of the images are missing: the run has no config, which names its data set."
                    .to_owned(),
            );
            None
        }
    };
    let gallery = if run.layout.file(named_file(true)).is_file() { read(run, true, notes) } else { None };
    if gallery.is_none() && finished.is_some_and(|run| run.record.metrics.contains_key("knn_top1")) {
        notes.push(format!(
            "The run was measured among its training images, whose embeddings ({}) are missing: predictions and neighbors are among \
             the other test images.",
            named_file(true)
        ));
    }
    let is_like = gallery.as_ref().is_none_or(|gallery| gallery.dim == test.dim);
    if !is_like {
        return Err(Failure::Failed(anyhow!(
            "failed to compare the embeddings of {}: those of test images have {} numbers and those of training images others; ask for \
             the run again, which makes them again",
            run.name,
            test.dim
        )));
    }
    let (predictions, predicted_by) = predicted(&test, gallery.as_ref(), config.as_ref())?;
    agrees(&predictions, &test.labels, finished, notes);
    let shown = spread_evenly(test.labels.len(), MOST_POINTS);
    let views = maps(&test, &shown, notes)?;
    let queries = queries(&test, gallery.as_ref(), &predictions)?;
    let mut images = Images {
        classes: dataset.as_ref().map_or_else(Vec::new, |dataset| dataset.classes.clone()),
        predicted_by,
        labels: test.labels,
        predictions,
        shown,
        views,
        pictures: Vec::new(),
        queries,
        among: if gallery.is_some() { "training images" } else { "other test images" }.to_owned(),
    };
    if let Some(dataset) = &dataset {
        add_pictures(&mut images, dataset, gallery.as_ref().map(|gallery| &gallery.labels[..]), notes)?;
    }
    Ok(Some(images))
}

/// Reads the embeddings of the test images or of the gallery; `None`, with a note, if they cannot be read.
fn read(run: &FoundRun, gallery: bool, notes: &mut Vec<String>) -> Option<Embedded> {
    let file = run.layout.file(named_file(gallery));
    let mut missing = |why: &str| {
        let what = if gallery { "neighbors among training images are" } else { "map and the neighbors are" };
        notes.push(format!("The {what} missing: {why}."));
        None
    };
    if !file.is_file() {
        return missing(&format!(
            "the run has no {} (records that are kept without their runs have none)",
            named_file(gallery)
        ));
    }
    let found = match embeddings::read(&Source::of(&file)) {
        Ok(found) => found,
        Err(error) => return missing(said(&error).trim_end_matches('.')),
    };
    let Labels::Numbers(numbers) = found.labels else {
        return missing(&format!("the classes in {} are words, expected numbers", file.display()));
    };
    // Each class has a line of its own in tables, so a number that is no count of classes must not pass.
    let limit = i128::from(u16::MAX);
    let labels: Option<Vec<u32>> =
        numbers.iter().map(|&number| (0..=limit).contains(&number).then_some(number as u32)).collect();
    let Some(labels) = labels else {
        return missing(&format!("{} has a class outside of 0 to {limit}", file.display()));
    };
    let mut values = found.features.values;
    l2_normalize_rows(&mut values, found.features.dim);
    Some(Embedded { values, dim: found.features.dim, labels })
}

/// Returns the predicted class of each test image, and how it is predicted: as the run was measured, by the votes of the
/// gallery, or, among test images alone, by the nearest one.
fn predicted(
    test: &Embedded,
    gallery: Option<&Embedded>,
    config: Option<&Config>,
) -> Result<(Vec<u32>, String), Failure> {
    let failed = "failed to predict the classes of the test images";
    let Some(gallery) = gallery else {
        let nearest = top_k(test.rows(), test.rows(), 1, true).context(failed)?;
        if nearest.k == 0 {
            return Err(Failure::Failed(anyhow!(
                "{failed}: there is one test image, and no other to compare it with"
            )));
        }
        let class = |image: usize| test.labels[nearest.of(image).0[0] as usize];
        return Ok((
            (0..test.labels.len()).map(class).collect(),
            "the class of the nearest other test image".to_owned(),
        ));
    };
    let mut knn = WeightedKnn::default();
    if let Some(config) = config {
        (knn.k, knn.temperature) = (config.eval.k, config.eval.temperature);
    }
    let classes = test.labels.iter().chain(&gallery.labels).max().map_or(1, |&class| class as usize + 1);
    let found =
        knn.evaluate(test.rows(), &test.labels, gallery.rows(), &gallery.labels, classes).context(failed)?;
    let how =
        format!("weighted kNN among the training images, k = {}, temperature {}", knn.k, knn.temperature);
    Ok((found.predictions, how))
}

/// Notes a difference between the predictions and the record, which are of the same embeddings.
fn agrees(predictions: &[u32], labels: &[u32], finished: Option<&Run>, notes: &mut Vec<String>) {
    let right = predictions.iter().zip(labels).filter(|(predicted, label)| predicted == label).count();
    let found = 100.0 * right as f64 / labels.len() as f64;
    let metrics = finished.map(|run| &run.record.metrics);
    let recorded = metrics.and_then(|metrics| metrics.get("knn_top1").or_else(|| metrics.get("recall_at_1")));
    if let Some(recorded) = recorded
        && (recorded.last - found).abs() > 0.05
    {
        notes.push(format!(
            "The predictions of this page are right for {found:.2} % of the images, and the run recorded {:.2} %: they were not made \
             in the same way, or the embeddings are not those of the last epoch.",
            recorded.last
        ));
    }
}

/// Returns at most `most` numbers below `count`, at equal distances.
fn spread_evenly(count: usize, most: usize) -> Vec<u32> {
    let shown = count.min(most);
    (0..shown).map(|place| (place * count / shown) as u32).collect()
}

/// Returns the maps of the shown images.
fn maps(test: &Embedded, shown: &[u32], notes: &mut Vec<String>) -> Result<Vec<View>, Failure> {
    let values = test.some(shown);
    let points = Rows::new(&values, test.dim);
    let pca = Whitening::fit(points, 2).context("failed to find the principal components")?;
    let mut start = pca.unscaled(points);
    if pca.components() == 1 {
        // Embeddings of one number lie on a line.
        start = start.into_iter().flat_map(|x| [x, 0.0]).collect();
    }
    let places = |values: &[f32]| values.chunks(2).map(|place| [place[0], place[1]]).collect();
    let shares: Vec<String> = pca.shares().iter().map(|share| format!("{:.1} %", 100.0 * share)).collect();
    let mut views = vec![View {
        name: "PCA".to_owned(),
        about: format!(
            "The two directions of most variance, which hold {} of it. Distances are those of the embeddings as far as these directions \
             show them; images that lie together here may be far apart along others.",
            shares.join(" and ")
        ),
        places: places(&start),
    }];
    let tsne = Tsne::default();
    note!("drawing the map of {} images", shown.len());
    match tsne.map(points, &start) {
        Ok(Some(map)) => views.push(View {
            name: "t-SNE".to_owned(),
            about: format!(
                "Barnes-Hut t-SNE, perplexity {}, {} steps from the places of PCA, on exact neighbors. Who is near whom can be trusted; \
                 sizes of groups and distances between them cannot.",
                tsne.perplexity, tsne.steps
            ),
            places: places(&map),
        }),
        Ok(None) => notes.push("There is no map by t-SNE: all embeddings are equal, or it is not finite.".to_owned()),
        Err(error) => notes.push(format!("There is no map by t-SNE: {error}.")),
    }
    Ok(views)
}

/// Returns test images with their nearest neighbors: wrong ones first, and of all classes in turn.
fn queries(test: &Embedded, gallery: Option<&Embedded>, predictions: &[u32]) -> Result<Vec<Query>, Failure> {
    let of = |is_right: bool| -> Vec<u32> {
        let all = 0..test.labels.len() as u32;
        all.filter(|&image| (test.labels[image as usize] == predictions[image as usize]) == is_right)
            .collect()
    };
    let mut asked = in_turn(&of(false), &test.labels, QUERIES.0);
    asked.extend(in_turn(&of(true), &test.labels, QUERIES.1));
    let rows = test.some(&asked);
    let among = gallery.unwrap_or(test);
    // Among test images, a query finds itself first, or an image equal to it.
    let found: Neighbors =
        top_k(Rows::new(&rows, test.dim), among.rows(), NEIGHBORS + usize::from(gallery.is_none()), false)
            .context("failed to find the nearest neighbors")?;
    let query = |(place, &image): (usize, &u32)| {
        let (indices, similarities) = found.of(place);
        let others =
            indices.iter().zip(similarities).filter(|(index, _)| gallery.is_some() || **index != image);
        let found = others.take(NEIGHBORS).map(|(&image, &similarity)| Found {
            image,
            label: among.labels[image as usize],
            similarity,
            picture: None,
        });
        Query { image, picture: None, found: found.collect() }
    };
    Ok(asked.iter().enumerate().map(query).collect())
}

/// Returns at most `most` of `images`: the first of each class, then the second, and so on.
fn in_turn(images: &[u32], labels: &[u32], most: usize) -> Vec<u32> {
    let classes = labels.iter().max().map_or(0, |&class| class as usize + 1);
    let mut seen = vec![0; classes];
    let mut placed: Vec<(usize, u32, u32)> = images
        .iter()
        .map(|&image| {
            let class = labels[image as usize];
            seen[class as usize] += 1;
            (seen[class as usize], class, image)
        })
        .collect();
    placed.sort_unstable();
    placed.into_iter().take(most).map(|(.., image)| image).collect()
}

/// Adds the pictures of a data set, if its images are those that the embeddings are of.
fn add_pictures(
    images: &mut Images,
    dataset: &Dataset,
    gallery: Option<&[u32]>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    if !is_same(&dataset.test, &images.labels, "test images", notes) {
        return Ok(());
    }
    let among: Option<&Split> = match gallery {
        Some(labels) => {
            is_same(dataset.gallery(), labels, "training images", notes).then(|| dataset.gallery())
        }
        None => Some(&dataset.test),
    };
    for &image in &images.shown {
        images.pictures.push(picture(&dataset.test, image as usize)?);
    }
    for query in &mut images.queries {
        query.picture = Some(picture(&dataset.test, query.image as usize)?);
        if let Some(among) = among {
            for found in &mut query.found {
                found.picture = Some(picture(among, found.image as usize)?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{in_turn, spread_evenly};

    #[test]
    fn shown_images_are_spread_over_the_set() {
        assert_eq!(spread_evenly(3, 10), [0, 1, 2]);
        assert_eq!(spread_evenly(10, 4), [0, 2, 5, 7]);
        assert_eq!(spread_evenly(0, 4), [0; 0]);
    }

    #[test]
    fn classes_take_turns() {
        let labels = [0, 0, 0, 1, 2, 1];
        assert_eq!(in_turn(&[0, 1, 2, 3, 4, 5], &labels, 5), [0, 3, 4, 1, 5]);
        assert_eq!(in_turn(&[1, 2], &labels, 5), [1, 2]);
        assert_eq!(in_turn(&[], &labels, 5), [0; 0]);
    }
}
