//! What a crash left, as real Prometheus and promtool read it.

use std::path::Path;

use promontory_tsdb::meta::{HINT_OUT_OF_ORDER, Meta};
use promontory_tsdb::{BlockSummary, Db, Labels, Queryable as _};

use super::history::History;
use super::script::{BLOCK_MS, WINDOW_MS, options};
use crate::peer::{
    Everything, Prometheus, assert_same, count, everything, is_3, peer, promtool, promtool_agrees_on,
    without_stale,
};

/// Metrics with custom buckets: a version that does not know them fails the whole query over such a chunk.
const WITH_HISTOGRAMS: [&str; 2] = ["histogram", "mixed"];

fn has_histograms(labels: &Labels) -> bool {
    labels.get("__name__").is_some_and(|name| WITH_HISTOGRAMS.contains(&name))
}

/// Whether promtool can read a directory: it takes the log only from where the last block ends, be that one of late
/// samples, which may end after what was cut from the head.
fn is_for_promtool(db: &Db) -> bool {
    let end = |late: bool| {
        let of_kind = |b: &BlockSummary| {
            let meta = Meta::read(&db.options().path.join(&b.ulid)).unwrap();
            (meta.has_hint(HINT_OUT_OF_ORDER) == late).then_some(meta.max_time)
        };
        db.blocks().iter().filter_map(of_kind).max()
    };
    end(true) <= end(false)
}

/// Compares what promtool makes of a directory, if it can.
pub(super) fn promtool_agrees(dir: &Path, history: &History) -> bool {
    let db = Db::open(options(dir)).unwrap();
    let (expected, able) = (everything(&*db), is_for_promtool(&db));
    db.close().unwrap();
    if !able || expected.is_empty() {
        return false;
    }
    let recent = is_3(&promtool());
    promtool_agrees_on(dir, &expected, |labels| {
        let plain = !has_histograms(labels) && !history.has_late(labels);
        plain || recent && history.is_read_alike(labels)
    });
    true
}

/// A server takes the directory over as the crash left it, and serves what we do. Gives how many samples.
pub(super) fn server_agrees(dir: &Path, ours: &Path, history: &History) -> usize {
    let db = Db::open(options(ours)).unwrap();
    let Some((_, end)) = db.time_bounds() else { return 0 };
    let window = format!("storage: {{tsdb: {{out_of_order_time_window: {WINDOW_MS}ms}}}}\n");
    let config = |_| format!("{window}scrape_configs: []\n");
    let server = Prometheus::start_on_anything(dir, &format!("{}s", BLOCK_MS / 1000), &[], config);
    let recent = is_3(&peer());
    // It then repairs the log and goes on without the late samples.
    let torn = server.log().contains("Encountered WAL read error");
    let but: &[&str] = if recent { &[] } else { &WITH_HISTOGRAMS };
    let alike = |mut all: Everything| {
        let is_served = |labels: &Labels| recent || !has_histograms(labels);
        let has_lost = |labels: &Labels| torn && history.has_late(labels);
        all.retain(|labels, _| history.is_read_alike(labels) && is_served(labels) && !has_lost(labels));
        all
    };
    let (theirs, ours) = (alike(server.everything_but(but, end)), alike(without_stale(&everything(&*db))));
    assert_same(&theirs, &ours);
    server.stop();
    count(&ours)
}
