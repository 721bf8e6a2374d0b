//! The listener. It has a thread and a runtime of its own: whatever blocks the threads of the workers delays no answer here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// How many connections are open at a time, endless answers aside. One more closes the oldest, so that clients that send nothing
/// keep no probe out.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take in all: one that reads its answer slowly is closed.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// The pause after a connection could not be accepted, such as without file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. It runs on the listener's only thread: what blocks belongs elsewhere.
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering;
}

/// An answer that is being made.
pub type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// The body of an endless answer: what its sender sends, until one of both sides ends it.
pub type Endless = Channel<Bytes>;

/// An answer.
#[derive(Debug)]
pub enum Reply {
    /// Sent at once; a client that takes too long to read it is cut off.
    Whole(Response<Bytes>),
    /// Sent as it comes, for as long as the client reads. The handler bounds how many of them there are.
    Endless(Response<Endless>),
}

/// A listener and the answers to its connections, until dropped. Dropping it closes all connections at once.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on the address, and answers from now on. `name`: of its thread.
    ///
    /// # Errors
    /// The address is in use or not this machine's, or the system has no thread for it.
    pub fn start(name: &str, address: SocketAddr, handler: Arc<dyn Handler>) -> std::io::Result<Self> {
        // Bound here, so that an address that is in use is found before anything else starts.
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (end, ended) = oneshot::channel();
        let serving = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, handler) => {}
                    _ = ended => {}
                }
            });
            // A handler's blocking call, such as one to a file system that hangs, does not keep the process.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(serving)?;
        Ok(Self { address: bound, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens: the port is the system's choice where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A connection that was accepted.
struct Connection {
    task: AbortHandle,
    /// Whether its answer is an endless one.
    is_endless: Arc<AtomicBool>,
}

impl Connection {
    /// Whether it counts towards [`MAX_CONNECTIONS`].
    fn counts(&self) -> bool {
        !self.task.is_finished() && !self.is_endless.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, handler: Arc<dyn Handler>) {
    // Each is served in milliseconds; one that is still open when 64 others have come is slow or silent.
    let mut open: VecDeque<Connection> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if open.len() >= MAX_CONNECTIONS {
            open.retain(Connection::counts);
        }
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.task.abort();
        }
        let is_endless = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(answer_one(stream, Arc::clone(&handler), Arc::clone(&is_endless))).abort_handle();
        open.push_back(Connection { task, is_endless });
    }
}

/// Answers one request of a connection, within the limits of time and size.
async fn answer_one(stream: TcpStream, handler: Arc<dyn Handler>, is_endless: Arc<AtomicBool>) {
    let marked = Arc::clone(&is_endless);
    let service = service_fn(move |request| {
        let (answering, marked) = (Arc::clone(&handler).answer(request), Arc::clone(&marked));
        async move {
            Ok::<_, Infallible>(match answering.await {
                Reply::Whole(response) => response.map(|body| Either::Left(Full::new(body))),
                Reply::Endless(response) => {
                    marked.store(true, Ordering::Relaxed);
                    response.map(Either::Right)
                }
            })
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD).keep_alive(false);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    // What went wrong with a client is the client's affair.
    let answered = timeout(CONNECTION_TIMEOUT, &mut connection).await;
    if answered.is_err() && is_endless.load(Ordering::Relaxed) {
        let _closed = connection.await;
    }
}

#[cfg(test)]
mod tests;
