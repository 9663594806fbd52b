//! Messages of one client, from the first to the last, as `pgwire::tokio::process_socket` takes them, with what it lacks:
//!
//! - A message is refused by its length before room is made for it: pgwire takes up to 1 GiB of anybody.
//! - What was sent in the clear behind a request to encrypt is not taken as encrypted.
//! - A client whose message cannot be read is told so.
//!
//! Source: <https://github.com/postgres/postgres/blob/REL_15_8/src/backend/postmaster/postmaster.c> (`ProcessStartupPacket`),
//! <https://github.com/postgres/postgres/blob/REL_15_8/src/backend/libpq/pqcomm.c>

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::StreamExt as _;
use pgwire::api::{ClientInfo as _, ErrorHandler as _, NoopHandler, PgWireConnectionState};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::PgWireFrontendMessage;
use pgwire::tokio::TlsAcceptor;
use pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::{Framed, FramedParts};

use super::connection::Connection;
use super::sqlstate;
use super::statement::Prepared;

/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(60);
/// How long a client may take to read why its connection ends, while what it still sends is thrown away.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bytes of the first message, as in PostgreSQL.
const MOST_STARTUP: usize = 10_000;
/// Bytes of a message of a login, as in PostgreSQL.
const MOST_LOGIN: usize = 65_535;
/// Bytes of any message. Statements may have fewer, which is told without ending the connection.
const MOST: usize = 16 << 20;

type Wire = Framed<Checked, PgWireMessageServerCodec<Prepared>>;

/// Talks to the client of `connection` until it leaves.
///
/// # Errors
/// If the socket has one.
pub(super) async fn converse(
    socket: TcpStream,
    tls: Option<TlsAcceptor>,
    connection: &Arc<Connection>,
) -> io::Result<()> {
    let deadline = Instant::now() + LOGIN;
    let Ok(negotiated) = timeout_at(deadline, negotiate_tls(socket, tls)).await else { return Ok(()) };
    // Without: it began to encrypt by itself, and there is nothing to encrypt with.
    let Some(negotiated) = negotiated? else { return Ok(()) };
    let in_the_clear = negotiated.is_secure() && !negotiated.read_buffer().is_empty();
    let mut wire = checked(negotiated, connection);
    if in_the_clear {
        let error = sqlstate::fatal("08P01", "received unencrypted data after SSL request");
        return end(&mut wire, error).await;
    }
    loop {
        let message = match wire.state() {
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress => {
                match timeout_at(deadline, wire.next()).await {
                    Ok(message) => message,
                    Err(_) => return Ok(()),
                }
            }
            _ => wire.next().await,
        };
        match message {
            None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Some(Ok(message)) => {
                if !answer(&mut wire, message, connection).await? {
                    return Ok(());
                }
            }
            Some(Err(PgWireError::IoError(error))) => {
                let Some(refused) = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) else {
                    return Err(error);
                };
                let error = sqlstate::fatal(refused.code(), refused.to_string());
                return end(&mut wire, error).await;
            }
            Some(Err(error)) => {
                return end(&mut wire, sqlstate::fatal("08P01", error.to_string())).await;
            }
        }
    }
}

/// `negotiated` with an eye on the lengths of messages; some bytes of the first may be there already.
fn checked(
    negotiated: Framed<MaybeTls, PgWireMessageServerCodec<Prepared>>,
    connection: &Arc<Connection>,
) -> Wire {
    let parts = negotiated.into_parts();
    let known = Arc::clone(connection);
    let mut frames = Frames::new(move || known.is_known());
    let refused = frames.follow(&parts.read_buf).err().map(|(_, refused)| refused);
    let mut checked = FramedParts::new(Checked { io: parts.io, frames, refused }, parts.codec);
    checked.read_buf = parts.read_buf;
    checked.write_buf = parts.write_buf;
    Framed::from_parts(checked)
}

/// Does what `message` asks for. Whether the conversation goes on.
async fn answer(
    wire: &mut Wire,
    message: PgWireFrontendMessage,
    connection: &Arc<Connection>,
) -> io::Result<bool> {
    let until_sync = match wire.state() {
        PgWireConnectionState::CopyInProgress(extended) => extended,
        _ => message.is_extended_query(),
    };
    let answered = process_message(
        message,
        wire,
        Arc::clone(connection),
        Arc::clone(connection),
        Arc::clone(connection),
        Arc::new(NoopHandler),
        Arc::clone(connection),
    );
    let Err(mut error) = answered.await else { return Ok(true) };
    connection.on_error(wire, &mut error);
    let info = ErrorInfo::from(error);
    let fatal = info.is_fatal();
    let error = PgWireError::UserError(Box::new(info));
    if fatal {
        end(wire, error).await?;
    } else {
        process_error(wire, error, until_sync).await?;
    }
    Ok(!fatal)
}

/// Says `error`, which is fatal, and hangs up.
async fn end(wire: &mut Wire, error: PgWireError) -> io::Result<()> {
    process_error(wire, error, true).await?;
    // A socket that is closed with something unread in it is reset, and then the error may never be read.
    let mut rest = [0; 4096];
    let io = &mut wire.get_mut().io;
    let drained = async { while io.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(LAST_WORDS, drained).await;
    Ok(())
}

/// A stream of messages none of which is longer than it may be.
struct Checked {
    io: MaybeTls,
    frames: Frames,
    /// Why nothing more is read.
    refused: Option<Refused>,
}

impl AsyncRead for Checked {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.refused.is_none() {
            ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
            let read = &buffer.filled()[before..];
            if let Err((good, refused)) = this.frames.follow(read) {
                // What comes before it is answered first.
                buffer.set_filled(before + good);
                this.refused = Some(refused);
            }
        }
        Poll::Ready(match this.refused {
            Some(refused) if buffer.filled().len() == before => {
                Err(io::Error::new(io::ErrorKind::InvalidData, refused))
            }
            _ => Ok(()),
        })
    }
}

impl AsyncWrite for Checked {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

/// Why a message is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("invalid message length: {0}")]
    Senseless(u32),
    #[error("message of {length} bytes is too long: at most {most} are taken")]
    TooLong { length: usize, most: usize },
}

impl Refused {
    fn code(self) -> &'static str {
        match self {
            Self::TooLong { most: MOST, .. } => "54000",
            _ => "08P01",
        }
    }
}

/// Where messages begin and end in a stream of bytes. The first has a length and no type before it.
struct Frames {
    is_known: Box<dyn Fn() -> bool + Send + Sync>,
    /// Type and length, as far as they came.
    header: [u8; 5],
    headed: usize,
    /// Bytes until the next header.
    left: usize,
}

impl Frames {
    /// `is_known` says whether the client has logged in.
    fn new(is_known: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { is_known: Box::new(is_known), header: [STARTUP; 5], headed: 1, left: 0 }
    }

    /// Goes on by `bytes`.
    ///
    /// # Errors
    /// If a message is refused that begins in them; also, how many bytes come before it.
    fn follow(&mut self, bytes: &[u8]) -> Result<(), (usize, Refused)> {
        let mut at = 0;
        let mut begin = 0;
        while at < bytes.len() {
            let skipped = self.left.min(bytes.len() - at);
            self.left -= skipped;
            at += skipped;
            if skipped > 0 {
                begin = at;
                continue;
            }
            self.header[self.headed] = bytes[at];
            self.headed += 1;
            at += 1;
            if self.headed == self.header.len() {
                self.left = self.body().map_err(|refused| (begin, refused))?;
                self.headed = 0;
                begin = at;
            }
        }
        Ok(())
    }

    /// Bytes that follow the header.
    fn body(&self) -> Result<usize, Refused> {
        let [kind, length @ ..] = self.header;
        let said = u32::from_be_bytes(length);
        let length = usize::try_from(said).unwrap_or(usize::MAX);
        let most = match kind {
            STARTUP => MOST_STARTUP,
            _ if (self.is_known)() => MOST,
            _ => MOST_LOGIN,
        };
        match length.checked_sub(size_of::<u32>()) {
            None => Err(Refused::Senseless(said)),
            Some(_) if length > most => Err(Refused::TooLong { length, most }),
            Some(body) => Ok(body),
        }
    }
}

/// Stands where other messages have their type.
const STARTUP: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, length: usize) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend(u32::try_from(length).expect("fits").to_be_bytes());
        message.resize(1 + length.clamp(4, 100), b'x');
        message
    }

    /// All bytes at once, and one after the other.
    fn followed(known: bool, bytes: &[u8]) -> Result<(), (usize, Refused)> {
        let whole = Frames::new(move || known).follow(bytes);
        let mut frames = Frames::new(move || known);
        let single = bytes.iter().find_map(|byte| frames.follow(&[*byte]).err());
        assert_eq!(whole.err().map(|(_, refused)| refused), single.map(|(_, refused)| refused));
        whole
    }

    #[test]
    fn messages_are_refused_by_their_length_and_those_before_are_not() {
        let startup = &message(0, 20)[1..];
        let too_long = |length, most| Refused::TooLong { length, most };
        assert_eq!(followed(false, &[startup, &message(b'p', 90), &message(b'p', 90)].concat()), Ok(()));
        assert_eq!(followed(false, &message(0, 10_001)[1..]), Err((0, too_long(10_001, MOST_STARTUP))));
        let password = [startup, &message(b'p', 65_536)].concat();
        assert_eq!(followed(false, &password), Err((20, too_long(65_536, MOST_LOGIN))));
        assert_eq!(followed(true, &password), Ok(()));
        let query = [startup, &message(b'Q', 50), &message(b'Q', MOST + 1)].concat();
        assert_eq!(followed(true, &query), Err((71, too_long(MOST + 1, MOST))));
        assert_eq!(followed(true, &[startup, &message(b'Q', 3)].concat()), Err((20, Refused::Senseless(3))));
        assert_eq!(followed(false, &[0xff; 4]), Err((0, too_long(u32::MAX as usize, MOST_STARTUP))));
    }
}
