//! `invaspread config`: what a run would do, and where each setting came from.

use super::print_json;
use crate::arguments::ConfigCommand;
use crate::failure::Failure;
use crate::output::{print_block, print_line};
use invaspread_runner::config::{GROUPS, Origin, Suite, available, expand, resolve};

pub(crate) fn config(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Show { settings, origin, json } => {
            let resolved = resolve(&expand(&settings.overrides()?, false)?.remove(0))?;
            match (origin, json) {
                (true, true) => print_json(&resolved.origins)?,
                (false, true) => print_json(&resolved.config)?,
                (false, false) => {
                    print_block(&resolved.config.to_toml()?);
                    // TOML has no word for a key that has no value.
                    for origin in resolved.origins.iter().filter(|origin| origin.value == Origin::UNSET) {
                        print_line!("# {} is unset by {}", origin.key, origin.origin);
                    }
                }
                (true, false) => {
                    let width =
                        resolved.origins.iter().map(|o| o.key.len() + o.value.len() + 3).max().unwrap_or(0);
                    for origin in &resolved.origins {
                        print_line!(
                            "{:<width$}  # {}",
                            format!("{} = {}", origin.key, origin.value),
                            origin.origin
                        );
                    }
                }
            }
        }
        ConfigCommand::Groups => {
            for group in GROUPS {
                print_line!("{group:<9} {}", available(group).join(", "));
            }
            print_line!("{:<9} {}", "suite", Suite::names().join(", "));
        }
    }
    Ok(())
}
