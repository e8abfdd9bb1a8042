//! `invaspread train`: one run, or the combinations of listed values.

use super::launch::{announce, each_once, note_request, work};
use super::places::Places;
use super::print_json;
use super::slurm::{Asked, submit};
use super::spread::serve;
use crate::arguments::TrainArguments;
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::print_line;
use invaspread_runner::config::{Launcher, Sweep, plan_runs};
use invaspread_runner::memory::Memory;
use std::ffi::OsString;

pub(crate) fn train(arguments: &TrainArguments) -> Result<(), Failure> {
    let suite = |text: &String| text.strip_prefix("suite=").map(str::to_owned);
    if let Some(suite) = arguments.settings.overrides.iter().find_map(suite) {
        return of_suite(&suite, arguments);
    }
    let mut sweep = plan_runs(&arguments.settings.overrides()?, arguments.multirun, &Memory::of)?;
    let request = request(arguments);
    note_request(&mut sweep.planned, &request);
    if let Some(device) = arguments.gpus.worker {
        let Sweep { mut planned, root, .. } = sweep;
        return serve(&mut planned, &root, device);
    }
    let sweep = each_once(sweep);
    if sweep.launcher == Launcher::Slurm {
        let TrainArguments { settings, gpus, dry_run, json, .. } = arguments;
        let asked = Asked { suite: None, out: None, settings, gpus, dry_run: *dry_run, json: *json };
        return submit(&sweep, &asked);
    }
    let Sweep { mut planned, root, launcher, local, .. } = sweep;
    let gpus = arguments.gpus.choose(&mut planned, &arguments.settings.overrides)?;
    let places = Places::of(launcher, local, &planned, &gpus);
    announce(&planned, &root, &places)?;
    if arguments.dry_run {
        return Ok(());
    }
    let records = work(&planned, &root, &places, &request)?;
    if arguments.json {
        return Ok(print_json(&records)?);
    }
    for record in &records {
        let main = &record.metrics[&record.main_metric];
        print_line!(
            "{}: {} {:.2}% after the last epoch, best {:.2}% (epoch {}); {}",
            record.id,
            short_name(&record.main_metric),
            main.last,
            main.best,
            main.best_epoch,
            root.join(&record.path).display()
        );
    }
    Ok(())
}

/// Returns the command line that asks for the same runs.
fn request(arguments: &TrainArguments) -> Vec<OsString> {
    let mut request = vec![OsString::from("train")];
    request.extend(arguments.multirun.then(|| "--multirun".into()));
    request.extend(arguments.settings.arguments());
    request
}

/// Runs a suite, as `reproduce` does.
#[cfg(feature = "report")]
fn of_suite(suite: &str, arguments: &TrainArguments) -> Result<(), Failure> {
    let mut settings = arguments.settings.clone();
    settings.overrides.retain(|text| !text.starts_with("suite="));
    let (gpus, dry_run, json) = (arguments.gpus.clone(), arguments.dry_run, arguments.json);
    super::reproduce(&crate::arguments::ReproduceArguments {
        suite: suite.to_owned(),
        settings,
        gpus,
        out: None,
        dry_run,
        json,
    })
}

/// Returns an error that says that this program was built without suites.
#[cfg(not(feature = "report"))]
fn of_suite(suite: &str, _arguments: &TrainArguments) -> Result<(), Failure> {
    Err(Failure::Usage(anyhow::anyhow!(
        "suite={suite}: this program was built without suites and reports (feature `report`), expected the settings of a run"
    )))
}
