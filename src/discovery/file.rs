//! Targets in files: JSON or YAML lists of groups, read again whenever something changes.
//!
//! Directories are watched rather than files, so that a file that is replaced by a rename is seen.
//! A file that cannot be read keeps the targets that it had.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/discovery/file/file.go>. Difference: a
//! burst of changes is read once, a tenth of a second after it began.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::TargetGroup;
use crate::config::FileSdConfig;

/// An editor or a copy touches a file several times in a row.
const SETTLE: Duration = Duration::from_millis(100);

/// Reads the files of one `file_sd_configs` entry.
#[derive(Debug)]
pub(crate) struct FileDiscovery {
    config: FileSdConfig,
    /// Start of the source of every group.
    source: String,
    /// Number of groups in each file when it was last read well.
    known: HashMap<PathBuf, usize>,
}

/// A group as a file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileGroup {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl FileDiscovery {
    pub(crate) fn new(config: FileSdConfig, source: String) -> Self {
        Self { config, source, known: HashMap::new() }
    }

    /// Reads the files, again and again, until `stop`. `publish` gets what changed, and how many
    /// files could not be read.
    pub(crate) async fn run(
        &mut self,
        stop: CancellationToken,
        mut publish: impl FnMut(Vec<TargetGroup>, u64),
    ) {
        let (changed, mut changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !e.kind.is_access()) {
                // A full channel already says what this would.
                let _ = changed.try_send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot watch files; they are read every {:?}",
                    self.config.refresh_interval
                );
                None
            }
        };
        let mut watched = BTreeSet::new();
        let every = self.config.refresh_interval;
        let mut ticker = interval_at(Instant::now() + every, every);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            if let Some(watcher) = &mut watcher {
                self.watch(watcher, &mut watched);
            }
            let Some((groups, errors)) = self.refresh_aside().await else { return };
            publish(groups, errors);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticker.tick() => {}
                Some(()) = changes.recv() => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(SETTLE) => {}
                    }
                    while changes.try_recv().is_ok() {}
                }
            }
        }
    }

    /// Watches the directories that are there and not yet watched.
    fn watch(&self, watcher: &mut RecommendedWatcher, watched: &mut BTreeSet<PathBuf>) {
        for pattern in &self.config.files {
            let directory = match Path::new(pattern).parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
                _ => PathBuf::from("."),
            };
            if !directory.exists() {
                watched.remove(&directory);
                continue;
            }
            if watched.contains(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(directory);
                }
                Err(error) => tracing::error!(
                    path = %directory.display(),
                    error = &error as &dyn std::error::Error,
                    "error adding file watch"
                ),
            }
        }
    }

    /// [`FileDiscovery::refresh`] where a slow disk holds up nobody. `None` if the process is ending.
    async fn refresh_aside(&mut self) -> Option<(Vec<TargetGroup>, u64)> {
        let mut own = Self {
            config: self.config.clone(),
            source: self.source.clone(),
            known: std::mem::take(&mut self.known),
        };
        let read = move || {
            let found = own.refresh();
            (own.known, found)
        };
        let (known, found) = tokio::task::spawn_blocking(read).await.ok()?;
        self.known = known;
        Some(found)
    }

    /// Reads all files. Returns the groups that there are, an empty one for each that is gone, and
    /// how many files could not be read.
    fn refresh(&mut self) -> (Vec<TargetGroup>, u64) {
        let mut groups = Vec::new();
        let mut errors = 0;
        let mut now = HashMap::new();
        for path in self.list() {
            match self.read(&path) {
                Ok(found) => {
                    now.insert(path, found.len());
                    groups.extend(found);
                }
                Err(error) => {
                    errors += 1;
                    tracing::error!(path = %path.display(), error, "error reading file");
                    // What the file said before still holds.
                    let before = self.known.get(&path).copied().unwrap_or_default();
                    now.insert(path, before);
                }
            }
        }
        for (path, before) in &self.known {
            let still = now.get(path).copied().unwrap_or_default();
            for i in still..*before {
                groups.push(TargetGroup { source: self.source_of(path, i), ..TargetGroup::default() });
            }
        }
        self.known = now;
        (groups, errors)
    }

    fn list(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for pattern in &self.config.files {
            match glob::glob(pattern) {
                Ok(found) => files.extend(found.flatten()),
                Err(error) => tracing::error!(glob = pattern, %error, "error expanding glob"),
            }
        }
        files.sort_unstable();
        files.dedup();
        files
    }

    fn source_of(&self, path: &Path, group: usize) -> String {
        format!("{}{}:{group}", self.source, path.display())
    }

    fn read(&self, path: &Path) -> Result<Vec<TargetGroup>, String> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        let is_json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let groups: Option<Vec<FileGroup>> = match is_json {
            true => serde_json::from_str(&text).map_err(|e| e.to_string())?,
            false => serde_yaml_ng::from_str(&text).map_err(|e| e.to_string())?,
        };
        let groups = groups.unwrap_or_default().into_iter().enumerate();
        Ok(groups
            .map(|(i, mut group)| {
                group.labels.insert("__meta_filepath".to_owned(), path.display().to_string());
                TargetGroup::of_addresses(self.source_of(path, i), &group.targets, group.labels)
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery(dir: &Path) -> FileDiscovery {
        let files = vec![dir.join("*.json").display().to_string(), dir.join("*.yml").display().to_string()];
        FileDiscovery::new(
            FileSdConfig { files, refresh_interval: Duration::from_secs(300) },
            "file/0/".to_owned(),
        )
    }

    /// `address{labels}` of every target, and `-source` of every group that is gone.
    fn shown(dir: &Path, groups: &[TargetGroup]) -> Vec<String> {
        let mut out = Vec::new();
        for group in groups {
            if group.targets.is_empty() {
                out.push(format!("-{}", group.source.replace(&dir.display().to_string(), "")));
            }
            for target in &group.targets {
                let path = Path::new(&group.labels["__meta_filepath"]).file_name().unwrap();
                out.push(format!("{}@{}", target["__address__"], path.to_string_lossy()));
            }
        }
        out
    }

    #[test]
    fn files_are_read_by_their_extension() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.json"), r#"[{"targets":["a:1","a:2"],"labels":{"k":"v"}}]"#)
            .unwrap();
        std::fs::write(
            dir.path().join("b.yml"),
            "- targets: ['b:1']\n- targets: ['b:2']\n  labels: {n: '1'}\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("c.txt"), "not looked at").unwrap();
        let (groups, errors) = discovery(dir.path()).refresh();
        assert_eq!(shown(dir.path(), &groups), ["a:1@a.json", "a:2@a.json", "b:1@b.yml", "b:2@b.yml"]);
        assert_eq!(errors, 0);
        assert_eq!(groups[0].labels["k"], "v");
    }

    #[test]
    fn a_bad_file_keeps_its_targets_and_a_missing_one_loses_them() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.json"), dir.path().join("b.yml"));
        std::fs::write(&a, r#"[{"targets":["a:1"]},{"targets":["a:2"]}]"#).unwrap();
        std::fs::write(&b, "- targets: ['b:1']\n").unwrap();
        let mut files = discovery(dir.path());
        files.refresh();

        for bad in ["[", r#"[{"target":["x"]}]"#, r#"{"targets":[]}"#] {
            std::fs::write(&a, bad).unwrap();
            let (groups, errors) = files.refresh();
            assert_eq!((shown(dir.path(), &groups), errors), (vec!["b:1@b.yml".to_owned()], 1), "{bad}");
        }
        std::fs::write(&a, r#"[{"targets":["a:1"]}]"#).unwrap();
        let (groups, _) = files.refresh();
        assert_eq!(shown(dir.path(), &groups), ["a:1@a.json", "b:1@b.yml", "-file/0//a.json:1"]);
        std::fs::remove_file(&a).unwrap();
        let (groups, _) = files.refresh();
        assert_eq!(shown(dir.path(), &groups), ["b:1@b.yml", "-file/0//a.json:0"]);
        std::fs::write(&b, "").unwrap();
        assert_eq!(shown(dir.path(), &files.refresh().0), ["-file/0//b.yml:0"]);
    }

    /// A pipe that nobody writes to is a file on a disk that does not answer.
    #[tokio::test]
    async fn a_file_that_does_not_answer_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (go_on, told) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let in_time = told.recv_timeout(Duration::from_secs(10)).is_ok();
            std::fs::write(path, r#"[{"targets":["a:1"]}]"#).unwrap();
            in_time
        });
        let mut files = discovery(dir.path());
        let reading = tokio::spawn(async move { files.refresh_aside().await });
        tokio::task::yield_now().await;
        go_on.send(()).unwrap();
        let (groups, errors) = reading.await.unwrap().unwrap();
        assert_eq!((shown(dir.path(), &groups), errors), (vec!["a:1@a.json".to_owned()], 0));
        assert!(writer.join().unwrap(), "the thread was held up");
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let stop = CancellationToken::new();
        let (send, mut published) = mpsc::channel(16);
        let mut files = discovery(dir.path());
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { files.run(stop, |groups, _| send.try_send(groups).unwrap()).await }
        });
        assert_eq!(published.recv().await, Some(Vec::new()));
        std::fs::write(dir.path().join("new"), r#"[{"targets":["a:1"]}]"#).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a plain rename is what is tested")]
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        let found = async {
            loop {
                let groups = published.recv().await.unwrap();
                if !groups.is_empty() {
                    return groups;
                }
            }
        };
        let groups = tokio::time::timeout(Duration::from_secs(20), found).await.unwrap();
        assert_eq!(shown(dir.path(), &groups), ["a:1@a.json"]);
        stop.cancel();
        task.await.unwrap();
    }
}
