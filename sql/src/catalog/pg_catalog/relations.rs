//! `pg_namespace`, `pg_class`, `pg_attribute`, `pg_tables` and `pg_description`: what there is at the moment.
//!
//! To list tables opens none of them. Columns are looked up for the tables that a query asks about
//! (`attrelid = …`), and for all only if it asks about all.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int16Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_pg::datatypes::into_pg_type;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, Session, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use pgwire::api::Type;

use super::oids::Oids;
use super::{DATABASE_OID, INFORMATION_SCHEMA, OWNER_NAME, OWNER_OID, PG_CATALOG};
use crate::catalog::DATABASE;
use crate::catalog::comments::Comments;
use crate::catalog::schema::Schema as OwnSchema;

/// The access method of tables.
const HEAP: i32 = 2;

/// What there is.
pub(crate) struct Relations {
    pub(super) catalog: Arc<MemoryCatalogProvider>,
    pub(super) oids: Oids,
    pub(super) comments: Arc<Comments>,
}

impl std::fmt::Debug for Relations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relations").finish_non_exhaustive()
    }
}

/// One table, not opened.
pub(super) struct Relation {
    pub(super) schema: String,
    pub(super) name: String,
    oid: i32,
    pub(super) kind: &'static str,
}

impl Relations {
    pub(super) fn new(catalog: Arc<MemoryCatalogProvider>, comments: Arc<Comments>) -> Self {
        Self { catalog, oids: Oids::default(), comments }
    }

    /// All tables, by schema and name.
    pub(super) fn all(&self) -> Vec<Relation> {
        let mut all = Vec::new();
        for schema in self.catalog.schema_names() {
            let Some(provider) = self.catalog.schema(&schema) else { continue };
            let own = provider.downcast_ref::<OwnSchema>();
            let other = if schema == PG_CATALOG { "r" } else { "v" };
            let tables: Vec<_> = match own {
                Some(own) => own.listing().into_iter().map(|(name, t)| (name, letter(t))).collect(),
                None => {
                    let mut names = provider.table_names();
                    // Where `information_schema` is kept.
                    names.retain(|name| !name.starts_with(INFORMATION_SCHEMA));
                    names.into_iter().map(|name| (name, other)).collect()
                }
            };
            all.extend(tables.into_iter().map(|(name, kind)| Relation {
                oid: self.oids.of_table(&schema, &name),
                schema: schema.clone(),
                name,
                kind,
            }));
        }
        all
    }

    /// Those with identifiers among `wanted`.
    fn some(&self, wanted: Option<&BTreeSet<i32>>) -> Vec<Relation> {
        let Some(wanted) = wanted else { return self.all() };
        let mut all = self.all();
        all.retain(|relation| wanted.contains(&relation.oid));
        all
    }

    pub(super) async fn columns(&self, schema: &str, name: &str) -> Result<Option<SchemaRef>> {
        let Some(provider) = self.catalog.schema(schema) else { return Ok(None) };
        match provider.table(name).await {
            Ok(table) => Ok(table.map(|table| table.schema())),
            // A view that cannot be used has no columns, and must not keep others from being shown.
            Err(_) if self.definition(schema, name).is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The query of a view, as Postgres shows it.
    pub(super) fn definition(&self, schema: &str, name: &str) -> Option<String> {
        let query = self.catalog.schema(schema)?.downcast_ref::<OwnSchema>()?.definition(name)?;
        Some(format!(" {query};"))
    }
}

fn letter(table_type: TableType) -> &'static str {
    match table_type {
        TableType::Base => "r",
        TableType::View => "v",
        TableType::Temporary => "t",
    }
}

/// Which table of `pg_catalog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Database,
    Namespace,
    Class,
    Attribute,
    Tables,
    Views,
    Description,
}

impl Kind {
    pub(super) const ALL: [(&'static str, Self); 7] = [
        ("pg_database", Self::Database),
        ("pg_namespace", Self::Namespace),
        ("pg_class", Self::Class),
        ("pg_attribute", Self::Attribute),
        ("pg_tables", Self::Tables),
        ("pg_views", Self::Views),
        ("pg_description", Self::Description),
    ];

    /// The column that says which table a row is about.
    fn about(self) -> Option<&'static str> {
        match self {
            Self::Class => Some("oid"),
            Self::Attribute => Some("attrelid"),
            Self::Description => Some("objoid"),
            Self::Database | Self::Namespace | Self::Tables | Self::Views => None,
        }
    }

    fn schema(self) -> Schema {
        let columns = match self {
            Self::Database => database_columns(),
            Self::Namespace => namespace_columns(),
            Self::Class => class_columns(),
            Self::Attribute => attribute_columns(),
            Self::Tables => tables_columns(),
            Self::Views => views_columns(),
            Self::Description => description_columns(),
        };
        Schema::new(columns.into_iter().map(|(field, _)| field).collect::<Vec<_>>())
    }
}

/// A column: what holds in all rows, or `None` if it differs.
pub(super) type Columns = Vec<(Field, Option<ScalarValue>)>;

fn oid(name: &str) -> Field {
    // `arrow-pg` tells clients the type that this says.
    let kind = [("pg.oid_alias".to_owned(), "oid".to_owned())].into();
    Field::new(name, DataType::Int32, true).with_metadata(kind)
}

pub(super) fn varies(name: &str, data_type: DataType) -> (Field, Option<ScalarValue>) {
    (Field::new(name, data_type, true), None)
}

pub(super) fn constant(name: &str, value: impl Into<ScalarValue>) -> (Field, Option<ScalarValue>) {
    let value = value.into();
    (Field::new(name, value.data_type(), true), Some(value))
}

fn no(name: &str) -> (Field, Option<ScalarValue>) {
    constant(name, false)
}

fn constant_oid(name: &str, value: i32) -> (Field, Option<ScalarValue>) {
    (oid(name), Some(ScalarValue::from(value)))
}

/// A list of which there is none.
fn no_list(name: &str) -> (Field, Option<ScalarValue>) {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let null = ScalarValue::try_new_null(&list).unwrap_or(ScalarValue::Null);
    (Field::new(name, list, true), Some(null))
}

pub(super) fn no_text(name: &str) -> (Field, Option<ScalarValue>) {
    constant(name, ScalarValue::Utf8(None))
}

fn database_columns() -> Columns {
    vec![
        (oid("oid"), None),
        constant("datname", DATABASE),
        constant_oid("datdba", OWNER_OID),
        // UTF8
        constant("encoding", 6i32),
        constant("datlocprovider", "c"),
        no("datistemplate"),
        constant("datallowconn", true),
        constant("datconnlimit", -1i32),
        constant("datfrozenxid", 0i32),
        constant("datminmxid", 1i32),
        constant_oid("dattablespace", 1663),
        // Texts are compared byte by byte.
        constant("datcollate", "C"),
        constant("datctype", "C"),
        no_text("daticulocale"),
        no_text("datcollversion"),
        no_list("datacl"),
    ]
}

fn namespace_columns() -> Columns {
    vec![
        (oid("oid"), None),
        varies("nspname", DataType::Utf8),
        constant_oid("nspowner", OWNER_OID),
        no_list("nspacl"),
        no_list("options"),
    ]
}

fn class_columns() -> Columns {
    vec![
        (oid("oid"), None),
        varies("relname", DataType::Utf8),
        (oid("relnamespace"), None),
        constant_oid("reltype", 0),
        constant_oid("reloftype", 0),
        constant_oid("relowner", OWNER_OID),
        constant_oid("relam", HEAP),
        constant_oid("relfilenode", 0),
        constant_oid("reltablespace", 0),
        constant("relpages", 0i32),
        // Not counted yet, says Postgres by this.
        constant("reltuples", -1.0f32),
        constant("relallvisible", 0i32),
        constant_oid("reltoastrelid", 0),
        no("relhasindex"),
        no("relisshared"),
        constant("relpersistence", "p"),
        varies("relkind", DataType::Utf8),
        varies("relnatts", DataType::Int16),
        constant("relchecks", 0i16),
        no("relhasrules"),
        no("relhastriggers"),
        no("relhassubclass"),
        no("relrowsecurity"),
        no("relforcerowsecurity"),
        constant("relispopulated", true),
        constant("relreplident", "d"),
        no("relispartition"),
        constant_oid("relrewrite", 0),
        constant("relfrozenxid", 0i32),
        constant("relminmxid", 0i32),
        no_list("relacl"),
        no_list("reloptions"),
        no_text("relpartbound"),
    ]
}

fn attribute_columns() -> Columns {
    vec![
        (oid("attrelid"), None),
        varies("attname", DataType::Utf8),
        (oid("atttypid"), None),
        constant("attstattarget", -1i32),
        varies("attlen", DataType::Int16),
        varies("attnum", DataType::Int16),
        constant("attndims", 0i32),
        constant("attcacheoff", -1i32),
        constant("atttypmod", -1i32),
        no("attbyval"),
        constant("attalign", "d"),
        constant("attstorage", "p"),
        constant("attcompression", ""),
        varies("attnotnull", DataType::Boolean),
        no("atthasdef"),
        no("atthasmissing"),
        constant("attidentity", ""),
        constant("attgenerated", ""),
        no("attisdropped"),
        constant("attislocal", true),
        constant("attinhcount", 0i32),
        constant_oid("attcollation", 0),
        no_list("attacl"),
        no_list("attoptions"),
        no_list("attfdwoptions"),
        no_text("attmissingval"),
    ]
}

fn tables_columns() -> Columns {
    vec![
        varies("schemaname", DataType::Utf8),
        varies("tablename", DataType::Utf8),
        constant("tableowner", OWNER_NAME),
        no_text("tablespace"),
        no("hasindexes"),
        no("hasrules"),
        no("hastriggers"),
        no("rowsecurity"),
    ]
}

fn views_columns() -> Columns {
    vec![
        varies("schemaname", DataType::Utf8),
        varies("viewname", DataType::Utf8),
        constant("viewowner", OWNER_NAME),
        varies("definition", DataType::Utf8),
    ]
}

fn description_columns() -> Columns {
    vec![
        (oid("objoid"), None),
        constant_oid("classoid", 1259),
        varies("objsubid", DataType::Int32),
        varies("description", DataType::Utf8),
    ]
}

/// Puts together what varies and what does not, in the order of `columns`.
pub(super) fn rows(columns: Columns, varying: Vec<ArrayRef>) -> Result<RecordBatch> {
    let count = varying.first().map_or(0, |column| column.len());
    let (mut fields, mut arrays, mut varying) = (Vec::new(), Vec::new(), varying.into_iter());
    for (field, constant) in columns {
        fields.push(field);
        arrays.push(match constant {
            Some(value) => value.to_array_of_size(count)?,
            None => match varying.next() {
                Some(array) => array,
                None => return datafusion::common::internal_err!("a column of pg_catalog has no values"),
            },
        });
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

pub(super) fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(super) fn numbers(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

/// The identifier of a column's type, and its width in bytes, −1 where that differs.
pub(super) fn pg_type(data_type: &DataType) -> (i32, i16) {
    let kind = into_pg_type(data_type).unwrap_or(Type::TEXT);
    let width = match kind {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::INTERVAL => 16,
        _ => -1,
    };
    (i32::try_from(kind.oid()).unwrap_or(0), width)
}

impl Relations {
    async fn read(
        &self,
        kind: Kind,
        wanted: Option<&BTreeSet<i32>>,
        column: impl Fn(&str) -> bool,
    ) -> Result<RecordBatch> {
        match kind {
            Kind::Database => rows(database_columns(), vec![numbers(std::iter::once(DATABASE_OID))]),
            Kind::Namespace => {
                let names = self.catalog.schema_names();
                let oids = names.iter().map(|name| self.oids.of_schema(name));
                rows(namespace_columns(), vec![numbers(oids), texts(names.iter().map(String::as_str))])
            }
            Kind::Class => self.classes(&self.some(wanted), column("relnatts")).await,
            Kind::Attribute => self.attributes(&self.some(wanted)).await,
            Kind::Tables => {
                let mut all = self.all();
                all.retain(|relation| relation.kind == "r");
                let schemas = texts(all.iter().map(|r| r.schema.as_str()));
                rows(tables_columns(), vec![schemas, texts(all.iter().map(|r| r.name.as_str()))])
            }
            Kind::Views => {
                let mut all = self.all();
                all.retain(|relation| relation.kind == "v");
                let schemas = texts(all.iter().map(|r| r.schema.as_str()));
                let definitions = all.iter().map(|r| self.definition(&r.schema, &r.name));
                let definitions: StringArray = definitions.collect();
                let names = texts(all.iter().map(|r| r.name.as_str()));
                rows(views_columns(), vec![schemas, names, Arc::new(definitions)])
            }
            Kind::Description => self.descriptions(&self.some(wanted)).await,
        }
    }

    async fn classes(&self, all: &[Relation], count_columns: bool) -> Result<RecordBatch> {
        let mut counts = Vec::with_capacity(all.len());
        for relation in all {
            let columns =
                if count_columns { self.columns(&relation.schema, &relation.name).await? } else { None };
            counts.push(columns.and_then(|columns| i16::try_from(columns.fields().len()).ok()));
        }
        let varying: Vec<ArrayRef> = vec![
            numbers(all.iter().map(|r| r.oid)),
            texts(all.iter().map(|r| r.name.as_str())),
            numbers(all.iter().map(|r| self.oids.of_schema(&r.schema))),
            texts(all.iter().map(|r| r.kind)),
            Arc::new(Int16Array::from(counts)),
        ];
        rows(class_columns(), varying)
    }

    async fn attributes(&self, all: &[Relation]) -> Result<RecordBatch> {
        let (mut tables, mut names, mut types) = (Vec::new(), Vec::new(), Vec::new());
        let (mut widths, mut positions, mut not_null) = (Vec::new(), Vec::new(), Vec::new());
        for relation in all {
            let Some(columns) = self.columns(&relation.schema, &relation.name).await? else { continue };
            for (field, position) in columns.fields().iter().zip(1i16..) {
                let (kind, width) = pg_type(field.data_type());
                tables.push(relation.oid);
                names.push(field.name().clone());
                types.push(kind);
                widths.push(width);
                positions.push(position);
                not_null.push(!field.is_nullable());
            }
        }
        let varying: Vec<ArrayRef> = vec![
            numbers(tables.into_iter()),
            texts(names.iter().map(String::as_str)),
            numbers(types.into_iter()),
            Arc::new(Int16Array::from(widths)),
            Arc::new(Int16Array::from(positions)),
            Arc::new(arrow::array::BooleanArray::from(not_null)),
        ];
        rows(attribute_columns(), varying)
    }

    async fn descriptions(&self, all: &[Relation]) -> Result<RecordBatch> {
        let (mut tables, mut columns, mut said) = (Vec::new(), Vec::new(), Vec::new());
        let comments = self.comments.now();
        let commented = all.iter().filter(|r| !matches!(r.schema.as_str(), PG_CATALOG | INFORMATION_SCHEMA));
        for relation in commented {
            let Some(about) = comments.of_table(&relation.schema, &relation.name) else { continue };
            let positions = match about.columns.is_empty() {
                true => None,
                false => self.columns(&relation.schema, &relation.name).await?,
            };
            tables.push(relation.oid);
            columns.push(0);
            said.push(about.table);
            for (name, text) in about.columns {
                let position = positions.as_ref().and_then(|columns| columns.index_of(&name).ok());
                if let Some(position) = position.and_then(|at| i32::try_from(at + 1).ok()) {
                    tables.push(relation.oid);
                    columns.push(position);
                    said.push(text);
                }
            }
        }
        let varying = vec![
            numbers(tables.into_iter()),
            numbers(columns.into_iter()),
            texts(said.iter().map(String::as_str)),
        ];
        rows(description_columns(), varying)
    }
}

/// One of the tables. Rows are read when a scan is planned.
#[derive(Debug)]
pub(super) struct RelationsTable {
    relations: Arc<Relations>,
    kind: Kind,
    schema: SchemaRef,
}

impl RelationsTable {
    pub(super) fn new(relations: &Arc<Relations>, kind: Kind) -> Self {
        Self { relations: Arc::clone(relations), kind, schema: Arc::new(kind.schema()) }
    }

    /// The identifiers that `filter` lets pass; `None` if it says nothing of them.
    fn wanted(&self, filter: &Expr) -> Option<BTreeSet<i32>> {
        let about = self.kind.about()?;
        let is_it = |expr: &Expr| plain(expr).is_some_and(|name| name == about);
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                let value = if is_it(left) { right } else { left };
                (is_it(left) || is_it(right))
                    .then(|| number(value))
                    .flatten()
                    .map(|oid| BTreeSet::from([oid]))
            }
            Expr::InList(InList { expr, list, negated: false }) if is_it(expr) => {
                list.iter().map(number).collect()
            }
            _ => None,
        }
    }
}

/// The name of the column that `expr` is, seen through casts.
pub(super) fn plain(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(&column.name),
        Expr::Cast(cast) => plain(&cast.expr),
        _ => None,
    }
}

/// An identifier, however it is written.
fn number(expr: &Expr) -> Option<i32> {
    let Expr::Literal(value, _) = expr else { return None };
    match value.cast_to(&DataType::Int32) {
        Ok(ScalarValue::Int32(oid)) => oid,
        _ => None,
    }
}

#[async_trait]
impl TableProvider for RelationsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.wanted(filter) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut wanted: Option<BTreeSet<i32>> = None;
        for oids in filters.iter().filter_map(|filter| self.wanted(filter)) {
            wanted = Some(match wanted {
                Some(before) => before.intersection(&oids).copied().collect(),
                None => oids,
            });
        }
        let needed = |name: &str| {
            projection.is_none_or(|columns| columns.iter().any(|&i| self.schema.field(i).name() == name))
        };
        let batch = self.relations.read(self.kind, wanted.as_ref(), needed).await?;
        MemTable::try_new(self.schema(), vec![vec![batch]])?.scan(state, projection, &[], limit).await
    }
}
