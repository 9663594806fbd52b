//! `pg_size_pretty`, `format`, `quote_literal` and encodings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;

/// Adds the functions to `context`.
pub(super) fn install(context: &SessionContext) {
    for (name, kind) in [
        ("pg_size_pretty", Kind::SizePretty),
        ("format", Kind::Format),
        ("quote_literal", Kind::QuoteLiteral),
        ("quote_nullable", Kind::QuoteNullable),
        ("pg_encoding_to_char", Kind::EncodingName),
        ("pg_char_to_encoding", Kind::EncodingNumber),
        ("width_bucket", Kind::WidthBucket),
    ] {
        let signature = Signature::variadic_any(Volatility::Immutable);
        context.register_udf(ScalarUDF::from(TextFunction { name, kind, signature }));
    }
}

/// `UTF8`, by number.
const UTF8: i32 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    SizePretty,
    Format,
    QuoteLiteral,
    QuoteNullable,
    EncodingName,
    EncodingNumber,
    WidthBucket,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextFunction {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for TextFunction {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::EncodingNumber | Kind::WidthBucket => DataType::Int32,
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns =
            args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let Some(first) = columns.first() else { return exec_err!("{}() takes arguments", self.name) };
        let texts = || cast(first, &DataType::Utf8);
        let result: ArrayRef = match self.kind {
            Kind::SizePretty => {
                let bytes = cast(first, &DataType::Float64)?;
                let bytes = bytes.as_primitive::<Float64Type>().iter();
                Arc::new(bytes.map(|bytes| bytes.map(size_pretty)).collect::<StringArray>())
            }
            Kind::Format => Arc::new(formatted(&columns, args.number_rows)?),
            Kind::QuoteLiteral => {
                let texts = texts()?;
                Arc::new(texts.as_string::<i32>().iter().map(|t| t.map(quoted)).collect::<StringArray>())
            }
            Kind::QuoteNullable => {
                let texts = texts()?;
                let quoted = texts.as_string::<i32>().iter().map(|t| t.map_or("NULL".to_owned(), quoted));
                Arc::new(StringArray::from_iter_values(quoted))
            }
            Kind::EncodingName => {
                let numbers = cast(first, &DataType::Int32)?;
                let names = numbers.as_primitive::<Int32Type>().iter();
                Arc::new(
                    names.map(|n| n.map(|n| if n == UTF8 { "UTF8" } else { "" })).collect::<StringArray>(),
                )
            }
            Kind::EncodingNumber => {
                let texts = texts()?;
                let known = |name: &str| ["utf8", "utf-8", "unicode"].contains(&name.to_lowercase().as_str());
                let number = |name: &str| if known(name) { UTF8 } else { -1 };
                Arc::new(texts.as_string::<i32>().iter().map(|t| t.map(number)).collect::<Int32Array>())
            }
            Kind::WidthBucket => Arc::new(width_buckets(&columns)?),
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// As Postgres writes sizes: whole numbers, of the greatest unit that leaves at least ten of them or so.
///
/// Source: `pg_size_pretty` in <https://github.com/postgres/postgres/blob/REL_15_0/src/backend/utils/adt/dbsize.c>
fn size_pretty(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let (mut size, mut unit) = (bytes.trunc(), 0);
    let limit = 10.0 * 1024.0;
    if size.abs() < limit {
        return format!("{size} bytes");
    }
    // One binary digit more than is shown is kept for rounding.
    size = (size / 512.0).trunc();
    unit += 1;
    while size.abs() >= 20.0 * 1024.0 - 1.0 && unit + 1 < UNITS.len() {
        size = (size / 1024.0).trunc();
        unit += 1;
    }
    let half = ((size.abs() + 1.0) / 2.0).trunc() * size.signum();
    format!("{half} {}", UNITS[unit])
}

fn quoted(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// `text` as a name is written: in quotes unless it is plain.
pub(super) fn identifier(text: &str) -> String {
    let mut letters = text.chars();
    let starts = letters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let plain = starts && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// `format('%s of %I', …)`: `%s`, `%I`, `%L` and `%%`, also with positions (`%2$s`); no widths.
fn formatted(columns: &[ArrayRef], rows: usize) -> Result<StringArray> {
    let columns =
        columns.iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
    let texts: Vec<_> = columns.iter().map(|column| column.as_string::<i32>()).collect();
    let value = |column: usize, row: usize| texts[column].is_valid(row).then(|| texts[column].value(row));
    (0..rows)
        .map(|row| {
            value(0, row).map(|pattern| fill(pattern, texts.len() - 1, |i| value(i + 1, row))).transpose()
        })
        .collect()
}

fn fill<'a>(pattern: &str, arguments: usize, argument: impl Fn(usize) -> Option<&'a str>) -> Result<String> {
    let (mut out, mut rest, mut next) = (String::new(), pattern, 0);
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let position =
            after[digits..].starts_with('$').then(|| after[..digits].parse::<usize>().ok()).flatten();
        let spec = if position.is_some() { &after[digits + 1..] } else { after };
        let mut letters = spec.chars();
        let Some(letter) = letters.next() else { return exec_err!("unterminated format() type specifier") };
        rest = letters.as_str();
        if letter == '%' {
            out.push('%');
            continue;
        }
        let at = position.map_or(next, |position| position.wrapping_sub(1));
        if at >= arguments {
            return exec_err!("too few arguments for format()");
        }
        next = at + 1;
        match (letter, argument(at)) {
            ('s', value) => out.push_str(value.unwrap_or_default()),
            ('I', Some(value)) => out.push_str(&identifier(value)),
            ('I', None) => return exec_err!("null values cannot be formatted as an SQL identifier"),
            ('L', Some(value)) => out.push_str(&quoted(value)),
            ('L', None) => out.push_str("NULL"),
            _ => return exec_err!("unrecognized format() type specifier \"{letter}\""),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// `width_bucket(value, low, high, count)`: 0 below `low`, `count + 1` from `high` on.
fn width_buckets(columns: &[ArrayRef]) -> Result<Int32Array> {
    let [value, low, high, count] = columns else {
        return exec_err!("width_bucket() takes a value, two bounds and a count");
    };
    let doubles = [value, low, high].map(|column| cast(column, &DataType::Float64));
    let [value, low, high] = doubles;
    let (value, low, high) = (value?, low?, high?);
    let [value, low, high] = [&value, &low, &high].map(|column| column.as_primitive::<Float64Type>());
    let count = cast(count, &DataType::Int32)?;
    let count = count.as_primitive::<Int32Type>();
    let bucket = |row: usize| -> Result<Option<i32>> {
        let known = [value, low, high].iter().all(|c: &&Float64Array| c.is_valid(row)) && count.is_valid(row);
        if !known {
            return Ok(None);
        }
        let (v, low, high, count) = (value.value(row), low.value(row), high.value(row), count.value(row));
        if count < 1 || low == high || v.is_nan() || !low.is_finite() || !high.is_finite() {
            return exec_err!("width_bucket() takes numbers, two bounds that differ and a positive count");
        }
        let share = if low < high { (v - low) / (high - low) } else { (low - v) / (low - high) };
        Ok(Some(match share {
            s if s < 0.0 => 0,
            s if s >= 1.0 => count.saturating_add(1),
            s => ((s * f64::from(count)) as i32).saturating_add(1),
        }))
    };
    (0..value.len()).map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are what PostgreSQL 15 gives.
    #[test]
    fn sizes_are_written_as_postgres_writes_them() {
        for (bytes, expected) in [
            (0.0, "0 bytes"),
            (10_239.0, "10239 bytes"),
            (10_240.0, "10 kB"),
            (10_485_247.0, "10239 kB"),
            (10_485_248.0, "10 MB"),
            (-12_345_678.0, "-12 MB"),
            (1e13, "9313 GB"),
        ] {
            assert_eq!(size_pretty(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn formats_are_filled() {
        let arguments = ["it's", "Odd Name", "plain"];
        let fill = |pattern: &str| fill(pattern, 3, |i| arguments.get(i).copied());
        assert_eq!(fill("%s %I %I 100%%").unwrap(), "it's \"Odd Name\" plain 100%");
        assert_eq!(fill("%2$s %1$L %s").unwrap(), "Odd Name 'it''s' Odd Name");
        assert!(
            fill("%s%s%s%s").is_err() && fill("%").is_err() && fill("%x").is_err() && fill("%0$s").is_err()
        );
    }
}
