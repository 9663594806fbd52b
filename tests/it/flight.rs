//! Flight SQL, asked by arrow-flight's own client.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
    ProstMessageExt as _, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{Action, Empty, FlightDescriptor, FlightInfo, Ticket};
use futures::{StreamExt as _, TryStreamExt as _};
use promontory::server::{Server, ServerOptions};
use promontory_sql::ScramVerifier;
use prost::Message as _;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::support::{TestServer, eventually};

type Client = FlightSqlServiceClient<Channel>;

const T0: i64 = 1_795_219_200_000;
/// Rows for hours.
const ENDLESS: &str = "SELECT a.value FROM tsdb.samples a, tsdb.samples b, tsdb.samples c, tsdb.samples d";

async fn serving(yaml: &str) -> TestServer {
    let server =
        TestServer::with_options(yaml, |options| options.flight_listen = Some("127.0.0.1:0".to_owned()))
            .await;
    for job in ["api", "node"] {
        let samples: Vec<_> = (0..1000).map(|i| (T0 + i * 1000, i as f64)).collect();
        server.append(&[("__name__", "up"), ("job", job)], &samples);
    }
    server
}

async fn connect(server: &TestServer) -> Client {
    let address = server.running.flight_addr().unwrap();
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
    FlightSqlServiceClient::new(channel)
}

/// A configuration with users who have the password `s3cret`.
fn with_users() -> String {
    let user = |name: &str, more: &str| {
        format!("    - name: {name}\n      verifier: {}\n{more}", ScramVerifier::from_password("s3cret"))
    };
    format!("sql:\n  users:\n{}{}", user("admin", ""), user("viewer", "      schemas: [metrics]\n"))
}

async fn rows(client: &mut Client, info: FlightInfo) -> Result<RecordBatch, FlightError> {
    let told = Arc::new(info.clone().try_decode_schema().unwrap());
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let batches: Vec<RecordBatch> = client.do_get(ticket).await?.try_collect().await?;
    for batch in &batches {
        assert_eq!(batch.schema(), told, "the rows have the columns that were told");
    }
    Ok(arrow::compute::concat_batches(&told, &batches).unwrap())
}

async fn ask(client: &mut Client, query: &str) -> Result<RecordBatch, FlightError> {
    let info = client.execute(query.to_owned(), None).await?;
    rows(client, info).await
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().map(|text| text.unwrap_or("NULL").to_owned()).collect()
}

/// The code and the message of a refusal.
fn refusal<T>(result: Result<T, FlightError>) -> (Code, String) {
    match result {
        Err(FlightError::Tonic(status)) => (status.code(), status.message().to_owned()),
        Err(other) => panic!("not a status: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_arrow_with_the_columns_that_were_told() {
    let server = serving("scrape_configs: []\n").await;
    let mut client = connect(&server).await;
    let batch = ask(&mut client, "SELECT job, max(value), count(*) AS n FROM up GROUP BY 1 ORDER BY 1")
        .await
        .unwrap();
    assert_eq!(texts(&batch, "job"), ["api", "node"]);
    assert_eq!(batch.column(1).as_primitive::<Float64Type>(), &Float64Array::from(vec![999.0, 999.0]));
    assert_eq!(batch.column(2).as_primitive::<Int64Type>(), &Int64Array::from(vec![1000, 1000]));
    assert_eq!(batch.schema().field(1).name(), "max");
    let all = ask(&mut client, "SELECT * FROM up").await.unwrap();
    assert_eq!(all.num_rows(), 2000);
    for query in [
        "SELECT 1 AS x UNION ALL SELECT 2.5",
        "SELECT timestamp, NULL AS nothing, ARRAY[job] AS jobs, now() - timestamp AS age FROM up LIMIT 3",
        "SELECT date_bin(interval '5 minutes', timestamp) AS t, sum(value) FROM up GROUP BY 1",
        "SELECT * FROM tsdb.series",
        "SELECT relname::text, oid FROM pg_catalog.pg_class LIMIT 3",
        "SELECT * FROM promql_instant('sum by (job) (up)')",
        "EXPLAIN SELECT * FROM up",
        "SELECT * FROM up WHERE job = 'nobody'",
    ] {
        ask(&mut client, query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    }
    let queries = ask(&mut client, "SELECT query FROM tsdb.queries WHERE state = 'done'").await.unwrap();
    assert!(texts(&queries, "query").contains(&"SELECT * FROM up".to_owned()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why() {
    let server = serving("scrape_configs: []\n").await;
    let mut client = connect(&server).await;
    for (query, code, sqlstate) in [
        ("SELECT * FROM nothing", Code::NotFound, "42P01"),
        ("SELECT nothing FROM up", Code::InvalidArgument, "42703"),
        ("SELEC 1", Code::InvalidArgument, "42601"),
        ("SELECT 1; SELECT 2", Code::InvalidArgument, "42601"),
        ("", Code::InvalidArgument, "42601"),
        ("DELETE FROM up", Code::Unimplemented, "0A000"),
        ("CREATE VIEW v AS SELECT 1", Code::Unimplemented, "0A000"),
        ("SELECT 1 / (value - value)::int FROM up", Code::InvalidArgument, "22012"),
        ("SELECT $1::int", Code::InvalidArgument, "42601"),
    ] {
        let (got, message) = refusal(ask(&mut client, query).await);
        assert!(got == code && message.contains(sqlstate), "{query}: {got:?} {message}");
    }
    let (code, message) = refusal(client.execute_update("INSERT INTO up VALUES (1)".to_owned(), None).await);
    assert!(code == Code::Unimplemented && message.contains("read only"), "{code:?} {message}");
    let (code, _) = refusal(client.execute("SELECT 1".to_owned(), Some("t".into())).await);
    assert_eq!(code, Code::Unimplemented);
    assert!(client.begin_transaction().await.is_err());
    let long = format!("SELECT '{}'", "x".repeat(2 << 20));
    assert_eq!(refusal(client.execute(long, None).await).0, Code::ResourceExhausted);
    let longer = format!("SELECT '{}'", "x".repeat(5 << 20));
    assert!(client.execute(longer, None).await.is_err());
    let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(refusal(client.execute(deep, None).await).0, Code::ResourceExhausted);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_and_commands_of_any_bytes_give_errors() {
    let server = serving("scrape_configs: []\n").await;
    let mut client = connect(&server).await;
    let of =
        |handle: Vec<u8>| TicketStatementQuery { statement_handle: handle.into() }.as_any().encode_to_vec();
    let whole = of(b"\x0a\x08SELECT 1\x12\x03abc".to_vec());
    let mut hostile: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    hostile.extend([whole, vec![0xff; 100], of(vec![0x0a; 1000]), of(b"\x12\xff\xff\xff\xff\x0f".to_vec())]);
    for bytes in hostile {
        let got = client.do_get(Ticket::new(bytes.clone())).await;
        assert!(got.is_err(), "{bytes:?}");
        let inner = client.inner_mut();
        assert!(inner.get_flight_info(FlightDescriptor::new_cmd(bytes.clone())).await.is_err(), "{bytes:?}");
        for kind in ["CreatePreparedStatement", "ClosePreparedStatement", "CancelQuery", "nothing", ""] {
            let action = Action { r#type: kind.to_owned(), body: bytes.clone().into() };
            assert!(client.do_action(action).await.is_err(), "{kind}: {bytes:?}");
        }
    }
    assert_eq!(ask(&mut client, "SELECT 1 AS x").await.unwrap().num_rows(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_take_values_for_their_parameters() {
    let server = serving("scrape_configs: []\n").await;
    let mut client = connect(&server).await;
    let query = "SELECT count(*) AS n, $3 AS same FROM up WHERE job = $1 AND value >= $2";
    let mut prepared = client.prepare(query.to_owned(), None).await.unwrap();
    let types: Vec<_> =
        prepared.parameter_schema().unwrap().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, [DataType::Utf8, DataType::Float64, DataType::Null]);
    assert_eq!(prepared.dataset_schema().unwrap().field(0).name(), "n");
    let bind = |jobs: Vec<&str>| {
        let columns: [(&str, ArrayRef); 3] = [
            ("1", Arc::new(StringArray::from(jobs.clone()))),
            ("2", Arc::new(Int64Array::from(vec![990; jobs.len()]))),
            ("3", Arc::new(StringArray::from(jobs))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    for (job, count) in [("api", 10), ("it's", 0), ("node", 10)] {
        prepared.set_parameters(bind(vec![job])).unwrap();
        let info = prepared.execute().await.unwrap();
        let batch = rows(&mut client, info).await.unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), count);
        assert_eq!(texts(&batch, "same"), [job]);
    }
    prepared.set_parameters(bind(vec!["api", "node"])).unwrap();
    let (code, message) = refusal(prepared.execute().await);
    assert!(code == Code::Unimplemented && message.contains("one row"), "{message}");
    let too_few =
        RecordBatch::try_from_iter([("1", Arc::new(StringArray::from(vec!["api"])) as ArrayRef)]).unwrap();
    prepared.set_parameters(too_few).unwrap();
    assert!(refusal(prepared.execute().await).1.contains("expected 3, got 1"));
    prepared.set_parameters(bind(vec!["api"])).unwrap();
    assert!(refusal(prepared.execute_update().await).1.contains("read only"));
    prepared.close().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_log_in_once_and_read_what_is_theirs() {
    let server = serving(&with_users()).await;
    let mut nobody = connect(&server).await;
    let statement = TicketStatementQuery { statement_handle: b"\x0a\x08SELECT 1".to_vec().into() };
    let ticket = Ticket::new(statement.as_any().encode_to_vec());
    assert_eq!(refusal(nobody.execute("SELECT 1".to_owned(), None).await).0, Code::Unauthenticated);
    assert_eq!(refusal(nobody.do_get(ticket).await).0, Code::Unauthenticated);
    assert_eq!(refusal(nobody.get_catalogs().await).0, Code::Unauthenticated);
    assert_eq!(refusal(nobody.prepare("SELECT 1".to_owned(), None).await).0, Code::Unauthenticated);
    assert_eq!(refusal(nobody.execute_update("SELECT 1".to_owned(), None).await).0, Code::Unauthenticated);
    assert_eq!(nobody.inner_mut().list_actions(Empty {}).await.unwrap_err().code(), Code::Unauthenticated);
    for (user, password) in [("admin", "wrong"), ("nobody", "s3cret"), ("", "")] {
        assert!(nobody.handshake(user, password).await.is_err());
    }
    nobody.set_token("YWRtaW4.AAAA".to_owned());
    assert_eq!(refusal(nobody.execute("SELECT 1".to_owned(), None).await).0, Code::Unauthenticated);

    let (mut admin, mut viewer) = (connect(&server).await, connect(&server).await);
    admin.handshake("admin", "s3cret").await.unwrap();
    viewer.handshake("viewer", "s3cret").await.unwrap();
    assert_eq!(ask(&mut viewer, "SELECT * FROM up").await.unwrap().num_rows(), 2000);
    assert_eq!(refusal(ask(&mut viewer, "SELECT * FROM tsdb.series").await).0, Code::PermissionDenied);
    // A ticket gives no rights to whoever finds it.
    let info = admin.execute("SELECT * FROM tsdb.series".to_owned(), None).await.unwrap();
    assert_eq!(refusal(rows(&mut viewer, info.clone()).await).0, Code::PermissionDenied);
    assert_eq!(rows(&mut admin, info).await.unwrap().num_rows(), 2);
    let schemas = |batch: RecordBatch| texts(&batch, "db_schema_name");
    let all = admin.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    assert!(schemas(rows(&mut admin, all).await.unwrap()).contains(&"tsdb".to_owned()));
    let some = viewer.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    let some = schemas(rows(&mut viewer, some).await.unwrap());
    assert!(some.contains(&"metrics".to_owned()) && !some.contains(&"tsdb".to_owned()), "{some:?}");
    let tables = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
    let tables = viewer.get_tables(tables).await.unwrap();
    let tables = rows(&mut viewer, tables).await.unwrap();
    assert!(!schemas(tables).contains(&"tsdb".to_owned()));
    let queries =
        ask(&mut admin, "SELECT user_name FROM tsdb.queries WHERE error LIKE '%permission%'").await.unwrap();
    assert!(texts(&queries, "user_name").iter().all(|name| name == "viewer") && queries.num_rows() > 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_their_way() {
    let server = serving("scrape_configs: []\n").await;
    let mut client = connect(&server).await;
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await.unwrap(), "catalog_name"), ["promontory"]);
    let pattern = |pattern: &str| Some(pattern.to_owned());
    let query = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: pattern("met%") };
    let info = client.get_db_schemas(query).await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await.unwrap(), "db_schema_name"), ["metrics"]);
    let query = CommandGetTables {
        catalog: pattern("promontory"),
        db_schema_filter_pattern: pattern("metrics"),
        table_name_filter_pattern: pattern("u_"),
        table_types: vec!["TABLE".to_owned()],
        include_schema: true,
    };
    let info = client.get_tables(query.clone()).await.unwrap();
    let tables = rows(&mut client, info).await.unwrap();
    assert_eq!(
        (texts(&tables, "table_name"), texts(&tables, "table_type")),
        (vec!["up".into()], vec!["TABLE".into()])
    );
    let bytes = tables.column_by_name("table_schema").unwrap().as_binary::<i32>().value(0).to_vec();
    let columns = arrow::datatypes::Schema::try_from(arrow_flight::IpcMessage(bytes.into())).unwrap();
    let names: Vec<_> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["timestamp", "value", "job"]);
    assert_eq!(*columns.field(2).data_type(), DataType::Utf8);
    for none in [
        CommandGetTables { table_types: vec!["VIEW".to_owned()], ..query.clone() },
        CommandGetTables { catalog: pattern("other"), ..query.clone() },
        CommandGetTables { table_name_filter_pattern: pattern("'; --"), ..query },
    ] {
        let info = client.get_tables(none).await.unwrap();
        assert_eq!(rows(&mut client, info).await.unwrap().num_rows(), 0);
    }
    let info = client.get_table_types().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await.unwrap(), "table_type"), ["TABLE", "VIEW"]);
    let info = client
        .get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::SqlIdentifierQuoteChar])
        .await
        .unwrap();
    assert_eq!(rows(&mut client, info).await.unwrap().num_rows(), 2);
    let info = client.get_sql_info(vec![]).await.unwrap();
    assert!(rows(&mut client, info).await.unwrap().num_rows() > 60);
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert!(
        texts(&rows(&mut client, info).await.unwrap(), "type_name").contains(&"double precision".to_owned())
    );
    let keys = CommandGetPrimaryKeys { catalog: None, db_schema: None, table: "up".to_owned() };
    let info = client.get_primary_keys(keys).await.unwrap();
    assert_eq!(rows(&mut client, info).await.unwrap().num_rows(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_takes_any_more_stop_their_query() {
    let server = serving("scrape_configs: []\n").await;
    let mut client = connect(&server).await;
    let info = client.execute(ENDLESS.to_owned(), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
    drop(stream);
    let state = format!("SELECT state FROM tsdb.queries WHERE query = '{ENDLESS}'");
    let channel = connect(&server).await.into_inner();
    eventually("the end of the query", || {
        let (mut other, state) = (Client::new_from_inner(channel.clone()), state.clone());
        async move { (texts(&ask(&mut other, &state).await.unwrap(), "state") == ["cancelled"]).then_some(()) }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_told_to_those_whose_rows_are_under_way() {
    let server = serving("scrape_configs: []\n").await;
    let mut client = connect(&server).await;
    let info = client.execute(ENDLESS.to_owned(), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
    let reading = tokio::spawn(async move {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return refusal::<()>(Err(error)),
                None => panic!("the rows ended as if they were all"),
            }
        }
    });
    server.stop().await;
    let (code, message) = reading.await.unwrap();
    assert!(code == Code::Unavailable && message.contains("57P01"), "{code:?} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_end_at_their_time_and_connections_at_their_number() {
    let server = serving("sql:\n  statement_timeout: 200ms\n  max_connections: 1\n").await;
    let mut client = connect(&server).await;
    let slow = "SELECT count(*) FROM tsdb.samples a, tsdb.samples b, tsdb.samples c, tsdb.samples d \
                WHERE a.value + b.value + c.value + d.value < -1";
    let (code, message) = refusal(ask(&mut client, slow).await);
    assert!(code == Code::DeadlineExceeded && message.contains("57014"), "{code:?} {message}");
    let address = server.running.flight_addr().unwrap();
    let mut second =
        FlightSqlServiceClient::new(Endpoint::new(format!("http://{address}")).unwrap().connect_lazy());
    assert!(ask(&mut second, "SELECT 1").await.is_err());
    drop(client);
    eventually("the place of who left", || {
        let mut second = second.inner().clone();
        async move {
            let command = arrow_flight::sql::CommandGetCatalogs {}.as_any().encode_to_vec();
            second.get_flight_info(FlightDescriptor::new_cmd(command)).await.ok()
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_open_to_others_is_not_served() {
    for (yaml, said) in
        [("scrape_configs: []\n".to_owned(), "without users"), (with_users(), "without encryption")]
    {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("prometheus.yml"), yaml).unwrap();
        let mut options = ServerOptions::local(dir.path().join("data"));
        options.config_file = Some(dir.path().join("prometheus.yml"));
        options.flight_listen = Some("0.0.0.0:0".to_owned());
        let error = Server::start(options).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
