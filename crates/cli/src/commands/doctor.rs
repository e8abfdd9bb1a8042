//! `invaspread doctor`: the machine, the device, the data that is there, and every op against its plain version.

use super::print_json;
use crate::arguments::DoctorArguments;
use crate::failure::Failure;
use anyhow::Context;
use comfy_table::{Table, presets};
use invaspread_runner::record::Environment;
use invaspread_tensor::self_check::self_check;
use serde_json::json;

pub(crate) fn doctor(arguments: &DoctorArguments) -> Result<(), Failure> {
    let environment = Environment::capture("cpu");
    let instructions = format!("{:?}", invaspread_tensor::instruction_set());
    let checks = self_check().context("failed to run the checks")?;
    let data = invaspread_data::list(None);
    if arguments.json {
        print_json(&json!({
            "environment": environment,
            "device": "cpu",
            "instruction_set": instructions,
            "checks": checks.iter().map(|c| json!({
                "op": c.op, "error": c.error, "tolerance": c.tolerance, "good": c.is_good(),
            })).collect::<Vec<_>>(),
            "data": data.as_ref().ok(),
        }))?;
    } else {
        println!("{}, {}, {} threads", environment.version, environment.cpu, environment.threads);
        println!("device: cpu, instruction set {instructions}; this build has no CUDA support");
        match &data {
            Ok(listed) => {
                for entry in listed {
                    println!(
                        "data: {} {}",
                        entry.name,
                        if entry.present { "is there" } else { "is missing" }
                    );
                }
            }
            Err(error) => println!("data: {error}"),
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["op", "relative error", "allowed", ""]);
        for check in &checks {
            let verdict = if check.is_good() { "good" } else { "WRONG" };
            table.add_row([
                check.op.to_owned(),
                format!("{:.1e}", check.error),
                format!("{:.0e}", check.tolerance),
                verdict.to_owned(),
            ]);
        }
        println!("{table}");
    }
    let wrong: Vec<&str> = checks.iter().filter(|c| !c.is_good()).map(|c| c.op).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} computed wrongly on this machine: {}; run with INVASPREAD_SIMD=avx2 or INVASPREAD_SIMD=baseline, and report it",
        if wrong.len() == 1 { "one op is" } else { "some ops are" },
        wrong.join(", ")
    );
    Err(Failure::Failed(anyhow::Error::msg(message)))
}
