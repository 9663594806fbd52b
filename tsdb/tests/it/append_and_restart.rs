//! What is committed is there, also after a restart without a close.

use std::sync::Arc;

use promontory_tsdb::{
    AppendError, Db, Error, Labels, ManualClock, MatchOp, Matcher, Queryable, SelectHints, SeriesRef,
    stale_nan,
};

use crate::support::{append, options, read, read_all};

fn series(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "m"),
        ("i", &i.to_string()),
        ("odd", if i % 2 == 1 { "yes" } else { "" }),
    ])
}

/// Labels of matching series, in order.
fn labels_only(db: &dyn Queryable, matchers: &[Matcher], mint: i64, maxt: i64) -> Vec<Labels> {
    let hints = SelectHints { labels_only: true, ..SelectHints::default() };
    let selection = db.select(matchers, mint, maxt, &hints).unwrap();
    let batches = selection.partitions.into_iter().flat_map(futures::executor::block_on_stream);
    batches.flat_map(|b| b.unwrap().labels).collect()
}

#[test]
fn committed_samples_are_read_back_by_matchers_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    for t in 0..500 {
        let labels = (0..10).map(series).collect::<Vec<_>>();
        append(&db, &labels.iter().map(|l| (l, t * 1000, (t * 3) as f64)).collect::<Vec<_>>());
    }
    assert_eq!(read_all(&*db).values().map(Vec::len).collect::<Vec<_>>(), vec![500; 10]);
    let odd = read(&*db, &[Matcher::eq("odd", "yes")], 100_500, 200_000);
    assert_eq!(odd.len(), 5);
    assert_eq!(odd[&series(1)].first(), Some(&(101_000, 303f64.to_bits())));
    assert_eq!(odd[&series(1)].last(), Some(&(200_000, 600f64.to_bits())));
    let even = read(&*db, &[Matcher::eq("odd", ""), Matcher::new(MatchOp::Re, "i", "[0-5]").unwrap()], 0, 0);
    assert_eq!(even.keys().cloned().collect::<Vec<_>>(), vec![series(0), series(2), series(4)]);
    let not_three = [Matcher::new(MatchOp::Ne, "i", "3").unwrap(), Matcher::eq("odd", "yes")];
    assert_eq!(read(&*db, &not_three, 0, 0).len(), 4);
    assert_eq!(db.label_values("i", &[], i64::MIN, i64::MAX).unwrap().len(), 10);
    assert_eq!(db.label_names(&[Matcher::eq("i", "2")], 0, 10).unwrap(), ["__name__", "i"]);
    assert_eq!(db.time_bounds(), Some((0, 499_000)));
    assert_eq!(labels_only(&*db, &[Matcher::eq("odd", "yes")], 0, 0), [1, 3, 5, 7, 9].map(series));
    assert!(labels_only(&*db, &[], 500_000, 600_000).is_empty());
}

#[test]
fn a_process_that_dies_loses_nothing_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.lockfile = false;
    let mut expected = Default::default();
    for round in 0..3 {
        let db = Db::open(options.clone()).unwrap();
        assert_eq!(read_all(&*db), expected, "round {round}");
        for t in 0..50 {
            let t = (round * 50 + t) * 15_000;
            append(&db, &[(&series(round as usize), t, t as f64), (&series(9), t, stale_nan())]);
        }
        let mut dropped = db.appender();
        dropped.append(SeriesRef(0), &series(77), 10_000_000, 1.0).unwrap();
        expected = read_all(&*db);
    }
    assert_eq!(expected.len(), 4);
}

#[test]
fn a_batch_is_visible_only_after_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    let mut appender = db.appender();
    let known = appender.append(SeriesRef(0), &series(1), 1000, 1.0).unwrap();
    assert!(read_all(&*db).is_empty());
    appender.commit().unwrap();
    assert_eq!(read_all(&*db)[&series(1)].len(), 1);
    let mut appender = db.appender();
    assert_eq!(appender.append(known, &Labels::default(), 2000, 1.0).unwrap(), known);
    appender.rollback();
    assert_eq!(read_all(&*db)[&series(1)].len(), 1);
}

#[test]
fn samples_are_refused_by_the_rules_of_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    let hour = 3_600_000;
    append(&db, &[(&series(1), 10 * hour, 1.0), (&series(2), 10 * hour - 1000, 5.0)]);
    let mut appender = db.appender();
    let mut append = |i, t, v| appender.append(SeriesRef(0), &series(i), t, v);
    assert!(append(1, 10 * hour, 1.0).is_ok(), "the same sample again is fine");
    assert_eq!(
        append(1, 10 * hour, 2.0),
        Err(AppendError::Duplicate { timestamp: 10 * hour, existing: 1.0, new: 2.0 })
    );
    assert_eq!(append(1, 10 * hour - 1, 2.0), Err(AppendError::OutOfOrder));
    assert_eq!(append(1, 9 * hour - 1, 2.0), Err(AppendError::OutOfBounds));
    assert_eq!(append(3, 9 * hour - 1, 2.0), Err(AppendError::OutOfBounds));
    assert!(append(3, 9 * hour, 2.0).is_ok());
    assert!(matches!(
        appender.append(SeriesRef(0), &Labels::default(), 10 * hour, 1.0),
        Err(AppendError::InvalidLabels(_))
    ));
    let metrics = db.metrics();
    assert_eq!((metrics.duplicates, metrics.out_of_order, metrics.out_of_bounds), (1, 1, 2));
}

#[test]
fn after_close_appends_fail_and_the_directory_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    append(&db, &[(&series(1), 1000, 1.0)]);
    assert!(matches!(Db::open(options(dir.path())), Err(Error::Locked { .. })));
    let mut appender = db.appender();
    appender.append(SeriesRef(0), &series(1), 2000, 1.0).unwrap();
    db.close().unwrap();
    assert!(matches!(appender.commit(), Err(Error::Closed)));
    assert!(matches!(db.sync(), Err(Error::Closed)));
    let again = Db::open(options(dir.path())).unwrap();
    assert_eq!(read_all(&*again), read_all(&*db));
    assert_eq!(again.metrics().clean_start, Some(true));
}

#[test]
fn a_sample_from_the_future_is_refused_and_stops_nobody() {
    let now = 1_700_000_000_000;
    let clock = ManualClock::new(now);
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.clock = Arc::new(clock.clone());
    let db = Db::open(options.clone()).unwrap();
    let mut appender = db.appender();
    let refused = appender.append(SeriesRef(0), &series(0), now + 600_001, 1.0);
    assert_eq!(refused, Err(AppendError::OutOfBounds));
    appender.append(SeriesRef(0), &series(1), now + 600_000, 1.0).unwrap();
    appender.commit().unwrap();
    append(&db, &[(&series(2), now, 1.0)]);
    assert_eq!((db.head_stats().series, db.metrics().out_of_bounds), (2, 1));
    clock.advance_ms(1);
    append(&db, &[(&series(0), now + 600_001, 1.0)]);

    // What is in the log counts, whatever the clock says.
    let before = read_all(&*db);
    db.close().unwrap();
    clock.set_ms(0);
    assert_eq!(read_all(&*Db::open(options).unwrap()), before);
}
