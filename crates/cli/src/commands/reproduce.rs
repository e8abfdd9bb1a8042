//! `invaspread reproduce SUITE`: its runs, then its report. `reproduce all`: every table and figure of the
//! paper, then the page of all.

use super::launch::{announce, each_once, note_request, work};
use super::places::Places;
use super::print_json;
use super::report::{
    ALL, Pages, Print, default_folder, default_results, draw, every_suite, write, write_all,
};
use super::slurm::{Asked, submit};
use super::spread::serve;
use crate::arguments::ReproduceArguments;
use crate::failure::Failure;
use crate::output::{note, print_line};
use anyhow::anyhow;
use invaspread_runner::config::{Launcher, Suite, Sweep};
use invaspread_runner::memory::Memory;
use invaspread_runner::slurm::shell_word;
use std::path::{Path, PathBuf};

pub(crate) fn reproduce(arguments: &ReproduceArguments) -> Result<(), Failure> {
    if arguments.suite != ALL {
        return one(&arguments.suite, arguments, arguments.out.as_deref()).map(drop);
    }
    let (mut root, mut failed) = (PathBuf::from("runs"), Vec::new());
    let mut launcher = Launcher::Here;
    let suites = every_suite();
    for suite in &suites {
        match one(suite, arguments, arguments.out.as_ref().map(|out| out.join(suite)).as_deref()) {
            Ok(used) => (root, launcher) = used,
            Err(Failure::Stopped) => return Err(Failure::Stopped),
            // A suite may lack its data or its weights; the others run nevertheless. An argument that is
            // wrong for all suites is an error.
            Err(failure) => {
                failed.push(suite.as_str());
                if failed.len() == suites.len() && matches!(failure, Failure::Usage(_)) {
                    return Err(failure);
                }
                note!("{suite}: {failure}");
            }
        }
    }
    if arguments.dry_run {
        return Ok(());
    }
    match launcher {
        Launcher::Here | Launcher::Local => {
            let results = match &arguments.out {
                Some(out) => out.clone(),
                None => default_results(&root)?,
            };
            for page in write_all(&root, &results, Pages::Renewed)? {
                print_line!("{}", page.display());
            }
        }
        Launcher::Slurm => note!(
            "once the runs are finished, `invaspread report all --runs {}` writes the page of all suites",
            shell_word(&root.to_string_lossy())
        ),
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(Failure::Failed(anyhow!("{} could not be run: {}", failed.len(), failed.join(", ")))),
    }
}

/// Runs a suite and writes its report, or submits both, and returns the folder of its runs and what does them.
fn one(
    name: &str,
    arguments: &ReproduceArguments,
    out: Option<&Path>,
) -> Result<(PathBuf, Launcher), Failure> {
    let suite = Suite::open(name)?;
    let mut sweep = suite.plan_all(&arguments.settings.overrides()?, &Memory::of)?;
    let request = [vec!["reproduce".into(), name.into()], arguments.settings.arguments()].concat();
    note_request(&mut sweep.planned, &request);
    if let Some(device) = arguments.gpus.worker {
        let Sweep { mut planned, root, .. } = sweep;
        return serve(&mut planned, &root, device).map(|()| (root, Launcher::Here));
    }
    let sweep = each_once(sweep);
    if sweep.launcher == Launcher::Slurm {
        note!("{}", suite.title);
        let ReproduceArguments { settings, gpus, dry_run, json, .. } = arguments;
        let asked = Asked { suite: Some(name), out, settings, gpus, dry_run: *dry_run, json: *json };
        submit(&sweep, &asked)?;
        return Ok((sweep.root, Launcher::Slurm));
    }
    let Sweep { mut planned, root, launcher, local, .. } = sweep;
    let gpus = arguments.gpus.choose(&mut planned, &arguments.settings.overrides)?;
    let places = Places::of(launcher, local, &planned, &gpus);
    note!("{}", suite.title);
    announce(&planned, &root, &places)?;
    if arguments.dry_run {
        return Ok((root, Launcher::Here));
    }
    let records = work(&planned, &root, &places, &request)?;
    if arguments.json {
        print_json(&records)?;
    }
    let out = match out {
        Some(out) => out.to_path_buf(),
        None => default_folder(&suite, &root)?,
    };
    draw(&suite, &planned, &root, &out)?;
    let print = if arguments.json { Print::Nothing } else { Print::Text };
    write(&suite, &root, &out, Pages::Renewed, print)?;
    Ok((root, Launcher::Here))
}
