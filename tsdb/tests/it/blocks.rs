//! Blocks of Prometheus are read, and blocks written here are read by Prometheus.

use std::path::{Path, PathBuf};

use promontory_tsdb::block::{self, Block, BlockSpec};
use promontory_tsdb::chunkenc::{Encoding, xor};
use promontory_tsdb::chunks::ChunkData;
use promontory_tsdb::{Labels, Matcher, Queryable, Sample, stale_nan};
use ulid::Ulid;

use crate::peer::{count, everything, installed, promtool, promtool_agrees, run_promtool};
use crate::prometheus_fixtures::{fixtures, unpack};
use crate::support::copy_dir;

fn find_blocks(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.join("meta.json").exists() {
            out.push(path);
        } else if path.is_dir() {
            find_blocks(&path, out);
        }
    }
}

#[test]
fn blocks_of_prometheus_hold_what_promtool_prints() {
    let Some(fixtures) = fixtures() else { return };
    let (_dir, data) = unpack(&fixtures, "clean");
    let mut blocks = Vec::new();
    find_blocks(&data, &mut blocks);
    assert!(blocks.len() > 1, "the fixture holds several blocks");
    for path in blocks {
        let block = Block::open(&path).unwrap();
        let ours = everything(&block);
        let meta = block.meta();
        println!("{}: {} samples read, meta says {}", meta.ulid, count(&ours), meta.stats.num_samples);
        if block.tombstones().is_empty() {
            let stats = block.series_stats(&[], i64::MIN, i64::MAX).unwrap();
            let of_meta = (meta.stats.num_series, meta.stats.num_chunks, meta.stats.num_samples);
            assert_eq!((stats.series, stats.chunks, stats.samples), of_meta);
        }
        if installed(&promtool()) {
            // A directory with this block alone, so that nothing else is merged in.
            let alone = tempfile::tempdir().unwrap();
            copy_dir(&path, &alone.path().join(meta.ulid.to_string()));
            // promtool does not open a data directory without one.
            std::fs::create_dir(alone.path().join("wal")).unwrap();
            promtool_agrees(alone.path(), &ours);
        }
    }
}

/// Three series with gaps, a stale marker, a NaN, infinities, and a value that needs quotes.
fn example() -> Vec<(Labels, Vec<Sample>)> {
    let mut series = vec![
        (
            Labels::from_pairs([
                ("__name__", "up"),
                ("job", "a \"quoted\\\" näme\n"),
                ("instance", "host:1"),
            ]),
            (0..1000).map(|i| Sample { t: i * 15_000 + i % 3, v: f64::from(i as i32 % 2) }).collect(),
        ),
        (
            Labels::from_pairs([("__name__", "odd")]),
            [(5, f64::NAN), (6, stale_nan()), (1000, f64::INFINITY), (7_000_000, -0.0), (14_399_999, 1e-300)]
                .map(|(t, v)| Sample { t, v })
                .to_vec(),
        ),
    ];
    for i in 0..200 {
        let labels = Labels::from_pairs([("__name__", "counter_total".to_owned()), ("i", i.to_string())]);
        let mut v = 0.0;
        let mut next = |k: i64| {
            v += f64::from(((k * 7919 + i * 31) % 101) as i32);
            Sample { t: 1000 + k * 60_000, v }
        };
        series.push((labels, (0..200).map(&mut next).collect()));
    }
    series.sort_by(|a, b| a.0.cmp(&b.0));
    series
}

fn write_example(dir: &Path) -> PathBuf {
    let ulid = Ulid::from_parts(1_700_000_000_000, 42);
    let chunk = |samples: &[Sample]| ChunkData {
        mint: samples[0].t,
        maxt: samples[samples.len() - 1].t,
        encoding: Encoding::Xor,
        bytes: xor::encode(samples.iter().copied()),
    };
    let series = example().into_iter().map(|(l, s)| Ok((l, s.chunks(120).map(chunk).collect())));
    let spec = BlockSpec { segment_bytes: 64 << 10, ..BlockSpec::new(ulid, 0, 20_000_000) };
    let meta = block::write(dir, spec, series).unwrap().unwrap();
    assert_eq!(meta.stats.num_series, 202);
    dir.join(ulid.to_string())
}

#[test]
fn promtool_reads_a_block_written_here() {
    let dir = tempfile::tempdir().unwrap();
    let block = Block::open(&write_example(dir.path())).unwrap();
    let ours = everything(&block);
    assert_eq!(count(&ours), example().iter().map(|(_, s)| s.len()).sum::<usize>());
    if !installed(&promtool()) {
        return;
    }
    std::fs::create_dir(dir.path().join("wal")).unwrap();
    promtool_agrees(dir.path(), &ours);
    for command in ["list", "analyze"] {
        let text = run_promtool(&["tsdb", command], dir.path(), &[]);
        assert!(text.contains(&block.meta().ulid.to_string()), "{command}: {text}");
    }

    // Deleted here, gone there.
    block.delete(&[Matcher::eq("i", "7")], 0, i64::MAX).unwrap();
    let ours = everything(&block);
    assert!(!ours.keys().any(|labels| labels.get("i") == Some("7")));
    promtool_agrees(dir.path(), &ours);
}
