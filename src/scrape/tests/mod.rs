//! Scrapes against a storage in memory and a target in this process.

mod allocations;
mod database;
mod pages;
mod requests;
mod running;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use promontory_tsdb::{AppendError, Error, Labels, Result, SeriesRef, TimestampMs, is_stale};
use tokio::sync::Notify;

use super::append::{Counts, Fetched, Ingest};
use super::metrics::Counters;
use super::storage::{Append, Storage};
use super::target::{Target, discovered_labels};
use crate::config::{Config, ScrapeConfig};

/// Samples by series; refuses what a database without an out-of-order window refuses.
#[derive(Debug, Default)]
pub(super) struct Samples {
    series: Mutex<Vec<(Labels, Stored)>>,
    committed: Notify,
}

type Stored = Vec<(TimestampMs, f64)>;

struct Batch {
    samples: Arc<Samples>,
    staged: Vec<(usize, TimestampMs, f64)>,
}

impl Storage for Samples {
    fn appender(self: Arc<Self>) -> Box<dyn Append> {
        Box::new(Batch { samples: self, staged: Vec::new() })
    }
}

impl Append for Batch {
    fn append(
        &mut self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
        v: f64,
    ) -> Result<SeriesRef, Error> {
        let mut series = self.samples.series.lock();
        let i = match known.0 {
            0 => series.iter().position(|(l, _)| l == labels).unwrap_or(series.len()),
            n => n as usize - 1,
        };
        if i == series.len() {
            series.push((labels.clone(), Vec::new()));
        }
        assert_eq!(&series[i].0, labels, "a reference belongs to its labels");
        if t > 1_000_000_000 {
            return Err(AppendError::OutOfBounds.into());
        }
        match series[i].1.last() {
            Some((last, _)) if *last > t => return Err(AppendError::OutOfOrder.into()),
            Some((last, old)) if *last == t && old.to_bits() != v.to_bits() => {
                return Err(AppendError::Duplicate { timestamp: t, existing: *old, new: v }.into());
            }
            _ => self.staged.push((i, t, v)),
        }
        Ok(SeriesRef(i as u64 + 1))
    }

    fn commit(self: Box<Self>) -> Result<()> {
        let mut series = self.samples.series.lock();
        for (i, t, v) in self.staged {
            series[i].1.push((t, v));
        }
        self.samples.committed.notify_waiters();
        Ok(())
    }
}

impl Samples {
    /// `t=value` of every sample of every series whose text form contains `what`.
    fn show(&self, what: &str) -> BTreeMap<String, String> {
        let series = self.series.lock();
        let shown = series
            .iter()
            .filter(|(labels, samples)| !samples.is_empty() && labels.to_string().contains(what));
        shown
            .map(|(labels, samples)| {
                let samples = samples.iter().map(|(t, v)| match is_stale(*v) {
                    true => format!("{t}=stale"),
                    false => format!("{t}={v}"),
                });
                (labels.to_string(), samples.collect::<Vec<_>>().join(" "))
            })
            .collect()
    }

    /// The samples of the one series whose text form contains `what`.
    #[track_caller]
    fn one(&self, what: &str) -> String {
        let found = self.show(what);
        assert_eq!(found.len(), 1, "{what} in {found:?}");
        found.into_values().next().unwrap()
    }
}

/// A job from the keys under `job_name: j`, with the target `host:80`.
fn job(keys: &str) -> ScrapeConfig {
    let text = format!("scrape_configs:\n- job_name: j\n{keys}");
    let (config, warnings) = Config::parse(&text, Path::new("c.yml")).unwrap();
    assert_eq!(warnings, []);
    config.scrape_configs.into_iter().next().unwrap()
}

fn target(config: &ScrapeConfig, address: &str) -> Arc<Target> {
    let labels = BTreeMap::from([("__address__".to_owned(), address.to_owned())]);
    let discovered = discovered_labels(config, &labels, &BTreeMap::new());
    Arc::new(Target::try_new(config, discovered).unwrap().unwrap())
}

/// One target whose pages are given by hand, one second apart.
struct Pages {
    ingest: Ingest,
    samples: Arc<Samples>,
    counters: Arc<Counters>,
    t: TimestampMs,
}

impl Pages {
    fn new(keys: &str) -> Self {
        let config = Arc::new(job(keys));
        let target = target(&config, "host:80");
        let counters = Arc::new(Counters::default());
        let ingest = Ingest::new(config, target, Arc::clone(&counters));
        Self { ingest, samples: Arc::default(), counters, t: 0 }
    }

    fn scrape(&mut self, body: &str) -> std::result::Result<Counts, String> {
        self.store(Fetched::Page { body: body.as_bytes(), content_type: "text/plain; version=0.0.4" })
    }

    fn fail(&mut self) {
        let reason = "no route to host".to_owned();
        let fetched = Fetched::Failed { reason: reason.clone(), over_body_limit: false };
        assert_eq!(self.store(fetched), Err(reason));
    }

    fn store(&mut self, fetched: Fetched<'_>) -> std::result::Result<Counts, String> {
        self.t += 1000;
        let storage: Arc<dyn Storage> = Arc::clone(&self.samples) as _;
        self.ingest.store(&storage, fetched, self.t, || std::time::Duration::from_millis(250))
    }

    /// Value of a report series over all scrapes.
    fn report(&self, name: &str) -> String {
        self.samples.one(&format!("__name__=\"{name}\""))
    }
}
