//! Further views whose size is not the run's, as for multi-crop.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stripes;

use invaspread_runner::config::{Override, plan_runs};
use stripes::registry;

#[test]
fn a_pool_that_small_views_do_not_fill_is_an_error() {
    registry();
    let plan = |arguments: &[&str]| {
        let all = ["method.name=momentum_contrast", "augment.size=32"].iter().chain(arguments);
        let overrides: Vec<Override> = all.map(|argument| Override::parse(argument).unwrap()).collect();
        plan_runs(&overrides, false, &|_| None).map(drop).map_err(|error| error.to_string())
    };
    plan(&["model.pool=4"]).unwrap();
    // Views of 24 pixels end in a map of 3 x 3.
    let error = plan(&["model.pool=4", "method.small=2"]).unwrap_err();
    assert!(error.contains("model.pool") && error.contains("24 x 24 pixels"), "{error}");
    plan(&["model.pool=3", "method.small=2"]).unwrap();
    let error = plan(&["method.small=2", "model.pool=0", "augment.size=1"]).unwrap_err();
    assert!(error.contains("method") && error.contains("size"), "{error}");
}
