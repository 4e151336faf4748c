//! The page at `/`, in a headless Chromium.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod browser;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::protocol;
use prost::Message;
use serde_json::{Value, json};
use stage::{Stage, served};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use support::onnx::{self, BOOL, FLOAT, FLOAT16, Graph, INT64, STRING, identity, node, port, weights};
use support::{example, library, root};

fn photo(name: &str) -> PathBuf {
    example(&format!("photos/{name}.jpg"))
}

/// A package of this model; with `yaml` it has a model.yaml.
fn package(model: &onnx::Model, yaml: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), model.encode_to_vec()).unwrap();
    if let Some(yaml) = yaml {
        std::fs::write(folder.path().join("model.yaml"), yaml).unwrap();
    }
    folder
}

fn get(url: &str) -> Value {
    let output = Command::new("curl")
        .args(["--silent", "--fail", url])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The whole purpose: people without tools see what the model says about a photo.
#[test]
fn a_photo_is_classified_when_it_is_chosen_and_when_it_is_dropped() {
    let mut stage = Stage::new(&[("photos", example("efficientnet-lite0"))]);
    stage.pick(&[&photo("cat")]);
    let cat = "a cat having a striped coat";
    assert_eq!(stage.browser.texts(".classes .label").len(), 5);
    assert_eq!(stage.browser.texts(".classes .label")[0], cat);
    assert_eq!(stage.browser.text("figcaption"), "cat.jpg");
    let said = stage.browser.text(".status");
    assert!(said.starts_with(&format!("cat.jpg: {cat}, 3")), "{said}");
    let timing = stage.browser.texts(".timing li");
    for (text, start) in timing
        .iter()
        .zip(["queue", "preprocessing", "inference", "with the network"])
    {
        assert!(text.starts_with(start) && text.ends_with(" ms"), "{timing:?}");
    }
    assert_eq!(timing.len(), 4);
    let width = "[...document.querySelectorAll('.bar')].map((bar) => \
                 parseFloat(getComputedStyle(bar, '::before').width) / bar.clientWidth)";
    let widths: Vec<f64> = serde_json::from_value(stage.browser.value(width)).unwrap();
    assert!(
        widths[0] > 0.3 && widths[0] < 0.5 && widths.is_sorted_by(|a, b| a >= b),
        "{widths:?}"
    );
    stage.browser.picture("photo");

    stage.drop(&[&photo("coffee"), &photo("flower")]);
    assert_eq!(stage.browser.texts("figcaption"), ["coffee.jpg", "flower.jpg"]);
    let first = stage.browser.texts(".classes li:first-child .label");
    assert_eq!(first, ["espresso", "daisy"]);
    stage.assert_quiet(&[]);
}

#[test]
fn what_is_no_image_is_refused_in_the_servers_own_words() {
    let mut stage = Stage::new(&[("colors", example("colors"))]);
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("<img src=x onerror=alert(1)>.jpg");
    let mut bytes = std::fs::read(photo("cat")).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&cut, bytes).unwrap();
    stage.pick(&[&cut]);
    assert_eq!(
        stage.browser.text(".error"),
        "400: the JPEG image is truncated: send the whole file"
    );
    let yaml = example("colors/model.yaml");
    stage.drop(&[&yaml, &photo("cat")]);
    let error = stage.browser.text(".error");
    assert!(
        error.starts_with("415: ") && error.contains("not a JPEG"),
        "{error}"
    );
    assert_eq!(stage.browser.texts(".classes").len(), 1, "the cat has its answer");
    stage.browser.picture("refused");
    // What is dropped may be a link or a text.
    stage.browser.value(
        "document.querySelector('.drop').dispatchEvent(new DragEvent('drop', \
         {bubbles: true, cancelable: true, dataTransfer: new DataTransfer()}))",
    );
    assert!(stage.browser.text(".status").starts_with("That was not a file"));
    stage.assert_quiet(&["status of 400", "status of 415"]);
}

#[test]
fn the_card_shows_what_the_server_reports() {
    let mut stage = Stage::new(&[
        ("colors", example("colors")),
        ("photos", example("efficientnet-lite0")),
    ]);
    let report = get(&format!("{}/report", stage.management));
    assert_eq!(
        stage.browser.texts("#server li"),
        [
            format!(
                "modelservice-server {}",
                report["serverVersion"].as_str().unwrap()
            ),
            format!("ONNX Runtime {}", report["onnxRuntimeVersion"].as_str().unwrap()),
            "CPUExecutionProvider".to_owned(),
        ]
    );
    assert_eq!(stage.browser.texts("nav a"), ["colors", "photos"]);
    assert_eq!(stage.browser.text("nav a[aria-current]"), "colors");
    stage.choose("photos");
    assert_eq!(stage.browser.text("nav a[aria-current]"), "photos");
    let model = &report["models"][1];
    let facts = stage.browser.text(".about > .facts");
    for fact in ["digest", "producer"] {
        assert!(facts.contains(model[fact].as_str().unwrap()), "{fact}: {facts}");
    }
    assert!(facts.contains(&format!("Opset\n{}", model["opset"])), "{facts}");
    let rows = stage.browser.texts("tbody tr");
    assert_eq!(rows.len(), 2);
    let shown = [
        "input",
        model["inputs"][0]["name"].as_str().unwrap(),
        "FP32",
        "any × 3 × 224 × 224",
    ];
    assert!(shown.iter().all(|part| rows[0].contains(part)), "{rows:?}");
    assert!(rows[1].contains("any × 1000"), "{rows:?}");
    // The address leads to the model, also for other people.
    let address = format!("{}#photos", stage.url);
    stage.browser.open("about:blank");
    stage.browser.open(&address);
    stage
        .browser
        .wait("document.querySelector('h2')?.textContent === 'photos'");
    stage.assert_quiet(&[]);
}

/// Models come from elsewhere; the contents of their files must not run in the viewer's browser.
#[test]
fn nothing_in_a_models_file_is_markup() {
    let evil = "<img src=x onerror=alert(1)></code><script>alert(2)</script>'\"\u{202e}`$(touch x)`";
    let mut model = identity(&[(evil, FLOAT, &[2])]);
    model.producer = evil.to_owned();
    model.description = evil.to_owned();
    model.metadata = vec![onnx::Entry {
        key: evil.to_owned(),
        value: evil.to_owned(),
    }];
    let file = package(&model, None);
    let labels = package(&onnx::Model::default(), None);
    std::fs::copy(example("colors/model.onnx"), labels.path().join("model.onnx")).unwrap();
    let yaml = std::fs::read_to_string(example("colors/model.yaml")).unwrap();
    let yaml = yaml.replace("[red,", &format!("[{},", json!(evil)));
    std::fs::write(labels.path().join("model.yaml"), yaml).unwrap();

    let mut stage = Stage::new(&[("labels", labels.path().into()), ("file", file.path().into())]);
    stage.pick(&[&photo("coffee")]);
    assert!(stage.browser.texts(".classes .label").contains(&evil.to_owned()));
    stage.choose("file");
    assert_eq!(stage.browser.text(".description"), evil);
    stage
        .browser
        .value("document.querySelector('.metadata').open = true");
    let facts = stage.browser.texts(".facts dd, .facts dt");
    assert_eq!(facts.iter().filter(|text| *text == evil).count(), 3, "{facts:?}");
    let name = stage.browser.text(".inputs th");
    assert!(name.contains(evil), "{name}");
    assert_eq!(
        stage
            .browser
            .value("document.querySelectorAll('main img, main script').length"),
        0
    );
    stage.browser.picture("markup");
    stage.assert_quiet(&[]);
    assert_eq!(run_lines(&mut stage, "file", ""), 3);
}

/// Runs the commands that the page offers for a model, as they are, on a photo of this class; returns their number.
fn run_lines(stage: &mut Stage, model: &str, label: &str) -> usize {
    let titles = stage.browser.texts(".lines h4");
    let texts = stage.browser.texts(".lines code");
    let python = root().join(".cache/venv-clients/bin/python");
    assert!(python.exists(), "run examples/clients/prepare");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(photo("coffee"), folder.path().join("image.jpg")).unwrap();
    for (title, text) in titles.iter().zip(&texts) {
        let mut command = if title.contains("curl") {
            let mut shell = Command::new("sh");
            shell.args(["-c", text]);
            shell
        } else {
            let mut python = Command::new(&python);
            python.args(["-c", text]);
            python
        };
        let output = command
            .current_dir(folder.path())
            .env("TOKEN", "secret")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let good = output.status.success() && !said.contains("\"error\"");
        let answered = !said.trim().is_empty() || folder.path().join("answer.bin").exists();
        assert!(good && answered, "{model}: {title}\n{text}\n{said}{output:?}");
        if title.starts_with("An image") {
            assert!(said.contains(label), "{text}\n{said}");
        }
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert!(
            left <= 2 && !folder.path().join("x").exists(),
            "{title} left files"
        );
    }
    texts.len()
}

/// A copied command must work as it is, whatever the model's types are.
#[test]
fn the_lines_to_copy_run_as_they_are() {
    let kinds = package(
        &identity(&[
            ("yes", BOOL, &[-1]),
            ("words", STRING, &[-1, 2]),
            ("numbers", INT64, &[]),
        ]),
        None,
    );
    let halves = package(
        &identity(&[("half", FLOAT16, &[-1, 3]), ("many", FLOAT, &[100])]),
        None,
    );
    // Less than 33 pixels have no output.
    let any_size = package(
        &onnx::model(Graph {
            nodes: vec![node("Conv", &["image", "w"], &["map"])],
            name: "any size".into(),
            initializers: vec![weights("w", FLOAT, &[2, 3, 33, 33])],
            inputs: vec![port("image", FLOAT, &[-1, 3, -1, -1])],
            outputs: vec![port("map", FLOAT, &[-1, 2, -1, -1])],
        }),
        None,
    );
    let numbers = package(
        &onnx::model(Graph {
            nodes: vec![node("Cast", &["text"], &["number"]).int("to", FLOAT.into())],
            name: "numbers".into(),
            initializers: Vec::new(),
            inputs: vec![port("text", STRING, &[-1, -1])],
            outputs: vec![port("number", FLOAT, &[-1, -1])],
        }),
        None,
    );
    let plain = tempfile::tempdir().unwrap();
    std::fs::copy(example("tiny/model.onnx"), plain.path().join("model.onnx")).unwrap();
    let mut stage = Stage::new(&[
        ("photos", example("efficientnet-lite0")),
        ("plain", plain.path().into()),
        ("kinds", kinds.path().into()),
        ("halves", halves.path().into()),
        ("any-size", any_size.path().into()),
        ("numbers", numbers.path().into()),
    ]);
    let counts = [
        ("photos", 5),
        ("plain", 3),
        ("kinds", 3),
        ("halves", 2),
        ("any-size", 3),
        ("numbers", 3),
    ];
    for (model, count) in counts {
        stage.choose(model);
        assert_eq!(run_lines(&mut stage, model, "espresso"), count, "{model}");
    }
    assert_eq!(stage.browser.texts(".try").len(), 0, "halves takes no images");
    stage.assert_quiet(&[]);
}

#[test]
fn a_line_is_copied_with_and_without_the_browsers_clipboard() {
    let mut stage = Stage::new(&[("colors", example("colors"))]);
    let origin = stage.url.trim_end_matches('/').to_owned();
    let allow = json!({"origin": origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    stage.browser.send_to_browser("Browser.grantPermissions", allow);
    let line = stage.browser.texts(".lines code")[0].clone();
    for without in [false, true] {
        stage.browser.value("navigator.clipboard.writeText('')");
        if without {
            stage
                .browser
                .value("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))");
        }
        stage
            .browser
            .value("document.querySelector('.lines button').click()");
        stage
            .browser
            .wait("document.querySelector('.lines button').textContent === 'Copied'");
        assert_eq!(stage.browser.value("navigator.clipboard.readText()"), line);
        stage
            .browser
            .wait("document.querySelector('.lines button').textContent === 'Copy'");
    }
    stage.assert_quiet(&[]);
}

/// The contrast of every text with its background, as WCAG 2 defines it.
const CONTRASTS: &str = "(() => {
    const parts = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = parts(color).map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return (parts(color)[3] ?? 1) === 1 ? color : ground(element.parentElement);
    };
    const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return [...document.body.querySelectorAll('*')].filter((e) => hasText(e) && e.checkVisibility()).map((e) => {
        const [dark, bright] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => a - b);
        return [e.tagName + '.' + e.className, (bright + 0.05) / (dark + 0.05)];
    });
})()";

/// On a phone, in dark mode, with a screen reader or without a mouse.
#[test]
fn the_page_can_be_read_and_used_by_all() {
    let mut stage = Stage::new(&[("colors", example("colors")), ("tiny", example("tiny"))]);
    let yaml = example("colors/model.yaml");
    stage.pick(&[&photo("coffee"), &yaml]);
    for (name, scheme, width) in [
        ("phone", "light", 360),
        ("phone-dark", "dark", 360),
        ("wide-dark", "dark", 1280),
    ] {
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        stage.browser.send("Emulation.setEmulatedMedia", scheme);
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500});
        stage.browser.send("Emulation.setDeviceMetricsOverride", size);
        let needed = stage.browser.value("document.documentElement.scrollWidth");
        assert!(needed.as_u64().unwrap() <= width, "{name} needs {needed} pixels");
        let cut = "[...document.querySelectorAll('.lines pre')].filter((e) => e.scrollWidth > e.clientWidth).length";
        assert_eq!(stage.browser.value(cut), 0, "{name} cuts lines off");
        let contrasts = stage.browser.value(CONTRASTS);
        let contrasts: Vec<(String, f64)> = serde_json::from_value(contrasts).unwrap();
        assert!(contrasts.len() > 40, "{}", contrasts.len());
        let pale: Vec<_> = contrasts.iter().filter(|(_, ratio)| *ratio < 4.5).collect();
        assert!(pale.is_empty(), "{name}: {pale:?}");
        stage.browser.picture(name);
    }
    let tree = stage.browser.send("Accessibility.getFullAXTree", json!({}));
    let mut named = 0;
    for node in tree["nodes"].as_array().unwrap() {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        if node["ignored"] == false
            && [
                "button",
                "link",
                "image",
                "table",
                "region",
                "article",
                "navigation",
            ]
            .contains(&role)
        {
            assert_ne!(node["name"]["value"], "", "{node}");
            named += 1;
        }
    }
    assert!(named > 15, "{named}");
    for selector in [
        "nav a",
        "input[type=file]",
        ".lines button",
        ".lines pre",
        "footer a",
    ] {
        stage.tab_to(selector);
        let ring = "[document.activeElement, document.activeElement.parentElement].some((element) => \
                    getComputedStyle(element).outlineStyle !== 'none')";
        assert_eq!(
            stage.browser.value(ring),
            true,
            "{selector} shows that it has the focus"
        );
    }
    stage.assert_quiet(&["status of 415"]);
}

/// A token must not end up in commands that are copied into a chat.
#[test]
fn a_token_is_asked_for_where_one_is_needed_and_is_not_in_the_lines() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "secret\n").unwrap();
    let mut stage = Stage::start(&json!({
        "models": served(&[("colors", example("colors"))]), "auth": {"tokenFile": tokens.path()},
    }));
    let server_says = |stage: &mut Stage, words: &str| {
        let words = json!(words);
        stage.browser.wait(&format!(
            "document.querySelector('#problem').textContent.includes({words})"
        ));
    };
    server_says(&mut stage, "a token is required");
    stage.type_into("#token-text", "wrong");
    server_says(&mut stage, "the token is unknown");
    assert_eq!(stage.browser.texts("h2").len(), 0);
    stage.type_into("#token-text", "secret");
    stage.shows_a_model();
    assert_eq!(stage.browser.texts("form, #problem").len(), 0);
    stage.pick(&[&photo("coffee")]);
    assert_eq!(stage.browser.texts(".classes .label")[0], "red");
    let lines = stage.browser.texts(".lines code");
    assert!(
        lines
            .iter()
            .all(|line| line.contains("TOKEN") && !line.contains("secret"))
    );
    run_lines(&mut stage, "colors", "red");
    stage.assert_quiet(&["status of 401"]);
}

/// An Ingress may serve a model below a path and strip that path.
#[test]
fn the_page_works_below_a_path() {
    let config = json!({"models": served(&[("colors", example("colors"))])}).to_string();
    let config = modelservice_server::config::parse(&config).unwrap();
    let service = Arc::new(Service::load(&config, &library(), 1).unwrap());
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Ready);
    let router = axum::Router::new().nest_service("/team/a", protocol::router(service, lifecycle));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await });

    let mut stage = Stage::at(format!("http://{address}/team/a/"));
    stage.shows_a_model();
    stage.pick(&[&photo("coffee")]);
    assert_eq!(stage.browser.texts(".classes .label")[0], "red");
    assert_eq!(run_lines(&mut stage, "colors", "red"), 5);
    let described = stage
        .browser
        .value("fetch(document.querySelector('footer a').href).then((r) => r.json())");
    assert_eq!(described["openapi"], "3.1.1");
    stage.assert_quiet(&[]);
}
