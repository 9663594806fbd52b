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
    /// Takes a line in. Allocates only for what is new.
    pub(super) fn set(&self, metric: &[u8], line: &Line<'_>) {
        let mut families = self.0.lock();
        let scrape = families.scrape;
        if !families.by_name.contains_key(metric) {
            families.by_name.insert(metric.into(), Family::default());
        }
        let Some(family) = families.by_name.get_mut(metric) else { return };
        family.seen = scrape;
        match line {
            Line::Type(metric_type) => family.metadata.metric_type = *metric_type,
            Line::Help(text) => set_text(&mut family.metadata.help, text),
            Line::Unit(text) => set_text(&mut family.metadata.unit, text),
        }
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

fn set_text(to: &mut String, text: &[u8]) {
    if to.as_bytes() != text {
        *to = String::from_utf8_lossy(text).into_owned();
    }
}
