//! Metadata of metrics: what `# TYPE`, `# UNIT` and `# HELP` lines say.

/// What kind of metric a series belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MetricKind {
    /// Not said, or not known to this build.
    #[default]
    Unknown,
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations in buckets.
    Histogram,
    /// Buckets whose counts go up and down.
    GaugeHistogram,
    /// Quantiles.
    Summary,
    /// Labels are the message; the value is 1.
    Info,
    /// One of several states is 1.
    StateSet,
}

impl MetricKind {
    /// All kinds; the position is the byte in log records.
    const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// As in log records.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// From log records; what is not known is [`MetricKind::Unknown`].
    pub fn from_byte(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).copied().unwrap_or_default()
    }

    /// As in `# TYPE` lines and in API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// Type, unit and help of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Type.
    pub kind: MetricKind,
    /// Unit, such as `seconds`; may be empty.
    pub unit: String,
    /// Help text; may be empty.
    pub help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_byte() {
        for byte in 0..8 {
            assert_eq!(MetricKind::from_byte(byte).to_byte(), byte);
        }
        assert_eq!(MetricKind::from_byte(8), MetricKind::Unknown);
    }
}
