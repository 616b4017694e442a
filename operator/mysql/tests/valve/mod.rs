//! A way to a server that ends after so many bytes, in the middle of whatever it says, and stays silent from then on.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How many bytes may still pass; without a number, all.
type Left = Option<usize>;

pub struct Valve {
    /// Where clients come in.
    pub address: SocketAddr,
    left: watch::Sender<Left>,
    _accepts: AbortOnDropHandle<()>,
}

impl Valve {
    /// Everything passes at first.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let left = watch::Sender::new(None);
        let counted = left.clone();
        let accepts = tokio::spawn(async move {
            let mut ways = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                ways.spawn(way(client, port, counted.clone()));
            }
        });
        Self { address, left, _accepts: AbortOnDropHandle::new(accepts) }
    }

    /// No more than so many bytes that the server says from now on pass.
    pub fn shut_after(&self, bytes: usize) {
        self.left.send_replace(Some(bytes));
    }

    /// Waits until they have.
    pub async fn is_shut(&self, within: Duration) {
        let mut left = self.left.subscribe();
        tokio::time::timeout(within, left.wait_for(|left| *left == Some(0))).await.unwrap().unwrap();
    }
}

async fn way(client: TcpStream, port: u16, left: watch::Sender<Left>) {
    let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asks = copy(&mut from_client, &mut to_server);
    let answers = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read) = from_server.read(&mut buffer).await {
            let mut passes = read;
            left.send_modify(|left| {
                if let Some(left) = left {
                    passes = read.min(*left);
                    *left -= passes;
                }
            });
            let is_over = read == 0 || to_client.write_all(&buffer[..passes]).await.is_err();
            if is_over {
                return;
            }
        }
    };
    let _ended = tokio::join!(asks, answers);
}
