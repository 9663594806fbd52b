//! `information_schema`: the standard's view of what there is.
//!
//! Kept in `pg_catalog` under names that begin with `information_schema_`, to which statements are led: the engine has
//! an `information_schema` of its own, which opens all tables to list them and shows its own types.
//!
//! Source: <https://www.postgresql.org/docs/15/information-schema.html>

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, Session, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use pgwire::api::Type;

use super::functions::type_name;
use super::relations::{
    Columns, Relation, Relations, constant, no_text, numbers, pg_type, plain, rows, texts, varies,
};
use super::{OWNER_NAME, of_texts};
use crate::catalog::DATABASE;

/// Which view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Schemata,
    Tables,
    Columns,
    Views,
}

impl Kind {
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("information_schema_schemata", Self::Schemata),
        ("information_schema_tables", Self::Tables),
        ("information_schema_columns", Self::Columns),
        ("information_schema_views", Self::Views),
    ];

    fn columns(self) -> Columns {
        match self {
            Self::Schemata => vec![
                constant("catalog_name", DATABASE),
                varies("schema_name", DataType::Utf8),
                constant("schema_owner", OWNER_NAME),
                no_text("default_character_set_catalog"),
                no_text("default_character_set_schema"),
                no_text("default_character_set_name"),
                no_text("sql_path"),
            ],
            Self::Tables => vec![
                constant("table_catalog", DATABASE),
                varies("table_schema", DataType::Utf8),
                varies("table_name", DataType::Utf8),
                varies("table_type", DataType::Utf8),
                no_text("self_referencing_column_name"),
                no_text("reference_generation"),
                no_text("user_defined_type_catalog"),
                no_text("user_defined_type_schema"),
                no_text("user_defined_type_name"),
                constant("is_insertable_into", "NO"),
                constant("is_typed", "NO"),
                no_text("commit_action"),
            ],
            Self::Views => vec![
                constant("table_catalog", DATABASE),
                varies("table_schema", DataType::Utf8),
                varies("table_name", DataType::Utf8),
                varies("view_definition", DataType::Utf8),
                constant("check_option", "NONE"),
                constant("is_updatable", "NO"),
                constant("is_insertable_into", "NO"),
            ],
            Self::Columns => column_columns(),
        }
    }
}

fn column_columns() -> Columns {
    let no_number = |name: &str| constant(name, ScalarValue::Int32(None));
    vec![
        constant("table_catalog", DATABASE),
        varies("table_schema", DataType::Utf8),
        varies("table_name", DataType::Utf8),
        varies("column_name", DataType::Utf8),
        varies("ordinal_position", DataType::Int32),
        no_text("column_default"),
        varies("is_nullable", DataType::Utf8),
        varies("data_type", DataType::Utf8),
        no_number("character_maximum_length"),
        no_number("character_octet_length"),
        varies("numeric_precision", DataType::Int32),
        varies("numeric_precision_radix", DataType::Int32),
        no_number("numeric_scale"),
        varies("datetime_precision", DataType::Int32),
        no_text("interval_type"),
        no_number("interval_precision"),
        no_text("character_set_catalog"),
        no_text("character_set_schema"),
        no_text("character_set_name"),
        no_text("collation_catalog"),
        no_text("collation_schema"),
        no_text("collation_name"),
        no_text("domain_catalog"),
        no_text("domain_schema"),
        no_text("domain_name"),
        constant("udt_catalog", DATABASE),
        constant("udt_schema", "pg_catalog"),
        varies("udt_name", DataType::Utf8),
        constant("is_identity", "NO"),
        no_text("identity_generation"),
        constant("is_generated", "NEVER"),
        no_text("generation_expression"),
        constant("is_updatable", "NO"),
    ]
}

/// Views in which there is nothing.
pub(super) fn empty_tables() -> Vec<(&'static str, Schema)> {
    const CONSTRAINT: [&str; 3] = ["constraint_catalog", "constraint_schema", "constraint_name"];
    const TABLE: [&str; 3] = ["table_catalog", "table_schema", "table_name"];
    let with = |parts: &[&[&str]]| of_texts(&parts.concat());
    let keys = with(&[&CONSTRAINT, &TABLE, &["column_name"]]);
    let keys = keys.fields().iter().cloned().chain([
        Arc::new(Field::new("ordinal_position", DataType::Int32, true)),
        Arc::new(Field::new("position_in_unique_constraint", DataType::Int32, true)),
    ]);
    let grants: &[&str] = &["grantor", "grantee", "privilege_type", "is_grantable", "with_hierarchy"];
    vec![
        (
            "information_schema_table_constraints",
            with(&[
                &CONSTRAINT,
                &TABLE,
                &["constraint_type", "is_deferrable", "initially_deferred", "enforced"],
            ]),
        ),
        ("information_schema_key_column_usage", Schema::new(keys.collect::<Vec<_>>())),
        (
            "information_schema_referential_constraints",
            with(&[
                &CONSTRAINT,
                &["unique_constraint_catalog", "unique_constraint_schema", "unique_constraint_name"],
                &["match_option", "update_rule", "delete_rule"],
            ]),
        ),
        ("information_schema_constraint_column_usage", with(&[&TABLE, &["column_name"], &CONSTRAINT])),
        ("information_schema_check_constraints", with(&[&CONSTRAINT, &["check_clause"]])),
        ("information_schema_table_privileges", with(&[&TABLE, grants])),
        ("information_schema_role_table_grants", with(&[&TABLE, grants])),
        (
            "information_schema_sequences",
            of_texts(&["sequence_catalog", "sequence_schema", "sequence_name", "data_type"]),
        ),
        ("information_schema_triggers", of_texts(&["trigger_catalog", "trigger_schema", "trigger_name"])),
        (
            "information_schema_routines",
            of_texts(&[
                "specific_catalog",
                "specific_schema",
                "specific_name",
                "routine_catalog",
                "routine_schema",
                "routine_name",
                "routine_type",
                "data_type",
                "routine_definition",
            ]),
        ),
    ]
}

/// One view. Rows are read when a scan is planned.
#[derive(Debug)]
pub(super) struct InformationTable {
    relations: Arc<Relations>,
    kind: Kind,
    schema: SchemaRef,
}

impl InformationTable {
    pub(super) fn new(relations: &Arc<Relations>, kind: Kind) -> Self {
        let fields = kind.columns().into_iter().map(|(field, _)| field).collect::<Vec<_>>();
        Self { relations: Arc::clone(relations), kind, schema: Arc::new(Schema::new(fields)) }
    }

    async fn read(&self, filters: &[Expr]) -> Result<RecordBatch> {
        let columns = self.kind.columns();
        if self.kind == Kind::Schemata {
            let names = self.relations.catalog.schema_names();
            return rows(columns, vec![texts(names.iter().map(String::as_str))]);
        }
        let mut all = self.relations.all();
        all.retain(|relation| {
            (self.kind != Kind::Views || relation.kind == "v")
                && filters.iter().all(|filter| lets_pass(filter, relation))
        });
        let schemas = texts(all.iter().map(|r| r.schema.as_str()));
        let names = texts(all.iter().map(|r| r.name.as_str()));
        match self.kind {
            Kind::Tables => {
                let types = all.iter().map(|r| if r.kind == "v" { "VIEW" } else { "BASE TABLE" });
                rows(columns, vec![schemas, names, texts(types)])
            }
            Kind::Columns => self.columns_of(&all).await,
            Kind::Views => {
                let definitions = all.iter().map(|r| self.relations.definition(&r.schema, &r.name));
                let definitions: StringArray = definitions.collect();
                rows(columns, vec![schemas, names, Arc::new(definitions)])
            }
            Kind::Schemata => rows(columns, vec![schemas, names]),
        }
    }

    async fn columns_of(&self, all: &[Relation]) -> Result<RecordBatch> {
        let (mut of, mut fields) = (Vec::new(), Vec::new());
        for relation in all {
            let columns = self.relations.columns(&relation.schema, &relation.name).await?;
            for (field, position) in columns.iter().flat_map(|columns| columns.fields()).zip(1i32..) {
                of.push((relation, position));
                fields.push(Arc::clone(field));
            }
        }
        let per_type = |of: fn(&DataType) -> Option<i32>| -> ArrayRef {
            Arc::new(fields.iter().map(|f| of(f.data_type())).collect::<Int32Array>())
        };
        let varying = vec![
            texts(of.iter().map(|(r, _)| r.schema.as_str())),
            texts(of.iter().map(|(r, _)| r.name.as_str())),
            texts(fields.iter().map(|f| f.name().as_str())),
            numbers(of.iter().map(|(_, position)| *position)),
            texts(fields.iter().map(|f| if f.is_nullable() { "YES" } else { "NO" })),
            texts(fields.iter().map(|f| type_name(f.data_type()))),
            per_type(precision),
            per_type(|t| precision(t).map(|_| 2)),
            per_type(|t| matches!(t, DataType::Timestamp(..)).then_some(6)),
            texts(fields.iter().map(|f| udt_name(f.data_type()))),
        ];
        rows(column_columns(), varying)
    }
}

/// Bits of a number.
fn precision(data_type: &DataType) -> Option<i32> {
    match data_type {
        DataType::Int16 => Some(16),
        DataType::Int32 => Some(32),
        DataType::Int64 | DataType::UInt64 => Some(64),
        DataType::Float64 => Some(53),
        DataType::Float32 => Some(24),
        _ => None,
    }
}

/// Postgres' own word for a type.
fn udt_name(data_type: &DataType) -> &'static str {
    let (oid, _) = pg_type(data_type);
    match u32::try_from(oid).ok().and_then(Type::from_oid) {
        Some(Type::TIMESTAMPTZ) => "timestamptz",
        Some(Type::TIMESTAMP) => "timestamp",
        Some(Type::FLOAT8) => "float8",
        Some(Type::INT8) => "int8",
        Some(Type::INT4) => "int4",
        Some(Type::INT2) => "int2",
        Some(Type::BOOL) => "bool",
        _ => "text",
    }
}

/// The schema or name of a table that `filter` demands, with the column that it is in.
fn demanded(filter: &Expr) -> Option<(&str, &str)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    let (column, value) = match (&**left, &**right) {
        (column, Expr::Literal(value, _)) | (Expr::Literal(value, _), column) => (column, value),
        _ => return None,
    };
    let column = plain(column).filter(|name| matches!(*name, "table_schema" | "table_name"))?;
    Some((column, value.try_as_str().flatten()?))
}

fn lets_pass(filter: &Expr, relation: &Relation) -> bool {
    match demanded(filter) {
        Some(("table_schema", schema)) => relation.schema == schema,
        Some((_, name)) => relation.name == name,
        None => true,
    }
}

#[async_trait]
impl TableProvider for InformationTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match demanded(filter) {
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
        let batch = self.read(filters).await?;
        MemTable::try_new(self.schema(), vec![vec![batch]])?.scan(state, projection, &[], limit).await
    }
}
