//! Schema `external`: files of the server's machine as tables.
//!
//! Two kinds: mounted ones, which the configuration names, and created ones (`CREATE EXTERNAL TABLE`), whose paths must
//! be beneath folders that the configuration allows. A path is looked at whenever a statement names the table, so that
//! files may come, go and change.
//!
//! # What is not left
//! A created table reads nothing outside its allowed folder, a mounted folder nothing outside itself: `..` is resolved
//! before anything is looked at, and links are followed and checked. Whoever can change the folder while a query runs
//! can get around that; they need no SQL for it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use parking_lot::RwLock;
use pgwire::error::PgWireResult;
use serde_json::{Value, json};

use super::schema::BuiltIn;
use super::{SqlCatalog, external_error, kept};
use crate::pgwire::sqlstate;

/// Folders in folders that are looked into.
const DEEPEST: usize = 16;
/// Files of one table.
const MOST_FILES: usize = 100_000;
/// Created tables that there may be.
const MOST: usize = 1_000;

/// How the rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalFormat {
    /// Parquet.
    Parquet,
    /// Comma-separated values, or separated by something else.
    Csv {
        /// Whether the first line names the columns.
        header: bool,
        /// What stands between values.
        delimiter: u8,
    },
    /// An object per line.
    Json,
}

impl ExternalFormat {
    /// By its name, with usual options.
    pub fn by_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv { header: true, delimiter: b',' }),
            "json" | "ndjson" => Some(Self::Json),
            _ => None,
        }
    }

    /// By how the name of a file ends.
    pub fn of_path(path: &Path) -> Option<Self> {
        let end = path.extension()?.to_str()?.to_ascii_lowercase();
        let all = [Self::Parquet, Self::Csv { header: true, delimiter: b',' }, Self::Json];
        all.into_iter().find(|format| format.ends().contains(&end.as_str()))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv { .. } => "csv",
            Self::Json => "json",
        }
    }

    /// How names of such files end.
    fn ends(self) -> &'static [&'static str] {
        match self {
            Self::Parquet => &["parquet"],
            Self::Csv { .. } => &["csv", "tsv"],
            Self::Json => &["json", "ndjson", "jsonl"],
        }
    }

    fn reader(self) -> Arc<dyn FileFormat> {
        match self {
            // Views are what clients cannot be sent in all their forms.
            Self::Parquet => Arc::new(ParquetFormat::default().with_force_view_types(false)),
            Self::Csv { header, delimiter } => {
                Arc::new(CsvFormat::default().with_has_header(header).with_delimiter(delimiter))
            }
            Self::Json => Arc::new(JsonFormat::default()),
        }
    }
}

/// A table over a file, or over the files of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTable {
    /// Its name in schema `external`.
    pub name: String,
    /// The file, or the folder.
    pub path: PathBuf,
    /// How it is written. Of a folder, files whose names end so are read.
    pub format: ExternalFormat,
}

/// What the configuration says of files as tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalOptions {
    /// Tables that there are.
    pub tables: Vec<ExternalTable>,
    /// Folders beneath which users may create tables.
    pub folders: Vec<PathBuf>,
}

/// A table to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTable {
    pub(crate) table: ExternalTable,
    /// Whether it takes the place of one that has the name.
    pub(crate) replace: bool,
    /// Whether it is fine if one has the name.
    pub(crate) if_not_exists: bool,
}

/// The tables.
pub(crate) struct External {
    /// Reads them.
    catalog: OnceLock<Weak<SqlCatalog>>,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    options: ExternalOptions,
    /// Where created tables are kept; in memory only without it.
    file: Option<PathBuf>,
    /// Why the file cannot be read.
    damage: Option<String>,
    created: BTreeMap<String, ExternalTable>,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External").field("state", &self.state).finish_non_exhaustive()
    }
}

impl External {
    pub(crate) fn new() -> Self {
        Self { catalog: OnceLock::new(), state: RwLock::default() }
    }

    /// Reads tables in sessions of `catalog` from now on.
    pub(crate) fn read_in(&self, catalog: &Arc<SqlCatalog>) {
        let _ = self.catalog.set(Arc::downgrade(catalog));
    }

    /// Takes these from now on.
    pub(crate) fn configure(&self, options: ExternalOptions) {
        self.state.write().options = options;
    }

    /// Keeps created tables in `file` from now on, and takes those that are in it. Says what is wrong with the file.
    pub(crate) fn keep_in(&self, file: PathBuf) -> Option<String> {
        let (created, damage) = match load(&file) {
            Ok(created) => (created, None),
            Err(reason) => (BTreeMap::new(), Some(format!("{}: {reason}", file.display()))),
        };
        let mut state = self.state.write();
        (state.file, state.damage, state.created) = (Some(file), damage.clone(), created);
        damage
    }

    /// Creates a table, after a look at what it would read.
    ///
    /// # Errors
    /// With the SQLSTATE that fits; nothing is changed then.
    pub(crate) async fn create(&self, new: NewTable) -> PgWireResult<()> {
        let NewTable { table, replace, if_not_exists } = new;
        let taken = || sqlstate::error("42P07", format!("relation {:?} already exists", table.name));
        {
            let state = self.state.read();
            if state.options.tables.iter().any(|known| known.name == table.name) {
                return if if_not_exists { Ok(()) } else { Err(taken()) };
            }
            if state.created.contains_key(&table.name) && !replace {
                return if if_not_exists { Ok(()) } else { Err(taken()) };
            }
        }
        self.read(&table, true).await?;
        self.change(|created| {
            if created.contains_key(&table.name) && !replace {
                return Err(taken());
            }
            if created.len() >= MOST && !created.contains_key(&table.name) {
                return Err(sqlstate::error("54000", format!("there may be {MOST} external tables")));
            }
            created.insert(table.name.clone(), table.clone());
            Ok(())
        })
    }

    /// Drops created tables, all or none. The files stay.
    ///
    /// # Errors
    /// If one is not there, unless `if_exists`, or is not created but mounted.
    pub(crate) fn drop(&self, names: &[String], if_exists: bool) -> PgWireResult<()> {
        let mounted: Vec<_> = self.state.read().options.tables.iter().map(|t| t.name.clone()).collect();
        self.change(|created| {
            for name in names {
                if mounted.contains(name) {
                    let message = format!("external.{name} is in the configuration, and is dropped there");
                    return Err(sqlstate::error("42809", message));
                }
                if created.remove(name).is_none() && !if_exists {
                    return Err(sqlstate::error(
                        "42P01",
                        format!("table \"external.{name}\" does not exist"),
                    ));
                }
            }
            Ok(())
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, ExternalTable>) -> PgWireResult<()>,
    ) -> PgWireResult<()> {
        let mut state = self.state.write();
        if let Some(reason) = &state.damage {
            return Err(unreadable(reason));
        }
        let mut created = state.created.clone();
        change(&mut created)?;
        if let Some(file) = &state.file {
            store(file, &created)
                .map_err(|error| sqlstate::error("58030", format!("tables cannot be kept: {error}")))?;
        }
        state.created = created;
        Ok(())
    }

    /// `table` over the files that there are now.
    async fn read(&self, table: &ExternalTable, created: bool) -> PgWireResult<Arc<dyn TableProvider>> {
        let files = match created {
            true => files_beneath(table, &self.state.read().options.folders)?,
            false => files(table, None)?,
        };
        let catalog = self.catalog.get().and_then(Weak::upgrade);
        let catalog = catalog.ok_or_else(|| sqlstate::error("57P01", "the catalog is closed"))?;
        let opened = async {
            let state = catalog.session().state();
            let urls = files.iter().map(|file| ListingTableUrl::parse(url(file)));
            let options = ListingOptions::new(table.format.reader()).with_file_extension("");
            let config = ListingTableConfig::new_with_multi_paths(urls.collect::<Result<_>>()?)
                .with_listing_options(options)
                .infer_schema(&state)
                .await?;
            Ok(Arc::new(ListingTable::try_new(config)?) as Arc<dyn TableProvider>)
        };
        let opened: Result<_> = opened.await;
        opened.map_err(|error| {
            let message =
                format!("external table {:?} cannot be read: {}", table.name, error.strip_backtrace());
            sqlstate::error("58030", message)
        })
    }
}

#[async_trait]
impl BuiltIn for Arc<External> {
    fn names(&self) -> Result<Vec<String>> {
        let state = self.state.read();
        let mounted = state.options.tables.iter().map(|table| table.name.clone());
        Ok(mounted.chain(state.created.keys().cloned()).collect())
    }

    fn exists(&self, name: &str) -> Result<bool> {
        let state = self.state.read();
        Ok(state.options.tables.iter().any(|table| table.name == name) || state.created.contains_key(name))
    }

    async fn open(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let (table, created) = {
            let state = self.state.read();
            let mounted = state.options.tables.iter().find(|table| table.name == name);
            match (mounted, state.created.get(name), &state.damage) {
                (Some(table), _, _) => (table.clone(), false),
                (None, Some(table), _) => (table.clone(), true),
                (None, None, Some(reason)) => return Err(external_error(unreadable(reason))),
                (None, None, None) => return Ok(None),
            }
        };
        self.read(&table, created).await.map(Some).map_err(external_error)
    }
}

fn unreadable(reason: &str) -> pgwire::error::PgWireError {
    let message = format!("created tables cannot be read, repair or move the file: {reason}");
    sqlstate::error("XX001", message)
}

/// The files of a created table, which must be beneath one of `folders`.
fn files_beneath(table: &ExternalTable, folders: &[PathBuf]) -> PgWireResult<Vec<PathBuf>> {
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
    let Some(path) = resolved(&table.path) else { return refused("this path is in no allowed folder") };
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
fn files(table: &ExternalTable, root: Option<&Path>) -> PgWireResult<Vec<PathBuf>> {
    let failed = |path: &Path, error: std::io::Error| {
        let message = format!("external table {:?}: {}: {error}", table.name, path.display());
        sqlstate::error("58P01", message)
    };
    let path = table.path.canonicalize().map_err(|error| failed(&table.path, error))?;
    let root = root.unwrap_or(&path);
    if !path.starts_with(root) {
        return Err(leads_out(&table.path, root));
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
fn url(path: &Path) -> String {
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

fn load(file: &Path) -> std::result::Result<BTreeMap<String, ExternalTable>, String> {
    let mut tables = BTreeMap::new();
    for table in kept::load(file, "tables")? {
        let text = |key: &str| table.get(key).and_then(Value::as_str);
        let (name, path) = text("name").zip(text("path")).ok_or("a table has a name and a path")?;
        let format = text("format").and_then(ExternalFormat::by_name).ok_or("a table has a format")?;
        let format = match format {
            ExternalFormat::Csv { .. } => ExternalFormat::Csv {
                header: table.get("header").and_then(Value::as_bool).unwrap_or(true),
                delimiter: text("delimiter").and_then(|text| text.bytes().next()).unwrap_or(b','),
            },
            other => other,
        };
        let table = ExternalTable { name: name.to_owned(), path: path.into(), format };
        if tables.insert(name.to_owned(), table).is_some() {
            return Err(format!("there are two tables called {name:?}"));
        }
    }
    Ok(tables)
}

fn store(file: &Path, tables: &BTreeMap<String, ExternalTable>) -> promontory_tsdb::Result<()> {
    let one = |table: &ExternalTable| {
        let mut one = json!({ "name": table.name, "path": table.path, "format": table.format.name() });
        if let ExternalFormat::Csv { header, delimiter } = table.format {
            one["header"] = header.into();
            one["delimiter"] = char::from(delimiter).to_string().into();
        }
        one
    };
    let tables: Vec<_> = tables.values().map(one).collect();
    kept::store(file, "tables", &tables)
}
