//! What several modules need.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use promontory_tsdb::{
    Db, DbOptions, Labels, ManualClock, Matcher, Queryable, SelectHints, SeriesRef, stale_nan,
};

/// Samples by series; values as bits, so that NaNs compare.
pub(crate) type Contents = BTreeMap<Labels, Vec<(i64, u64)>>;

/// What [`options`]'s clock shows: later than any sample of a test.
pub(crate) const NOW_MS: i64 = 4_000_000_000_000;

/// Options with a clock that stands still.
pub(crate) fn options(path: &Path) -> DbOptions {
    let mut options = DbOptions::new(path);
    options.clock = Arc::new(ManualClock::new(NOW_MS));
    options
}

/// Appends and commits in one batch.
pub(crate) fn append(db: &Arc<Db>, samples: &[(&Labels, i64, f64)]) {
    let mut appender = db.appender();
    for (labels, t, v) in samples {
        appender.append(SeriesRef(0), labels, *t, *v).unwrap();
    }
    appender.commit().unwrap();
}

/// Everything that matches in `[mint, maxt]`, checking the promises of `Queryable` on the way.
pub(crate) fn read(source: &dyn Queryable, matchers: &[Matcher], mint: i64, maxt: i64) -> Contents {
    let hints = SelectHints { partitions: 3, batch_samples: 100, ..SelectHints::default() };
    let selection = source.select(matchers, mint, maxt, &hints).unwrap();
    assert_eq!(selection.partitions.len(), 3);
    let mut out = Contents::new();
    let mut previous: Option<Labels> = None;
    for mut stream in selection.partitions {
        while let Some(batch) = futures::executor::block_on(stream.next()) {
            let batch = batch.unwrap();
            for i in 0..batch.len() {
                let (labels, timestamps, values) = batch.series(i);
                assert!(previous.as_ref().is_none_or(|before| before < labels), "{labels} is out of order");
                assert!(!timestamps.is_empty(), "{labels} is empty");
                assert!(timestamps.windows(2).all(|w| w[0] < w[1]), "{labels} is not ascending");
                assert!(timestamps.iter().all(|t| (mint..=maxt).contains(t)));
                let samples = timestamps.iter().copied().zip(values.iter().map(|v| v.to_bits())).collect();
                previous = Some(labels.clone());
                out.insert(labels.clone(), samples);
            }
        }
    }
    out
}

/// Everything there is.
pub(crate) fn read_all(source: &dyn Queryable) -> Contents {
    read(source, &[], i64::MIN, i64::MAX)
}

/// Where [`fill`] begins, ms.
pub(crate) const START: i64 = 1_700_000_000_000;
/// ms.
pub(crate) const HOUR: i64 = 3_600_000;

/// [`options`] with segments of a page, and without retention.
pub(crate) fn small_segments(dir: &Path) -> DbOptions {
    let mut options = options(dir);
    options.wal_segment_bytes = 32 * 1024;
    options.retention_ms = None;
    options
}

/// Samples of 40 series every 15 s in `[from, to)`: counters with gaps, stale markers, odd values and names.
pub(crate) fn fill(db: &Arc<Db>, from: i64, to: i64) {
    let sets = (0..40)
        .map(|i| {
            Labels::from_pairs([
                ("__name__", format!("m{}", i % 4)),
                ("i", i.to_string()),
                ("q", "a\"b\\c\nd é".into()),
            ])
        })
        .collect::<Vec<_>>();
    let mut refs = vec![SeriesRef(0); sets.len()];
    for t in (from..to).step_by(15_000) {
        let mut appender = db.appender();
        for (i, (set, known)) in sets.iter().zip(&mut refs).enumerate() {
            let step = (t - START) / 15_000;
            let v = match i {
                0 => f64::INFINITY,
                1 if step % 50 == 49 => stale_nan(),
                2 => -0.0,
                3 => (step as f64).sin(),
                _ => (step * i as i64) as f64,
            };
            // Every series misses some scrapes.
            if (step + i as i64) % 31 != 0 {
                *known = appender.append(*known, set, t + i as i64, v).unwrap();
            }
        }
        appender.commit().unwrap();
    }
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
