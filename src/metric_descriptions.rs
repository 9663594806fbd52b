//! What targets say of their metrics, for the comments on SQL tables and for `tsdb.metadata`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use promontory_sql::{MetricDescription, MetricDescriptions};

use crate::scrape::ScrapeManager;

/// Asks the targets that are scraped now.
pub(crate) struct FromTargets(pub(crate) Arc<ScrapeManager>);

impl fmt::Debug for FromTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FromTargets").finish_non_exhaustive()
    }
}

impl MetricDescriptions for FromTargets {
    fn all(&self) -> HashMap<String, MetricDescription> {
        // Where targets differ, the last one counts.
        let entries = self.0.metadata().into_iter().map(|entry| {
            let (kind, help, unit) =
                (entry.metadata.metric_type.as_str(), entry.metadata.help, entry.metadata.unit);
            (entry.metric, MetricDescription { kind: kind.to_owned(), help, unit })
        });
        entries.collect()
    }
}
