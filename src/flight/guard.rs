//! [`Guard`]: every call passes here, and goes no further unless it is known whose it is.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    PollInfo, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream};
use tonic::{Request, Response, Status, Streaming};

use super::service::Service;
use super::who::Door;

type Reply<T> = Result<Response<T>, Status>;

/// A service whose calls carry, as an extension, [`who`](super::who::Who) makes them.
#[derive(Debug)]
pub(super) struct Guard {
    service: Service,
    door: Door,
}

impl Guard {
    pub(super) fn new(service: Service, door: Door) -> Self {
        Self { service, door }
    }

    fn known<T>(&self, mut request: Request<T>) -> Result<Request<T>, Status> {
        let who = self.door.who(request.metadata())?;
        request.extensions_mut().insert(who);
        Ok(request)
    }
}

#[tonic::async_trait]
impl FlightService for Guard {
    type HandshakeStream = <Service as FlightService>::HandshakeStream;
    type ListFlightsStream = <Service as FlightService>::ListFlightsStream;
    type DoGetStream = <Service as FlightService>::DoGetStream;
    type DoPutStream = <Service as FlightService>::DoPutStream;
    type DoActionStream = <Service as FlightService>::DoActionStream;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = <Service as FlightService>::DoExchangeStream;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Reply<Self::HandshakeStream> {
        self.service.handshake(request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Reply<Self::ListFlightsStream> {
        self.service.list_flights(self.known(request)?).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<FlightInfo> {
        self.service.get_flight_info(self.known(request)?).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<PollInfo> {
        self.service.poll_flight_info(self.known(request)?).await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Reply<SchemaResult> {
        let info = self.service.get_flight_info(self.known(request)?).await?.into_inner();
        Ok(Response::new(SchemaResult { schema: info.schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Reply<Self::DoGetStream> {
        self.service.do_get(self.known(request)?).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoPutStream> {
        self.service.do_put(self.known(request)?).await
    }

    async fn do_action(&self, request: Request<Action>) -> Reply<Self::DoActionStream> {
        self.service.do_action(self.known(request)?).await
    }

    /// Those that are served; the crate would name all that there are.
    async fn list_actions(&self, request: Request<Empty>) -> Reply<Self::ListActionsStream> {
        self.known(request)?;
        let actions = [
            ("CreatePreparedStatement", "Checks a statement, and gives a handle to run it with parameters."),
            ("ClosePreparedStatement", "Does nothing: handles take up no room here."),
        ];
        let actions = actions.map(|(name, description)| {
            Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
        });
        Ok(Response::new(Box::pin(stream::iter(actions))))
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoExchangeStream> {
        self.service.do_exchange(self.known(request)?).await
    }
}
