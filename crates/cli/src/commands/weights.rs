//! `invaspread weights`: prints the content of a file of weights, and imports and exports weights under
//! PyTorch's names.

use super::destination::Destination;
use super::evaluate::{file_of, open};
use super::origin::Origin;
use super::print_json;
use crate::arguments::{WeightsArguments, WeightsCommand};
use crate::failure::Failure;
use crate::output::print_line;
use anyhow::{Context, anyhow};
use candle_core::DType;
use invaspread_models::{HeadNeeded, LoadReport, Network, WeightsFile, inspect, load, not_finite};
use invaspread_runner::checkpoint;
use invaspread_runner::config::{Config, Work, expand};
use invaspread_runner::memory::Memory;
use serde_json::json;
use std::path::{Path, PathBuf};

pub(crate) fn weights(command: &WeightsCommand) -> Result<(), Failure> {
    match command {
        WeightsCommand::Inspect { file, json } => show(file, *json),
        WeightsCommand::Import(arguments) => bring_in(arguments),
        WeightsCommand::Export { weights, half } => take_out(weights, *half),
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

/// Reads weights of another program into the configured network and saves them in our format.
fn bring_in(arguments: &WeightsArguments) -> Result<(), Failure> {
    let (weights, out, origin) = opened(arguments)?;
    let network = network(&origin.config)?;
    let report = load(&weights, &network, HeadNeeded::No).context("failed to import the weights")?;
    save(&network, &weights, &out, &origin, false)?;
    if origin.run.is_some() {
        print_line!("config: {}", origin.describe());
    }
    say(&report, &network, arguments);
    Ok(())
}

/// Saves a run's checkpoint, or any weights that fit the configured network, as a plain state dict; as f16 if
/// `half` is set.
fn take_out(arguments: &WeightsArguments, half: bool) -> Result<(), Failure> {
    let (weights, out, origin) = opened(arguments)?;
    let network = network(&origin.config)?;
    let report = load(&weights, &network, HeadNeeded::Yes)
        .with_context(|| format!("failed to export the weights with the config of {}", origin.describe()))?;
    save(&network, &weights, &out, &origin, half)?;
    print_line!("config: {}", origin.describe());
    say(&report, &network, arguments);
    Ok(())
}

/// Returns the weights, the file to which they may be written, and the config of their network.
fn opened(arguments: &WeightsArguments) -> Result<(WeightsFile, PathBuf, Origin), Failure> {
    let overrides = expand(&arguments.settings.overrides_beside_weights()?, false)?.remove(0);
    let path = file_of(&arguments.file)?;
    let destination = Destination { input: &path, what: "weights", keys: ["network", "from"] };
    let out = destination.check(&arguments.out)?;
    let weights = open(&path, arguments.within.as_deref())?;
    let origin = Origin::of(&weights, &overrides)?;
    origin.require_network(&path, &overrides)?;
    Ok((weights, out, origin))
}

fn say(report: &LoadReport, network: &Network, arguments: &WeightsArguments) {
    let (out, loaded) = (arguments.out.display(), report.loaded.len());
    print_line!("{out}: {loaded} entries loaded into {}", network.config());
    if let Some(choice) = report.choice() {
        print_line!(
            "{choice}{}",
            if report.others.is_empty() { "" } else { " (--within NAME takes another)" }
        );
    }
    for (what, names) in [
        ("not in the file, newly initialized", &report.missing),
        ("in the file, not used", &report.left_over),
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
