//! Files of the server's machine: which of them a table reads.

use std::path::{Component, Path, PathBuf};

use pgwire::error::PgWireResult;

use super::ExternalFormat;
use crate::pgwire::sqlstate;

/// Folders in folders that are looked into.
const DEEPEST: usize = 16;
/// Files of one table.
const MOST_FILES: usize = 100_000;

/// A table's name and format, and where its files are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a Path,
    pub(super) format: ExternalFormat,
}

/// The files of a created table, which must be beneath one of `folders`.
pub(super) fn files_beneath(table: Wanted<'_>, folders: &[&Path]) -> PgWireResult<Vec<PathBuf>> {
    let refused = |reason: &str| Err(sqlstate::error("42501", format!("{}: {reason}", table.path.display())));
    if !table.path.is_absolute() {
        return refused("the location of an external table is an absolute path");
    }
    if folders.is_empty() {
        return refused(
            "no folder is allowed for external tables; `sql.external_folders` in the configuration names them",
        );
    }
    // By its text first, so that nothing can be found out about other places.
    let Some(path) = resolved(table.path) else { return refused("this path is in no allowed folder") };
    let roots = folders.iter().filter_map(|folder| Some((folder, folder.canonicalize().ok()?)));
    let root = roots
        .filter(|(folder, root)| {
            path.starts_with(root) || resolved(folder).is_some_and(|f| path.starts_with(f))
        })
        .map(|(_, root)| root)
        .next();
    match root {
        Some(root) => files(table, Some(&root)),
        None => refused(
            "this path is in no allowed folder; `sql.external_folders` in the configuration names them",
        ),
    }
}

/// `path` without `.` and `..`, by its text alone; `None` if it leaves the root.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if !out.pop() => return None,
            Component::ParentDir => {}
            other => out.push(other),
        }
    }
    Some(out)
}

/// The files of `table`, in order of name, all of them beneath `root`; without one, beneath the path itself.
pub(super) fn files(table: Wanted<'_>, root: Option<&Path>) -> PgWireResult<Vec<PathBuf>> {
    let failed = |path: &Path, error: std::io::Error| {
        let message = format!("external table {:?}: {}: {error}", table.name, path.display());
        sqlstate::error("58P01", message)
    };
    let path = table.path.canonicalize().map_err(|error| failed(table.path, error))?;
    let root = root.unwrap_or(&path);
    if !path.starts_with(root) {
        return Err(leads_out(table.path, root));
    }
    let mut found = Vec::new();
    let mut left = vec![(path.clone(), 0)];
    while let Some((at, depth)) = left.pop() {
        // What a link leads to.
        let real = at.canonicalize().map_err(|error| failed(&at, error))?;
        if !real.starts_with(root) {
            return Err(leads_out(&at, root));
        }
        if real.is_dir() {
            if depth > DEEPEST {
                let message = format!("external table {:?}: folders are nested too deep", table.name);
                return Err(sqlstate::error("54000", message));
            }
            for entry in std::fs::read_dir(&real).map_err(|error| failed(&at, error))? {
                let entry = entry.map_err(|error| failed(&at, error))?;
                let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
                let path = entry.path();
                let fits = || path.is_dir() || ends_as(&path, table.format);
                if !hidden && fits() {
                    left.push((path, depth + 1));
                }
            }
        } else if real.is_file() {
            found.push(real);
        }
        if found.len() + left.len() > MOST_FILES {
            let message = format!("external table {:?} has more than {MOST_FILES} files", table.name);
            return Err(sqlstate::error("54000", message));
        }
    }
    if found.is_empty() {
        let message = format!(
            "external table {:?}: {} has no {} files",
            table.name,
            path.display(),
            table.format.name()
        );
        return Err(sqlstate::error("58P01", message));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn leads_out(path: &Path, root: &Path) -> pgwire::error::PgWireError {
    sqlstate::error("42501", format!("{} leads out of {}", path.display(), root.display()))
}

fn ends_as(path: &Path, format: ExternalFormat) -> bool {
    let end = path.extension().and_then(|end| end.to_str()).map(str::to_ascii_lowercase);
    end.is_some_and(|end| format.ends().contains(&end.as_str()))
}

/// `path` as a URL, in which nothing is a pattern.
pub(super) fn url(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut url = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                url.push(char::from(*byte))
            }
            other => drop(write!(url, "%{other:02X}")),
        }
    }
    url
}
