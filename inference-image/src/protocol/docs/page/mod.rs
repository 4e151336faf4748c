//! The page at `/` to try the models from a browser. Its files are fixed and reveal nothing about the models. What it
//! shows about models is loaded as JSON and displayed as text, so that nothing in a model's file can act as markup.
//! Programs request `/` to learn whether the server is alive.

use crate::models::Service;
use crate::protocol::api::Api;
use crate::protocol::docs::examples;
use crate::protocol::header_list::{elements, weighted};
use crate::protocol::routing::routes::Routes;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use modelservice_contract::{ModelReport, TensorSpec};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

/// The page may load its own files, talk to its own server, and do nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const PAGE: File = File {
    path: "/",
    media_type: "text/html; charset=utf-8",
    text: include_str!("page.html"),
};

/// What the page loads.
const PARTS: [File; 5] = [
    File {
        path: "/ui/page.css",
        media_type: "text/css; charset=utf-8",
        text: include_str!("page.css"),
    },
    File {
        path: "/ui/page.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("page.js"),
    },
    File {
        path: "/ui/images.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("images.js"),
    },
    File {
        path: "/ui/lines.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("lines.js"),
    },
    File {
        path: "/ui/icon.svg",
        media_type: "image/svg+xml",
        text: include_str!("icon.svg"),
    },
];

impl File {
    fn answer(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.media_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            // Another version of the server has another page, and the files are small.
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, self.text).into_response()
    }
}

/// Whether a fixed file of the page is at this path.
pub(crate) fn is_file(path: &str) -> bool {
    path == PAGE.path || PARTS.iter().any(|file| file.path == path)
}

/// Adds the page's routes.
pub(crate) fn add(routes: Routes) -> Routes {
    PARTS
        .into_iter()
        .fold(routes, |routes, file| {
            routes.get(file.path, move || std::future::ready(file.answer()))
        })
        .get(PAGE.path, root)
        .get("/ui/models.json", models)
}

/// The page for browsers, which always accept HTML; for other clients, what KServe's SDK for version 1 expects of a
/// live server.
async fn root(headers: HeaderMap) -> Response {
    let accepted = elements(&headers, &header::ACCEPT).filter_map(weighted);
    let is_html = |(name, weight): (&str, f32)| name.eq_ignore_ascii_case("text/html") && weight > 0.0;
    let answer = if accepted.into_iter().any(is_html) {
        PAGE.answer()
    } else {
        let headers = [(header::CACHE_CONTROL, "no-cache")];
        (headers, Json(json!({"status": "alive"}))).into_response()
    };
    ([(header::VARY, "accept")], answer).into_response()
}

/// What the page loads.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    server_version: &'a str,
    onnx_runtime_version: &'a str,
    execution_provider: &'a str,
    models: Vec<ShownModel<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownModel<'a> {
    #[serde(flatten)]
    report: &'a ModelReport,
    /// The inputs in a size that the model accepts.
    example_inputs: Vec<TensorSpec>,
    /// Whether it accepts images.
    classifies: bool,
}

impl<'a> Shown<'a> {
    fn of(service: &'a Service) -> Self {
        let report = service.report();
        let shown = |report: &'a ModelReport| {
            let model = service.model(&report.name)?;
            Some(ShownModel {
                report,
                example_inputs: examples::inputs(model),
                classifies: model.classifier().is_some(),
            })
        };
        Self {
            server_version: &report.server_version,
            onnx_runtime_version: &report.onnx_runtime_version,
            execution_provider: &report.execution_provider,
            models: report.models.iter().filter_map(shown).collect(),
        }
    }
}

async fn models(State(api): State<Arc<Api>>) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-cache")];
    (headers, Json(Shown::of(&api.service))).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::http::HeaderValue;

    /// Otherwise a browser would show JSON, and KServe's SDK would consider the server dead.
    #[tokio::test]
    async fn a_browser_gets_the_page_and_a_program_a_sign_of_life() {
        let page = (PAGE.media_type, PAGE.text);
        let alive = ("application/json", r#"{"status":"alive"}"#);
        for (accept, expected) in [
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), page),
            (Some("application/xml, Text/HTML;Q=0.5"), page),
            (Some("text/html;q=0, */*"), alive),
            (Some("application/x-text/html"), alive),
            (Some("*/*"), alive),
            (None, alive),
        ] {
            let accept = accept.map(|types| (header::ACCEPT, HeaderValue::from_static(types)));
            let answer = root(accept.into_iter().collect()).await;
            assert_eq!(answer.headers()[header::VARY], "accept");
            assert_eq!(answer.headers()[header::CONTENT_TYPE], expected.0);
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX)
                .await
                .unwrap();
            assert_eq!(body, expected.1);
        }
    }
}
