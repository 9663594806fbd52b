//! Queries from elsewhere than the Postgres wire: one text in, a stream of batches out.
//!
//! They go through the same reading, checks and execution as those of a Postgres client, so that a query
//! gives the same rows and the same errors on either way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::{DataFusionError, ParamValues, ScalarValue};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use pgwire::error::{ErrorInfo, PgWireError};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::pgwire::{
    self as wire, Access, Prepared, SqlParser, SqlUser, copy, parameters, sqlstate, statement,
};
use crate::viewer::Viewer;
use crate::{NewQuery, RunningQuery, SqlCatalog, execute};

/// What is wrong with a query, or went wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// Postgres' code, as `42P01`.
    pub sqlstate: String,
    /// What is wrong.
    pub message: String,
}

impl From<PgWireError> for QueryError {
    fn from(error: PgWireError) -> Self {
        let ErrorInfo { code, message, .. } = error.into();
        Self { sqlstate: code, message }
    }
}

/// Takes queries.
#[derive(Debug)]
pub struct SqlQueries {
    catalog: Arc<SqlCatalog>,
    parser: SqlParser,
    queries: Handle,
    users: Vec<SqlUser>,
    timeout: Option<Duration>,
}

/// What a query would answer with, and needs.
#[derive(Debug, Clone)]
pub struct Described {
    /// The columns, with the names that a Postgres client would see.
    pub schema: SchemaRef,
    /// Types of `$1`, `$2`, …; `None` where the query does not say.
    pub parameters: Vec<Option<DataType>>,
}

/// The answer to a query.
pub struct Rows {
    /// The columns, with the names that a Postgres client would see.
    pub schema: SchemaRef,
    /// The rows. Dropping them stops the query.
    pub batches: SendableRecordBatchStream,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl SqlQueries {
    /// Queries over `catalog`, run on `queries`. If there are `users`, only they may ask.
    pub fn new(
        catalog: Arc<SqlCatalog>,
        queries: Handle,
        users: Vec<SqlUser>,
        timeout: Option<Duration>,
    ) -> Self {
        Self { catalog, parser: SqlParser::new(), queries, users, timeout }
    }

    /// Whether nobody needs to say who they are.
    pub fn is_open(&self) -> bool {
        self.users.is_empty()
    }

    /// What `user` with `password` may read; `None` if they are not who they say. Takes some
    /// milliseconds of computing, on purpose.
    pub fn log_in(&self, user: &str, password: &str) -> Option<Access> {
        let known = self.users.iter().find(|known| known.name == user);
        // As much work for a name that there is not, so that the time does not tell.
        let verifier = known.or(self.users.first())?.verifier.clone();
        let fits = verifier.fits(password);
        known.filter(|_| fits).map(|known| known.access.clone())
    }

    /// Runs `text`, one query, with `parameters` for `$1`, `$2`, …, for `user` with `access`.
    ///
    /// # Errors
    /// With the SQLSTATE that fits.
    pub async fn run(
        &self,
        text: &str,
        parameters: &[ScalarValue],
        access: Access,
        user: &str,
    ) -> Result<Rows, QueryError> {
        let query = NewQuery { language: "sql", query: text, user, pid: None };
        let running = self.catalog.query_log().begin(&query);
        match self.start(text, parameters, access, user).await {
            Ok(rows) => {
                let batches = Watched::watch(rows.batches, running, self.timeout);
                Ok(Rows { batches, ..rows })
            }
            Err(error) => {
                running.failed(&error.message);
                Err(error)
            }
        }
    }

    /// What `user` may read, whoever vouches for them; `None` if there is no such user.
    pub fn access_of(&self, user: &str) -> Option<Access> {
        if self.is_open() {
            return Some(Access::default());
        }
        self.users.iter().find(|known| known.name == user).map(|known| known.access.clone())
    }

    /// What `text`, one query, would answer with and needs, for `user` with `access`. Nothing is run. With
    /// `parameters`, columns are of the types that they have with these.
    ///
    /// # Errors
    /// With the SQLSTATE that fits. They are noted in the query log, as those of [`SqlQueries::run`].
    pub async fn describe(
        &self,
        text: &str,
        parameters: &[ScalarValue],
        access: Access,
        user: &str,
    ) -> Result<Described, QueryError> {
        let described = self.look_at(text, parameters, access, user).await;
        if let Err(error) = &described {
            let query = NewQuery { language: "sql", query: text, user, pid: None };
            self.catalog.query_log().begin(&query).failed(&error.message);
        }
        described
    }

    async fn look_at(
        &self,
        text: &str,
        parameters: &[ScalarValue],
        access: Access,
        user: &str,
    ) -> Result<Described, QueryError> {
        let (session, Understood { prepared, plan, columns }) = self.understand(text, access, user).await?;
        let needed = parameters::parameter_types(&prepared)?;
        if !needed.is_empty() && parameters.is_empty() {
            return Ok(Described { schema: columns, parameters: needed });
        }
        let values = parameters::fitting(&prepared, parameters.to_vec(), "the query")?;
        // Types are settled by the optimizer only: those of both sides of a UNION, for one.
        let settled = execute::on(&self.queries, async move {
            let plan = Arc::unwrap_or_clone(plan);
            let plan = match values.is_empty() {
                true => plan,
                false => plan.replace_params_with_values(&ParamValues::from(values))?,
            };
            session.state().optimize(&plan)
        });
        let schema = named(settled.await?.schema().inner(), &columns);
        Ok(Described { schema, parameters: needed })
    }

    async fn start(
        &self,
        text: &str,
        parameters: &[ScalarValue],
        access: Access,
        user: &str,
    ) -> Result<Rows, QueryError> {
        let (session, Understood { prepared, plan, columns }) = self.understand(text, access, user).await?;
        let values = parameters::fitting(&prepared, parameters.to_vec(), "the query")?;
        let values = (!parameters.is_empty()).then(|| ParamValues::from(values));
        let batches = execute::start(&session, &plan, values, &self.queries).await?;
        let batches = renamed(batches, &columns);
        Ok(Rows { schema: batches.schema(), batches })
    }

    async fn understand(
        &self,
        text: &str,
        access: Access,
        user: &str,
    ) -> Result<(SessionContext, Understood), QueryError> {
        let mut statements = wire::parse(&self.parser, text)?;
        let statement = match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => statement,
            (None, _) => return Err(error("42601", "there is no query")),
            (Some(_), false) => return Err(error("42601", "one query at a time")),
        };
        let session = self.catalog.session();
        session.state_ref().write().config_mut().set_extension(Arc::new(Viewer::new(user, &access)));
        let planning = session.clone();
        let prepared =
            execute::on(
                &self.queries,
                async move { Ok(statement::prepare(&planning, &access, statement).await) },
            );
        let prepared = prepared.await??;
        let (plan, columns) = match &prepared {
            Prepared::Query { plan, columns } => (Arc::clone(plan), Arc::clone(columns)),
            Prepared::Explain(plan) => (Arc::clone(plan), Arc::clone(plan.schema().inner())),
            _ => return Err(error("0A000", "only queries and EXPLAIN are taken here")),
        };
        Ok((session, Understood { prepared, plan, columns }))
    }
}

/// A query that was planned.
struct Understood {
    prepared: Prepared,
    plan: Arc<LogicalPlan>,
    columns: SchemaRef,
}

impl From<&DataFusionError> for QueryError {
    fn from(error: &DataFusionError) -> Self {
        sqlstate::from_datafusion(error).into()
    }
}

impl Rows {
    /// The rows as CSV with a header, values as `COPY … TO STDOUT CSV HEADER` writes them.
    ///
    /// # Errors
    /// If there is a column that has no text form.
    pub fn into_csv(self) -> Result<impl Stream<Item = Result<Bytes, QueryError>>, QueryError> {
        let (mut lines, rows) = copy::csv(&self.schema, self.batches)?;
        let first = lines.first().into_iter().map(Ok);
        let rows = rows.map(move |row| Ok(lines.row(&row?)?));
        Ok(stream::iter(first).chain(rows))
    }
}

fn error(sqlstate: &str, message: &str) -> QueryError {
    QueryError { sqlstate: sqlstate.to_owned(), message: message.to_owned() }
}

/// The rows of a query, until they end, fail, or take too long. How they end is noted.
struct Watched {
    schema: SchemaRef,
    progress: Arc<Mutex<Progress>>,
    /// Whether the timer ended them, and nobody was told.
    late: bool,
    /// Ends with this.
    _timer: Option<JoinSet<()>>,
}

#[derive(Default)]
struct Progress {
    /// `None` once they ended.
    going: Option<Going>,
    /// Who waits for the next ones.
    waiting: Option<Waker>,
}

struct Going {
    batches: SendableRecordBatchStream,
    running: RunningQuery,
}

impl Watched {
    /// Rows are let go of `timeout` from now, whether or not somebody reads them. The timer is on the runtime that calls
    /// this, for that of queries may be busy with what is to be stopped.
    fn watch(
        batches: SendableRecordBatchStream,
        running: RunningQuery,
        timeout: Option<Duration>,
    ) -> SendableRecordBatchStream {
        let schema = batches.schema();
        let progress = Progress { going: Some(Going { batches, running }), waiting: None };
        let progress = Arc::new(Mutex::new(progress));
        let timer = timeout.map(|timeout| {
            let progress = Arc::clone(&progress);
            let mut timer = JoinSet::new();
            let end = async move {
                tokio::time::sleep(timeout).await;
                let Progress { going, waiting } = std::mem::take(&mut *progress.lock());
                if let Some(Going { running, .. }) = going {
                    running.failed(sqlstate::TIMED_OUT);
                }
                if let Some(waiting) = waiting {
                    waiting.wake();
                }
            };
            timer.spawn(end);
            timer
        });
        Box::pin(Self { schema, progress, late: timer.is_some(), _timer: timer })
    }
}

impl Stream for Watched {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut progress = this.progress.lock();
        let Some(going) = &mut progress.going else {
            let late = std::mem::take(&mut this.late);
            let error = || Err(DataFusionError::Execution(sqlstate::TIMED_OUT.to_owned()));
            return Poll::Ready(late.then(error));
        };
        let Poll::Ready(batch) = going.batches.poll_next_unpin(context) else {
            progress.waiting = Some(context.waker().clone());
            return Poll::Pending;
        };
        if !matches!(batch, Some(Ok(_)))
            && let Some(Going { running, .. }) = progress.going.take()
        {
            this.late = false;
            match &batch {
                Some(Err(error)) => running.failed(error.to_string()),
                _ => running.done(),
            }
        }
        Poll::Ready(batch)
    }
}

impl RecordBatchStream for Watched {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// `batches` under the names of `columns`.
fn renamed(batches: SendableRecordBatchStream, columns: &SchemaRef) -> SendableRecordBatchStream {
    if batches.schema() == *columns {
        return batches;
    }
    let schema = named(&batches.schema(), columns);
    let renamed = Arc::clone(&schema);
    let batches = batches.map(move |batch| {
        // Not by `with_schema`, which takes no other names.
        let (_, columns, rows) = batch?.into_parts();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&renamed), columns, &options)?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// `actual` under the names of `columns`. Names may differ, and what a plan promises of NULLs; types are the plan's.
fn named(actual: &SchemaRef, columns: &SchemaRef) -> SchemaRef {
    let fields = columns.fields().iter().zip(actual.fields());
    let fields = fields.map(|(named, actual)| actual.as_ref().clone().with_name(named.name()));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
