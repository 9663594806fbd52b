//! Connections, as many as there may be, encrypted where that is asked for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// How long a client may take to agree on encryption.
const AGREEMENT: Duration = Duration::from_secs(10);
/// How long to wait before accepting again after the system had no socket to give.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection. Its place is free again when it is dropped.
pub(super) struct Socket {
    stream: Either,
    _place: OwnedSemaphorePermit,
}

enum Either {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// The connections that `listener` takes until `shutdown`. Those for which there is no place are closed.
pub(super) fn accepted(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Socket>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = accept(&listener, tls.map(TlsAcceptor::from), &places, &sender) => {}
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|socket| (Ok(socket), receiver))
    })
}

async fn accept(
    listener: &TcpListener,
    tls: Option<TlsAcceptor>,
    places: &Arc<Semaphore>,
    sender: &mpsc::Sender<Socket>,
) {
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a Flight SQL client");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            tracing::debug!("a Flight SQL client was sent away: too many are connected");
            continue;
        };
        // What is sent is whole messages; to wait for more would only delay them.
        let _ = socket.set_nodelay(true);
        let (tls, sender) = (tls.clone(), sender.clone());
        // Aside, so that one who takes long keeps nobody else from being accepted.
        tokio::spawn(async move {
            let stream = match tls {
                None => Either::Plain(socket),
                Some(tls) => match tokio::time::timeout(AGREEMENT, tls.accept(socket)).await {
                    Ok(Ok(stream)) => Either::Encrypted(Box::new(stream)),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a Flight SQL client did not agree on encryption");
                        return;
                    }
                    Err(_) => return,
                },
            };
            let _ = sender.send(Socket { stream, _place: place }).await;
        });
    }
}

impl Connected for Socket {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Either::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Either::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Either::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Either::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Either::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Either::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Either::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Either::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
