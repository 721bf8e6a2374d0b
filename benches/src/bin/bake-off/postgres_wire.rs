//! A proxy before PostgreSQL that counts, from the messages of the protocol alone, how often a client waits for an answer, and how
//! many bytes its statements and parameters have.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// What only a worker's statements hold: those that add a batch's rows.
const OF_WRITERS: &[u8] = b"FROM unnest($1, $2, $3, $4)";

/// The proxy. Its threads end with their connections; the one that accepts, with the process.
pub(super) struct PostgresWire {
    port: u16,
    connections: Connections,
}

type Connections = Arc<Mutex<Vec<Arc<Mutex<Sent>>>>>;

/// What one connection has sent.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    round_trips: u64,
    /// Of statements and parameters.
    bytes: u64,
    is_writer: bool,
}

impl PostgresWire {
    /// Starts before a port of 127.0.0.1.
    pub(super) fn start(upstream: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port for the proxy before PostgreSQL")?;
        let port = listener.local_addr()?.port();
        let connections = Connections::default();
        let known = Arc::clone(&connections);
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let sent = Arc::new(Mutex::new(Sent::default()));
                known.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&sent));
                // A client that gives up ends its connection; what it had sent still counts.
                let _ended = serve(client, upstream, sent);
            }
        });
        Ok(Self { port, connections })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Round trips and bytes of the connections that have added rows: not those of audits and questions.
    pub(super) fn of_writers(&self) -> (u64, u64) {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = connections.iter().map(|sent| *sent.lock().unwrap_or_else(PoisonError::into_inner));
        sent.filter(|sent| sent.is_writer).fold((0, 0), |sum, sent| (sum.0 + sent.round_trips, sum.1 + sent.bytes))
    }
}

fn serve(client: TcpStream, upstream: u16, sent: Arc<Mutex<Sent>>) -> Result<()> {
    let server = TcpStream::connect(("127.0.0.1", upstream))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut answers, mut to_client) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _copied = std::io::copy(&mut answers, &mut to_client);
        let _closed = to_client.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let _ended = requests(client, &server, &sent);
        let _closed = server.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Hands on message by message: `Q` and `Sync` are what a client waits for an answer after.
fn requests(client: TcpStream, mut server: &TcpStream, sent: &Mutex<Sent>) -> Result<()> {
    let mut client = BufReader::with_capacity(1 << 20, client);
    let mut pending = Vec::new();
    // The first message has no kind.
    body(&mut client, &mut pending)?;
    loop {
        if client.buffer().is_empty() {
            server.write_all(&pending)?;
            pending.clear();
        }
        let (mut kind, at) = ([0], pending.len());
        client.read_exact(&mut kind)?;
        pending.push(kind[0]);
        body(&mut client, &mut pending)?;
        // Without the kind and the length.
        let message = pending.get(at + 5..).unwrap_or_default();
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.bytes += content(kind[0], message) as u64;
        sent.round_trips += u64::from(matches!(kind[0], b'Q' | b'S'));
        sent.is_writer |= kind[0] == b'P' && message.windows(OF_WRITERS.len()).any(|part| part == OF_WRITERS);
    }
}

/// A message's length, which counts itself, and what follows.
fn body(client: &mut impl Read, pending: &mut Vec<u8>) -> Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    pending.extend_from_slice(&length);
    let rest = u64::from(u32::from_be_bytes(length)).saturating_sub(4);
    client.by_ref().take(rest).read_to_end(pending)?;
    Ok(())
}

/// How many bytes of a message are statements or parameters.
fn content(kind: u8, message: &[u8]) -> usize {
    let until_zero = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    match kind {
        b'Q' => until_zero(message),
        // The statement comes after its name.
        b'P' => message.get(until_zero(message) + 1..).map_or(0, until_zero),
        b'B' => parameters(message).unwrap_or(0),
        _ => 0,
    }
}

/// The bytes of the parameters of a message that binds them; `None` when it is cut short.
fn parameters(message: &[u8]) -> Option<usize> {
    let mut rest = message;
    for _ in ["portal", "statement"] {
        let end = rest.iter().position(|byte| *byte == 0)?;
        rest = rest.get(end + 1..)?;
    }
    let (formats, after) = rest.split_first_chunk()?;
    rest = after.get(2 * usize::from(u16::from_be_bytes(*formats))..)?;
    let (count, mut rest) = rest.split_first_chunk()?;
    let mut bytes = 0;
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk()?;
        // Below 0: NULL.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        rest = after.get(length..)?;
        bytes += length;
    }
    Some(bytes)
}
