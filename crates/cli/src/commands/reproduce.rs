//! `invaspread reproduce SUITE`: its runs, then its report.

use super::launch::{announce, work};
use super::print_json;
use super::report::{Print, draw, write};
use crate::arguments::ReproduceArguments;
use crate::failure::Failure;
use invaspread_runner::config::{Suite, expand};
use std::path::PathBuf;

pub(crate) fn reproduce(arguments: &ReproduceArguments) -> Result<(), Failure> {
    let suite = Suite::open(&arguments.suite)?;
    let mut planned = Vec::new();
    let (mut root, mut profile) = (PathBuf::new(), String::new());
    for overrides in expand(&arguments.settings.overrides()?, true)? {
        for (run, config) in suite.plan(&overrides)? {
            planned.push(run);
            (root, profile) = (config.runs.root, config.groups.profile);
        }
    }
    eprintln!("{}", suite.title);
    announce(&planned, &root)?;
    if arguments.dry_run {
        return Ok(());
    }
    let records = work(&planned, &root)?;
    if arguments.json {
        print_json(&records)?;
    }
    // What `smoke` measures means nothing and must not overwrite what was measured in earnest.
    let default = || match profile.as_str() {
        "smoke" => root.join(format!("{}-report", suite.name)),
        _ => PathBuf::from("results").join(&suite.name),
    };
    let out = arguments.out.clone().unwrap_or_else(default);
    write(&suite, &root, &out, if arguments.json { Print::Nothing } else { Print::Text })?;
    draw(&suite, &planned, &root, &out)
}
