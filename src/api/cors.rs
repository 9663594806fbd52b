//! Which browsers may read the API.
//!
//! Headers are sent only to requests with an `Origin`, as upstream does.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/util/httputil/cors.go>

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, VARY,
};
use axum::http::{HeaderMap, HeaderValue};
use promontory_tsdb::matcher::compile_anchored;
use regex::Regex;

/// `--web.cors.origin`.
#[derive(Debug)]
pub(crate) enum CorsOrigin {
    /// `.*`: anybody.
    Any,
    /// Origins that match.
    Matching(Regex),
}

impl CorsOrigin {
    /// Takes an anchored regular expression.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        if pattern == ".*" {
            return Ok(Self::Any);
        }
        compile_anchored(pattern).map(Self::Matching).map_err(|e| e.to_string())
    }

    /// Adds the headers for a request from `origin`.
    pub(crate) fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let Some(origin) = origin else { return };
        let allowed = match self {
            Self::Any => HeaderValue::from_static("*"),
            Self::Matching(regex) => {
                headers.append(VARY, HeaderValue::from_static("Origin"));
                match origin.to_str() {
                    Ok(text) if regex.is_match(text) => origin.clone(),
                    _ => return,
                }
            }
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Accept, Authorization, Content-Type, Origin"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pattern: &str, origin: Option<&'static str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        CorsOrigin::new(pattern).unwrap().allow(origin.map(HeaderValue::from_static).as_ref(), &mut headers);
        headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|v| v.to_str().unwrap().to_owned())
    }

    #[test]
    fn origins_are_matched_whole() {
        assert_eq!(allowed(".*", Some("https://x")), Some("*".into()));
        assert_eq!(allowed(".*", None), None);
        assert_eq!(
            allowed("https://.*\\.example", Some("https://a.example")),
            Some("https://a.example".into())
        );
        assert_eq!(allowed("https://.*\\.example", Some("https://a.example.evil")), None);
    }
}
