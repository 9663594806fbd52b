//! What the binary says to a wrong command line, and with which status it ends.

use super::support::{binary, write};

fn check(args: &[&str], status: i32, says: &[&str]) {
    let output = binary().args(args).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
    for part in says {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn an_unknown_flag_is_named() {
    check(&["--storage.tsdb.pathh=x"], 2, &["--storage.tsdb.pathh"]);
}

#[test]
fn a_missing_configuration_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("none.yml").display().to_string();
    let data = format!("--storage.tsdb.path={}", dir.path().join("data").display());
    let args = [
        &format!("--config.file={config}"),
        &data,
        "--web.listen-address=127.0.0.1:0",
        "--sql.listen-address=",
    ];
    check(&args.map(|a| a as &str), 2, &[&config]);
}

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(&dir.path().join("p.yml"), "global:\n  scrape_intervall: 1s\n");
    let data = format!("--storage.tsdb.path={}", dir.path().join("data").display());
    let file = format!("--config.file={}", config.display());
    check(
        &[&file, &data, "--web.listen-address=127.0.0.1:0", "--sql.listen-address="],
        2,
        &["p.yml:2", "scrape_intervall"],
    );
}

#[test]
fn help_and_version_end_well() {
    check(&["--version"], 0, &["promontory "]);
    check(&["--help"], 0, &["--config.file", "--storage.tsdb.path", "--sql.listen-address", "export"]);
    check(&["export", "--help"], 0, &["--match", "--out"]);
}

#[test]
fn an_export_from_nowhere_fails() {
    check(
        &["export", "--storage.tsdb.path=/nowhere/at/all", "--match=up", "--out=/tmp"],
        1,
        &["/nowhere/at/all"],
    );
    check(&["export", "--match=up{", "--out=/tmp"], 2, &["--match"]);
}
