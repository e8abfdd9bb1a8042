//! The command line: every flag with its help, in one place.

use crate::bench_arguments::BenchArguments;
use crate::runs_arguments::RunsCommand;
use clap::builder::{OsStringValueParser, PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use invaspread_runner::config::expand_home;
use invaspread_tensor::DeviceKind;
use std::ffi::OsString;
use std::path::PathBuf;

/// Train, measure and compare unsupervised embeddings; regenerate the tables and figures of "Unsupervised
/// Embedding Learning via Invariant and Spreading Instance Feature" (CVPR 2019).
#[derive(Debug, Parser)]
#[command(name = "invaspread", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "report")]
    /// Compare InvaSpread with a triplet loss and an untrained network on generated images; prints a table and draws
    /// curves and a picture, in minutes
    Demo(DemoArguments),
    /// Train one run, or several with --multirun, from config groups and key=value settings; suite=NAME does
    /// what `reproduce NAME` does
    Train(TrainArguments),
    #[cfg(feature = "report")]
    /// Run the suite of a table or figure of the paper and write its report
    Reproduce(ReproduceArguments),
    #[cfg(feature = "report")]
    /// Write the report of a suite again, from the runs that exist
    Report(ReportArguments),
    /// Write a page of a run: a map of its test images, the classes it takes for others, nearest neighbors, curves and settings
    #[cfg(feature = "report")]
    Look(LookArguments),
    /// Measure the weights of a file or of a run on the run's data set, or on a data set that you name
    Evaluate(EvaluateArguments),
    /// Embed any images with the weights of a file or of a run: a folder, a list of paths, WebDataset's tar shards, Parquet
    /// files of the Hugging Face hub, or a data set; if it is stopped or killed, the same command goes on
    Embed(EmbedArguments),
    /// Measure embeddings from any program: R@K, MAP@R, R-precision, NMI and AMI among themselves, or kNN and
    /// R@K in a gallery
    Measure(Box<MeasureArguments>),
    /// List, show, compare and export runs, finished or not
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Inspect, import and export files of weights
    #[command(subcommand)]
    Weights(WeightsCommand),
    /// Download, verify and list data sets
    #[command(subcommand)]
    Data(DataCommand),
    /// Show configs: every key and its value (`show`, with --origin also what set it), the groups and the
    /// methods
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Report what this machine offers, and check every op against a plain version of it
    Doctor(DoctorArguments),
    /// Measure the speed of a training step, an epoch, evaluation, augmentation, kNN or k-means on this
    /// machine
    Bench(BenchArguments),
    /// Do a part of what launcher=slurm submitted
    // The scripts of a launch call it; docs/cluster.md says how to call it by hand.
    #[command(subcommand, hide = true)]
    Slurm(SlurmCommand),
    /// Print the completion script of a shell
    Completions(CompletionsArguments),
}

/// Settings of every command that has a config.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Settings, such as dataset=cifar10 or optim.lr=0.01; `invaspread config show` lists all of them
    #[arg(value_name = "KEY=VALUE", value_parser = text())]
    pub(crate) overrides: Vec<String>,
    /// Short form of profile=NAME: paper, standard, quick, smoke, demo
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Short form of seed=LIST, such as 0,1,2
    #[arg(long, value_name = "LIST")]
    pub(crate) seeds: Option<String>,
    /// Short form of data.root=FOLDER
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) data_root: Option<PathBuf>,
    /// Short form of runs.root=FOLDER
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) runs: Option<PathBuf>,
}

/// The GPUs that a queue of runs is spread over.
#[derive(Debug, Clone, Args)]
pub(crate) struct Gpus {
    /// GPUs to spread the runs over, such as 0,1; with device=cuda all GPUs of this machine if not given
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) gpus: Option<Vec<usize>>,
    /// Do the runs on this device, for the process that started this one
    #[arg(long, value_name = "DEVICE", hide = true)]
    pub(crate) worker: Option<DeviceKind>,
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
    /// table1, figure3, ..., a file in ./experiments/suite, or `all` for every table and figure of the paper
    pub(crate) suite: String,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) gpus: Gpus,
    /// Folder of the report; results/SUITE if not given, and results for `all` (RUNS/SUITE-report for runs of
    /// profile smoke, and for reduced runs where results/SUITE has a report of full ones)
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
    /// table1, figure3, ..., a file in ./experiments/suite, or `all` for one page of every table and figure
    pub(crate) suite: String,
    /// Folder of runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Folder of the report; results/SUITE if not given, and results for `all` (RUNS/SUITE-report for runs of
    /// profile smoke, and for reduced runs where results/SUITE has a report of full ones)
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) out: Option<PathBuf>,
    /// Also write report.html, one page that needs nothing beside it: sortable tables, and charts to zoom and read; with
    /// `all`, also index.html
    #[arg(long)]
    pub(crate) html: bool,
    /// Print the table as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "report")]
#[derive(Debug, Args)]
pub(crate) struct LookArguments {
    /// The run: its folder, its name below the folder of runs, or the beginning of its id
    #[arg(value_parser = path())]
    pub(crate) run: PathBuf,
    /// Settings of the data set that are not those of the run, such as data.root=FOLDER
    #[arg(value_name = "KEY=VALUE", value_parser = text())]
    pub(crate) overrides: Vec<String>,
    /// Folder of the runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Folder of the page, look.html; the run's own if not given
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SlurmCommand {
    /// Do the run of one task
    Task {
        /// Folder of the launch
        #[arg(value_parser = path())]
        folder: PathBuf,
        /// Index of the task, to do it by hand; SLURM_ARRAY_TASK_ID if not given
        index: Option<usize>,
    },
    #[cfg(feature = "report")]
    /// Write the report of the suite
    Report {
        /// Folder of the launch
        #[arg(value_parser = path())]
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WeightsCommand {
    /// Print name, type and shape of every entry of a file: safetensors, PyTorch's formats, a Caffe model or
    /// HDF5; the content of the file decides, not its name
    Inspect {
        /// The file
        #[arg(value_parser = path())]
        file: PathBuf,
        /// Print the entries as JSON
        #[arg(long)]
        json: bool,
    },
    /// Import weights from other programs (torchvision's ResNets, timm's ViTs, BVLC GoogLeNet) and save them as
    /// .safetensors for the configured network
    Import(WeightsArguments),
    /// Save a run's checkpoint as a plain state dict that PyTorch loads with strict=True, or as an ONNX model
    Export(ExportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// Weights to read, or a run's folder for its last weights
    #[arg(value_parser = path())]
    pub(crate) file: PathBuf,
    /// The .safetensors file to write; an existing file is replaced only if this command wrote it
    // With --onnx, what stands here is the first of the settings.
    #[arg(required_unless_present = "onnx", value_parser = path())]
    pub(crate) out: Option<PathBuf>,
    /// Write an ONNX model instead, to this .onnx file: from normalized images (N, C, H, W) to the output that eval.layer names
    /// (the embedding if not given), with the preprocessing in its metadata
    #[arg(long, value_name = "FILE", value_parser = path(), conflicts_with = "half")]
    pub(crate) onnx: Option<PathBuf>,
    /// Write 16-bit numbers (f16): half the size, with three digits
    #[arg(long)]
    pub(crate) half: bool,
    /// Which network to take from a file with several: the name of its state dict or prefix (ema,
    /// module.encoder_k)
    #[arg(long, value_name = "NAME")]
    pub(crate) within: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct WeightsArguments {
    /// Weights to read
    #[arg(value_parser = path())]
    pub(crate) file: PathBuf,
    /// The .safetensors file to write; an existing file is replaced only if this command wrote it
    #[arg(value_parser = path())]
    pub(crate) out: PathBuf,
    /// Which network to take from a file with several: the name of its state dict or prefix (ema,
    /// module.encoder_k)
    #[arg(long, value_name = "NAME")]
    pub(crate) within: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArguments {
    /// Weights in any format that `weights import` takes, or a run's folder for its last weights; a
    /// checkpoint of a run is measured with the run's config
    #[arg(value_parser = path())]
    pub(crate) weights: PathBuf,
    /// Which network to take from a file with several: the name of its state dict or prefix (ema,
    /// module.encoder_k)
    #[arg(long, value_name = "NAME")]
    pub(crate) within: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Folder for the embeddings and labels: test.safetensors and, for the images that vote in kNN,
    /// train.safetensors
    #[arg(long, value_name = "FOLDER", value_parser = path())]
    pub(crate) embeddings: Option<PathBuf>,
    /// Measure by the protocol of another library: k, temperature, scaling and metrics (lightly, solo-learn and dino need a data
    /// set whose test classes are trained on; each is described with its source in the README). The layer is that of
    /// eval.layer; those libraries measure the pooled features
    #[arg(long = "as", value_name = "LIBRARY", value_enum)]
    pub(crate) peer: Option<Peer>,
    /// What is drawn again for the 95 % intervals: queries (would other images of these classes give the same?),
    /// classes (would other classes?), or none; queries where the test classes are trained on, else classes, if not given
    #[arg(long, value_name = "UNITS", value_enum)]
    pub(crate) intervals: Option<Redrawn>,
    /// Print the protocol beside the numbers: k, gallery, layer, resize, ties and so on; in JSON it always is
    #[arg(long)]
    pub(crate) card: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EmbedArguments {
    /// Weights in any format that `weights import` takes, or a run's folder for its last weights; a
    /// checkpoint of a run goes with the run's config
    #[arg(value_parser = path())]
    pub(crate) weights: PathBuf,
    /// A folder of images, with or without a folder for each class; a text file with a path in each line; shards
    /// (`shard-{000000..000004}.tar`); Parquet files, or a folder of either; or the name of a data set (`invaspread data list`)
    #[arg(value_parser = path())]
    pub(crate) images: PathBuf,
    /// The file to write: .npz, .npy, .safetensors or .parquet; no file of that name may exist
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(crate) out: PathBuf,
    /// Which images of a data set; its test images if not given
    #[arg(long, value_name = "SPLIT", value_enum)]
    pub(crate) split: Option<Split>,
    /// Which network to take from a file with several: the name of its state dict or prefix (ema,
    /// module.encoder_k)
    #[arg(long, value_name = "NAME")]
    pub(crate) within: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Split {
    Train,
    Test,
}

// Embeddings are read from files, so no data set and no run is looked for.
#[derive(Debug, Args)]
#[command(mut_arg("data_root", |flag| flag.hide(true)), mut_arg("runs", |flag| flag.hide(true)))]
pub(crate) struct MeasureArguments {
    /// Embeddings and labels: numpy's .npz (numpy.savez with embeddings= and labels=), .safetensors (also a
    /// run's), Parquet with a column of lists and one of labels, or .npy with --labels; the content of the file
    /// decides, not its name
    #[arg(value_parser = path())]
    pub(crate) test: PathBuf,
    /// The gallery: embeddings that are searched and that vote, for kNN, R@K and MAP@R. Without it each row
    /// is searched among the others, for R@K, MAP@R and NMI
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(crate) gallery: Option<PathBuf>,
    /// File of the labels, if they are in a file of their own: .npy, .npz, .safetensors, .parquet, or text with
    /// one label a line
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(crate) labels: Option<PathBuf>,
    /// File of the gallery's labels, in the same formats
    #[arg(long, value_name = "FILE", value_parser = path(), requires = "gallery")]
    pub(crate) gallery_labels: Option<PathBuf>,
    /// Name of the array of embeddings; not needed for embeddings, features, feats, embs, X and similar names
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// Name of the array of labels; not needed for labels, targets, y and similar names
    #[arg(long, value_name = "NAME")]
    pub(crate) label_key: Option<String>,
    /// Name of the gallery's array of embeddings; the same as --key if not given
    #[arg(long, value_name = "NAME", requires = "gallery")]
    pub(crate) gallery_key: Option<String>,
    /// Name of the gallery's array of labels; the same as --label-key if not given
    #[arg(long, value_name = "NAME", requires = "gallery")]
    pub(crate) gallery_label_key: Option<String>,
    /// Use the rows without scaling them to length 1: neighbors are then ranked by inner product instead of
    /// by angle, and the clusters of NMI and AMI use Euclidean distance. A gallery whose rows all have length
    /// 1, up to the rounding of f32, is still ranked by angle, because that rounding must not decide the
    /// order
    #[arg(long)]
    pub(crate) unscaled: bool,
    /// Other embeddings of the same rows in the same order, for the difference of each metric with its interval
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(crate) against: Option<PathBuf>,
    /// The gallery of the other embeddings
    #[arg(long, value_name = "FILE", value_parser = path(), requires = "against", requires = "gallery")]
    pub(crate) against_gallery: Option<PathBuf>,
    /// What is drawn again for the 95 % intervals: queries (would other images of these classes give the same?),
    /// classes (would other classes?), or none; queries with a gallery, else classes, if not given
    #[arg(long, value_name = "UNITS", value_enum)]
    pub(crate) intervals: Option<Redrawn>,
    /// What is measured, as a list with commas: `default` is knn (with a gallery), retrieval (R@K, MAP@R,
    /// R-precision) and nmi (with AMI; without a gallery). precision and cmc take the K of R@K; `all` is everything
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_value = "default")]
    pub(crate) metrics: Vec<MetricName>,
    /// Measure by the protocol of another library: k, temperature, scaling and metrics (lightly, solo-learn and dino need a
    /// gallery; each is described with its source in the README)
    #[arg(long = "as", value_name = "LIBRARY", value_enum, conflicts_with_all = ["metrics", "unscaled"])]
    pub(crate) peer: Option<Peer>,
    /// False match rates of the metric fnmr, as a list with commas; 1e-1,1e-2,1e-3,1e-4 if not given
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = rate)]
    pub(crate) fmr: Option<Vec<f64>>,
    /// The source of each row, such as its camera, video or product: a file in the formats of --labels, or the name of an
    /// array beside the embeddings. A query does not retrieve rows of its own class and source (see
    /// --same-source-leaves-out), and they do not vote
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) same_source: Option<String>,
    /// The source of each row of the gallery; the same NAME as --same-source if not given
    #[arg(long, value_name = "FILE|NAME", requires = "gallery", requires = "same_source")]
    pub(crate) gallery_same_source: Option<String>,
    /// Which rows of its source a query leaves out: those of its class, as in person re-identification (rows of other
    /// classes by the same camera stay), or all
    #[arg(long, value_name = "ROWS", value_enum, requires = "same_source", default_value = "class")]
    pub(crate) same_source_leaves_out: LeftOut,
    /// Write the metrics of each class, and the classes that it is confused with, to a .csv or .json file
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(crate) per_class: Option<PathBuf>,
    /// Print the protocol beside the numbers: k, gallery, scaling, ties, intervals and so on; in JSON it always is
    #[arg(long)]
    pub(crate) card: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The rows of its own source that a query leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeftOut {
    Class,
    All,
}

/// A library whose protocol is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Paper,
    Lightly,
    SoloLearn,
    Dino,
    PytorchMetricLearning,
}

/// Returns whether a number is a rate that can be asked for.
pub(crate) fn is_rate(number: f64) -> bool {
    number > 0.0 && number < 1.0
}

/// Parses a rate above 0 and below 1.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if is_rate(rate) => Ok(rate),
        _ => Err("expected a number above 0 and below 1, such as 1e-3".to_owned()),
    }
}

/// The metrics of `measure`, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricName {
    /// knn, retrieval and nmi
    Default,
    /// Everything
    All,
    /// Weighted kNN, which needs a gallery
    Knn,
    /// R@K, MAP@R and R-precision
    Retrieval,
    /// NMI and AMI of k-means, which need no gallery
    Nmi,
    /// Precision at K
    Precision,
    /// Mean reciprocal rank
    Mrr,
    /// Mean average precision over the full ranking
    Map,
    /// Identification rate at rank K: R@K of the queries that have something to find
    Cmc,
    /// False non-match rate at the false match rates of --fmr, over all pairs
    Fnmr,
    /// Skewness of how often rows are retrieved, and the share of rows that never are
    Hubness,
    /// Effective rank, RankMe, uniformity, alignment of classes and spread
    Shape,
}

/// What is drawn again for intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Redrawn {
    Queries,
    Classes,
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Download a data set, check it and unpack it; an interrupted download resumes
    Fetch {
        /// cifar10, stl10, cub200-2011, cars196 or products
        name: String,
        /// Folder of data sets; INVASPREAD_DATA or the platform's cache folder if not given
        #[arg(long, value_name = "FOLDER", value_parser = path())]
        root: Option<PathBuf>,
        /// Address of another server, without the file name
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Download from the Hugging Face hub (needs a build with --features hub)
        #[arg(long, conflicts_with = "mirror")]
        hub: bool,
        /// Print the outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a whole data set and compare its checksums
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
    /// List the data sets, and which of them are present
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
        /// Print each value with the file or argument that set it, and the meaning of the key
        #[arg(long)]
        origin: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the groups with their files, and the suites
    Groups,
    /// List the methods: the name in tables, the number of views of an image, and the keys with their
    /// defaults and meanings
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

/// Parses a path, in which a leading `~` is the home folder: a shell does not replace it in `--runs=~/x`.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| expand_home(&path))
}

/// Parses text: the settings of a run are stored as UTF-8.
fn text() -> impl TypedValueParser<Value = String> {
    #[allow(clippy::unnecessary_debug_formatting, reason = "its escapes show the bytes that are not text")]
    let text = |text: OsString| text.into_string().map_err(|text| format!("found {text:?}, expected UTF-8"));
    OsStringValueParser::new().try_map(text)
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// bash, zsh, fish, powershell or elvish
    pub(crate) shell: Shell,
}
