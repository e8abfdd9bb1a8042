//! Groups of classes: the attributes by which Figure 6 of the paper groups the classes of CIFAR-10.

use crate::Dataset;

/// A division of the classes of a data set into groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// The name of the grouping, such as `animals_artifacts`.
    pub name: String,
    /// The names of the groups.
    pub groups: Vec<String>,
    /// The group of each class; `None` for a class without a group.
    pub of_class: Vec<Option<u32>>,
}

impl Dataset {
    /// Returns the known groupings of the data set's classes, which are found by the names of the
    /// classes: animals and artifacts, and big and small animals, for CIFAR-10 and STL-10. The paper
    /// takes them from Huang et al. (CVPR 2016) and does not print the group of each class; the second
    /// grouping is our interpretation.
    pub fn groupings(&self) -> Vec<Grouping> {
        let known = [
            (
                "animals_artifacts",
                ["animal", "artifact"],
                [
                    &["bird", "cat", "deer", "dog", "frog", "horse", "monkey"][..],
                    &["airplane", "automobile", "car", "ship", "truck"],
                ],
            ),
            (
                "big_small_animals",
                ["big animal", "small animal"],
                [&["deer", "horse"], &["bird", "cat", "dog", "frog", "monkey"]],
            ),
        ];
        if !matches!(self.name.as_str(), "cifar10" | "stl10") {
            return Vec::new();
        }
        known
            .into_iter()
            .map(|(name, groups, members)| {
                let group = |class: &String| {
                    members.iter().position(|members| members.contains(&class.as_str())).map(|at| at as u32)
                };
                Grouping {
                    name: name.to_owned(),
                    groups: groups.map(str::to_owned).to_vec(),
                    of_class: self.classes.iter().map(group).collect(),
                }
            })
            .collect()
    }
}
