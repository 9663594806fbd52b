use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::chunks::{ChunkMeta, ChunkRef};
use crate::error::Error;
use crate::labels::Labels;
use crate::postings::PostingsSource as _;

type Model = BTreeMap<Labels, Vec<ChunkMeta>>;

fn series() -> impl Strategy<Value = Model> {
    let pair = ("[a-d]|__name__|é[a-z]{0,130}", "[a-z]{1,3}|[0-9]{1,2}|ü");
    let labels = prop::collection::btree_map(pair.0, pair.1, 1..5).prop_map(Labels::from_pairs);
    let chunk = (1i64..1000, 0i64..1000, 0u64..10_000);
    let chunks = (-5000i64..5000, prop::collection::vec(chunk, 1..6)).prop_map(|(mut at, steps)| {
        let mut reference = 8;
        let step = |(gap, len, size): (i64, i64, u64)| {
            let mint = at + gap;
            at = mint + len;
            reference += size;
            ChunkMeta { mint, maxt: at, reference: ChunkRef(reference) }
        };
        steps.into_iter().map(step).collect::<Vec<_>>()
    });
    prop::collection::btree_map(labels, chunks, 0..80)
}

fn write(dir: &std::path::Path, model: &Model) -> std::path::PathBuf {
    let mut writer = Writer::create(dir).unwrap();
    for (labels, chunks) in model {
        writer.add(labels, chunks).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "temporary files are removed");
    dir.join(FILE_NAME)
}

/// What the fuzz target runs: any bytes are an index or an error, and so is all that it leads to.
fn check_any_bytes(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    std::fs::write(&path, bytes).unwrap();
    let Ok(reader) = Reader::open(&path) else { return };
    let mut entry = SeriesEntry::default();
    for name in reader.label_names() {
        for list in reader.with_values(name, &[], &mut |_| true).unwrap_or_default() {
            for r in list.into_vec() {
                if reader.series(r, i64::MIN, i64::MAX, &mut entry).is_ok() {
                    assert!(Labels::from_bytes(entry.label_bytes()).is_some());
                }
            }
        }
    }
}

fn example() -> Model {
    let chunk = |mint, maxt, at| ChunkMeta { mint, maxt, reference: ChunkRef(at) };
    (0..100)
        .map(|i| {
            let labels = Labels::from_pairs([("__name__", "m".into()), ("i", format!("{i:03}"))]);
            (labels, vec![chunk(0, 10, 8), chunk(20, 30, 90)])
        })
        .collect()
}

#[test]
fn chunks_outside_the_range_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let reader = Reader::open(&write(dir.path(), &example())).unwrap();
    let first = reader.all().unwrap().into_vec()[0];
    let mut entry = SeriesEntry::default();
    for (mint, maxt, expected) in [(0, 30, 2), (10, 19, 1), (11, 19, 0), (30, 99, 1), (31, 99, 0)] {
        reader.series(first, mint, maxt, &mut entry).unwrap();
        assert_eq!(entry.chunks.len(), expected, "[{mint}, {maxt}]");
    }
}

#[test]
fn prefixes_read_only_values_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let reader = Reader::open(&write(dir.path(), &example())).unwrap();
    let mut seen = Vec::new();
    let lists = reader.with_values("i", &["04".to_owned(), "097".to_owned(), "zz".to_owned()], &mut |v| {
        seen.push(v.to_owned());
        true
    });
    assert_eq!(lists.unwrap().len(), 11);
    assert_eq!((seen[0].as_str(), seen[9].as_str(), seen[10].as_str()), ("040", "049", "097"));
    for (name, expected) in [("i", "040"), ("nothing", "")] {
        assert!(
            reader
                .has_value(reader.with_value("i", "040").unwrap().get(0).unwrap(), name, &mut |v| v
                    == expected)
                .unwrap()
        );
    }
    for (value, n) in [("000", 1), ("099", 1), ("0", 0), ("0990", 0), ("zz", 0)] {
        assert_eq!(reader.with_value("i", value).unwrap().len(), n, "{value}");
    }
    assert_eq!(reader.with_value("j", "1").unwrap().len(), 0);
}

#[test]
fn series_out_of_order_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path()).unwrap();
    let labels = Labels::from_pairs([("a", "1")]);
    writer.add(&labels, &[]).unwrap();
    assert!(matches!(writer.add(&labels, &[]), Err(Error::Invalid(_))));
}

#[test]
fn a_flipped_bit_in_a_table_is_reported_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &example());
    let good = std::fs::read(&path).unwrap();
    let toc = Toc::decode(&good).unwrap();
    for at in [toc.symbols + 9, toc.postings_table + 9, good.len() as u64 - 20] {
        let mut bad = good.clone();
        bad[at as usize] ^= 1;
        std::fs::write(&path, bad).unwrap();
        match Reader::open(&path) {
            Err(Error::Corrupt { file, reason, .. }) => {
                assert_eq!(file, path);
                assert!(reason.contains("checksum"), "{reason}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(model in series()) {
        let dir = tempfile::tempdir().unwrap();
        let reader = Reader::open(&write(dir.path(), &model)).unwrap();
        let mut entry = SeriesEntry::default();
        let mut read = Model::new();
        let all = reader.all().unwrap().into_vec();
        let mut order = Vec::new();
        for r in &all {
            reader.series(*r, i64::MIN, i64::MAX, &mut entry).unwrap();
            order.push(entry.labels());
            read.insert(entry.labels(), entry.chunks.clone());
        }
        prop_assert!(order.is_sorted());
        prop_assert_eq!(&read, &model);
        for name in reader.label_names() {
            let mut values = Vec::new();
            reader.for_each_value(name, "", |v, offset| {
                values.push((v.to_owned(), reader.postings_at(offset)?.into_vec()));
                Ok(std::ops::ControlFlow::Continue(()))
            }).unwrap();
            for (value, refs) in values {
                prop_assert_eq!(reader.with_value(name, &value).unwrap().into_vec(), refs.clone());
                let expected: Vec<u64> = all.iter().zip(&order)
                    .filter(|(_, l)| l.get(name) == Some(value.as_str())).map(|(r, _)| *r).collect();
                prop_assert_eq!(refs, expected);
            }
        }
    }

    #[test]
    fn any_bytes_are_an_index_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_any_bytes(&bytes);
    }

    /// Labels that are those of the series before are not decoded again.
    #[test]
    fn an_entry_that_is_used_again_reads_as_a_new_one_does(
        models in (series(), series()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6),
        order in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), prop::option::of(-5000i64..9000)), 0..200),
    ) {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths = [write(dirs[0].path(), &models.0), write(dirs[1].path(), &models.1)];
        let all = |path: &std::path::Path| Reader::open(path).unwrap().all().unwrap().into_vec();
        let references = paths.each_ref().map(|path| all(path));
        let mut bytes = std::fs::read(&paths[0]).unwrap();
        for (series, at, with) in flips.iter().filter(|_| !references[0].is_empty()) {
            let start = *series.get(&references[0]) as usize * SERIES_ALIGN as usize;
            let (len, prefix) = crate::encoding::uvarint(&bytes[start..]).unwrap();
            let body = start + prefix..start + prefix + len as usize;
            bytes[body.start + at.index(body.len())] = *with;
            let crc = crc32c(&bytes[body.clone()]);
            bytes[body.end..body.end + 4].copy_from_slice(&crc.to_be_bytes());
        }
        std::fs::write(&paths[0], bytes).unwrap();
        let readers = paths.each_ref().map(|path| Reader::open(path).unwrap());
        let mut used = SeriesEntry::default();
        let in_order = references[0].iter().map(|r| (0, *r, None));
        let any = order.iter().filter(|(second, ..)| !references[usize::from(*second)].is_empty());
        let any = any.map(|(second, i, at)| {
            let which = usize::from(*second);
            (which, *i.get(&references[which]), *at)
        });
        for (which, reference, at) in in_order.chain(any) {
            let (mint, maxt) = at.map_or((i64::MIN, i64::MAX), |at| (at, at + 500));
            let mut new = SeriesEntry::default();
            let expected = readers[which].series(reference, mint, maxt, &mut new).map_err(|e| e.to_string());
            let found = readers[which].series(reference, mint, maxt, &mut used).map_err(|e| e.to_string());
            prop_assert_eq!(&found, &expected);
            if found.is_ok() {
                prop_assert_eq!((used.label_bytes(), &used.chunks), (new.label_bytes(), &new.chunks));
                prop_assert!(Labels::from_bytes(used.label_bytes()).is_some());
            }
        }
    }

    /// Damage behind a checksum that was made right again reaches the decoders.
    #[test]
    fn damaged_indexes_do_not_panic(model in series(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), fix in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = std::fs::read(write(dir.path(), &model)).unwrap();
        let toc = Toc::decode(&bytes).unwrap();
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        if fix {
            for section in [toc.symbols, toc.postings_table] {
                let at = section as usize;
                let len = bytes[at..].first_chunk::<4>().map_or(0, |l| u32::from_be_bytes(*l) as usize);
                if at + 8 + len <= bytes.len() {
                    let crc = crc32c(&bytes[at + 4..at + 4 + len]);
                    bytes[at + 4 + len..at + 8 + len].copy_from_slice(&crc.to_be_bytes());
                }
            }
        }
        check_any_bytes(&bytes);
    }
}

/// An index as version 1 has it: references are byte offsets, the postings table is in no order.
fn version_1() -> Vec<u8> {
    use crate::encoding::{put_be32, put_prefixed, put_uvarint, put_varint};
    let section = |out: &mut Vec<u8>, body: &[u8]| {
        put_be32(out, body.len() as u32);
        out.extend_from_slice(body);
        put_be32(out, crc32c(body));
    };
    let mut out = Vec::new();
    put_be32(&mut out, MAGIC);
    out.push(1);
    let mut toc = Toc { symbols: out.len() as u64, ..Toc::default() };
    let (mut body, mut at) = (Vec::new(), BTreeMap::new());
    put_be32(&mut body, 3);
    for text in ["a", "x", "y"] {
        at.insert(text, out.len() as u64 + 4 + body.len() as u64);
        put_prefixed(&mut body, text);
    }
    section(&mut out, &body);
    toc.series = out.len() as u64;
    let mut series = Vec::new();
    for (value, mint) in [("x", 10), ("y", 20)] {
        let mut body = vec![1];
        put_uvarint(&mut body, at["a"]);
        put_uvarint(&mut body, at[value]);
        body.push(1);
        put_varint(&mut body, mint);
        put_uvarint(&mut body, 5);
        put_uvarint(&mut body, 8);
        series.push(out.len() as u32);
        put_uvarint(&mut out, body.len() as u64);
        out.extend_from_slice(&body);
        put_be32(&mut out, crc32c(&body));
    }
    (toc.label_indices, toc.postings) = (out.len() as u64, out.len() as u64);
    let mut table = Vec::new();
    put_be32(&mut table, 3);
    let lists = [("a", "y", &series[1..]), ("", "", &series[..]), ("a", "x", &series[..1])];
    for (name, value, list) in lists {
        put_uvarint(&mut table, 2);
        put_prefixed(&mut table, name);
        put_prefixed(&mut table, value);
        put_uvarint(&mut table, out.len() as u64);
        let mut body = Vec::new();
        put_be32(&mut body, list.len() as u32);
        list.iter().for_each(|r| put_be32(&mut body, *r));
        section(&mut out, &body);
    }
    (toc.label_indices_table, toc.postings_table) = (out.len() as u64, out.len() as u64);
    section(&mut out, &table);
    out.extend_from_slice(&toc.encode());
    out
}

#[test]
fn version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    std::fs::write(&path, version_1()).unwrap();
    let reader = Reader::open(&path).unwrap();
    let mut entry = SeriesEntry::default();
    let mut read = Vec::new();
    for reference in reader.all().unwrap().into_vec() {
        reader.series(reference, i64::MIN, i64::MAX, &mut entry).unwrap();
        read.push((entry.labels().to_string(), entry.chunks[0].mint, entry.chunks[0].maxt));
        let mut symbols = Vec::new();
        reader.for_each_label(reference, |n, v| symbols.push((n, v))).unwrap();
        assert_eq!(reader.symbol(symbols[0].0).unwrap(), "a");
    }
    assert_eq!(read, [(r#"{a="x"}"#.to_owned(), 10, 15), (r#"{a="y"}"#.to_owned(), 20, 25)]);
    assert_eq!(reader.label_names().collect::<Vec<_>>(), ["a"]);
    let y = reader.with_value("a", "y").unwrap().into_vec();
    assert_eq!(y, reader.all().unwrap().into_vec()[1..]);
    check_any_bytes(&version_1());
}

/// Prometheus' own index of version 1, if its sources are at hand.
#[test]
fn version_1_of_prometheus_is_read() {
    let Some(sources) = std::env::var_os("PROMONTORY_PROMETHEUS_SOURCE") else {
        return println!("SKIP: PROMONTORY_PROMETHEUS_SOURCE names no checkout of Prometheus");
    };
    let dir = std::path::Path::new(&sources).join("tsdb/testdata/index_format_v1");
    let block = crate::block::Block::open(&dir).unwrap();
    let meta = block.meta();
    let stats = crate::Queryable::series_stats(&block, &[], i64::MIN, i64::MAX).unwrap();
    assert_eq!(
        (stats.series, stats.chunks, stats.samples),
        (meta.stats.num_series, meta.stats.num_chunks, meta.stats.num_samples)
    );
}

#[test]
fn the_example_of_the_format_page_is_what_is_written() {
    let example = crate::encoding::examples_of(include_str!("../../docs/format/index.md")).remove(0);
    let labels = Labels::from_pairs([("a", "1")]);
    let chunks = [ChunkMeta { mint: 1000, maxt: 3000, reference: ChunkRef(8) }];
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &[(labels.clone(), chunks.to_vec())].into());
    assert_eq!(std::fs::read(&path).unwrap(), example);
    // With symbols that are known in advance it is the same file.
    let mut writer = Writer::with_symbols(dir.path()).unwrap();
    writer.put_symbol("1").unwrap();
    assert!(writer.put_symbol("1").is_err());
    writer.put_symbol("a").unwrap();
    assert!(writer.add(&labels, &chunks).is_err());
    writer.add_numbered(&labels, &[(1, 0)], &chunks).unwrap();
    assert!(writer.put_symbol("b").is_err());
    writer.finish().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), example);
}
