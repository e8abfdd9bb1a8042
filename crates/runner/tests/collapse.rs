//! Trains SimSiam with and without its stop-gradient: only the run that collapses says so.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod stripes;

use invaspread_runner::engine::{Observer, Outcome, Recipe, Schedule, Stop, train};
use invaspread_runner::methods::{ChosenMethod, simsiam};
use stripes::{images, place, recipe};

/// Keeps the notes.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

/// Returns the notes about a collapse, and the spread after each epoch.
fn trained(stop_gradient: bool) -> (Vec<String>, Vec<f64>) {
    let settings = simsiam::Settings {
        projector_hidden: 32,
        projector_output: 16,
        predictor_hidden: 8,
        stop_gradient,
        ..simsiam::Settings::default()
    };
    let recipe = Recipe {
        epochs: 12,
        schedule: Schedule::by_factors(0.1, Vec::new()),
        ..recipe(ChosenMethod::new(settings))
    };
    let folder = tempfile::tempdir().unwrap();
    let mut notes = Notes::default();
    let outcome =
        train(&recipe, &place(folder.path()), &images(), &mut notes, &Stop::new(), &mut |_| Ok(())).unwrap();
    let Outcome::Trained(trained) = outcome else { panic!("the run was stopped") };
    let spread = trained.rows.iter().filter(|row| row.split == "shape" && row.name == "spread");
    let told = notes.0.into_iter().filter(|note| note.contains("has collapsed")).collect();
    (told, spread.map(|row| row.value).collect())
}

#[test]
fn a_run_that_collapses_says_so_once() {
    let (told, spread) = trained(false);
    assert_eq!(spread.len(), 13);
    assert!(spread[12] < 0.05 && told.len() == 1, "{told:?} {spread:?}");
    assert!(told[0].contains("after epoch") && told[0].contains("stop-gradient"), "{told:?}");
    let (told, spread) = trained(true);
    assert!(spread[12] > 0.1 && told.is_empty(), "{told:?} {spread:?}");
}
