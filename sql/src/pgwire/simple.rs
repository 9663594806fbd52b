//! The simple protocol: a text with statements in, their answers out, one after the other.
//!
//! Also where statements are run, for both protocols.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use async_trait::async_trait;
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::sql::sqlparser::ast::Statement;
use futures::{Sink, SinkExt, StreamExt, stream};
use pgwire::api::portal::Format;
use pgwire::api::query::{
    SimpleQueryHandler, send_execution_response, send_query_response, send_ready_for_query,
};
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::ParameterStatus;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::statement::{Command, Prepared, prepare};
use super::stop::stoppable;
use super::{depth, explain, rows, sqlstate};

/// Batches that a query may compute before its client has taken the last one.
const BATCHES_AHEAD: usize = 2;

#[async_trait]
impl SimpleQueryHandler for Connection {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        self.guarded(self.answer_all(client, &query.query)).await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        send_ready_for_query(client, client.transaction_status()).await
    }

    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut responses = Vec::new();
        for statement in self.parse(query)? {
            let prepared = self.prepare_in(client.transaction_status(), statement).await?;
            responses.push(self.run(client, &prepared, None, &Format::UnifiedText).await?);
        }
        Ok(responses)
    }
}

impl Connection {
    /// The statements of `query`, rewritten to what DataFusion understands.
    pub(super) fn parse(&self, query: &str) -> PgWireResult<Vec<Statement>> {
        depth::check(query)?;
        self.shared
            .parser
            .parse(query)
            .map_err(|error| sqlstate::error("42601", sqlstate::parser_message(&error.to_string())))
    }

    /// Understands `statement`, unless the transaction has failed and this does not end it.
    pub(super) async fn prepare_in(
        &self,
        transaction: TransactionStatus,
        statement: Statement,
    ) -> PgWireResult<Prepared> {
        let ends = matches!(statement, Statement::Commit { .. } | Statement::Rollback { .. });
        if transaction == TransactionStatus::Error && !ends {
            return Err(sqlstate::error(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        let session = self.session().clone();
        self.where_queries_run(async move { Ok(prepare(&session, statement).await) }).await?
    }

    async fn answer_all<C>(&self, client: &mut C, query: &str) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self.parse(query)?;
        if statements.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        for statement in statements {
            let prepared = self.prepare_in(client.transaction_status(), statement).await?;
            match self.run(client, &prepared, None, &Format::UnifiedText).await? {
                Response::Query(rows) => send_query_response(client, rows, true).await?,
                other => finish_command(client, other).await?,
            }
        }
        Ok(())
    }

    /// Starts a statement. The rows of a query come as the response is read.
    pub(super) async fn run<C>(
        &self,
        client: &mut C,
        prepared: &Prepared,
        parameters: Option<ParamValues>,
        format: &Format,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match prepared {
            Prepared::Command(command) => self.obey(client, command, format).await,
            Prepared::Query { plan, columns } => {
                let fields = rows::fields(columns, format, client.metadata())?;
                Ok(select(rows::response(self.stream(plan, parameters).await?, fields)))
            }
            Prepared::Explain(plan) => {
                let batches =
                    datafusion::physical_plan::common::collect(self.stream(plan, parameters).await?);
                let lines = batches.await.and_then(|batches| explain::lines(&batches));
                let lines = lines.map_err(|error| sqlstate::from_datafusion(&error))?;
                let fields = rows::fields(&explain::schema(), format, client.metadata())?;
                let mut response = rows_of(lines, fields);
                response.set_command_tag("EXPLAIN");
                Ok(Response::Query(response))
            }
        }
    }

    /// Runs `plan`. Dropping the stream stops it.
    async fn stream(
        &self,
        plan: &Arc<LogicalPlan>,
        parameters: Option<ParamValues>,
    ) -> PgWireResult<SendableRecordBatchStream> {
        let (session, plan) = (self.session().clone(), Arc::clone(plan));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let started = self.where_queries_run(async move {
            let plan = match parameters {
                Some(parameters) => Arc::unwrap_or_clone(plan).replace_params_with_values(&parameters)?,
                None => Arc::unwrap_or_clone(plan),
            };
            let state = session.state();
            let plan = stoppable(state.create_physical_plan(&plan).await?, &stopped)?;
            datafusion::physical_plan::execute_stream(plan, state.task_ctx())
        });
        let stop = stop.drop_guard();
        let mut batches = started.await?;
        let mut receiver = RecordBatchReceiverStream::builder(batches.schema(), BATCHES_AHEAD);
        let sender = receiver.tx();
        let pump = async move {
            while let Some(batch) = batches.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        receiver.spawn_on(pump, &self.shared.queries);
        let batches = receiver.build();
        let schema = batches.schema();
        let batches = batches.map(move |batch| {
            let _until_dropped = &stop;
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    /// Does `work` on the runtime for queries. Dropping the future aborts it.
    async fn where_queries_run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DataFusionError>> + Send + 'static,
    ) -> PgWireResult<T> {
        let mut task = JoinSet::new();
        task.spawn_on(work, &self.shared.queries);
        match task.join_next().await {
            Some(Ok(done)) => done.map_err(|error| sqlstate::from_datafusion(&error)),
            Some(Err(error)) => Err(sqlstate::error("XX000", format!("the statement failed: {error}"))),
            None => Err(sqlstate::error("XX000", "the statement was not run")),
        }
    }

    async fn obey<C>(&self, client: &mut C, command: &Command, format: &Format) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let done = |tag: &str| Ok(Response::Execution(Tag::new(tag)));
        match command {
            Command::Set { name, value } => {
                let changed = {
                    let mut settings = self.settings.lock();
                    match value {
                        Some(value) => Vec::from_iter(settings.set(
                            name,
                            value,
                            self.session(),
                            client.metadata_mut(),
                        )?),
                        None => settings.reset(Some(name), self.session(), client.metadata_mut())?,
                    }
                };
                tell(client, changed).await?;
                done("SET")
            }
            Command::Reset { name } => {
                let changed =
                    self.settings.lock().reset(name.as_deref(), self.session(), client.metadata_mut())?;
                tell(client, changed).await?;
                done("RESET")
            }
            Command::Show { name } => self.show(client, name.as_deref(), format),
            Command::Begin { tag } => Ok(Response::TransactionStart(Tag::new(tag))),
            Command::Commit => Ok(Response::TransactionEnd(Tag::new(match client.transaction_status() {
                TransactionStatus::Error => "ROLLBACK",
                _ => "COMMIT",
            }))),
            Command::Rollback => Ok(Response::TransactionEnd(Tag::new("ROLLBACK"))),
            Command::Deallocate { name } => {
                self.deallocate(client, name.as_deref())?;
                done(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" })
            }
            Command::DiscardAll => {
                self.deallocate(client, None)?;
                let changed = self.settings.lock().reset(None, self.session(), client.metadata_mut())?;
                tell(client, changed).await?;
                done("DISCARD ALL")
            }
            Command::Nothing { tag } => done(tag),
        }
    }

    fn deallocate<C>(&self, client: &C, name: Option<&str>) -> PgWireResult<()>
    where
        C: ClientPortalStore,
        C::PortalStore: PortalStore,
    {
        let mut prepared = self.prepared.lock();
        match name {
            Some(name) if prepared.remove(name) => client.portal_store().rm_statement(name),
            Some(name) => {
                let message = format!("prepared statement {name:?} does not exist");
                return Err(sqlstate::error("26000", message));
            }
            None => std::mem::take(&mut *prepared).iter().for_each(|n| client.portal_store().rm_statement(n)),
        }
        Ok(())
    }

    fn show<C: ClientInfo>(&self, client: &C, name: Option<&str>, format: &Format) -> PgWireResult<Response> {
        let settings = self.settings.lock();
        let batch = match name {
            Some(name) => {
                let (name, value) = settings.show(name).ok_or_else(|| {
                    sqlstate::error("42704", format!("unrecognized configuration parameter {name:?}"))
                })?;
                text_batch(&[(name, vec![value])])
            }
            None => {
                let (names, values): (Vec<_>, Vec<_>) =
                    settings.all().map(|(name, value)| (name.to_owned(), value.to_owned())).unzip();
                let descriptions = vec![String::new(); names.len()];
                text_batch(&[("name", names), ("setting", values), ("description", descriptions)])
            }
        }?;
        let fields = rows::fields(batch.schema_ref(), format, client.metadata())?;
        let mut response = rows_of(batch, fields);
        response.set_command_tag("SHOW");
        Ok(Response::Query(response))
    }
}

fn select(mut response: QueryResponse) -> Response {
    response.set_command_tag("SELECT");
    Response::Query(response)
}

fn text_batch(columns: &[(&str, Vec<String>)]) -> PgWireResult<RecordBatch> {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let arrays = columns.iter().map(|(_, values)| Arc::new(StringArray::from(values.clone())) as _).collect();
    RecordBatch::try_new(super::statement::text_columns(&names), arrays)
        .map_err(|error| sqlstate::from_datafusion(&error.into()))
}

fn rows_of(batch: RecordBatch, fields: Arc<Vec<FieldInfo>>) -> QueryResponse {
    let schema = batch.schema();
    rows::response(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Ok(batch)]))), fields)
}

/// Reports settings that the client library wants to know of.
async fn tell<C>(client: &mut C, changed: Vec<(String, String)>) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    for (name, value) in changed {
        client.feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value))).await?;
    }
    Ok(())
}

/// Sends the end of a statement without rows, and notes what it does to the transaction.
pub(super) async fn finish_command<C>(client: &mut C, response: Response) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let transaction = client.transaction_status();
    let (tag, transaction) = match response {
        Response::Execution(tag) => (tag, transaction),
        Response::TransactionStart(tag) => (tag, transaction.to_in_transaction_state()),
        Response::TransactionEnd(tag) => (tag, transaction.to_idle_state()),
        _ => return Err(sqlstate::error("XX000", "a command gave what it cannot give")),
    };
    send_execution_response(client, tag).await?;
    client.set_transaction_status(transaction);
    Ok(())
}
