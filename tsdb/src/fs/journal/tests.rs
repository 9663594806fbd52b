use std::fs;
use std::path::Path;

use super::*;
use crate::error::Error;
use crate::fs::{self as layer, File, FileWriter};

/// The directory after each number of steps, as path → contents.
fn at(journal: &Journal, steps: usize, cut: Cut) -> Vec<(String, Vec<u8>)> {
    let mut image = journal.start();
    for step in journal.steps().iter().take(steps) {
        image.apply(step, usize::MAX).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    image.write(cut, dir.path()).unwrap();
    let mut out = Vec::new();
    list(dir.path(), dir.path(), &mut out);
    out.sort();
    out
}

fn list(root: &Path, dir: &Path, out: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if path.is_dir() {
            out.push((format!("{name}/"), Vec::new()));
            list(root, &path, out);
        } else {
            out.push((name, fs::read(&path).unwrap()));
        }
    }
}

fn names(listing: &[(String, Vec<u8>)]) -> Vec<&str> {
    listing.iter().map(|(name, _)| name.as_str()).collect()
}

/// Something of everything.
fn work(dir: &Path) {
    layer::create_dir_all(&dir.join("a/b")).unwrap();
    layer::write_atomic(&dir.join("a/meta"), b"one").unwrap();
    let mut writer = FileWriter::create(dir.join("a/b/data")).unwrap();
    writer.write(b"....hello").unwrap();
    writer.write_at(0, b"0005").unwrap();
    writer.finish().unwrap();
    layer::sync_dir(&dir.join("a/b")).unwrap();
    layer::hard_link(&dir.join("a/meta"), &dir.join("meta2")).unwrap();
    layer::write_atomic(&dir.join("a/meta"), b"two").unwrap();
    layer::copy(&dir.join("a/meta"), &dir.join("copied")).unwrap();
    layer::shorten(&dir.join("copied"), 1).unwrap();
    layer::remove_file(&dir.join("copied")).unwrap();
    layer::replace(&dir.join("a"), &dir.join("c")).unwrap();
    layer::remove_dir_all(&dir.join("c")).unwrap();
}

#[test]
fn the_image_follows_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("old"), "was here").unwrap();
    let journal = Journal::record(dir.path()).unwrap();
    work(dir.path());
    let mut there = Vec::new();
    list(dir.path(), dir.path(), &mut there);
    there.sort();
    assert_eq!(at(&journal, usize::MAX, Cut::Killed), there);
    assert_eq!(names(&there), ["meta2", "old"]);
    let before = journal
        .steps()
        .iter()
        .position(|s| matches!(&**s, Step::RemoveFile { path } if path.starts_with("c")));
    let before = at(&journal, before.unwrap(), Cut::Killed);
    assert_eq!(names(&before), ["c/", "c/b/", "c/b/data", "c/meta", "meta2", "old"]);
    assert_eq!(before[2].1, b"0005hello");
    assert_eq!((&*before[3].1, &*before[4].1), (&b"two"[..], &b"one"[..]));
    // Not watched any more.
    let steps = journal.len();
    drop(journal);
    layer::write_atomic(&dir.path().join("x"), b"x").unwrap();
    let journal = Journal::record(dir.path()).unwrap();
    assert!(steps > 20 && journal.is_empty());
}

#[test]
fn a_power_cut_takes_only_what_was_not_synced() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::record(dir.path()).unwrap();
    layer::write_atomic(&dir.path().join("kept"), b"all of it").unwrap();
    let mut file = File::create_new(&dir.path().join("log")).unwrap();
    layer::sync_dir(dir.path()).unwrap();
    file.write_all(b"synced,").unwrap();
    file.sync_data().unwrap();
    file.write_all(b"loose").unwrap();
    file.write_all(b"looser").unwrap();
    let lost = File::create_new(&dir.path().join("unnamed")).unwrap();
    lost.sync().unwrap();
    let (mut lengths, mut unnamed) = (std::collections::BTreeSet::new(), [0, 0]);
    for seed in 0..300 {
        let found = at(&journal, usize::MAX, Cut::Power { seed });
        assert_eq!(found[0], ("kept".to_owned(), b"all of it".to_vec()));
        let log = &found[1].1;
        let written = b"synced,looselooser";
        assert!(log.starts_with(b"synced,") && log.len() <= written.len());
        let whole = log.iter().zip(written).take_while(|(a, b)| a == b).count();
        assert!(log[whole..].iter().all(|b| *b == 0), "what is not there reads as zeros");
        lengths.insert(whole);
        unnamed[found.len() - 2] += 1;
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), (7..=18).collect::<Vec<_>>());
    assert!(unnamed[0] > 20 && unnamed[1] > 20, "{unnamed:?}");
}

#[test]
fn a_rename_that_is_not_synced_leaves_the_old_or_the_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::record(dir.path()).unwrap();
    layer::create_dir_all(&dir.path().join("from")).unwrap();
    layer::create_dir_all(&dir.path().join("to")).unwrap();
    layer::write_atomic(&dir.path().join("from/x"), b"x").unwrap();
    layer::replace(&dir.path().join("from/x"), &dir.path().join("to/x")).unwrap();
    let last = journal.len();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        // Before the sync of the directory.
        let found = at(&journal, last - 1, Cut::Power { seed });
        seen.insert(names(&found).join(" "));
        assert_eq!(names(&at(&journal, last, Cut::Power { seed })), ["from/", "to/", "to/x"]);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["from/ from/x to/", "from/ to/ to/x"]);
}

#[test]
fn operations_fail_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::record(dir.path()).unwrap();
    let errno = |result: crate::Result<()>| match result {
        Err(Error::Io { source, .. }) => source.raw_os_error(),
        _ => None,
    };
    let mut file = File::create(&dir.path().join("f")).unwrap();
    journal.fail(Fault { after: 1, written: 2, ..Fault::next(FaultKind::Write, libc::ENOSPC) });
    file.write_all(b"good").unwrap();
    assert_eq!(errno(file.write_all(b"bad")), Some(libc::ENOSPC));
    file.write_all(b"!").unwrap();
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"goodba!");
    assert_eq!(at(&journal, usize::MAX, Cut::Killed)[0].1, b"goodba!");
    journal.fail(Fault {
        path: "f".to_owned(),
        times: usize::MAX,
        ..Fault::next(FaultKind::Sync, libc::EIO)
    });
    assert_eq!(errno(file.sync()), Some(libc::EIO));
    assert_eq!(errno(file.sync_data()), Some(libc::EIO));
    assert_eq!(journal.heal(), 3);
    file.sync().unwrap();
    for (kind, errno_of) in
        [(FaultKind::Create, libc::EROFS), (FaultKind::Rename, libc::EACCES), (FaultKind::Sync, libc::EIO)]
    {
        journal.fail(Fault::next(kind, errno_of));
        assert_eq!(errno(layer::write_atomic(&dir.path().join("g"), b"g")), Some(errno_of), "{kind:?}");
        assert!(!dir.path().join("g").exists());
    }
    journal.fail(Fault::next(FaultKind::Remove, libc::EACCES));
    assert_eq!(errno(layer::remove_file(&dir.path().join("f"))), Some(libc::EACCES));
    assert_eq!(journal.heal(), 4);
}
