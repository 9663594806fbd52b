//! What was asked of a database and when, and so what it must hold after a crash at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use promontory_tsdb::exemplar::Exemplar;
use promontory_tsdb::fs::Step;
use promontory_tsdb::{Db, Labels};

use crate::support::{Contents, Value, differences, read_everything};

/// Steps of the journal during which something was done; `end` is missing if it never succeeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) begin: usize,
    pub(crate) end: Option<usize>,
}

/// What a batch holds of one series.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) labels: Labels,
    pub(crate) t: i64,
    pub(crate) value: Value,
    /// Whether it came out of order, and so is in the write-behind log.
    pub(crate) late: bool,
    pub(crate) exemplar: Option<Exemplar>,
    /// Number of the metadata that comes with it; grows.
    pub(crate) metadata: Option<u64>,
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) samples: Contents,
    /// By series, with the number in their labels.
    exemplars: BTreeSet<(Labels, i64, String)>,
    /// Numbers by series.
    metadata: BTreeMap<Labels, u64>,
    /// Where the head begins: exemplars before are not in the log any more.
    head_from: Option<i64>,
    /// Whether it started from a snapshot of the head, which has no metadata.
    from_snapshot: bool,
}

impl Found {
    pub(crate) fn in_db(db: &Db) -> Self {
        let mut exemplars = BTreeSet::new();
        for (labels, list) in db.exemplars().select(i64::MIN, i64::MAX, &[&[]]) {
            for e in list {
                let id = e.labels.get("id").unwrap().to_owned();
                assert!(exemplars.insert((labels.clone(), e.timestamp, id)), "an exemplar comes twice");
            }
        }
        let number = |help: &str| help.parse().unwrap();
        Self {
            samples: read_everything(db),
            exemplars,
            metadata: db.metadata(&[]).into_iter().map(|(labels, m)| (labels, number(&m.help))).collect(),
            head_from: db.head_stats().min_time,
            from_snapshot: db.replay_stats().snapshot_series > 0,
        }
    }
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
    exemplars: BTreeMap<(Labels, i64, String), usize>,
    /// Batches that set metadata, by series and number.
    metadata: BTreeMap<Labels, BTreeMap<u64, usize>>,
}

/// A time at which it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Steps that were done.
    pub(crate) steps: usize,
    /// What was acknowledged before this step is there.
    horizon: usize,
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
    /// Exemplars and metadata that were expected, are missing, and were never there.
    pub(crate) notes: (usize, usize, usize),
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        let (_, lost, invented) = self.notes;
        self.lost + self.invented + self.halved + self.overtaking + lost + invented == 0
    }
}

impl Moment {
    /// The process was killed.
    pub(crate) fn killed(steps: usize) -> Self {
        Self { steps, horizon: steps }
    }

    /// The power failed: what came before a sync of the write-ahead log, or before a [`promontory_tsdb::Db::sync`], is
    /// there, late samples too.
    pub(crate) fn power_cut(steps: usize, journal: &[std::sync::Arc<Step>], history: &History) -> Self {
        let in_log = |path: &Path| path.parent() == Some(Path::new("wal"));
        let synced =
            journal[..steps].iter().rposition(|s| matches!(&**s, Step::SyncFile { path } if in_log(path)));
        let asked =
            history.syncs.iter().filter(|s| s.end.is_some_and(|end| end <= steps)).map(|s| s.begin).max();
        Self { steps, horizon: asked.max(synced).unwrap_or(0) }
    }

    fn begun(&self, span: Span) -> bool {
        span.begin <= self.steps
    }

    fn kept(&self, span: Span) -> bool {
        span.end.is_some_and(|end| end <= self.horizon)
    }
}

impl History {
    /// Notes a batch that is about to be committed, and gives its number.
    pub(crate) fn begin(&mut self, step: usize, entries: &[Entry]) -> usize {
        let batch = self.batches.len();
        self.batches.push(Span { begin: step, end: None });
        for Entry { labels, t, value, late, exemplar, metadata } in entries {
            let sample = Sample { value: value.bits(), batch, late: *late };
            self.samples.entry(labels.clone()).or_default().insert(*t, sample);
            if let Some(e) = exemplar {
                let id = e.labels.get("id").unwrap().to_owned();
                self.exemplars.insert((labels.clone(), e.timestamp, id), batch);
            }
            if let Some(number) = metadata {
                self.metadata.entry(labels.clone()).or_default().insert(*number, batch);
            }
        }
        batch
    }

    /// Whether there was ever an attempt to append a sample of the series at `t`.
    pub(crate) fn has(&self, labels: &Labels, t: i64) -> bool {
        self.samples.get(labels).is_some_and(|samples| samples.contains_key(&t))
    }

    /// Whether any sample of the series came late.
    pub(crate) fn has_late(&self, labels: &Labels) -> bool {
        self.samples.get(labels).is_some_and(|samples| samples.values().any(|s| s.late))
    }

    /// Whether Prometheus reads the series as we do. Late samples that came after a deletion of their time are hidden
    /// to it, and those before it come back with chunks whose samples are in blocks.
    pub(crate) fn is_read_alike(&self, labels: &Labels) -> bool {
        !self.has_late(labels) || self.deletes.iter().all(|d| d.labels != *labels)
    }

    /// Newest sample of a series that there was ever an attempt to append.
    pub(crate) fn newest(&self, labels: &Labels) -> Option<i64> {
        self.samples.get(labels)?.keys().next_back().copied()
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
            end.kept(self.batches[sample.batch]) && !self.deleted(labels, t, sample, |_| true)
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
    pub(crate) fn check(&self, at: Moment, found: &Found) -> Verdict {
        let must = self.select(|labels, t, sample| {
            at.kept(self.batches[sample.batch]) && !self.deleted(labels, t, sample, |d| at.begun(d))
        });
        let may = self.select(|labels, t, sample| {
            at.begun(self.batches[sample.batch]) && !self.deleted(labels, t, sample, |d| at.kept(d))
        });
        let mut verdict = Verdict { expected: must.values().map(Vec::len).sum(), ..Verdict::default() };
        verdict.lost = missing(&must, &found.samples);
        verdict.invented = missing(&found.samples, &may);
        if verdict.lost + verdict.invented > 0 {
            println!(
                "at step {}: must have is left, found right:{}",
                at.steps,
                differences(&must, &found.samples)
            );
            self.explain(&must, found);
        }
        (verdict.halved, verdict.overtaking) = self.check_batches(at, &found.samples);
        let exemplars = self.check_exemplars(at, found);
        let metadata = self.check_metadata(at, found);
        if exemplars.1 + exemplars.2 + metadata.1 + metadata.2 > 0 {
            println!(
                "exemplars (expected, lost, invented): {exemplars:?}, metadata: {metadata:?}, head from {:?}",
                found.head_from
            );
        }
        verdict.notes = (exemplars.0 + metadata.0, exemplars.1 + metadata.1, exemplars.2 + metadata.2);
        verdict
    }

    /// Prints what is known about samples that are not where they should be.
    fn explain(&self, must: &Contents, found: &Found) {
        for (labels, samples) in &self.samples {
            let has = |of: &Contents, t: i64| of.get(labels).is_some_and(|s| s.iter().any(|s| s.0 == t));
            let odd = samples.iter().filter(|(t, _)| has(must, **t) != has(&found.samples, **t));
            for (t, sample) in odd.take(3) {
                println!("{labels} at {t}: {:?}, {sample:?}", self.batches[sample.batch]);
                let deletes =
                    self.deletes.iter().filter(|d| d.labels == *labels && (d.mint..=d.maxt).contains(t));
                deletes.for_each(|d| println!("  {d:?}"));
            }
        }
    }

    /// Expected, lost, invented. Those of the time of the head are there.
    fn check_exemplars(&self, at: Moment, found: &Found) -> (usize, usize, usize) {
        let known = |key: &(Labels, i64, String)| {
            self.exemplars.get(key).is_some_and(|batch| at.begun(self.batches[*batch]))
        };
        let must = self.exemplars.iter().filter(|((_, t, _), batch)| {
            at.kept(self.batches[**batch]) && found.head_from.is_some_and(|from| *t >= from)
        });
        let (there, lost): (Vec<_>, Vec<_>) = must.partition(|(key, _)| found.exemplars.contains(*key));
        let invented = found.exemplars.iter().filter(|key| !known(key)).count();
        (there.len() + lost.len(), lost.len(), invented)
    }

    /// Expected, lost, invented. A series of the head has the metadata that was set last.
    fn check_metadata(&self, at: Moment, found: &Found) -> (usize, usize, usize) {
        let (mut expected, mut lost, mut invented) = (0, 0, 0);
        for (labels, number) in &found.metadata {
            let batch = self.metadata.get(labels).and_then(|numbers| numbers.get(number));
            invented += usize::from(!batch.is_some_and(|batch| at.begun(self.batches[*batch])));
        }
        for (labels, numbers) in &self.metadata {
            let samples = found.samples.get(labels).map_or(&[][..], Vec::as_slice);
            let in_head =
                samples.last().is_some_and(|last| found.head_from.is_some_and(|from| last.0 >= from));
            let last = numbers.iter().rfind(|(_, batch)| at.kept(self.batches[**batch]));
            if let Some((last, _)) = last.filter(|_| in_head && !found.from_snapshot) {
                expected += 1;
                lost += usize::from(found.metadata.get(labels).is_none_or(|there| there < last));
            }
        }
        (expected, lost, invented)
    }

    /// Batches come whole and in order. Samples that a deletion may have taken, or that came late, say nothing; and the
    /// last one, if it need not be there, and one that was refused may be without their histograms, which have a record of
    /// their own.
    fn check_batches(&self, at: Moment, found: &Contents) -> (usize, usize) {
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
        let last = counts.iter().rposition(|(present, _)| *present > 0);
        let halved = counts
            .iter()
            .zip(&self.batches)
            .enumerate()
            .filter(|(i, ((present, all), batch))| {
                let may_be = (Some(*i) == last || batch.end.is_none()) && !at.kept(**batch);
                *present != 0 && present != all && !may_be
            })
            .count();
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
