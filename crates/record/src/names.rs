//! The name of each file of a run, as a path in the run's folder with `/` on every system.

/// The resolved config.
pub const CONFIG: &str = "config.toml";
/// The command that asked for the run.
pub const REQUEST: &str = "request.json";
/// The program and the machine.
pub const ENVIRONMENT: &str = "env.json";
/// The status: how far the run is.
pub const STATUS: &str = "status.json";
/// The log: what happened and when, one JSON object in each line.
pub const LOG: &str = "log.jsonl";
/// Every measurement.
pub const METRICS: &str = "metrics.parquet";
/// Histograms of similarity after the last epoch.
pub const SIMILARITY: &str = "similarity.json";
/// The result of a finished run.
pub const RECORD: &str = "record.json";
/// Length, time and digest of each file of a finished run.
pub const FILES: &str = "files.json";
/// The list of the training and test images, if the name of the data set does not determine them.
pub const IMAGES: &str = "images.txt";
/// The beginning of the names of claims on the run and of their work folders.
pub const LEASE: &str = "lease-";
/// The folder of the `TensorBoard` event files.
pub const TENSORBOARD: &str = "tb";
/// The folder of the checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// Everything that a resumed run needs, as of the last checkpoint.
pub const LAST_STATE: &str = "checkpoints/last.state.safetensors";
/// The weights of the last epoch.
pub const LAST_WEIGHTS: &str = "checkpoints/last.safetensors";
/// The weights of the best epoch.
pub const BEST_WEIGHTS: &str = "checkpoints/best.safetensors";
/// The folder of the embeddings.
pub const EMBEDDINGS: &str = "embeddings";
/// The embeddings of the images among which neighbors are searched.
pub const GALLERY_EMBEDDINGS: &str = "embeddings/train.safetensors";
/// The embeddings of the test images.
pub const TEST_EMBEDDINGS: &str = "embeddings/test.safetensors";

/// Returns whether the file `name` is part of the run's result: without it, the run counts as lost.
pub fn is_result(name: &str) -> bool {
    [RECORD, METRICS, SIMILARITY, GALLERY_EMBEDDINGS, TEST_EMBEDDINGS].contains(&name)
}
