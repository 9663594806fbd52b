//! The extended protocol: parse, bind, describe, execute, with rows streamed and portals that pause.
//!
//! Execute is ours and not pgwire's, which gathers all rows of a portal before it sends the first.

use std::fmt::Debug;
use std::sync::Arc;

use arrow_pg::datatypes::into_pg_type;
use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{
    ExtendedQueryHandler, send_describe_response, send_execution_response, send_partial_query_response,
};
use pgwire::api::results::{DescribePortalResponse, DescribeStatementResponse, FieldInfo, Response, Tag};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::extendedquery::{
    Close, CloseComplete, Describe, Execute, Parse, ParseComplete, Sync as PgSync, TARGET_TYPE_BYTE_PORTAL,
};
use pgwire::messages::response::{EmptyQueryResponse, ReadyForQuery, TransactionStatus};

use super::connection::Connection;
use super::parameters::{bound, parameter_types};
use super::run::{Answer, finish_command, refuse_after_failure, send_copy, send_notices};
use super::statement::{Command, Prepared};
use super::{rows, sqlstate};

#[async_trait]
impl ExtendedQueryHandler for Connection {
    type Statement = Prepared;
    type QueryParser = NoParser;

    fn query_parser(&self) -> Arc<NoParser> {
        Arc::new(NoParser)
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let transaction = client.transaction_status();
        if let Some(known) = self.client() {
            known.says(&message.query);
        }
        let prepared = self.guarded(async {
            let mut statements = self.parse(&message.query)?;
            match (statements.pop(), statements.is_empty()) {
                (None, _) => Ok(None),
                (Some(statement), true) => self.prepare_in(transaction, statement).await.map(Some),
                (Some(_), false) => {
                    Err(sqlstate::error("42601", "cannot insert multiple commands into a prepared statement"))
                }
            }
        });
        match prepared.await? {
            Some(prepared) => {
                let types = message.type_oids.iter().map(|oid| Type::from_oid(*oid)).collect();
                self.prepared.lock().insert(name.clone(), prepared.clone());
                self.texts.lock().insert(name.clone(), message.query.as_str().into());
                let statement = StoredStatement::new(name, prepared, types);
                client.portal_store().put_statement(Arc::new(statement));
            }
            None => client.portal_store().put_empty_statement(&name),
        }
        client.send(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let limit = usize::try_from(message.max_rows).unwrap_or(0);
        match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => {
                let ends = matches!(
                    portal.statement.statement,
                    Prepared::Command(Command::Commit | Command::Rollback | Command::RollbackTo)
                );
                refuse_after_failure(client.transaction_status(), ends)?;
                let fresh = matches!(*portal.state().lock().await, PortalExecutionState::Initial);
                let text = self.texts.lock().get(&portal.statement.id).cloned().filter(|_| fresh);
                let run = self.guarded(self.go_on(client, &portal, limit));
                match text {
                    Some(text) => {
                        if let Some(known) = self.client() {
                            known.says(&text);
                        }
                        self.logged(&text, run).await?;
                    }
                    None => run.await?,
                }
            }
            Some(Entry::Empty) => {
                client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
            }
            None => {
                let message = format!("portal {name:?} does not exist");
                return Err(sqlstate::error("34000", message));
            }
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    /// Portals end with their transaction, which without BEGIN ends here.
    async fn on_sync<C>(&self, client: &mut C, _message: PgSync) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if client.transaction_status() == TransactionStatus::Idle {
            client.portal_store().clear_portals();
        }
        let ready = ReadyForQuery::new(client.transaction_status());
        client.send(PgWireBackendMessage::ReadyForQuery(ready)).await?;
        Ok(())
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if message.target_type == TARGET_TYPE_BYTE_PORTAL {
            client.portal_store().rm_portal(name);
        } else {
            client.portal_store().rm_statement(name);
            self.prepared.lock().remove(name);
            self.texts.lock().remove(name);
        }
        client.send(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // In Postgres a cursor is a portal of its name.
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if message.target_type == TARGET_TYPE_BYTE_PORTAL
            && let Ok(cursor) = self.cursors.get(name)
        {
            let fields = rows::fields(&cursor.columns, &Format::UnifiedText, client.metadata())?;
            let response = DescribePortalResponse::new(fields.as_ref().clone());
            return send_describe_response(client, &response).await;
        }
        self._on_describe(client, message).await
    }

    async fn do_describe_statement<C>(
        &self,
        client: &mut C,
        target: &StoredStatement<Prepared>,
    ) -> PgWireResult<DescribeStatementResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let inferred = parameter_types(&target.statement)?;
        let count = inferred.len().max(target.parameter_types.len());
        let mut types = Vec::with_capacity(count);
        for i in 0..count {
            let said = target.parameter_types.get(i).cloned().flatten();
            let inferred = inferred.get(i).and_then(Option::as_ref).map(into_pg_type).transpose()?;
            types.push(said.or(inferred).unwrap_or(Type::TEXT));
        }
        let fields = self.describe(client, &target.statement, &Format::UnifiedText)?;
        Ok(DescribeStatementResponse::new(types, fields))
    }

    async fn do_describe_portal<C>(
        &self,
        client: &mut C,
        target: &Portal<Prepared>,
    ) -> PgWireResult<DescribePortalResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let fields = self.describe(client, &target.statement.statement, &target.result_column_format)?;
        Ok(DescribePortalResponse::new(fields))
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match self.start(client, portal).await? {
            Answer::Rows(rows) => Ok(Response::Query(rows)),
            Answer::Done(response) => Ok(response),
            Answer::Copy(_) => Err(sqlstate::error("XX000", "a COPY is sent as it comes")),
        }
    }
}

impl Connection {
    async fn start<C>(&self, client: &mut C, portal: &Portal<Prepared>) -> PgWireResult<Answer>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        self.run(client, prepared, bound(portal)?, &portal.result_column_format).await
    }

    /// Starts `portal`, or goes on with it, and sends up to `limit` rows; 0 sends all.
    async fn go_on<C>(&self, client: &mut C, portal: &Portal<Prepared>, limit: usize) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let state = portal.state();
        let mut state = state.lock().await;
        // Taken out, so that rows end with this future, whatever ends it, and not with the portal.
        let mut rows = match std::mem::replace(&mut *state, PortalExecutionState::Finished) {
            PortalExecutionState::Initial => match self.start(client, portal).await? {
                Answer::Rows(rows) => rows,
                Answer::Copy(copy) => return send_copy(client, copy).await,
                Answer::Done(response) => return finish_command(self, client, response).await,
            },
            PortalExecutionState::Suspended(rows) => rows,
            PortalExecutionState::Finished => {
                let tag = no_more_rows(&portal.statement.statement).ok_or_else(|| {
                    sqlstate::error("55000", format!("portal {:?} cannot be run", portal.name))
                })?;
                return send_execution_response(client, tag).await;
            }
        };
        if send_partial_query_response(client, &mut rows, limit).await? {
            *state = PortalExecutionState::Suspended(rows);
        }
        send_notices(self, client).await
    }

    fn describe<C: ClientInfo>(
        &self,
        client: &C,
        prepared: &Prepared,
        format: &Format,
    ) -> PgWireResult<Vec<FieldInfo>> {
        let Some(schema) = prepared.schema() else { return Ok(Vec::new()) };
        Ok(rows::fields(&schema, format, client.metadata())?.as_ref().clone())
    }
}

/// How a statement answers that is run again after its last row; `None` if it has no rows.
fn no_more_rows(prepared: &Prepared) -> Option<Tag> {
    let tag = match prepared {
        Prepared::Query { .. } => "SELECT",
        Prepared::Fetch { .. } => "FETCH",
        Prepared::Explain(_) => return Some(Tag::new("EXPLAIN")),
        Prepared::Command(Command::Show { .. }) => return Some(Tag::new("SHOW")),
        Prepared::Command(Command::SetConfig { .. }) => "SELECT",
        Prepared::Copy(_) | Prepared::Declare { .. } | Prepared::Prepare { .. } | Prepared::Command(_) => {
            return None;
        }
    };
    Some(Tag::new(tag).with_rows(0))
}

/// Stands where pgwire wants a parser. [`Connection`] parses by itself, for it needs the session.
#[derive(Debug)]
pub(super) struct NoParser;

impl NoParser {
    fn refuse<T>() -> PgWireResult<T> {
        Err(sqlstate::error("XX000", "statements are parsed by their connection"))
    }
}

#[async_trait]
impl QueryParser for NoParser {
    type Statement = Prepared;

    async fn parse_sql<C>(
        &self,
        _client: &C,
        _sql: &str,
        _types: &[Option<Type>],
    ) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        Self::refuse()
    }

    fn get_parameter_types(&self, _statement: &Prepared) -> PgWireResult<Vec<Type>> {
        Self::refuse()
    }

    fn get_result_schema(
        &self,
        _statement: &Prepared,
        _format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        Self::refuse()
    }
}
