use promontory_sql::ExternalFormat;
use promontory_tsdb::Retention;
use promontory_tsdb::chunkenc::Encoding;

use super::*;

fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
    let (config, warnings) = Config::parse(text, Path::new("prometheus.yml")).map_err(|e| e.to_string())?;
    Ok((config, warnings.iter().map(ToString::to_string).collect()))
}

#[track_caller]
fn good(text: &str) -> Config {
    let (config, warnings) = parse(text).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    config
}

#[track_caller]
fn bad(text: &str, want: &str) {
    assert_eq!(parse(text).unwrap_err(), want, "config:\n{text}");
}

const JOB: &str = "scrape_configs:\n- job_name: a\n";

#[test]
fn nothing_is_all_defaults() {
    for text in ["", "# nothing\n", "global:\n", "---\n", "global: {}\nscrape_configs: []\nrule_files:\n"] {
        let config = good(text);
        assert_eq!(config.global, GlobalConfig::default(), "{text:?}");
        assert_eq!(config.jobs().count(), 0);
    }
    let config = good(JOB);
    let job = &config.scrape_configs[0];
    assert_eq!(job.scrape_interval, Duration::from_secs(60));
    assert_eq!(job.scrape_timeout, Duration::from_secs(10));
    assert_eq!(job.scrape_protocols, ScrapeProtocol::DEFAULT);
    assert_eq!((job.metrics_path.as_str(), job.scheme.as_str()), ("/metrics", "http"));
    assert!(job.honor_timestamps && job.enable_compression && job.http.follow_redirects);
}

#[test]
fn jobs_inherit_from_global() {
    let config = good(
        "global:\n  scrape_interval: 5s\n  sample_limit: 100\n  label_limit: 30\n  body_size_limit: 1MB\n\
         scrape_configs:\n- job_name: a\n  sample_limit: 7\n- job_name: b\n  scrape_interval: 1m\n",
    );
    assert_eq!(config.global.scrape_timeout, Duration::from_secs(5));
    let [a, b] = &config.scrape_configs[..] else { panic!() };
    assert_eq!((a.scrape_interval, a.scrape_timeout), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!((a.limits.samples, a.limits.labels, a.limits.body_size_bytes), (7, 30, 1 << 20));
    assert_eq!((b.scrape_interval, b.scrape_timeout), (Duration::from_secs(60), Duration::from_secs(5)));
    assert_eq!(b.limits.samples, 100);
}

#[test]
fn a_stock_file_loads_with_one_warning() {
    let text = r#"# my global config
global:
  scrape_interval: 15s # Set the scrape interval to every 15 seconds.
  evaluation_interval: 15s
  # scrape_timeout is set to the global default (10s).

# Alertmanager configuration
alerting:
  alertmanagers:
    - static_configs:
        - targets:
          # - alertmanager:9093

rule_files:
  # - "first_rules.yml"

scrape_configs:
  - job_name: "prometheus"
    # metrics_path defaults to '/metrics'
    static_configs:
      - targets: ["localhost:9090"]
        labels:
          app: "prometheus"
"#;
    let (config, warnings) = parse(text).unwrap();
    assert_eq!(warnings, ["prometheus.yml:8: alerting: not supported yet; ignored"]);
    assert_eq!(config.scrape_configs[0].static_configs[0].targets, ["localhost:9090"]);
    assert_eq!(
        config.scrape_configs[0].static_configs[0].labels,
        [("app".to_owned(), "prometheus".to_owned())]
    );
}

#[test]
fn errors_name_file_line_and_key() {
    for (text, want) in [
        ("global:\n  scrape_intervall: 1s\n", "prometheus.yml:2: global.scrape_intervall: unknown key"),
        ("globals:\n", "prometheus.yml:1: globals: unknown key"),
        (
            "scrape_configs:\n- job_name: a\n  consult_sd_configs: []\n",
            "prometheus.yml:3: scrape_configs[0].consult_sd_configs: unknown key",
        ),
        ("scrape_configs:\n- metrics_path: /x\n", "prometheus.yml:2: scrape_configs[0]: job_name is empty"),
        ("scrape_configs:\n-\n", "prometheus.yml:2: scrape_configs[0]: empty or null scrape config section"),
        (
            "scrape_configs:\n- job_name: prometheus\n- job_name: prometheus\n",
            "prometheus.yml:3: scrape_configs[1]: found multiple scrape configs with job name \"prometheus\"",
        ),
        (
            "scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n  scrape_timeout: 6s\n",
            "prometheus.yml:4: scrape_configs[0].scrape_timeout: scrape timeout greater than scrape interval for scrape config with job name \"a\"",
        ),
        (
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 2s\n",
            "prometheus.yml:1: global: global scrape timeout greater than scrape interval",
        ),
        (
            "global:\n  scrape_interval: 1 minute\n",
            "prometheus.yml:2: global.scrape_interval: not a valid duration string: \"1 minute\"",
        ),
        (
            "global:\n  body_size_limit: 100\n",
            "prometheus.yml:2: global.body_size_limit: units: unknown unit  in 100",
        ),
        (
            "scrape_configs:\n- job_name: a\n  static_configs:\n  - targets:\n    - http://bad\n",
            "prometheus.yml:5: scrape_configs[0].static_configs[0].targets[0]: \"http://bad\" is not a valid hostname",
        ),
        (
            "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: hashmod\n    target_label: x\n",
            "prometheus.yml:4: scrape_configs[0].relabel_configs[0]: relabel configuration for hashmod requires non-zero modulus",
        ),
        (
            "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: nope\n",
            "prometheus.yml:4: scrape_configs[0].relabel_configs[0].action: unknown relabel action \"nope\"",
        ),
        (
            "scrape_configs:\n- job_name: a\n  metric_relabel_configs:\n  -\n",
            "prometheus.yml:4: scrape_configs[0].metric_relabel_configs[0]: empty or null metric relabeling rule in scrape config",
        ),
        (
            "scrape_configs:\n- job_name: a\n  honor_labels: maybe\n",
            "prometheus.yml:3: scrape_configs[0].honor_labels: expected true or false, found \"maybe\"",
        ),
        ("scrape_configs: {}\n", "prometheus.yml:1: scrape_configs: expected a list, found a map"),
        ("scrape_configs: []\nscrape_configs: []\n", "prometheus.yml:2: key \"scrape_configs\" already set"),
        (
            "scrape_configs:\n- job_name: a\n  scrape_protocols: [prometheusproto]\n",
            "prometheus.yml:3: scrape_configs[0].scrape_protocols[0]: scrape_protocols: unknown scrape protocol prometheusproto, supported: [OpenMetricsText0.0.1 OpenMetricsText1.0.0 PrometheusProto PrometheusText0.0.4 PrometheusText1.0.0]",
        ),
        (
            "scrape_configs:\n- job_name: a\n  basic_auth: {username: u}\n  authorization: {credentials: c}\n",
            "prometheus.yml:2: scrape_configs[0]: at most one of basic_auth, oauth2 & authorization must be configured",
        ),
        (
            "scrape_configs:\n- job_name: a\n  bearer_token: x\n  bearer_token_file: y\n",
            "prometheus.yml:2: scrape_configs[0]: at most one of bearer_token & bearer_token_file must be configured",
        ),
        (
            "scrape_configs:\n- job_name: a\n  file_sd_configs:\n  - files: ['x.txt']\n",
            "prometheus.yml:4: scrape_configs[0].file_sd_configs[0].files[0]: path name \"x.txt\" is not valid for file discovery",
        ),
        (
            "scrape_config_files: ['scrape_configs/*/*']\n",
            "prometheus.yml:1: scrape_config_files[0]: invalid scrape config file path \"scrape_configs/*/*\"",
        ),
        (
            "scrape_configs:\n- job_name: a\n  metric_name_validation_scheme: legacy\n  metric_name_escaping_scheme: allow-utf-8\n",
            "prometheus.yml:2: scrape_configs[0]: utf8 metric names requested but validation scheme is not set to UTF8",
        ),
    ] {
        bad(text, want);
    }
    assert!(parse("a: [\n").unwrap_err().contains("not valid YAML"));
    assert!(parse("- a\n").unwrap_err().contains("expected a map, found a list"));
    let error = parse("scrape_configs:\n- job_name: a\n  relabel_configs:\n  - regex: (\n").unwrap_err();
    assert!(error.starts_with("prometheus.yml:4: scrape_configs[0].relabel_configs[0]: "), "{error}");
}

#[test]
fn unserved_keys_warn_once_each() {
    let text = "remote_write:\n- url: http://a\n- url: http://b\nstorage:\n  tsdb:\n    stale_series_compaction_threshold: 0.5\n\
                scrape_configs:\n- job_name: a\n  scrape_native_histograms: true\n  always_scrape_classic_histograms: false\n\
                \x20 kubernetes_sd_configs:\n  - role: pod\n  oauth2:\n    client_id: x\n  tls_config:\n    server_name: y\n";
    let (_, mut warnings) = parse(text).unwrap();
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "prometheus.yml:11: scrape_configs[0].kubernetes_sd_configs: not supported yet; ignored",
            "prometheus.yml:13: scrape_configs[0].oauth2: not supported yet; ignored",
            "prometheus.yml:16: scrape_configs[0].tls_config.server_name: not supported yet; ignored",
            "prometheus.yml:1: remote_write: not supported yet; ignored",
            "prometheus.yml:6: storage.tsdb.stale_series_compaction_threshold: not supported yet; ignored",
        ]
    );
}

#[test]
fn retention_of_the_file_stands_for_all_of_the_flags() {
    let flags = Retention { time_ms: Some(1000), bytes: Some(5), percentage: None };
    let effective = |keys: &str| {
        let (config, _) = parse(&format!("storage: {{tsdb: {{retention: {keys}}}}}\n")).unwrap();
        config.storage.retention_with(flags)
    };
    let day = 86_400_000;
    assert_eq!(effective("{time: 90d}"), Retention { time_ms: Some(90 * day), ..Retention::default() });
    assert_eq!(effective("{size: 1GB}"), Retention { bytes: Some(1 << 30), ..Retention::default() });
    assert_eq!(effective("{percentage: 12.5}"), Retention { percentage: Some(12.5), ..Retention::default() });
    assert_eq!(effective("{time: 0s}"), Retention::default());
    assert_eq!(effective(""), flags);
    let (_, warnings) = parse("storage: {tsdb: {retention: {size: 1GB, percentage: 80}}}\n").unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let shown = good("storage: {tsdb: {retention: {time: 90d, size: 1GB}}}\n").to_yaml();
    assert!(
        shown.contains("storage:\n  tsdb:\n    retention:\n      time: 90d\n      size: 1GiB\n"),
        "{shown}"
    );
    bad(
        "storage: {tsdb: {retention: {tim: 90d}}}\n",
        "prometheus.yml:1: storage.tsdb.retention.tim: unknown key",
    );
    bad(
        "storage: {tsdb: {retention: {percentage: 101}}}\n",
        "prometheus.yml:1: storage.tsdb.retention.percentage: 'storage.tsdb.retention.percentage' must be in the range [0, 100], got 101",
    );
}

#[test]
fn storage_keys_have_their_checks() {
    assert_eq!(good("storage: {exemplars: {max_exemplars: 7}}\n").storage.exemplars_max, Some(7));
    assert_eq!(good("storage: {exemplars: {max_exemplars: -1}}\n").storage.exemplars_max, Some(0));
    let encoding = |name: &str| {
        good(&format!("storage: {{tsdb: {{chunk_encoding: {{floats: {name}}}}}}}\n")).storage.float_encoding
    };
    assert_eq!((encoding("xor"), encoding("xor2")), (Some(Encoding::Xor), Some(Encoding::Xor2)));
    let window = good("storage: {tsdb: {out_of_order_time_window: 30m}}\n");
    assert_eq!(window.storage.out_of_order_window_ms, 1_800_000);
    assert!(window.to_yaml().contains("out_of_order_time_window: 30m\n"));
    let error = parse("storage: {tsdb: {chunk_encoding: {floats: zip}}}\n").unwrap_err();
    assert!(error.contains("must be 'xor' or 'xor2'"), "{error}");
}

#[test]
fn native_histograms_are_asked_for_in_protobuf() {
    let protocols = |text: &str| good(text).scrape_configs[0].scrape_protocols.clone();
    let job = "scrape_configs:\n- job_name: a\n";
    assert_eq!(protocols(job), ScrapeProtocol::DEFAULT);
    assert_eq!(
        protocols(&format!("{job}  scrape_native_histograms: true\n")),
        ScrapeProtocol::PROTOBUF_FIRST
    );
    let global = format!("global: {{scrape_native_histograms: true}}\n{job}");
    assert_eq!(protocols(&global), ScrapeProtocol::PROTOBUF_FIRST);
    assert_eq!(protocols(&format!("{global}  scrape_native_histograms: false\n")), ScrapeProtocol::DEFAULT);
    let own = format!("{global}  scrape_protocols: [PrometheusText0.0.4]\n");
    assert_eq!(protocols(&own), [ScrapeProtocol::PrometheusText0_0_4]);
}

#[test]
fn yaml_aliases_and_merge_keys_work() {
    let config = good(
        "scrape_configs:\n- &base\n  job_name: a\n  sample_limit: 3\n  static_configs: &t\n  - targets: ['x:1']\n\
         - <<: *base\n  job_name: b\n- job_name: c\n  static_configs: *t\n",
    );
    assert_eq!(config.scrape_configs[1].limits.samples, 3);
    assert_eq!(config.scrape_configs[2].static_configs, config.scrape_configs[0].static_configs);
}

#[test]
fn aliases_may_not_blow_a_file_up() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let item = format!("*a{}", i - 1);
        text.push_str(&format!("a{i}: &a{i} [{}]\n", [item.as_str(); 10].join(",")));
    }
    assert!(parse(&text).unwrap_err().contains("excessive aliasing"));
}

#[test]
fn secrets_are_not_shown() {
    let config = good(
        "scrape_configs:\n- job_name: a\n  basic_auth:\n    username: u\n    password: hunter2\n\
         - job_name: b\n  authorization:\n    credentials: hunter2\n- job_name: c\n  bearer_token: hunter2\n\
         - job_name: d\n  basic_auth:\n    username_file: n.txt\n    password_file: p.txt\n",
    );
    let yaml = config.to_yaml();
    assert!(!yaml.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    assert_eq!(yaml.matches("<secret>").count(), 3, "{yaml}");
    assert!(yaml.contains("username: u") && yaml.contains("password_file: p.txt"), "{yaml}");
}

#[test]
fn what_is_shown_loads_again() {
    let config = good(
        "global:\n  scrape_interval: 15s\n  external_labels: {region: eu, n: 1}\n\
         scrape_configs:\n- job_name: a\n  params: {match: ['{__name__=\"x\"}', b]}\n  honor_labels: true\n\
         \x20 sample_limit: 5\n  body_size_limit: 10MB\n  fallback_scrape_protocol: PrometheusText0.0.4\n\
         \x20 relabel_configs:\n  - {source_labels: [a, b], separator: '', regex: 'x(.*)', target_label: c, replacement: '${1}-$$'}\n\
         \x20 - {action: labeldrop, regex: 'tmp_.*'}\n  file_sd_configs:\n  - files: ['/t/*.json']\n    refresh_interval: 90s\n\
         \x20 static_configs:\n  - targets: ['x:1', '[::1]:2']\n    labels: {z: 'yes', e: ''}\n",
    );
    let yaml = config.to_yaml();
    let mut again = good(&yaml);
    // An empty label is no label.
    again.scrape_configs[0].static_configs[0].labels.push(("e".to_owned(), String::new()));
    assert_eq!(again, config, "{yaml}");
}

#[test]
fn external_labels_take_the_environment() {
    let lookup = |name: &str| format!("<{name}>");
    for (text, want) in
        [("plain", "plain"), ("$A-x", "<A>-x"), ("${A_B}c", "<A_B>c"), ("$$A", "$A"), ("a$", "a$")]
    {
        assert_eq!(global::expand(text, lookup), want);
    }
}

#[test]
fn included_files_add_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("prometheus.yml");
    std::fs::create_dir(dir.path().join("jobs")).unwrap();
    std::fs::write(&main, "scrape_config_files: ['jobs/*.yml']\nscrape_configs:\n- job_name: a\n").unwrap();
    let included = dir.path().join("jobs/b.yml");
    std::fs::write(&included, "scrape_configs:\n- job_name: b\n  file_sd_configs:\n  - files: [t.json]\n")
        .unwrap();
    let (config, warnings) = Config::load(&main).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.jobs().map(|j| j.job_name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let files = &config.included_scrape_configs[0].file_sd_configs[0].files;
    assert_eq!(files, &[dir.path().join("jobs/t.json").to_string_lossy()]);

    std::fs::write(&included, "scrape_configs:\n- job_name: a\n").unwrap();
    let error = Config::load(&main).unwrap_err();
    assert_eq!((error.file.as_path(), error.line), (included.as_path(), 2));
    assert_eq!(
        error.reason,
        "found multiple scrape configs with job name \"a\", first found in main config file"
    );
}

#[test]
fn a_missing_file_says_so() {
    let error = Config::load("/nonexistent/prometheus.yml").unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/prometheus.yml: cannot read: "), "{error}");
}

#[test]
fn embedded_default_scrapes_itself() {
    for (listen, target) in [
        ("0.0.0.0:9090", "localhost:9090"),
        ("127.0.0.1:9191", "127.0.0.1:9191"),
        ("[::]:80", "localhost:80"),
        ("[::1]:80", "[::1]:80"),
    ] {
        let config = Config::embedded_default(listen.parse().unwrap());
        let job = &config.scrape_configs[0];
        assert_eq!(job.job_name, "promontory");
        assert_eq!(job.static_configs[0].targets, [target]);
        assert_eq!(good(&config.to_yaml()), config);
    }
}

/// What [`promontory_sql::ScramVerifier`] could have made of a password.
const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn files_as_tables_are_read_relative_to_the_configuration() {
    let text = "sql:\n  external:\n  - {name: owners, path: owners.CSV}\n  - {name: lines, path: /data/lines.tsv, header: false, delimiter: \"\\t\"}\n\
                \x20 - {name: archive, path: archive, format: parquet}\n  - {name: events, path: /data/e.ndjson}\n  external_folders: [exports, /data]\n";
    let (config, warnings) = Config::parse(text, Path::new("/etc/promontory/prometheus.yml")).unwrap();
    assert_eq!(warnings, []);
    let csv = |header, delimiter| ExternalFormat::Csv { header, delimiter };
    let tables: Vec<_> = config
        .sql
        .external
        .tables
        .iter()
        .map(|t| (t.name.as_str(), t.location.to_string(), t.format))
        .collect();
    assert_eq!(
        tables,
        [
            ("owners", "/etc/promontory/owners.CSV".to_owned(), csv(true, b',')),
            ("lines", "/data/lines.tsv".to_owned(), csv(false, b'\t')),
            ("archive", "/etc/promontory/archive".to_owned(), ExternalFormat::Parquet),
            ("events", "/data/e.ndjson".to_owned(), ExternalFormat::Json),
        ]
    );
    let folders: Vec<_> = config.sql.external.folders.iter().map(ToString::to_string).collect();
    assert_eq!(folders, ["/etc/promontory/exports", "/data"]);
    assert_eq!(good(&config.to_yaml()), config, "what is shown loads again");
}

#[test]
fn object_stores_are_reached_as_the_section_says() {
    let text = "sql:\n  external:\n  - {name: orders, path: 's3://lake/orders/', format: parquet}\n  external_folders: ['s3://lake/open']\n\
                \x20 object_stores:\n  - url: s3://lake\n    options: {aws_region: eu-west-1, aws_access_key_id: key, aws_secret_access_key: hush}\n";
    let config = good(text);
    assert_eq!(config.sql.external.tables[0].location.to_string(), "s3://lake/orders/");
    assert_eq!(config.sql.external.folders[0].to_string(), "s3://lake/open");
    assert_eq!(config.sql.external.stores[0].bucket(), "s3://lake");
    assert!(!config.to_yaml().contains("hush"));
    let one = |store: &str| format!("sql:\n  object_stores:\n  - {store}\n");
    for (store, want) in [
        ("{options: {}}", "sql.object_stores[0]: url is missing"),
        (
            "{url: 's3://lake/orders'}",
            "sql.object_stores[0]: s3://lake/orders is a place in a bucket, not a bucket",
        ),
        ("{url: 's3://lake', options: {zone: x}}", "sql.object_stores[0]: there is no option zone for s3://"),
    ] {
        bad(&one(store), &format!("prometheus.yml:3: {want}"));
    }
}

#[test]
fn what_is_no_table_over_files_is_refused_by_its_key() {
    let one = |table: &str| format!("sql:\n  external:\n  - {table}\n");
    for (table, want) in [
        ("{path: a.csv}", "sql.external[0]: name is missing"),
        ("{name: a}", "sql.external[0]: path is missing"),
        ("{name: a, path: ''}", "sql.external[0]: path is missing"),
        ("{name: a, path: folder}", "sql.external[0]: the format cannot be told from the path: say `format`"),
        (
            "{name: a, path: a.csv, format: xml}",
            "sql.external[0].format: the formats are parquet, csv and json, not \"xml\"",
        ),
        ("{name: a, path: a.json, header: true}", "sql.external[0]: header and delimiter are for csv"),
        ("{name: a, path: a.csv, delimiter: ';;'}", "sql.external[0]: delimiter is one ASCII character"),
        ("{name: a, path: a.csv, columns: 3}", "sql.external[0].columns: unknown key"),
        (
            "{name: a, path: 'ftp://host/a.csv'}",
            "sql.external[0]: ftp://host/a.csv: files are on this machine or at one of s3://, s3a://, gs://, az://, azure://, abfs://, abfss://",
        ),
        ("{name: a, path: 'gs:///a.csv'}", "sql.external[0]: gs:///a.csv names no bucket"),
    ] {
        bad(&one(table), &format!("prometheus.yml:3: {want}"));
    }
    bad(
        &one("{name: a, path: a.csv}\n  - {name: a, path: b.csv}"),
        "prometheus.yml:4: sql.external[1]: there are two tables called \"a\"",
    );
}

#[test]
fn a_user_makes_views_only_where_that_is_said() {
    let config = good(&format!(
        "sql:\n  users:\n  - {{name: maker, verifier: {VERIFIER}, create: true}}\n\
         \x20 - {{name: reader, verifier: {VERIFIER}, schemas: [metrics]}}\n  - {{name: other, verifier: {VERIFIER}, create: false}}\n"
    ));
    let may: Vec<_> =
        config.sql.users.iter().map(|user| (user.name.as_str(), user.access.may_create())).collect();
    assert_eq!(may, [("maker", true), ("reader", false), ("other", false)]);
    let schemas = config.sql.users[1].access.schemas().map(|schemas| schemas.collect::<Vec<_>>());
    assert_eq!(schemas.as_deref(), Some(&["metrics"][..]));
    let yaml = config.to_yaml();
    assert!(yaml.contains("create: true") && !yaml.contains("SCRAM"), "{yaml}");
    let error = parse(&format!("sql:\n  users:\n  - {{name: a, verifier: {VERIFIER}, create: perhaps}}\n"))
        .unwrap_err();
    assert!(error.contains("sql.users[0].create"), "{error}");
}
