//! `--enable-feature`: what each name switches on here.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/cmd/prometheus/main.go> (`setFeatureListOptions`).

use promontory_promql::parser::ParserOptions;

/// What features ask for.
#[derive(Debug, Clone, Default)]
pub struct Features {
    /// `exemplar-storage`: exemplars are kept in memory and in the log.
    pub exemplar_storage: bool,
    /// `memory-snapshot-on-shutdown`: the head is written out at shutdown and read at start.
    pub memory_snapshot: bool,
    /// `metadata-wal-records`: type, unit and help of series go to the log.
    pub metadata_records: bool,
    /// `xor2-encoding`: float chunks are encoded so unless the configuration says something else.
    pub xor2: bool,
    /// `promql-delayed-name-removal`.
    pub delayed_name_removal: bool,
    /// `use-start-timestamps`: functions look at start timestamps.
    pub start_timestamps: bool,
    /// Additions to the query language.
    pub parser: ParserOptions,
    /// What to tell the user, in the order of the names.
    pub notes: Vec<Note>,
}

/// One line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The name as given.
    pub feature: String,
    /// What it does here, or why nothing.
    pub text: &'static str,
    /// Whether the user should change something.
    pub is_warning: bool,
}

const PERMANENT: &str = "this feature is always enabled; the name does nothing";
const NOT_SERVED: &str = "this feature is not served yet; the name does nothing";
const GO_RUNTIME: &str = "this feature tunes the Go runtime, and there is none here";

impl Features {
    /// Reads the names of `--enable-feature`.
    pub fn read(names: &[String]) -> Self {
        let mut features = Self::default();
        for name in names.iter().filter(|name| !name.is_empty()) {
            let (text, is_warning) = features.enable(name);
            features.notes.push(Note { feature: name.clone(), text, is_warning });
        }
        features
    }

    /// Switches one feature on, and says what that means.
    fn enable(&mut self, name: &str) -> (&'static str, bool) {
        match name {
            "exemplar-storage" => {
                self.exemplar_storage = true;
                ("experimental in-memory exemplar storage enabled", false)
            }
            "memory-snapshot-on-shutdown" => {
                self.memory_snapshot = true;
                ("experimental memory snapshot on shutdown enabled", false)
            }
            "metadata-wal-records" => {
                self.metadata_records = true;
                ("experimental metadata records in the log enabled", false)
            }
            "xor2-encoding" => {
                self.xor2 = true;
                (
                    "set storage.tsdb.chunk_encoding.floats in the configuration instead; float chunks are xor2 now",
                    true,
                )
            }
            "promql-experimental-functions" => {
                self.parser.experimental_functions = true;
                ("experimental PromQL functions enabled", false)
            }
            "promql-extended-range-selectors" => {
                self.parser.extended_range_selectors = true;
                ("experimental PromQL extended range selectors enabled", false)
            }
            "promql-binop-fill-modifiers" => {
                self.parser.binop_fill_modifiers = true;
                ("experimental PromQL binary operator fill modifiers enabled", false)
            }
            "use-start-timestamps" => {
                self.start_timestamps = true;
                ("experimental usage of start timestamps in PromQL enabled", false)
            }
            "promql-delayed-name-removal" => {
                self.delayed_name_removal = true;
                ("experimental PromQL delayed name removal enabled", false)
            }
            "native-histograms" => (
                "the name does nothing; to scrape native histograms, set scrape_native_histograms in the scrape \
                 configuration to true",
                true,
            ),
            "ooo-native-histograms" | "promql-duration-expr" => (PERMANENT, true),
            "extra-scrape-metrics" => {
                ("the name does nothing; set extra_scrape_metrics in the configuration instead", true)
            }
            "auto-gomemlimit" | "auto-gomaxprocs" => (GO_RUNTIME, false),
            "auto-reload-config" => ("not served; send SIGHUP or POST /-/reload instead", true),
            "old-ui" => ("there are no web pages yet; the name does nothing", true),
            "concurrent-rule-eval"
            | "created-timestamp-zero-ingestion"
            | "delayed-compaction"
            | "fast-startup"
            | "histograms-st-encoding"
            | "otlp-deltatocumulative"
            | "otlp-native-delta-ingestion"
            | "promql-per-step-stats"
            | "search-api"
            | "st-storage"
            | "st-synthesis"
            | "type-and-unit-labels"
            | "use-uncached-io" => (NOT_SERVED, true),
            _ => ("unknown option for --enable-feature", true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_switch_on_what_they_say() {
        let names = ["exemplar-storage", "promql-experimental-functions", "", "native-histograms", "nope"];
        let features = Features::read(&names.map(str::to_owned));
        assert!(features.exemplar_storage && features.parser.experimental_functions);
        assert!(!features.parser.binop_fill_modifiers);
        let warned: Vec<&str> =
            features.notes.iter().filter(|n| n.is_warning).map(|n| n.feature.as_str()).collect();
        assert_eq!(warned, ["native-histograms", "nope"]);
        assert_eq!(features.notes.last().unwrap().text, "unknown option for --enable-feature");
    }
}
