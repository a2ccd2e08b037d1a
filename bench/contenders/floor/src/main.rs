//! The floor: an epoll loop that answers every request with the same bytes.
//!
//! It looks for the end of a request and nothing else, so what it costs is what the kernel costs.
//! One thread a core, each with its own epoll; the main thread deals out connections in turn.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{self, Receiver},
    thread,
};

use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};

const REPLY: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"result\":15.0}";

/// How the one request that the benchmark sends ends.
const END_OF_BODY: u8 = b'}';

const NEW_CONNECTION: Token = Token(usize::MAX);

fn main() -> io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8000);
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let mut workers = Vec::new();
    for _ in 0..thread::available_parallelism()?.get() {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), NEW_CONNECTION)?;
        let (sender, connections) = mpsc::channel();
        thread::spawn(move || work(poll, &connections));
        workers.push((sender, waker));
    }
    for number in 0.. {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (sender, waker) = &workers[number % workers.len()];
        let _ = sender.send(TcpStream::from_std(stream));
        waker.wake()?;
    }
    Ok(())
}

fn work(mut poll: Poll, new: &Receiver<TcpStream>) -> io::Result<()> {
    let mut events = Events::with_capacity(1024);
    let mut connections = HashMap::new();
    let mut number = 0;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == NEW_CONNECTION {
                for mut stream in new.try_iter() {
                    poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
                    connections.insert(Token(number), stream);
                    number += 1;
                }
            } else if let Some(stream) = connections.get_mut(&event.token())
                && answer(stream).is_err()
            {
                connections.remove(&event.token());
            }
        }
    }
}

/// A read that does not fill the buffer has emptied the socket: no second one is needed to learn that.
fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) if buffer[..length].last() == Some(&END_OF_BODY) => stream.write_all(REPLY),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
