//! What drivers ask of the server itself: what its SQL can do, which types and keys there are.
//!
//! Source: <https://github.com/apache/arrow/blob/apache-arrow-21.0.0/format/FlightSql.proto>

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions,
    SqlTransactionIsolationLevel, SupportedSqlGrammar, XdbcDataType, XdbcDatetimeSubcode,
};
use tonic::Status;

/// What the server and its SQL can do.
pub(super) fn server() -> Result<&'static SqlInfoData, Status> {
    static SERVER: LazyLock<Result<SqlInfoData, FlightError>> = LazyLock::new(server_info);
    SERVER.as_ref().map_err(|error| Status::internal(error.to_string()))
}

/// The types.
pub(super) fn types() -> Result<&'static XdbcTypeInfoData, Status> {
    static TYPES: LazyLock<Result<XdbcTypeInfoData, FlightError>> = LazyLock::new(type_info);
    TYPES.as_ref().map_err(|error| Status::internal(error.to_string()))
}

fn server_info() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    for (name, value) in [
        (SqlInfo::FlightSqlServerName, "Promontory"),
        (SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION")),
        (SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION),
        (SqlInfo::SqlIdentifierQuoteChar, "\""),
        (SqlInfo::SqlSearchStringEscape, "\\"),
        (SqlInfo::SqlExtraNameCharacters, ""),
        (SqlInfo::SqlSchemaTerm, "schema"),
        (SqlInfo::SqlCatalogTerm, "database"),
        (SqlInfo::SqlProcedureTerm, "procedure"),
    ] {
        info.append(name, value);
    }
    for (name, value) in [
        (SqlInfo::FlightSqlServerReadOnly, true),
        (SqlInfo::FlightSqlServerSql, true),
        (SqlInfo::FlightSqlServerSubstrait, false),
        (SqlInfo::FlightSqlServerCancel, false),
        (SqlInfo::FlightSqlServerBulkIngestion, false),
        (SqlInfo::SqlDdlCatalog, false),
        (SqlInfo::SqlDdlSchema, false),
        (SqlInfo::SqlDdlTable, false),
        (SqlInfo::SqlAllTablesAreSelectable, true),
        (SqlInfo::SqlSupportsColumnAliasing, true),
        (SqlInfo::SqlNullPlusNullIsNull, true),
        (SqlInfo::SqlSupportsTableCorrelationNames, true),
        (SqlInfo::SqlSupportsDifferentTableCorrelationNames, false),
        (SqlInfo::SqlSupportsExpressionsInOrderBy, true),
        (SqlInfo::SqlSupportsOrderByUnrelated, true),
        (SqlInfo::SqlSupportsLikeEscapeClause, true),
        (SqlInfo::SqlSupportsNonNullableColumns, true),
        (SqlInfo::SqlSupportsIntegrityEnhancementFacility, false),
        (SqlInfo::SqlCatalogAtStart, true),
        (SqlInfo::SqlSelectForUpdateSupported, false),
        (SqlInfo::SqlStoredProceduresSupported, false),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, true),
        (SqlInfo::SqlMaxRowSizeIncludesBlobs, false),
        (SqlInfo::SqlTransactionsSupported, false),
        (SqlInfo::SqlDataDefinitionCausesTransactionCommit, false),
        (SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false),
        (SqlInfo::SqlBatchUpdatesSupported, false),
        (SqlInfo::SqlSavepointsSupported, false),
        (SqlInfo::SqlNamedParametersSupported, false),
        (SqlInfo::SqlLocatorsUpdateCopy, false),
        (SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false),
    ] {
        info.append(name, value);
    }
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons,
        SqlSupportedSubqueries::SqlSubqueriesInExists,
        SqlSupportedSubqueries::SqlSubqueriesInIns,
    ];
    for (name, bits) in [
        (SqlInfo::SqlSupportedGroupBy, flags([SqlSupportedGroupBy::SqlGroupByUnrelated as i32])),
        (SqlInfo::SqlSupportedGrammar, flags([SupportedSqlGrammar::SqlMinimumGrammar as i32])),
        (SqlInfo::SqlAnsi92SupportedLevel, 1),
        (SqlInfo::SqlOuterJoinsSupportLevel, flags([SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32])),
        (SqlInfo::SqlSchemasSupportedActions, 0),
        (SqlInfo::SqlCatalogsSupportedActions, 0),
        (SqlInfo::SqlSupportedPositionedCommands, 0),
        (SqlInfo::SqlSupportedTransactionsIsolationLevels, 0),
        (SqlInfo::SqlSupportedResultSetTypes, 0),
        (SqlInfo::SqlSupportedSubqueries, flags(subqueries.map(|kind| kind as i32))),
        (
            SqlInfo::SqlSupportedUnions,
            flags([SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32]),
        ),
    ] {
        info.append(name, bits);
    }
    for (name, value) in [
        (SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32),
        (SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32),
        (
            SqlInfo::SqlQuotedIdentifierCase,
            SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
        ),
        (SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32),
        (SqlInfo::SqlDefaultTransactionIsolation, SqlTransactionIsolationLevel::SqlTransactionNone as i32),
    ] {
        info.append(name, i64::from(value));
    }
    // What is not limited is 0.
    for name in SqlInfo::SqlMaxBinaryLiteralLength as i32..=SqlInfo::SqlMaxUsernameLength as i32 {
        if name != SqlInfo::SqlMaxRowSizeIncludesBlobs as i32 {
            info.append(u32::try_from(name).unwrap_or_default(), 0_i64);
        }
    }
    for name in [
        SqlInfo::SqlKeywords,
        SqlInfo::SqlNumericFunctions,
        SqlInfo::SqlStringFunctions,
        SqlInfo::SqlSystemFunctions,
        SqlInfo::SqlDatetimeFunctions,
    ] {
        info.append(name, Vec::<String>::new());
    }
    info.append(SqlInfo::SqlSupportsConvert, BTreeMap::<i32, Vec<i32>>::new());
    info.build()
}

fn flags(positions: impl IntoIterator<Item = i32>) -> i32 {
    positions.into_iter().fold(0, |all, position| all | 1 << position)
}

fn type_info() -> Result<XdbcTypeInfoData, FlightError> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    // By the numbers of their types, as drivers expect them.
    let mut all = [
        ("boolean", XdbcDataType::XdbcBit, 1, None),
        ("smallint", XdbcDataType::XdbcSmallint, 16, None),
        ("integer", XdbcDataType::XdbcInteger, 32, None),
        ("bigint", XdbcDataType::XdbcBigint, 64, None),
        ("real", XdbcDataType::XdbcReal, 24, None),
        ("double precision", XdbcDataType::XdbcDouble, 53, None),
        ("text", XdbcDataType::XdbcVarchar, i32::MAX, Some("'")),
        ("date", XdbcDataType::XdbcDate, 10, Some("'")),
        ("timestamp with time zone", XdbcDataType::XdbcTimestamp, 29, Some("'")),
    ];
    all.sort_by_key(|(_, data_type, _, _)| *data_type as i32);
    for (name, data_type, size, quote) in all {
        let radix = match data_type {
            XdbcDataType::XdbcVarchar
            | XdbcDataType::XdbcDate
            | XdbcDataType::XdbcTimestamp
            | XdbcDataType::XdbcBit => None,
            _ => Some(2),
        };
        let quote = quote.map(str::to_owned);
        let subcode = match data_type {
            XdbcDataType::XdbcDate => Some(XdbcDatetimeSubcode::XdbcSubcodeYear),
            XdbcDataType::XdbcTimestamp => Some(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone),
            _ => None,
        };
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size: Some(size),
            literal_prefix: quote.clone(),
            literal_suffix: quote,
            create_params: None,
            nullable: Nullable::NullabilityNullable,
            case_sensitive: data_type == XdbcDataType::XdbcVarchar,
            searchable: Searchable::Full,
            unsigned_attribute: radix.map(|_| false),
            fixed_prec_scale: false,
            auto_increment: radix.map(|_| false),
            local_type_name: Some(name.to_owned()),
            minimum_scale: None,
            maximum_scale: None,
            sql_data_type: if subcode.is_some() { XdbcDataType::XdbcDatetime } else { data_type },
            datetime_subcode: subcode,
            num_prec_radix: radix,
            interval_precision: None,
        });
    }
    types.build()
}

/// Columns of the answer about primary keys, of which there are none.
pub(super) fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        text("key_name", true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// Columns of the answers about foreign keys, of which there are none.
pub(super) fn foreign_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}
