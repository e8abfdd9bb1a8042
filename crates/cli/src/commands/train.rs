//! `invaspread train`: one run, or the combinations of listed values.

use super::launch::{announce, work};
use super::print_json;
use super::reproduce::reproduce;
use crate::arguments::{ReproduceArguments, TrainArguments};
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::print_line;
use invaspread_runner::config::{expand, resolve};

pub(crate) fn train(arguments: &TrainArguments) -> Result<(), Failure> {
    let suite = |text: &String| text.strip_prefix("suite=").map(str::to_owned);
    if let Some(suite) = arguments.settings.overrides.iter().find_map(suite) {
        let mut settings = arguments.settings.clone();
        settings.overrides.retain(|text| !text.starts_with("suite="));
        let (dry_run, json) = (arguments.dry_run, arguments.json);
        return reproduce(&ReproduceArguments { suite, settings, out: None, dry_run, json });
    }
    let mut planned = Vec::new();
    let mut root = None;
    for overrides in
        expand(&arguments.settings.overrides()?, arguments.multirun || arguments.settings.seeds.is_some())?
    {
        let config = resolve(&overrides)?.config;
        planned.push(config.plan(None, &config.groups.method)?);
        root = Some(config.runs.root);
    }
    let root = root.unwrap_or_default();
    announce(&planned, &root)?;
    if arguments.dry_run {
        return Ok(());
    }
    let records = work(&planned, &root)?;
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
