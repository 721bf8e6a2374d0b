//! As much HTTP/1.1 as the helpers need: whole messages in memory, bodies by length, in chunks or until the end.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a helper waits for a real server.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came in.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Names as sent.
    pub headers: Vec<(String, String)>,
    /// The whole body, without its chunking.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names as sent.
    pub headers: Vec<(String, String)>,
    /// The whole body, without its chunking.
    pub body: Vec<u8>,
}

impl Request {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first query parameter of that name, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key) == name).then(|| percent_decode(value))
        })
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

impl Response {
    /// An answer with this body.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Response { status, headers, body: body.into() }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Writes it with its length, so that the connection can go on.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn write(&self, stream: &mut impl Write) -> std::io::Result<()> {
        let mut bytes = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).into_bytes();
        for (name, value) in end_to_end(&self.headers) {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        if self.status != 204 {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        if self.status != 204 {
            bytes.extend(&self.body);
        }
        stream.write_all(&bytes)?;
        stream.flush()
    }
}

/// Sends one request on a connection of its own and reads the answer.
///
/// # Errors
/// When the server cannot be reached or ends in the middle.
pub fn send(url: &str, method: &str, target: &str, headers: &[(String, String)], body: &[u8]) -> Result<Response> {
    let address = authority(url);
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in end_to_end(headers) {
        if !name.eq_ignore_ascii_case("host") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    read_response(&mut BufReader::new(stream), method)
}

/// Reads a request's line and headers; `None` when the client has closed the connection between requests.
///
/// # Errors
/// When what comes is no HTTP, or ends in the middle.
pub fn read_head(stream: &mut impl BufRead) -> Result<Option<Request>> {
    let Some(line) = read_line(stream)? else { return Ok(None) };
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { bail!("no HTTP request: {line:?}") };
    let (method, target) = (method.to_owned(), target.to_owned());
    let headers = read_headers(stream)?;
    Ok(Some(Request { method, target, headers, body: Vec::new() }))
}

/// Reads a request's body after its head; answers `100-continue` first when asked to.
///
/// # Errors
/// When it ends in the middle.
pub fn read_body<S: Read + Write>(stream: &mut BufReader<S>, request: &mut Request) -> Result<()> {
    if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = if is_chunked(&request.headers) {
        read_chunks(stream)?
    } else {
        read_exactly(stream, content_length(&request.headers)?.unwrap_or(0))?
    };
    Ok(())
}

/// The declared length of a body.
pub(crate) fn content_length(headers: &[(String, String)]) -> Result<Option<usize>> {
    header(headers, "content-length").map(|text| text.trim().parse().context("bad Content-Length")).transpose()
}

fn read_response(stream: &mut impl BufRead, method: &str) -> Result<Response> {
    let line = read_line(stream)?.context("the server closed the connection without an answer")?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = status.with_context(|| format!("no HTTP answer: {line:?}"))?;
    let headers = read_headers(stream)?;
    let body = if method == "HEAD" || status == 204 || status == 304 {
        Vec::new()
    } else if is_chunked(&headers) {
        read_chunks(stream)?
    } else if let Some(length) = content_length(&headers)? {
        read_exactly(stream, length)?
    } else {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        rest
    };
    Ok(Response { status, headers, body })
}

fn read_line(stream: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = Vec::new();
    match stream.by_ref().take(65_536).read_until(b'\n', &mut line) {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(error) if line.is_empty() && matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}

fn read_headers(stream: &mut impl BufRead) -> Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?.context("the headers end in the middle")?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').with_context(|| format!("no HTTP header: {line:?}"))?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
}

fn read_exactly(stream: &mut impl BufRead, length: usize) -> Result<Vec<u8>> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn read_chunks(stream: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?.context("the chunks end in the middle")?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .with_context(|| format!("no chunk size: {line:?}"))?;
        if size == 0 {
            read_headers(stream)?;
            return Ok(body);
        }
        body.extend(read_exactly(stream, size)?);
        read_line(stream)?;
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn is_chunked(headers: &[(String, String)]) -> bool {
    header(headers, "transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked"))
}

/// Headers that belong to the message, not to one connection or to how its body travels there.
fn end_to_end(headers: &[(String, String)]) -> impl Iterator<Item = &(String, String)> {
    const PER_HOP: [&str; 6] =
        ["connection", "keep-alive", "transfer-encoding", "content-length", "expect", "proxy-connection"];
    headers.iter().filter(|(name, _)| !PER_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)))
}

/// `host:port` of a URL.
pub(crate) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Request Entity Too Large",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

/// Encodes a query parameter's value.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().enumerate().fold(0u32, |group, (at, byte)| group | (u32::from(*byte) << (16 - 8 * at)));
        for at in 0..4u32 {
            if at as usize > chunk.len() {
                text.push('=');
            } else {
                text.push(char::from(ALPHABET[(group >> (18 - 6 * at)) as usize & 63]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_the_standard_says() {
        for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn parameters_are_decoded_and_encoded_alike() {
        let hostile = "a b&c=d+é%\"\\/?#";
        let request = Request { target: format!("/write?db={}&q=1", percent_encode(hostile)), ..Request::default() };
        assert_eq!(request.parameter("db").as_deref(), Some(hostile));
        assert_eq!(request.parameter("q").as_deref(), Some("1"));
        assert_eq!(request.parameter("none"), None);
        assert_eq!(percent_decode("100%"), "100%");
    }

    #[test]
    fn chunked_bodies_are_read_whole() {
        let bytes = b"4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\nTrailer: 1\r\n\r\n";
        assert_eq!(read_chunks(&mut &bytes[..]).unwrap(), b"Wikipedia");
        assert!(read_chunks(&mut &b"4\r\nWi"[..]).is_err());
    }
}
