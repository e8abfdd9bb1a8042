//! `look.html`: the page of one run.

use askama::Template;
use serde::Serialize;

use super::blocks::{self, Spans};
use super::chart::Chart;
use super::sprite::Sprite;
use super::theme::Shades;
use super::{SCRIPT, STYLE, curves, finished, similarity};
use crate::caption;
use crate::error::ReportError;
use crate::look::{Images, Look, Query, View};
use crate::palette;
use crate::quote::one_line;
use crate::table::Table;

const LOOK_STYLE: &str = include_str!("../../templates/look.css");
const LOOK_SCRIPT: &str = include_str!("../../templates/look.js");

/// The largest side of a thumbnail of the map and of the neighbors, pixels.
const TILE: (usize, usize) = (32, 64);
/// With more classes than this, the table of classes has their most frequent mistakes alone.
const MOST_CLASSES: usize = 20;
/// How many of them it has.
const MOST_MISTAKES: usize = 60;
/// Places on a map are whole numbers from 0 to this.
const WIDEST: f32 = 10_000.0;

/// A metric of the record.
struct Metric {
    label: String,
    last: String,
    best: String,
    epoch: String,
}

/// A cell of the table of classes: the images, and their share of the class for the shade.
struct Count {
    images: u32,
    share: String,
    is_right: bool,
}

/// A class with the classes that its images are taken for.
struct ClassRow {
    class: String,
    counts: Vec<Count>,
    right: String,
}

/// A pair of classes of which the first is taken for the second.
struct Mistake {
    class: String,
    taken_for: String,
    images: u32,
    share: String,
}

/// The place of a thumbnail in its sprite.
struct Tile {
    x: usize,
    y: usize,
}

/// An image of the neighbors.
struct Shown {
    tile: Option<Tile>,
    image: u32,
    class: String,
    similarity: String,
    is_right: bool,
}

/// A query with its neighbors.
struct ShownQuery {
    class: u32,
    name: String,
    taken_for: String,
    is_right: bool,
    tile: Option<Tile>,
    image: u32,
    found: Vec<Shown>,
}

/// What is seen of the images.
struct Seen<'a> {
    images: &'a Images,
    /// The data of the map for the script, as JSON without `<`.
    data: String,
    sprite: Option<Sprite>,
    near: Option<Sprite>,
    classes: Vec<(u32, String)>,
    rows: Vec<ClassRow>,
    heads: Vec<String>,
    mistakes: Vec<Mistake>,
    queries: Vec<ShownQuery>,
    right: usize,
    accuracy: String,
}

#[derive(Template)]
#[template(path = "look.html")]
struct Page<'a> {
    style: &'static str,
    script: &'static str,
    look_style: &'static str,
    look_script: &'static str,
    title: Spans,
    look: &'a Look,
    metrics: Vec<Metric>,
    recipe: String,
    charts: Vec<Chart>,
    similarities: Vec<Chart>,
    seen: Option<Seen<'a>>,
}

/// Returns the page of a run.
///
/// # Errors
/// If the table of the run cannot be made, or a thumbnail cannot be encoded.
pub(crate) fn look(look: &Look) -> Result<String, ReportError> {
    let name = look
        .run
        .as_ref()
        .map_or_else(|| look.name.clone(), |run| format!("{}, {}", run.row_label(), look.name));
    let mut page = Page {
        style: STYLE,
        script: SCRIPT,
        look_style: LOOK_STYLE,
        look_script: LOOK_SCRIPT,
        title: Spans(vec![blocks::Span { text: one_line(&name), ..blocks::Span::default() }]),
        look,
        metrics: Vec::new(),
        recipe: String::new(),
        charts: Vec::new(),
        similarities: Vec::new(),
        seen: look.images.as_ref().map(Seen::of).transpose()?,
    };
    if let Some(run) = &look.run {
        let runs = std::slice::from_ref(run);
        let table = Table::new(run.record.suite.as_str(), runs)?;
        let sections = table.sections(runs);
        let section = &sections[0];
        page.recipe = format!(
            "{}, {}: {}. Measured by {}.",
            caption::setting(section.setting),
            caption::data(section.setting),
            caption::recipe(&section.runs).0,
            caption::evaluation(&section.runs).0
        );
        page.charts.extend(curves::main(section, "curves".to_owned()));
        page.charts.extend(curves::rank(section, "rank".to_owned()));
        page.charts.extend(curves::training(section, "training"));
        for separation in &run.separations {
            let id = format!("similarity-{}", page.similarities.len());
            page.similarities.extend(similarity::charts(section, &separation.name, &id));
        }
        page.metrics = run
            .record
            .metrics
            .iter()
            .map(|(name, summary)| Metric {
                label: crate::names::metric_label(&crate::names::paper_metric(name)),
                last: format!("{:.2}", summary.last),
                best: format!("{:.2}", summary.best),
                epoch: summary.best_epoch.to_string(),
            })
            .collect();
    }
    finished(&page)
}

/// The map for the script.
#[derive(Serialize)]
struct Data<'a> {
    classes: Vec<String>,
    /// The colors of the classes in the light and the dark theme.
    colors: Vec<[String; 2]>,
    labels: Vec<u32>,
    predictions: Vec<u32>,
    numbers: &'a [u32],
    views: Vec<DataView<'a>>,
    /// The columns of the sprite; 0 without one.
    columns: usize,
}

#[derive(Serialize)]
struct DataView<'a> {
    name: &'a str,
    about: &'a str,
    /// x, y, x, y, ...
    places: Vec<u16>,
}

impl<'a> Seen<'a> {
    fn of(images: &'a Images) -> Result<Self, ReportError> {
        let sprite = Sprite::of(images.pictures.iter(), TILE.0)?;
        let of_queries = |query: &'a Query| {
            query.picture.iter().chain(query.found.iter().filter_map(|found| found.picture.as_ref()))
        };
        let pictures: Vec<_> = images.queries.iter().flat_map(of_queries).collect();
        let near = Sprite::of(pictures.into_iter(), TILE.1)?;
        let counts = images.confusion();
        let total = |class: usize| counts[class].iter().sum::<u32>();
        let present: Vec<usize> = (0..counts.len())
            .filter(|&class| total(class) > 0 || counts.iter().any(|row| row[class] > 0))
            .collect();
        let right = images
            .labels
            .iter()
            .zip(&images.predictions)
            .filter(|(label, predicted)| label == predicted)
            .count();
        let few = present.len() <= MOST_CLASSES;
        Ok(Self {
            data: data(images, counts.len(), sprite.as_ref()),
            classes: present
                .iter()
                .filter(|&&class| total(class) > 0)
                .map(|&class| (class as u32, images.class(class as u32)))
                .collect(),
            rows: if few { class_rows(images, &counts, &present) } else { Vec::new() },
            heads: present.iter().map(|&class| images.class(class as u32)).collect(),
            mistakes: if few { Vec::new() } else { mistakes(images, &counts) },
            queries: queries(images, near.as_ref()),
            accuracy: format!("{:.2}", 100.0 * right as f64 / images.labels.len().max(1) as f64),
            right,
            images,
            sprite,
            near,
        })
    }
}

/// Returns the data of the map as JSON that can stand in a script of HTML.
fn data(images: &Images, classes: usize, sprite: Option<&Sprite>) -> String {
    let of_shown = |all: &[u32]| images.shown.iter().map(|&image| all[image as usize]).collect();
    let data = Data {
        classes: (0..classes).map(|class| one_line(&images.class(class as u32))).collect(),
        colors: palette::of_classes(classes)
            .map(|color| {
                let Shades { light, dark } = Shades::of(color);
                [light, dark]
            })
            .collect(),
        labels: of_shown(&images.labels),
        predictions: of_shown(&images.predictions),
        numbers: &images.shown,
        views: images.views.iter().map(data_view).collect(),
        columns: sprite.map_or(0, |sprite| sprite.columns),
    };
    // Numbers and texts are always JSON. Only `<` can end a script.
    serde_json::to_string(&data).unwrap_or_else(|_| "null".to_owned()).replace('<', "\\u003c")
}

/// Returns a view with its places in a square, without a change of their proportions.
fn data_view(view: &View) -> DataView<'_> {
    let ends = |axis: usize| {
        let values = || view.places.iter().map(move |place| place[axis]);
        (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max))
    };
    let [across, up] = [ends(0), ends(1)];
    let range = (across.1 - across.0).max(up.1 - up.0);
    let scale = if range > 0.0 { WIDEST / range } else { 0.0 };
    let place = |value: f32, (low, high): (f32, f32)| {
        (WIDEST / 2.0 + (value - f32::midpoint(low, high)) * scale).round().clamp(0.0, WIDEST) as u16
    };
    // The second axis points up, and rows of a screen run down.
    let places =
        view.places.iter().flat_map(|&[x, y]| [place(x, across), WIDEST as u16 - place(y, up)]).collect();
    DataView { name: &view.name, about: &view.about, places }
}

fn class_rows(images: &Images, counts: &[Vec<u32>], present: &[usize]) -> Vec<ClassRow> {
    let row = |&class: &usize| {
        let total = counts[class].iter().sum::<u32>();
        let share = |images: u32| f64::from(images) / f64::from(total.max(1));
        (total > 0).then(|| ClassRow {
            class: images.class(class as u32),
            counts: present
                .iter()
                .map(|&other| Count {
                    images: counts[class][other],
                    share: format!("{:.3}", share(counts[class][other])),
                    is_right: class == other,
                })
                .collect(),
            right: format!("{:.1}", 100.0 * share(counts[class][class])),
        })
    };
    present.iter().filter_map(row).collect()
}

/// Returns the most frequent mistakes, then in the order of the classes.
fn mistakes(images: &Images, counts: &[Vec<u32>]) -> Vec<Mistake> {
    let mut pairs: Vec<(u32, usize, usize)> = Vec::new();
    for (class, row) in counts.iter().enumerate() {
        let wrong = row.iter().enumerate().filter(|&(other, &images)| other != class && images > 0);
        pairs.extend(wrong.map(|(other, &images)| (images, class, other)));
    }
    pairs.sort_by_key(|&(images, class, other)| (std::cmp::Reverse(images), class, other));
    pairs
        .into_iter()
        .take(MOST_MISTAKES)
        .map(|(count, class, other)| Mistake {
            class: images.class(class as u32),
            taken_for: images.class(other as u32),
            images: count,
            share: format!("{:.1}", 100.0 * f64::from(count) / f64::from(counts[class].iter().sum::<u32>())),
        })
        .collect()
}

/// Returns the queries; their pictures lie in `near` in the order in which they are met.
fn queries(images: &Images, near: Option<&Sprite>) -> Vec<ShownQuery> {
    let mut next = 0;
    let mut tile = |is_there: bool| {
        let columns = near.filter(|_| is_there)?.columns;
        next += 1;
        Some(Tile { x: (next - 1) % columns, y: (next - 1) / columns })
    };
    images
        .queries
        .iter()
        .map(|query| {
            let class = images.labels[query.image as usize];
            let predicted = images.predictions[query.image as usize];
            ShownQuery {
                class,
                name: images.class(class),
                taken_for: images.class(predicted),
                is_right: class == predicted,
                tile: tile(query.picture.is_some()),
                image: query.image,
                found: query
                    .found
                    .iter()
                    .map(|found| Shown {
                        tile: tile(found.picture.is_some()),
                        image: found.image,
                        class: images.class(found.label),
                        similarity: format!("{:.3}", found.similarity).replace('-', "−"),
                        is_right: found.label == class,
                    })
                    .collect(),
            }
        })
        .collect()
}
