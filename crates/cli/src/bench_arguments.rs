//! The command line of `invaspread bench`: each workload with its sizes.

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use invaspread_runner::bench::{
    AugmentBench, Compute, EpochBench, EvaluateBench, KMeansBench, KnnBench, PEAK_SIDE, TrainBench,
};
use invaspread_runner::methods::{Entry, Registry};
use invaspread_tensor::{DeviceKind, Precision};

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
    /// Number of threads; one for each core if not given
    #[arg(long, value_name = "N", global = true, value_parser = threads())]
    pub(crate) threads: Option<usize>,
    /// Print the figures as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "NAME", global = true, default_value = "cpu")]
    pub(crate) device: DeviceKind,
    /// Precision of activations and products: f32, tf32 (on a GPU) or bf16
    #[arg(long, value_name = "NAME", global = true, default_value = "f32")]
    pub(crate) precision: Precision,
    /// Rows and columns of the matrices whose product measures the peak rate of a GPU; with small ones the
    /// rate is found sooner, but it is too low
    #[arg(long, value_name = "N", global = true, default_value_t = PEAK_SIDE, value_parser = peak_side())]
    pub(crate) peak_side: usize,
}

impl BenchArguments {
    /// Returns the device and precision of the workload.
    pub(crate) fn compute(&self) -> Compute {
        Compute { device: self.device.resolve(), precision: self.precision, peak_side: self.peak_side }
    }
}

/// Parses a number of threads, from 1 to 4096.
fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=4096)
}

/// Parses the side of a matrix. The bytes of the largest are few for a GPU on which such a product is fast.
fn peak_side() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=16_384)
}

/// Parses a count of at least 1.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Parses the side of an image, in pixels, in the range that augmentation allows.
fn side() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=8192)
}

/// Parses a ResNet depth: 18, 34 or 50.
fn depth(text: &str) -> Result<usize, String> {
    match text {
        "18" => Ok(18),
        "34" => Ok(34),
        "50" => Ok(50),
        other => Err(format!("found {other}, expected 18, 34 or 50")),
    }
}

/// Parses the name of a method that trains, and whose step needs its batch alone.
fn method(text: &str) -> Result<&'static str, String> {
    let registry = Registry::installed();
    let is_timed = |entry: &&Entry| {
        let method = entry.default_method();
        method.trains() && !method.needs_features()
    };
    let trained = || registry.entries().iter().filter(is_timed);
    let name = registry.name_of(text).unwrap_or(text);
    trained().map(Entry::name).find(|&known| known == name).ok_or_else(|| {
        let names: Vec<&str> = trained().map(Entry::name).collect();
        format!("found {text}, expected one of {}", names.join(", "))
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time a training step of a method: forward, loss, backward, SGD
    Train(TrainBenchArguments),
    /// Time the embedding of images by a network in evaluation mode
    Evaluate(EvaluateBenchArguments),
    /// Time the making of views with the paper's four transforms, on one core
    Augment(AugmentBenchArguments),
    /// Time the exact search of the nearest neighbors of a test set in a training set
    Knn(KnnBenchArguments),
    /// Time iterations of k-means
    Kmeans(KmeansBenchArguments),
    /// Time a training epoch, from u8 images to updated weights
    Epoch(EpochBenchArguments),
}

impl BenchCommand {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Train(_) => "train",
            Self::Evaluate(_) => "evaluate",
            Self::Augment(_) => "augment",
            Self::Knn(_) => "knn",
            Self::Kmeans(_) => "kmeans",
            Self::Epoch(_) => "epoch",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TrainBenchArguments {
    /// Method, with the settings of its recipe: invaspread, ntxent (SimCLR), byol, moco_v2, ...
    #[arg(long, value_name = "NAME", default_value = TrainBench::PAPERS_METHOD, value_parser = method)]
    pub(crate) method: &'static str,
    /// Images of a batch; most methods pass two views of each through the network
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub(crate) batch: usize,
    /// Channels of the first stage
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub(crate) width: usize,
    /// Layers: 18, 34 or 50
    #[arg(long, value_name = "N", default_value = "18", value_parser = depth)]
    pub(crate) depth: usize,
    /// Number of timed steps
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one())]
    pub(crate) steps: usize,
    /// Number of warm-up steps, which are not timed
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) warmup: usize,
    /// Compute convolutions directly, without Winograd's algorithm
    #[arg(long)]
    pub(crate) no_winograd: bool,
}

impl TrainBenchArguments {
    pub(crate) fn on(&self, compute: Compute) -> TrainBench {
        let sizes = self;
        TrainBench {
            method: sizes.method,
            compute,
            batch: sizes.batch,
            width: sizes.width,
            depth: sizes.depth,
            steps: sizes.steps,
            warmup: sizes.warmup,
            winograd: !sizes.no_winograd,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateBenchArguments {
    /// Number of images to embed
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one())]
    pub(crate) images: usize,
    /// Channels of the first stage
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub(crate) width: usize,
    /// Layers: 18, 34 or 50
    #[arg(long, value_name = "N", default_value = "18", value_parser = depth)]
    pub(crate) depth: usize,
    /// Number of timed repetitions, after a short one that is not timed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    pub(crate) repeats: usize,
}

impl EvaluateBenchArguments {
    pub(crate) fn on(&self, compute: Compute) -> EvaluateBench {
        let sizes = self;
        EvaluateBench {
            compute,
            images: sizes.images,
            width: sizes.width,
            depth: sizes.depth,
            repeats: sizes.repeats,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AugmentBenchArguments {
    /// Number of views in a repetition
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = at_least_one())]
    pub(crate) images: usize,
    /// Side of an image and of a view, in pixels
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = side())]
    pub(crate) size: usize,
    /// Number of timed repetitions, after one that is not timed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    pub(crate) repeats: usize,
}

impl AugmentBenchArguments {
    pub(crate) fn on(&self, compute: Compute) -> AugmentBench {
        AugmentBench { images: self.images, size: self.size, repeats: self.repeats, compute }
    }
}

#[derive(Debug, Args)]
pub(crate) struct KnnBenchArguments {
    /// Number of rows that are searched
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = at_least_one())]
    pub(crate) train: usize,
    /// Number of query rows
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one())]
    pub(crate) test: usize,
    /// Length of a row
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one())]
    pub(crate) dim: usize,
    /// Number of neighbors of each row
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = at_least_one())]
    pub(crate) k: usize,
    /// Number of timed repetitions, after one that is not timed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    pub(crate) repeats: usize,
}

impl KnnBenchArguments {
    pub(crate) fn on(&self, compute: Compute) -> KnnBench {
        let sizes = self;
        KnnBench {
            compute,
            train: sizes.train,
            test: sizes.test,
            dim: sizes.dim,
            k: sizes.k,
            repeats: sizes.repeats,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct KmeansBenchArguments {
    /// Number of points
    #[arg(long, value_name = "N", default_value_t = 60_502, value_parser = at_least_one())]
    pub(crate) points: usize,
    /// Number of values of a point
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one())]
    pub(crate) dim: usize,
    /// Number of clusters
    #[arg(long, value_name = "N", default_value_t = 11_316, value_parser = at_least_one())]
    pub(crate) clusters: usize,
    /// Most iterations
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one())]
    pub(crate) iterations: usize,
    /// Number of timed repetitions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    pub(crate) repeats: usize,
}

impl KmeansBenchArguments {
    pub(crate) fn on(&self, compute: Compute) -> KMeansBench {
        let sizes = self;
        KMeansBench {
            compute,
            points: sizes.points,
            dim: sizes.dim,
            clusters: sizes.clusters,
            iterations: sizes.iterations,
            repeats: sizes.repeats,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct EpochBenchArguments {
    /// Number of images in the epoch, of which whole batches are used
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one())]
    pub(crate) images: usize,
    /// Images of a batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub(crate) batch: usize,
    /// Channels of the first stage
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one())]
    pub(crate) width: usize,
    /// Layers: 18, 34 or 50
    #[arg(long, value_name = "N", default_value = "18", value_parser = depth)]
    pub(crate) depth: usize,
    /// Number of timed epochs, after one that is not timed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    pub(crate) repeats: usize,
}

impl EpochBenchArguments {
    pub(crate) fn on(&self, compute: Compute) -> EpochBench {
        let sizes = self;
        EpochBench {
            compute,
            images: sizes.images,
            batch: sizes.batch,
            width: sizes.width,
            depth: sizes.depth,
            repeats: sizes.repeats,
        }
    }
}
