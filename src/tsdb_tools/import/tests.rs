use std::collections::BTreeMap;

use clap::Parser as _;

use super::*;
use crate::tsdb_tools::{TsdbArgs, TsdbCommand, run};

#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(flatten)]
    tsdb: TsdbArgs,
}

/// Runs `promontory tsdb <words>`, and gives what it prints.
fn tool(words: &[&str]) -> Result<String, String> {
    let cli = Cli::try_parse_from(std::iter::once("tsdb").chain(words.iter().copied())).unwrap();
    assert!(matches!(cli.tsdb.command, TsdbCommand::CreateBlocksFrom(_) | TsdbCommand::Dump(_)));
    let mut out = Vec::new();
    run(&cli.tsdb, &mut out).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

fn import(text: &str, flags: &[&str]) -> (tempfile::TempDir, Result<String, String>) {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("input.txt");
    std::fs::write(&input, text).unwrap();
    let data = dir.path().join("data");
    let mut words = vec!["create-blocks-from", "openmetrics"];
    words.extend(flags);
    words.extend([input.to_str().unwrap(), data.to_str().unwrap()]);
    let printed = tool(&words);
    (dir, printed)
}

fn dump(dir: &tempfile::TempDir) -> String {
    tool(&["dump", dir.path().join("data").to_str().unwrap()]).unwrap()
}

#[test]
fn samples_come_back_block_by_block() {
    let text = "# TYPE a counter\na_total{b=\"1\"} 1 0.5\na_total{b=\"1\"} 2 7200.0\na_total{b=\"2\"} 3 14399.999\n# EOF\n";
    let (dir, printed) = import(text, &["--label=dc=x"]);
    let printed = printed.unwrap();
    assert_eq!(
        dump(&dir),
        "{__name__=\"a_total\", b=\"1\", dc=\"x\"} 1 500\n{__name__=\"a_total\", b=\"1\", dc=\"x\"} 2 7200000\n\
         {__name__=\"a_total\", b=\"2\", dc=\"x\"} 3 14399999\n"
    );
    let lines: Vec<Vec<&str>> = printed.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "a header and two blocks: {printed}");
    assert_eq!(lines[1][1..7], ["500", "501", "1ms", "1", "1", "1"]);
    assert_eq!(lines[2][1..7], ["7200000", "14400000", "2h0m0s", "2", "2", "2"]);
}

#[test]
fn what_is_wrong_is_said_before_anything_is_written() {
    for (text, says) in [
        ("a 1 1\n", "getting min and max timestamp: next: line 2: data does not end with # EOF"),
        ("a 1\n# EOF\n", "getting min and max timestamp: expected timestamp for series got none"),
        ("", "getting min and max timestamp: next: line 1: data does not end with # EOF"),
    ] {
        let (dir, printed) = import(text, &[]);
        assert_eq!(printed.unwrap_err(), says, "{text:?}");
        assert_eq!(std::fs::read_dir(dir.path().join("data")).unwrap().count(), 0);
    }
}

#[test]
fn quiet_prints_nothing_and_no_samples_make_no_block() {
    assert_eq!(import("a 1 1\n# EOF\n", &["-q"]).1.unwrap(), "");
    let (dir, printed) = import("# EOF\n", &[]);
    assert_eq!(printed.unwrap(), "");
    assert_eq!(std::fs::read_dir(dir.path().join("data")).unwrap().count(), 0);
}

#[test]
fn older_samples_are_refused_after_a_batch_and_dropped_within_it() {
    let (dir, printed) = import("a 1 5\na 2 4\na 3 6\n# EOF\n", &["-q"]);
    printed.unwrap();
    assert_eq!(dump(&dir), "{__name__=\"a\"} 1 5000\n{__name__=\"a\"} 3 6000\n");
    let mut text: String = (0..5000).map(|i| format!("a {i} {i}\n")).collect();
    text += "a 1 4998\n# EOF\n";
    let says = import(&text, &["-q"]).1.unwrap_err();
    assert_eq!(says, "block creation: process blocks: add sample: out of order sample");
}

#[test]
fn a_longer_block_is_the_next_step_below_what_is_asked_for() {
    let hours = |h: i64| h * 3_600_000;
    for (asked, got) in [(0, 2), (2, 2), (5, 2), (6, 6), (17, 6), (18, 18), (24 * 3650, 39366)] {
        assert_eq!(block_duration(hours(asked)), hours(got), "{asked}");
    }
}

#[test]
fn what_is_laid_aside_on_disk_comes_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = Spill::with_limit(dir.path(), 1000, 100);
    let mut expected = BTreeMap::<i64, Vec<(u32, i64, f64)>>::new();
    for i in 0..500i64 {
        let t = (i * 37) % 5000 - 2500;
        let sample = (i as u32 % 7 * 1000, t, i as f64);
        expected.entry(t.div_euclid(1000) * 1000).or_default().push(sample);
        spill.add(sample.0, sample.1, sample.2).unwrap();
    }
    assert!(spill.on_disk);
    for (start, samples) in expected {
        let mut got = Vec::new();
        spill
            .drain(start, |series, t, v| {
                got.push((series, t, v));
                Ok(())
            })
            .unwrap();
        assert_eq!(got, samples);
    }
    drop(spill);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn bounds_of_typed_histograms_have_their_normal_form() {
    let text = "# TYPE h histogram\nh_bucket{le=\"1\"} 1 1\n# TYPE g gauge\ng{le=\"1\"} 1 1\n# EOF\n";
    let (dir, printed) = import(text, &["-q"]);
    printed.unwrap();
    assert_eq!(dump(&dir), "{__name__=\"g\", le=\"1\"} 1 1000\n{__name__=\"h_bucket\", le=\"1.0\"} 1 1000\n");
}

#[test]
fn chunks_are_as_full_as_those_of_the_head() {
    let mut slot = Slot::new(BLOCK_MS);
    for i in 0..480 {
        slot.add(0, i * 15_000, i as f64).unwrap();
    }
    let slot::Finished { mint, maxt, chunks } = slot.finish().unwrap();
    assert_eq!((mint, maxt), (0, 479 * 15_000));
    let counts: Vec<u16> =
        chunks[&0].iter().map(|c| promontory_tsdb::chunkenc::num_samples(c.encoding, &c.bytes)).collect();
    assert_eq!(counts, [120, 120, 120, 120]);
}
