//! The inference protocols on real models, in process. Each refusal is a row of a table in docs/server.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use modelservice_contract::ServerConfig;
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::{config, protocol};
use prost::Message;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use support::onnx::{STRING, identity};
use support::{check_docs_table, example, floats, image, library};
use tower::ServiceExt;

/// `photos` is the real model; `colors` and `tiny` are small; `plain` is `tiny` without model.yaml; `single` is
/// `colors` for one image at a time; `texts` returns its strings.
static SERVICE: LazyLock<Arc<Service>> = LazyLock::new(|| {
    let plain = tempfile::tempdir().unwrap();
    std::fs::copy(example("tiny/model.onnx"), plain.path().join("model.onnx")).unwrap();
    let single = tempfile::tempdir().unwrap();
    std::fs::copy(example("colors/model.yaml"), single.path().join("model.yaml")).unwrap();
    let model = with_a_batch_of_one(std::fs::read(example("colors/model.onnx")).unwrap());
    std::fs::write(single.path().join("model.onnx"), model).unwrap();
    let texts = tempfile::tempdir().unwrap();
    let model = identity(&[("s", STRING, &[-1])]).encode_to_vec();
    std::fs::write(texts.path().join("model.onnx"), model).unwrap();
    let models = [
        ("photos", example("efficientnet-lite0")),
        ("colors", example("colors")),
        ("tiny", example("tiny")),
        ("plain", plain.path().to_owned()),
        ("single", single.path().to_owned()),
        ("texts", texts.path().to_owned()),
    ];
    let models = models.map(|(name, path)| json!({"name": name, "path": path}));
    let limits = json!({
        "maxBodyBytes": 1_000_000, "maxImagePixels": 1_000_000, "maxImagesPerRequest": 3,
    });
    let text = json!({"models": models, "limits": limits}).to_string();
    let config: ServerConfig = config::parse(&text).unwrap();
    Arc::new(Service::load(&config, &library(), 1).unwrap())
});

/// Replaces the name of the dimension with the number 1, which protobuf can encode in the same number of bytes.
fn with_a_batch_of_one(mut model: Vec<u8>) -> Vec<u8> {
    let (name, one) = (b"\x12\x05batch", [0x08, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00]);
    let places: Vec<usize> = (0..model.len())
        .filter(|&place| model[place..].starts_with(name))
        .collect();
    assert_eq!(places.len(), 2, "the input and the output");
    for place in places {
        model[place..place + name.len()].copy_from_slice(&one);
    }
    model
}

const MODELS: [&str; 6] = ["colors", "photos", "plain", "single", "texts", "tiny"];

fn router() -> Router {
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Ready);
    protocol::router(Arc::clone(&SERVICE), lifecycle)
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&self.body)))
    }
}

async fn send(request: Request<Body>) -> Answer {
    let response = router().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    Answer {
        status,
        headers,
        body,
    }
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(body.into())
        .unwrap()
}

fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, Body::empty())
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    request(Method::POST, path, body)
}

fn with(mut request: Request<Body>, name: &'static str, value: &'static str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn png(width: u32, height: u32, color: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let pixels = color.repeat(width as usize * height as usize);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

const FORM: &str = "multipart/form-data; boundary=x";

/// A form with these files, as browsers and curl send it.
fn form(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head = format!(
            "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x--\r\n");
    body
}

fn post_form(path: &str, files: &[(&str, Vec<u8>)]) -> Request<Body> {
    with(post(path, form(files)), "content-type", FORM)
}

/// One of the small images of `examples/images`.
fn stored(name: &str) -> Vec<u8> {
    std::fs::read(image(name)).unwrap()
}

fn half(name: &str) -> Vec<u8> {
    let mut image = stored(name);
    image.truncate(image.len() / 2);
    image
}

fn photo(name: &str) -> Vec<u8> {
    std::fs::read(example(&format!("photos/{name}.jpg"))).unwrap()
}

/// An image for `colors`: 16×16 pixels, red is 1, the others are 0.
fn red() -> Vec<f32> {
    let mut values = vec![0.0; 3 * 16 * 16];
    values[..256].fill(1.0);
    values
}

/// A request for `colors` with one field of its input replaced.
fn infer(key: &str, value: Value) -> Request<Body> {
    let mut input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": red()});
    input[key] = value;
    post("/v2/models/colors/infer", json!({"inputs": [input]}).to_string())
}

/// A request for `colors` whose tensor follows the JSON.
fn infer_binary(size: usize, header_length: Option<usize>, bytes: &[u8]) -> Request<Body> {
    let parameters = json!({"binary_data_size": size});
    let input =
        json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "parameters": parameters});
    let json =
        json!({"id": "seven", "inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
    let length = header_length.unwrap_or(json.len());
    let mut body = json.into_bytes();
    body.extend_from_slice(bytes);
    let mut request = post("/v2/models/colors/infer", body);
    request
        .headers_mut()
        .insert("inference-header-content-length", length.into());
    request
}

fn red_bytes() -> Vec<u8> {
    red().into_iter().flat_map(f32::to_le_bytes).collect()
}

struct Case {
    /// The text in the documentation.
    what: &'static str,
    status: u16,
    /// Part of the message.
    words: &'static str,
    request: fn() -> Request<Body>,
}

const fn case(what: &'static str, status: u16, words: &'static str, request: fn() -> Request<Body>) -> Case {
    Case {
        what,
        status,
        words,
        request,
    }
}

const INFER: &str = "/v2/models/colors/infer";
const PREDICT: &str = "/v1/models/colors:predict";
const PREDICT_TEXTS: &str = "/v1/models/texts:predict";
const CLASSIFY: &str = "/v1/models/colors:classify";

const CASES: &[Case] = &[
    case("a path that does not exist", 404, "nothing at /v3", || get("/v3")),
    case(
        "a method that the path does not have",
        405,
        "DELETE is not allowed",
        || request(Method::DELETE, "/v2", Body::empty()),
    ),
    case(
        "GET of `:predict` or `:classify`",
        405,
        "GET is not allowed at /v1/models/colors:predict: use POST",
        || get(PREDICT),
    ),
    case(
        "a model that is not served",
        404,
        "not served here, only: colors, photos, plain, single, texts, tiny",
        || post("/v2/models/dogs/infer", "{}"),
    ),
    case(
        "a body larger than `limits.maxBodyBytes`",
        413,
        "larger than 1000000 bytes",
        || post(CLASSIFY, vec![0; 1_000_001]),
    ),
    case(
        "a body with a `Content-Encoding` other than gzip, deflate or identity",
        415,
        "use gzip, deflate or none",
        || with(post(CLASSIFY, png(1, 1, [0; 3])), "content-encoding", "br"),
    ),
    case(
        "a body that is compressed several times",
        415,
        "compress it once",
        || {
            with(
                post(CLASSIFY, png(1, 1, [0; 3])),
                "content-encoding",
                "gzip, gzip",
            )
        },
    ),
    case(
        "a body that is not compressed in the way its `Content-Encoding` says",
        400,
        "not compressed as its encoding says",
        || with(post(CLASSIFY, png(1, 1, [0; 3])), "content-encoding", "gzip"),
    ),
    case("infer: a body that is not JSON", 400, "not valid JSON", || {
        post("/v2/models/colors/infer", photo("cat"))
    }),
    case(
        "infer: JSON that ends too early, within `data` or elsewhere",
        400,
        "EOF while parsing a list at line 1 column 86",
        || {
            let whole =
                r#"{"inputs": [{"name": "images", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 0.25"#;
            post(INFER, whole)
        },
    ),
    case("infer: no `inputs`", 400, "missing field `inputs`", || {
        post("/v2/models/colors/infer", "{}")
    }),
    case(
        "infer: an input that the model does not have",
        400,
        "only: images",
        || infer("name", json!("pictures")),
    ),
    case(
        "infer: an input of the model is missing",
        400,
        "input \"images\" is missing",
        || post("/v2/models/colors/infer", r#"{"inputs": []}"#),
    ),
    case("infer: an input given twice", 400, "given twice", || {
        let input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": red()});
        post(
            "/v2/models/colors/infer",
            json!({"inputs": [input, input]}).to_string(),
        )
    }),
    case(
        "infer: a datatype other than the model's",
        400,
        "is FP32, but the request says INT32",
        || infer("datatype", json!("INT32")),
    ),
    case(
        "infer: a datatype that does not exist",
        400,
        "unknown datatype",
        || infer("datatype", json!("FLOAT")),
    ),
    case(
        "infer: a shape other than the model's",
        400,
        "(-1 is any size from 1)",
        || infer("shape", json!([1, 3, 16, 17])),
    ),
    case(
        "infer: a shape with more elements than can be counted",
        400,
        "more elements than any memory can hold",
        || infer("shape", json!([i64::MAX, 3, 16, 16])),
    ),
    case(
        "infer: a number of elements other than the shape's",
        400,
        "does not hold 2 elements",
        || infer("data", json!([1, 2])),
    ),
    case(
        "infer: lists whose nesting does not match the shape",
        400,
        "nested lists do not have the shape",
        || infer("data", json!([[1, 2], [3]])),
    ),
    case(
        "infer: an element that is not a number of the datatype",
        400,
        "expected an FP32",
        || infer("data", json!(["red"])),
    ),
    case(
        "infer: neither `data` nor `binary_data_size`",
        400,
        "neither data nor",
        || infer("data", Value::Null),
    ),
    case(
        "infer: an `id` that is not a string",
        400,
        "id must be a string",
        || {
            let input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": red()});
            post(INFER, json!({"id": 7, "inputs": [input]}).to_string())
        },
    ),
    case(
        "infer: a `timeout` or `priority` that is not a number of at least 0",
        400,
        "expected u64",
        || {
            let input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": red()});
            post(
                INFER,
                json!({"parameters": {"timeout": -1}, "inputs": [input]}).to_string(),
            )
        },
    ),
    case(
        "an `X-Request-Timeout` that is not a number above 0",
        400,
        "decimal number of milliseconds",
        || with(infer("id", json!("x")), "x-request-timeout", "soon"),
    ),
    case(
        "infer: more than 1024 inputs or outputs",
        400,
        "more than 1024 entries",
        || {
            let input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": red()});
            let outputs = vec![json!({"name": "scores"}); 1025];
            post(INFER, json!({"inputs": [input], "outputs": outputs}).to_string())
        },
    ),
    case(
        "infer: more than 1024 parameters",
        400,
        "more than 1024 parameters",
        || {
            let parameters: serde_json::Map<String, Value> =
                (0..1025).map(|index| (format!("p{index}"), json!(1))).collect();
            post(INFER, json!({"inputs": [], "parameters": parameters}).to_string())
        },
    ),
    case(
        "infer: a shape of more than 64 dimensions",
        400,
        "more than 64 entries",
        || infer("shape", json!(vec![1; 65])),
    ),
    case(
        "infer: lists nested deeper than 32",
        400,
        "more than 32 dimensions",
        || {
            let list = format!("{}1{}", "[".repeat(33), "]".repeat(33));
            infer("data", serde_json::from_str(&list).unwrap())
        },
    ),
    case(
        "infer: a tensor in shared memory",
        400,
        "shared memory, which is not implemented",
        || {
            infer(
                "parameters",
                json!({"shared_memory_region": "region", "shared_memory_byte_size": 3072}),
            )
        },
    ),
    case(
        "infer: a `classification` that is not a count of at least 1",
        400,
        "at least 1",
        || {
            let outputs = json!([{"name": "scores", "parameters": {"classification": 0}}]);
            let input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": red()});
            post(INFER, json!({"inputs": [input], "outputs": outputs}).to_string())
        },
    ),
    case(
        "infer: a raw binary request whose length does not fit the shape",
        400,
        "takes 3072 bytes, not 100",
        || with(post(INFER, vec![0; 100]), "inference-header-content-length", "0"),
    ),
    case(
        "a version other than 1",
        404,
        "has no version \"2\", only: 1",
        || post("/v2/models/colors/versions/2/infer", "{}"),
    ),
    case(
        "loading and unloading models",
        501,
        "is not implemented: models are loaded when the server starts",
        || post("/v2/repository/models/colors/load", "{}"),
    ),
    case(
        "registering shared memory",
        501,
        "is not implemented: tensors are sent in requests",
        || get("/v2/systemsharedmemory/status"),
    ),
    case(
        "trace settings",
        501,
        "is not implemented: which requests are traced is set in the configuration",
        || get("/v2/models/colors/trace/setting"),
    ),
    case(
        "log settings",
        501,
        "is not implemented: what is logged is set when the server starts",
        || post("/v2/logging", "{}"),
    ),
    case(
        "an index request that is not JSON",
        400,
        "not a valid index request",
        || post("/v2/repository/index", "ready"),
    ),
    case(
        "infer: a `binary_data_size` that does not fit the shape",
        400,
        "takes 3072 bytes",
        || infer_binary(100, None, &[0; 100]),
    ),
    case(
        "infer: fewer bytes than `binary_data_size`",
        400,
        "only 100 bytes are left",
        || infer_binary(3072, None, &[0; 100]),
    ),
    case(
        "infer: more bytes than `binary_data_size`",
        400,
        "4 bytes follow",
        || infer_binary(3072, None, &[0; 3076]),
    ),
    case(
        "infer: an `Inference-Header-Content-Length` beyond the end of the body",
        400,
        "but the body has only",
        || infer_binary(3072, Some(1 << 20), &[0; 3072]),
    ),
    case(
        "infer: an `Inference-Header-Content-Length` that is not a number",
        400,
        "must be a number",
        || {
            with(
                infer_binary(3072, None, &[0; 3072]),
                "inference-header-content-length",
                "all",
            )
        },
    ),
    case(
        "infer: an output that the model does not have",
        400,
        "only: scores",
        || post("/v2/models/colors/infer", wanted(&["logits"])),
    ),
    case("infer: an output requested twice", 400, "requested twice", || {
        post("/v2/models/colors/infer", wanted(&["scores", "scores"]))
    }),
    case("classify: an empty body", 400, "the image is empty", || {
        post(CLASSIFY, "")
    }),
    case(
        "classify: a body that is not an image",
        415,
        "not a JPEG, PNG, WebP, GIF or BMP",
        || post(CLASSIFY, "%PDF-1.7"),
    ),
    case(
        "classify: an image of a kind that is not supported",
        415,
        "not supported: arithmetic coding",
        || {
            let mut image = photo("cat");
            let frame = image.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
            // Arithmetic coding.
            image[frame + 1] = 0xC9;
            post(CLASSIFY, image)
        },
    ),
    case(
        "classify: a truncated JPEG",
        400,
        "JPEG image is truncated",
        || post(CLASSIFY, half("large-420.jpg")),
    ),
    case("classify: a truncated PNG", 400, "PNG image is truncated", || {
        post(CLASSIFY, half("colour.png"))
    }),
    case(
        "classify: a truncated WebP",
        400,
        "WebP image is truncated",
        || post(CLASSIFY, half("lossy.webp")),
    ),
    case("classify: a truncated GIF", 400, "GIF image is truncated", || {
        post(CLASSIFY, half("palette.gif"))
    }),
    case("classify: a truncated BMP", 400, "BMP image is truncated", || {
        post(CLASSIFY, half("colour.bmp"))
    }),
    case(
        "classify: a damaged image",
        400,
        "the PNG image is broken",
        || {
            let mut image = stored("colour.png");
            let middle = image.len() / 2;
            image[middle] ^= 1;
            post(CLASSIFY, image)
        },
    ),
    case(
        "classify: an image with more than `limits.maxImagePixels`",
        413,
        "at most 1000000 pixels",
        || post(CLASSIFY, png(1001, 1000, [0; 3])),
    ),
    case(
        "classify: an animation with a frame of more than `limits.maxImagePixels`",
        413,
        "60000×60000 pixels",
        || {
            let mut image = stored("animated.gif");
            // The size in the head of the first frame.
            let frame = image.windows(4).position(|four| four == [67, 0, 45, 0]).unwrap();
            let frame = frame
                + 4
                + image[frame + 4..]
                    .windows(4)
                    .position(|four| four == [67, 0, 45, 0])
                    .unwrap();
            image[frame..frame + 2].copy_from_slice(&60_000_u16.to_le_bytes());
            image[frame + 2..frame + 4].copy_from_slice(&60_000_u16.to_le_bytes());
            post(CLASSIFY, image)
        },
    ),
    case(
        "classify: a form in which one image is bad",
        400,
        "image 2 (\"b.png\"): the PNG image is truncated",
        || {
            post_form(
                CLASSIFY,
                &[("a.png", png(1, 1, [0; 3])), ("b.png", half("colour.png"))],
            )
        },
    ),
    case(
        "classify: a form with more images than `limits.maxImagesPerRequest`",
        413,
        "more than 3 images",
        || {
            post_form(
                CLASSIFY,
                &["a", "b", "c", "d"].map(|name| (name, png(1, 1, [0; 3]))),
            )
        },
    ),
    case("classify: a form without an image", 400, "has no image", || {
        post_form(CLASSIFY, &[])
    }),
    case("classify: a truncated form", 400, "the form is broken", || {
        let body = form(&[("a.png", png(1, 1, [0; 3]))]);
        with(
            post(CLASSIFY, body[..body.len() / 2].to_vec()),
            "content-type",
            FORM,
        )
    }),
    case(
        "classify: a form without its boundary",
        400,
        "has no boundary",
        || with(post(CLASSIFY, form(&[])), "content-type", "multipart/form-data"),
    ),
    case(
        "classify: another kind of multipart body",
        415,
        "send multipart/form-data",
        || {
            with(
                post(CLASSIFY, form(&[])),
                "content-type",
                "multipart/mixed; boundary=x",
            )
        },
    ),
    case(
        "classify: a `top_k` that is not a possible number of classes",
        400,
        "from 1 to 3",
        || post("/v1/models/colors:classify?top_k=4", png(1, 1, [0; 3])),
    ),
    case(
        "classify: an unknown query parameter",
        400,
        "the only one is top_k",
        || post("/v1/models/colors:classify?topk=1", png(1, 1, [0; 3])),
    ),
    case(
        "classify: a model whose package has no model.yaml",
        400,
        "no model.yaml",
        || post("/v1/models/plain:classify", photo("cat")),
    ),
    case(
        "predict: neither `instances` nor `inputs`, or both",
        400,
        "neither instances nor inputs",
        || post(PREDICT, "{}"),
    ),
    case(
        "predict: a body that is not JSON, or ends too early",
        400,
        "EOF while parsing a value at line 1 column 20",
        || post(PREDICT, r#"{"instances": [[0.5,"#),
    ),
    case(
        "predict: a body that is not a JSON object",
        400,
        "not a JSON object",
        || post(PREDICT, "[]"),
    ),
    case(
        "predict: lists whose nesting does not match the model's shape",
        400,
        "(-1 is any size from 1)",
        || post(PREDICT, json!({"instances": [red()]}).to_string()),
    ),
    case(
        "predict: an instance without one of the inputs",
        400,
        "instance 0: input \"images\" is missing",
        || post(PREDICT, r#"{"instances": [{}]}"#),
    ),
    case(
        "predict: an instance or column whose name is not that of an input",
        400,
        "only: images",
        || post(PREDICT, r#"{"instances": [{"pictures": []}]}"#),
    ),
    case(
        "predict: a `b64` that is not base64",
        400,
        "expected a string or {\"b64\": BASE64}",
        || post(PREDICT_TEXTS, r#"{"instances": [{"b64": "!"}]}"#),
    ),
    case(
        "predict: an output with a text that is not UTF-8",
        400,
        "is not UTF-8, which JSON requires",
        || post(PREDICT_TEXTS, r#"{"instances": ["a", {"b64": "/w=="}]}"#),
    ),
    case("any other POST to a model", 404, "cannot POST", || {
        post("/v1/models/colors:explain", "")
    }),
];

fn wanted(outputs: &[&str]) -> String {
    let input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": red()});
    let outputs: Vec<Value> = outputs.iter().map(|name| json!({ "name": name })).collect();
    json!({"inputs": [input], "outputs": outputs}).to_string()
}

#[tokio::test]
async fn every_bad_request_is_refused_with_a_status_and_one_shape_of_error() {
    for case in CASES {
        let answer = send((case.request)()).await;
        let error = answer.json();
        assert_eq!(answer.status.as_u16(), case.status, "{}: {error}", case.what);
        let fields = error.as_object().unwrap();
        assert_eq!(fields.len(), 1, "{}: {error}", case.what);
        assert!(
            error["error"].as_str().unwrap().contains(case.words),
            "{}: {error}",
            case.what
        );
    }
    // None of them has done any harm.
    assert_eq!(send(infer("id", json!("x"))).await.status, 200);
}

/// Another server on the way may use the other line.
#[tokio::test]
async fn a_header_that_says_one_thing_comes_once() {
    for name in ["x-request-timeout", "inference-header-content-length"] {
        let mut request = with(infer("id", json!("x")), name, "1000");
        request.headers_mut().append(name, "2000".parse().unwrap());
        let answer = send(request).await;
        let error = answer.json();
        assert!(
            error["error"].as_str().unwrap().contains("is given twice"),
            "{error}"
        );
        assert_eq!(answer.status, 400);
    }
    let signed = with(infer("id", json!("x")), "inference-header-content-length", "+0");
    assert_eq!(send(signed).await.status, 400);
}

#[tokio::test]
async fn a_refused_method_says_which_one_is_possible() {
    for path in [PREDICT, CLASSIFY, "/v2/models/colors:predict", INFER] {
        let answer = send(get(path)).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["allow"]),
            (405, &"POST".parse().unwrap())
        );
    }
}

/// Other formats would be read as Protocol Buffers, and over HTTP/1 the server could not notice that the client of a
/// `Watch` has left.
#[tokio::test]
async fn only_grpc_is_answered_at_its_paths() {
    let watch = "/grpc.health.v1.Health/Watch";
    for (path, content_type, status) in [
        (
            "/inference.GRPCInferenceService/ServerLive",
            "application/grpc+proto",
            200,
        ),
        (
            "/inference.GRPCInferenceService/ServerLive",
            "application/grpc+json",
            415,
        ),
        (
            "/inference.GRPCInferenceService/ModelInfer",
            "application/grpc-web",
            415,
        ),
        (
            "/inference.GRPCInferenceService/ModelStreamInfer",
            "application/grpcfoo",
            415,
        ),
        ("/inference.GRPCInferenceService/Nothing", "application/json", 415),
        ("/grpc.health.v1.Health/Check", "application/grpc", 200),
        ("/grpc.health.v1.Health/Check", "application/grpc-web+proto", 415),
        (watch, "application/grpc+json", 415),
        (watch, "application/grpc", 505),
    ] {
        let answer = send(with(post(path, vec![0; 5]), "content-type", content_type)).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {content_type}");
    }
}

/// Rows that need a full queue, a slow client or full memory are tested next to the code that produces them.
#[test]
fn the_documentation_lists_every_refusal() {
    let row = |case: &Case| format!("| {} | {} | …{}… |", case.what, case.status, case.words);
    let rows: Vec<String> = CASES.iter().map(row).collect();
    check_docs_table(
        "requests that are refused",
        "| What is sent | Status | Message |",
        &rows,
    );
}

#[tokio::test]
async fn the_server_describes_itself_and_its_models() {
    let server = send(get("/v2")).await.json();
    let extensions = server["extensions"].as_array().unwrap();
    assert!(extensions.contains(&json!("binary_tensor_data")), "{server}");
    // Triton's examples check the name, and its clients would load models.
    assert_eq!(server["name"], "triton");
    assert!(!extensions.contains(&json!("model_repository")), "{server}");
    let unknown = send(get("/v2/models/dogs")).await.json();
    let message = unknown["error"].as_str().unwrap();
    assert!(message.starts_with("Request for unknown model"), "{message}");
    for path in [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/photos/ready",
        "/v2/models/photos/versions/1/ready",
        "/v2/models/photos/versions/1",
    ] {
        assert_eq!(send(get(path)).await.status, 200, "{path}");
    }
    let models = send(get("/v2/models")).await.json();
    assert_eq!(models, json!({ "models": MODELS }));
    let model = send(get("/v2/models/photos")).await.json();
    assert_eq!(
        model["inputs"],
        json!([{"name": "images", "datatype": "FP32", "shape": [-1, 3, 224, 224]}])
    );
    assert_eq!(
        model["outputs"],
        json!([{"name": "probabilities", "datatype": "FP32", "shape": [-1, 1000]}])
    );
}

#[tokio::test]
async fn a_server_that_is_leaving_says_so_and_still_answers() {
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Draining);
    let router = protocol::router(Arc::clone(&SERVICE), lifecycle);
    let ready = router.clone().oneshot(get("/v2/health/ready")).await.unwrap();
    assert_eq!(ready.status(), 503);
    let answer = router.oneshot(infer("name", json!("images"))).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn json_tensors_go_in_and_out() {
    let nested: Vec<Value> = red()
        .chunks(256)
        .map(|channel| channel.chunks(16).collect::<Vec<_>>())
        .map(|rows| json!(rows))
        .collect();
    let input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": [nested]});
    let body = json!({"id": "42", "inputs": [input], "outputs": [{"name": "scores"}]}).to_string();
    let answer = send(post("/v2/models/colors/infer", body)).await;
    let expected = json!({
        "model_name": "colors", "model_version": "1", "id": "42",
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": [4.0, 0.0, 0.0]}],
    });
    assert_eq!(answer.json(), expected);
    assert!(
        answer.headers["server-timing"]
            .to_str()
            .unwrap()
            .contains("inference;dur=")
    );
}

#[tokio::test]
async fn binary_tensors_go_in_and_out() {
    let answer = send(infer_binary(3072, None, &red_bytes())).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    let length: usize = answer.headers["inference-header-content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let (json, bytes) = answer.body.split_at(length);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["id"], "seven");
    let output = json!({"name": "scores", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}});
    assert_eq!(json["outputs"], json!([output]));
    assert_eq!(bytes, [4.0_f32, 0.0, 0.0].map(f32::to_le_bytes).concat());
}

/// A batch is answered row by row.
#[tokio::test]
async fn several_images_in_one_request_are_a_batch() {
    let data = [red(), vec![0.5; 768]].concat();
    let input = json!({"name": "images", "shape": [2, 3, 16, 16], "datatype": "FP32", "data": data});
    let answer = send(post(
        "/v2/models/colors/infer",
        json!({"inputs": [input]}).to_string(),
    ))
    .await
    .json();
    assert_eq!(answer["outputs"][0]["shape"], json!([2, 3]));
    assert_eq!(
        answer["outputs"][0]["data"],
        json!([4.0, 0.0, 0.0, 2.0, 2.0, 2.0])
    );
}

#[tokio::test]
async fn an_image_is_classified_whatever_its_content_type_says() {
    for (color, label) in [
        ([250, 20, 20], "red"),
        ([0, 200, 60], "green"),
        ([10, 10, 130], "blue"),
    ] {
        let request = post("/v2/models/colors:classify?top_k=1", png(40, 30, color));
        let answer = send(with(request, "content-type", "application/x-www-form-urlencoded"))
            .await
            .json();
        assert_eq!(answer["model"], "colors");
        assert_eq!(answer["predictions"].as_array().unwrap().len(), 1);
        assert_eq!(answer["predictions"][0]["label"], label, "{answer}");
    }
}

/// Every format gives the same result, so that a client may send what it has.
#[tokio::test]
async fn the_formats_are_told_apart_by_their_first_bytes() {
    let expected = send(post(CLASSIFY, stored("colour.png"))).await.json();
    for name in [
        "lossless.webp",
        "colour.bmp",
        "colour-444.jpg",
        "palette.gif",
        "animated-lossless.webp",
    ] {
        let answer = send(post(CLASSIFY, stored(name))).await.json();
        for (one, other) in std::iter::zip(scores(&answer), scores(&expected)) {
            assert!((one - other).abs() < 0.02, "{name}: {answer}");
        }
    }
}

/// Probabilities in the order of the classes.
fn scores(answer: &Value) -> Vec<f64> {
    let predictions = answer["predictions"].as_array().unwrap();
    let mut scores = vec![0.0; predictions.len()];
    for prediction in predictions {
        let class = usize::try_from(prediction["class"].as_u64().unwrap()).unwrap();
        scores[class] = prediction["probability"].as_f64().unwrap();
    }
    scores
}

/// In the order of the form, under the names of its files, and in one run if the model accepts batches.
#[tokio::test]
async fn several_images_in_one_form_are_answered_together() {
    let files = [
        ("fire.png", png(5, 4, [250, 20, 20])),
        ("sea.png", png(40, 30, [10, 10, 130])),
        ("grass.png", png(3, 9, [0, 200, 60])),
    ];
    for model in ["colors", "single"] {
        let request = post_form(&format!("/v1/models/{model}:classify?top_k=1"), &files);
        let answer = send(request).await.json();
        assert_eq!(answer["model"], *model);
        let results = answer["results"].as_array().unwrap();
        let results: Vec<(&str, &str)> = results
            .iter()
            .map(|result| {
                let best = &result["predictions"][0]["label"];
                (result["name"].as_str().unwrap(), best.as_str().unwrap())
            })
            .collect();
        let expected = [("fire.png", "red"), ("sea.png", "blue"), ("grass.png", "green")];
        assert_eq!(results, expected, "{model}");

        let bad = [files[0].clone(), ("torn.png", half("colour.png"))];
        let answer = send(post_form(&format!("/v1/models/{model}:classify"), &bad)).await;
        let error = answer.json();
        assert_eq!(answer.status, 400, "{error}");
        let message = error["error"].as_str().unwrap();
        assert!(
            message.starts_with("image 2 (\"torn.png\"): "),
            "{model}: {message}"
        );
    }
}

/// How often the model has run with three or four rows.
fn runs_of_three(model: &str) -> u64 {
    let metrics = SERVICE.metrics().unwrap();
    let up_to = |size: &str| {
        let name = format!("modelservice_batch_size_bucket{{le=\"{size}\",model=\"{model}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap().parse::<u64>().unwrap()
    };
    up_to("4.0") - up_to("2.0")
}

/// A batch gets the same results as each of its images.
#[tokio::test]
async fn a_batch_changes_no_answer() {
    let photos = ["cat", "coffee", "flower"];
    let files = photos.map(|name| (name, photo(name)));
    let before = runs_of_three("photos");
    let batch = send(post_form("/v1/models/photos:classify?top_k=3", &files))
        .await
        .json();
    assert_eq!(runs_of_three("photos"), before + 1, "they were not one run");
    for (index, name) in photos.iter().enumerate() {
        let alone = send(post("/v1/models/photos:classify?top_k=3", photo(name)))
            .await
            .json();
        for place in 0..3 {
            let (one, other) = (
                &batch["results"][index]["predictions"][place],
                &alone["predictions"][place],
            );
            assert_eq!(one["class"], other["class"], "{name}");
            let difference = one["probability"].as_f64().unwrap() - other["probability"].as_f64().unwrap();
            assert!(difference.abs() < 1e-4, "{name}: {one} {other}");
        }
    }
}

/// Real models on real photographs, over HTTP: the results are those of Pillow and ONNX Runtime in Python.
#[tokio::test]
async fn photographs_are_classified_as_by_the_reference() {
    for (model, package, classes) in [
        ("photos", "efficientnet-lite0", 1000),
        ("tiny", "tiny", 10),
        ("colors", "colors", 3),
    ] {
        for photo in std::fs::read_dir(example("photos")).unwrap() {
            let path = photo.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let request = post(
                &format!("/v1/models/{model}:classify?top_k={classes}"),
                std::fs::read(&path).unwrap(),
            );
            let answer = send(request).await.json();
            let ours = scores(&answer);
            let reference = floats(&example(&format!("reference/{package}/{name}.probabilities")));
            assert_eq!(ours.len(), reference.len());
            for (class, (&our, &expected)) in ours.iter().zip(&reference).enumerate() {
                let difference = (our - f64::from(expected)).abs();
                assert!(
                    difference < 0.02,
                    "{model}: {name}: class {class}: {our} for {expected}"
                );
            }
            let best = answer["predictions"][0]["class"].as_u64().unwrap();
            let expected = reference.iter().copied().fold(0.0, f32::max);
            assert_eq!(
                reference[usize::try_from(best).unwrap()],
                expected,
                "{model}: {name}: another best class than Python's"
            );
        }
    }
}

/// The labels match the subjects of the photographs: the reference could be as wrong as we are.
#[tokio::test]
async fn the_answers_make_sense() {
    let labels = std::fs::read_to_string(example("efficientnet-lite0/labels.txt")).unwrap();
    let labels: Vec<&str> = labels.lines().collect();
    for (name, classes) in [
        ("cat", vec![281, 282, 285]),
        ("coffee", vec![967]),
        ("flower", vec![985]),
    ] {
        let answer = send(post("/v1/models/photos:classify", photo(name))).await.json();
        let best = &answer["predictions"][0];
        let class = usize::try_from(best["class"].as_u64().unwrap()).unwrap();
        assert!(classes.contains(&class), "{name}: {best}");
        assert_eq!(best["label"], labels[class]);
    }
}

/// The same tensor gives the same numbers to the last digits, so any differences above come from decoding.
#[tokio::test]
async fn the_references_own_tensor_gives_the_references_answer() {
    for (model, package, output, shape) in [
        ("photos", "efficientnet-lite0", "probabilities", [1, 3, 224, 224]),
        ("tiny", "tiny", "scores", [1, 3, 32, 32]),
    ] {
        let tensor = std::fs::read(example(&format!("reference/{package}/coffee.tensor"))).unwrap();
        let parameters = json!({"binary_data_size": tensor.len()});
        let input = json!({"name": "images", "shape": shape, "datatype": "FP32", "parameters": parameters});
        let mut body = json!({"inputs": [input], "outputs": [{"name": output}]})
            .to_string()
            .into_bytes();
        let length = body.len();
        body.extend_from_slice(&tensor);
        let mut request = post(&format!("/v2/models/{model}/infer"), body);
        request
            .headers_mut()
            .insert("inference-header-content-length", length.into());
        let answer = send(request).await.json();
        let reference = floats(&example(&format!("reference/{package}/coffee.probabilities")));
        let values = answer["outputs"][0]["data"].as_array().unwrap();
        let values: Vec<f64> = values.iter().map(|value| value.as_f64().unwrap()).collect();
        let values = if package == "tiny" {
            softmax(&values)
        } else {
            values
        };
        assert_eq!(values.len(), reference.len());
        for (value, expected) in values.iter().zip(reference) {
            assert!(
                (value - f64::from(expected)).abs() < 1e-4,
                "{model}: {value} for {expected}"
            );
        }
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().map(|score| score.exp()).sum();
    scores.iter().map(|score| score.exp() / sum).collect()
}

/// What perf_analyzer and tritonclient request before they send anything.
#[tokio::test]
async fn a_model_has_a_configuration_as_triton_would_need_it() {
    let config = send(get("/v2/models/photos/config")).await.json();
    assert_eq!(config["platform"], "onnxruntime_onnx");
    // 1,000,000 bytes hold one image of 602,112.
    assert_eq!(config["max_batch_size"], 1);
    let input =
        json!({"name": "images", "data_type": "TYPE_FP32", "format": "FORMAT_NCHW", "dims": [3, 224, 224]});
    assert_eq!(config["input"], json!([input]));
    let output = json!({"name": "probabilities", "data_type": "TYPE_FP32", "dims": [1000]});
    assert_eq!(config["output"], json!([output]));
    let colors = send(get("/v2/models/colors/versions/1/config")).await.json();
    assert_eq!(colors["max_batch_size"], 325);
    for (model, format) in [
        ("tiny", "FORMAT_NCHW"),
        ("plain", "FORMAT_NONE"),
        ("single", "FORMAT_NONE"),
    ] {
        let config = send(get(&format!("/v2/models/{model}/config"))).await.json();
        assert_eq!(config["input"][0]["format"], format, "{model}");
    }
}

#[tokio::test]
async fn the_repository_has_an_index() {
    let everything = MODELS.map(|name| json!({"name": name, "version": "1", "state": "READY", "reason": ""}));
    for request in [
        get("/v2/repository/index"),
        post("/v2/repository/index", ""),
        post("/v2/repository/index", r#"{"ready": true}"#),
    ] {
        assert_eq!(send(request).await.json(), json!(everything));
    }
}

/// A client without JSON sends the bare tensor.
#[tokio::test]
async fn a_raw_binary_request_is_the_tensor_itself() {
    let answer = send(with(
        post(INFER, red_bytes()),
        "inference-header-content-length",
        "0",
    ))
    .await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let (json, bytes) = split(&answer);
    assert_eq!(json["outputs"][0]["shape"], json!([1, 3]));
    assert_eq!(bytes, [4.0_f32, 0.0, 0.0].map(f32::to_le_bytes).concat());
}

/// The JSON and the bytes of a response.
fn split(answer: &Answer) -> (Value, &[u8]) {
    let length = answer.headers["inference-header-content-length"]
        .to_str()
        .unwrap();
    let (json, bytes) = answer.body.split_at(length.parse().unwrap());
    (serde_json::from_slice(json).unwrap(), bytes)
}

#[tokio::test]
async fn unknown_parameters_come_back_and_known_ones_do_not() {
    let input = json!({"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": red()});
    let parameters =
        json!({"trace": {"a": [1, "\u{e9}"]}, "timeout": 60_000_000, "priority": 1, "sequence_id": 7});
    let answer = send(post(
        INFER,
        json!({"inputs": [input], "parameters": parameters}).to_string(),
    ))
    .await
    .json();
    assert_eq!(answer["parameters"], json!({"trace": {"a": [1, "\u{e9}"]}}));
}

#[tokio::test]
async fn the_best_classes_come_instead_of_an_output_when_asked_for() {
    let data = [red(), red()].concat();
    let input = json!({"name": "images", "shape": [2, 3, 16, 16], "datatype": "FP32", "data": data});
    let wanted = |binary: bool| json!([{"name": "scores", "parameters": {"classification": 2, "binary_data": binary}}]);
    let body = |outputs: Value| json!({"inputs": [input], "outputs": outputs}).to_string();
    let answer = send(post(INFER, body(wanted(false)))).await.json();
    let row = ["4.000000:0:red", "0.000000:1:green"];
    let data = [row, row].concat();
    let output = json!({"name": "scores", "datatype": "BYTES", "shape": [2, 2], "data": data});
    assert_eq!(answer["outputs"], json!([output]));
    let answer = send(post(INFER, body(wanted(true)))).await;
    let (_, bytes) = split(&answer);
    assert_eq!(&bytes[..18], b"\x0e\0\0\x004.000000:0:red");
}

#[tokio::test]
async fn bodies_may_be_compressed_both_ways() {
    for (encoding, magic) in [("gzip", &b"\x1f\x8b"[..]), ("deflate", b"\x78")] {
        let body = infer_binary(3072, None, &red_bytes())
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        let (json, bytes) = body.split_at(body.len() - 3072);
        let mut json: Value = serde_json::from_slice(json).unwrap();
        // It is echoed, and makes the response large.
        json["parameters"]["trace"] = "x".repeat(16 << 10).into();
        let json = json.to_string();
        let length = json.len();
        let body = [json.as_bytes(), bytes].concat();
        let mut request = post(INFER, compress(encoding, &body));
        request
            .headers_mut()
            .insert("inference-header-content-length", length.into());
        request
            .headers_mut()
            .insert("content-encoding", encoding.parse().unwrap());
        let accept = format!("br, identity;q=0.1, {encoding};q=0.5, *;q=0");
        request
            .headers_mut()
            .insert("accept-encoding", accept.parse().unwrap());
        let mut answer = send(request).await;
        assert_eq!(answer.headers["content-encoding"], encoding);
        assert!(answer.body.starts_with(magic));
        answer.body = decompress(encoding, &answer.body);
        let (json, bytes) = split(&answer);
        assert_eq!(json["id"], "seven");
        assert_eq!(bytes, [4.0_f32, 0.0, 0.0].map(f32::to_le_bytes).concat());
    }
    // Most clients offer gzip, whatever they request.
    let small = send(with(infer("id", json!("x")), "accept-encoding", "gzip, deflate")).await;
    assert!(!small.headers.contains_key("content-encoding"));
    let mut plain = infer("id", json!("x"));
    let mut body: Value =
        serde_json::from_slice(&plain.body_mut().collect().await.unwrap().to_bytes()).unwrap();
    body["parameters"]["trace"] = "x".repeat(16 << 10).into();
    let plain = send(with(
        post(INFER, body.to_string()),
        "accept-encoding",
        "gzip;q=0, br",
    ))
    .await;
    assert!(!plain.headers.contains_key("content-encoding"));
}

/// Over a slow network, a thousand classes or a page of JSON take noticeable time.
#[tokio::test]
async fn large_answers_of_json_are_compressed_for_who_asks_for_it() {
    let text = "é\"".repeat(8 << 10);
    let texts = json!({"instances": [text, "a"]}).to_string();
    let requests: [fn(String) -> Request<Body>; 3] = [
        |texts| post(PREDICT_TEXTS, texts),
        |_| post("/v1/models/photos:classify?top_k=1000", photo("cat")),
        |_| get("/openapi.json"),
    ];
    for request in requests {
        let plain = send(request(texts.clone())).await;
        assert!(plain.body.len() > 16 << 10 && !plain.headers.contains_key("content-encoding"));
        for encoding in ["gzip", "deflate"] {
            let mut answer = send(with(request(texts.clone()), "accept-encoding", encoding)).await;
            assert_eq!(answer.headers["content-encoding"], encoding);
            assert_eq!(answer.headers["vary"], "accept-encoding");
            assert!(answer.body.len() < plain.body.len() / 2);
            answer.body = decompress(encoding, &answer.body);
            assert_eq!(answer.json(), plain.json());
        }
    }
    for small in [
        get("/v2/models/tiny"),
        post(PREDICT_TEXTS, r#"{"instances": ["a"]}"#),
    ] {
        let answer = send(with(small, "accept-encoding", "gzip")).await;
        assert!(
            !answer.headers.contains_key("content-encoding"),
            "{}",
            answer.json()
        );
    }
}

fn compress(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    use flate2::{Compression, read};
    use std::io::Read;
    let mut out = Vec::new();
    match encoding {
        "gzip" => read::GzEncoder::new(bytes, Compression::default()).read_to_end(&mut out),
        _ => read::ZlibEncoder::new(bytes, Compression::default()).read_to_end(&mut out),
    }
    .unwrap();
    out
}

fn decompress(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    use flate2::read;
    use std::io::Read;
    let mut out = Vec::new();
    match encoding {
        "gzip" => read::GzDecoder::new(bytes).read_to_end(&mut out),
        _ => read::ZlibDecoder::new(bytes).read_to_end(&mut out),
    }
    .unwrap();
    out
}

/// A distant deadline does no harm, and one that has passed is reported as such.
#[tokio::test]
async fn a_request_says_how_long_its_client_waits() {
    for milliseconds in ["60000", "60000.5", "1e300"] {
        let request = with(infer("id", json!("x")), "x-request-timeout", milliseconds);
        assert_eq!(send(request).await.status, 200, "{milliseconds}");
    }
    let late = send(with(infer("id", json!("x")), "x-request-timeout", "0.000001")).await;
    assert_eq!(late.status, 504, "{}", late.json());
}

#[tokio::test]
async fn kserve_v1_lists_models_and_predicts_by_rows_and_by_columns() {
    assert_eq!(send(get("/v1/models")).await.json(), json!({ "models": MODELS }));
    assert_eq!(
        send(get("/v1/models/colors")).await.json(),
        json!({"name": "colors", "ready": true})
    );
    let image: Vec<Vec<Vec<f32>>> = red()
        .chunks(256)
        .map(|channel| channel.chunks(16).map(<[f32]>::to_vec).collect())
        .collect();
    for body in [
        json!({"instances": [image, image]}),
        json!({"instances": [{"images": image}, {"images": image}]}),
        json!({"inputs": [image, image]}),
        json!({"inputs": {"images": [image, image]}}),
    ] {
        let answer = send(post(PREDICT, body.to_string())).await;
        assert_eq!(
            answer.json(),
            json!({"predictions": [[4.0, 0.0, 0.0], [4.0, 0.0, 0.0]]})
        );
        assert!(answer.headers.contains_key("server-timing"));
    }
}
