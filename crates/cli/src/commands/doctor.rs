//! `invaspread doctor`: reports the machine, the device and the data that is present, and compares every op
//! with its plain version, in f32 and in bf16. On a machine with a GPU it also compares every op of the GPU
//! with that of the CPU, in each precision. It trains each method of the registry for a few steps.

use super::print_json;
use crate::arguments::DoctorArguments;
use crate::failure::Failure;
use crate::output::{print_block, print_line};
use anyhow::Context;
use comfy_table::{Table, presets};
use invaspread_runner::launch::{Trial, try_out};
use invaspread_runner::machine;
use invaspread_runner::methods::{Entry, Registry};
use invaspread_tensor::self_check::{Check, self_check, self_check_on};
use invaspread_tensor::{DeviceKind, Precision};
use serde_json::{Value, json};

/// The checks of one device in one precision.
struct Checked {
    device: DeviceKind,
    precision: Precision,
    checks: Vec<Check>,
}

pub(crate) fn doctor(arguments: &DoctorArguments) -> Result<(), Failure> {
    let environment = machine::environment(DeviceKind::Cpu);
    let instructions = format!("{:?}", invaspread_tensor::instruction_set());
    if let Some(why) = arguments.device.why_not() {
        return Err(Failure::Usage(anyhow::anyhow!("--device {}: {why}", arguments.device)));
    }
    let device = arguments.device.resolve();
    let why_not = match (arguments.device, device) {
        (_, DeviceKind::Cuda(_)) => None,
        (DeviceKind::Cpu, _) => Some("--device cpu".to_owned()),
        _ => DeviceKind::best().1,
    };
    let mut all = vec![Checked {
        device: DeviceKind::Cpu,
        precision: Precision::F32,
        checks: self_check().context("failed to run the checks")?,
    }];
    all.push(Checked {
        device: DeviceKind::Cpu,
        precision: Precision::Bf16,
        checks: self_check_on(&candle_core::Device::Cpu, Precision::Bf16)
            .context("failed to run the checks in bf16")?,
    });
    let gpu = if why_not.is_none() { gpu(device, &mut all)? } else { Value::Null };
    let data = invaspread_data::list(None);
    let methods = Registry::installed().entries().iter();
    let on_the_host: Vec<&str> =
        methods.filter(|entry| !entry.default_method().has_cuda_loss()).map(Entry::name).collect();
    let tried: Vec<Tried> = Registry::installed()
        .entries()
        .iter()
        .map(|entry| (entry.name(), try_out(&entry.small()[0], device)))
        .collect();
    if arguments.json {
        print_json(&json!({
            "environment": environment,
            "device": device.to_string(),
            "gpu": gpu,
            "no_gpu_because": why_not,
            "instruction_set": instructions,
            "methods_with_their_loss_on_the_host": on_the_host,
            "checks": all.iter().flat_map(|checked| checked.checks.iter().map(|c| json!({
                "device": checked.device.to_string(), "precision": checked.precision.name(),
                "op": c.op, "error": c.error, "tolerance": c.tolerance, "good": c.is_good(),
            }))).collect::<Vec<_>>(),
            "methods": tried.iter().map(|(name, trial)| json!({
                "name": name,
                "losses": trial.as_ref().ok().map(|trial| &trial.losses),
                "same_twice": trial.as_ref().ok().map(|trial| trial.is_same_twice),
                "error": trial.as_ref().err(),
            })).collect::<Vec<_>>(),
            "data": data.as_ref().ok(),
        }))?;
    } else {
        print_line!("{}, {}, {} threads", environment.version, environment.cpu, environment.threads);
        print_line!("cpu: instruction set {instructions}");
        match (&why_not, gpu.as_object()) {
            (Some(why), _) => print_line!("no gpu: {why}"),
            (None, facts) => {
                let facts = facts.into_iter().flatten().map(|(name, value)| match value {
                    Value::String(text) => format!("{name} {text}"),
                    other => format!("{name} {other}"),
                });
                print_line!("gpu: {}", facts.collect::<Vec<_>>().join(", "));
            }
        }
        if !on_the_host.is_empty() {
            print_line!(
                "with device=cuda the loss of {} is computed on the host: it has no CUDA kernel",
                on_the_host.join(", ")
            );
        }
        match &data {
            Ok(listed) => {
                for entry in listed {
                    print_line!(
                        "data: {} {}",
                        entry.name,
                        if entry.present { "is there" } else { "is missing" }
                    );
                }
            }
            Err(error) => print_line!("data: {error}"),
        }
        for (name, trial) in &tried {
            print_line!("method: {name} {}", told(trial));
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "device",
            "precision",
            "op",
            "relative error",
            "allowed",
            "",
        ]);
        for checked in &all {
            for check in &checked.checks {
                let verdict = if check.is_good() { "good" } else { "WRONG" };
                table.add_row([
                    checked.device.to_string(),
                    checked.precision.to_string(),
                    check.op.to_string(),
                    format!("{:.1e}", check.error),
                    format!("{:.0e}", check.tolerance),
                    verdict.to_owned(),
                ]);
            }
        }
        print_block(&table.to_string());
    }
    verdict(&all)?;
    verdict_of_methods(&tried, device)
}

/// A method, and the result of a short run of it.
type Tried = (&'static str, Result<Trial, String>);

/// Returns the result of a method's run in words.
fn told(trial: &Result<Trial, String>) -> String {
    match trial {
        Ok(Trial { losses, is_same_twice }) => match (losses.first(), losses.last()) {
            (Some(first), Some(last)) => {
                let same = if *is_same_twice { "the same twice" } else { "not the same twice" };
                format!("trains: loss {first:.3} to {last:.3} in {} steps, {same}", losses.len())
            }
            _ => "runs: it is measured without training".to_owned(),
        },
        Err(why) => format!("FAILS: {why}"),
    }
}

/// Returns a failure if a method failed, or if on the CPU its losses differ from run to run. A GPU may take
/// sums in another order.
fn verdict_of_methods(tried: &[Tried], device: DeviceKind) -> Result<(), Failure> {
    let is_wrong = |trial: &Result<Trial, String>| match trial {
        Ok(trial) => !trial.is_same_twice && device == DeviceKind::Cpu,
        Err(_) => true,
    };
    let wrong: Vec<&str> = tried.iter().filter(|(_, trial)| is_wrong(trial)).map(|(name, _)| *name).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!("methods that do not train here: {}; the lines above say why", wrong.join(", "));
    Err(Failure::Failed(anyhow::Error::msg(message)))
}

/// Returns a failure if a check failed.
fn verdict(all: &[Checked]) -> Result<(), Failure> {
    let wrong: Vec<String> = all
        .iter()
        .flat_map(|checked| {
            let Checked { device, precision, checks } = checked;
            let wrong = checks.iter().filter(|check| !check.is_good());
            wrong.map(move |check| format!("{} ({}, {precision})", check.op, device))
        })
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let on_cpu =
        all.iter().any(|c| c.device == DeviceKind::Cpu && c.checks.iter().any(|check| !check.is_good()));
    let advice = if on_cpu {
        "run with INVASPREAD_SIMD=avx2 or INVASPREAD_SIMD=baseline"
    } else {
        "train with device=cpu"
    };
    let are = if wrong.len() == 1 { "one op is" } else { "some ops are" };
    let message =
        format!("{are} computed wrongly on this machine: {}; {advice}, and report it", wrong.join(", "));
    Err(Failure::Failed(anyhow::Error::msg(message)))
}

/// Returns the facts about the GPU; adds its checks to `all`.
#[cfg(feature = "cuda")]
fn gpu(kind: DeviceKind, all: &mut Vec<Checked>) -> Result<Value, Failure> {
    use invaspread_tensor::cuda::{Facts, facts};
    let device = kind.open().context("failed to open the GPU")?;
    let failed = "failed to run the checks on the GPU";
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let checks = self_check_on(&device, precision).context(failed)?;
        all.push(Checked { device: kind, precision, checks });
    }
    let checks = invaspread_runner::self_check_on(&device).context(failed)?;
    all.push(Checked { device: kind, precision: Precision::F32, checks });
    let Facts { name, capability, multiprocessors, memory, free, driver, cudnn } =
        facts(&device).context("failed to ask the GPU what it is")?;
    let gib = |bytes: usize| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    Ok(json!({
        "name": name,
        "number": format!("{kind} of {}", DeviceKind::gpus()),
        "compute capability": format!("{}.{}", capability.0, capability.1),
        "multiprocessors": multiprocessors,
        "memory": gib(memory),
        "free": gib(free),
        "driver for CUDA": format!("{}.{}", driver / 1000, driver % 1000 / 10),
        "cuDNN": format!("{}.{}.{}", cudnn / 10_000, cudnn % 10_000 / 100, cudnn % 100),
    }))
}

#[cfg(not(feature = "cuda"))]
#[expect(clippy::unnecessary_wraps, reason = "a GPU can fail, and this build knows none")]
fn gpu(_kind: DeviceKind, _all: &mut Vec<Checked>) -> Result<Value, Failure> {
    Ok(Value::Null)
}
