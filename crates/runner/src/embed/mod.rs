//! Embeds any images with the network of a file of weights, and writes the embeddings with the names and classes of the images.
//!
//! Images come one after the other, go through the transform of evaluation, and are embedded in batches of a fixed number. After each
//! batch its rows are appended to a file beside the output (`part`), from which the same command goes on if it is killed. At the end the
//! output is written from it (`format`), whole or not at all. Batches begin at the same images whether or not the work was
//! interrupted, so that the output has the same bytes. At no time are more than a batch of images and rows in memory.
//!
//! Rows are those of the network's output, as it is: an embedding has length 1, pooled features and projections have not been scaled
//! (`measure` scales them).

mod error;
mod format;
mod part;

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use invaspread_augment::{Filter, Pipeline, Scratch, resize};
use invaspread_data::{DataError, ImageStream, Sample};
use invaspread_models::{HeadNeeded, LoadReport, Mode, Network, WeightsFile, load};
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::engine::{BATCH, EngineError, EvaluateError, Recipe, Stop, chosen, on_host};
use crate::methods::Layer;

pub use error::EmbedError;
pub use format::Format;
use part::{Batch, Part};

/// Images that are read ahead of the network and are decoded together.
const AHEAD: usize = 32;

/// What to embed, with what, and where to.
pub struct Request<'a> {
    /// The network, the transforms and the output to take.
    pub recipe: &'a Recipe,
    /// The weights.
    pub weights: &'a WeightsFile,
    /// The images.
    pub images: &'a ImageStream,
    /// The width and height in pixels to which every image is first resized, whatever its aspect ratio, and the filter; as the data set
    /// of the weights' run does.
    pub resize: Option<(usize, Filter)>,
    /// Whether to leave out and count images that cannot be read, instead of stopping at the first.
    pub skip_broken: bool,
    /// The file to write, of a known [`Format`].
    pub out: &'a Path,
    /// What the output says about itself beside its arrays. Another content begins the work anew.
    pub content: Value,
    /// The request to stop.
    pub stop: &'a Stop,
}

/// What happens while images are embedded.
#[derive(Debug)]
pub enum Event {
    /// The work of an earlier process goes on after so many images.
    Resumed {
        /// The images that were done.
        images: u64,
    },
    /// An image was left out, because it cannot be read.
    LeftOut(DataError),
    /// A batch was embedded.
    Progress {
        /// Images that are done, with those that were left out.
        done: u64,
        /// All images, if their number is known.
        all: Option<u64>,
        /// Images per second of this process.
        rate: f64,
        /// The time until the last image, if the number of images is known.
        left: Option<Duration>,
    },
}

/// A finished file of embeddings.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The files that were written, the embeddings first.
    pub files: Vec<PathBuf>,
    /// Rows of embeddings.
    pub rows: u64,
    /// Numbers of a row.
    pub length: usize,
    /// Images that were left out.
    pub left_out: u64,
    /// Rows with a class. Classes are written if all rows have one.
    pub labeled: u64,
    /// Which entries of the file of weights were loaded.
    pub loaded: LoadReport,
}

/// Embeds the images; `None` if it was stopped on request.
///
/// # Errors
/// If the weights do not fit the network; if an image cannot be read and is not to be left out, or a shard cannot be read on; if an
/// embedding is not finite; if the files beside the output belong to another request or another process; if the file system refuses.
pub fn embed(request: &Request<'_>, tell: &mut dyn FnMut(Event)) -> Result<Option<Embedded>, EmbedError> {
    let Request { recipe, weights, images, out, .. } = request;
    let format = Format::of(out).ok_or_else(|| EmbedError::Ending { path: out.to_path_buf() })?;
    let device = recipe.device.open().map_err(|source| EngineError::SetUp { what: "device", source })?;
    let network = Network::on(&device, recipe.network.clone(), recipe.seed)
        .map_err(|source| EngineError::SetUp { what: "network", source })?;
    let head = if recipe.layer == Layer::Pooled { HeadNeeded::No } else { HeadNeeded::Yes };
    let loaded = load(weights, &network, head).map_err(EvaluateError::from)?;
    let config = network.config();
    let length = if recipe.layer == Layer::Pooled { config.pooled() } else { config.embedding() };
    let identity = json!({
        "images": images.fingerprint()?,
        "network": config.to_string(),
        "precision": format!("{:?}", config.precision()),
        "device": if device.is_cpu() { "cpu" } else { "gpu" },
        "preprocessing": recipe.augment.evaluation_properties(),
        "resize": request.resize.map(|(side, filter)| format!("{side} {filter:?}")),
        "length": length,
        "content": request.content,
        "program": env!("CARGO_PKG_VERSION"),
    });
    let mut part = Part::open(out, identity, length)?;
    if part.summary().left_out > 0 && !request.skip_broken {
        return Err(EmbedError::LeftOut { path: part.path().to_path_buf(), images: part.summary().left_out });
    }
    if part.summary().read > 0 {
        tell(Event::Resumed { images: part.summary().read });
    }
    if !run(request, &network, &mut part, tell)? {
        return Ok(None);
    }
    let summary = part.summary().clone();
    if summary.rows == 0 {
        return Err(EmbedError::Nothing { images: images.description.clone(), left_out: summary.left_out });
    }
    let files = format.write(out, &part, &request.content)?;
    part.remove()?;
    let part::Summary { rows, left_out, labeled, .. } = summary;
    Ok(Some(Embedded { files, rows, length, left_out, labeled, loaded }))
}

/// Embeds all images after those in `part`. Returns false if it was stopped.
fn run(
    request: &Request<'_>,
    network: &Network,
    part: &mut Part,
    tell: &mut dyn FnMut(Event),
) -> Result<bool, EmbedError> {
    let pipeline = Pipeline::evaluate(&request.recipe.augment).map_err(EngineError::from)?;
    let all = request.images.count()?;
    let first = part.summary().read;
    let began = Instant::now();
    let (sender, receiver) = sync_channel::<Result<Sample, DataError>>(AHEAD);
    std::thread::scope(|scope| {
        // When the receiver is gone, a send fails, and the thread ends.
        scope.spawn(move || {
            if let Err(error) = request.images.each(first, &mut |sample| sender.send(Ok(sample)).is_ok()) {
                let _ = sender.send(Err(error));
            }
        });
        let mut samples = receiver.into_iter();
        loop {
            if request.stop.is_raised() {
                return Ok(false);
            }
            let batch = next_batch(request, &pipeline, network, &mut samples, tell)?;
            if batch.read == 0 {
                return Ok(true);
            }
            part.append(&batch)?;
            let done = part.summary().read;
            let rate = (done - first) as f64 / began.elapsed().as_secs_f64().max(1e-9);
            let left = all.map(|all| all.saturating_sub(done) as f64 / rate);
            let left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            tell(Event::Progress { done, all, rate, left });
        }
    })
}

/// Embeds the next [`BATCH`] images, or those that are left.
fn next_batch(
    request: &Request<'_>,
    pipeline: &Pipeline,
    network: &Network,
    samples: &mut impl Iterator<Item = Result<Sample, DataError>>,
    tell: &mut dyn FnMut(Event),
) -> Result<Batch, EmbedError> {
    let mut batch = Batch::default();
    let mut views = Vec::new();
    while batch.read < BATCH as u64 {
        let most = AHEAD.min(BATCH - batch.read as usize);
        let some = samples.by_ref().take(most).collect::<Result<Vec<_>, _>>()?;
        if some.is_empty() {
            break;
        }
        batch.read += some.len() as u64;
        let viewed: Vec<_> = some
            .into_par_iter()
            .map_init(Scratch::default, |scratch, sample| {
                let (name, label) = (sample.name.clone(), sample.label.clone());
                view(sample, request.resize, pipeline, scratch).map(|view| (name, label, view))
            })
            .collect();
        for viewed in viewed {
            match viewed {
                Ok((name, label, view)) => {
                    batch.names.push(name);
                    batch.labels.push(label);
                    views.extend(view);
                }
                Err(error) if request.skip_broken => {
                    batch.left_out += 1;
                    tell(Event::LeftOut(error));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    if !batch.names.is_empty() {
        let rows = forward(network, pipeline, views, batch.names.len(), request.recipe.layer)?;
        let length = rows.len() / batch.names.len();
        if let Some(place) = rows.iter().position(|value| !value.is_finite()) {
            let image = batch.names[place / length].clone();
            return Err(EmbedError::NotFinite { image, found: rows[place] });
        }
        batch.rows = rows;
    }
    Ok(batch)
}

/// Returns the view of an image that the network gets.
fn view(
    sample: Sample,
    first: Option<(usize, Filter)>,
    pipeline: &Pipeline,
    scratch: &mut Scratch,
) -> Result<Vec<f32>, DataError> {
    let mut image = sample.decode()?;
    if let Some((side, filter)) = first {
        image = resize(image.as_ref(), side, side, filter);
    }
    let mut view = vec![0.0; pipeline.view_len()];
    // The transform of evaluation draws nothing.
    let mut stream = Stream::new(0, Purpose::Augment, 0, 0);
    pipeline.apply(image.as_ref(), &mut stream, scratch, &mut view);
    Ok(view)
}

/// Returns output `layer` of the network for `count` views, row after row.
fn forward(
    network: &Network,
    pipeline: &Pipeline,
    views: Vec<f32>,
    count: usize,
    layer: Layer,
) -> Result<Vec<f32>, EngineError> {
    let failed = || EngineError::tensor("compute embeddings");
    let shape = (count, pipeline.size(), pipeline.size(), pipeline.channels());
    let x =
        Tensor::from_vec(views, shape, network.device()).and_then(|x| x.to_dtype(network.config().dtype()));
    let x = x.map_err(failed())?;
    // On a worker of the pool, like every evaluation.
    let forward = || network.forward(&x, Mode::Evaluate);
    let output = if network.device().is_cpu() { rayon::scope(|_| forward()) } else { forward() };
    let rows = output.and_then(|output| chosen(&output, layer)).map_err(failed())?;
    Ok(on_host(&[rows])?.values)
}
