//! The loopback echo, with which a round trip through the server is compared: it reads as many bytes as a request
//! has, and writes one of the server's responses. No parsing, no tasks, no queue.

use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

/// Prints its address and serves one connection after another until it is killed.
pub(crate) fn main(request_bytes: usize, answer: &Path) -> Result<()> {
    let answer = std::fs::read(answer).with_context(|| format!("cannot read {}", answer.display()))?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept()?;
        serve(stream, request_bytes, &answer)?;
    }
}

fn serve(mut stream: TcpStream, request_bytes: usize, answer: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = vec![0; request_bytes];
    loop {
        match stream.read_exact(&mut request) {
            Ok(()) => stream.write_all(answer)?,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(());
            }
            Err(error) => bail!(error),
        }
    }
}
