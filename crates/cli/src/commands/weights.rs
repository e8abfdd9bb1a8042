//! `invaspread weights`: what a file of weights holds, and the way of weights in and out under PyTorch's names.

use super::destination::Destination;
use super::evaluate::open;
use super::origin::Origin;
use super::print_json;
use crate::arguments::{WeightsArguments, WeightsCommand};
use crate::failure::Failure;
use crate::output::print_line;
use anyhow::{Context, anyhow};
use candle_core::DType;
use invaspread_models::{HeadNeeded, LoadReport, Network, inspect, load, not_finite};
use invaspread_runner::checkpoint;
use invaspread_runner::config::{Config, Work, expand, resolve_over};
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
    let (entries, not_read) = inspect(file).context("failed to inspect the weights")?;
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
        let not_finite = entry.not_finite.as_ref().map(|found| format!("  {found}")).unwrap_or_default();
        print_line!("{:<widest$}  {:<5} {:?}{not_finite}", entry.name, entry.dtype.as_str(), entry.shape);
    }
    for entry in &not_read {
        print_line!("not read: {entry}");
    }
    let parameters: usize = entries.iter().map(|entry| entry.parameters).sum();
    print_line!("{} entries, {parameters} numbers", entries.len());
    Ok(())
}

/// Someone else's weights into the configured network, saved as ours.
fn bring_in(arguments: &WeightsArguments) -> Result<(), Failure> {
    let overrides = expand(&arguments.settings.overrides_beside_weights()?, false)?.remove(0);
    let out = destination(arguments)?;
    let config = resolve_over(None, &overrides)?.config;
    let weights = open(&arguments.file, arguments.within.as_deref())?;
    let network = network(&config)?;
    let report = load(&weights, &network, HeadNeeded::No).context("failed to import the weights")?;
    save(&network, arguments, &out, None, false)?;
    say(&report, &network, arguments);
    Ok(())
}

/// A run's checkpoint, or anything that fits the configured network, as a plain state dict; of 16 bits a number if `half` is set.
fn take_out(arguments: &WeightsArguments, half: bool) -> Result<(), Failure> {
    let overrides = expand(&arguments.settings.overrides_beside_weights()?, false)?.remove(0);
    let out = destination(arguments)?;
    let weights = open(&arguments.file, arguments.within.as_deref())?;
    let origin = Origin::of(&weights, &overrides)?;
    let network = network(&origin.config)?;
    let report = load(&weights, &network, HeadNeeded::Yes)
        .with_context(|| format!("failed to export the weights with the config of {}", origin.describe()))?;
    save(&network, arguments, &out, origin.run.as_deref(), half)?;
    print_line!("config: {}", origin.describe());
    say(&report, &network, arguments);
    Ok(())
}

/// Where the weights may be written.
fn destination(arguments: &WeightsArguments) -> Result<PathBuf, Failure> {
    Destination { input: &arguments.file, what: "weights", keys: ["network", "from"] }.check(&arguments.out)
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
        ("freshly drawn, as the file has none", &report.missing),
        ("of the file, not used", &report.left_over),
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

/// Saves the network; `run` is the one that trained it, so that its config is found again.
fn save(
    network: &Network,
    arguments: &WeightsArguments,
    out: &Path,
    run: Option<&str>,
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
    let mut content = json!({ "network": network.config().to_string(), "from": arguments.file });
    if let Some(run) = run {
        content["run"] = run.into();
    }
    Ok(checkpoint::write(out, &tensors, &content).context("failed to save the weights")?)
}
