//! `COPY (query) TO STDOUT`: the rows of a query as text, CSV or Postgres' binary format.
//!
//! Rows come from the encoder of query results, in its text or its binary form; here they are only
//! put into another envelope. So a value looks the same in COPY and in SELECT.
//!
//! Source: <https://www.postgresql.org/docs/15/sql-copy.html>

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::{BufMut, Bytes, BytesMut};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget, Ident, Query, Statement,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::Stream;
use pgwire::api::portal::Format;
use pgwire::error::PgWireResult;
use pgwire::messages::data::DataRow;

use super::{rows, sqlstate};

/// A COPY to the client.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub(crate) plan: Arc<LogicalPlan>,
    /// What the rows are made of, with the names that a header shows.
    pub(crate) columns: SchemaRef,
    pub(crate) style: Style,
}

/// What the bytes look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Style {
    Text { delimiter: u8, null: String, header: bool },
    Csv { delimiter: u8, null: String, header: bool, quote: u8, escape: u8, force: Force },
    Binary,
}

/// Which columns of a CSV are quoted in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Force {
    All,
    Named(Vec<String>),
}

/// The query behind a COPY, and how its rows are to look.
///
/// # Errors
/// 0A000 for a COPY that reads or that goes anywhere but to the client, 42601 and 22023 for options
/// that make no sense.
pub(crate) fn understand(statement: Statement) -> PgWireResult<(Box<Query>, Style)> {
    let Statement::Copy { source, to, target, options, legacy_options, .. } = statement else {
        return Err(sqlstate::error("XX000", "not a COPY"));
    };
    if !to {
        return Err(sqlstate::read_only("COPY FROM"));
    }
    if !matches!(target, CopyTarget::Stdout) {
        let message = "COPY to a file or program of the server is not supported: use COPY … TO STDOUT, or \\copy of psql";
        return Err(sqlstate::error("0A000", message));
    }
    let style = Options::collect(options, legacy_options)?.style()?;
    Ok((query_of(source)?, style))
}

fn query_of(source: CopySource) -> PgWireResult<Box<Query>> {
    let (table, columns) = match source {
        CopySource::Query(query) => return Ok(query),
        CopySource::Table { table_name, columns } => (table_name, columns),
    };
    let columns = match columns.as_slice() {
        [] => "*".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let text = format!("SELECT {columns} FROM {table}");
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &text);
    match parsed.map(|mut statements| statements.pop()) {
        Ok(Some(Statement::Query(query))) => Ok(query),
        _ => Err(sqlstate::error("42601", format!("cannot copy {table}"))),
    }
}

#[derive(Debug, Default)]
struct Options {
    format: Option<String>,
    delimiter: Option<char>,
    null: Option<String>,
    header: bool,
    quote: Option<char>,
    escape: Option<char>,
    force: Option<Vec<Ident>>,
}

impl Options {
    fn collect(options: Vec<CopyOption>, legacy: Vec<CopyLegacyOption>) -> PgWireResult<Self> {
        let mut all = Self::default();
        for option in options {
            match option {
                CopyOption::Format(format) => all.format = Some(format.value.to_lowercase()),
                CopyOption::Delimiter(delimiter) => all.delimiter = Some(delimiter),
                CopyOption::Null(null) => all.null = Some(null),
                CopyOption::Header(header) => all.header = header,
                CopyOption::Quote(quote) => all.quote = Some(quote),
                CopyOption::Escape(escape) => all.escape = Some(escape),
                CopyOption::ForceQuote(columns) => all.force = Some(columns),
                CopyOption::Encoding(name) => check_encoding(&name)?,
                CopyOption::Freeze(_) | CopyOption::ForceNotNull(_) | CopyOption::ForceNull(_) => {
                    return Err(sqlstate::error("0A000", format!("COPY {option} only works with COPY FROM")));
                }
            }
        }
        for option in legacy {
            match option {
                CopyLegacyOption::Binary => all.format = Some("binary".to_owned()),
                CopyLegacyOption::Delimiter(delimiter) => all.delimiter = Some(delimiter),
                CopyLegacyOption::Null(null) => all.null = Some(null),
                CopyLegacyOption::Header => all.header = true,
                CopyLegacyOption::Csv(csv) => {
                    all.format = Some("csv".to_owned());
                    for option in csv {
                        all.add_legacy_csv(option)?;
                    }
                }
                other => return Err(sqlstate::error("42601", format!("COPY has no option {other}"))),
            }
        }
        Ok(all)
    }

    fn add_legacy_csv(&mut self, option: CopyLegacyCsvOption) -> PgWireResult<()> {
        match option {
            CopyLegacyCsvOption::Header => self.header = true,
            CopyLegacyCsvOption::Quote(quote) => self.quote = Some(quote),
            CopyLegacyCsvOption::Escape(escape) => self.escape = Some(escape),
            CopyLegacyCsvOption::ForceQuote(columns) => self.force = Some(columns),
            CopyLegacyCsvOption::ForceNotNull(_) => {
                return Err(sqlstate::error("0A000", "COPY FORCE NOT NULL only works with COPY FROM"));
            }
        }
        Ok(())
    }

    fn style(self) -> PgWireResult<Style> {
        let only_csv = self.quote.is_some() || self.escape.is_some() || self.force.is_some();
        let not_csv = || sqlstate::error("0A000", "COPY QUOTE, ESCAPE and FORCE_QUOTE need FORMAT csv");
        match self.format.as_deref().unwrap_or("text") {
            "text" if only_csv => Err(not_csv()),
            "text" => {
                let delimiter = byte("delimiter", self.delimiter.unwrap_or('\t'))?;
                // Any of these could not be told from an escape, or from part of a value.
                if b"\\.\r\n".contains(&delimiter) || delimiter.is_ascii_alphanumeric() {
                    return Err(sqlstate::error(
                        "22023",
                        format!("COPY delimiter cannot be {:?}", char::from(delimiter)),
                    ));
                }
                let null = self.null.unwrap_or_else(|| "\\N".to_owned());
                check_null(&null, &[delimiter])?;
                Ok(Style::Text { delimiter, null, header: self.header })
            }
            "csv" => {
                let delimiter = byte("delimiter", self.delimiter.unwrap_or(','))?;
                let quote = byte("quote", self.quote.unwrap_or('"'))?;
                let escape = byte("escape", self.escape.unwrap_or(char::from(quote)))?;
                if delimiter == quote {
                    return Err(sqlstate::error("22023", "COPY delimiter and quote must be different"));
                }
                if b"\r\n".contains(&delimiter) {
                    return Err(sqlstate::error(
                        "22023",
                        "COPY delimiter cannot be newline or carriage return",
                    ));
                }
                let null = self.null.unwrap_or_default();
                check_null(&null, &[delimiter, quote])?;
                let force = match self.force {
                    None => Force::Named(Vec::new()),
                    Some(columns) if columns.is_empty() => Force::All,
                    Some(columns) => Force::Named(columns.into_iter().map(|c| c.value).collect()),
                };
                Ok(Style::Csv { delimiter, null, header: self.header, quote, escape, force })
            }
            "binary" if only_csv => Err(not_csv()),
            "binary" if self.delimiter.is_some() || self.null.is_some() || self.header => {
                Err(sqlstate::error("42601", "cannot specify DELIMITER, NULL or HEADER in BINARY mode"))
            }
            "binary" => Ok(Style::Binary),
            other => Err(sqlstate::error("22023", format!("COPY format {other:?} not recognized"))),
        }
    }
}

fn check_encoding(name: &str) -> PgWireResult<()> {
    match name.to_lowercase().replace('-', "").as_str() {
        "utf8" | "unicode" => Ok(()),
        _ => Err(sqlstate::error("0A000", format!("COPY writes UTF8, not {name}"))),
    }
}

fn byte(what: &str, c: char) -> PgWireResult<u8> {
    u8::try_from(c)
        .ok()
        .filter(u8::is_ascii)
        .ok_or_else(|| sqlstate::error("0A000", format!("COPY {what} must be a single one-byte character")))
}

fn check_null(null: &str, forbidden: &[u8]) -> PgWireResult<()> {
    if null.bytes().any(|b| forbidden.contains(&b) || b == b'\r' || b == b'\n') {
        return Err(sqlstate::error(
            "22023",
            "COPY null representation cannot contain the delimiter, the quote or a newline",
        ));
    }
    Ok(())
}

/// The rows of `batches` as CSV, with a header.
///
/// # Errors
/// If there is a column that has no text form.
pub(crate) fn csv(
    columns: &SchemaRef,
    batches: SendableRecordBatchStream,
) -> PgWireResult<(Lines, impl Stream<Item = PgWireResult<DataRow>> + Send + use<>)> {
    let force = Force::Named(Vec::new());
    let style =
        Style::Csv { delimiter: b',', null: String::new(), header: true, quote: b'"', escape: b'"', force };
    let fields = rows::fields(columns, &style.format(), &HashMap::new())?;
    Ok((Lines::over(columns, &style)?, rows::response(batches, fields).data_rows))
}

impl Style {
    /// How values are to be encoded in the rows that [`Lines`] takes.
    pub(crate) fn format(&self) -> Format {
        if self.is_binary() { Format::UnifiedBinary } else { Format::UnifiedText }
    }

    pub(crate) fn is_binary(&self) -> bool {
        matches!(self, Self::Binary)
    }
}

/// Puts rows into the envelope of a [`Style`].
#[derive(Debug)]
pub(crate) struct Lines {
    style: Style,
    names: Vec<String>,
    /// Which columns are quoted in any case.
    forced: Vec<bool>,
    line: BytesMut,
}

impl Lines {
    /// # Errors
    /// 42703 if a column that is to be quoted does not exist.
    pub(crate) fn over(columns: &SchemaRef, style: &Style) -> PgWireResult<Self> {
        let names: Vec<_> = columns.fields().iter().map(|f| f.name().clone()).collect();
        let forced = match style {
            Style::Csv { force: Force::All, .. } => vec![true; names.len()],
            Style::Csv { force: Force::Named(some), .. } => {
                if let Some(unknown) = some.iter().find(|name| !names.contains(name)) {
                    let message = format!("FORCE_QUOTE column {unknown:?} is not copied");
                    return Err(sqlstate::error("42703", message));
                }
                names.iter().map(|name| some.contains(name)).collect()
            }
            _ => vec![false; names.len()],
        };
        Ok(Self { style: style.clone(), names, forced, line: BytesMut::new() })
    }

    /// What comes before the rows.
    pub(crate) fn first(&mut self) -> Option<Bytes> {
        let header = match &self.style {
            Style::Binary => {
                self.line.put_slice(b"PGCOPY\n\xff\r\n\0");
                // Flags, and the length of an extension that there is not.
                self.line.put_i32(0);
                self.line.put_i32(0);
                // Compat: PostgreSQL sends it together with the first row, and clients count on it.
                return None;
            }
            Style::Text { header, .. } | Style::Csv { header, .. } => *header,
        };
        if !header {
            return None;
        }
        let names = std::mem::take(&mut self.names);
        // Compat: PostgreSQL quotes no header for FORCE_QUOTE.
        let forced = std::mem::replace(&mut self.forced, vec![false; names.len()]);
        self.put_fields(names.iter().map(|name| Some(name.as_bytes())));
        (self.names, self.forced) = (names, forced);
        Some(self.line.split().freeze())
    }

    /// One row.
    ///
    /// # Errors
    /// XX000 if `row` is not a row of these columns.
    pub(crate) fn row(&mut self, row: &DataRow) -> PgWireResult<Bytes> {
        if self.style.is_binary() {
            self.line.put_i16(row.field_count);
            self.line.put_slice(&row.data);
        } else {
            self.put_fields(fields(&row.data)?.into_iter());
        }
        Ok(self.line.split().freeze())
    }

    /// What comes after the rows.
    pub(crate) fn last(&mut self) -> Option<Bytes> {
        self.style.is_binary().then(|| {
            self.line.put_i16(-1);
            self.line.split().freeze()
        })
    }

    fn put_fields<'a>(&mut self, fields: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
        let alone = fields.len() == 1;
        for (i, field) in fields.enumerate() {
            match &self.style {
                Style::Text { delimiter, null, .. } => {
                    if i > 0 {
                        self.line.put_u8(*delimiter);
                    }
                    match field {
                        Some(value) => put_escaped(&mut self.line, value, *delimiter),
                        None => self.line.put_slice(null.as_bytes()),
                    }
                }
                Style::Csv { delimiter, null, quote, escape, .. } => {
                    if i > 0 {
                        self.line.put_u8(*delimiter);
                    }
                    let Some(value) = field else {
                        self.line.put_slice(null.as_bytes());
                        continue;
                    };
                    let special = |b: &u8| [*delimiter, *quote, b'\r', b'\n'].contains(b);
                    let quoted = self.forced.get(i).copied().unwrap_or(false)
                        || value == null.as_bytes()
                        || (alone && value == b"\\.")
                        || value.iter().any(special);
                    if quoted {
                        put_quoted(&mut self.line, value, *quote, *escape);
                    } else {
                        self.line.put_slice(value);
                    }
                }
                Style::Binary => {}
            }
        }
        self.line.put_u8(b'\n');
    }
}

/// The fields of an encoded row; `None` is NULL.
fn fields(mut data: &[u8]) -> PgWireResult<Vec<Option<&[u8]>>> {
    let broken = || sqlstate::error("XX000", "a row cannot be read back");
    let mut fields = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        data = rest;
        fields.push(match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => None,
            Ok(length) => {
                let (value, rest) = data.split_at_checked(length).ok_or_else(broken)?;
                data = rest;
                Some(value)
            }
        });
    }
    if data.is_empty() { Ok(fields) } else { Err(broken()) }
}

fn put_escaped(line: &mut BytesMut, value: &[u8], delimiter: u8) {
    for &b in value {
        let escape = match b {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0x0b => b'v',
            b if b == delimiter => b,
            b => {
                line.put_u8(b);
                continue;
            }
        };
        line.put_slice(&[b'\\', escape]);
    }
}

fn put_quoted(line: &mut BytesMut, value: &[u8], quote: u8, escape: u8) {
    line.put_u8(quote);
    for &b in value {
        if b == quote || b == escape {
            line.put_u8(escape);
        }
        line.put_u8(b);
    }
    line.put_u8(quote);
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::LogicalPlanBuilder;

    use super::*;

    fn style(copy: &str) -> PgWireResult<Style> {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, copy).expect(copy);
        understand(statements.pop().expect(copy)).map(|(_, style)| style)
    }

    fn row(values: &[Option<&str>]) -> DataRow {
        let mut data = BytesMut::new();
        for value in values {
            match value {
                Some(value) => {
                    data.put_i32(i32::try_from(value.len()).expect("short"));
                    data.put_slice(value.as_bytes());
                }
                None => data.put_i32(-1),
            }
        }
        DataRow::new(data, i16::try_from(values.len()).expect("few"))
    }

    fn lines(copy: &str, columns: &[&str], rows: &[&[Option<&str>]]) -> String {
        let fields = columns.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>();
        let copy = Copy {
            plan: Arc::new(LogicalPlanBuilder::empty(false).build().expect("builds")),
            columns: Arc::new(Schema::new(fields)),
            style: style(copy).expect(copy),
        };
        let mut lines = Lines::over(&copy.columns, &copy.style).expect("these columns");
        let mut out = lines.first().map(|b| b.to_vec()).unwrap_or_default();
        for values in rows {
            out.extend_from_slice(&lines.row(&row(values)).expect("a row"));
        }
        out.extend_from_slice(&lines.last().unwrap_or_default());
        String::from_utf8(out).expect("UTF-8")
    }

    /// Expected lines are what PostgreSQL 15 writes.
    #[test]
    fn text_is_escaped_and_null_is_not() {
        let got = lines(
            "COPY t TO STDOUT",
            &["a", "b"],
            &[&[Some("tab\there\\"), None], &[Some("line\nfeed"), Some("\\N")]],
        );
        assert_eq!(got, "tab\\there\\\\\t\\N\nline\\nfeed\t\\\\N\n");
    }

    /// Expected lines are what PostgreSQL 15 writes.
    #[test]
    fn csv_quotes_what_would_be_misread() {
        let rows: &[&[Option<&str>]] = &[
            &[Some("plain"), Some("with,comma")],
            &[Some("with \"quotes\""), None],
            &[Some(""), Some("x\ny")],
        ];
        let got = lines("COPY t TO STDOUT WITH (FORMAT csv, HEADER)", &["a", "b,c"], rows);
        assert_eq!(got, "a,\"b,c\"\nplain,\"with,comma\"\n\"with \"\"quotes\"\"\",\n\"\",\"x\ny\"\n");
        let forced = lines("COPY t TO STDOUT CSV FORCE QUOTE b", &["a", "b"], &[&[Some("1"), Some("2")]]);
        assert_eq!(forced, "1,\"2\"\n");
        assert_eq!(lines("COPY t TO STDOUT CSV", &["a"], &[&[Some("\\.")]]), "\"\\.\"\n");
    }

    #[test]
    fn options_that_make_no_sense_are_errors() {
        for copy in [
            "COPY t TO STDOUT WITH (FORMAT parquet)",
            "COPY t TO STDOUT WITH (FORMAT binary, HEADER)",
            "COPY t TO STDOUT WITH (FORMAT csv, DELIMITER '\"')",
            "COPY t TO STDOUT WITH (DELIMITER 'x')",
            "COPY t TO STDOUT WITH (QUOTE '!')",
            "COPY t TO STDOUT WITH (FORMAT csv, NULL ',')",
            "COPY t TO STDOUT WITH (ENCODING 'latin1')",
            "COPY t TO '/tmp/file'",
            "COPY t TO PROGRAM 'sh'",
            "COPY t FROM STDIN",
        ] {
            assert!(style(copy).is_err(), "{copy}");
        }
    }

    #[test]
    fn a_torn_row_is_an_error() {
        for data in [&[0, 0][..], &[0, 0, 0, 5, 1]] {
            assert!(fields(data).is_err());
        }
    }
}
