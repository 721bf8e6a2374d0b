//! An HTTP server in the test's own process: a thread for each connection, and a function that answers.

use std::io::BufReader;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::http::{self, Request, Response};

/// The server. It ends when dropped; what is under way then is not answered any more.
#[derive(Debug)]
pub(crate) struct Front {
    closed: Arc<AtomicBool>,
    port: u16,
}

impl Front {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    /// When no port can be had.
    pub(crate) fn start(
        name: &'static str,
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Result<Front> {
        let answer = Arc::new(answer);
        Self::accept(name, move |stream, closed| {
            // A client may go at any time.
            let _ended = serve(&stream, closed, &*answer);
            let _closed = stream.shutdown(Shutdown::Both);
        })
    }

    /// The same, for who reads connections by other means; each is handed over on a thread of its own, with what says
    /// whether the server is to end.
    ///
    /// # Errors
    /// As [`Front::start`].
    pub(crate) fn accept(
        name: &'static str,
        serve: impl Fn(TcpStream, &AtomicBool) + Send + Sync + 'static,
    ) -> Result<Front> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).with_context(|| format!("no port for {name}"))?;
        let port = listener.local_addr()?.port();
        let closed = Arc::new(AtomicBool::new(false));
        let (ends, serve) = (Arc::clone(&closed), Arc::new(serve));
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (ends, serve) = (Arc::clone(&ends), Arc::clone(&serve));
                let connection = std::thread::Builder::new().name(format!("{name}-connection"));
                let _detached = connection.spawn(move || serve(stream, &ends));
            }
        })?;
        Ok(Front { closed, port })
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let _waker = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: &TcpStream, closed: &AtomicBool, answer: &dyn Fn(&Request) -> Response) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(mut request) = http::read_head(&mut reader)? {
        http::read_body(&mut reader, &mut request)?;
        if closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        answer(&request).write(&mut answers)?;
    }
    Ok(())
}
