//! What is known about series beside their samples: exemplars and metadata.

use std::sync::Arc;

use super::Db;
use crate::exemplar::ExemplarStorage;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::metadata::Metadata;
use crate::sample::SeriesRef;

impl Db {
    /// The newest exemplars, [`DbOptions::exemplars_max`](super::DbOptions::exemplars_max) at most.
    pub fn exemplars(&self) -> &ExemplarStorage {
        &self.head.exemplars
    }

    /// Latest metadata of series of the head for which all `matchers` hold, in label order. Series without
    /// metadata are left out.
    pub fn metadata(&self, matchers: &[Matcher]) -> Vec<(Labels, Arc<Metadata>)> {
        let mut out = Vec::new();
        self.head.index.for_each(|series| {
            if Matcher::all_match(matchers, &series.labels)
                && let Some(metadata) = self.head.metadata.read().get(series.series)
            {
                out.push((series.labels.clone(), metadata));
            }
        });
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    /// Latest metadata of one series of the head.
    pub fn metadata_of(&self, series: SeriesRef) -> Option<Arc<Metadata>> {
        self.head.metadata.read().get(series)
    }
}
