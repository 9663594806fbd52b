//! Which format a body is in.

use std::fmt;

/// A format that this build reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text, 0.0.4 or 1.0.0.
    PrometheusText,
    /// OpenMetrics text, 0.0.1 or 1.0.0.
    OpenMetrics,
}

/// How to read a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageFormat {
    /// Line by line.
    Text(Format),
    /// Length-prefixed protobuf messages.
    Protobuf,
}

impl PageFormat {
    fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "text/plain" => Some(Self::Text(Format::PrometheusText)),
            "application/openmetrics-text" => Some(Self::Text(Format::OpenMetrics)),
            "application/vnd.google.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    /// The format that a `Content-Type` names, or `fallback` where it names none that is known.
    ///
    /// # Errors
    /// If the header is blank, damaged or names another format, and there is no fallback.
    pub fn from_content_type(
        content_type: &str,
        fallback: Option<Self>,
    ) -> Result<Self, UnsupportedContentType> {
        let error = |problem| UnsupportedContentType { problem, content_type: content_type.to_owned() };
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let problem = if content_type.is_empty() {
            Problem::Blank
        } else if !is_media_type(&media_type) {
            Problem::Damaged
        } else if let Some(format) = Self::from_media_type(&media_type) {
            return Ok(format);
        } else {
            Problem::Unknown
        };
        fallback.ok_or_else(|| error(problem))
    }
}

fn is_media_type(text: &str) -> bool {
    let token = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    match text.split_once('/') {
        Some((kind, subtype)) => token(kind) && token(subtype),
        None => token(text),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Blank,
    Damaged,
    Unknown,
}

/// A `Content-Type` that names no format that is read, with no fallback to use instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedContentType {
    problem: Problem,
    content_type: String,
}

impl std::error::Error for UnsupportedContentType {}

impl fmt::Display for UnsupportedContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content_type = promontory_tsdb::labels::go_quote(&self.content_type);
        match self.problem {
            Problem::Blank => f.write_str(
                "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target",
            ),
            Problem::Damaged => write!(
                f,
                "cannot parse Content-Type {content_type} and no fallback_scrape_protocol for target"
            ),
            Problem::Unknown => write!(
                f,
                "received unsupported Content-Type {content_type} and no fallback_scrape_protocol specified for target"
            ),
        }
    }
}
