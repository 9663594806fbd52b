//! The `sql` section, which Prometheus does not have: who may connect as a Postgres client, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use promontory_sql::{
    Access, ExternalFormat, ExternalOptions, ExternalTable, Location, ObjectStoreOptions, ScramVerifier,
    SqlUser,
};

use super::join_directory;
use super::reader::{Item, Notes, Result, Section};

/// How Postgres clients are served. Read when the server starts.
#[derive(Debug, Clone, Default)]
pub struct SqlConfig {
    /// Who may connect; empty lets everyone in who reaches a loopback address.
    pub users: Vec<SqlUser>,
    /// Certificate and key; `None` encrypts nothing.
    pub tls: Option<SqlTlsConfig>,
    /// Connections at once; `None` is the default.
    pub max_connections: Option<usize>,
    /// How long a statement may run unless its session says otherwise.
    pub statement_timeout: Option<Duration>,
    /// Files as tables.
    pub external: ExternalOptions,
}

/// `sql.tls`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlTlsConfig {
    /// The chain, the server's own certificate first, PEM.
    pub cert_file: PathBuf,
    /// The key, PEM.
    pub key_file: PathBuf,
    /// Whether clients that do not encrypt are sent away.
    pub required: bool,
}

/// What a reload can see of a change: secrets differ where their texts do.
impl PartialEq for SqlConfig {
    fn eq(&self, other: &Self) -> bool {
        let users = |config: &Self| {
            let one = |user: &SqlUser| (user.name.clone(), user.verifier.to_string(), user.access.clone());
            config.users.iter().map(one).collect::<Vec<_>>()
        };
        users(self) == users(other)
            && self.tls == other.tls
            && self.max_connections == other.max_connections
            && self.statement_timeout == other.statement_timeout
            && self.external == other.external
    }
}

impl SqlConfig {
    pub(super) fn read(mut section: Section, directory: &Path, notes: &Notes) -> Result<Self> {
        let mut config = Self::default();
        for item in section.list(notes, "users")? {
            let at = item.at.clone();
            let user = read_user(item, notes)?;
            if config.users.iter().any(|known| known.name == user.name) {
                return Err(notes.error(&at, format!("there are two users called {:?}", user.name)));
            }
            config.users.push(user);
        }
        if let Some(tls) = section.section(notes, "tls")? {
            config.tls = Some(read_tls(tls, directory, notes)?);
        }
        if let Some(item) = section.take("max_connections") {
            let most = usize::try_from(item.number(notes)?).ok().filter(|most| *most > 0);
            config.max_connections =
                Some(most.ok_or_else(|| notes.error(&item.at, "there must be room for one connection"))?);
        }
        config.statement_timeout = section.duration(notes, "statement_timeout")?.filter(|t| !t.is_zero());
        for item in section.list(notes, "external")? {
            let at = item.at.clone();
            let table = read_external(item, directory, notes)?;
            if config.external.tables.iter().any(|known| known.name == table.name) {
                return Err(notes.error(&at, format!("there are two tables called {:?}", table.name)));
            }
            config.external.tables.push(table);
        }
        let folders = section.strings(notes, "external_folders")?.unwrap_or_default();
        let at = section.at.clone();
        let folders =
            folders.iter().map(|f| located(f, directory).map_err(|reason| notes.error(&at, reason)));
        config.external.folders = folders.collect::<Result<_>>()?;
        for item in section.list(notes, "object_stores")? {
            let at = item.at.clone();
            let store = read_store(item, notes)?;
            if config.external.stores.iter().any(|known| known.bucket() == store.bucket()) {
                return Err(notes.error(&at, format!("{} is said twice", store.bucket())));
            }
            config.external.stores.push(store);
        }
        section.finish(notes)?;
        Ok(config)
    }
}

fn read_external(item: Item, directory: &Path, notes: &Notes) -> Result<ExternalTable> {
    let mut section = item.section(notes)?;
    let at = section.at.clone();
    let mut needed = |key: &str| {
        let text = section.string(notes, key)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| notes.error(&at, format!("{key} is missing")))
    };
    let (name, path) = (needed("name")?, needed("path")?);
    let location = located(&path, directory).map_err(|reason| notes.error(&at, reason))?;
    let mut format = match section.take("format") {
        Some(item) => {
            let name = item.string(notes)?;
            let unknown =
                || notes.error(&item.at, format!("the formats are parquet, csv and json, not {name:?}"));
            ExternalFormat::by_name(&name).ok_or_else(unknown)?
        }
        None => ExternalFormat::of_path(location.as_path())
            .ok_or_else(|| notes.error(&at, "the format cannot be told from the path: say `format`"))?,
    };
    let (header, delimiter) = (section.bool(notes, "header")?, section.string(notes, "delimiter")?);
    match &mut format {
        ExternalFormat::Csv { header: has_header, delimiter: between } => {
            *has_header = header.unwrap_or(true);
            if let Some(text) = delimiter {
                let [only] = text.as_bytes() else {
                    return Err(notes.error(&at, "delimiter is one ASCII character"));
                };
                *between = *only;
            }
        }
        _ if header.is_some() || delimiter.is_some() => {
            return Err(notes.error(&at, "header and delimiter are for csv"));
        }
        _ => {}
    }
    section.finish(notes)?;
    Ok(ExternalTable { name, location, format })
}

/// Where `text` says that files are; paths count from `directory`.
fn located(text: &str, directory: &Path) -> std::result::Result<Location, String> {
    Ok(match Location::parse(text)? {
        Location::Path(_) => Location::Path(join_directory(directory, text).into()),
        objects @ Location::Objects(_) => objects,
    })
}

fn read_store(item: Item, notes: &Notes) -> Result<ObjectStoreOptions> {
    let mut section = item.section(notes)?;
    let at = section.at.clone();
    let url = section.string(notes, "url")?.filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| notes.error(&at, "url is missing"))?;
    let mut options = BTreeMap::new();
    if let Some(mut said) = section.section(notes, "options")? {
        for key in said.keys() {
            let value = said.string(notes, &key)?.unwrap_or_default();
            options.insert(key, value);
        }
    }
    section.finish(notes)?;
    ObjectStoreOptions::new(&url, options).map_err(|reason| notes.error(&at, reason))
}

fn read_user(item: Item, notes: &Notes) -> Result<SqlUser> {
    let mut section = item.section(notes)?;
    let at = section.at.clone();
    let name = section.string(notes, "name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| notes.error(&at, "a user needs a name"))?;
    let verifier = section.take("verifier").ok_or_else(|| {
        notes.error(&at, "a user needs a verifier; `promontory sql verifier` makes one from a password")
    })?;
    let verifier = ScramVerifier::parse(&name, &verifier.string(notes)?)
        .map_err(|error| notes.error(&verifier.at, error.to_string()))?;
    let access = match section.strings(notes, "schemas")? {
        Some(schemas) => Access::only(schemas),
        None => Access::reading(),
    };
    let access = access.creating(section.bool(notes, "create")?.unwrap_or(false));
    section.finish(notes)?;
    Ok(SqlUser { name, verifier, access })
}

fn read_tls(mut section: Section, directory: &Path, notes: &Notes) -> Result<SqlTlsConfig> {
    let at = section.at.clone();
    let mut file = |key: &str| {
        let path = section.string(notes, key)?.filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| notes.error(&at, format!("{key} is missing")))?;
        Ok(PathBuf::from(join_directory(directory, &path)))
    };
    let (cert_file, key_file) = (file("cert_file")?, file("key_file")?);
    let required = section.bool(notes, "required")?.unwrap_or(false);
    section.finish(notes)?;
    Ok(SqlTlsConfig { cert_file, key_file, required })
}
