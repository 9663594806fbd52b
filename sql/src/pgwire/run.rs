//! Where statements are run, for both protocols.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Expr, Statement};
use futures::{Sink, SinkExt, StreamExt, stream};
use pgwire::api::portal::Format;
use pgwire::api::query::send_execution_response;
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use pgwire::messages::response::TransactionStatus;
use pgwire::messages::startup::ParameterStatus;

use super::access::Access;
use super::connection::Connection;
use super::copy::Lines;
use super::cursor::{Cursor, rows_of_fetch};
use super::parameters::fitting;
use super::statement::{Command, Prepared, folded, prepare, text_columns};
use super::{explain, rows, sqlstate};
use crate::{Notices, Severity, execute};

/// What a statement gives.
pub(super) enum Answer {
    Rows(QueryResponse),
    Copy(Outgoing),
    /// No rows.
    Done(Response),
}

/// # Errors
/// 25P02 if `transaction` has failed, unless the statement `ends` it.
pub(super) fn refuse_after_failure(transaction: TransactionStatus, ends: bool) -> PgWireResult<()> {
    if transaction != TransactionStatus::Error || ends {
        return Ok(());
    }
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    Err(sqlstate::error("25P02", message))
}

/// A COPY under way.
pub(super) struct Outgoing {
    lines: Lines,
    binary: bool,
    rows: QueryResponse,
}

impl Connection {
    /// The statements of `query`, rewritten to what DataFusion understands.
    pub(super) fn parse(&self, query: &str) -> PgWireResult<Vec<Statement>> {
        super::parse(&self.shared.parser, query)
    }

    /// Understands `statement`, unless the transaction has failed and this does not end it.
    pub(super) async fn prepare_in(
        &self,
        transaction: TransactionStatus,
        statement: Statement,
    ) -> PgWireResult<Prepared> {
        let ends = matches!(statement, Statement::Commit { .. } | Statement::Rollback { .. });
        refuse_after_failure(transaction, ends)?;
        let (session, access) = (self.session().clone(), self.access());
        match statement {
            Statement::Execute { name: Some(name), parameters, .. } => {
                let prepared = self.prepared_by_name(&folded(&name))?;
                let arguments = self.evaluate(&parameters).await?;
                let name = format!("prepared statement {:?}", folded(&name));
                let values = fitting(&prepared, arguments, &name)?;
                prepared.with_parameters((!values.is_empty()).then(|| ParamValues::from(values)))
            }
            Statement::Fetch { name, direction, into: None, .. } => {
                let columns = Arc::clone(&self.cursors.get(&name.value)?.columns);
                Ok(Prepared::Fetch { name: name.value, columns, rows: rows_of_fetch(&direction)? })
            }
            Statement::Prepare { name, statement, .. } => {
                let prepared = self.understand(session, access, *statement).await?;
                Ok(Prepared::Prepare { name: name.value, prepared: Box::new(prepared) })
            }
            statement => self.understand(session, access, statement).await,
        }
    }

    async fn understand(
        &self,
        session: SessionContext,
        access: Access,
        statement: Statement,
    ) -> PgWireResult<Prepared> {
        execute::on(&self.shared.queries, async move { Ok(prepare(&session, &access, statement).await) })
            .await?
    }

    fn prepared_by_name(&self, name: &str) -> PgWireResult<Prepared> {
        self.prepared
            .lock()
            .get(name)
            .cloned()
            .ok_or_else(|| sqlstate::error("26000", format!("prepared statement {name:?} does not exist")))
    }

    /// The values of constant expressions.
    async fn evaluate(&self, expressions: &[Expr]) -> PgWireResult<Vec<ScalarValue>> {
        if expressions.is_empty() {
            return Ok(Vec::new());
        }
        // Names that differ, for the planner wants that.
        let items = expressions.iter().enumerate().map(|(i, e)| format!("{e} AS \"{i}\""));
        let text = format!("SELECT {}", items.collect::<Vec<_>>().join(", "));
        let statement = self.parse(&text)?.pop();
        let statement = statement.ok_or_else(|| sqlstate::error("42601", "nothing to evaluate"))?;
        let prepared = self.understand(self.session().clone(), self.access(), statement).await?;
        let Some(plan) = prepared.plan() else { return Ok(Vec::new()) };
        let batches = datafusion::physical_plan::common::collect(self.stream(plan, None).await?).await;
        let values = batches.and_then(|batches| {
            let row = batches.iter().find(|batch| batch.num_rows() == 1);
            row.iter().flat_map(|row| row.columns()).map(|c| ScalarValue::try_from_array(c, 0)).collect()
        });
        values.map_err(|error| sqlstate::from_datafusion(&error))
    }

    /// Starts a statement. The rows of a query come as the response is read.
    pub(super) async fn run<C>(
        &self,
        client: &mut C,
        prepared: &Prepared,
        parameters: Option<ParamValues>,
        format: &Format,
    ) -> PgWireResult<Answer>
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
                Ok(tagged(rows::response(self.stream(plan, parameters).await?, fields), "SELECT"))
            }
            Prepared::Copy(copy) => {
                let lines = Lines::over(&copy.columns, &copy.style)?;
                let fields = rows::fields(&copy.columns, &copy.style.format(), client.metadata())?;
                let rows = rows::response(self.stream(&copy.plan, parameters).await?, fields);
                Ok(Answer::Copy(Outgoing { lines, binary: copy.style.is_binary(), rows }))
            }
            Prepared::Declare { name, hold, plan, columns } => {
                if !hold && client.transaction_status() == TransactionStatus::Idle {
                    let message = "DECLARE CURSOR can only be used in transaction blocks";
                    return Err(sqlstate::error("25P01", message));
                }
                let rows = self.stream(plan, parameters).await?;
                self.cursors.open(name, Cursor::new(Arc::clone(columns), *hold, rows))?;
                Ok(done("DECLARE CURSOR"))
            }
            Prepared::Fetch { name, columns, rows } => {
                let cursor = self.cursors.get(name)?;
                if cursor.columns != *columns {
                    return Err(sqlstate::error("0A000", "cached plan must not change result type"));
                }
                let fields = rows::fields(&cursor.columns, format, client.metadata())?;
                Ok(tagged(rows::response(cursor.fetch(*rows).await, fields), "FETCH"))
            }
            Prepared::Prepare { name, prepared } => {
                let mut all = self.prepared.lock();
                if all.contains_key(name) {
                    let message = format!("prepared statement {name:?} already exists");
                    return Err(sqlstate::error("42P05", message));
                }
                all.insert(name.clone(), prepared.as_ref().clone());
                Ok(done("PREPARE"))
            }
            Prepared::Explain(plan) => {
                let batches =
                    datafusion::physical_plan::common::collect(self.stream(plan, parameters).await?);
                let lines = batches.await.and_then(|batches| explain::lines(&batches));
                let lines = lines.map_err(|error| sqlstate::from_datafusion(&error))?;
                let fields = rows::fields(&explain::schema(), format, client.metadata())?;
                Ok(tagged(rows_of(lines, fields), "EXPLAIN"))
            }
        }
    }

    /// Runs `plan`. Dropping the stream stops it.
    async fn stream(
        &self,
        plan: &Arc<LogicalPlan>,
        parameters: Option<ParamValues>,
    ) -> PgWireResult<SendableRecordBatchStream> {
        execute::start(self.session(), plan, parameters, &self.shared.queries).await
    }

    async fn obey<C>(&self, client: &mut C, command: &Command, format: &Format) -> PgWireResult<Answer>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match command {
            Command::Set { name, value, scope } => {
                let changed = {
                    let mut settings = self.settings.lock();
                    match value {
                        Some(value) => Vec::from_iter(settings.set(
                            name,
                            value,
                            *scope,
                            self.session(),
                            client.metadata_mut(),
                        )?),
                        None => settings.reset(Some(name), self.session(), client.metadata_mut())?,
                    }
                };
                self.tell_name();
                tell(client, changed).await?;
                Ok(done("SET"))
            }
            Command::SetConfig { name, value, scope } => {
                // An empty path, which finds nothing, is what dump tools ask for; here one schema is always found.
                let (session, metadata) = (self.session(), client.metadata_mut());
                let changed = self.settings.lock().set(name, value, *scope, session, metadata)?;
                self.tell_name();
                tell(client, Vec::from_iter(changed)).await?;
                let schema = command.schema().unwrap_or_else(|| text_columns(&["set_config"]));
                let fields = rows::fields(&schema, format, client.metadata())?;
                let row =
                    RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(vec![value.as_str()]))]);
                let row = row.map_err(|error| sqlstate::error("XX000", error.to_string()))?;
                Ok(tagged(rows_of(row, fields), "SELECT"))
            }
            Command::Reset { name } => {
                let changed =
                    self.settings.lock().reset(name.as_deref(), self.session(), client.metadata_mut())?;
                self.tell_name();
                tell(client, changed).await?;
                Ok(done("RESET"))
            }
            Command::Show { name } => self.show(client, name.as_deref(), format),
            Command::Begin { tag } => {
                self.settings.lock().begin();
                Ok(Answer::Done(Response::TransactionStart(Tag::new(tag))))
            }
            Command::Commit | Command::Rollback => {
                let failed = client.transaction_status() == TransactionStatus::Error;
                let commit = *command == Command::Commit && !failed;
                let changed = self.settings.lock().end(commit, self.session(), client.metadata_mut())?;
                self.tell_name();
                tell(client, changed).await?;
                let tag = if commit { "COMMIT" } else { "ROLLBACK" };
                Ok(Answer::Done(Response::TransactionEnd(Tag::new(tag))))
            }
            Command::RollbackTo => {
                if client.transaction_status() == TransactionStatus::Error {
                    client.set_transaction_status(TransactionStatus::Transaction);
                }
                Ok(done("ROLLBACK"))
            }
            Command::Close { name } => {
                self.cursors.close(name.as_deref())?;
                Ok(done(if name.is_some() { "CLOSE CURSOR" } else { "CLOSE CURSOR ALL" }))
            }
            Command::Deallocate { name } => {
                self.deallocate(client, name.as_deref())?;
                Ok(done(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" }))
            }
            Command::DiscardAll => {
                self.deallocate(client, None)?;
                self.cursors.close(None)?;
                let changed = self.settings.lock().reset(None, self.session(), client.metadata_mut())?;
                tell(client, changed).await?;
                Ok(done("DISCARD ALL"))
            }
            Command::CreateView(view) => {
                let (catalog, access, view) = (Arc::clone(&self.shared.catalog), self.access(), view.clone());
                let create = async move {
                    let is_metric = catalog.is_metric(&view.name);
                    Ok(catalog.views().create(view, &access, is_metric).await)
                };
                execute::on(&self.shared.queries, create).await??;
                Ok(done("CREATE VIEW"))
            }
            Command::CreateTable(table) => {
                let (catalog, table) = (Arc::clone(&self.shared.catalog), table.clone());
                let create = async move { Ok(catalog.external().create(table).await) };
                execute::on(&self.shared.queries, create).await??;
                Ok(done("CREATE TABLE"))
            }
            Command::DropTables { names, if_exists } => {
                let (catalog, names, if_exists) =
                    (Arc::clone(&self.shared.catalog), names.clone(), *if_exists);
                let drop = async move { Ok(catalog.external().drop(&names, if_exists)) };
                execute::on(&self.shared.queries, drop).await??;
                Ok(done("DROP TABLE"))
            }
            Command::DropViews { names, if_exists } => {
                let (catalog, names, if_exists) =
                    (Arc::clone(&self.shared.catalog), names.clone(), *if_exists);
                let drop = async move { Ok(catalog.views().drop(&names, if_exists)) };
                execute::on(&self.shared.queries, drop).await??;
                Ok(done("DROP VIEW"))
            }
            Command::Nothing { tag } => Ok(done(tag)),
        }
    }

    fn deallocate<C>(&self, client: &C, name: Option<&str>) -> PgWireResult<()>
    where
        C: ClientPortalStore,
        C::PortalStore: PortalStore,
    {
        let mut prepared = self.prepared.lock();
        match name {
            Some(name) => drop(self.texts.lock().remove(name)),
            None => self.texts.lock().clear(),
        }
        match name {
            Some(name) if prepared.remove(name).is_some() => client.portal_store().rm_statement(name),
            Some(name) => {
                let message = format!("prepared statement {name:?} does not exist");
                return Err(sqlstate::error("26000", message));
            }
            None => std::mem::take(&mut *prepared).keys().for_each(|n| client.portal_store().rm_statement(n)),
        }
        Ok(())
    }

    fn show<C: ClientInfo>(&self, client: &C, name: Option<&str>, format: &Format) -> PgWireResult<Answer> {
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
                    settings.all().map(|(name, value)| (name.to_owned(), value)).unzip();
                let descriptions = vec![String::new(); names.len()];
                text_batch(&[("name", names), ("setting", values), ("description", descriptions)])
            }
        }?;
        let fields = rows::fields(batch.schema_ref(), format, client.metadata())?;
        Ok(tagged(rows_of(batch, fields), "SHOW"))
    }
}

fn tagged(mut rows: QueryResponse, tag: &str) -> Answer {
    rows.set_command_tag(tag);
    Answer::Rows(rows)
}

fn done(tag: &str) -> Answer {
    Answer::Done(Response::Execution(Tag::new(tag)))
}

fn text_batch(columns: &[(&str, Vec<String>)]) -> PgWireResult<RecordBatch> {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let arrays = columns.iter().map(|(_, values)| Arc::new(StringArray::from(values.clone())) as _).collect();
    RecordBatch::try_new(text_columns(&names), arrays)
        .map_err(|error| sqlstate::from_datafusion(&error.into()))
}

fn rows_of(batch: RecordBatch, fields: Arc<Vec<FieldInfo>>) -> QueryResponse {
    let schema = batch.schema();
    rows::response(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Ok(batch)]))), fields)
}

/// Tells the client what its statement had to say.
pub(super) async fn send_notices<C>(connection: &Connection, client: &mut C) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let notices = connection.session().copied_config().get_extension::<Notices>();
    for (severity, text) in notices.iter().flat_map(|notices| notices.take()) {
        let (severity, code) = match severity {
            Severity::Warning => ("WARNING", "01000"),
            Severity::Notice => ("NOTICE", "00000"),
        };
        let info = ErrorInfo::new(severity.to_owned(), code.to_owned(), text);
        client.feed(PgWireBackendMessage::NoticeResponse(info.into())).await?;
    }
    Ok(())
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
pub(super) async fn finish_command<C>(
    connection: &Connection,
    client: &mut C,
    response: Response,
) -> PgWireResult<()>
where
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin,
    C::PortalStore: PortalStore,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let transaction = client.transaction_status();
    let (tag, transaction) = match response {
        Response::Execution(tag) => (tag, transaction),
        Response::TransactionStart(tag) => (tag, transaction.to_in_transaction_state()),
        Response::TransactionEnd(tag) => {
            connection.cursors.end_transaction();
            client.portal_store().clear_portals();
            (tag, transaction.to_idle_state())
        }
        _ => return Err(sqlstate::error("XX000", "a command gave what it cannot give")),
    };
    send_execution_response(client, tag).await?;
    client.set_transaction_status(transaction);
    if let Some(known) = connection.client() {
        known.set_in_transaction(transaction != TransactionStatus::Idle);
    }
    Ok(())
}

/// Sends the rows of a COPY as they come. An error among them ends it as any other statement.
pub(super) async fn send_copy<C>(client: &mut C, copy: Outgoing) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let Outgoing { mut lines, binary, mut rows } = copy;
    let columns = i16::try_from(rows.row_schema.len())
        .map_err(|_| sqlstate::error("54011", "too many columns for COPY"))?;
    let formats = vec![i16::from(binary); rows.row_schema.len()];
    let start = CopyOutResponse::new(i8::from(binary), columns, formats);
    client.feed(PgWireBackendMessage::CopyOutResponse(start)).await?;
    if let Some(first) = lines.first() {
        client.feed(PgWireBackendMessage::CopyData(CopyData::new(first))).await?;
    }
    let mut count = 0;
    while let Some(row) = rows.data_rows.next().await {
        let line = lines.row(&row?)?;
        client.feed(PgWireBackendMessage::CopyData(CopyData::new(line))).await?;
        count += 1;
    }
    if let Some(last) = lines.last() {
        client.feed(PgWireBackendMessage::CopyData(CopyData::new(last))).await?;
    }
    client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    send_execution_response(client, Tag::new("COPY").with_rows(count)).await
}
