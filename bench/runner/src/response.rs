//! As much of an HTTP response as the benchmark looks at.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use memchr::{memchr_iter, memmem};

/// A complete response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) status: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// The one response that `bytes` hold; `None` while some of it is missing.
///
/// # Errors
/// When it is not HTTP/1.1, has no length, or more than one response came.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Response<'_>>> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).context("not HTTP/1.1")?;
    let length = content_length(&bytes[..head + 2]).context("no content-length")?;
    let body = &bytes[head + 4..];
    ensure!(body.len() <= length, "more bytes than content-length says");
    Ok((body.len() == length).then_some(Response { status, body }))
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let starts = memchr_iter(b'\n', head).map(|end| end + 1);
    starts.into_iter().find_map(|start| {
        let line = &head[start..];
        let value = line.get(..NAME.len())?.eq_ignore_ascii_case(NAME).then(|| &line[NAME.len()..])?;
        let value = &value[..memchr::memchr(b'\r', value)?];
        std::str::from_utf8(value).ok()?.trim().parse().ok()
    })
}

/// A `POST /` with a JSON body, ready to send.
pub(crate) fn request(address: SocketAddr, body: &str) -> Vec<u8> {
    format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A `POST /fibonacci/next` of the caller who has this session key, ready to send.
pub(crate) fn next_request(address: SocketAddr, session: &str) -> Vec<u8> {
    format!(
        "POST /fibonacci/next HTTP/1.1\r\nhost: {address}\r\nx-session-key: {session}\r\ncontent-length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// Posts `body` on a connection of its own and returns the body of a 200.
///
/// # Errors
/// When there is no answer or another one.
pub(crate) fn post(address: SocketAddr, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&request(address, body))?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "connection closed");
        bytes.extend_from_slice(&buffer[..length]);
        if let Some(response) = parse(&bytes)? {
            if response.status != b"200" {
                bail!("status {}", String::from_utf8_lossy(response.status));
            }
            return Ok(String::from_utf8(response.body.to_vec())?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok";

    #[test]
    fn a_response_is_complete_with_its_last_byte_only() {
        for length in 0..WHOLE.len() {
            assert_eq!(parse(&WHOLE[..length]).unwrap(), None, "{length}");
        }
        assert_eq!(parse(WHOLE).unwrap(), Some(Response { status: b"200", body: b"ok" }));
    }

    #[test]
    fn what_cannot_be_measured_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nok").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
    }
}
