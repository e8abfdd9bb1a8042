//! The run that a file of weights belongs to, and the config with which it is measured or exported. A config
//! or a data set that nobody named is never assumed silently.

use crate::failure::Failure;
use anyhow::{Context, anyhow};
use invaspread_models::WeightsFile;
use invaspread_runner::config::{Config, GroupFile, Override, Resolved, resolve_over};
use invaspread_runner::record::Layout;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The setting that every command that takes a file of weights adds to the typed ones.
const NOT_TYPED: &str = "model.pretrained=false";

/// A config and its origin.
pub(super) struct Origin {
    pub(super) config: Config,
    /// The run's own config, if the file belongs to a run.
    pub(super) file: Option<PathBuf>,
    /// The run that the file itself names.
    pub(super) run: Option<String>,
    /// The settings on the command line, as typed.
    pub(super) arguments: Vec<String>,
    /// The output of the network that the file says to measure, if no config and no setting says it.
    layer: Option<String>,
    /// Whether the name of the data set is only the built-in default.
    data_by_default: bool,
}

impl Origin {
    /// Returns the config of the run that `weights` belongs to, with the typed settings over it.
    pub(super) fn of(weights: &WeightsFile, overrides: &[Override]) -> Result<Self, Failure> {
        let run = run_of(weights);
        let folder = match run_folder(weights, run.as_deref())? {
            Some(folder) => Some(folder),
            None => match &run {
                Some(run) => elsewhere(run, overrides)?,
                None => None,
            },
        };
        let file = folder.map(|folder| Layout::of(folder).config());
        let (group, seed, layer) = match &file {
            Some(file) => {
                let (group, seed) = read(file, run.as_deref())?;
                (Some(group), seed, None)
            }
            None => {
                let layer = layer_of(weights).filter(|_| overrides.iter().all(|o| o.key != "eval.layer"));
                (None, None, layer)
            }
        };
        let seed = seed.map(|seed| format!("seed={seed}"));
        let layer_set = layer.as_ref().map(|layer| format!("eval.layer={layer}"));
        let of_file = seed.iter().chain(&layer_set).map(|set| Override::parse(set));
        let all = of_file.chain(overrides.iter().cloned().map(Ok)).collect::<Result<Vec<_>, _>>()?;
        let Resolved { config, origins } = match (resolve_over(group, &all), &file) {
            (Err(error), Some(file)) if error.to_string().contains(&file.display().to_string()) => {
                return Err(Failure::Failed(anyhow!(
                    "the config of the run is damaged: {error}; ask for the run again with the arguments it was \
                     begun with, which writes the file again, or put an intact copy there"
                )));
            }
            (resolved, _) => resolved?,
        };
        let data = origins.iter().find(|origin| origin.key == "data.name");
        let asked = overrides.iter().any(|o| o.key == "dataset" || o.key == "data.name");
        let data_by_default = !asked
            && data.is_none_or(|data| data.origin.ends_with("(built in)") || data.origin.contains("default"));
        let arguments = overrides.iter().map(Override::argument).filter(|typed| typed != NOT_TYPED).collect();
        Ok(Self { config, file, run, arguments, layer, data_by_default })
    }

    /// Refuses to guess the network of a run whose config was not found, unless the user named one.
    pub(super) fn require_network(&self, weights: &Path, overrides: &[Override]) -> Result<(), Failure> {
        let of_network = |o: &Override| o.key == "model" || o.key.starts_with("model.");
        let asked = overrides.iter().any(|o| of_network(o) && o.argument() != NOT_TYPED);
        match &self.run {
            Some(run) if self.file.is_none() && !asked => Err(Failure::Usage(anyhow!(
                "failed to find the network of {}: it belongs to the run {run}, whose config.toml was found \
                 neither beside it nor in runs.root; name the file in its run's folder, give --runs FOLDER, or \
                 set model=NAME (and all else that differs from the defaults)",
                weights.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses to measure on a data set that nobody named.
    pub(super) fn require_data(&self, weights: &Path) -> Result<(), Failure> {
        if !self.data_by_default {
            return Ok(());
        }
        let run = match &self.run {
            Some(run) => {
                format!(
                    "it belongs to the run {run}, whose config.toml was found neither beside it nor in runs.root"
                )
            }
            None => "it names no run".to_owned(),
        };
        Err(Failure::Usage(anyhow!(
            "failed to find the data set to measure {} on: {run}; set dataset=NAME (and all else that differs from the defaults), or name \
             the file in its run's folder",
            weights.display()
        )))
    }

    /// Returns a text that says where the config came from.
    pub(super) fn describe(&self) -> String {
        let from = match &self.file {
            Some(file) => file.display().to_string(),
            None => "the defaults".to_owned(),
        };
        let from = match &self.layer {
            Some(layer) => format!("{from}, with eval.layer={layer} as the file says"),
            None => from,
        };
        match self.arguments.len() {
            0 => from,
            _ => format!("{from}, with {}", self.arguments.join(" ")),
        }
    }
}

/// Returns the output of the network that a sealed file says to measure.
fn layer_of(weights: &WeightsFile) -> Option<String> {
    let content: Value = serde_json::from_str(weights.content.as_deref()?).ok()?;
    content.get("layer")?.as_str().map(ToOwned::to_owned)
}

/// Returns the run that a sealed file names.
fn run_of(weights: &WeightsFile) -> Option<String> {
    let content: Value = serde_json::from_str(weights.content.as_deref()?).ok()?;
    content.get("run")?.as_str().map(ToOwned::to_owned)
}

/// Returns the folder of the run in whose `checkpoints` the file is, also through links.
fn run_folder(weights: &WeightsFile, run: Option<&str>) -> Result<Option<PathBuf>, Failure> {
    let path = std::fs::canonicalize(&weights.path)
        .with_context(|| format!("failed to find out where {} lies", weights.path.display()))?;
    let Some(beside) = path.parent() else { return Ok(None) };
    let Some(above) = beside.parent() else { return Ok(None) };
    let has_config = |folder: &&Path| Layout::of(*folder).config().is_file();
    // A config.toml beside the file itself counts only if the file names its run, because another program's
    // config.toml may be there.
    let in_checkpoints = Some(above).filter(|above| Layout::of(*above).checkpoints() == beside);
    let found = in_checkpoints.filter(has_config).or_else(|| run.and(Some(beside)).filter(has_config));
    Ok(found.map(Path::to_path_buf))
}

/// Returns the folder of `run` among those in `runs.root`.
fn elsewhere(run: &str, overrides: &[Override]) -> Result<Option<PathBuf>, Failure> {
    let root = resolve_over(None, overrides)?.config.runs.root;
    let Ok(suites) = std::fs::read_dir(&root) else { return Ok(None) };
    let mut found: Vec<PathBuf> = suites
        .filter_map(Result::ok)
        .map(|suite| suite.path().join(run))
        .filter(|folder| Layout::of(folder.as_path()).config().is_file())
        .collect();
    // The run's name holds a hash of its config, so two runs with one name have the same config.
    found.sort();
    Ok(found.into_iter().next())
}

/// Returns a run's config, and the seed from its name, because a run's config does not contain the seed.
fn read(file: &Path, run: Option<&str>) -> Result<(GroupFile, Option<u64>), Failure> {
    let origin = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {origin}"))?;
    let folder = file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let name = run.or(folder.as_deref()).and_then(|name| name.rsplit_once("-s"));
    let Some((hash, seed)) = name else { return Ok((GroupFile { origin, text }, None)) };
    if let Some(run) = run
        && folder.as_deref() != Some(run)
        && !blake3::hash(text.as_bytes()).to_hex().starts_with(hash)
    {
        return Err(Failure::Failed(anyhow!(
            "failed to use the config {origin}: the weights are of the run {run}, and this is the config of another run; move the weights \
             to another folder or put them back into their run's folder"
        )));
    }
    Ok((GroupFile { origin, text }, seed.parse().ok()))
}
