//! Blocks of Prometheus are read, and blocks written here are read by Prometheus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures::StreamExt as _;
use promontory_tsdb::block::{self, Block, BlockSpec};
use promontory_tsdb::chunkenc::{Encoding, xor};
use promontory_tsdb::chunks::ChunkData;
use promontory_tsdb::{Labels, Matcher, Queryable, Sample, SelectHints, stale_nan};
use ulid::Ulid;

/// Bits by series (in text form) and timestamp; every NaN is one, as text does not tell them apart.
type Dump = BTreeMap<(String, i64), u64>;

fn bits(v: f64) -> u64 {
    if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() }
}

fn read(source: &dyn Queryable) -> Dump {
    let mut out = Dump::new();
    let hints = SelectHints { partitions: 2, ..SelectHints::default() };
    for mut partition in source.select(&[], i64::MIN, i64::MAX, &hints).unwrap().partitions {
        while let Some(batch) = futures::executor::block_on(partition.next()) {
            let batch = batch.unwrap();
            for i in 0..batch.len() {
                let (labels, times, values) = batch.series(i);
                let labels = labels.to_string();
                out.extend(times.iter().zip(values).map(|(t, v)| ((labels.clone(), *t), bits(*v))));
            }
        }
    }
    out
}

/// Float samples that `promtool tsdb dump` prints for a data directory.
fn promtool_dump(dir: &Path) -> Option<Dump> {
    // promtool does not open a data directory without one.
    std::fs::create_dir_all(dir.join("wal")).unwrap();
    let Ok(output) = Command::new("promtool").args(["tsdb", "dump"]).arg(dir).output() else {
        println!("skipped: promtool is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut dump = Dump::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let [t, v, labels] = line.rsplitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        // What is not a number is a histogram.
        if let Ok(v) = v.parse::<f64>() {
            dump.insert((labels.to_owned(), t.parse().unwrap()), bits(v));
        }
    }
    Some(dump)
}

fn assert_same(ours: &Dump, theirs: &Dump) {
    let differs =
        |a: &Dump, b: &Dump| a.iter().find(|(k, v)| b.get(k) != Some(v)).map(|(k, v)| (k.clone(), *v));
    assert_eq!(differs(ours, theirs), None, "we read what Prometheus does not");
    assert_eq!(differs(theirs, ours), None, "Prometheus reads what we do not");
}

/// The fixture directory, untarred into `into`.
fn fixture(name: &str, into: &Path) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    // Beside the repository; a linked worktree lies one level deeper than the main checkout.
    let beside = [root.join("../shared/fixtures"), root.join("../../shared/fixtures")];
    let named = std::env::var_os("PROMONTORY_FIXTURES").map(PathBuf::from);
    let archive = named.into_iter().chain(beside).map(|r| r.join("prometheus-2.42").join(name));
    let Some(archive) = archive.into_iter().find(|p| p.exists()) else {
        println!("skipped: no {name} beside the repository; set PROMONTORY_FIXTURES");
        return None;
    };
    let status = Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(into).status().unwrap();
    assert!(status.success());
    Some(into.to_owned())
}

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

fn copy_dir(from: &Path, to: &Path) {
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

#[test]
fn blocks_of_prometheus_hold_what_promtool_prints() {
    let dir = tempfile::tempdir().unwrap();
    let Some(data) = fixture("clean.tar.gz", dir.path()) else { return };
    let mut blocks = Vec::new();
    find_blocks(&data, &mut blocks);
    assert!(blocks.len() > 1, "the fixture holds several blocks");
    for path in blocks {
        let block = Block::open(&path).unwrap();
        let ours = read(&block);
        let meta = block.meta();
        println!("{}: {} samples read, meta says {}", meta.ulid, ours.len(), meta.stats.num_samples);
        if block.tombstones().is_empty() {
            let stats = block.series_stats(&[], i64::MIN, i64::MAX).unwrap();
            let of_meta = (meta.stats.num_series, meta.stats.num_chunks, meta.stats.num_samples);
            assert_eq!((stats.series, stats.chunks, stats.samples), of_meta);
        }
        // A directory with this block alone, so that nothing else is merged in.
        let alone = tempfile::tempdir().unwrap();
        copy_dir(&path, &alone.path().join(meta.ulid.to_string()));
        let Some(theirs) = promtool_dump(alone.path()) else { return };
        assert_same(&ours, &theirs);
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
    let ours = read(&block);
    assert_eq!(ours.len(), example().iter().map(|(_, s)| s.len()).sum::<usize>());
    let Some(theirs) = promtool_dump(dir.path()) else { return };
    assert_same(&ours, &theirs);

    for command in ["list", "analyze"] {
        let output = Command::new("promtool").args(["tsdb", command]).arg(dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(&block.meta().ulid.to_string()), "{command}: {text}");
    }

    // Deleted here, gone there.
    block.delete(&[Matcher::eq("i", "7")], 0, i64::MAX).unwrap();
    let theirs = promtool_dump(dir.path()).unwrap();
    let ours = read(&block);
    assert!(!ours.keys().any(|(labels, _)| labels.contains("i=\"7\"")));
    assert_same(&ours, &theirs);
}
