//! Exposition formats: what a target's page says, entry by entry.
//!
//! [`ProtobufPage`] reads the protobuf format, the one with native histograms. [`Parser`] walks a body in Prometheus text (0.0.4, 1.0.0) or OpenMetrics text (0.0.1, 1.0.0)
//! without copying it. The text of a series (name and braces, as written) identifies it from one
//! scrape to the next, so a caller that keeps a cache by text needs labels only for a text that it
//! has not seen: [`Series::labels_into`].
//!
//! # Invariants
//! - No input panics, and nothing is allocated for a well-formed series line.
//! - What is wrong inside the braces of a series is reported by [`Series::labels_into`]; everything
//!   else by the iterator. A text that once gave labels gives the same labels whenever it occurs
//!   after the same `# TYPE`, so looking it up in a cache skips no check.
//! - After an error the parser is at its end.
//!
//! # Errors
//! [`ParseError`] carries the line, counted from 1, and a reason in upstream's words.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/tree/v3.14.0/model/textparse>. Native
//! histograms have no text form.

mod content_type;
mod lexer;
mod metadata;
mod number;
mod parser;
mod protobuf;
#[cfg(test)]
mod tests;

pub use content_type::{Format, PageFormat, UnsupportedContentType};
pub use metadata::MetricType;
pub use parser::{Entry, ParseError, ParsedExemplar, Parser, Series};
pub use protobuf::{ProtobufOptions, ProtobufPage};

/// Bytes from a target, quoted for an error message and cut if they are long.
fn quote(bytes: &[u8]) -> String {
    const LONGEST: usize = 1024;
    let mut out = String::new();
    let shown = &bytes[..bytes.len().min(LONGEST)];
    for chunk in shown.utf8_chunks() {
        let valid = promontory_tsdb::labels::go_quote(chunk.valid());
        out.push_str(&valid[1..valid.len() - 1]);
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }
    let more = if bytes.len() > LONGEST { "…" } else { "" };
    format!("\"{out}\"{more}")
}
