//! What several modules need.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use promontory_tsdb::{Db, DbOptions, Labels, ManualClock, Matcher, Queryable, SelectHints, SeriesRef};

/// Samples by series; values as bits, so that NaNs compare.
pub(crate) type Contents = BTreeMap<Labels, Vec<(i64, u64)>>;

/// What [`options`]'s clock shows: later than any sample of a test.
pub(crate) const NOW_MS: i64 = 4_000_000_000_000;

/// Options with a clock that stands still.
pub(crate) fn options(path: &std::path::Path) -> DbOptions {
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
    for (p, mut stream) in selection.partitions.into_iter().enumerate() {
        let mut previous: Option<Labels> = None;
        while let Some(batch) = futures::executor::block_on(stream.next()) {
            let batch = batch.unwrap();
            for i in 0..batch.len() {
                let (labels, timestamps, values) = batch.series(i);
                assert_eq!(labels.partition(3), p);
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
