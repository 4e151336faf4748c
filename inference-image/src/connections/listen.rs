//! The listening socket.

use rustix::net::sockopt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted; the kernel allows no more than `net.core.somaxconn`, 4096.
const BACKLOG: u32 = 4096;
/// A client that has disappeared without closing is noticed after `KEEPALIVE + PROBES × PROBE`, two minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// Listens on this address; port 0 picks a free one.
///
/// # Errors
/// When the port is in use or not permitted, or this machine does not have the address.
pub fn listen_at(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = match address {
        IpAddr::V6(_) => TcpSocket::new_v6()?,
        IpAddr::V4(_) => TcpSocket::new_v4()?,
    };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit these options on Linux, which saves the calls for each of them. Responses are written
    // at once; waiting to fill a packet would delay them for nothing.
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, PROBE)?;
    sockopt::set_tcp_keepcnt(&socket, PROBES)?;
    socket.bind(SocketAddr::from((address, port)))?;
    socket.listen(BACKLOG)
}

/// Listens on every address of this machine, IPv6 and IPv4; port 0 picks a free one.
///
/// # Errors
/// When the port is in use or not permitted.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    match listen_at(Ipv6Addr::UNSPECIFIED.into(), port) {
        // A machine without IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            listen_at(Ipv4Addr::UNSPECIFIED.into(), port)
        }
        listener => listener,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Otherwise every response waits for the client's delayed acknowledgement.
    #[tokio::test]
    async fn accepted_connections_have_the_listeners_options() {
        let listener = listen(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), KEEPALIVE);
    }
}
