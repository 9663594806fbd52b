//! What was asked of a database and when, and so what it must hold after a crash at any time.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use futures::StreamExt as _;
use promontory_tsdb::fs::Step;
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram};
use promontory_tsdb::{Labels, Queryable, SelectHints};

use crate::support::Contents;

/// Steps of the journal during which something was done; `end` is missing if it never succeeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) begin: usize,
    pub(crate) end: Option<usize>,
}

/// A sample that was appended.
#[derive(Debug, Clone, Copy)]
struct Sample {
    value: u64,
    batch: usize,
    /// Whether it came out of order, and so is in the write-behind log.
    late: bool,
}

#[derive(Debug, Clone)]
struct Delete {
    span: Span,
    labels: Labels,
    mint: i64,
    maxt: i64,
    /// Batches before this one are affected.
    batches: usize,
}

/// All that was asked of a database, over all its restarts.
#[derive(Debug, Default)]
pub(crate) struct History {
    samples: BTreeMap<Labels, BTreeMap<i64, Sample>>,
    batches: Vec<Span>,
    deletes: Vec<Delete>,
    syncs: Vec<Span>,
}

/// A time at which it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Steps that were done.
    pub(crate) steps: usize,
    /// What was acknowledged before this step is there.
    in_order: usize,
    /// The same of samples that came out of order.
    late: usize,
}

/// What a check counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) expected: usize,
    pub(crate) lost: usize,
    pub(crate) invented: usize,
    /// Batches of which only some samples are there.
    pub(crate) halved: usize,
    /// Batches that are there although one before them is not.
    pub(crate) overtaking: usize,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.lost + self.invented + self.halved + self.overtaking == 0
    }
}

impl Moment {
    /// The process was killed.
    pub(crate) fn killed(steps: usize) -> Self {
        Self { steps, in_order: steps, late: steps }
    }

    /// The power failed: what came before a sync of its log, or before a [`promontory_tsdb::Db::sync`], is there.
    pub(crate) fn power_cut(steps: usize, journal: &[std::sync::Arc<Step>], history: &History) -> Self {
        let synced = |dir: &str| {
            let in_log = |path: &Path| path.parent() == Some(Path::new(dir));
            journal[..steps].iter().rposition(|s| matches!(&**s, Step::SyncFile { path } if in_log(path)))
        };
        let asked =
            history.syncs.iter().filter(|s| s.end.is_some_and(|end| end <= steps)).map(|s| s.begin).max();
        Self {
            steps,
            in_order: asked.max(synced("wal")).unwrap_or(0),
            late: asked.max(synced("wbl")).unwrap_or(0),
        }
    }

    fn begun(&self, span: Span) -> bool {
        span.begin <= self.steps
    }

    fn kept(&self, span: Span, late: bool) -> bool {
        let horizon = if late { self.late } else { self.in_order };
        span.end.is_some_and(|end| end <= horizon)
    }
}

impl History {
    /// Notes a batch that is about to be committed, and gives its number.
    pub(crate) fn begin(
        &mut self,
        step: usize,
        samples: impl IntoIterator<Item = (Labels, i64, u64, bool)>,
    ) -> usize {
        let batch = self.batches.len();
        self.batches.push(Span { begin: step, end: None });
        for (labels, t, value, late) in samples {
            self.samples.entry(labels).or_default().insert(t, Sample { value, batch, late });
        }
        batch
    }

    /// Notes that a batch was acknowledged.
    pub(crate) fn acknowledge(&mut self, batch: usize, step: usize) {
        self.batches[batch].end = Some(step);
    }

    /// Notes a deletion; `span` is known when it is over.
    pub(crate) fn delete(&mut self, span: Span, labels: Labels, mint: i64, maxt: i64) {
        self.deletes.push(Delete { span, labels, mint, maxt, batches: self.batches.len() });
    }

    pub(crate) fn sync(&mut self, span: Span) {
        self.syncs.push(span);
    }

    /// Number of samples that were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.samples.values().flat_map(|s| s.values()).filter(|s| self.batches[s.batch].end.is_some()).count()
    }

    /// All that was acknowledged, less what was deleted.
    pub(crate) fn contents(&self) -> Contents {
        let end = Moment::killed(usize::MAX);
        self.select(|labels, t, sample| {
            end.kept(self.batches[sample.batch], sample.late) && !self.deleted(labels, t, sample, |_| true)
        })
    }

    fn select(&self, keep: impl Fn(&Labels, i64, &Sample) -> bool) -> Contents {
        let of = |(labels, samples): (&Labels, &BTreeMap<i64, Sample>)| {
            let kept = samples.iter().filter(|(t, s)| keep(labels, **t, s)).map(|(t, s)| (*t, s.value));
            (labels.clone(), kept.collect::<Vec<_>>())
        };
        self.samples.iter().map(of).filter(|(_, samples)| !samples.is_empty()).collect()
    }

    fn deleted(&self, labels: &Labels, t: i64, sample: &Sample, counts: impl Fn(Span) -> bool) -> bool {
        self.deletes.iter().any(|d| {
            counts(d.span)
                && sample.batch < d.batches
                && d.labels == *labels
                && (d.mint..=d.maxt).contains(&t)
        })
    }

    /// Compares what a database holds with what it must and may hold.
    pub(crate) fn check(&self, at: Moment, found: &Contents) -> Verdict {
        let must = self.select(|labels, t, sample| {
            at.kept(self.batches[sample.batch], sample.late)
                && !self.deleted(labels, t, sample, |d| at.begun(d))
        });
        let may = self.select(|labels, t, sample| {
            at.begun(self.batches[sample.batch]) && !self.deleted(labels, t, sample, |d| at.kept(d, false))
        });
        let mut verdict = Verdict { expected: must.values().map(Vec::len).sum(), ..Verdict::default() };
        verdict.lost = missing(&must, found);
        verdict.invented = missing(found, &may);
        (verdict.halved, verdict.overtaking) = self.check_batches(found);
        verdict
    }

    /// Batches come whole and in order. Samples that a deletion may have taken, or that came late, say nothing.
    fn check_batches(&self, found: &Contents) -> (usize, usize) {
        let mut counts = vec![(0, 0); self.batches.len()];
        for (labels, samples) in &self.samples {
            let there = found.get(labels).map_or(&[][..], Vec::as_slice);
            for (t, sample) in samples {
                if sample.late || self.deleted(labels, *t, sample, |_| true) {
                    continue;
                }
                let (present, all) = &mut counts[sample.batch];
                *all += 1;
                *present += usize::from(there.binary_search_by_key(t, |s| s.0).is_ok());
            }
        }
        let halved = counts.iter().filter(|(present, all)| *present != 0 && present != all).count();
        // A batch that was refused may be missing between others.
        let acknowledged = counts.iter().zip(&self.batches).filter(|(_, batch)| batch.end.is_some());
        let telling = acknowledged.map(|(count, _)| count).filter(|(_, all)| *all > 0);
        let after_a_gap = telling.skip_while(|(present, _)| *present > 0);
        let overtaking = after_a_gap.filter(|(present, _)| *present > 0).count();
        (halved, overtaking)
    }
}

/// Number of samples of `of` that `from` lacks or has with another value.
fn missing(of: &Contents, from: &Contents) -> usize {
    let lacking = |(labels, samples): (&Labels, &Vec<(i64, u64)>)| match from.get(labels) {
        None => samples.len(),
        Some(there) => samples
            .iter()
            .filter(|s| there.binary_search_by_key(&s.0, |x| x.0).map_or(true, |i| there[i].1 != s.1))
            .count(),
    };
    of.iter().map(lacking).sum()
}

/// A histogram as a number, whatever it says about resets: those follow from the samples around it.
pub(crate) fn digest(histogram: &FloatHistogram) -> u64 {
    let mut plain = histogram.clone();
    plain.counter_reset_hint = CounterResetHint::Unknown;
    let mut hasher = DefaultHasher::new();
    format!("{plain:?}").hash(&mut hasher);
    hasher.finish()
}

/// Everything there is, floats as their bits and histograms as their [`digest`].
pub(crate) fn read(source: &dyn Queryable) -> Contents {
    let mut out = Contents::new();
    for mut stream in source.select(&[], i64::MIN, i64::MAX, &SelectHints::default()).unwrap().partitions {
        while let Some(batch) = futures::executor::block_on(stream.next()) {
            let batch = batch.unwrap();
            for i in 0..batch.len() {
                let (labels, times, values) = batch.series(i);
                let floats = times.iter().copied().zip(values.iter().map(|v| v.to_bits()));
                let histograms = batch.histograms.iter().filter(|h| h.series as usize == i);
                let mut samples: Vec<_> =
                    floats.chain(histograms.map(|h| (h.timestamp, digest(&h.histogram)))).collect();
                samples.sort_unstable();
                assert!(samples.windows(2).all(|w| w[0].0 < w[1].0), "{labels} has a time twice");
                assert!(out.insert(labels.clone(), samples).is_none(), "{labels} comes twice");
            }
        }
    }
    out
}
