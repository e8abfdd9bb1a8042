//! Advice for runs that take too long: the settings that make these runs shorter.

use invaspread_models::NetworkConfig;

use super::Planned;

/// Returns a sentence that names the settings that make these runs shorter.
pub fn how_to_shorten(planned: &[Planned]) -> String {
    let mut ways = Vec::new();
    if planned.iter().any(|run| !run.labels.reduced) {
        ways.push("profile=quick (a smaller network on fewer images, for a CPU)");
    }
    ways.push("data.subset=N (training images)");
    if planned.iter().any(|run| matches!(run.recipe.network, NetworkConfig::ResNet(_))) {
        ways.push("model.width=N (channels)");
    }
    if planned.iter().any(|run| run.recipe.method.trains()) {
        ways.push("optim.epochs=N");
    }
    format!(
        "to make it shorter: {}; Ctrl-C stops at any time and the same command resumes",
        ways.join(", or ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::how_to_shorten;
    use crate::config::{Override, plan_runs};

    fn told(arguments: &[&str]) -> String {
        let overrides: Vec<Override> = arguments.iter().map(|one| Override::parse(one).unwrap()).collect();
        how_to_shorten(&plan_runs(&overrides, false, &|_| None).unwrap().planned)
    }

    #[test]
    fn nothing_is_named_that_makes_no_difference() {
        let all = told(&[]);
        for way in ["profile=quick", "data.subset=N", "model.width=N", "optim.epochs=N"] {
            assert!(all.contains(way), "{all}");
        }
        assert!(!told(&["profile=quick"]).contains("profile=quick"), "it is chosen already");
        assert!(!told(&["model=inception_v1", "model.pretrained=false"]).contains("model.width"));
        assert!(!told(&["method=random"]).contains("optim.epochs"));
    }
}
