//! Types, help texts and units that a target's pages carry.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::exposition::MetricType;

/// How many scrapes a family is remembered after its last mention.
const KEPT_SCRAPES: u64 = 10;

/// What is known of a metric family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricMetadata {
    /// Its type.
    pub metric_type: MetricType,
    /// Its help text.
    pub help: String,
    /// Its unit.
    pub unit: String,
}

#[derive(Debug, Default)]
struct Family {
    metadata: MetricMetadata,
    seen: u64,
    /// The scrape that last said something new.
    changed: u64,
}

/// Metadata of one target.
#[derive(Debug, Default)]
pub(super) struct MetadataStore(Mutex<Families>);

#[derive(Debug, Default)]
struct Families {
    by_name: HashMap<Box<[u8]>, Family>,
    scrape: u64,
}

/// One line of metadata.
#[derive(Debug)]
pub(super) enum Line<'a> {
    Type(MetricType),
    Help(&'a [u8]),
    Unit(&'a [u8]),
}

impl MetadataStore {
    /// Takes a line in, and says whether this scrape has said anything new about the family. Allocates only
    /// for what is new.
    pub(super) fn set(&self, metric: &[u8], line: &Line<'_>) -> bool {
        let mut families = self.0.lock();
        let scrape = families.scrape;
        if !families.by_name.contains_key(metric) {
            families.by_name.insert(metric.into(), Family { changed: scrape, ..Family::default() });
        }
        let Some(family) = families.by_name.get_mut(metric) else { return false };
        family.seen = scrape;
        let has_changed = match line {
            Line::Type(metric_type) => {
                std::mem::replace(&mut family.metadata.metric_type, *metric_type) != *metric_type
            }
            Line::Help(text) => set_text(&mut family.metadata.help, text),
            Line::Unit(text) => set_text(&mut family.metadata.unit, text),
        };
        if has_changed {
            family.changed = scrape;
        }
        family.changed == scrape
    }

    /// What is known of a family.
    pub(super) fn get(&self, metric: &[u8]) -> Option<MetricMetadata> {
        self.0.lock().by_name.get(metric).map(|family| family.metadata.clone())
    }

    /// Ends a good scrape.
    pub(super) fn finish(&self) {
        let mut families = self.0.lock();
        families.scrape += 1;
        let scrape = families.scrape;
        families.by_name.retain(|_, family| scrape - family.seen <= KEPT_SCRAPES);
    }

    /// All families, by name.
    pub(super) fn list(&self) -> Vec<(String, MetricMetadata)> {
        let families = self.0.lock();
        let mut all: Vec<_> = families
            .by_name
            .iter()
            .map(|(name, family)| (String::from_utf8_lossy(name).into_owned(), family.metadata.clone()))
            .collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

fn set_text(to: &mut String, text: &[u8]) -> bool {
    let is_new = to.as_bytes() != text;
    if is_new {
        *to = String::from_utf8_lossy(text).into_owned();
    }
    is_new
}
