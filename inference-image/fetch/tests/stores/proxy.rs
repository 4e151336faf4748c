//! A proxy between the fetcher and a real server that fails on demand.

use http::{Method, StatusCode, header};
use modelservice_fetch::http::{Audience, Client, Policy, Request, Timeouts};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use url::Url;

/// What goes wrong with one answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Another status, with a header and a body.
    Status(u16, Option<(&'static str, String)>, &'static str),
    /// Half of the body, then a reset.
    Reset,
    /// Half of the body, then the end of the connection.
    Truncated,
    /// Half of the body, then nothing more.
    Stalled,
    /// No answer, and no end.
    Silent,
    /// A body that is shorter than what was asked for, with a length that fits it.
    Shorter,
    /// A body that is longer than what was asked for, with a length that fits it.
    Longer,
    /// Bytes of another part.
    OtherRange,
    /// An answer that claims to be everything, although a part was asked for.
    NotPartial,
}

/// Which answer fails how: asked for each request in its order.
type Plan = Arc<dyn Fn(&Head) -> Option<Fault> + Send + Sync>;

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) url: Url,
    upstream: Url,
    plan: Arc<Mutex<Plan>>,
    seen: Arc<Mutex<Vec<Head>>>,
}

impl Proxy {
    /// Starts one before a server, which is reached at the same path. With TLS if there is an acceptor.
    pub(crate) async fn start(upstream: &Url, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut url = upstream.clone();
        let port = listener.local_addr().unwrap().port();
        url.set_port(Some(port)).unwrap();
        let url = if tls.is_some() {
            // The certificate is for a name.
            Url::parse(&format!("https://localhost:{port}{}", url.path())).unwrap()
        } else {
            url
        };
        let proxy = Self {
            url,
            upstream: upstream.clone(),
            plan: Arc::new(Mutex::new(Arc::new(|_: &Head| None))),
            seen: Arc::default(),
        };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream, tls.clone()));
            }
        });
        proxy
    }

    /// What goes wrong from now on.
    pub(crate) fn fail(&self, plan: impl Fn(&Head) -> Option<Fault> + Send + Sync + 'static) {
        *self.plan.lock().unwrap() = Arc::new(plan);
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn heal(&self) {
        self.fail(|_| None);
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Head> {
        self.seen.lock().unwrap().clone()
    }

    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        match tls {
            // A client that does not trust the certificate is the test's business.
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.answer_all(stream, |_| {}).await;
                }
            }
            None => {
                self.answer_all(stream, |stream: &TcpStream| stream.set_zero_linger().unwrap())
                    .await
            }
        }
    }

    async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, reset: impl Fn(&S)) {
        while let Some(head) = read_head(&mut stream).await {
            self.seen.lock().unwrap().push(head.clone());
            let plan = Arc::clone(&self.plan.lock().unwrap());
            let fault = plan(&head);
            let (answer, body) = match &fault {
                Some(Fault::Silent) => return wait(&mut stream).await,
                Some(Fault::Status(status, header, body)) => (
                    status_head(*status, header.as_ref(), body),
                    body.as_bytes().to_vec(),
                ),
                _ => self.forward(&head, fault.as_ref()).await,
            };
            // The body of a HEAD is only announced.
            let body = if head.method == "HEAD" { Vec::new() } else { body };
            let half = body.len() / 2;
            let sent = match fault {
                Some(Fault::Reset | Fault::Truncated | Fault::Stalled) => &body[..half],
                _ => &body[..],
            };
            // A client that has gone is the test's business.
            if stream.write_all(answer.as_bytes()).await.is_err() || stream.write_all(sent).await.is_err() {
                return;
            }
            let _ = stream.flush().await;
            match fault {
                Some(Fault::Reset) => return reset(&stream),
                Some(Fault::Truncated) => {
                    let _ = stream.shutdown().await;
                    return;
                }
                Some(Fault::Stalled) => return wait(&mut stream).await,
                _ => {}
            }
        }
    }

    /// The server's own answer, changed if it is to lie.
    async fn forward(&self, head: &Head, fault: Option<&Fault>) -> (String, Vec<u8>) {
        let url = self.upstream.join(&head.target).unwrap();
        let headers = head.headers.iter();
        // fake-gcs-server answers under its own name only; the others' names are signed.
        let is_signed = head.header("authorization").is_some();
        let headers = headers.filter(|(name, _)| is_signed || name != "host");
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let client = Client::new(Policy::default().with_loopback(), None, Timeouts::default()).unwrap();
        let request = Request::new(head.method.parse::<Method>().unwrap(), url.clone())
            .headers(headers.collect())
            .audience(Audience::origin_of(&url));
        let response = client.send(request).await.unwrap();
        let (mut status, mut headers) = (response.status, response.headers.clone());
        let announced = response.content_length();
        let mut body = response.bytes(64 << 20).await.unwrap().to_vec();
        match fault {
            Some(Fault::Shorter) => body.truncate(body.len() / 2),
            Some(Fault::NotPartial) => {
                status = StatusCode::OK;
                headers.remove(header::CONTENT_RANGE);
            }
            Some(Fault::Longer) => body.extend_from_slice(b"more than was asked for"),
            Some(Fault::OtherRange) => {
                let range = format!("bytes 1-{}/{}", body.len(), body.len() + 1);
                headers.insert(header::CONTENT_RANGE, range.parse().unwrap());
            }
            _ => {}
        }
        let framing = match announced {
            None if head.method != "HEAD" => {
                let chunk = format!("{:x}\r\n", body.len());
                body = [chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
                "transfer-encoding: chunked".to_owned()
            }
            Some(length) if head.method == "HEAD" => format!("content-length: {length}"),
            _ => format!("content-length: {}", body.len()),
        };
        for name in [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
        ] {
            headers.remove(name);
        }
        let headers = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
        let headers: String = headers.collect();
        (
            format!("HTTP/1.1 {} OK\r\n{headers}{framing}\r\n\r\n", status.as_u16()),
            body,
        )
    }
}

fn status_head(status: u16, extra: Option<&(&'static str, String)>, body: &str) -> String {
    let reason = StatusCode::from_u16(status)
        .unwrap()
        .canonical_reason()
        .unwrap_or("Unknown");
    let extra = extra
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .unwrap_or_default();
    format!(
        "HTTP/1.1 {status} {reason}\r\n{extra}content-length: {}\r\n\r\n",
        body.len()
    )
}

/// Until the client gives up.
async fn wait(stream: &mut (impl AsyncRead + Unpin)) {
    let _ = stream.read(&mut [0; 1]).await;
}

/// A request without a body, which is all that a fetcher sends to a store.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Head> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
    let mut line = lines.next().unwrap().split(' ');
    let (method, target) = (line.next().unwrap().to_owned(), line.next().unwrap().to_owned());
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    Some(Head {
        method,
        target,
        headers: headers.collect(),
    })
}
