use std::collections::BTreeMap;

use futures::StreamExt as _;
use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::chunkenc::{Encoding, xor};
use crate::chunks::ChunkData;
use crate::error::Error;
use crate::labels::Labels;
use crate::matcher::MatchOp;
use crate::memory::MemoryStorage;
use crate::needed::Needed;
use crate::sample::Sample;

type Model = BTreeMap<Labels, BTreeMap<TimestampMs, u64>>;

fn ulid() -> Ulid {
    Ulid::from_parts(1_700_000_000_000, 7)
}

fn float_chunk(samples: &[(TimestampMs, u64)]) -> ChunkData {
    let bytes = xor::encode(samples.iter().map(|&(t, v)| Sample { t, v: f64::from_bits(v) }));
    ChunkData { mint: samples[0].0, maxt: samples[samples.len() - 1].0, encoding: Encoding::Xor, bytes }
}

fn write_model(dir: &Path, model: &Model, chunk_samples: usize) -> PathBuf {
    let series = model.iter().map(|(labels, samples)| {
        let samples: Vec<_> = samples.iter().map(|(t, v)| (*t, *v)).collect();
        Ok((labels.clone(), samples.chunks(chunk_samples).map(float_chunk).collect()))
    });
    let spec = BlockSpec { segment_bytes: 4096, ..BlockSpec::new(ulid(), 0, 1000) };
    write(dir, spec, series).unwrap().unwrap();
    dir.join(ulid().to_string())
}

fn read(source: &dyn Queryable, matchers: &[Matcher], mint: i64, maxt: i64, hints: &SelectHints) -> Model {
    let mut out = Model::new();
    let selection = source.select(matchers, mint, maxt, hints).unwrap();
    assert_eq!(selection.partitions.len(), hints.partitions);
    let mut last = None;
    for (i, mut partition) in selection.partitions.into_iter().enumerate() {
        while let Some(batch) = futures::executor::block_on(partition.next()) {
            let batch = batch.unwrap();
            for s in 0..batch.len() {
                let (labels, t, v) = batch.series(s);
                assert!(
                    last.as_ref().is_none_or(|l| l < labels),
                    "label order, also from partition to partition"
                );
                if let Some(splits) = &hints.splits {
                    assert_eq!(splits.partition_point(|split| split <= labels), i);
                }
                assert!(t.is_sorted_by(|a, b| a < b));
                last = Some(labels.clone());
                out.insert(labels.clone(), t.iter().copied().zip(v.iter().map(|v| v.to_bits())).collect());
            }
        }
    }
    out
}

fn models() -> impl Strategy<Value = Model> {
    let labels = ("[ab]", prop::option::of("[xyz]"), 0..4u8).prop_map(|(name, extra, i)| {
        let mut b = Labels::from_pairs([("__name__", name), ("i", i.to_string())]).to_builder();
        b.set("extra", &extra.unwrap_or_default());
        b.build()
    });
    let samples = prop::collection::btree_map(0i64..1000, any::<u64>(), 1..40);
    prop::collection::btree_map(labels, samples, 1..20)
}

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let op = prop::sample::select(vec![MatchOp::Eq, MatchOp::Ne, MatchOp::Re, MatchOp::Nre]);
    let name = prop::sample::select(vec!["__name__", "i", "extra", "none"]);
    let value = prop::sample::select(vec![
        "", "a", "x", "1", "a|b", "x|", "[xy]", ".*", ".+", "x.*", ".*x", "1|2", "(?i)A", "()", "[^x]", "x?",
    ]);
    prop::collection::vec((op, name, value).prop_map(|(o, n, v)| Matcher::new(o, n, v).unwrap()), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The memory storage is the reference: slow, short, and right.
    #[test]
    fn a_block_answers_as_the_memory_storage_does(
        model in models(), matchers in matchers(), range in (-10i64..1010, 0i64..1100),
        chunk_samples in 1usize..20, partitions in 1usize..4, batch_samples in 1usize..50,
    ) {
        let memory = MemoryStorage::new();
        for (labels, samples) in &model {
            for (t, v) in samples {
                memory.append(labels, *t, f64::from_bits(*v)).unwrap();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let block = Block::open(&write_model(dir.path(), &model, chunk_samples)).unwrap();
        let (mint, maxt) = (range.0, range.0 + range.1);
        let hints = SelectHints { partitions, batch_samples, ..SelectHints::default() };
        let expected = read(&memory, &matchers, mint, maxt, &hints);
        prop_assert_eq!(&read(&block, &matchers, mint, maxt, &hints), &expected);
        // Divided where it is told to, and where another source would divide.
        for source in [&memory as &dyn Queryable, &block] {
            let splits = source.splits(&matchers, mint, maxt, partitions).unwrap();
            prop_assert!(splits.len() < partitions && splits.is_sorted_by(|a, b| a < b));
            let hints = SelectHints { splits: Some(splits.into()), ..hints.clone() };
            prop_assert_eq!(&read(&block, &matchers, mint, maxt, &hints), &expected);
            prop_assert_eq!(&read(&memory, &matchers, mint, maxt, &hints), &expected);
        }

        // Names, values and statistics are exact over the whole block.
        let all = (i64::MIN, i64::MAX);
        prop_assert_eq!(block.label_names(&matchers, all.0, all.1).unwrap(), memory.label_names(&matchers, all.0, all.1).unwrap());
        for name in ["__name__", "i", "extra", "none"] {
            prop_assert_eq!(
                block.label_values(name, &matchers, all.0, all.1).unwrap(),
                memory.label_values(name, &matchers, all.0, all.1).unwrap()
            );
        }
        let (ours, theirs) = (block.series_stats(&matchers, all.0, all.1).unwrap(), memory.series_stats(&matchers, all.0, all.1).unwrap());
        prop_assert!(ours.exact);
        prop_assert_eq!((ours.series, ours.samples, ours.min_time, ours.max_time), (theirs.series, theirs.samples, theirs.min_time, theirs.max_time));
        let labels_only = SelectHints { labels_only: true, ..hints };
        let labels: Vec<_> = read(&block, &matchers, all.0, all.1, &labels_only).into_keys().collect();
        prop_assert_eq!(labels, read(&memory, &matchers, all.0, all.1, &labels_only).into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn deleted_samples_are_not_delivered(model in models(), deletions in prop::collection::vec((0u8..4, 0i64..1000, 0i64..300), 1..5), chunk_samples in 1usize..20) {
        let dir = tempfile::tempdir().unwrap();
        let path = write_model(dir.path(), &model, chunk_samples);
        let block = Block::open(&path).unwrap();
        let mut expected = model;
        for (i, mint, len) in deletions {
            block.delete(&[Matcher::eq("i", i.to_string())], mint, mint + len).unwrap();
            for (_, samples) in expected.iter_mut().filter(|(l, _)| l.get("i") == Some(&i.to_string())) {
                samples.retain(|t, _| !(mint..=mint + len).contains(t));
            }
        }
        expected.retain(|_, samples| !samples.is_empty());
        let hints = SelectHints::default();
        prop_assert_eq!(&read(&block, &[], 0, 1000, &hints), &expected);
        let again = Block::open(&path).unwrap();
        prop_assert_eq!(again.meta().stats.num_tombstones, again.tombstones().len() as u64);
        prop_assert_eq!(read(&again, &[], 0, 1000, &hints), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn compaction_keeps_all_that_is_not_deleted(
        models in prop::collection::vec((models(), 1usize..20), 1..4),
        deletions in prop::collection::vec((0usize..4, 0u8..4, 0i64..1000, 0i64..300), 0..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut blocks = Vec::new();
        let mut expected = Model::new();
        for (n, (model, chunk_samples)) in models.iter().enumerate() {
            let path = dir.path().join(n.to_string());
            std::fs::create_dir(&path).unwrap();
            blocks.push(Arc::new(Block::open(&write_model(&path, model, *chunk_samples)).unwrap()));
        }
        for (n, i, mint, len) in deletions {
            if let Some(block) = blocks.get(n) {
                block.delete(&[Matcher::eq("i", i.to_string())], mint, mint + len).unwrap();
            }
        }
        for block in blocks.iter().rev() {
            for (labels, samples) in read(&**block, &[], 0, 1000, &SelectHints::default()) {
                expected.entry(labels).or_default().extend(samples);
            }
        }
        let new = Ulid::from_parts(1_700_000_000_001, 1);
        let meta = compact(dir.path(), new, &blocks).unwrap();
        prop_assert_eq!(meta.is_none(), expected.is_empty());
        if let Some(meta) = meta {
            prop_assert_eq!((meta.compaction.level, meta.compaction.parents.len()), (2, blocks.len()));
            prop_assert_eq!(&meta.compaction.sources, &[ulid()]);
            prop_assert_eq!(meta.stats.num_samples, expected.values().map(|s| s.len() as u64).sum::<u64>());
            let merged = Block::open(&dir.path().join(new.to_string())).unwrap();
            prop_assert_eq!(merged.meta(), meta);
            prop_assert!(merged.series_stats(&[], 0, 1000).unwrap().exact);
            prop_assert_eq!(read(&merged, &[], 0, 1000, &SelectHints::default()), expected);
        }
    }
}

#[test]
fn a_block_without_series_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let spec = BlockSpec::new(ulid(), 0, 100);
    assert!(write(dir.path(), spec, [Ok((Labels::default(), vec![]))]).unwrap().is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let good = Ok((Labels::from_pairs([("a", "1")]), vec![float_chunk(&[(1, 1)])]));
    let spec = BlockSpec::new(ulid(), 0, 100);
    assert!(write(dir.path(), spec.clone(), [good, Err(Error::Poisoned)]).is_err());
    let outside = Ok((Labels::from_pairs([("a", "1")]), vec![float_chunk(&[(100, 1)])]));
    assert!(matches!(write(dir.path(), spec, [outside]), Err(Error::Invalid(_))));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_limit_stops_each_partition() {
    let dir = tempfile::tempdir().unwrap();
    let labels = |i| Labels::from_pairs([("i", format!("{i:03}"))]);
    let model: Model = (0..100).map(|i| (labels(i), [(1, 1)].into())).collect();
    let block = Block::open(&write_model(dir.path(), &model, 10)).unwrap();
    let hints = SelectHints { partitions: 2, series_limit: 3, ..SelectHints::default() };
    assert_eq!(read(&block, &[], 0, 10, &hints).len(), 6);
}

#[test]
fn a_damaged_chunk_ends_the_stream_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let model: Model = [(Labels::from_pairs([("a", "1")]), [(1, 1), (2, 2)].into())].into();
    let path = write_model(dir.path(), &model, 10);
    let segment = path.join("chunks/000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[12] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let block = Block::open(&path).unwrap();
    let mut stream = block.select(&[], 0, 10, &SelectHints::default()).unwrap().partitions.remove(0);
    let first = futures::executor::block_on(stream.next());
    assert!(matches!(first, Some(Err(Error::Corrupt { file, offset: 8, .. })) if file == segment));
    assert!(futures::executor::block_on(stream.next()).is_none());
}

#[test]
fn a_damaged_series_comes_after_all_before_it_and_not_at_all_if_it_is_not_wanted() {
    const DAMAGED: usize = 21;
    let dir = tempfile::tempdir().unwrap();
    let labels = |i| Labels::from_pairs([("__name__", "m".to_owned()), ("i", format!("{i:03}"))]);
    let model: Model = (0..50).map(|i| (labels(i), [(1, 1), (2, 2)].into())).collect();
    let path = write_model(dir.path(), &model, 10);
    let index = Block::open(&path).unwrap();
    let reference = postings::for_matchers(index.index(), &[]).unwrap()[DAMAGED];
    let place = index.index().series_offset(reference);
    let mut bytes = std::fs::read(path.join("index")).unwrap();
    bytes[place as usize + 3] ^= 1;
    std::fs::write(path.join("index"), bytes).unwrap();
    let block = Block::open(&path).unwrap();
    let kinds = [(false, Needed::All), (false, Needed::Newest), (true, Needed::All)];
    for ((labels_only, needed), series_limit) in kinds.into_iter().flat_map(|k| [(k, 0), (k, DAMAGED)]) {
        let hints =
            SelectHints { batch_samples: 1, labels_only, needed, series_limit, ..SelectHints::default() };
        let mut stream = block.select(&[], 0, 10, &hints).unwrap().partitions.remove(0);
        for i in 0..DAMAGED {
            let batch = futures::executor::block_on(stream.next()).unwrap().unwrap();
            assert_eq!(batch.labels, [labels(i)]);
        }
        if series_limit == 0 {
            let next = futures::executor::block_on(stream.next());
            assert!(matches!(next, Some(Err(Error::Corrupt { offset, .. })) if offset == place));
        }
        assert!(futures::executor::block_on(stream.next()).is_none());
    }
}

#[test]
fn the_newest_sample_is_one_sample() {
    let dir = tempfile::tempdir().unwrap();
    let labels = |i| Labels::from_pairs([("i", format!("{i:03}"))]);
    let model: Model = (0..40).map(|i| (labels(i), (0..30).map(|t| (t, t as u64)).collect())).collect();
    let block = Block::open(&write_model(dir.path(), &model, 12)).unwrap();
    let hints = SelectHints { needed: Needed::Newest, ..SelectHints::default() };
    let expected = (0..40).map(|i| (labels(i), [(20, 20)].into())).collect::<Model>();
    assert_eq!(read(&block, &[], 3, 20, &hints), expected);
    // Labels take room in a batch too.
    let hints = SelectHints { batch_samples: 100, ..hints };
    let mut stream = block.select(&[], 3, 20, &hints).unwrap().partitions.remove(0);
    let batch = futures::executor::block_on(stream.next()).unwrap().unwrap();
    assert!((2..20).contains(&batch.len()), "{} series", batch.len());
}

#[test]
fn versions_that_prometheus_2_1_wrote_are_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let labels = Labels::from_pairs([("a", "1")]);
    let model: Model = [(labels, [(1, 1), (2, 2)].into())].into();
    let path = write_model(dir.path(), &model, 10);
    assert!(!repair(&path).unwrap());
    let mut bytes = std::fs::read(path.join("index")).unwrap();
    bytes[4] = 1;
    std::fs::write(path.join("index"), bytes).unwrap();
    let mut meta = Meta::read(&path).unwrap();
    meta.version = 2;
    meta.write(&path).unwrap();
    assert!(Block::open(&path).is_err());
    assert!(repair(&path).unwrap());
    let block = Block::open(&path).unwrap();
    assert_eq!(read(&block, &[], 0, 1000, &SelectHints::default()), model);
    assert!(!path.join("index.repaired").exists());
    assert!(!repair(&path).unwrap());
}

/// The pages on index, chunks and tombstones show the files of one block, that on blocks its meta.
#[test]
fn the_examples_of_the_format_pages_are_a_block() {
    let first = |page: &str| crate::encoding::examples_of(page).remove(0);
    let page = include_str!("../../docs/format/block.md");
    let meta = page.split("```json\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    let index = first(include_str!("../../docs/format/index.md"));
    let segment = first(include_str!("../../docs/format/chunks.md"));
    let tombstones = first(include_str!("../../docs/format/tombstones.md"));
    let files = [
        ("meta.json", meta.as_bytes()),
        ("index", &index),
        ("chunks/000001", &segment),
        ("tombstones", &tombstones),
    ];

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("chunks")).unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
    let labels = Labels::from_pairs([("a", "1")]);
    let one = 1f64.to_bits();
    let all = SelectHints::default();
    let block = Block::open(dir.path()).unwrap();
    assert_eq!(read(&block, &[], 0, 5000, &all), [(labels.clone(), [(3000, one)].into())].into());

    // And it is what is written for these samples.
    let ulid = block.ulid();
    let made = tempfile::tempdir().unwrap();
    let series = (labels, vec![float_chunk(&[(1000, one), (2000, one), (3000, one)])]);
    write(made.path(), BlockSpec::new(ulid, 0, 7_200_000), [Ok(series)]).unwrap().unwrap();
    let made = made.path().join(ulid.to_string());
    assert_eq!(Block::open(&made).unwrap().delete(&[], 0, 2000).unwrap(), 1);
    for (name, bytes) in files {
        let found = std::fs::read(made.join(name)).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&found).trim_end(),
            String::from_utf8_lossy(bytes).trim_end(),
            "{name}"
        );
        assert_eq!(found.trim_ascii_end(), bytes.trim_ascii_end(), "{name}");
    }
}
