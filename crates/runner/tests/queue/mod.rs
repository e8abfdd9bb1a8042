//! Small runs on generated images, as a suite plans them, and an observer of their progress.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;

use invaspread_data::{DataConfig, SyntheticConfig};
use invaspread_runner::engine::{End, Observer, Recipe, RunFinished, RunStarted, StepTaken, Stop};
use invaspread_runner::launch::{Labels, Planned, run_all};
use invaspread_runner::methods::ChosenMethod;
use invaspread_runner::record::RunDirectory;

use crate::stripes::{self, SIDE, invaspread, random, small};

pub(crate) fn planned(row: &str, method: ChosenMethod) -> Planned {
    let mut recipe = Recipe { epochs: 2, ..stripes::recipe(method) };
    recipe.network = small(8).into();
    let synthetic = SyntheticConfig { train: 40, test: 20, image_size: SIDE };
    Planned {
        suite: Some("table1".to_owned()),
        recipe,
        data: DataConfig { synthetic, ..DataConfig::default() },
        config: format!("row = \"{row}\"\n").into(),
        hash: format!("hash{row}"),
        labels: Labels {
            row: row.to_owned(),
            label: None,
            method: row.to_owned(),
            dataset: "synthetic".to_owned(),
            profile: "smoke".to_owned(),
            device: "cpu".to_owned(),
            model: "resnet18".to_owned(),
            protocol: "code".to_owned(),
            arguments: Vec::new(),
            varied: Vec::new(),
            reduced: true,
            held_out: false,
        },
        lease: RunDirectory::LEASE,
        request: None,
    }
}

pub(crate) fn nce() -> Planned {
    planned("nce", stripes::nce(16))
}

pub(crate) fn queue() -> Vec<Planned> {
    vec![planned("random", random()), nce(), planned("invaspread", invaspread())]
}

/// Counts steps, endings and notes; raises the flag after some steps.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) steps: usize,
    pub(crate) stop_after: Option<usize>,
    pub(crate) stop: Stop,
    pub(crate) ends: Vec<End>,
    pub(crate) notes: Vec<String>,
    pub(crate) resumed_at: Vec<(u64, u64)>,
}

impl Observer for Watch {
    fn run_started(&mut self, event: &RunStarted) {
        self.resumed_at.push(event.resumed_at);
    }

    fn step(&mut self, _event: &StepTaken) {
        self.steps += 1;
        if self.stop_after == Some(self.steps) {
            self.stop.raise();
        }
    }

    fn run_finished(&mut self, event: &RunFinished) {
        self.ends.push(event.end.clone());
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

pub(crate) fn go(plan: &[Planned], root: &Path, stop_after: Option<usize>) -> Watch {
    let mut watch = Watch { stop_after, ..Watch::default() };
    let stop = watch.stop.clone();
    run_all(plan, root, &mut watch, &stop);
    watch
}
