//! From a page to an appender: labels, relabelling, limits, report series, stale markers.
//!
//! Blocking and free of time and network: what a scrape stores is decided here, from the bytes of
//! the page and the time of the scrape.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/scrape/scrape.go> (`scrapeLoopAppender`).
//! Differences: samples older than the out-of-order window are dropped like other late ones, and do
//! not fail the scrape; see also [`super::cache`].

use std::sync::Arc;
use std::time::Duration;

use promontory_tsdb::exemplar::{Exemplar, ExemplarError};
use promontory_tsdb::histogram::HistogramValue;
use promontory_tsdb::metadata::{Metadata, MetricKind};
use promontory_tsdb::{
    AppendError, Error, Labels, LabelsBuilder, METRIC_NAME, SeriesRef, TimestampMs, stale_nan,
};

use super::cache::{Cache, Known, Page, Slot};
use super::metadata::Line;
use super::metrics::Counters;
use super::storage::{Append, Storage, Takes};
use super::target::Target;
use crate::config::ScrapeConfig;
use crate::exposition::{
    Entry, MetricType, PageFormat, ParsedExemplar, Parser, ProtobufOptions, ProtobufPage, Series,
};
use crate::relabel;

/// Series that every scrape leaves besides what the page says, in the order they are stored.
const REPORT_SERIES: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// How many of [`REPORT_SERIES`] are stored unless `extra_scrape_metrics` is set.
const PLAIN_REPORT_SERIES: usize = 5;

/// What a request brought.
#[derive(Debug)]
pub(super) enum Fetched<'a> {
    /// A page; `content_type` as the target said it.
    Page { body: &'a [u8], content_type: &'a str },
    /// No page, and why.
    Failed { reason: String, over_body_limit: bool },
}

/// Numbers of one scrape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Samples on the page.
    pub(super) scraped: u64,
    /// Samples that relabelling kept.
    pub(super) kept: u64,
    /// Series that the cache did not know.
    pub(super) series_added: u64,
}

/// Stores what one target says, scrape after scrape.
#[derive(Debug)]
pub(super) struct Ingest {
    config: Arc<ScrapeConfig>,
    target: Arc<Target>,
    counters: Arc<Counters>,
    cache: Cache,
    report: [(SeriesRef, Labels); REPORT_SERIES.len()],
}

/// Samples of a page that were refused one by one.
#[derive(Debug, Default)]
struct Refused {
    out_of_order: u64,
    duplicate: u64,
    out_of_bounds: u64,
    exemplars_out_of_order: u64,
    over_sample_limit: bool,
}

/// The family that a page speaks of.
#[derive(Debug, Default)]
struct CurrentFamily {
    name: Vec<u8>,
    /// Whether this page says something new about it.
    has_changed: bool,
}

/// One page on its way in.
struct Run<'a> {
    ingest: &'a mut Ingest,
    app: &'a mut dyn Append,
    takes: Takes,
    t: TimestampMs,
    counts: Counts,
    refused: Refused,
    appended: u64,
    family: CurrentFamily,
}

impl Ingest {
    pub(super) fn new(config: Arc<ScrapeConfig>, target: Arc<Target>, counters: Arc<Counters>) -> Self {
        let report = REPORT_SERIES.map(|name| {
            let mut builder = target.labels.to_builder();
            builder.set(METRIC_NAME, name);
            (SeriesRef::default(), builder.build())
        });
        Self { config, target, counters, cache: Cache::default(), report }
    }

    /// Keeps the cache, and takes configuration and target of `fresh`, which must label samples in
    /// the same way.
    pub(super) fn take_over(&mut self, fresh: &mut Self) {
        std::mem::swap(&mut self.config, &mut fresh.config);
        std::mem::swap(&mut self.target, &mut fresh.target);
    }

    /// Stores one scrape. `took` is asked once all but the report is staged. Returns why the scrape
    /// failed, if it did.
    pub(super) fn store(
        &mut self,
        storage: &Arc<dyn Storage>,
        fetched: Fetched<'_>,
        t: TimestampMs,
        took: impl Fn() -> Duration,
    ) -> Result<Counts, String> {
        let mut app = Arc::clone(storage).appender();
        let mut counts = Counts::default();
        let mut body_bytes = 0.0;
        let result = match fetched {
            Fetched::Page { body: &[], .. } => {
                self.end_all(&mut *app, t);
                Ok(())
            }
            Fetched::Page { body, content_type } => {
                body_bytes = body.len() as f64;
                let result = self.page(&mut *app, body, content_type, t, &mut counts);
                if result.is_err() {
                    // Forget what the page had, then mark the end of all that was there before.
                    app = Arc::clone(storage).appender();
                    self.mark_stale(&mut *app, t, true);
                    self.finish(Page::Failed);
                }
                result
            }
            Fetched::Failed { reason, over_body_limit } => {
                body_bytes = if over_body_limit { -1.0 } else { 0.0 };
                self.end_all(&mut *app, t);
                Err(reason)
            }
        };
        let values = [
            f64::from(u8::from(result.is_ok())),
            took().as_secs_f64(),
            counts.scraped as f64,
            counts.kept as f64,
            counts.series_added as f64,
            self.target.timeout.as_secs_f64(),
            self.config.limits.samples as f64,
            body_bytes,
        ];
        self.append_report(&mut *app, t, &values);
        match app.commit() {
            Ok(()) => self.counters.samples_appended.add(counts.kept),
            Err(error) => tracing::error!(
                job = self.config.job_name,
                target = self.target.key.shown_url,
                error = &error as &dyn std::error::Error,
                "scrape commit failed"
            ),
        }
        result.map(|()| counts)
    }

    /// Marks the end of everything, the report series too: the target is no more.
    pub(super) fn end_target(&mut self, storage: &Arc<dyn Storage>, t: TimestampMs) {
        let mut app = Arc::clone(storage).appender();
        self.end_all(&mut *app, t);
        self.append_report(&mut *app, t, &[stale_nan(); REPORT_SERIES.len()]);
        if let Err(error) = app.commit() {
            tracing::warn!(error = &error as &dyn std::error::Error, "stale marker commit failed");
        }
    }

    /// Ends the scrape as one without a page.
    fn end_all(&mut self, app: &mut dyn Append, t: TimestampMs) {
        self.mark_stale(app, t, false);
        self.finish(Page::Missing);
    }

    fn finish(&mut self, page: Page) {
        if self.cache.finish(page) {
            self.counters.cache_flush_forced.inc();
        }
        if page == Page::Good {
            self.target.metadata.finish();
        }
    }

    fn mark_stale(&self, app: &mut dyn Append, t: TimestampMs, page_failed: bool) {
        let result = self.cache.for_each_stale(page_failed, |series, labels| {
            match app.append(series, labels, t, stale_nan()) {
                // The target went away and is back in another loop, which has stored newer samples.
                Ok(_) | Err(Error::Append(_)) => Ok(()),
                Err(error) => Err(error),
            }
        });
        if let Err(error) = result {
            tracing::warn!(error = &error as &dyn std::error::Error, "appending stale markers failed");
        }
    }

    fn append_report(&mut self, app: &mut dyn Append, t: TimestampMs, values: &[f64; REPORT_SERIES.len()]) {
        let wanted = if self.config.extra_scrape_metrics { REPORT_SERIES.len() } else { PLAIN_REPORT_SERIES };
        for ((series, labels), value) in self.report.iter_mut().zip(values).take(wanted) {
            match app.append(*series, labels, t, *value) {
                Ok(found) => *series = found,
                Err(Error::Append(_)) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "appending scrape report failed"
                    );
                    return;
                }
            }
        }
    }

    fn page(
        &mut self,
        app: &mut dyn Append,
        body: &[u8],
        content_type: &str,
        t: TimestampMs,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let fallback = self.config.fallback_scrape_protocol.map(|p| p.format());
        let format = PageFormat::from_content_type(content_type, fallback).map_err(|e| e.to_string())?;
        let takes = app.takes();
        let options = ProtobufOptions {
            native_histograms: self.config.scrape_native_histograms && takes.histograms,
            classic_beside_native: self.config.always_scrape_classic_histograms,
        };
        let mut run = Run {
            ingest: self,
            app,
            takes,
            t,
            counts: *counts,
            refused: Refused::default(),
            appended: 0,
            family: CurrentFamily::default(),
        };
        let result = match format {
            PageFormat::Text(format) => run.text(Parser::new(format, body)),
            PageFormat::Protobuf => match ProtobufPage::parse(body, options) {
                Ok(page) => run.protobuf(&page),
                Err(e) => Err(e.to_string()),
            },
        };
        *counts = run.counts;
        let refused = run.refused;
        self.note_refused(&refused);
        result?;
        if refused.over_sample_limit {
            self.counters.exceeded_sample_limit.inc();
            return Err("sample limit exceeded".to_owned());
        }
        self.mark_stale(app, t, false);
        self.finish(Page::Good);
        Ok(())
    }

    fn note_refused(&self, refused: &Refused) {
        self.counters.samples_out_of_order.add(refused.out_of_order);
        self.counters.samples_duplicate.add(refused.duplicate);
        self.counters.samples_out_of_bounds.add(refused.out_of_bounds);
        self.counters.exemplars_out_of_order.add(refused.exemplars_out_of_order);
        let target = self.target.key.shown_url.as_str();
        for (dropped, why) in [
            (refused.out_of_order, "out-of-order samples"),
            (refused.duplicate, "samples with different value but same timestamp"),
            (refused.out_of_bounds, "samples that are too old or too far into the future"),
            (refused.exemplars_out_of_order, "out-of-order exemplars"),
        ] {
            if dropped > 0 {
                tracing::warn!(job = self.config.job_name, target, dropped, "dropped {why}");
            }
        }
    }

    /// The labels that a series is stored under; empty if relabelling drops it.
    fn labels(&self, series: &Series<'_>, parser: Option<&Parser<'_>>) -> Result<Labels, String> {
        let mut builder = LabelsBuilder::default();
        series.labels_into(&mut builder).map_err(|e| match parser {
            Some(parser) => parser.locate(series, e).to_string(),
            None => e.to_string(),
        })?;
        add_target_labels(&mut builder, &self.target.labels, self.config.honor_labels);
        if !relabel::apply(&self.config.metric_relabel_configs, &mut builder) {
            return Ok(Labels::default());
        }
        let labels = builder.build();
        if labels.is_empty() {
            return Ok(labels);
        }
        let validation = self.config.name_validation;
        let Some(name) = labels.get(METRIC_NAME) else {
            return Err("missing metric name (__name__ label)".to_owned());
        };
        if !validation.is_valid_metric_name(name)
            || !labels.iter().all(|(name, _)| validation.is_valid_label_name(name))
        {
            return Err(format!("invalid metric name or label names: {labels}"));
        }
        if let Err(reason) = self.check_label_limits(&labels) {
            self.counters.exceeded_label_limits.inc();
            return Err(reason);
        }
        Ok(labels)
    }

    fn check_label_limits(&self, labels: &Labels) -> Result<(), String> {
        let limits = self.config.limits;
        let over = |n: usize, limit: u64| limit > 0 && n as u64 > limit;
        let metric = start(labels.metric_name());
        if limits.labels > 0 && over(labels.len(), limits.labels) {
            return Err(format!(
                "label_limit exceeded (metric: {metric}, number of labels: {}, limit: {})",
                labels.len(),
                limits.labels
            ));
        }
        if limits.label_name_bytes == 0 && limits.label_value_bytes == 0 {
            return Ok(());
        }
        for (name, value) in labels.iter() {
            if over(name.len(), limits.label_name_bytes) {
                return Err(format!(
                    "label_name_length_limit exceeded (metric: {metric}, label name: {}, length: {}, limit: {})",
                    start(name),
                    name.len(),
                    limits.label_name_bytes
                ));
            }
            if over(value.len(), limits.label_value_bytes) {
                return Err(format!(
                    "label_value_length_limit exceeded (metric: {metric}, label name: {}, value: {:?}, length: {}, limit: {})",
                    start(name),
                    start(value),
                    value.len(),
                    limits.label_value_bytes
                ));
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.cache.len()
    }
}

/// At most 50 characters, for messages.
fn start(text: &str) -> String {
    text.chars().take(50).collect()
}

/// Adds the target's labels to those of a sample.
fn add_target_labels(builder: &mut LabelsBuilder, target: &Labels, honor_labels: bool) {
    let mut conflicts: Vec<(&str, String)> = Vec::new();
    for (name, value) in target.iter() {
        match builder.get(name) {
            Some(_) if honor_labels => continue,
            Some(scraped) => conflicts.push((name, scraped.to_owned())),
            None => {}
        }
        builder.set(name, value);
    }
    conflicts.sort_by_key(|(name, _)| name.len());
    for (name, value) in conflicts {
        let mut exported = format!("exported_{name}");
        while builder.get(&exported).is_some() {
            exported.insert_str(0, "exported_");
        }
        builder.set(&exported, &value);
    }
}

/// The value of a sample.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Float(f64),
    Histogram(&'a HistogramValue),
}

/// A sample that was stored.
#[derive(Debug, Clone, Copy)]
struct Stored {
    series: SeriesRef,
    /// `None` if the cache is full.
    slot: Option<Slot>,
    t: TimestampMs,
    is_new: bool,
}

impl Run<'_> {
    fn text(&mut self, mut parser: Parser<'_>) -> Result<(), String> {
        while let Some(entry) = parser.next_expecting(self.ingest.cache.expected()) {
            match entry.map_err(|e| e.to_string())? {
                Entry::Series(series) => {
                    let stored = self.sample(&series, Value::Float(series.value), Some(&parser))?;
                    if self.takes.exemplars
                        && let (Some(stored), Some(exemplar)) = (stored, parser.exemplar())
                    {
                        self.exemplars(stored, std::slice::from_ref(exemplar));
                    }
                }
                other => self.metadata(&other),
            }
        }
        Ok(())
    }

    fn protobuf(&mut self, page: &ProtobufPage<'_>) -> Result<(), String> {
        for (entry, exemplars) in page.entries() {
            let stored = match &entry {
                Entry::Series(series) => self.sample(series, Value::Float(series.value), None)?,
                Entry::Histogram(series, value) => self.sample(series, Value::Histogram(value), None)?,
                other => {
                    self.metadata(other);
                    continue;
                }
            };
            if self.takes.exemplars
                && let Some(stored) = stored
                && !exemplars.is_empty()
            {
                self.exemplars(stored, exemplars);
            }
        }
        Ok(())
    }

    /// Takes in what a page says about a family.
    fn metadata(&mut self, entry: &Entry<'_>) {
        let (metric, line) = match entry {
            Entry::Type { metric, metric_type } => (*metric, Line::Type(*metric_type)),
            Entry::Help { metric, text } => (*metric, Line::Help(text)),
            Entry::Unit { metric, unit } => (*metric, Line::Unit(unit)),
            Entry::Series(_) | Entry::Histogram(..) | Entry::Comment(_) => return,
        };
        let has_changed = self.ingest.target.metadata.set(metric, &line);
        if self.takes.metadata {
            self.family.name.clear();
            self.family.name.extend_from_slice(metric);
            self.family.has_changed = has_changed;
        }
    }

    /// Stores exemplars of a sample; one that is refused does not fail the scrape.
    fn exemplars(&mut self, stored: Stored, exemplars: &[ParsedExemplar]) {
        let Some(slot) = stored.slot else { return };
        let (_, labels) = self.ingest.cache.series(slot);
        let mut late = 0;
        for e in exemplars {
            let exemplar = Exemplar {
                labels: e.labels.clone(),
                value: e.value,
                timestamp: e.timestamp_ms.unwrap_or(stored.t),
                has_timestamp: e.timestamp_ms.is_some(),
            };
            match self.app.append_exemplar(stored.series, labels, exemplar) {
                Ok(()) => {}
                Err(ExemplarError::OutOfOrder) => late += 1,
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "an exemplar was refused");
                }
            }
        }
        // If only some are late, the others are an update of what is there.
        if late == exemplars.len() as u64 {
            self.refused.exemplars_out_of_order += late;
        }
    }

    /// Says what a series is about, if that is new.
    fn describe(&mut self, stored: Stored) {
        let Some(slot) = stored.slot.filter(|_| stored.is_new || self.family.has_changed) else { return };
        let name = &self.family.name;
        let Some(family) = self.ingest.target.metadata.get(name) else { return };
        let (_, labels) = self.ingest.cache.series(slot);
        if is_of_family(labels.metric_name().as_bytes(), name, family.metric_type) {
            let kind = metric_kind(family.metric_type);
            let metadata = Metadata { kind, unit: family.unit, help: family.help };
            self.app.set_metadata(stored.series, metadata);
        }
    }

    #[inline]
    fn sample(
        &mut self,
        series: &Series<'_>,
        value: Value<'_>,
        parser: Option<&Parser<'_>>,
    ) -> Result<Option<Stored>, String> {
        let stored = self.store(series, value, parser)?;
        if self.takes.metadata
            && let Some(stored) = stored
        {
            self.describe(stored);
        }
        Ok(stored)
    }

    #[inline]
    fn store(
        &mut self,
        series: &Series<'_>,
        value: Value<'_>,
        parser: Option<&Parser<'_>>,
    ) -> Result<Option<Stored>, String> {
        self.counts.scraped += 1;
        let own_timestamp = series.timestamp_ms.filter(|_| self.ingest.config.honor_timestamps);
        let tracked = own_timestamp.is_none() || self.ingest.config.track_timestamps_staleness;
        let t = own_timestamp.unwrap_or(self.t);
        let mut stored = None;
        match self.ingest.cache.look_up(series.text) {
            Known::Dropped => return Ok(None),
            Known::Series { again: true, .. } if own_timestamp.is_none() => self.refused.duplicate += 1,
            Known::Series { slot, .. } => {
                let cache = &mut self.ingest.cache;
                let (known, labels) = cache.series(slot);
                let limit = self.ingest.config.limits.samples;
                let found = append(self.app, &mut self.appended, limit, known, labels, t, value);
                if let Some(found) = accept(&mut self.refused, found)? {
                    if found != known {
                        cache.set_series(slot, found);
                    }
                    if tracked {
                        cache.track(slot);
                    }
                    stored = Some(Stored { series: found, slot: Some(slot), t, is_new: false });
                }
            }
            Known::New => {
                let labels = self.ingest.labels(series, parser)?;
                let cache = &mut self.ingest.cache;
                if labels.is_empty() {
                    cache.insert(series.text, SeriesRef::default(), labels);
                    return Ok(None);
                }
                let limit = self.ingest.config.limits.samples;
                let none = SeriesRef::default();
                let found = append(self.app, &mut self.appended, limit, none, &labels, t, value);
                // A series that is refused is not remembered, so that no marker is written for it.
                if let Some(found) = accept(&mut self.refused, found)? {
                    let slot = cache.insert(series.text, found, labels);
                    if let Some(slot) = slot.filter(|_| tracked) {
                        cache.track(slot);
                    }
                    self.counts.series_added += u64::from(!self.refused.over_sample_limit);
                    stored = Some(Stored { series: found, slot, t, is_new: true });
                }
            }
        }
        self.counts.kept += 1;
        Ok(stored)
    }
}

/// Whether a series is one of those that a family of this name and type has.
///
/// Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/scrape/scrape.go> (`isSeriesPartOfFamily`).
fn is_of_family(series: &[u8], family: &[u8], metric_type: MetricType) -> bool {
    let suffixes: &[&[u8]] = match metric_type {
        MetricType::Counter => &[b"_total"],
        MetricType::Histogram => &[b"_bucket", b"_sum", b"_count"],
        MetricType::GaugeHistogram => &[b"_bucket", b"_gsum", b"_gcount"],
        MetricType::Summary => &[b"_sum", b"_count"],
        MetricType::Info => &[b"_info"],
        MetricType::Gauge | MetricType::StateSet | MetricType::Unknown => &[],
    };
    let stem = |name: &[u8]| suffixes.iter().find_map(|s| name.strip_suffix(*s)).unwrap_or(name).to_vec();
    // Prometheus text names the family of a counter or an info with the suffix.
    let family = match metric_type {
        MetricType::Counter | MetricType::Info => stem(family),
        _ => family.to_vec(),
    };
    stem(series) == family
}

fn metric_kind(metric_type: MetricType) -> MetricKind {
    match metric_type {
        MetricType::Counter => MetricKind::Counter,
        MetricType::Gauge => MetricKind::Gauge,
        MetricType::Histogram => MetricKind::Histogram,
        MetricType::GaugeHistogram => MetricKind::GaugeHistogram,
        MetricType::Summary => MetricKind::Summary,
        MetricType::Info => MetricKind::Info,
        MetricType::StateSet => MetricKind::StateSet,
        MetricType::Unknown => MetricKind::Unknown,
    }
}

/// Appends unless the limit is reached, which gives `None`.
#[inline]
fn append(
    app: &mut dyn Append,
    appended: &mut u64,
    limit: u64,
    known: SeriesRef,
    labels: &Labels,
    t: TimestampMs,
    value: Value<'_>,
) -> Option<Result<SeriesRef, Error>> {
    *appended += 1;
    (limit == 0 || *appended <= limit).then(|| match value {
        Value::Float(v) => app.append(known, labels, t, v),
        Value::Histogram(value) => app.append_histogram(known, labels, t, value),
    })
}

/// Sorts out what is wrong with the sample from what is wrong with the scrape.
#[inline]
fn accept(
    refused: &mut Refused,
    found: Option<Result<SeriesRef, Error>>,
) -> Result<Option<SeriesRef>, String> {
    match found {
        Some(Ok(series)) => return Ok(Some(series)),
        None => refused.over_sample_limit = true,
        Some(Err(Error::Append(AppendError::OutOfOrder | AppendError::TooOld))) => refused.out_of_order += 1,
        Some(Err(Error::Append(AppendError::Duplicate { .. }))) => refused.duplicate += 1,
        Some(Err(Error::Append(AppendError::OutOfBounds))) => refused.out_of_bounds += 1,
        Some(Err(error)) => return Err(error.to_string()),
    }
    Ok(None)
}
