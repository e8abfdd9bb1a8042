//! The command line, and nothing else: every flag with its help in one place.

use clap::builder::{OsStringValueParser, PathBufValueParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use invaspread_runner::bench::{
    AugmentBench, Compute, EpochBench, EvaluateBench, KMeansBench, KnnBench, TrainBench,
};
use invaspread_runner::config::expand_home;
use invaspread_tensor::{DeviceKind, Precision};
use std::ffi::OsString;
use std::path::PathBuf;

/// Train, measure and compare unsupervised embeddings; regenerate the tables and figures of "Unsupervised Embedding Learning via
/// Invariant and Spreading Instance Feature" (CVPR 2019).
#[derive(Debug, Parser)]
#[command(name = "invaspread", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "report")]
    /// InvaSpread against NCE and an untrained network on generated images: a table, curves and a picture, in minutes
    Demo(DemoArguments),
    /// Train one run, or several with --multirun, from config groups and key=value settings; suite=NAME is `reproduce NAME`
    Train(TrainArguments),
    #[cfg(feature = "report")]
    /// Run a table or figure of the paper and write its report
    Reproduce(ReproduceArguments),
    #[cfg(feature = "report")]
    /// Write a suite's report again from the runs that are there
    Report(ReportArguments),
    /// Measure a file of weights on its run's data set, or on the one that is named
    Evaluate(EvaluateArguments),
    /// Measure embeddings that anything made: R@K, MAP@R, R-precision, NMI and AMI among themselves, or kNN and R@K among a gallery
    Measure(MeasureArguments),
    /// Inspect, import and export files of weights
    #[command(subcommand)]
    Weights(WeightsCommand),
    /// Download, verify and list data sets
    #[command(subcommand)]
    Data(DataCommand),
    /// Show configs: every key, its value, and where it came from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say what this machine offers and check every op against its plain version
    Doctor(DoctorArguments),
    /// Measure how fast a training step, an epoch, evaluation, augmentation, kNN or k-means is on this machine
    Bench(BenchArguments),
    /// Print a shell's completion script
    Completions(CompletionsArguments),
}

/// Settings that every command with a config takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Settings, as dataset=cifar10 or optim.lr=0.01; `invaspread config show` lists them all
    #[arg(value_name = "KEY=VALUE", value_parser = text())]
    pub(crate) overrides: Vec<String>,
    /// Short for profile=NAME: paper, quick, smoke, demo
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Short for seed=LIST, as 0,1,2
    #[arg(long, value_name = "LIST")]
    pub(crate) seeds: Option<String>,
    /// Short for data.root=FOLDER
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) data_root: Option<PathBuf>,
    /// Short for runs.root=FOLDER
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) runs: Option<PathBuf>,
}

/// The GPUs that a queue of runs is spread over.
#[derive(Debug, Clone, Args)]
pub(crate) struct Gpus {
    /// GPUs to spread the runs over, as 0,1; with device=cuda all of this machine if not given
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) gpus: Option<Vec<usize>>,
    /// Do the runs on this GPU for the process that began this one
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) worker: Option<usize>,
}

#[cfg(feature = "report")]
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) gpus: Gpus,
    /// Run every combination of listed values (seed=0,1 method=nce,invaspread)
    #[arg(long)]
    pub(crate) multirun: bool,
    /// Only say what would be run and how long it takes
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the records as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "report")]
#[derive(Debug, Args)]
pub(crate) struct ReproduceArguments {
    /// table1, figure3, ..., a file of ./experiments/suite, or `all`: every table and figure of the paper
    pub(crate) suite: String,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) gpus: Gpus,
    /// Folder of the report; results/SUITE if not given (RUNS/SUITE-report for profile smoke; of `all`, results)
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) out: Option<PathBuf>,
    /// Only say what would be run and how long it takes
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the records as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "report")]
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// table1, figure3, ..., a file of ./experiments/suite, or `all`: one page of every table and figure
    pub(crate) suite: String,
    /// Folder of runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Folder of the report; results/SUITE if not given
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) out: Option<PathBuf>,
    /// Print the table as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WeightsCommand {
    /// Name, type and shape of every entry of a file: safetensors, PyTorch's, a Caffe model or HDF5, whatever it is called
    Inspect {
        /// The file
        #[arg(value_parser = path())]
        file: PathBuf,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take up weights trained elsewhere (torchvision's ResNets, BVLC GoogLeNet) and save them as .safetensors for this network
    Import(WeightsArguments),
    /// Save a run's checkpoint as a plain state dict that PyTorch loads with strict=True
    Export {
        #[command(flatten)]
        weights: WeightsArguments,
        /// Write numbers of 16 bits, f16: half the size, three digits
        #[arg(long)]
        half: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct WeightsArguments {
    /// Weights to read
    #[arg(value_parser = path())]
    pub(crate) file: PathBuf,
    /// The .safetensors file to write; of what exists only a file that this command wrote is replaced
    #[arg(value_parser = path())]
    pub(crate) out: PathBuf,
    /// Of a file that holds several networks, the one in this state dict or with this prefix (ema, module.encoder_k)
    #[arg(long, value_name = "NAME")]
    pub(crate) within: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArguments {
    /// Weights in any form that `weights import` takes; a run's own checkpoint brings its config along
    #[arg(value_parser = path())]
    pub(crate) weights: PathBuf,
    /// Of a file that holds several networks, the one in this state dict or with this prefix (ema, module.encoder_k)
    #[arg(long, value_name = "NAME")]
    pub(crate) within: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Folder for the embeddings and labels: test.safetensors and, of what votes in kNN, train.safetensors
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) embeddings: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MeasureArguments {
    /// Embeddings and labels: numpy's .npz (numpy.savez with embeddings= and labels=), .safetensors (a run's), or .npy and --labels; the
    /// content decides, not the name
    #[arg(value_parser = path())]
    pub(crate) test: PathBuf,
    /// Those that vote and are searched: kNN, R@K, MAP@R. Without it each row is asked among the others: R@K, MAP@R, NMI
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(crate) gallery: Option<PathBuf>,
    /// Labels in a file of their own: .npy, .npz, .safetensors, or text with one a line
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(crate) labels: Option<PathBuf>,
    /// Labels of the gallery, likewise
    #[arg(long, value_name = "FILE", value_parser = path(), requires = "gallery")]
    pub(crate) gallery_labels: Option<PathBuf>,
    /// Name of the array of embeddings; embeddings, features, feats, embs, X and their like are found without
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// Name of the array of labels; labels, targets, y and their like are found without
    #[arg(long, value_name = "NAME")]
    pub(crate) label_key: Option<String>,
    /// As --key, of the gallery; the same as --key if not given
    #[arg(long, value_name = "NAME", requires = "gallery")]
    pub(crate) gallery_key: Option<String>,
    /// As --label-key, of the gallery; the same as --label-key if not given
    #[arg(long, value_name = "NAME", requires = "gallery")]
    pub(crate) gallery_label_key: Option<String>,
    /// Take rows as they are, not scaled to length 1: neighbours are then ranked by inner product, not by angle, while the clusters of NMI
    /// and AMI are by Euclidean distance. A gallery whose rows all have length 1, but for the rounding of f32, is still ranked by angle: that
    /// rounding is no order
    #[arg(long)]
    pub(crate) unscaled: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Download a data set, check it and unpack it; a broken download is resumed
    Fetch {
        /// cifar10, stl10, cub200-2011, cars196 or products
        name: String,
        /// Folder of data sets; INVASPREAD_DATA or the platform's cache folder if not given
        #[arg(long, value_name = "FOLDER", value_parser = path())]
        root: Option<PathBuf>,
        /// Another server: the address without the file name
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// From the Hugging Face hub instead (needs a build with --features hub)
        #[arg(long, conflicts_with = "mirror")]
        hub: bool,
        /// Print the outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a data set whole and compare its checksums
    Verify {
        /// cifar10, stl10, cub200-2011, cub200-2010, cars196, cars196-half or products
        name: String,
        /// Folder of data sets; INVASPREAD_DATA or the platform's cache folder if not given
        #[arg(long, value_name = "FOLDER", value_parser = path())]
        root: Option<PathBuf>,
        /// Print the outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the data sets and which of them are there
    List {
        /// Folder of data sets; INVASPREAD_DATA or the platform's cache folder if not given
        #[arg(long, value_name = "FOLDER", value_parser = path())]
        root: Option<PathBuf>,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the resolved config as TOML, with the meaning of the chosen method's keys
    Show {
        #[command(flatten)]
        settings: Settings,
        /// Print each value with the file or argument that set it, and what the key means
        #[arg(long)]
        origin: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the groups and their files, and the suites
    Groups,
    /// List the methods: what tables call each, its views of an image, its keys with their defaults and meanings
    Methods {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// What to check beside the CPU: auto (the first GPU if there is one), cpu (nothing), cuda or cuda:N
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) device: DeviceKind,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
    /// Threads; one per core if not given
    #[arg(long, value_name = "N", global = true, value_parser = threads())]
    pub(crate) threads: Option<usize>,
    /// Print the figures as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "NAME", global = true, default_value = "cpu")]
    pub(crate) device: DeviceKind,
    /// What convolutions multiply in: f32, tf32 or bf16
    #[arg(long, value_name = "NAME", global = true, default_value = "f32")]
    pub(crate) precision: Precision,
}

impl BenchArguments {
    /// Where the workload is to run.
    pub(crate) fn compute(&self) -> Compute {
        Compute { device: self.device.resolve(), precision: self.precision }
    }
}

/// A path, in which a leading `~` is the home folder: the shell leaves it alone in `--runs=~/x`.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| expand_home(&path))
}

/// Text, which the settings of a run are kept as.
fn text() -> impl TypedValueParser<Value = String> {
    #[allow(clippy::unnecessary_debug_formatting, reason = "its escapes show the bytes that are no text")]
    let text = |text: OsString| text.into_string().map_err(|text| format!("found {text:?}, expected UTF-8"));
    OsStringValueParser::new().try_map(text)
}

/// A count of threads that a machine may have.
fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=4096)
}

/// A count that zero is no value of.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// A side that augmentation takes, in pixels.
fn side() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=8192)
}

/// A depth that there is a network of.
fn depth(text: &str) -> Result<usize, String> {
    match text {
        "18" => Ok(18),
        "34" => Ok(34),
        "50" => Ok(50),
        other => Err(format!("found {other}, expected 18, 34 or 50")),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// One InvaSpread training step: forward, loss, backward, SGD
    Train(TrainBenchArguments),
    /// Embedding images with the network in evaluation mode
    Evaluate(EvaluateBenchArguments),
    /// Making views with the paper's four transforms, on one core
    Augment(AugmentBenchArguments),
    /// Exact nearest neighbours of a test set in a training set
    Knn(KnnBenchArguments),
    /// Iterations of k-means
    Kmeans(KmeansBenchArguments),
    /// A training epoch from u8 images to updated weights
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
    /// Images of a batch; twice as many views pass through the network
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub(crate) batch: usize,
    /// Channels of the first stage
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub(crate) width: usize,
    /// Layers: 18, 34 or 50
    #[arg(long, value_name = "N", default_value = "18", value_parser = depth)]
    pub(crate) depth: usize,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one())]
    pub(crate) steps: usize,
    /// Steps before that
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) warmup: usize,
    /// Convolve directly, without Winograd
    #[arg(long)]
    pub(crate) no_winograd: bool,
}

impl TrainBenchArguments {
    pub(crate) fn on(&self, compute: Compute) -> TrainBench {
        let sizes = self;
        TrainBench {
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
    /// Images embedded
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one())]
    pub(crate) images: usize,
    /// Channels of the first stage
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub(crate) width: usize,
    /// Layers: 18, 34 or 50
    #[arg(long, value_name = "N", default_value = "18", value_parser = depth)]
    pub(crate) depth: usize,
    /// Times that are measured, after a short one that is not
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
    /// Views made in one repetition
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = at_least_one())]
    pub(crate) images: usize,
    /// Side of an image and of a view, in pixels
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = side())]
    pub(crate) size: usize,
    /// Times that are measured, after one that is not
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
    /// Rows searched
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = at_least_one())]
    pub(crate) train: usize,
    /// Rows that search
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one())]
    pub(crate) test: usize,
    /// Values of a row
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one())]
    pub(crate) dim: usize,
    /// Neighbours of each
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = at_least_one())]
    pub(crate) k: usize,
    /// Times that are measured, after one that is not
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
    /// Points
    #[arg(long, value_name = "N", default_value_t = 60_502, value_parser = at_least_one())]
    pub(crate) points: usize,
    /// Values of a point
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one())]
    pub(crate) dim: usize,
    /// Clusters
    #[arg(long, value_name = "N", default_value_t = 11_316, value_parser = at_least_one())]
    pub(crate) clusters: usize,
    /// Iterations
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one())]
    pub(crate) iterations: usize,
    /// Times that are measured
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
    /// Images of the epoch, of which whole batches are taken
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
    /// Epochs that are timed, after one that is not
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

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// bash, zsh, fish, powershell or elvish
    pub(crate) shell: Shell,
}
