//! Schema `external`: files of the server's machine, and objects of object stores, as tables.
//!
//! Two kinds: mounted ones, which the configuration names, and created ones (`CREATE EXTERNAL TABLE`), whose paths must
//! be beneath folders that the configuration allows. A place is looked at whenever a statement names the table, so that
//! files may come, go and change.
//!
//! # What is not left
//! A created table reads nothing outside its allowed folder, a mounted folder nothing outside itself: `..` is resolved
//! before anything is looked at, and links are followed and checked. Whoever can change the folder while a query runs
//! can get around that; they need no SQL for it.
//!
//! - [`files`] finds the files of a path, [`objects`] reaches object stores.

mod files;
mod objects;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use parking_lot::RwLock;
use pgwire::error::PgWireResult;
use serde_json::{Value, json};
use url::Url;

use super::schema::BuiltIn;
use super::{SqlCatalog, external_error, kept};
use crate::pgwire::sqlstate;
use files::Wanted;
pub use objects::ObjectStoreOptions;

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

/// Where files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file of the server's machine, or a folder.
    Path(PathBuf),
    /// An object, or, with a `/` at the end, all beneath a prefix.
    Objects(Url),
}

impl Location {
    /// What `text` says: a URL if there is `://` in it.
    ///
    /// # Errors
    /// Says what is wrong with the URL.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.contains("://") {
            objects::parse(text).map(Self::Objects)
        } else {
            Ok(Self::Path(text.into()))
        }
    }

    /// Its end, which tells the format.
    pub fn as_path(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Objects(url) => Path::new(url.path()),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Objects(url) => url.fmt(f),
        }
    }
}

/// A table over a file, or over the files of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTable {
    /// Its name in schema `external`.
    pub name: String,
    /// The file, or the folder.
    pub location: Location,
    /// How it is written. Of a folder, files whose names end so are read; beneath a prefix of an object store those that
    /// end with the format's own name.
    pub format: ExternalFormat,
}

/// What the configuration says of files as tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalOptions {
    /// Tables that there are.
    pub tables: Vec<ExternalTable>,
    /// Folders and prefixes beneath which users may create tables.
    pub folders: Vec<Location>,
    /// How object stores are reached.
    pub stores: Vec<ObjectStoreOptions>,
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
        if let Some(catalog) = self.catalog.get().and_then(Weak::upgrade) {
            objects::register(&options, &catalog.template.runtime_env().object_store_registry);
        }
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

    /// Where the files of `table` are now, and how the names of those end that are read.
    ///
    /// # Errors
    /// If it leads somewhere that is not allowed, or there is nothing.
    fn urls(&self, table: &ExternalTable, created: bool) -> PgWireResult<(Vec<String>, &'static str)> {
        let state = self.state.read();
        let folders = &state.options.folders;
        match &table.location {
            Location::Path(path) => {
                let wanted = Wanted { name: &table.name, path, format: table.format };
                let found = if created {
                    let folders = folders.iter().filter_map(|folder| match folder {
                        Location::Path(path) => Some(path.as_path()),
                        Location::Objects(_) => None,
                    });
                    files::files_beneath(wanted, &folders.collect::<Vec<_>>())?
                } else {
                    files::files(wanted, None)?
                };
                Ok((found.iter().map(|file| files::url(file)).collect(), ""))
            }
            Location::Objects(url) => {
                if created {
                    objects::check_beneath(url, folders)?;
                }
                let all = url.path().ends_with('/');
                Ok((vec![url.to_string()], if all { table.format.ends()[0] } else { "" }))
            }
        }
    }

    /// `table` over the files that there are now.
    async fn read(&self, table: &ExternalTable, created: bool) -> PgWireResult<Arc<dyn TableProvider>> {
        let (urls, end) = self.urls(table, created)?;
        let catalog = self.catalog.get().and_then(Weak::upgrade);
        let catalog = catalog.ok_or_else(|| sqlstate::error("57P01", "the catalog is closed"))?;
        let state = catalog.session().state();
        let unreadable = |error: DataFusionError| {
            let message =
                format!("external table {:?} cannot be read: {}", table.name, error.strip_backtrace());
            sqlstate::error("58030", message)
        };
        let urls = urls.iter().map(ListingTableUrl::parse).collect::<Result<Vec<_>>>().map_err(unreadable)?;
        if matches!(table.location, Location::Objects(_))
            && !objects::are_there(&urls, end, &state).await.map_err(unreadable)?
        {
            let (name, location, format) = (&table.name, &table.location, table.format.name());
            let message = format!("external table {name:?}: {location} has no {format} files");
            return Err(sqlstate::error("58P01", message));
        }
        let options = ListingOptions::new(table.format.reader()).with_file_extension(end);
        let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options);
        let config = config.infer_schema(&state).await.map_err(unreadable)?;
        Ok(Arc::new(ListingTable::try_new(config).map_err(unreadable)?))
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
        let table = ExternalTable { name: name.to_owned(), location: Location::parse(path)?, format };
        if tables.insert(name.to_owned(), table).is_some() {
            return Err(format!("there are two tables called {name:?}"));
        }
    }
    Ok(tables)
}

fn store(file: &Path, tables: &BTreeMap<String, ExternalTable>) -> promontory_tsdb::Result<()> {
    let one = |table: &ExternalTable| {
        let mut one =
            json!({ "name": table.name, "path": table.location.to_string(), "format": table.format.name() });
        if let ExternalFormat::Csv { header, delimiter } = table.format {
            one["header"] = header.into();
            one["delimiter"] = char::from(delimiter).to_string().into();
        }
        one
    };
    let tables: Vec<_> = tables.values().map(one).collect();
    kept::store(file, "tables", &tables)
}
