//! [`Views`]: queries under a name, in schema `metrics` beside the tables of metrics, kept in a file.
//!
//! # Contract
//! - A view is a text. It is planned anew whenever a statement names it, with the rights of who asks, so that it shows
//!   labels that came after it, and says by itself when a table that it reads is gone.
//! - No view reads itself, not by way of others either, and none stands on more than [`DEEPEST`] others.
//! - The file is replaced as a whole. One that cannot be read is left as it is: no view is there then, none can be
//!   made or dropped, and who names one is told why.
//!
//! # File
//! `{"version":1,"views":[{"name":"…","query":"SELECT …"},…]}`

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Result};
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Query, Statement, visit_relations};
use parking_lot::RwLock;
use pgwire::error::PgWireResult;
use serde_json::{Value, json};

use super::{METRICS, SqlCatalog, external_error, kept};
use crate::QueryError;
use crate::pgwire::{Access, SqlParser, sqlstate, statement};

/// Views that a view may stand on, one on the other.
const DEEPEST: usize = 16;
/// Views that there may be.
const MOST: usize = 1_000;
/// Length of a view's text.
const MOST_BYTES: usize = 64 * 1024;

/// A view to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewView {
    pub(crate) name: String,
    /// What it shows.
    pub(crate) query: String,
    /// Whether it takes the place of one that has the name.
    pub(crate) replace: bool,
    /// Whether it is fine if one has the name.
    pub(crate) if_not_exists: bool,
}

/// The views.
pub(crate) struct Views {
    parser: SqlParser,
    /// Plans them.
    catalog: OnceLock<Weak<SqlCatalog>>,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Where they are kept; in memory only without it.
    file: Option<PathBuf>,
    /// Why the file cannot be read.
    damage: Option<String>,
    /// Queries by name.
    views: BTreeMap<String, String>,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl Views {
    pub(crate) fn new() -> Self {
        Self { parser: SqlParser::new(), catalog: OnceLock::new(), kept: RwLock::default() }
    }

    /// Plans them in sessions of `catalog` from now on.
    pub(crate) fn plan_in(&self, catalog: &Arc<SqlCatalog>) {
        let _ = self.catalog.set(Arc::downgrade(catalog));
    }

    /// Keeps them in `file` from now on, and takes those that are in it. Says what is wrong with the file.
    pub(crate) fn keep_in(&self, file: PathBuf) -> Option<String> {
        let (views, damage) = match load(&file) {
            Ok(views) => (views, None),
            Err(reason) => (BTreeMap::new(), Some(format!("{}: {reason}", file.display()))),
        };
        *self.kept.write() = Kept { file: Some(file), damage: damage.clone(), views };
        damage
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.kept.read().views.keys().cloned().collect()
    }

    /// The query of the view called `name`.
    pub(crate) fn definition(&self, name: &str) -> Option<String> {
        self.kept.read().views.get(name).cloned()
    }

    /// Why there are none, if that is not because nobody made one.
    ///
    /// # Errors
    /// That reason.
    pub(crate) fn check_readable(&self) -> Result<()> {
        match &self.kept.read().damage {
            Some(reason) => Err(external_error(sqlstate::error("XX001", unreadable(reason)))),
            None => Ok(()),
        }
    }

    /// The view called `name` as a table.
    ///
    /// # Errors
    /// If it cannot be planned, because tables or columns are gone that it reads.
    pub(crate) async fn open(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(query) = self.definition(name) else { return Ok(None) };
        let planned = async {
            // A file that was written by hand may say what nobody could create.
            self.depth(&self.kept.read().views, name, &query)?;
            self.plan(&self.session()?, &Access::default(), &query).await
        };
        match planned.await {
            Ok(plan) => Ok(Some(Arc::new(ViewTable::new(plan, Some(query))))),
            Err(error) => {
                let QueryError { sqlstate, message } = error.into();
                Err(external_error(sqlstate::error(
                    &sqlstate,
                    format!("view {name:?} cannot be used: {message}"),
                )))
            }
        }
    }

    /// Makes a view, for someone with `access`, who must be allowed to read what it reads. `is_metric` says whether a
    /// metric has its name.
    ///
    /// # Errors
    /// With the SQLSTATE that fits; nothing is changed then.
    pub(crate) async fn create(&self, view: NewView, access: &Access, is_metric: bool) -> PgWireResult<()> {
        let NewView { name, query, replace, if_not_exists } = view;
        if name.is_empty() {
            return Err(sqlstate::error("42602", "a view needs a name"));
        }
        if is_metric {
            return Err(sqlstate::error(
                "42P07",
                format!("relation {name:?} already exists: it is a metric"),
            ));
        }
        if query.len() > MOST_BYTES {
            return Err(sqlstate::error("54000", format!("a view may have {MOST_BYTES} bytes")));
        }
        if self.definition(&name).is_some() && !replace {
            return match if_not_exists {
                true => Ok(()),
                false => Err(sqlstate::error("42P07", format!("relation {name:?} already exists"))),
            };
        }
        self.depth(&self.kept.read().views, &name, &query)?;
        self.plan(&self.session()?, access, &query).await?;
        self.change(|views| {
            // Looked at again, for others may have changed some meanwhile.
            if views.contains_key(&name) && !replace {
                return Err(sqlstate::error("42P07", format!("relation {name:?} already exists")));
            }
            self.depth(views, &name, &query)?;
            if views.len() >= MOST && !views.contains_key(&name) {
                return Err(sqlstate::error("54000", format!("there may be {MOST} views")));
            }
            views.insert(name, query);
            Ok(())
        })
    }

    /// Drops views, all or none.
    ///
    /// # Errors
    /// If one is not there, unless `if_exists`, or another one reads it.
    pub(crate) fn drop(&self, names: &[String], if_exists: bool) -> PgWireResult<()> {
        self.change(|views| {
            for name in names {
                if views.remove(name).is_none() && !if_exists {
                    return Err(sqlstate::error("42P01", format!("view {name:?} does not exist")));
                }
            }
            for (other, query) in views.iter() {
                if let Some(gone) = self.reads(query)?.iter().find(|read| names.contains(*read)) {
                    let message = format!("cannot drop view {gone:?}: view {other:?} reads it");
                    return Err(sqlstate::error("2BP01", message));
                }
            }
            Ok(())
        })
    }

    /// Changes them in the file and then here.
    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, String>) -> PgWireResult<()>,
    ) -> PgWireResult<()> {
        let mut kept = self.kept.write();
        if let Some(reason) = &kept.damage {
            return Err(sqlstate::error("XX001", unreadable(reason)));
        }
        let mut views = kept.views.clone();
        change(&mut views)?;
        if let Some(file) = &kept.file {
            store(file, &views)
                .map_err(|error| sqlstate::error("58030", format!("views cannot be kept: {error}")))?;
        }
        kept.views = views;
        Ok(())
    }

    fn session(&self) -> PgWireResult<SessionContext> {
        let catalog = self.catalog.get().and_then(Weak::upgrade);
        let catalog = catalog.ok_or_else(|| sqlstate::error("57P01", "the catalog of views is closed"))?;
        Ok(catalog.session())
    }

    async fn plan(
        &self,
        session: &SessionContext,
        access: &Access,
        query: &str,
    ) -> PgWireResult<LogicalPlan> {
        let (plan, columns) = statement::plan_query(session, access, self.parse(query)?).await?;
        let parameters = plan.get_parameter_names().map_err(|error| sqlstate::from_datafusion(&error))?;
        if let Some(parameter) = parameters.iter().next() {
            return Err(sqlstate::error("42P02", format!("there is no parameter {parameter} in a view")));
        }
        let mut seen = BTreeSet::new();
        let mut items = Vec::new();
        for ((qualifier, field), column) in plan.schema().iter().zip(columns.fields()) {
            if !seen.insert(column.name()) {
                let message = format!("column {:?} specified more than once", column.name());
                return Err(sqlstate::error("42701", message));
            }
            items.push(Expr::Column(Column::from((qualifier, field))).alias(column.name()));
        }
        let named = LogicalPlanBuilder::from(plan).project(items).and_then(LogicalPlanBuilder::build);
        named.map_err(|error| sqlstate::from_datafusion(&error))
    }

    fn parse(&self, query: &str) -> PgWireResult<Box<Query>> {
        let mut statements = crate::pgwire::parse(&self.parser, query)?;
        match (statements.pop(), statements.is_empty()) {
            (Some(Statement::Query(query)), true) => Ok(query),
            _ => Err(sqlstate::error("42601", "a view is one query")),
        }
    }

    /// Names that may be views, of what `query` reads.
    fn reads(&self, query: &str) -> PgWireResult<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let _: ControlFlow<()> = visit_relations(&self.parse(query)?, |name| {
            found.extend(name_of(name));
            ControlFlow::Continue(())
        });
        Ok(found)
    }

    /// Checks that the view called `name`, which is `query`, does not stand on itself, nor on too many others.
    fn depth(&self, views: &BTreeMap<String, String>, name: &str, query: &str) -> PgWireResult<()> {
        let mut layer = self.reads(query)?;
        for _ in 0..=DEEPEST {
            if layer.contains(name) {
                return Err(sqlstate::error("42P17", format!("view {name:?} would read itself")));
            }
            let mut next = BTreeSet::new();
            for query in layer.iter().filter_map(|read| views.get(read)) {
                next.append(&mut self.reads(query)?);
            }
            if next.is_empty() {
                return Ok(());
            }
            layer = next;
        }
        Err(sqlstate::error("54001", format!("view {name:?} stands on more than {DEEPEST} others")))
    }
}

/// The parts of a name, as Postgres reads them.
pub(crate) fn parts_of(name: &ObjectName) -> Option<Vec<String>> {
    let folded = |ident: &Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    };
    name.0.iter().map(|part| part.as_ident().map(folded)).collect()
}

/// The name of a view, as it may be written; `None` if it cannot be one.
pub(crate) fn name_of(name: &ObjectName) -> Option<String> {
    match &parts_of(name)?[..] {
        [name] => Some(name.clone()),
        [schema, name] | [_, schema, name] if schema == METRICS => Some(name.clone()),
        _ => None,
    }
}

fn unreadable(reason: &str) -> String {
    format!("stored views cannot be read, repair or move the file: {reason}")
}

fn load(file: &Path) -> std::result::Result<BTreeMap<String, String>, String> {
    let mut views = BTreeMap::new();
    for view in kept::load(file, "views")? {
        let text = |key: &str| view.get(key).and_then(Value::as_str).map(str::to_owned);
        let (name, query) = text("name").zip(text("query")).ok_or("a view has a name and a query")?;
        if views.insert(name.clone(), query).is_some() {
            return Err(format!("there are two views called {name:?}"));
        }
    }
    Ok(views)
}

fn store(file: &Path, views: &BTreeMap<String, String>) -> promontory_tsdb::Result<()> {
    let views: Vec<_> = views.iter().map(|(name, query)| json!({ "name": name, "query": query })).collect();
    kept::store(file, "views", &views)
}
