//! Accepts request lines that Go's HTTP server accepts and hyper does not: `"`, `<` and `>` as they are.
//!
//! `curl -g 'localhost:9090/api/v1/query?query=up{job="x"}'` is in everyone's fingers. hyper refuses such
//! a URL before any handler sees it, so [`LenientStream`] percent-encodes these three bytes on the way in.
//!
//! It follows HTTP/1.1 just far enough to know where request lines are: over header lines, and over
//! bodies of a stated length. Where it cannot follow (chunked bodies, HTTP/2, upgrades) it passes
//! everything on as it is for the rest of the connection, which is what happens without it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Most bytes of a header line that are looked at.
const LINE_KEPT: usize = 64;
/// Most bytes that are read from the socket at once.
const READ: usize = 8 * 1024;

/// A TCP listener whose connections are [`LenientStream`]s.
#[derive(Debug)]
pub(crate) struct LenientListener(pub(crate) TcpListener);

impl Listener for LenientListener {
    type Io = LenientStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Answers are written in large pieces; waiting for more would only delay their ends.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot turn off Nagle's algorithm");
        }
        (LenientStream::new(stream), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection whose request lines are made acceptable while they are read.
#[derive(Debug)]
pub(crate) struct LenientStream<S> {
    inner: S,
    rewriter: Rewriter,
    /// Rewritten bytes that did not fit into the caller's buffer, from `taken` on.
    pending: Vec<u8>,
    taken: usize,
}

impl<S> LenientStream<S> {
    fn new(inner: S) -> Self {
        Self { inner, rewriter: Rewriter::default(), pending: Vec::new(), taken: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LenientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken == this.pending.len() {
            if this.rewriter.place == Place::Opaque {
                return Pin::new(&mut this.inner).poll_read(cx, out);
            }
            let mut bytes = [0; READ];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            this.pending.clear();
            this.taken = 0;
            this.rewriter.rewrite(read.filled(), &mut this.pending);
        }
        let n = out.remaining().min(this.pending.len() - this.taken);
        out.put_slice(&this.pending[this.taken..this.taken + n]);
        this.taken += n;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LenientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Where in the conversation the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    RequestLine,
    Headers,
    /// This many bytes of body are left.
    Body(u64),
    /// Not followed any more.
    Opaque,
}

#[derive(Debug, Default)]
struct Rewriter {
    place: Place,
    /// The line so far, cut at [`LINE_KEPT`].
    line: Vec<u8>,
    body_bytes: u64,
    lost: bool,
}

impl Rewriter {
    fn rewrite(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.place {
                Place::Opaque => return out.extend_from_slice(bytes),
                Place::Body(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    out.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    let left = left - n as u64;
                    self.place = if left == 0 { Place::RequestLine } else { Place::Body(left) };
                    continue;
                }
                Place::RequestLine => match byte {
                    b'"' => out.extend_from_slice(b"%22"),
                    b'<' => out.extend_from_slice(b"%3C"),
                    b'>' => out.extend_from_slice(b"%3E"),
                    _ => out.push(byte),
                },
                Place::Headers => out.push(byte),
            }
            bytes = rest;
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LINE_KEPT {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = self.line.trim_ascii().to_ascii_lowercase();
        self.line.clear();
        match self.place {
            // An empty line before a request is allowed.
            Place::RequestLine if line.is_empty() => {}
            Place::RequestLine if line.starts_with(b"pri * http/2") => self.place = Place::Opaque,
            Place::RequestLine => {
                (self.place, self.body_bytes, self.lost) = (Place::Headers, 0, false);
            }
            Place::Headers if line.is_empty() => {
                self.place = match (self.lost, self.body_bytes) {
                    (true, _) => Place::Opaque,
                    (false, 0) => Place::RequestLine,
                    (false, n) => Place::Body(n),
                };
            }
            Place::Headers => self.header(&line),
            Place::Body(_) | Place::Opaque => {}
        }
    }

    /// `line` is in lower case.
    fn header(&mut self, line: &[u8]) {
        if let Some(value) = line.strip_prefix(b"content-length:") {
            match std::str::from_utf8(value.trim_ascii()).ok().and_then(|v| v.parse().ok()) {
                Some(n) => self.body_bytes = n,
                None => self.lost = true,
            }
        } else if line.starts_with(b"transfer-encoding:") || line.starts_with(b"upgrade:") {
            self.lost = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `size` bytes.
    fn rewrite(input: &str, size: usize) -> String {
        let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
        for piece in input.as_bytes().chunks(size) {
            rewriter.rewrite(piece, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn check(input: &str, want: &str) {
        for size in [1, 3, 7, input.len()] {
            assert_eq!(rewrite(input, size), want, "in pieces of {size}");
        }
    }

    #[test]
    fn quotes_and_angles_in_request_lines_are_encoded() {
        check(
            "GET /q?query=up{a=\"b\"}>1 HTTP/1.1\r\nX: \"<\"\r\n\r\n",
            "GET /q?query=up{a=%22b%22}%3E1 HTTP/1.1\r\nX: \"<\"\r\n\r\n",
        );
    }

    #[test]
    fn bodies_are_left_alone_and_the_next_request_is_found() {
        let post = "POST /q HTTP/1.1\r\ncontent-LENGTH: 9\r\n\r\n\"<\r\n\r\n>\"x";
        check(&format!("{post}GET /\" HTTP/1.1\r\n\r\n"), &format!("{post}GET /%22 HTTP/1.1\r\n\r\n"));
    }

    #[test]
    fn what_cannot_be_followed_passes_as_it_is() {
        for head in [
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ] {
            let all = format!("{head}GET /\" HTTP/1.1\r\n\r\n");
            check(&all, &all);
        }
    }
}
