//! A TCP stream that tells its connection what is read and written, and fails once that is closed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::ReadAllowance;
use super::pool::Membership;

/// A TCP stream whose client is bounded in time and bytes.
pub(super) struct GuardedStream {
    stream: TcpStream,
    pub(super) member: Membership,
}

impl GuardedStream {
    pub(super) fn new(stream: TcpStream, member: Membership) -> GuardedStream {
        GuardedStream { stream, member }
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        let connection = &self.member.connection;
        connection.registers(context);
        if connection.is_closed() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let allowed = match self.member.connection.read_allowance() {
            ReadAllowance::Bytes(bytes) => bytes,
            ReadAllowance::Wait => return Poll::Pending,
            ReadAllowance::ParseFirst => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            ReadAllowance::HeadTooLong => {
                self.member.pool.ends_over_its_head();
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        };
        let before = buffer.filled().len();
        if buffer.remaining() <= allowed {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(allowed));
            std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
            let bytes = part.filled().len();
            buffer.advance(bytes);
        }
        let bytes = buffer.filled().len() - before;
        if bytes == 0 && self.member.connection.is_streaming() {
            // Nobody reads the stream any more, and nothing else would tell before the next frame.
            self.member.connection.close();
        }
        if bytes > 0 {
            self.member.connection.read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        self.member.connection.writes();
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        if written > 0 {
            self.member.connection.stream_progressed();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.member.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
