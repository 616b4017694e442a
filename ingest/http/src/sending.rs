//! A connection whose other side must take what it is sent in time. I/O.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that fails when what is written to it is not taken in time, all of it up to a flush, however little by little.
#[derive(Debug)]
pub struct Sending<T> {
    stream: T,
    within: Duration,
    /// Since something first had to wait; until all of it is taken.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Sending<T> {
    /// Over a stream; the other side has `within` for all that it is sent at once.
    pub fn new(stream: T, within: Duration) -> Self {
        Self { stream, within, waiting: None }
    }

    /// What came of an attempt to send, or an error once there is no more time for it.
    fn in_time<R>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            return outcome;
        }
        let within = self.within;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side did not take the answer in time")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Sending<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Sending<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.in_time(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.in_time(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        if outcome.is_ready() {
            self.waiting = None;
        }
        self.in_time(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_in_time_is_an_error_however_little_by_little_it_is_taken() {
        for (case, taken) in [("nothing is taken", 0), ("a byte every second is taken", 100)] {
            let (here, mut there) = duplex(8);
            let mut sending = Sending::new(here, WITHIN);
            let began = Instant::now();
            let take = async {
                for _ in 0..taken {
                    sleep(Duration::from_secs(1)).await;
                    there.read_u8().await.unwrap();
                }
                std::future::pending::<()>().await;
            };
            let sent = tokio::select! {
                sent = sending.write_all(&[0; 100]) => sent,
                () = take => Ok(()),
            };
            assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut, "{case}");
            assert_eq!(began.elapsed(), WITHIN, "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_has_its_own_time() {
        let (here, mut there) = duplex(8);
        let mut sending = Sending::new(here, WITHIN);
        for answer in 0..3 {
            let send = async {
                sending.write_all(&[answer; 12]).await?;
                sending.flush().await
            };
            let take = async {
                sleep(WITHIN * 2 / 3).await;
                let mut taken = [0; 12];
                there.read_exact(&mut taken).await.map(|_| taken)
            };
            let (sent, taken): (io::Result<()>, io::Result<[u8; 12]>) = tokio::join!(send, take);
            sent.unwrap();
            assert_eq!(taken.unwrap(), [answer; 12]);
        }
    }
}
