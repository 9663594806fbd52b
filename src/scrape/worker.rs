//! The loop of one target: when to scrape, and what happens when scraping ends.
//!
//! # Timing
//! The first scrape waits for the target's place in the interval; from then on one per interval, a
//! missed tick is skipped. A timestamp that is late by less than 2 ms (or 1 % of the interval) is
//! moved onto the tick, because equal distances compress better.
//!
//! # Ending
//! A scrape under way is finished first. Then: a *handed over* loop gives its cache to its successor
//! and writes nothing; a *removed* one waits two intervals and a bit, and then writes stale markers
//! at the time of the first scrape that was missed, in case nobody else scrapes the target by then;
//! at *shutdown* nothing is written, because the server will be back.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/scrape/scrape.go> (`scrapeLoop`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use promontory_tsdb::{Clock, TimestampMs};
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::append::{Fetched, Ingest};
use super::client::{Buffers, FetchError, PageClient};
use super::metrics::Counters;
use super::storage::Storage;
use super::target::{Health, Target};

/// How late a timestamp may be to be moved onto its tick.
const TOLERANCE: Duration = Duration::from_millis(2);

/// A page from this size on is stored on a thread of its own, so that others need not wait.
const LARGE_PAGE_BYTES: usize = 1 << 20;

/// What all loops share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) buffers: Buffers,
    pub(super) shutdown: CancellationToken,
}

/// Why a job's targets all fail, if they do.
pub(super) type ForcedError = Arc<Mutex<Option<String>>>;

/// How a loop is to end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The target is no more.
    Removed,
    /// Another loop takes over.
    HandOver(oneshot::Sender<Ingest>),
}

/// Where a loop gets its cache.
#[derive(Debug)]
pub(super) enum Start {
    /// From nowhere, or a loop that has ended.
    With(Box<Ingest>),
    /// From the loop before, once that has finished its scrape.
    After { handed_over: oneshot::Receiver<Ingest>, fresh: Box<Ingest> },
}

/// The loop of one target.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Shared,
    pub(super) target: Arc<Target>,
    pub(super) client: Arc<PageClient>,
    pub(super) forced_error: ForcedError,
    pub(super) offset_seed: u64,
}

impl Worker {
    /// Scrapes until told to stop, or until shutdown.
    pub(super) async fn run(self, start: Start, mut stop: oneshot::Receiver<Stop>) {
        let mut ingest = match start {
            Start::With(ingest) => ingest,
            Start::After { handed_over, mut fresh } => match handed_over.await {
                Ok(mut kept) => {
                    kept.take_over(&mut fresh);
                    Box::new(kept)
                }
                Err(_) => fresh,
            },
        };
        let mut last_scrape = None;
        let mut ticker = None;
        let reason = tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => return,
            reason = &mut stop => reason,
            () = self.wait_for_first() => {
                self.scrape_until(&mut ingest, &mut stop, &mut ticker, &mut last_scrape).await
            }
        };
        match (reason, ticker, last_scrape) {
            (Ok(Stop::HandOver(successor)), _, _) => {
                // If the successor is gone too, nobody needs the cache.
                let _ = successor.send(*ingest);
            }
            (Ok(Stop::Removed), Some(ticker), Some(_)) => self.end(&mut ingest, ticker).await,
            (Ok(Stop::Removed) | Err(_), _, _) => {}
        }
    }

    async fn wait_for_first(&self) {
        let wait = self.target.first_scrape_in(self.shared.clock.now_ms(), self.offset_seed);
        tokio::time::sleep(wait).await;
    }

    async fn scrape_until(
        &self,
        ingest: &mut Ingest,
        stop: &mut oneshot::Receiver<Stop>,
        ticker_slot: &mut Option<Interval>,
        last_scrape: &mut Option<Instant>,
    ) -> Result<Stop, oneshot::error::RecvError> {
        let interval = self.target.interval;
        let ticker = ticker_slot.insert(interval_at(Instant::now() + interval, interval));
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut aligned_ms = self.shared.clock.now_ms();
        loop {
            let t = align(self.shared.clock.now_ms(), &mut aligned_ms, interval);
            if let Some(last) = *last_scrape {
                self.shared.counters.observe_interval(interval, last.elapsed());
            }
            *last_scrape = Some(Instant::now());
            tokio::select! {
                // A request under way at shutdown is dropped and leaves nothing behind.
                () = self.shared.shutdown.cancelled() => return Ok(Stop::Removed),
                () = self.scrape_once(ingest, t) => {}
            }
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return Ok(Stop::Removed),
                reason = &mut *stop => return reason,
                _ = ticker.tick() => {}
            }
        }
    }

    /// Fetches the page and stores it as of `t`.
    pub(super) async fn scrape_once(&self, ingest: &mut Ingest, t: TimestampMs) {
        let began = Instant::now();
        let mut body = self.shared.buffers.take();
        let forced = self.forced_error.lock().clone();
        let fetched = match forced {
            Some(reason) => Err(FetchError::Other(reason)),
            None => self.client.fetch(&self.target, &mut body).await,
        };
        let is_large = body.len() >= LARGE_PAGE_BYTES;
        let mut store = || self.store(ingest, &fetched, &body, t, began);
        let has_other_threads =
            tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread;
        if is_large && has_other_threads {
            tokio::task::block_in_place(store);
        } else {
            store();
        }
        self.shared.buffers.give_back(body);
    }

    fn store(
        &self,
        ingest: &mut Ingest,
        fetched: &Result<String, FetchError>,
        body: &[u8],
        t: TimestampMs,
        began: Instant,
    ) {
        let counters = &self.shared.counters;
        let fetched = match fetched {
            Ok(content_type) => Fetched::Page { body, content_type },
            Err(FetchError::OverBodyLimit) => {
                counters.exceeded_body_size_limit.inc();
                Fetched::Failed { reason: "body size limit exceeded".to_owned(), over_body_limit: true }
            }
            Err(FetchError::Other(reason)) => {
                Fetched::Failed { reason: reason.clone(), over_body_limit: false }
            }
        };
        let result = ingest.store(&self.shared.storage, fetched, t, || began.elapsed());
        let took = began.elapsed();
        counters.scrapes.inc();
        counters.observe_scrape(took);
        let mut status = self.target.status.lock();
        status.last_scrape_ms = Some(t);
        status.last_duration = took;
        match result {
            Ok(_) => {
                status.health = Health::Up;
                status.last_error.clear();
            }
            Err(reason) => {
                counters.scrapes_failed.inc();
                tracing::debug!(target = self.target.key.shown_url, error = reason, "scrape failed");
                status.health = Health::Down;
                status.last_error = reason;
            }
        }
    }

    /// Marks the end of a removed target's series, unless the server shuts down first.
    async fn end(&self, ingest: &mut Ingest, mut ticker: Interval) {
        let mut stale_ms = None;
        let missed = async {
            ticker.tick().await;
            stale_ms = Some(self.shared.clock.now_ms());
            ticker.tick().await;
            tokio::time::sleep(self.target.interval / 10).await;
        };
        tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => return,
            () = missed => {}
        }
        if let Some(stale_ms) = stale_ms {
            ingest.end_target(&self.shared.storage, stale_ms);
        }
    }
}

/// The timestamp of a scrape that starts at `now_ms`. `aligned_ms` is the tick before, and is moved on.
fn align(now_ms: TimestampMs, aligned_ms: &mut TimestampMs, interval: Duration) -> TimestampMs {
    let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let tolerance_ms = i64::try_from(TOLERANCE.min(interval / 100).as_millis()).unwrap_or_default();
    if now_ms < *aligned_ms {
        // The clock was set back.
        *aligned_ms = now_ms;
        return now_ms;
    }
    *aligned_ms += (now_ms - *aligned_ms) / interval_ms * interval_ms;
    if now_ms - *aligned_ms <= tolerance_ms { *aligned_ms } else { now_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_late_counts_as_on_time() {
        let interval = Duration::from_secs(1);
        let mut aligned = 1000;
        for (now, want) in
            [(1000, 1000), (2002, 2000), (3001, 3000), (4003, 4003), (5000, 5000), (9002, 9000), (8000, 8000)]
        {
            assert_eq!(align(now, &mut aligned, interval), want);
        }
        let mut aligned = 0;
        assert_eq!(align(101, &mut aligned, Duration::from_millis(100)), 100);
        assert_eq!(align(202, &mut aligned, Duration::from_millis(100)), 202);
    }
}
