//! Writes metrics as text: Prometheus 0.0.4, or OpenMetrics when the client asks for it.

use super::json::put_decimal;

/// Content type of [`Format::Text`].
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
/// Content type of [`Format::OpenMetrics`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores";

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The better of the two for this `Accept` header; a tie and no header give the older one.
    pub(crate) fn negotiate(accept: &str) -> Self {
        let quality = |names: &[&str]| {
            accept
                .split(',')
                .filter_map(|clause| {
                    let mut parts = clause.split(';').map(str::trim);
                    let name = parts.next()?;
                    let q = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse::<f64>().ok());
                    names.contains(&name).then(|| q.unwrap_or(1.0))
                })
                .fold(0.0, f64::max)
        };
        let open_metrics = quality(&["application/openmetrics-text"]);
        let text = quality(&["text/plain", "text/*"]);
        if open_metrics > text { Self::OpenMetrics } else { Self::Text }
    }

    /// The `Content-Type` to send.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT,
            Self::OpenMetrics => OPEN_METRICS,
        }
    }
}

/// A page being written.
#[derive(Debug)]
pub(crate) struct Page {
    format: Format,
    out: Vec<u8>,
}

impl Page {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, out: Vec::with_capacity(16 * 1024) }
    }

    /// A counter with one series; `name` ends in `_total`.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, [(String::new(), value)]);
    }

    /// A counter with a series per label text (`code="200"`).
    pub(crate) fn counters(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (String, f64)>,
    ) {
        self.family(name, help, "counter");
        for (labels, value) in series {
            self.sample(name, &labels, value);
        }
    }

    /// A gauge with one series.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [(String::new(), value)]);
    }

    /// A gauge with a series per label text.
    pub(crate) fn gauges(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (String, f64)>) {
        self.family(name, help, "gauge");
        for (labels, value) in series {
            self.sample(name, &labels, value);
        }
    }

    /// A summary without quantiles: `(label text, sum, count)`.
    pub(crate) fn summaries(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (String, f64, u64)>,
    ) {
        self.family(name, help, "summary");
        for (labels, sum, count) in series {
            self.sample(&format!("{name}_sum"), &labels, sum);
            self.sample(&format!("{name}_count"), &labels, count as f64);
        }
    }

    /// A histogram: `(label text, counts per bucket with the one above all bounds last, sum)`.
    pub(crate) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[f64],
        series: impl IntoIterator<Item = (String, &'a [u64], f64)>,
    ) {
        self.family(name, help, "histogram");
        for (labels, counts, sum) in series {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut total = 0;
            for (i, count) in counts.iter().enumerate() {
                total += count;
                let bound = bounds.get(i).map_or_else(|| "+Inf".to_owned(), |b| self.bound(*b));
                self.sample(
                    &format!("{name}_bucket"),
                    &format!("{labels}{comma}le=\"{bound}\""),
                    total as f64,
                );
            }
            self.sample(&format!("{name}_sum"), &labels, sum);
            self.sample(&format!("{name}_count"), &labels, total as f64);
        }
    }

    /// The page.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.out.extend_from_slice(b"# EOF\n");
        }
        self.out
    }

    /// OpenMetrics wants bounds to look like floats.
    fn bound(&self, bound: f64) -> String {
        match self.format {
            Format::Text => bound.to_string(),
            Format::OpenMetrics => format!("{bound:?}"),
        }
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let name = match self.format {
            Format::OpenMetrics if kind == "counter" => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.out.extend_from_slice(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n").as_bytes());
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.out.extend_from_slice(name.as_bytes());
        if !labels.is_empty() {
            self.out.push(b'{');
            self.out.extend_from_slice(labels.as_bytes());
            self.out.push(b'}');
        }
        self.out.push(b' ');
        put_decimal(&mut self.out, value);
        self.out.push(b'\n');
    }
}

/// `name="value"`, escaped.
pub(crate) fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.counters("requests_total", "Requests.\nAll.", [(label("path", "a\"b\\"), 2.0)]);
        page.gauge("temp", "T.", -1.5);
        page.summaries("took_seconds", "S.", [(String::new(), 1.5, 3)]);
        page.histograms("size_bytes", "B.", &[1.0, 2.5], [(label("k", "v"), &[1, 2, 3][..], 9.0)]);
        String::from_utf8(page.finish()).unwrap()
    }

    #[test]
    fn text_is_version_0_0_4() {
        let want = "# HELP requests_total Requests.\\nAll.\n# TYPE requests_total counter\n\
            requests_total{path=\"a\\\"b\\\\\"} 2\n\
            # HELP temp T.\n# TYPE temp gauge\ntemp -1.5\n\
            # HELP took_seconds S.\n# TYPE took_seconds summary\ntook_seconds_sum 1.5\ntook_seconds_count 3\n\
            # HELP size_bytes B.\n# TYPE size_bytes histogram\n\
            size_bytes_bucket{k=\"v\",le=\"1\"} 1\nsize_bytes_bucket{k=\"v\",le=\"2.5\"} 3\n\
            size_bytes_bucket{k=\"v\",le=\"+Inf\"} 6\nsize_bytes_sum{k=\"v\"} 9\nsize_bytes_count{k=\"v\"} 6\n";
        assert_eq!(page(Format::Text), want);
    }

    #[test]
    fn open_metrics_names_counters_without_total_and_ends() {
        let text = page(Format::OpenMetrics);
        assert!(text.contains("# TYPE requests counter\nrequests_total{"), "{text}");
        assert!(text.contains("le=\"1.0\"") && text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_better_liked_format_is_sent() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::negotiate(prometheus), Format::OpenMetrics);
        assert_eq!(Format::negotiate("text/plain, application/openmetrics-text;q=0.3"), Format::Text);
        assert_eq!(Format::negotiate("*/*"), Format::Text);
        assert_eq!(Format::negotiate(""), Format::Text);
    }
}
