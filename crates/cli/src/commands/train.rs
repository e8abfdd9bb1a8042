//! `invaspread train`: one run, or the combinations of listed values.

use super::launch::{announce, each_once, work};
use super::print_json;
use super::reproduce::reproduce;
use crate::arguments::{ReproduceArguments, TrainArguments};
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::print_line;
use invaspread_runner::config::{Sweep, plan_runs};
use invaspread_runner::memory::Memory;

pub(crate) fn train(arguments: &TrainArguments) -> Result<(), Failure> {
    let suite = |text: &String| text.strip_prefix("suite=").map(str::to_owned);
    if let Some(suite) = arguments.settings.overrides.iter().find_map(suite) {
        let mut settings = arguments.settings.clone();
        settings.overrides.retain(|text| !text.starts_with("suite="));
        let (dry_run, json) = (arguments.dry_run, arguments.json);
        return reproduce(&ReproduceArguments { suite, settings, out: None, dry_run, json });
    }
    let sweep = plan_runs(&arguments.settings.overrides()?, arguments.multirun, &Memory::of)?;
    let Sweep { planned, root, .. } = each_once(sweep);
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
