//! [`ActiveQueries`]: the file `queries.active`, which names the queries that run.
//!
//! After a crash it says which queries were running, and the next start logs them. The file is Prometheus':
//! `[`, then a slot of 1,000 bytes per query that may run, each with an entry
//! `{"query":"…","timestamp_sec":…}` and a comma at its end, or with zeros.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/query_logger.go>

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::json;

const FILE_NAME: &str = "queries.active";
const SLOT_BYTES: usize = 1_000;

/// The open file.
#[derive(Debug)]
pub(crate) struct ActiveQueries {
    file: File,
    /// Slots that are free.
    free: Mutex<Vec<usize>>,
}

impl ActiveQueries {
    /// Opens the file in `dir` for up to `slots` queries at a time. Queries that an earlier run left in it
    /// are logged, and the file is emptied.
    pub(crate) fn open(dir: &Path, slots: usize) -> io::Result<Arc<Self>> {
        let path = dir.join(FILE_NAME);
        if let Some(queries) = unfinished(&path, 1 + slots.saturating_mul(SLOT_BYTES)) {
            tracing::info!(queries, "these queries did not finish in the last run");
        }
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(&path)?;
        // A file without holes: where the disk is full it must fail here and not at a query.
        file.write_all_at(&vec![0; 1 + slots * SLOT_BYTES], 0)?;
        file.write_all_at(b"[", 0)?;
        Ok(Arc::new(Self { file, free: Mutex::new((0..slots).rev().collect()) }))
    }

    /// Names a query until the entry is dropped. Without a free slot the query stays unnamed.
    pub(crate) fn insert(self: &Arc<Self>, query: &str, now_s: i64) -> Option<Entry> {
        let slot = self.free.lock().pop()?;
        let entry = Entry { queries: Arc::clone(self), slot };
        let mut bytes = entry_json(query, now_s);
        bytes.resize(SLOT_BYTES, 0);
        bytes[SLOT_BYTES - 1] = b',';
        self.write(slot, &bytes);
        Some(entry)
    }

    fn write(&self, slot: usize, bytes: &[u8]) {
        // That a query is not in the file is no reason to fail it.
        if let Err(error) = self.file.write_all_at(bytes, (1 + slot * SLOT_BYTES) as u64) {
            tracing::warn!(%error, "the file of active queries cannot be written");
        }
    }
}

/// The name of a running query.
#[derive(Debug)]
pub(crate) struct Entry {
    queries: Arc<ActiveQueries>,
    slot: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.queries.write(self.slot, &[0; SLOT_BYTES]);
        self.queries.free.lock().push(self.slot);
    }
}

/// An entry that fits a slot, the query cut if need be.
fn entry_json(query: &str, now_s: i64) -> Vec<u8> {
    let mut end = query.len().min(SLOT_BYTES);
    loop {
        while !query.is_char_boundary(end) {
            end -= 1;
        }
        let mut out = b"{\"query\":".to_vec();
        json::put_string(&mut out, &query[..end]);
        out.extend_from_slice(format!(",\"timestamp_sec\":{now_s}}}").as_bytes());
        if out.len() < SLOT_BYTES {
            return out;
        }
        // Escapes make it longer: one byte too many costs at least one byte of the query.
        end = end.saturating_sub((out.len() - SLOT_BYTES) / 6 + 1);
    }
}

/// What an earlier run left in the file, as JSON; `None` if nothing.
fn unfinished(path: &Path, most: usize) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most as u64).read_to_end(&mut bytes).ok()?;
    bytes.retain(|b| *b != 0);
    // Entries end with a comma; the last one becomes the bracket.
    if bytes.len() <= 1 {
        return None;
    }
    bytes.pop();
    bytes.push(b']');
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_in(dir: &Path) -> Option<String> {
        unfinished(&dir.join(FILE_NAME), 1 << 20)
    }

    #[test]
    fn queries_are_in_the_file_while_they_run() {
        let dir = tempfile::tempdir().unwrap();
        let queries = ActiveQueries::open(dir.path(), 2).unwrap();
        assert_eq!(left_in(dir.path()), None);
        let one = queries.insert("up", 7).unwrap();
        let two = queries.insert("\"<\"", 8).unwrap();
        assert!(queries.insert("no place", 9).is_none());
        let both = left_in(dir.path()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&both).unwrap();
        assert_eq!(json[0]["query"], "up");
        assert_eq!(json[1]["query"], "\"<\"");
        assert_eq!(json[1]["timestamp_sec"], 8);
        drop(one);
        assert!(!left_in(dir.path()).unwrap().contains("up"));
        drop(two);
        assert_eq!(left_in(dir.path()), None);
        assert_eq!(std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().len(), 2_001);
    }

    #[test]
    fn a_start_empties_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let queries = ActiveQueries::open(dir.path(), 1).unwrap();
        std::mem::forget(queries.insert("left over", 7));
        assert!(left_in(dir.path()).unwrap().contains("left over"));
        ActiveQueries::open(dir.path(), 1).unwrap();
        assert_eq!(left_in(dir.path()), None);
    }

    #[test]
    fn long_queries_are_cut_to_their_slot() {
        for query in ["x".repeat(5_000), "é".repeat(999), "\"\n".repeat(700), "\u{1}".repeat(999)] {
            let entry = entry_json(&query, 1_234_567_890);
            assert!(entry.len() < SLOT_BYTES && entry.len() > SLOT_BYTES - 20, "{}", entry.len());
            let json: serde_json::Value = serde_json::from_slice(&entry).unwrap();
            assert!(query.starts_with(json["query"].as_str().unwrap()));
        }
    }
}
