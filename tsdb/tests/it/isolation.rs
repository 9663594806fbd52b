//! A read sees all of a batch or nothing of it, while appends, cuts and reads go on at once.

use std::sync::atomic::{AtomicBool, Ordering};

use promontory_tsdb::{Db, Labels, SeriesRef};

use crate::support::{options, read_all};

const SERIES: usize = 20;

#[test]
fn readers_never_see_part_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    // Blocks of ten samples, so that cuts happen all the time.
    options.block_range_ms = 10_000;
    options.retention_ms = None;
    let db = Db::open(options).unwrap();
    let sets = (0..SERIES).map(|i| Labels::from_pairs([("i", i.to_string())])).collect::<Vec<_>>();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut refs = vec![SeriesRef(0); SERIES];
            for t in 0..400 {
                let mut appender = db.appender();
                for (set, known) in sets.iter().zip(&mut refs) {
                    *known = appender.append(*known, set, t * 1000, t as f64).unwrap();
                }
                appender.commit().unwrap();
                if t % 25 == 0 {
                    db.maintain().unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut longest = 0;
        while !done.load(Ordering::SeqCst) {
            let seen = read_all(&*db);
            let lengths = seen.values().map(Vec::len).collect::<Vec<_>>();
            assert!(seen.is_empty() || seen.len() == SERIES, "{} series", seen.len());
            assert!(lengths.iter().all(|n| *n == lengths[0]), "{lengths:?}");
            let length = lengths.first().copied().unwrap_or_default();
            assert!(length >= longest, "samples went missing: {length} after {longest}");
            longest = length;
        }
    });
    assert_eq!(read_all(&*db).values().map(Vec::len).collect::<Vec<_>>(), vec![400; SERIES]);
    assert!(db.metrics().compactions > 10);
}
