//! What goes wrong between a store and the fetcher, for each kind of store: a test for each, and a table in the docs.

use crate::{
    bucket::{Secret, Sources as _},
    finding::read,
    proxy::{Fault, Head, Proxy},
    web::{File, Web},
};
use modelservice_contract::FetchReason;
use modelservice_fetch::{
    error::{FetchError, Retry},
    source::Source,
};
use modelservice_test_stores::{
    bucket::{Bucket, Kind},
    processes::{S3_OTHER_KEY_ID, S3_OTHER_SECRET, Servers},
};
use std::{fs, path::Path, time::Duration};

/// Where a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Store(Kind),
    Web,
}

impl Site {
    pub(crate) const ALL: [Self; 4] = [
        Self::Store(Kind::S3),
        Self::Store(Kind::Gcs),
        Self::Store(Kind::Azure),
        Self::Web,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Store(Kind::S3) => "s3",
            Self::Store(Kind::Gcs) => "gs",
            Self::Store(Kind::Azure) => "az",
            Self::Web => "https",
        }
    }
}

/// What becomes of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Again,
    AgainLater,
    Unavailable,
    Denied,
    Changed,
    Forbidden,
}

impl Outcome {
    /// As the docs say it.
    fn shown(self) -> &'static str {
        match self {
            Self::Again => "tried again",
            Self::AgainLater => "tried again when the store says",
            Self::Unavailable => "`Unavailable`",
            Self::Denied => "`Denied`",
            Self::Changed => "`SourceChanged`",
            Self::Forbidden => "`Forbidden`",
        }
    }

    fn is(self, error: &FetchError) -> bool {
        let expected = match self {
            Self::Again => (FetchReason::Unavailable, Retry::Soon),
            Self::AgainLater => (FetchReason::Unavailable, Retry::After(Duration::from_secs(7))),
            Self::Unavailable => (FetchReason::Unavailable, Retry::Never),
            Self::Denied => (FetchReason::Denied, Retry::Never),
            Self::Changed => (FetchReason::SourceChanged, Retry::Never),
            Self::Forbidden => (FetchReason::Forbidden, Retry::Never),
        };
        (error.reason, error.retry) == expected
    }
}

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// What happens, as a test's name and in the docs.
    pub(crate) what: &'static str,
    outcome: Outcome,
    fault: fn(&Proxy) -> Fault,
    /// What the message says.
    says: &'static str,
}

const SAYS_SEVEN: Option<(&str, &str)> = Some(("retry-after", "7"));

fn status(status: u16, header: Option<(&'static str, &str)>, body: &'static str) -> Fault {
    Fault::Status(status, header.map(|(name, value)| (name, value.to_owned())), body)
}

/// Every row, for a read of a part of an object that has been found.
pub(crate) const ROWS: [Row; 19] = [
    Row {
        what: "status 500",
        outcome: Outcome::Again,
        fault: |_| {
            status(
                500,
                None,
                "<Error><Code>InternalError</Code><Message>oops</Message></Error>",
            )
        },
        says: "500: InternalError: oops",
    },
    Row {
        what: "status 502 with a page",
        outcome: Outcome::Again,
        fault: |_| status(502, None, "<html>bad gateway</html>"),
        says: "502 Bad Gateway",
    },
    Row {
        what: "status 429 with Retry-After",
        outcome: Outcome::AgainLater,
        fault: |_| status(429, SAYS_SEVEN, "slow down"),
        says: "429: slow down",
    },
    Row {
        what: "status 503 with Retry-After",
        outcome: Outcome::AgainLater,
        fault: |_| status(503, SAYS_SEVEN, "<Error><Code>SlowDown</Code></Error>"),
        says: "503: SlowDown",
    },
    Row {
        what: "status 403",
        outcome: Outcome::Denied,
        fault: |_| {
            status(
                403,
                None,
                "<Error><Code>AccessDenied</Code><Message>No.</Message></Error>",
            )
        },
        says: "AccessDenied: No",
    },
    Row {
        what: "the object is gone",
        outcome: Outcome::Changed,
        fault: |_| status(404, None, ""),
        says: "spec.model.refresh",
    },
    Row {
        what: "the object was overwritten",
        outcome: Outcome::Changed,
        fault: |_| status(412, None, ""),
        says: "spec.model.refresh",
    },
    Row {
        what: "a reset in the middle of the body",
        outcome: Outcome::Again,
        fault: |_| Fault::Reset,
        says: "",
    },
    Row {
        what: "a body that ends in its middle",
        outcome: Outcome::Again,
        fault: |_| Fault::Truncated,
        says: "broke off",
    },
    Row {
        what: "a body that stands still",
        outcome: Outcome::Again,
        fault: |_| Fault::Stalled,
        says: "has sent nothing for 1 s",
    },
    Row {
        what: "a connection without an answer",
        outcome: Outcome::Again,
        fault: |_| Fault::Silent,
        says: "has not answered within 2 s",
    },
    Row {
        what: "a body that is shorter than what was asked for",
        outcome: Outcome::Again,
        fault: |_| Fault::Shorter,
        says: "of 1000 bytes",
    },
    Row {
        what: "a body that is longer than what was asked for",
        outcome: Outcome::Again,
        fault: |_| Fault::Longer,
        says: "more than the 1000 bytes",
    },
    Row {
        what: "bytes of another part",
        outcome: Outcome::Again,
        fault: |_| Fault::OtherRange,
        says: "",
    },
    Row {
        what: "the whole object instead of a part",
        outcome: Outcome::Again,
        fault: |_| Fault::NotPartial,
        says: "",
    },
    Row {
        what: "a redirect in a circle",
        outcome: Outcome::Unavailable,
        fault: |proxy| redirect(proxy.url.join("/circle").unwrap().as_str()),
        says: "in a circle",
    },
    Row {
        what: "a redirect to a metadata service",
        outcome: Outcome::Forbidden,
        fault: |proxy| redirect(&format!("{}://169.254.169.254/latest", proxy.url.scheme())),
        says: "metadata service",
    },
    Row {
        what: "a redirect to another scheme",
        outcome: Outcome::Forbidden,
        fault: |_| redirect("file:///etc/passwd"),
        says: "file:",
    },
    Row {
        what: "a redirect to a server that does not answer",
        outcome: Outcome::Again,
        fault: |proxy| redirect(&format!("{}://nobody.invalid/", proxy.url.scheme())),
        says: "nobody.invalid cannot be resolved",
    },
];

fn redirect(to: &str) -> Fault {
    Fault::Status(307, Some(("location", to.to_owned())), "")
}

/// A model behind a proxy.
pub(crate) struct Subject {
    pub(crate) proxy: Proxy,
    pub(crate) source: Box<dyn Source>,
    pub(crate) secret: Secret,
    pub(crate) body: Vec<u8>,
}

impl Subject {
    pub(crate) async fn new(servers: &Servers, site: Site) -> Self {
        let body: Vec<u8> = (0..100_000_u32).map(|index| (index % 251) as u8).collect();
        match site {
            Site::Store(kind) => {
                let bucket = Bucket::new(servers, kind).await;
                bucket.put("models/resnet.onnx", &body).await;
                let proxy = Proxy::start(&bucket.server(), None).await;
                let secret = bucket.secret(&proxy.url);
                let source = bucket
                    .source("models/resnet.onnx", &proxy.url, Some(&secret))
                    .unwrap();
                Self {
                    proxy,
                    source,
                    secret,
                    body,
                }
            }
            Site::Web => {
                let file = File {
                    body: body.clone(),
                    ..File::default()
                };
                let web = Web::start(file).await;
                let secret = web.secret();
                secret.set("headers", "Authorization: Bearer https-secret");
                let source = Box::new(web.source("models/resnet.onnx", Some(&secret), None).unwrap());
                let proxy = web.proxy;
                Self {
                    proxy,
                    source,
                    secret,
                    body,
                }
            }
        }
    }
}

/// A test: the fault is reported as the table says, and what follows it is right.
pub(crate) async fn a_fault_is_reported_and_overcome(servers: &Servers, site: Site, row: Row) {
    let subject = Subject::new(servers, site).await;
    let (proxy, source) = (&subject.proxy, &subject.source);
    let found = source.find(None).await.unwrap();
    let object = &found.objects[0];
    let fault = (row.fault)(proxy);
    proxy.fail(move |_| Some(fault.clone()));
    let error = read(source.as_ref(), object, 500..1_500).await.unwrap_err();
    assert!(row.outcome.is(&error), "{:?}: {error:?}", row.outcome);
    assert!(error.message.contains(row.says), "{}", error.message);
    proxy.heal();
    let bytes = read(source.as_ref(), object, 500..1_500).await.unwrap();
    assert_eq!(bytes, subject.body[500..1_500]);
}

/// A store that is busy when the source is looked for.
pub(crate) async fn a_failing_store_does_not_look_like_an_empty_one(servers: &Servers, site: Site) {
    let subject = Subject::new(servers, site).await;
    for (fault, outcome) in [
        (status(500, None, ""), Outcome::Again),
        (status(503, SAYS_SEVEN, ""), Outcome::AgainLater),
        (
            status(403, None, "<Error><Code>AccessDenied</Code></Error>"),
            Outcome::Denied,
        ),
        (Fault::Silent, Outcome::Again),
    ] {
        let shown = format!("{fault:?}");
        subject.proxy.fail(move |_| Some(fault.clone()));
        let error = subject.source.find(None).await.unwrap_err();
        assert!(outcome.is(&error), "{shown}: {error:?}");
    }
    // Said in a body, which the answer to a HEAD does not have.
    let denied = status(403, None, "<Error><Code>AccessDenied</Code></Error>");
    subject.proxy.fail(move |_| Some(denied.clone()));
    let error = subject.source.find(None).await.unwrap_err();
    assert!(error.message.contains("403: AccessDenied"), "{}", error.message);
    subject.proxy.heal();
    subject.source.find(None).await.unwrap();
}

/// Otherwise a store, or whoever controls its answers, passes the credentials on.
pub(crate) async fn a_redirect_to_another_host_carries_no_credentials(servers: &Servers, site: Site) {
    let subject = Subject::new(servers, site).await;
    let other = Subject::new(servers, site).await;
    let found = subject.source.find(None).await.unwrap();
    // To the path that was asked for, so that only who is asked is another.
    let (target, port) = (other.proxy.clone(), other.proxy.url.port().unwrap());
    subject.proxy.fail(move |head: &Head| {
        let host = target.url.host_str().unwrap();
        let location = format!("{}://{host}:{port}{}", target.url.scheme(), head.target);
        Some(redirect(&location))
    });
    let before = other.proxy.seen().len();
    // Another authority vouches for the other web server; the stores refuse whom they do not know. Either way, what
    // matters is what was sent.
    let _ = read(subject.source.as_ref(), &found.objects[0], 500..1_500).await;
    let allowed = [
        "accept",
        "accept-encoding",
        "host",
        "if-match",
        "if-range",
        "range",
        "user-agent",
    ];
    let seen = other.proxy.seen();
    for head in &seen[before..] {
        for (name, value) in &head.headers {
            assert!(allowed.contains(&name.as_str()), "{name}: {value}");
        }
        assert!(!head.target.to_lowercase().contains("sig"), "{}", head.target);
    }
    assert_eq!(seen.len() - before, usize::from(site != Site::Web));
    let ours = subject.proxy.seen();
    let is_signed = ours.last().unwrap().header("authorization").is_some();
    assert_eq!(
        is_signed,
        site != Site::Store(Kind::Gcs),
        "the first host gets the credentials"
    );
}

/// The kubelet renews a mounted Secret; a download that takes hours must go on.
pub(crate) async fn credentials_that_expire_in_the_middle_are_read_again(servers: &Servers, site: Site) {
    let subject = Subject::new(servers, site).await;
    let found = subject.source.find(None).await.unwrap();
    let (renewed, sent) = match site {
        Site::Store(_) => (
            [
                ("AWS_ACCESS_KEY_ID", S3_OTHER_KEY_ID),
                ("AWS_SECRET_ACCESS_KEY", S3_OTHER_SECRET),
            ]
            .as_slice(),
            S3_OTHER_KEY_ID,
        ),
        Site::Web => (
            [("headers", "Authorization: Bearer renewed")].as_slice(),
            "Bearer renewed",
        ),
    };
    let is_renewed = move |head: &Head| {
        head.header("authorization")
            .is_some_and(|value| value.contains(sent))
    };
    subject.proxy.fail(move |head| {
        let expired = "<Error><Code>ExpiredToken</Code><Message>It has expired.</Message></Error>";
        (!is_renewed(head)).then(|| status(403, None, expired))
    });
    let object = &found.objects[0];
    let error = read(subject.source.as_ref(), object, 0..10).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Denied, "{}", error.message);
    assert_eq!(error.retry, Retry::Soon, "the kubelet may be about to renew it");
    for (key, value) in renewed {
        subject.secret.set(key, value);
    }
    let bytes = read(subject.source.as_ref(), object, 0..10).await.unwrap();
    assert_eq!(bytes, subject.body[..10]);
    assert!(is_renewed(subject.proxy.seen().last().unwrap()));
}

/// The table in the docs is what the tests test.
pub(crate) fn the_docs_have_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/model-sources.md");
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- faults: begin -->\n", "<!-- faults: end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let expected = format!("{before}{begin}{}{end}{after}", table());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    assert!(
        text == expected,
        "docs/model-sources.md is stale; run UPDATE_GENERATED=1 cargo test --test stores"
    );
}

fn table() -> String {
    let names = Site::ALL.map(|site| format!("`{}://`", site.name()));
    let header = format!(
        "\n| What happens | {} |\n|---|---|---|---|---|\n",
        names.join(" | ")
    );
    let rows = ROWS.iter().map(|row| {
        let outcomes = Site::ALL.map(|_| row.outcome.shown());
        format!("| {} | {} |\n", row.what, outcomes.join(" | "))
    });
    header + &rows.collect::<String>() + "\n"
}
