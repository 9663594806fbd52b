//! [`Service`]: what each command of Flight SQL does.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas,
    CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse,
    IpcMessage, SchemaAsIpc, Ticket,
};
use arrow_ipc::writer::IpcWriteOptions;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use promontory_sql::{Described, QueryError, SqlQueries};
use prost::Message;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::statement::{Seal, Statement, wire_batch, wire_schema};
use super::who::{Door, Who};
use super::{info, status, tables};

type DoGet = Response<<Service as FlightService>::DoGetStream>;

const READ_ONLY: &str = "Promontory is read only: updates are not supported";

/// The commands.
pub(super) struct Service {
    queries: Arc<SqlQueries>,
    door: Door,
    seal: Seal,
    /// Statements that may send rows at once.
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Service {
    pub(super) fn new(
        queries: Arc<SqlQueries>,
        door: Door,
        max_statements: usize,
        shutdown: CancellationToken,
    ) -> Self {
        Self { queries, door, seal: Seal::new(), places: Arc::new(Semaphore::new(max_statements)), shutdown }
    }

    /// What `statement` would answer with and needs, as it goes out.
    async fn describe(&self, statement: &Statement, who: Who) -> Result<Described, Status> {
        let parameters = statement.parameters()?;
        let described = self.queries.describe(&statement.text, &parameters, who.access, &who.name).await;
        let described = described.map_err(|error| status::of(&error))?;
        Ok(Described { schema: wire_schema(&described.schema), ..described })
    }

    /// Where the rows of `statement` are to be had.
    async fn info(
        &self,
        statement: &Statement,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = self.describe(statement, who(&request)?).await?.schema;
        let ticket = TicketStatementQuery { statement_handle: self.seal.handle(statement)? };
        located(&schema, &ticket, request)
    }

    /// The rows of `statement`.
    async fn rows(&self, statement: &Statement, who: Who) -> Result<DoGet, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("too many statements are running already (SQLSTATE 53300)")
        })?;
        let parameters = statement.parameters()?;
        let rows = self.queries.run(&statement.text, &parameters, who.access, &who.name).await;
        let batches = rows.map_err(|error| status::of(&error))?.batches;
        let schema = wire_schema(&batches.schema());
        let wire = Arc::clone(&schema);
        let batches = batches.map(move |batch| {
            let _until_sent = &place;
            let batch = batch.map_err(|error| status::of(&QueryError::from(&error)))?;
            wire_batch(&batch, &wire).map_err(|error| failed(&error))
        });
        Ok(Response::new(encoded(schema, self.until_shutdown(batches))))
    }

    /// `batches`, or an error when the server goes down: to end without would say that these were all.
    fn until_shutdown(
        &self,
        batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static,
    ) -> BoxStream<'static, Result<RecordBatch, Status>> {
        let state = Some((Box::pin(batches), self.shutdown.clone()));
        Box::pin(stream::unfold(state, |state| async move {
            let (mut batches, shutdown) = state?;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    Some((Err(Status::unavailable("the server is going down (SQLSTATE 57P01)")), None))
                }
                batch = batches.next() => batch.map(|batch| {
                    let more = batch.is_ok().then_some((batches, shutdown));
                    (batch, more)
                }),
            }
        }))
    }
}

/// Who asks. The guard has put it there.
fn who<T>(request: &Request<T>) -> Result<Who, Status> {
    let who = request.extensions().get::<Who>().cloned();
    who.ok_or_else(|| Status::internal("a call came past the guard"))
}

fn failed(error: &ArrowError) -> Status {
    Status::internal(format!("{error} (SQLSTATE XX000)"))
}

/// The schema of an answer, and the ticket that it is had for.
fn located(
    schema: &Schema,
    ticket: &impl ProstMessageExt,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()));
    let info = FlightInfo::new().try_with_schema(schema).map_err(|error| failed(&error))?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(request.into_inner())))
}

fn encoded(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static,
) -> Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>> {
    let batches = batches.map_err(|status| FlightError::Tonic(Box::new(status)));
    Box::pin(FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map_err(Status::from))
}

/// An answer that is one batch.
fn whole(batch: Result<RecordBatch, impl Into<Status>>) -> Result<DoGet, Status> {
    let batch = batch.map_err(Into::into)?;
    Ok(Response::new(encoded(batch.schema(), stream::iter([Ok(batch)]))))
}

fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, ArrowError> =
        SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    message.map(|IpcMessage(bytes)| bytes).map_err(|error| failed(&error))
}

/// A column per parameter.
fn parameter_schema(types: &[Option<DataType>]) -> Schema {
    let fields = types.iter().enumerate().map(|(i, data_type)| {
        let data_type = data_type.clone().unwrap_or(DataType::Null);
        Field::new(format!("${}", i + 1), data_type, true)
    });
    wire_schema(&Schema::new(fields.collect::<Vec<_>>())).as_ref().clone()
}

/// There are no transactions to be part of.
fn outside_transactions(transaction: &Option<Bytes>) -> Result<(), Status> {
    match transaction {
        Some(id) if !id.is_empty() => Err(status::unsupported("there are no transactions")),
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let header = self.door.greet(request.metadata()).await?;
        let payload = header.as_bytes().to_vec().into();
        let answer = stream::iter([Ok(HandshakeResponse { protocol_version: 0, payload })]);
        let mut response = Response::new(Box::pin(answer) as _);
        response.metadata_mut().insert("authorization", header);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        outside_transactions(&query.transaction_id)?;
        self.info(&Statement::new(query.query), request).await
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        self.rows(&self.seal.read(&ticket.statement_handle)?, who(&request)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        outside_transactions(&query.transaction_id)?;
        let statement = Statement::new(query.query);
        let described = self.describe(&statement, who(&request)?).await?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: self.seal.handle(&statement)?,
            dataset_schema: schema_bytes(&described.schema)?,
            parameter_schema: schema_bytes(&parameter_schema(&described.parameters))?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let statement = self.seal.read(&query.prepared_statement_handle)?;
        let bound = statement.bound(request.into_inner()).await?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(self.seal.handle(&bound)?) })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.info(&self.seal.read(&query.prepared_statement_handle)?, request).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        self.rows(&self.seal.read(&query.prepared_statement_handle)?, who(&request)?).await
    }

    async fn do_put_statement_update(
        &self,
        _update: CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(status::unsupported(READ_ONLY))
    }

    async fn do_put_prepared_statement_update(
        &self,
        _update: CommandPreparedStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(status::unsupported(READ_ONLY))
    }

    async fn do_put_statement_ingest(
        &self,
        _ingest: CommandStatementIngest,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(status::unsupported(READ_ONLY))
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&query.into_builder().schema(), &query, request)
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        let mut builder = query.into_builder();
        builder.append(promontory_sql::catalog::DATABASE);
        whole(builder.build())
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&query.clone().into_builder().schema(), &query, request)
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        let schemas = tables::schemas(&self.queries, who(&request)?).await?;
        let mut builder = query.into_builder();
        for schema in schemas {
            builder.append(promontory_sql::catalog::DATABASE, schema);
        }
        whole(builder.build())
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&query.clone().into_builder().schema(), &query, request)
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        let schema = query.clone().into_builder().schema();
        let batches = tables::tables(Arc::clone(&self.queries), query, who(&request)?).await?;
        Ok(Response::new(encoded(schema, self.until_shutdown(batches))))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&query.into_builder().schema(), &query, request)
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        let mut builder = query.into_builder();
        for name in tables::TYPES {
            builder.append(name);
        }
        whole(builder.build())
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&query.clone().into_builder(info::server()?).schema(), &query, request)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        whole(query.into_builder(info::server()?).build())
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&query.into_builder(info::types()?).schema(), &query, request)
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        _request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        whole(query.into_builder(info::types()?).build())
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&info::primary_keys(), &query, request)
    }

    async fn do_get_primary_keys(
        &self,
        _query: CommandGetPrimaryKeys,
        _request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        whole(Ok::<_, Status>(RecordBatch::new_empty(info::primary_keys())))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&info::foreign_keys(), &query, request)
    }

    async fn do_get_exported_keys(
        &self,
        _query: CommandGetExportedKeys,
        _request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        whole(Ok::<_, Status>(RecordBatch::new_empty(info::foreign_keys())))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&info::foreign_keys(), &query, request)
    }

    async fn do_get_imported_keys(
        &self,
        _query: CommandGetImportedKeys,
        _request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        whole(Ok::<_, Status>(RecordBatch::new_empty(info::foreign_keys())))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        located(&info::foreign_keys(), &query, request)
    }

    async fn do_get_cross_reference(
        &self,
        _query: CommandGetCrossReference,
        _request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        whole(Ok::<_, Status>(RecordBatch::new_empty(info::foreign_keys())))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
