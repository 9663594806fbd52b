//! Types of metric families.

/// Type of a metric family, from a `# TYPE` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MetricType {
    /// Only goes up, save for resets.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a count and a sum.
    Histogram,
    /// A histogram of a current state (OpenMetrics).
    GaugeHistogram,
    /// Quantiles, a count and a sum.
    Summary,
    /// Constant labels (OpenMetrics).
    Info,
    /// One boolean per state (OpenMetrics).
    StateSet,
    /// `untyped`, `unknown`, or no `# TYPE` line.
    #[default]
    Unknown,
}

impl MetricType {
    /// The name that the HTTP API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }

    /// A type as Prometheus text writes it.
    pub(super) fn from_prometheus_text(text: &[u8]) -> Option<Self> {
        match text {
            b"untyped" => Some(Self::Unknown),
            b"counter" => Some(Self::Counter),
            b"gauge" => Some(Self::Gauge),
            b"histogram" => Some(Self::Histogram),
            b"summary" => Some(Self::Summary),
            _ => None,
        }
    }

    /// A type as OpenMetrics writes it.
    pub(super) fn from_open_metrics(text: &[u8]) -> Option<Self> {
        match text {
            b"unknown" => Some(Self::Unknown),
            b"gaugehistogram" => Some(Self::GaugeHistogram),
            b"info" => Some(Self::Info),
            b"stateset" => Some(Self::StateSet),
            b"untyped" => None,
            other => Self::from_prometheus_text(other),
        }
    }
}
