//! `invaspread weights`: what a file of weights holds, and the way of weights in and out under PyTorch's names.

use super::evaluate::run_config;
use super::print_json;
use crate::arguments::{WeightsArguments, WeightsCommand};
use crate::failure::Failure;
use crate::output::print_line;
use anyhow::Context;
use invaspread_models::{ImportReport, Network, import, inspect, read_weights};
use invaspread_runner::checkpoint;
use invaspread_runner::config::{Config, expand, resolve_over};
use invaspread_runner::engine::network_weights;
use serde_json::json;
use std::path::Path;

pub(crate) fn weights(command: &WeightsCommand) -> Result<(), Failure> {
    match command {
        WeightsCommand::Inspect { file, json } => show(file, *json),
        WeightsCommand::Import(arguments) => bring_in(arguments),
        WeightsCommand::Export(arguments) => take_out(arguments),
    }
}

fn show(file: &Path, as_json: bool) -> Result<(), Failure> {
    let entries = inspect(file).context("failed to inspect the weights")?;
    if as_json {
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| {
                json!({ "name": entry.name, "dtype": entry.dtype.as_str(), "shape": entry.shape, "parameters": entry.parameters })
            })
            .collect();
        return Ok(print_json(&entries)?);
    }
    let widest = entries.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0);
    for entry in &entries {
        print_line!("{:<widest$}  {:<5} {:?}", entry.name, entry.dtype.as_str(), entry.shape);
    }
    let parameters: usize = entries.iter().map(|entry| entry.parameters).sum();
    print_line!("{} entries, {parameters} numbers", entries.len());
    Ok(())
}

/// Someone else's weights into the configured network, saved as ours.
fn bring_in(arguments: &WeightsArguments) -> Result<(), Failure> {
    let overrides = expand(&arguments.settings.overrides_beside_weights()?, false)?.remove(0);
    let config = resolve_over(None, &overrides)?.config;
    let network = network(&config)?;
    let report = import(&arguments.file, &network).context("failed to import the weights")?;
    save(&network, arguments)?;
    let ImportReport { loaded, missing, left_over } = report;
    print_line!("{}: {} entries loaded into {}", arguments.out.display(), loaded.len(), network.config());
    for (what, names) in
        [("freshly drawn, as the file has none", missing), ("of the file, not used", left_over)]
    {
        if !names.is_empty() {
            print_line!("{what}: {}", names.join(", "));
        }
    }
    Ok(())
}

/// A run's checkpoint, or anything that fits the configured network, as a plain state dict.
fn take_out(arguments: &WeightsArguments) -> Result<(), Failure> {
    let overrides = expand(&arguments.settings.overrides_beside_weights()?, false)?.remove(0);
    let config = resolve_over(run_config(&arguments.file)?, &overrides)?.config;
    let network = network(&config)?;
    let tensors = read_weights(&arguments.file).context("failed to read the weights")?;
    let report = network.load_state_dict(&network_weights(tensors));
    let report = report.with_context(|| format!("failed to load {}", arguments.file.display()))?;
    save(&network, arguments)?;
    print_line!("{}: {} entries of {}", arguments.out.display(), report.loaded, network.config());
    Ok(())
}

fn network(config: &Config) -> Result<Network, Failure> {
    let recipe = config.recipe();
    Ok(Network::new(recipe.network, recipe.seed).context("failed to set up the network")?)
}

fn save(network: &Network, arguments: &WeightsArguments) -> Result<(), Failure> {
    let tensors = network.state_dict().context("failed to copy the weights")?;
    let content = json!({ "network": network.config().to_string(), "from": arguments.file });
    Ok(checkpoint::write(&arguments.out, &tensors, &content).context("failed to save the weights")?)
}
