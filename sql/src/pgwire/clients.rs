//! Who is connected, what they do, and how it is stopped: cancel requests and `pg_stat_activity`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use parking_lot::Mutex;
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::SecretKey;
use tokio_util::sync::CancellationToken;

use crate::catalog::Listing;
use crate::viewer::{HIDDEN, Viewer};

/// Name of the table of clients.
pub(super) const ACTIVITY: &str = "pg_stat_activity";

/// As many bytes of a statement as Postgres shows by default.
const SHOWN_BYTES: usize = 1024;

/// One who is connected.
#[derive(Debug)]
pub(super) struct Client {
    pid: i32,
    secret: SecretKey,
    user: String,
    database: String,
    address: SocketAddr,
    /// µs since 1970.
    since_us: i64,
    doing: Mutex<Doing>,
}

#[derive(Debug, Default)]
struct Doing {
    application_name: String,
    /// The statement that runs, or the last one.
    query: String,
    /// µs since 1970.
    query_since_us: Option<i64>,
    /// µs since 1970; when it last began or ended a statement.
    changed_us: Option<i64>,
    in_transaction: bool,
    running: Option<CancellationToken>,
}

/// What it takes to introduce a client.
#[derive(Debug)]
pub(super) struct Introduction {
    pub(super) pid: i32,
    pub(super) secret: SecretKey,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) address: SocketAddr,
}

impl Client {
    /// A statement begins. The token is cancelled when somebody stops it.
    pub(super) fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        let mut doing = self.doing.lock();
        doing.running = Some(token.clone());
        doing.changed_us = Some(now_us());
        doing.query_since_us = doing.changed_us;
        token
    }

    /// What it says.
    pub(super) fn says(&self, query: &str) {
        let end = (0..=SHOWN_BYTES.min(query.len())).rev().find(|i| query.is_char_boundary(*i)).unwrap_or(0);
        query[..end].clone_into(&mut self.doing.lock().query);
    }

    /// The statement is over.
    pub(super) fn end(&self) {
        let mut doing = self.doing.lock();
        doing.running = None;
        doing.changed_us = Some(now_us());
    }

    /// Whether it is in a transaction from now on.
    pub(super) fn set_in_transaction(&self, in_transaction: bool) {
        self.doing.lock().in_transaction = in_transaction;
    }

    /// Its user and its process id.
    pub(super) fn who(&self) -> (String, i32) {
        (self.user.clone(), self.pid)
    }

    /// Whether a statement is running.
    pub(super) fn is_busy(&self) -> bool {
        self.doing.lock().running.is_some()
    }

    pub(super) fn set_application_name(&self, name: &str) {
        name.clone_into(&mut self.doing.lock().application_name);
    }

    fn cancel(&self) {
        if let Some(token) = &self.doing.lock().running {
            token.cancel();
        }
    }
}

/// All who are connected, by process id.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<BTreeMap<i32, Arc<Client>>>);

impl Clients {
    /// From now on a request with its process id and secret stops what the client runs.
    pub(super) fn add(&self, new: Introduction) -> Arc<Client> {
        let Introduction { pid, secret, user, database, address } = new;
        let since_us = now_us();
        let client =
            Arc::new(Client { pid, secret, user, database, address, since_us, doing: Mutex::default() });
        self.0.lock().insert(pid, Arc::clone(&client));
        client
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// As whom they are there, also several times the same.
    pub(super) fn users(&self) -> Vec<String> {
        self.0.lock().values().map(|client| client.user.clone()).collect()
    }

    /// The client is gone.
    pub(super) fn remove(&self, client: &Client) {
        self.0.lock().remove(&client.pid);
    }

    /// Stops the statement that `request` may stop; a wrong secret stops nothing and gets no answer.
    pub(super) fn cancel(&self, request: &CancelRequest) {
        let client = self.0.lock().get(&request.pid).cloned();
        if let Some(client) = client
            && bytes_of(&client.secret) == bytes_of(&request.secret_key)
        {
            client.cancel();
        }
    }
}

/// A four-byte secret may come back as bytes.
fn bytes_of(secret: &SecretKey) -> Vec<u8> {
    match secret {
        SecretKey::I32(number) => number.to_be_bytes().to_vec(),
        SecretKey::Bytes(bytes) => bytes.to_vec(),
    }
}

fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// `pg_stat_activity`, with the columns that make sense here. A scan shows who is there when it is planned; of others
/// than oneself, those who may not read everything see the name only.
///
/// Source: <https://www.postgresql.org/docs/15/monitoring-stats.html>
pub(super) fn activity_table(clients: Arc<Clients>) -> Arc<dyn TableProvider> {
    let schema = Arc::new(activity_schema());
    Listing::for_viewer(Arc::clone(&schema), move |viewer| {
        activity_rows(&clients, viewer, Arc::clone(&schema))
    })
}

fn activity_schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time =
        |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true);
    let number = |name: &str| Field::new(name, DataType::Int32, true);
    Schema::new(vec![
        text("datname"),
        number("pid"),
        text("usename"),
        text("application_name"),
        text("client_addr"),
        number("client_port"),
        time("backend_start"),
        time("query_start"),
        time("state_change"),
        text("state"),
        text("query"),
        text("backend_type"),
    ])
}

fn activity_rows(clients: &Clients, viewer: &Viewer, schema: SchemaRef) -> Result<RecordBatch> {
    let clients: Vec<_> = clients.0.lock().values().cloned().collect();
    let text = |of: &dyn Fn(&Client) -> Option<String>| -> ArrayRef {
        Arc::new(clients.iter().map(|c| of(c)).collect::<StringArray>())
    };
    let number = |of: &dyn Fn(&Client) -> Option<i32>| -> ArrayRef {
        Arc::new(clients.iter().map(|c| of(c)).collect::<Int32Array>())
    };
    let time = |of: &dyn Fn(&Client) -> Option<i64>| -> ArrayRef {
        let times: TimestampMicrosecondArray = clients.iter().map(|c| of(c)).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let sees = |c: &Client| viewer.sees(&c.user);
    let columns: Vec<ArrayRef> = vec![
        text(&|c| Some(c.database.clone())),
        number(&|c| Some(c.pid)),
        text(&|c| Some(c.user.clone())),
        text(&|c| Some(c.doing.lock().application_name.clone())),
        text(&|c| sees(c).then(|| c.address.ip().to_string())),
        number(&|c| sees(c).then(|| i32::from(c.address.port()))),
        time(&|c| sees(c).then_some(c.since_us)),
        time(&|c| c.doing.lock().query_since_us.filter(|_| sees(c))),
        time(&|c| c.doing.lock().changed_us.filter(|_| sees(c))),
        text(&|c| sees(c).then(|| state(&c.doing.lock()).to_owned())),
        text(&|c| Some(if sees(c) { c.doing.lock().query.clone() } else { HIDDEN.to_owned() })),
        text(&|c| sees(c).then(|| "client backend".to_owned())),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn state(doing: &Doing) -> &'static str {
    match (doing.running.is_some(), doing.in_transaction) {
        (true, _) => "active",
        (false, true) => "idle in transaction",
        (false, false) => "idle",
    }
}
