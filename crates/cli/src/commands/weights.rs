//! `invaspread weights`: prints the content of a file of weights, and imports and exports weights under
//! PyTorch's names or as an ONNX model.

use super::destination::{Destination, Mark};
use super::evaluate::{file_of, open};
use super::origin::Origin;
use super::print_json;
use crate::arguments::{ExportArguments, Settings, WeightsCommand};
use crate::failure::Failure;
use crate::output::print_line;
use anyhow::{Context, anyhow};
use candle_core::DType;
use invaspread_models::{
    HeadNeeded, LoadReport, Network, OnnxNotes, OnnxOutput, WeightsFile, inspect, load, not_finite,
};
use invaspread_runner::checkpoint;
use invaspread_runner::config::{Config, Work, expand};
use invaspread_runner::engine::EvaluateError;
use invaspread_runner::memory::Memory;
use invaspread_runner::methods::Layer;
use invaspread_runner::record::{RecordError, write_atomically};
use serde_json::json;
use std::path::{Path, PathBuf};

pub(crate) fn weights(command: &WeightsCommand) -> Result<(), Failure> {
    match command {
        WeightsCommand::Inspect { file, json } => show(file, *json),
        WeightsCommand::Import(arguments) => {
            let (file, within) = (&arguments.file, arguments.within.as_deref());
            bring_in(&Request { file, within, out: &arguments.out, settings: &arguments.settings })
        }
        WeightsCommand::Export(arguments) => export(arguments),
    }
}

fn show(file: &Path, as_json: bool) -> Result<(), Failure> {
    let (entries, not_read) = inspect(&file_of(file)?).context("failed to inspect the weights")?;
    if as_json {
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| {
                json!({
                    "state_dict": entry.place,
                    "name": entry.name,
                    "dtype": entry.dtype.as_str(),
                    "shape": entry.shape,
                    "parameters": entry.parameters,
                    "not_finite": entry.not_finite.as_ref().map(|found| found.count),
                })
            })
            .collect();
        return Ok(print_json(&entries)?);
    }
    let widest = entries.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0);
    let mut place = "";
    for entry in &entries {
        if entry.place != place {
            place = &entry.place;
            print_line!("in {place}:");
        }
        let not_finite =
            entry.not_finite.as_ref().map(|found| format!("  NOT FINITE: {found}")).unwrap_or_default();
        print_line!("{:<widest$}  {:<5} {:?}{not_finite}", entry.name, entry.dtype.as_str(), entry.shape);
    }
    for entry in &not_read {
        print_line!("not read: {entry}");
    }
    let parameters: usize = entries.iter().map(|entry| entry.parameters).sum();
    print_line!("{} entries, {parameters} numbers", entries.len());
    let not_finite: Vec<usize> = entries.iter().filter_map(|e| Some(e.not_finite.as_ref()?.count)).collect();
    if !not_finite.is_empty() {
        print_line!(
            "NOT FINITE: entries: {}, values: {}; a network cannot load these entries",
            not_finite.len(),
            not_finite.iter().sum::<usize>()
        );
    }
    Ok(())
}

/// The weights to read and the file to write.
struct Request<'a> {
    file: &'a Path,
    within: Option<&'a str>,
    out: &'a Path,
    settings: &'a Settings,
}

fn export(arguments: &ExportArguments) -> Result<(), Failure> {
    let (file, within) = (&arguments.file, arguments.within.as_deref());
    match (&arguments.onnx, &arguments.out) {
        (Some(out), first) => {
            let mut settings = arguments.settings.clone();
            if let Some(first) = first {
                settings.overrides.insert(0, first.to_string_lossy().into_owned());
            }
            take_out_as_onnx(&Request { file, within, out, settings: &settings })
        }
        (None, Some(out)) => {
            take_out(&Request { file, within, out, settings: &arguments.settings }, arguments.half)
        }
        (None, None) => Err(Failure::Usage(anyhow!(
            "failed to export {}: no file to write was given; name a .safetensors file, or --onnx FILE",
            file.display()
        ))),
    }
}

/// Reads weights of another program into the configured network and saves them in our format.
fn bring_in(request: &Request<'_>) -> Result<(), Failure> {
    let (weights, out, origin) = opened(request, Mark::Seal(["network", "from"]))?;
    let network = network(&origin.config)?;
    let report = load(&weights, &network, HeadNeeded::No).context("failed to import the weights")?;
    save(&network, &weights, &out, &origin, false)?;
    if origin.run.is_some() {
        print_line!("config: {}", origin.describe());
    }
    say(&report, &network, request, "newly initialized");
    Ok(())
}

/// Saves a run's checkpoint, or any weights that fit the configured network, as a plain state dict; as f16 if
/// `half` is set.
fn take_out(request: &Request<'_>, half: bool) -> Result<(), Failure> {
    let (weights, out, origin) = opened(request, Mark::Seal(["network", "from"]))?;
    let network = network(&origin.config)?;
    let report = load(&weights, &network, HeadNeeded::Yes)
        .with_context(|| format!("failed to export the weights with the config of {}", origin.describe()))?;
    save(&network, &weights, &out, &origin, half)?;
    print_line!("config: {}", origin.describe());
    say(&report, &network, request, "newly initialized");
    Ok(())
}

/// Saves a run's checkpoint, or any weights that fit the configured network, as an ONNX model of the output that an
/// evaluation measures. Pooled features need no embedding layer.
fn take_out_as_onnx(request: &Request<'_>) -> Result<(), Failure> {
    let (weights, out, origin) = opened(request, Mark::OnnxProducer)?;
    let network = network(&origin.config)?;
    let layer = origin.config.eval.layer.unwrap_or_default();
    let head = if layer == Layer::Pooled { HeadNeeded::No } else { HeadNeeded::Yes };
    let report = load(&weights, &network, head)
        .map_err(EvaluateError::from)
        .with_context(|| format!("failed to export the weights with the config of {}", origin.describe()))?;
    let output = match layer {
        Layer::Embedding => OnnxOutput::Embedding,
        Layer::Projection => OnnxOutput::Projection,
        Layer::Pooled => OnnxOutput::Pooled,
    };
    let augment = &origin.config.augment;
    let model = network
        .to_onnx(augment.size, output, notes(&network, output, &weights, &origin))
        .context("failed to make an ONNX model of the weights")?;
    write_atomically(&out, &model)
        .map_err(RecordError::io("write", &out))
        .context("failed to save the ONNX model")?;
    print_line!("config: {}", origin.describe());
    say(&report, &network, request, "and not needed for the pooled features");
    print_line!("preprocessing: {}", preprocessing(&origin.config));
    print_line!("output: {}", described(&network, output));
    Ok(())
}

/// Describes how an image becomes the network's input, with the resize that the run's data set does when it is read.
pub(super) fn preprocessing(config: &Config) -> String {
    let first = config.data.resize_on_reading().map_or_else(String::new, |(side, filter)| {
        format!("resize to {side} x {side} pixels, whatever the aspect ratio (Pillow's filter {filter:?}), as the data set of the config; ")
    });
    format!("{first}{}", config.augment.evaluation_in_words())
}

/// Returns what an ONNX model says about itself: a text for people, and names with values for programs.
fn notes(network: &Network, output: OnnxOutput, weights: &WeightsFile, origin: &Origin) -> OnnxNotes {
    let (config, augment) = (network.config(), &origin.config.augment);
    let (channels, side) = (config.channels(), augment.size);
    let description = format!(
        "{config}. Input `images`: (N, {channels}, {side}, {side}), f32, made of an image so: {}. Output: {}.",
        preprocessing(&origin.config),
        described(network, output)
    );
    let mut properties = augment.evaluation_properties();
    let first = origin.config.data.resize_on_reading();
    let first = first.map_or_else(
        || "null".to_owned(),
        |(side, filter)| json!({ "size": side, "filter": filter }).to_string(),
    );
    properties.push(("resize_first".to_owned(), first));
    properties.push(("network".to_owned(), config.to_string()));
    properties.push(("layer".to_owned(), output.name().to_owned()));
    // Not the whole path, which says more about a machine than about a network.
    if let Some(file) = weights.path.file_name() {
        properties.push(("weights".to_owned(), file.to_string_lossy().into_owned()));
    }
    if let Some(run) = &origin.run {
        properties.push(("run".to_owned(), run.clone()));
    }
    OnnxNotes { description, properties }
}

/// Describes the output of an ONNX model.
fn described(network: &Network, output: OnnxOutput) -> String {
    let config = network.config();
    let (length, scaled) = match output {
        OnnxOutput::Embedding => (config.embedding(), "of length 1"),
        OnnxOutput::Projection => {
            (config.embedding(), "not scaled to length 1, which `invaspread evaluate` does")
        }
        OnnxOutput::Pooled => (config.pooled(), "not scaled to length 1, which `invaspread evaluate` does"),
    };
    format!("`{}`: (N, {length}), f32, rows {scaled}", output.name())
}

/// Returns the weights, the file to which they may be written, and the config of their network.
fn opened(request: &Request<'_>, mark: Mark<'_>) -> Result<(WeightsFile, PathBuf, Origin), Failure> {
    let overrides = expand(&request.settings.overrides_beside_weights()?, false)?.remove(0);
    let path = file_of(request.file)?;
    let out = Destination { input: &path, what: "weights", mark }.check(request.out)?;
    let weights = open(&path, request.within)?;
    let origin = Origin::of(&weights, &overrides)?;
    origin.require_network(&path, &overrides)?;
    Ok((weights, out, origin))
}

/// Says what was loaded. `missing` says what becomes of entries that the file does not have.
fn say(report: &LoadReport, network: &Network, request: &Request<'_>, missing: &str) {
    let (out, loaded) = (request.out.display(), report.loaded.len());
    print_line!("{out}: {loaded} entries loaded into {}", network.config());
    if let Some(choice) = report.choice() {
        print_line!(
            "{choice}{}",
            if report.others.is_empty() { "" } else { " (--within NAME takes another)" }
        );
    }
    for (what, names) in [
        (format!("not in the file, {missing}"), &report.missing),
        ("in the file, not used".to_owned(), &report.left_over),
    ] {
        if !names.is_empty() {
            print_line!("{what}: {}", names.join(", "));
        }
    }
}

fn network(config: &Config) -> Result<Network, Failure> {
    config.fits_for(Work::Convert, &Memory::of)?;
    let recipe = config.recipe();
    Ok(Network::new(recipe.network, recipe.seed).context("failed to set up the network")?)
}

/// Saves the network. The file names the run that trained it, so that the run's config can be found later,
/// and the output that is to be measured, in case the config is not found. The numbers are f16 if `half` is
/// set.
fn save(
    network: &Network,
    from: &WeightsFile,
    out: &Path,
    origin: &Origin,
    half: bool,
) -> Result<(), Failure> {
    let mut tensors = network.state_dict().context("failed to copy the weights")?;
    if half {
        for (_, tensor) in tensors.iter_mut().filter(|(_, tensor)| tensor.dtype() == DType::F32) {
            *tensor = tensor.to_dtype(DType::F16).context("failed to round the weights")?;
        }
        if let Some((name, _)) =
            tensors.iter().find(|(_, tensor)| not_finite(tensor).is_ok_and(|found| found.is_some()))
        {
            return Err(Failure::Failed(anyhow!(
                "failed to round the weights: {name} has numbers beyond 65504, the largest of f16; export without --half"
            )));
        }
    }
    let mut content = json!({ "network": network.config().to_string(), "from": from.path });
    if let Some(run) = &origin.run {
        content["run"] = run.as_str().into();
    }
    if let Some(layer) = origin.config.eval.layer {
        content["layer"] = json!(layer);
    }
    Ok(checkpoint::write(out, &tensors, &content).context("failed to save the weights")?)
}
