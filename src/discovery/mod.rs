//! Discovery: where the targets are.
//!
//! A provider says what it knows as [`TargetGroup`]s. A group replaces the group of the same source
//! that was there before; one without targets removes it.

mod file;

use std::collections::BTreeMap;

pub(crate) use file::FileDiscovery;

use crate::config::ScrapeConfig;

/// Start of the source of every group of the `i`-th entry of `file_sd_configs`.
pub(crate) fn file_source(i: usize) -> String {
    format!("file/{i}/")
}

/// Targets that have labels in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetGroup {
    /// What the group is known by; unique within a job.
    pub source: String,
    /// Labels of each target, `__address__` among them.
    pub targets: Vec<BTreeMap<String, String>>,
    /// Labels of all of them; those of a target win.
    pub labels: BTreeMap<String, String>,
}

impl TargetGroup {
    fn of_addresses(source: String, addresses: &[String], labels: BTreeMap<String, String>) -> Self {
        let targets =
            addresses.iter().map(|a| BTreeMap::from([("__address__".to_owned(), a.clone())])).collect();
        Self { source, targets, labels }
    }
}

/// The groups under `static_configs`.
pub(crate) fn static_groups(config: &ScrapeConfig) -> Vec<TargetGroup> {
    let groups = config.static_configs.iter().enumerate();
    groups
        .map(|(i, group)| {
            let labels = group.labels.iter().cloned().collect();
            TargetGroup::of_addresses(format!("static/{i}"), &group.targets, labels)
        })
        .collect()
}
