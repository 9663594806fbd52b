//! `promontory tsdb`, beside what promtool prints.
//!
//! `PROMONTORY_PEER_PROMTOOL` names a promtool; otherwise the one on `PATH` is taken. Without one, the tests
//! that need it say so and pass.

use std::path::Path;
use std::process::{Command, Output};

use super::support::{TestServer, binary, has, write};

fn promtool() -> Option<String> {
    let program = std::env::var("PROMONTORY_PEER_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    has(&program, &["--version"]).then_some(program)
}

/// Whether a promtool prints as version 3 does. A build from a checkout may have no version.
fn is_3(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let is_3 = !text.contains("version 2.");
    if !is_3 {
        println!("SKIPPED in part: {}", text.lines().next().unwrap_or_default());
    }
    is_3
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn ours(args: &[&str], dir: &Path) -> String {
    text(&binary().arg("tsdb").args(args).arg(dir).output().unwrap())
}

fn theirs(program: &str, args: &[&str], dir: &Path) -> String {
    text(&Command::new(program).arg("tsdb").args(args).arg(dir).output().unwrap())
}

/// Two series over seven hours, one with gaps and odd values, and a histogram family.
fn page() -> String {
    let mut page = "# HELP a Help.\n# TYPE a counter\n".to_owned();
    for i in 0..1700u32 {
        page += &format!("a_total{{path=\"/x\",z=\"\\\"q\\\"\"}} {} {}\n", i * 3, 1_700_000_000 + i * 15);
    }
    page += "# TYPE g gauge\n";
    for (i, v) in ["1e300", "-0", "NaN", "+Inf", "0.00001", "1234567"].iter().enumerate() {
        page += &format!("g {v} {}.5\n", 1_700_000_000 + i * 4000);
    }
    page +=
        "# TYPE h histogram\nh_bucket{le=\"1.0\"} 2 1700000001\nh_bucket{le=\"+Inf\"} 3 1700000001\n# EOF\n";
    page
}

#[test]
fn imports_and_dumps_are_those_of_promtool() {
    let Some(promtool) = promtool() else { return };
    let dir = tempfile::tempdir().unwrap();
    let input = write(&dir.path().join("page.txt"), &page());
    let (by_us, by_them) = (dir.path().join("us"), dir.path().join("them"));
    let import = ["create-blocks-from", "openmetrics"];
    let file = input.to_str().unwrap();
    let listed_by_us = ours(&[import[0], import[1], file], &by_us);
    let listed_by_them = theirs(&promtool, &[import[0], import[1], file], &by_them);
    // promtool wants a log, if an empty one.
    for dir in [&by_us, &by_them] {
        std::fs::create_dir(dir.join("wal")).unwrap();
    }
    // Names of blocks are theirs alone, and so are the bytes of `meta.json`.
    let shape = |text: &str| -> Vec<Vec<String>> {
        let rows = text.lines().map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        rows.map(|row| row[1..row.len() - 1].to_vec()).collect()
    };
    assert_eq!(shape(&listed_by_us), shape(&listed_by_them));
    assert_eq!(listed_by_us.lines().count(), 1 + 4, "{listed_by_us}");
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for args in [
        &["dump"][..],
        &["dump", "--match={__name__=~\"g|h.*\"}"],
        &["dump", "--min-time=1700003000000", "--max-time=1700009000000"],
    ] {
        let dumped = ours(args, &by_us);
        assert!(!dumped.is_empty());
        assert_eq!(dumped, ours(args, &by_them), "{args:?}");
        // promtool 2 gives series in any order.
        assert_eq!(sorted(dumped), sorted(theirs(&promtool, args, &by_us)), "{args:?}");
    }
    assert_eq!(ours(&["list"], &by_them), theirs(&promtool, &["list"], &by_them));
    assert_eq!(ours(&["list", "-r"], &by_us), theirs(&promtool, &["list", "-r"], &by_us));
    if is_3(&promtool) {
        assert_eq!(ours(&["dump-openmetrics"], &by_us), theirs(&promtool, &["dump-openmetrics"], &by_us));
        assert_eq!(
            ours(&["dump", "--format=seriesjson"], &by_us),
            theirs(&promtool, &["dump", "--format=seriesjson"], &by_us)
        );
        for args in [&["analyze"][..], &["analyze", "--extended"], &["analyze", "--match=g", "--limit=1"]] {
            // Entries of equal weight come in any order.
            assert_eq!(sorted(ours(args, &by_us)), sorted(theirs(&promtool, args, &by_us)), "{args:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_openmetrics_comes_back_as_the_same_samples() {
    let server = TestServer::idle().await;
    let samples: Vec<(i64, f64)> =
        (0..500).map(|i| (1_700_000_000_000 + i * 15_000, i as f64 / 3.0)).collect();
    server.append(&[("__name__", "n")], &samples[..7]);
    server.append(&[("__name__", "m"), ("a", "x\ny")], &samples);
    let data = server.dir.path().join("data");
    // Beside the server that has the directory.
    let text = ours(&["dump-openmetrics"], &data);
    let page = write(&server.dir.path().join("page.txt"), &text);
    let copy = server.dir.path().join("copy");
    let imported = ours(&["create-blocks-from", "openmetrics", "-q", page.to_str().unwrap()], &copy);
    assert_eq!(imported, "");
    assert_eq!(ours(&["dump"], &copy), ours(&["dump"], &data));
    assert_eq!(ours(&["dump"], &copy).lines().count(), 507);
    server.stop().await;
}

#[test]
fn what_goes_wrong_is_said_on_standard_error() {
    for (args, says) in [
        (&["tsdb", "list", "/nowhere/at/all"][..], "/nowhere/at/all: no such file or directory"),
        (
            &["tsdb", "dump", "/nowhere/at/all"],
            "opening the db dir: stat /nowhere/at/all: no such file or directory",
        ),
        (&["tsdb", "analyze", "/tmp", "x"], "invalid block ID x"),
        (&["tsdb", "dump", "--match={", "/tmp"], "parse error"),
    ] {
        let output = binary().args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
}
