//! [`Connection`]: the state of one client, and which part of it handles which message.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::{Arc, LazyLock, OnceLock};

use async_trait::async_trait;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
use futures::Sink;
use parking_lot::Mutex;
use pgwire::api::auth::{
    ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::cancel::CancelHandler;
use pgwire::api::{
    ClientInfo, ErrorHandler, METADATA_DATABASE, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator,
    RandomPidSecretKeyGenerator,
};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::Authentication;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::auth::{self, Exchange};
use super::clients::{Client, Introduction};
use super::current_setting::CurrentSetting;
use super::cursor::Cursors;
use super::roles::OfSession;
use super::settings::Settings;
use super::statement::Prepared;
use super::{Shared, sqlstate};
use crate::NewQuery;
use crate::viewer::Viewer;

/// One client.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Mutex<Settings>>,
    /// Prepared statements by name, those of the protocol and those of PREPARE.
    pub(super) prepared: Mutex<HashMap<String, Prepared>>,
    /// What the prepared statements of the protocol say.
    pub(super) texts: Mutex<HashMap<String, Arc<str>>>,
    pub(super) cursors: Cursors,
    session: LazyLock<SessionContext, Box<dyn FnOnce() -> SessionContext + Send>>,
    login: Mutex<Login>,
    /// Whether there is a place for this client.
    admitted: bool,
    /// Set once it is logged in.
    client: OnceLock<Arc<Client>>,
    access: OnceLock<Access>,
    shutdown: CancellationToken,
}

impl Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("client", &self.client).finish_non_exhaustive()
    }
}

/// How far the client has come.
#[derive(Debug)]
enum Login {
    Strange,
    Asked { user: String },
    Proving(Exchange),
    Known,
    Failed,
}

impl Connection {
    /// A client that just came in; `admitted` says whether there is a place for it.
    pub(super) fn new(shared: Arc<Shared>, shutdown: CancellationToken, admitted: bool) -> Self {
        let catalog = Arc::clone(&shared.catalog);
        let settings = Arc::new(Mutex::new(Settings::new(shared.options.statement_timeout)));
        let seen = Arc::clone(&settings);
        let session = move || {
            let session = catalog.session();
            session.register_udf(ScalarUDF::from(CurrentSetting::new(seen)));
            session
        };
        Self {
            settings,
            prepared: Mutex::default(),
            texts: Mutex::default(),
            cursors: Cursors::default(),
            session: LazyLock::new(Box::new(session)),
            login: Mutex::new(Login::Strange),
            admitted,
            client: OnceLock::new(),
            access: OnceLock::new(),
            shutdown,
            shared,
        }
    }

    /// The client's own session.
    pub(super) fn session(&self) -> &SessionContext {
        &self.session
    }

    /// Whether a statement is running.
    pub(super) fn is_busy(&self) -> bool {
        self.client.get().is_some_and(|client| client.is_busy())
    }

    /// Whether it is logged in.
    pub(super) fn is_known(&self) -> bool {
        matches!(*self.login.lock(), Login::Known)
    }

    /// Who it is, once that is known.
    pub(super) fn client(&self) -> Option<&Client> {
        self.client.get().map(Arc::as_ref)
    }

    /// What its user may read; nothing is refused before a login, for nothing is run then.
    pub(super) fn access(&self) -> Access {
        self.access.get().cloned().unwrap_or_default()
    }

    /// Runs part of a statement, until it is done, cancelled, too late, or the server goes down.
    pub(super) async fn guarded<T>(&self, work: impl Future<Output = PgWireResult<T>>) -> PgWireResult<T> {
        // After an error that ends the connection, pgwire goes on reading what the client sent.
        let Some(client) = self.client.get().filter(|_| self.is_known()) else {
            return Err(sqlstate::fatal("28000", "not logged in"));
        };
        let cancelled = client.begin();
        let timeout = self.settings.lock().statement_timeout();
        let too_late = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                Err(sqlstate::fatal("57P01", "terminating connection due to administrator command"))
            }
            () = cancelled.cancelled() => {
                Err(sqlstate::error("57014", "canceling statement due to user request"))
            }
            () = too_late => Err(sqlstate::error("57014", sqlstate::TIMED_OUT)),
            done = work => done,
        };
        client.end();
        done
    }

    /// Does `work`, which `query` asks for, and notes that and how it ends.
    pub(super) async fn logged<T>(
        &self,
        query: &str,
        work: impl Future<Output = PgWireResult<T>>,
    ) -> PgWireResult<T> {
        let (user, pid) = self.client().map(Client::who).unzip();
        let (user, query) = (user.unwrap_or_default(), NewQuery { language: "sql", query, user: "", pid });
        let running = self.shared.catalog.query_log().begin(&NewQuery { user: &user, ..query });
        match work.await {
            Ok(done) => {
                running.done();
                Ok(done)
            }
            Err(error) => {
                running.failed(error.to_string());
                Err(error)
            }
        }
    }

    async fn greet<C>(&self, client: &mut C) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        static PIDS: LazyLock<RandomPidSecretKeyGenerator> =
            LazyLock::new(RandomPidSecretKeyGenerator::default);
        let (pid, secret) = PIDS.generate(client);
        client.set_pid_and_secret_key(pid, secret.clone());
        let said = |key| client.metadata().get(key).cloned().unwrap_or_default();
        let (user, address) = (said(METADATA_USER), client.socket_addr());
        let access = self.shared.options.access_of(&user);
        let viewer = Arc::new(Viewer::new(&user, &access));
        self.session().state_ref().write().config_mut().set_extension(viewer);
        let _ = self.access.set(access);
        let database = said(METADATA_DATABASE);
        self.session().register_udf(OfSession::user(&user));
        self.session().register_udf(OfSession::pid(pid));
        let known = self.shared.clients.add(Introduction { pid, secret, user, database, address });
        let _ = self.client.set(known);
        *self.login.lock() = Login::Known;
        let parameters = self.settings.lock().adopt(client.metadata_mut(), self.session())?;
        self.tell_name();
        finish_authentication(client, &Parameters(parameters)).await
    }

    /// Lets others see what the client calls itself.
    pub(super) fn tell_name(&self) {
        if let (Some(client), Some((_, name))) =
            (self.client(), self.settings.lock().show("application_name"))
        {
            client.set_application_name(&name);
        }
    }

    /// What to do about one message of the login. `binding` identifies the channel, if it is encrypted.
    fn login_step(
        &self,
        user: Option<&String>,
        message: PgWireFrontendMessage,
        binding: Option<&[u8]>,
    ) -> PgWireResult<Step> {
        let mut login = self.login.lock();
        match (std::mem::replace(&mut *login, Login::Failed), message) {
            (Login::Strange, PgWireFrontendMessage::Startup(_)) => {
                if self.shared.options.users.is_empty() {
                    return Ok(Step::Welcome(None));
                }
                let user = user.cloned().ok_or(PgWireError::UserNameRequired)?;
                *login = Login::Asked { user };
                Ok(Step::Say(Authentication::SASL(auth::mechanisms(binding))))
            }
            (Login::Asked { user }, PgWireFrontendMessage::PasswordMessageFamily(message)) => {
                let verifier = self.shared.options.users.iter().find(|u| u.name == user);
                let (exchange, challenge) = Exchange::begin(
                    &user,
                    verifier.map(|u| &u.verifier),
                    &self.shared.mock_key,
                    &auth::initial_response(message)?,
                    binding,
                )?;
                *login = Login::Proving(exchange);
                Ok(Step::Say(Authentication::SASLContinue(challenge.into())))
            }
            (Login::Proving(exchange), PgWireFrontendMessage::PasswordMessageFamily(message)) => {
                let proof = exchange.finish(&auth::response(message)?)?;
                Ok(Step::Welcome(Some(Authentication::SASLFinal(proof.into()))))
            }
            _ => Err(sqlstate::fatal("08P01", "unexpected message during login")),
        }
    }
}

enum Step {
    Say(Authentication),
    Welcome(Option<Authentication>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(client) = self.client.get() {
            self.shared.clients.remove(client);
        }
    }
}

#[async_trait]
impl StartupHandler for Connection {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        use futures::SinkExt;
        if let PgWireFrontendMessage::Startup(startup) = &message {
            protocol_negotiation(client, startup).await?;
            save_startup_parameters_to_metadata(client, startup);
            if !self.admitted {
                return Err(sqlstate::fatal("53300", "sorry, too many clients already"));
            }
            if self.shared.options.tls.as_ref().is_some_and(|tls| tls.required) && !client.is_secure() {
                return Err(sqlstate::fatal("28000", "this server takes encrypted connections only"));
            }
        }
        let binding = self.shared.options.tls.as_ref().filter(|_| client.is_secure());
        let binding = binding.and_then(|tls| tls.end_point.as_deref());
        let user = client.metadata().get(METADATA_USER).cloned();
        match self.login_step(user.as_ref(), message, binding)? {
            Step::Say(authentication) => {
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                client.send(PgWireBackendMessage::Authentication(authentication)).await?;
                Ok(())
            }
            Step::Welcome(last_word) => {
                if let Some(authentication) = last_word {
                    client.feed(PgWireBackendMessage::Authentication(authentication)).await?;
                }
                self.greet(client).await
            }
        }
    }
}

/// What the server tells of itself at the start.
#[derive(Debug)]
struct Parameters(HashMap<String, String>);

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, _client: &C) -> Option<HashMap<String, String>> {
        Some(self.0.clone())
    }
}

#[async_trait]
impl CancelHandler for Connection {
    async fn on_cancel_request(&self, request: CancelRequest) {
        self.shared.clients.cancel(&request);
    }
}

impl ErrorHandler for Connection {
    fn on_error<C: ClientInfo>(&self, client: &C, error: &mut PgWireError) {
        tracing::debug!(client = %client.socket_addr(), %error, "error to a Postgres client");
    }
}
