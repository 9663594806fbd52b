//! Names of segment files and checkpoints.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const CHECKPOINT_PREFIX: &str = "checkpoint.";
const REPAIR_SUFFIX: &str = ".repair";

/// Path of segment `number` in `dir`.
pub fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}"))
}

/// Path of the checkpoint that covers segments up to `last`.
pub fn checkpoint_path(dir: &Path, last: u32) -> PathBuf {
    dir.join(format!("{CHECKPOINT_PREFIX}{last:08}"))
}

/// Where a repair sets segment `number` aside.
pub fn repair_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}{REPAIR_SUFFIX}"))
}

/// The segment whose repair was cut short: what was set aside is all of it.
///
/// One that later segments or a checkpoint follow is history: a repair ends with a new segment, and
/// Prometheus leaves what is set aside behind when a repair of its own is cut short.
///
/// # Errors
/// If the directory cannot be read.
pub fn under_repair(dir: &Path) -> Result<Option<u32>> {
    let names = names(dir)?;
    let Some(aside) = names.iter().filter_map(|n| parse(n.strip_suffix(REPAIR_SUFFIX)?)).max() else {
        return Ok(None);
    };
    let newest = names.iter().filter_map(|n| parse(n)).max();
    let covered = names.iter().filter_map(|n| parse(n.strip_prefix(CHECKPOINT_PREFIX)?)).max();
    let cut_short = newest.is_none_or(|n| n <= aside) && covered.is_none_or(|n| n < aside);
    Ok(cut_short.then_some(aside))
}

/// Numbers of the segments in `dir`, ascending; empty if there is no such directory.
///
/// # Errors
/// If the directory cannot be read, or a number is missing in the sequence.
pub fn list(dir: &Path) -> Result<Vec<u32>> {
    list_from(dir, 0)
}

/// As [`list`], from number `first` on: gaps before do not matter, as while a server deletes segments
/// that its checkpoint covers.
///
/// # Errors
/// As [`list`].
pub fn list_from(dir: &Path, first: u32) -> Result<Vec<u32>> {
    let mut found = names(dir)?.iter().filter_map(|n| parse(n)).filter(|n| *n >= first).collect::<Vec<_>>();
    found.sort_unstable();
    if let Some(gap) = found.windows(2).find(|w| w[1] != w[0] + 1) {
        return Err(Error::corrupt(
            dir,
            0,
            format!("segments are not sequential: {} is followed by {}", gap[0], gap[1]),
        ));
    }
    Ok(found)
}

/// As [`list_from`], for a log of which everything from `first` on is needed.
///
/// # Errors
/// As [`list`], or if there are segments, but not the `first`.
pub fn list_all_from(dir: &Path, first: u32) -> Result<Vec<u32>> {
    let found = list_from(dir, first)?;
    match found.first() {
        Some(oldest) if *oldest != first => {
            Err(Error::corrupt(dir, 0, format!("segment {first} is missing: the oldest is {oldest}")))
        }
        _ => Ok(found),
    }
}

/// The newest checkpoint: its directory and the number of the last segment that it covers.
///
/// # Errors
/// If the directory cannot be read.
pub fn last_checkpoint(dir: &Path) -> Result<Option<(PathBuf, u32)>> {
    Ok(checkpoints(dir)?.pop().map(|last| (checkpoint_path(dir, last), last)))
}

/// Numbers of all checkpoints, ascending.
///
/// # Errors
/// If the directory cannot be read.
pub fn checkpoints(dir: &Path) -> Result<Vec<u32>> {
    let mut found = names(dir)?
        .iter()
        .filter_map(|n| n.strip_prefix(CHECKPOINT_PREFIX).and_then(parse))
        .collect::<Vec<_>>();
    found.sort_unstable();
    Ok(found)
}

/// A segment name is digits only (at least eight, as written).
fn parse(name: &str) -> Option<u32> {
    (name.len() >= 8 && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        out.extend(entry.file_name().into_string());
    }
    Ok(out)
}
